# SPDX-License-Identifier: Apache-2.0
"""Pictures and ids brought to the size of a training, without stretching."""

from __future__ import annotations

import cv2
import numpy as np

from maskrnn_ros.types import LabelArray, UInt8Array


def fit_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """The largest middle part of an image that has the shape of ``size``, at that size, RGB uint8 (h, w, 3)."""
    return np.asarray(_resize(_middle(image, size), size), np.uint8)


def fit_labels(labels: LabelArray, size: tuple[int, int]) -> UInt8Array:
    """The same for ids: each pixel gets the id that covers the most of it."""
    part = _middle(labels, size)
    ids = np.flatnonzero(np.bincount(part.ravel()))
    shares = np.stack([_resize((part == i).astype(np.float32), size) for i in ids])
    return np.asarray(ids[shares.argmax(axis=0)], np.uint8)


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    way = cv2.INTER_AREA if size[0] < picture.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=way))


def _middle(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]
