# SPDX-License-Identifier: Apache-2.0
"""Planes at cells, in crops and back at pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

Floats = npt.NDArray[np.float32]

_AT_ONCE = 8
"""Crops that are cut at once: what is needed in between stays in the cache."""


def cells_of(plane: npt.NDArray[np.float32], stride: int, border: int = cv2.BORDER_REPLICATE) -> Floats:
    """Mean of a plane (h, w) over the cells of a stride, float32 (ceil(h / stride), ceil(w / stride)).

    Args:
        plane: float32.
        stride: Pixels of a cell.
        border: What cells that reach over the border are filled with: its nearest pixels, or BORDER_CONSTANT: 0.
    """
    down, right = -plane.shape[0] % stride, -plane.shape[1] % stride
    if down or right:
        plane = cv2.copyMakeBorder(plane, 0, down, 0, right, border)
    size = plane.shape[1] // stride, plane.shape[0] // stride
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def shrunk(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """An image, uint8 (H, W, 3), at a smaller size (h, w); every pixel counts by the area that it has there.

    It is halved first where it can be: OpenCV is ten times as fast with blocks of 2 x 2 as with areas that end within
    pixels, and 1920x1080 takes half the time in all. That rounds twice.
    """
    while all(side % 2 == 0 and side >= 2 * wanted for side, wanted in zip(image.shape[:2], size, strict=True)):
        half = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def resized(share: npt.NDArray[np.float32], size: tuple[int, int]) -> Floats:
    """A plane of shares or probabilities, 0..1, at another size (h, w), float32.

    Smaller, every pixel counts by the area that it has there; larger, bilinear. OpenCV's sums of areas may come to a
    bit more than 1, which is no probability.
    """
    shrinks = size[0] <= share.shape[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.minimum(np.asarray(cv2.resize(share, size[::-1], interpolation=way), np.float32), np.float32(1))


def halved(planes: Floats) -> Floats:
    """Means of 2 x 2 cells, (..., a, b) to (..., a / 2, b / 2)."""
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25), np.float32)


def cut(planes: Floats, boxes: Floats, crops: Floats, cells: int, of: npt.NDArray[np.intp] | None = None) -> Floats:
    """Planes that fill boxes, bilinear at the centres of the cells of crops, float32 (P, cells, cells).

    Beside its box a plane is 0.

    Args:
        planes: float32, (S, a, b).
        boxes: What they fill, x0 y0 x1 y1, (S, 4).
        crops: In the same unit, (P, 4).
        cells: In each direction.
        of: Which plane each is cut out of, (P,); None: of the first each.
    """
    of = np.zeros(len(crops), np.intp) if of is None else of
    height, width = planes.shape[1:]
    (left, x, inside_x), (top, y, inside_y) = (
        _placed(boxes[of, axis::2], crops[:, axis::2], cells, planes.shape[2 - axis]) for axis in (0, 1)
    )
    top += of[:, None] * height
    right, below = int(width > 1), int(height > 1)  # from a cell to the next
    lines = planes.reshape(-1, width)
    first = np.arange(_AT_ONCE * cells).reshape(-1, cells, 1) * width
    inside = inside_y[:, :, None] & inside_x[:, None]
    found = np.empty((len(crops), cells, cells), np.float32)
    for start in range(0, len(crops), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        rows = lines[top[some]] * (1 - y[some, :, None]) + lines[top[some] + below] * y[some, :, None]
        at, values, weight = first[: len(rows)] + left[some, None], rows.ravel(), x[some, None]
        found[some] = (values.take(at) * (1 - weight) + values.take(at + right) * weight) * inside[some]
    return found


def _placed(boxes: Floats, crops: Floats, cells: int, count: int) -> tuple[npt.NDArray[Any], ...]:
    """Along one axis, of boxes and crops (P, 2): where the centres of the crops' cells lie, (P, cells) each.

    After which of the ``count`` cells of a box, with which weight of the next, and whether inside the box.
    """
    share = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    steps = crops[:, :1] + share * (crops[:, 1:] - crops[:, :1])
    place = (steps - boxes[:, :1]) / (boxes[:, 1:] - boxes[:, :1]) * count
    inside = (place >= 0) & (place <= count)
    place = np.clip(place - 0.5, 0, count - 1)
    low = np.minimum(place.astype(np.intp), max(count - 2, 0))
    return low, (place - low).astype(np.float32), inside


def pasted(crops: Floats, corners: Floats, boxes: npt.NDArray[np.int64], out: Sequence[Floats]) -> None:
    """Crops (K, n, n) at the pixels of boxes, bilinear, beyond their outermost cells the nearest.

    Args:
        crops: Values.
        corners: What they cover, x0 y0 x1 y1, pixels, (K, 4).
        boxes: Pixels, (K, 4); 0: nothing is pasted.
        out: Where to, float32, (height, width) of each box.
    """
    scale = crops.shape[1] / (corners[:, 2:] - corners[:, :2]).astype(np.float64)
    back = np.zeros((len(crops), 2, 3))
    back[:, (0, 1), (0, 1)] = scale
    back[:, :, 2] = (boxes[:, :2] + 0.5 - corners[:, :2].astype(np.float64)) * scale - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for crop, change, place in zip(crops, back, out, strict=True):
        if place.size:
            cv2.warpAffine(crop, change, place.shape[::-1], place, flags, cv2.BORDER_REPLICATE)


def sigmoid(log_odds: Floats, out: Floats | None = None) -> Floats:
    """1 / (1 + exp(-x)), float32; written to ``out`` where that is given."""
    found = np.negative(log_odds, out=out)
    np.exp(found, out=found)
    found += 1
    return np.divide(np.float32(1), found, out=found)
