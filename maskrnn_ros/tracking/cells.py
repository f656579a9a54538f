# SPDX-License-Identifier: Apache-2.0
"""Planes at cells, in crops and back at pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import Box, UInt8Array

Floats = npt.NDArray[np.float32]


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


def cut(plane: npt.NDArray[np.float32], box: Floats, crop: Floats, cells: int) -> Floats:
    """A plane that fills a box, bilinear at the centres of the cells of a crop, float32 (cells, cells).

    Beside the box it is 0.

    Args:
        plane: float32, (a, b).
        box: What it fills, x0 y0 x1 y1.
        crop: In the same unit.
        cells: In each direction.
    """
    inside, weights, low, high = [], [], [], []
    for axis in (0, 1):  # x, y
        count = plane.shape[1 - axis]
        steps = crop[axis] + (np.arange(cells, dtype=np.float32) + 0.5) / cells * (crop[axis + 2] - crop[axis])
        place = (steps - box[axis]) / (box[axis + 2] - box[axis]) * count
        inside.append((place >= 0) & (place <= count))
        place = np.clip(place - 0.5, 0, count - 1)
        first = np.minimum(place.astype(np.int64), max(count - 2, 0))
        low.append(first)
        high.append(np.minimum(first + 1, count - 1))
        weights.append((place - first).astype(np.float32))
    rows = plane[low[1]] * (1 - weights[1])[:, None] + plane[high[1]] * weights[1][:, None]
    found = rows[:, low[0]] * (1 - weights[0]) + rows[:, high[0]] * weights[0]
    return np.asarray(found * (inside[1][:, None] & inside[0]), np.float32)


def pasted(crop: Floats, corners: Floats, box: Box) -> Floats:
    """A crop (n, n) at the pixels of a box, bilinear, beyond its outermost cells the nearest; float32.

    Args:
        crop: Values.
        corners: What it covers, x0 y0 x1 y1, pixels.
        box: Pixels.
    """
    count = crop.shape[0]
    across, down = (count / float(corners[k + 2] - corners[k]) for k in (0, 1))
    back = np.array(
        [
            [across, 0, (box.x0 + 0.5 - float(corners[0])) * across - 0.5],
            [0, down, (box.y0 + 0.5 - float(corners[1])) * down - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(crop, back, (box.width, box.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def sigmoid(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)), float32."""
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)
