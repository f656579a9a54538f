# SPDX-License-Identifier: Apache-2.0
"""Boxes of many objects in arrays, and windows of their maps side by side in one: what a call does, it does to all.

Boxes are int64 (K, 4): x0 y0 x1 y1, pixels of the maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

Ints = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

ONE = np.uint8(1)
"""Bool times this is bytes; OpenCV takes no bool."""

_OUTWARD: Ints = np.array((-1, -1, 1, 1))
_ORIGIN = [0, 1, 0, 1]


def bounds(masks: Sequence[UInt8Array], boxes: Ints) -> Ints:
    """Boxes around what is not 0 of masks, uint8 (height, width), that lie in boxes; 0: nothing is."""
    found: Ints = np.array([cv2.boundingRect(mask) for mask in masks], np.int64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    found += boxes[:, _ORIGIN]
    return found * (found[:, 2:3] > found[:, :1])


def grown(boxes: Ints, margin: int) -> Ints:
    """Boxes with a margin."""
    return boxes + margin * _OUTWARD


def inside(boxes: Ints, size: tuple[int, int]) -> Ints:
    """What of boxes lies in (h, w); they meet it."""
    found: Ints = np.minimum(np.maximum(boxes, 0), (size[1], size[0], size[1], size[0]))
    return found


def scaled(boxes: Ints, size: tuple[int, int], to: tuple[int, int]) -> Ints:
    """The pixels of (H, W) that boxes of (h, w) touch: corners rounded outwards."""
    found: Ints = boxes * -_OUTWARD * (to[1], to[0], to[1], to[0]) // (size[1], size[0], size[1], size[0])
    return found * -_OUTWARD


def common(one: Ints, other: Ints) -> Ints:
    """What boxes share with others; they meet."""
    found: Ints = np.minimum(one * _OUTWARD, other * _OUTWARD)
    return found * _OUTWARD


def parts(arrays: Sequence[npt.NDArray[T]], places: Ints, boxes: Ints) -> list[npt.NDArray[T]]:
    """Boxes of arrays that lie in places, views; nothing of an array whose box is 0."""
    corners = (boxes - places[:, _ORIGIN]).tolist()
    return [array[y0:y1, x0:x1] for array, (x0, y0, x1, y1) in zip(arrays, corners, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class Sheet:
    """Where windows of K maps lie side by side in one array.

    Args:
        windows: What of its map each shows, boxes.
        shifts: What leads from a place of the map to one of the array, x y x y, int64 (K, 4).
        size: (h, w) of the array.
    """

    windows: Ints
    shifts: Ints
    size: tuple[int, int]

    @staticmethod
    def of(windows: Ints) -> Sheet:
        """Room for windows in rows, the highest first; a row is about as long as all are high."""
        corners = windows.tolist()
        heights = [y1 - y0 for _, y0, _, y1 in corners]
        limit = sum([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in corners]) ** 0.5
        shifts = [[0, 0, 0, 0]] * len(corners)
        x = y = below = longest = 0
        for k in sorted(range(len(corners)), key=heights.__getitem__, reverse=True):
            x0, y0, x1, _ = corners[k]
            if x and x + x1 - x0 > limit:
                x, y = 0, below
            if not x:
                below = y + heights[k]
            shifts[k] = [x - x0, y - y0, x - x0, y - y0]
            x += x1 - x0
            longest = x if x > longest else longest
        return Sheet(windows, np.array(shifts, np.int64).reshape(-1, 4), (below, longest))

    def views(self, array: npt.NDArray[T], boxes: Ints | None = None) -> list[npt.NDArray[T]]:
        """What of an array (h, w, ...) shows boxes of the maps; None: all of the windows."""
        places = (self.windows if boxes is None else boxes) + self.shifts
        return [array[y0:y1, x0:x1] for x0, y0, x1, y1 in places.tolist()]

    def cut(self, image: UInt8Array, windows: Ints) -> UInt8Array:
        """What the windows show of one image (H, W, ...) that is the map of all; beside ``windows`` 0."""
        found = np.zeros((*self.size, *image.shape[2:]), np.uint8)
        for view, (x0, y0, x1, y1) in zip(self.views(found, windows), windows.tolist(), strict=True):
            view[:] = image[y0:y1, x0:x1]
        return found

    def filled(self, values: Sequence[npt.NDArray[np.float32]], boxes: Ints) -> npt.NDArray[np.float32]:
        """The windows of maps that are 0 but in boxes, which they meet; float32 (h, w)."""
        found = np.zeros(self.size, np.float32)
        both = common(self.windows, boxes)
        for view, part in zip(self.views(found, both), parts(values, boxes, both), strict=True):
            view[:] = part
        return found

    def mirror(self, array: npt.NDArray[np.float32], known: Ints) -> None:
        """Fill what lies beside the known part of each window by reflection, as filters of OpenCV do at a border."""
        beside = (known - self.windows) * -_OUTWARD
        if not beside.any():
            return
        pairs = zip(self.views(array), self.views(array, known), beside.tolist(), strict=True)
        for whole, part, (left, top, right, below) in pairs:
            if left or top or right or below:
                cv2.copyMakeBorder(part, top, below, left, right, cv2.BORDER_REFLECT, whole)
