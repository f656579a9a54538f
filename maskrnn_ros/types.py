# SPDX-License-Identifier: Apache-2.0
"""What travels through the tracker, and the conventions that hold everywhere.

* Images are RGB, uint8, (H, W, 3). Tensors are float32, (C, H, W), in [0, 1].
* Pixel (row v, column u) covers [u, u + 1) x [v, v + 1). Boxes are half-open, (x0, y0, x1, y1), in pixels.
* Flow is backward: what is at p now was at ``p + flow[:, v, u]`` (dx, dy) before, in pixels.
* Times are integer nanoseconds of ``header.stamp``.
* ``labels`` maps hold instance ids: 0 is background, ids start at 1.

These types check what comes from outside; behind them the values are trusted.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from maskrnn_ros.limits import check_name

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.int32]

NEW = 255
"""Value of a label mask that marks a new instance, where it is the only one; in prompts that is id 0."""

MAX_INSTANCE_ID = 2**15 - 1
"""Largest id: a label image is at most 16 bits deep, and ids are signed in some consumers."""


class InstanceState(enum.IntEnum):
    """State of an instance on one image; the values are those of ``InstanceMask.state``."""

    SEEDED = 1
    TRACKING = 2
    OCCLUDED = 3
    LOST = 4
    REMOVED = 5


InstanceStatus = InstanceState
"""The old name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One image of the stream.

    Args:
        stamp_ns: Time of the image, ns, > 0.
        image: RGB, uint8, (H, W, 3), H and W at least 1.
        ignored: bool, (H, W): where no object can be (an ignore mask); None: no mask.

    Raises:
        ValueError: The stamp is not positive, or image or mask are of another shape or dtype.
    """

    stamp_ns: int
    image: UInt8Array
    ignored: BoolArray | None = None

    def __post_init__(self) -> None:
        if self.stamp_ns <= 0:
            raise ValueError(f"stamp must be > 0 ns, got {self.stamp_ns}")
        shape = self.image.shape
        if self.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"image must be uint8 (H, W, 3), got {self.image.dtype} {shape}")
        mask = self.ignored
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape[:2]):
            raise ValueError(f"ignore mask must be bool {shape[:2]} like the image, got {mask.dtype} {mask.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seed:
    """Marks instances on one image: value = id, 0 = background.

    Args:
        stamp_ns: Time of the image that it was drawn on, ns; 0 = the next image.
        labels: int32, (H, W), 0 or ids from 1 to ``MAX_INSTANCE_ID``, at least one pixel not 0.
        names: Names of some of the ids.

    Raises:
        ValueError: The labels are of another shape or dtype, hold no instance or an id out of range, or a name is too
            long.
    """

    stamp_ns: int
    labels: LabelArray
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stamp_ns < 0:
            raise ValueError(f"stamp of a seed must be >= 0 ns, got {self.stamp_ns}")
        if self.labels.dtype != np.int32 or self.labels.ndim != 2:
            raise ValueError(f"labels must be int32 (H, W), got {self.labels.dtype} {self.labels.shape}")
        if not self.labels.size or not self.labels.any():
            raise ValueError(f"a seed must mark at least one pixel, got none in {self.labels.shape}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high > MAX_INSTANCE_ID:
            raise ValueError(f"ids must lie in 1..{MAX_INSTANCE_ID} (0 = background), got {low}..{high}")
        for name in self.names.values():
            check_name(name)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids that it marks, ascending."""
        # Counting is ten times faster than the sorting of np.unique, and callbacks wait for it.
        present = np.bincount(self.labels.ravel())
        present[0] = 0
        return tuple(np.flatnonzero(present).tolist())

    @property
    def distinct(self) -> bool:
        """Whether it is refused where an instance is there already: whoever draws labels means them."""
        return False

    @property
    def needs_picture(self) -> bool:
        """Whether something has to be cut out of the image."""
        return False

    @functools.cached_property
    def boxes(self) -> Mapping[int, Box | None]:
        """Boxes of what it marks, by id."""
        return {i: Box.of_mask(self.labels == i) for i in self.ids}

    def content(self) -> Iterator[bytes]:
        """All but the stamp: two seeds that give the same are the same."""
        yield self.labels.astype(np.uint16).tobytes()  # ids fit into 16 bits
        yield repr((self.size, sorted(self.names.items()))).encode()

    def settled(self, free: Callable[[Collection[int]], Iterator[int]]) -> Seed:
        """The same with its final ids: a mask of nothing but 255 is the one instance of the next free id.

        Args:
            free: Gives free ids, the next ones first, beside those that it is given.
        """
        if self.ids != (NEW,):
            return self
        i = next(free(()))
        labels: LabelArray = np.where(self.labels == NEW, i, 0).astype(np.int32)
        names = {i: self.names[NEW]} if NEW in self.names else {}
        return Seed(stamp_ns=self.stamp_ns, labels=labels, names=names)

    def cut(
        self,
        image: UInt8Array,
        size: tuple[int, int],
        backend: object,
        before: Mapping[int, BoolArray] | None = None,
    ) -> Seed:
        """The labels as they are, see ``PromptSeed.cut``."""
        return self

    def outside(self, ignored: BoolArray | None) -> Seed:
        """The seed without its pixels in an ignore mask: what is drawn there is part of what hides the object.

        Args:
            ignored: bool, (H, W), of the seed's size; None: nothing is ignored.

        Raises:
            ValueError: All of an instance lies in it.
        """
        if ignored is None or not (ignored & (self.labels != 0)).any():
            return self
        labels = np.where(ignored, 0, self.labels).astype(np.int32)
        gone = sorted(set(self.ids) - set(np.unique(labels).tolist()))
        if gone:
            raise ValueError(
                f"instance {gone[0]} lies wholly in the ignore mask of the image, expected a pixel of it outside"
            )
        return dataclasses.replace(self, labels=labels)


@dataclasses.dataclass(frozen=True)
class Box:
    """Half-open box in pixels: it covers columns x0 .. x1 - 1 and rows y0 .. y1 - 1.

    >>> Box(2, 1, 5, 3).width, Box(2, 1, 5, 3).height
    (3, 2)
    """

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise ValueError(f"a box must hold a pixel, got x {self.x0}..{self.x1}, y {self.y0}..{self.y1}")

    @property
    def width(self) -> int:
        """Columns covered."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Rows covered."""
        return self.y1 - self.y0

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an (H, W) array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def intersection(self, other: Box) -> Box | None:
        """What both cover; None where that is nothing."""
        x0, y0, x1, y1 = max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def moved(self, dx: int, dy: int) -> Box:
        """The box elsewhere."""
        return Box(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)

    def grown(self, margin: int, size: tuple[int, int]) -> Box:
        """The box with a margin, inside (H, W)."""
        return Box(
            max(0, self.x0 - margin),
            max(0, self.y0 - margin),
            min(size[1], self.x1 + margin),
            min(size[0], self.y1 + margin),
        )

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1.

        >>> Box(0, 0, 2, 2).iou(Box(1, 0, 3, 2)) == 1 / 3
        True
        """
        across = max(0, min(self.x1, other.x1) - max(self.x0, other.x0))
        down = max(0, min(self.y1, other.y1) - max(self.y0, other.y0))
        return across * down / (self.width * self.height + other.width * other.height - across * down)

    @staticmethod
    def of_mask(mask: npt.NDArray[np.generic]) -> Box | None:
        """Smallest box around the non-zero pixels of (H, W); None where there are none.

        >>> Box.of_mask(np.eye(3, dtype=bool))
        Box(x0=0, y0=0, x1=3, y1=3)
        """
        columns = np.flatnonzero(mask.any(axis=0))
        if not columns.size:
            return None
        rows = np.flatnonzero(mask.any(axis=1))
        return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


class _Late:
    """A field that is an array, or a function that makes it, called when the field is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type | None = None) -> npt.NDArray[np.float32]:
        if instance is None:
            raise AttributeError(self._name)  # the field has no default
        found: npt.NDArray[np.float32] | Callable[[], npt.NDArray[np.float32]] = instance.__dict__[self._name]
        if callable(found):
            found = found()
            instance.__dict__[self._name] = found
        return found

    def __set__(self, instance: object, value: npt.NDArray[np.float32] | Callable[[], npt.NDArray[np.float32]]) -> None:
        instance.__dict__[self._name] = value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """One instance on one image, at the size of the input.

    Args:
        instance_id: Public id, >= 1.
        name: Name given with the seed, may be empty.
        state: State on this image.
        age: Images since the last seed of this id.
        frames_unseen: Images since the instance was last seen.
        score: Estimate of the mask's IoU with the truth, 0..1; 0 where the mask is empty.
        visibility: Estimate of the visible share, 0..1.
        box: Smallest box around the mask; None where the mask is empty.
        mask: bool, (box.height, box.width): the mask inside the box; (0, 0) where it is empty.
        probability: float32, same shape, in [0, 1]: pre-merge probability inside the box; or what makes it when it is
            first read, as where masks are merged on a GPU.
        velocity: Mean motion, (x, y) in pixels per second; None where unknown.
        predicted_box: While OCCLUDED: where it would be; None in any other state and where that is not known.
    """

    instance_id: int
    name: str
    state: InstanceState
    age: int
    frames_unseen: int
    score: float
    visibility: float
    box: Box | None
    mask: BoolArray
    probability: _Late = _Late()
    velocity: tuple[float, float] | None
    predicted_box: Box | None = None

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def centroid(self) -> tuple[float, float] | None:
        """Mean of the pixel centres of the mask, (x, y) in pixels; None where it is empty."""
        if self.box is None:
            return None
        rows, columns = np.nonzero(self.mask)
        return float(columns.mean()) + self.box.x0 + 0.5, float(rows.mean()) + self.box.y0 + 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracks:
    """All instances on one image.

    Args:
        stamp_ns: Stamp of the image, ns.
        labels: int32, (H, W): the merged label map at the size of the input.
        tracks: By ascending id; occluded and lost ones included.
    """

    stamp_ns: int
    labels: LabelArray
    tracks: tuple[Track, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]
