# SPDX-License-Identifier: Apache-2.0
"""A zoom for small instances: each is looked at in a window of its own, cut out of a larger image than the others'.

The working image shows a small instance with so few pixels that the trunk sees little of it. With ``zoom.size`` each
frame has a second, larger image as well. An instance that is small on its seed is followed in that: the networks look
at a window around it as if that were the frame, and what they say is told in the coordinates of all. Its mask is held
at the pixels of the larger image, which is how it is known (``is_near``); its crop is told in pixels of the working
image, like all crops. A window follows from its instance's own state and from nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.flow import FlowEstimator, warp
from maskrnn_ros.model.shapes import CONTEXT, SMALLEST, STRIDE, STRIDES
from maskrnn_ros.quality import working_size
from maskrnn_ros.tracking.cells import Floats, cells_of, cut, resized, shrunk
from maskrnn_ros.tracking.follow import Beside, Following
from maskrnn_ros.tracking.gate import boxes_of, whole
from maskrnn_ros.tracking.look_alikes import none_yet
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.target import Carried, Known
from maskrnn_ros.types import BoolArray, Box, UInt8Array

SIDES = (192, 256, 384, 512)
"""Sides of windows, pixels of the larger image: few, because engines prepare for each size that they see. An instance
that needs a larger one is followed like the others."""

_ROOM = 1.5
"""Side of a window over that of the crop in it, at least: how far an instance may move in a frame."""

_GRID = STRIDES[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A square of the larger image.

    Args:
        box: Pixels of the larger image; sides are multiples of 16.
        size: (h, w) of the larger image.
        work: (h, w) of the working image.
    """

    box: Box
    size: tuple[int, int]
    work: tuple[int, int]

    @staticmethod
    def around(crop: Floats, frame: PreparedFrame) -> Window:
        """The window for a crop (4,), pixels of the working image."""
        size, work = fine_size(frame), frame.size_of_work
        scale = size[1] / work[1]
        enough = (one for one in SIDES if one >= _needed(crop, scale))
        side = min(next(enough, SIDES[-1]), _largest(size))
        corner = []
        for axis in (0, 1):  # x, y
            centre = float(crop[axis] + crop[axis + 2]) / 2 * scale
            first = round((centre - side / 2) / _GRID) * _GRID
            corner.append(max(0, min(first, size[1 - axis] - side)))
        x, y = corner
        return Window(Box(x, y, x + side, y + side), size, work)

    @staticmethod
    def holds(crop: Floats, frame: PreparedFrame) -> bool:
        """Whether the window for a crop would be large enough."""
        size = fine_size(frame)
        return _needed(crop, size[1] / frame.size_of_work[1]) <= _largest(size)

    def of(self, frame: PreparedFrame) -> PreparedFrame:
        """This part of a frame, as a frame of its own."""
        assert frame.fine is not None
        ignored = None if frame.ignored is None else frame.ignored.part(self.size, self.box)
        image = np.ascontiguousarray(frame.fine[self.box.slices])
        size = image.shape[0], image.shape[1]
        return PreparedFrame(stamp_ns=frame.stamp_ns, size=size, image=image, engine=frame.engine, ignored=ignored)

    def inward(self, crop: Floats) -> Floats:
        """From pixels of the working image to those of the window, (4,)."""
        return np.asarray(crop * self._scale - self._corner, np.float32)

    def outward(self, crop: Floats) -> Floats:
        """And back."""
        return np.asarray((crop + self._corner) / self._scale, np.float32)

    @property
    def place(self) -> Floats:
        """Where it is, (4,), pixels of the working image."""
        return self.outward(whole((self.box.height, self.box.width)))

    @property
    def _scale(self) -> Floats:
        y, x = (fine / work for fine, work in zip(self.size, self.work, strict=True))
        return np.array([x, y, x, y], np.float32)

    @property
    def _corner(self) -> Floats:
        return np.array([self.box.x0, self.box.y0, self.box.x0, self.box.y0], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Near:
    """One instance that is looked at in its window.

    Args:
        state: On the frame before, its crop in pixels of the window.
        frame: The window.
        flow: Backward flow in it, float32 (2, h, w), pixels.
        beside: What it is shown of all others there.
        window: Where it is.
        input_width: Of the image as it came, pixels.
    """

    state: InstanceMemory
    frame: PreparedFrame
    flow: Floats
    beside: Beside
    window: Window
    input_width: int

    @property
    def to_input(self) -> float:
        """Pixels of the input per pixel of the window."""
        return self.input_width / self.window.size[1]

    def told(self, state: InstanceMemory) -> InstanceMemory:
        """A state on the window as one on the frame, in the coordinates of all."""
        box, window = state.patch.box, self.window
        moved = None if box is None else box.moved(window.box.x0, window.box.y0)
        patch = Patch(state.patch.values, moved, window.size)
        return dataclasses.replace(state, patch=patch, known=_outside(_known_of(state), window))


def is_near(state: InstanceMemory, frame: PreparedFrame) -> bool:
    """Whether an instance is followed in the larger image."""
    return state.patch.size != frame.size_of_work


def is_small(mask: BoolArray, frame: PreparedFrame, below: int) -> bool:
    """Whether an instance is to be followed in the larger image, by its mask (H, W) on its seed."""
    box = Box.of_mask(mask)
    if frame.fine is None or box is None:
        return False
    side = max(box.width, box.height) * frame.size_of_work[1] / mask.shape[1]
    crop = np.array([0, 0, side, side], np.float32) * np.float32(CONTEXT)
    return side < below and Window.holds(crop, frame)


def near_views(
    states: Mapping[int, InstanceMemory],
    previous: PreparedFrame,
    current: PreparedFrame,
    flow: FlowEstimator,
    following: Following | None,
    config: Config,
    beside: Beside | None,
) -> dict[int, Near]:
    """The windows of those of all instances that are followed in the larger image, by id.

    Args:
        states: Of all, on the frame before.
        previous: That frame.
        current: The frame.
        flow: Estimates the flow in each window.
        following: Looks for what is lost; None: there are no networks, and no windows.
        config: All settings.
        beside: More instances that all are shown.
    """
    found: dict[int, Near] = {}
    if following is None or current.fine is None:
        return found
    search = functools.partial(following.search, frame=current, config=config)
    for i, state in states.items():
        if not is_near(state, current):
            continue
        window = Window.around(_place_of(state, current, search), current)
        there, before = window.of(current), window.of(previous)
        others = {other: _known_of(one).carried for other, one in states.items() if other != i}
        motion = flow(there.image, before.image)
        shown = _shown_in(window, others, beside, motion)
        found[i] = Near(_inside(state, window), there, motion, shown, window, current.size[1])
    return found


def settled(states: Mapping[int, InstanceMemory], frame: PreparedFrame) -> Mapping[int, InstanceMemory]:
    """The same states, with what has grown too large for a window at the pixels of the working image."""
    if frame.fine is None:
        return states

    def is_large(state: InstanceMemory) -> bool:
        return is_near(state, frame) and not Window.holds(_known_of(state).carried.crop, frame)

    large = {i: at_work(state, frame) for i, state in states.items() if is_large(state)}
    return {**states, **large} if large else states


def at_work(state: InstanceMemory, frame: PreparedFrame) -> InstanceMemory:
    """A state whose mask is at the pixels of the working image."""
    if not is_near(state, frame):
        return state
    share = (frame.size_of_work[1] / state.patch.size[1]) ** 2
    patch = Patch.of(resized(state.patch.full, frame.size_of_work))
    return dataclasses.replace(
        state, patch=patch, area=round(state.area * share), usual_area=max(1.0, state.usual_area * share)
    )


def with_near(
    beside: Beside | None,
    states: Mapping[int, InstanceMemory],
    found: Mapping[int, InstanceMemory],
    frame: PreparedFrame,
) -> Beside | None:
    """What the others are shown, with those in windows.

    Args:
        beside: More instances that all are shown.
        states: All, on the frame before.
        found: Those in windows, on the frame.
        frame: The frame.
    """
    if not found:
        return beside
    beside, size = beside or Beside(), frame.size_of_work
    before = [_cells(states[i].patch, size) for i in found] + [beside.before]
    now = [_cells(one.patch, size) for one in found.values()] + [beside.now]
    return Beside(_most(before), _most(now))


def begin(
    following: Following,
    frame: PreparedFrame,
    shares: Mapping[int, Floats],
    around: Mapping[int, Floats],
    config: Config,
) -> dict[int, Known]:
    """Instances as they are marked, the small ones in their windows.

    Args:
        following: Begins them.
        frame: The frame that they were marked on.
        shares: Share of each pixel that each covers, float32 (h, w), by id, see ``share_of``.
        around: What other instances cover, likewise.
        config: All settings.
    """
    far = {i: share for i, share in shares.items() if share.shape == frame.size_of_work}
    known = following.begin(frame, far, {i: around[i] for i in far}, config)
    near = [i for i in shares if i not in far]
    return known | {i: _begin_near(following, frame, shares[i], around[i], config) for i in near}


def _begin_near(following: Following, frame: PreparedFrame, share: Floats, around: Floats, config: Config) -> Known:
    box = boxes_of(share[None])[0] * np.float32(frame.size_of_work[1] / share.shape[1])
    side = float((box[2:] - box[:2]).max()) * CONTEXT
    centre = (box[:2] + box[2:]) / 2
    window = Window.around(np.concatenate([centre - side / 2, centre + side / 2]), frame)
    own, others = (np.ascontiguousarray(plane[window.box.slices]) for plane in (share, around))
    known = following.begin(window.of(frame), {0: own}, {0: others}, config)[0]
    return _outside(known, window)


def fine_image(
    image: UInt8Array, frame_size: tuple[int, int], work: tuple[int, int], config: Config
) -> UInt8Array | None:
    """The larger image of a frame, at most ``zoom.size`` wide or high; None: there is none larger than the working one.

    Args:
        image: RGB, uint8 (h, w, 3): the frame as it came, or as it was saved.
        frame_size: (H, W) as it came, pixels.
        work: (h, w) of the working image.
        config: All settings.
    """
    if not config.zoom.size:
        return None
    size, known = working_size(frame_size, config.zoom.size), (image.shape[0], image.shape[1])
    if size[0] <= work[0] or size[1] <= work[1] or size[0] > known[0] or size[1] > known[1]:
        return None
    return image.copy() if size == known else shrunk(image, size)


def fine_size(frame: PreparedFrame) -> tuple[int, int]:
    """(h, w) of the larger image."""
    assert frame.fine is not None
    return frame.fine.shape[0], frame.fine.shape[1]


def share_of(mask: BoolArray, frame: PreparedFrame, config: Config) -> Floats:
    """Share of each pixel that a mask (H, W) covers, float32: of the larger image where what it marks is small."""
    small = is_small(mask, frame, config.zoom.below)
    return resized(mask.astype(np.float32), fine_size(frame) if small else frame.size_of_work)


def _place_of(state: InstanceMemory, frame: PreparedFrame, search: Callable[[InstanceMemory], Floats]) -> Floats:
    """What a window is put around: where it was; of a lost one every second time where else in the frame it may be."""
    crop = _known_of(state).carried.crop
    if state.frames_unseen % 2 == 0:
        return crop
    box = search(at_work(state, frame))
    if np.isnan(box).any():
        return crop
    moved = (box[:2] + box[2:] - crop[:2] - crop[2:]) / 2
    return np.asarray(crop + np.tile(moved, 2), np.float32)


def _inside(state: InstanceMemory, window: Window) -> InstanceMemory:
    known = _known_of(state)
    carried = dataclasses.replace(known.carried, crop=window.inward(known.carried.crop))
    return dataclasses.replace(state, known=dataclasses.replace(known, carried=carried, alike=none_yet(1)[0]))


def _outside(known: Known, window: Window) -> Known:
    carried = dataclasses.replace(known.carried, crop=window.outward(known.carried.crop))
    return dataclasses.replace(known, carried=carried, alike=none_yet(1)[0])  # it was of a window that is no more


def _shown_in(window: Window, others: Mapping[int, Carried], beside: Beside | None, flow: Floats) -> Beside:
    """What others cover at the cells of a window.

    Where they are now is where the flow takes them: instances are looked at one after the other, and none may depend
    on which comes first.
    """
    beside, side, place = beside or Beside(), window.box.width // STRIDE, window.place
    planes = [_cut(one.probability, one.crop, place, side) for one in others.values() if _meet(one.crop, place)]
    before = _most([*planes, _part(beside.before, window)])
    if before is None:
        return Beside(None, _part(beside.now, window))
    cells = np.stack([cells_of(plane, STRIDE) for plane in flow]) / np.float32(STRIDE)
    return Beside(before, _most([warp(before, cells), _part(beside.now, window)]))


def _part(plane: Floats | None, window: Window) -> Floats | None:
    """A plane of the working image's cells, at the cells of a window."""
    return None if plane is None else _cut(plane, whole(window.work), window.place, window.box.width // STRIDE)


def _cells(patch: Patch, size: tuple[int, int]) -> Floats:
    return cells_of(resized(patch.full, size), STRIDE)


def _most(planes: Sequence[Floats | None]) -> Floats | None:
    known = [plane for plane in planes if plane is not None]
    return np.max(known, axis=0) if known else None


def _cut(plane: Floats, box: Floats, crop: Floats, cells: int) -> Floats:
    return np.asarray(cut(plane[None], box[None], crop[None], cells)[0])


def _known_of(state: InstanceMemory) -> Known:
    assert state.known is not None  # what is near was begun by the networks
    return state.known


def _meet(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    return bool((np.maximum(one[:2], other[:2]) < np.minimum(one[2:], other[2:])).all())


def _needed(crop: Floats, scale: float) -> float:
    return max(float(crop[2] - crop[0]) * scale, SMALLEST) * _ROOM


def _largest(size: tuple[int, int]) -> int:
    return min(SIDES[-1], min(size) // _GRID * _GRID)
