# SPDX-License-Identifier: Apache-2.0
"""Boxes and points to masks, by GrabCut, which goes by the colours of this one image and has learned nothing.

``PromptBackend`` is all that another segmenter has to be, the learned one of ``prompts.learned`` among them;
``build_prompts`` gives the one that the config names.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import cv2
import numpy as np

from maskrnn_ros.factory import is_factory, made_by
from maskrnn_ros.sections import PromptsConfig
from maskrnn_ros.types import BoolArray, Box, UInt8Array

_MARGIN = 0.5
"""How far around a box colours are learnt, as a share of its longer side."""
_CORE, _LARGE_CORE = 0.25, 0.6
"""Of a box: share of its width and height about the middle that is surely the object; at first, and if that fails."""
_FITS = 0.8
"""IoU of a box with that around its mask from which the first attempt is good."""
_REACH = 0.4
"""How far an object may reach from a point on it, as a share of the image's longer side."""
_SURE = 0.125
"""Share of that reach that is surely the object."""
_OBJECT = (cv2.GC_FGD, cv2.GC_PR_FGD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A pixel position that is on the object or beside it.

    Args:
        x: Pixels, the first pixel's centre is at 0.5.
        y: Likewise.
        on_object: False: not on it.
    """

    x: float
    y: float
    on_object: bool = True


def clicked(x: float, y: float, size: tuple[int, int]) -> Point:
    """The point of a click on a viewer's picture.

    Viewers round to whole pixels: a click on the last half of one is said to be at the width.

    Args:
        x: Pixels.
        y: Likewise.
        size: (H, W) of the image.

    Raises:
        ValueError: It lies outside the image.
    """
    height, width = size
    point = Point(x=width - 0.5 if x == width else x, y=height - 0.5 if y == height else y)
    Prompt(points=(point,)).check_inside(size)
    return point


class UnsureError(ValueError):
    """A backend has a mask that it does not believe in.

    Args:
        mask: bool, (H, W).
        confidence: IoU with the object that it is thought to have, 0..1.
        least: That it should have.
    """

    def __init__(self, mask: BoolArray, confidence: float, least: float) -> None:
        super().__init__(f"unsure ({confidence:.2f}, below {least:g}): click again or draw")
        self.mask, self.confidence, self.least = mask, confidence, least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is said of one object: a box around it, points, or both.

    Args:
        box: Around the object, pixels.
        points: On it or beside it.
        mask: What it was taken for before, bool (H, W), to be mended by the points; None: nothing is known.
        is_correction: The mask is that of an instance, and is put in where the image is at hand.

    Raises:
        ValueError: Neither a box nor a point on the object, nor any point where there is a mask.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: BoolArray | None = dataclasses.field(default=None, compare=False, repr=False)
    is_correction: bool = False

    def __post_init__(self) -> None:
        has_mask = self.mask is not None or self.is_correction
        if self.box is None and not (self.points if has_mask else self.says_where):
            raise ValueError("a prompt needs a box or a point on the object, got neither")

    def __str__(self) -> str:
        box = f"box ({self.box.x0}, {self.box.y0}, {self.box.x1}, {self.box.y1})" if self.box is not None else ""
        shown = [point for point in self.points if point.on_object] or self.points
        points = ", ".join(f"({point.x:g}, {point.y:g})" for point in shown)
        return " with ".join(part for part in (box, f"point {points}" if points else "") if part)

    @property
    def says_where(self) -> bool:
        """Whether box or points say by themselves where the object is."""
        return self.box is not None or any(point.on_object for point in self.points)

    def scaled(self, across: float, down: float) -> Prompt:
        """The same for an image whose width and height are those multiples; a box keeps at least a pixel."""
        points = tuple(dataclasses.replace(point, x=point.x * across, y=point.y * down) for point in self.points)
        mask = None if self.mask is None else _scaled(self.mask, across, down)
        if self.box is None:
            return Prompt(points=points, mask=mask, is_correction=self.is_correction)
        x0, y0 = math.floor(self.box.x0 * across), math.floor(self.box.y0 * down)
        box = Box(x0, y0, max(x0 + 1, math.ceil(self.box.x1 * across)), max(y0 + 1, math.ceil(self.box.y1 * down)))
        return Prompt(box=box, points=points, mask=mask, is_correction=self.is_correction)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Refuse what lies outside an image of (H, W).

        Raises:
            ValueError: A point lies outside it, or the box wholly, or the mask is of another size.
        """
        height, width = size
        if self.mask is not None and self.mask.shape != size:
            rows, columns = self.mask.shape
            raise ValueError(f"mask must be {width}x{height} (width x height) like the image, got {columns}x{rows}")
        for point in self.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise ValueError(f"points must lie inside the {width}x{height} image, got ({point.x:g}, {point.y:g})")
        if self.box is not None:
            _inside(self.box, height, width)


class PromptBackend(Protocol):
    """Makes a mask of a prompt."""

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """The object's mask, bool (H, W); perhaps empty.

        Args:
            image: RGB, uint8 (H, W, 3).
            prompt: What is said of the object.

        Raises:
            ValueError: The prompt lies outside the image.
            UnsureError: There is a mask, and it is likely wrong.
        """
        ...


class GrabCut:
    """Graph cut with colour models (Rother et al., GrabCut, SIGGRAPH 2004), in a window around the prompt."""

    _LONGEST = 300
    """Longer side of the window that the cut runs on, pixels: 200 takes half the time and gives 0.02 to 0.05 less IoU.
    The mask is brought to the image's size afterwards."""
    _LONGEST_OF_CLICKS = 128
    """The same without a box: less detail leads away from the object less often."""
    _ITERATIONS = 3

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """See ``PromptBackend``."""
        height, width = image.shape[:2]
        prompt.check_inside((height, width))
        if prompt.box is None and prompt.mask is not None and prompt.mask.any():
            return self._mended(image, prompt.points, prompt.mask)
        if prompt.box is None:
            return self._mask(image, prompt.points, None, 0.0)
        box = _inside(prompt.box, height, width)
        first = self._mask(image, prompt.points, box, _CORE)
        if _fit(first, box) > _FITS:
            return first
        # a mask that leaves its box empty at the sides is often the background's plainest part turned round
        second = self._mask(image, prompt.points, box, _LARGE_CORE)
        return second if _fit(second, box) > _fit(first, box) else first

    def _mask(self, image: UInt8Array, points: tuple[Point, ...], box: Box | None, core: float) -> BoolArray:
        """GrabCut around the box or the points, at a size that is quick; ``core`` see ``_CORE``."""
        height, width = image.shape[:2]
        reach = _REACH * max(height, width)
        window = _window(box, points, reach, height, width)
        crop = image[window.slices]
        longest = self._LONGEST if box is not None else self._LONGEST_OF_CLICKS
        scale = min(1.0, longest / max(crop.shape[:2]))
        size = (max(2, round(crop.shape[1] * scale)), max(2, round(crop.shape[0] * scale)))
        trimap = np.zeros(size[::-1], np.uint8)  # GC_BGD
        canvas = _Canvas(trimap, window, scale)
        if box is not None:
            canvas.box(box, core)
        else:
            canvas.discs(points, reach)
        canvas.points(points)
        found = self._cut(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), trimap)
        if box is None:
            found = canvas.connected(found, points)
        mask = np.zeros((height, width), np.bool_)
        large = cv2.resize(found.astype(np.float32), (crop.shape[1], crop.shape[0]), interpolation=cv2.INTER_LINEAR)
        mask[window.slices] = large >= 0.5
        return mask

    def _mended(self, image: UInt8Array, points: tuple[Point, ...], before: BoolArray) -> BoolArray:
        """A mask with what clicks on the object find, without what clicks beside it find."""
        mask = before.copy()
        on = tuple(point for point in points if point.on_object)
        off = tuple(point for point in points if not point.on_object)
        if on:
            mask |= self._mask(image, points, None, 0.0)
        for point in off:
            there = dataclasses.replace(point, on_object=True)
            others = tuple(dataclasses.replace(one, on_object=False) for one in on)
            mask &= ~self._mask(image, (there, *others), None, 0.0)
        return mask

    def _cut(self, image: UInt8Array, trimap: UInt8Array) -> BoolArray:
        is_object = np.isin(trimap, _OBJECT)
        if not is_object.any() or is_object.all():
            return is_object  # there is nothing to learn the colours of one side from
        cv2.setRNGSeed(0)  # its colour models start at random
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(image), trimap, None, *models, self._ITERATIONS, cv2.GC_INIT_WITH_MASK)
        found: BoolArray = np.isin(trimap, _OBJECT)
        return found


def _fit(mask: BoolArray, box: Box) -> float:
    """How well the mask fills its box, 0..1."""
    found = Box.of_mask(mask)
    return found.iou(box) if found is not None else 0.0


class _Canvas:
    """Draws GrabCut's labels of a window that is scaled down.

    Args:
        trimap: uint8 (h, w), drawn on in place; all of it is surely background at first.
        window: Where it is in the image, pixels.
        scale: Its pixels per pixel of the image.
    """

    def __init__(self, trimap: UInt8Array, window: Box, scale: float) -> None:
        self._trimap = trimap
        self._window = window
        self._scale = scale

    def box(self, box: Box, sure: float) -> None:
        """The object is in the box, perhaps all of it, and surely about its middle.

        That keeps the cut from taking the background for the object, where people stand before a plain wall.
        """
        x0, y0 = self._at(box.x0, box.y0)
        x1, y1 = self._at(box.x1, box.y1)
        self._trimap[y0 : max(y0 + 1, y1), x0 : max(x0 + 1, x1)] = cv2.GC_PR_FGD
        core = (int(sure * (x1 - x0) / 2), int(sure * (y1 - y0) / 2))
        cv2.ellipse(self._trimap, ((x0 + x1) // 2, (y0 + y1) // 2), core, 0, 0, 360, cv2.GC_FGD, -1)

    def discs(self, points: tuple[Point, ...], reach: float) -> None:
        """A point says nothing of the object's size: it may be everything within reach, and is likely half of that."""
        around = [self._at(point.x, point.y) for point in points if point.on_object]
        for part, value in ((1.0, cv2.GC_PR_BGD), (0.5, cv2.GC_PR_FGD), (_SURE, cv2.GC_FGD)):
            for centre in around:
                cv2.circle(self._trimap, centre, max(1, int(part * reach * self._scale)), value, -1)

    def points(self, points: tuple[Point, ...]) -> None:
        """What is sure of each point, those beside the object last."""
        radius = max(1, round(0.015 * max(self._trimap.shape)))
        for point in sorted(points, key=lambda point: not point.on_object):
            value = cv2.GC_FGD if point.on_object else cv2.GC_BGD
            cv2.circle(self._trimap, self._at(point.x, point.y), radius, value, -1)

    def connected(self, found: BoolArray, points: tuple[Point, ...]) -> BoolArray:
        """Only what hangs together with a point on the object: what looks alike elsewhere is another one."""
        _, parts = cv2.connectedComponents(found.astype(np.uint8), connectivity=4)
        hit = {int(parts[y, x]) for x, y in (self._at(point.x, point.y) for point in points if point.on_object)}
        kept: BoolArray = np.isin(parts, sorted(hit - {0}))
        return kept

    def _at(self, x: float, y: float) -> tuple[int, int]:
        height, width = self._trimap.shape
        column, row = (x - self._window.x0) * self._scale, (y - self._window.y0) * self._scale
        return min(int(column), width - 1), min(int(row), height - 1)


def build_prompts(config: PromptsConfig, trunk: str = "shipped") -> PromptBackend:
    """The backend of ``prompts.backend``: ``grabcut``, ``learned``, or ``package.module:factory``.

    The factory is called without arguments and gives a ``PromptBackend``: a segmenter of one's own, the client of a
    service.

    Args:
        config: Settings.
        trunk: What ``trunk.weights`` names; the learned one looks with it.

    Raises:
        ValueError: There is none of that name, or it cannot be made.
    """
    name = config.backend
    if name == "grabcut":
        return GrabCut()
    if name == "learned":
        from maskrnn_ros.prompts.learned import build_learned  # it knows this module

        return build_learned(config.weights, trunk, config.zoom, config.min_confidence)
    if not is_factory(name):
        raise ValueError(f"prompt backend must be grabcut, learned or package.module:factory, got {name!r}")
    try:
        backend: PromptBackend = made_by(name)
    except ValueError as error:
        raise ValueError(f"prompt backend {name!r}: {error}") from error
    return backend


def _scaled(mask: BoolArray, across: float, down: float) -> BoolArray:
    size = max(1, round(mask.shape[1] * across)), max(1, round(mask.shape[0] * down))
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0)


def _inside(box: Box, height: int, width: int) -> Box:
    x0, y0, x1, y1 = max(0, box.x0), max(0, box.y0), min(width, box.x1), min(height, box.y1)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"box must overlap the {width}x{height} image, got {box}")
    return Box(x0, y0, x1, y1)


def _window(box: Box | None, points: tuple[Point, ...], reach: float, height: int, width: int) -> Box:
    """What the colours of object and background are learnt from."""
    xs = [point.x for point in points] + ([box.x0, box.x1] if box else [])
    ys = [point.y for point in points] + ([box.y0, box.y1] if box else [])
    margin = max(8.0, _MARGIN * max(box.width, box.height)) if box else 1.1 * reach
    x0, y0 = max(0, int(min(xs) - margin)), max(0, int(min(ys) - margin))
    return Box(x0, y0, min(width, int(max(xs) + margin) + 1), min(height, int(max(ys) + margin) + 1))
