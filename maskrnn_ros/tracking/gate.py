# SPDX-License-Identifier: Apache-2.0
"""Box gate: an instance is only where its enlarged box is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import Box


def box_of(probability: npt.NDArray[Any], threshold: float = 0.5) -> Box | None:
    """Smallest box around the pixels of (h, w) that reach the threshold; None where there are none."""
    return Box.of_mask(probability >= threshold)


def boxes_of(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes of what is at least 0.5 in (K, h, w), or of the most there is, float32 (K, 4), x0 y0 x1 y1."""
    found = [box_of(mask, min(0.5, float(mask.max()))) for mask in masks]
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in found if box is not None], np.float32)


def enlarge(box: Box, factor: float, size: tuple[int, int]) -> Box:
    """Scale width and height about the centre, outwards to whole pixels, clipped to (H, W).

    MaskRNN enlarges the box of its localization net by 1.25.

    >>> enlarge(Box(10, 10, 18, 14), 1.25, (100, 100))
    Box(x0=9, y0=9, x1=19, y1=15)
    """
    margin_x, margin_y = (factor - 1) * box.width / 2, (factor - 1) * box.height / 2
    inside = clip((box.x0 - margin_x, box.y0 - margin_y, box.x1 + margin_x, box.y1 + margin_y), size)
    assert inside is not None  # the box itself lies inside
    return inside


def clip(corners: Sequence[float], size: tuple[int, int]) -> Box | None:
    """The pixels of (H, W) that x0, y0, x1, y1 touch; None where there are none.

    >>> clip((-3.0, 1.5, 4.2, 5.0), (4, 8))
    Box(x0=0, y0=1, x1=5, y1=4)
    """
    x0, y0 = max(0, math.floor(corners[0])), max(0, math.floor(corners[1]))
    x1, y1 = min(size[1], math.ceil(corners[2])), min(size[0], math.ceil(corners[3]))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def clipped(corners: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """``clip`` for boxes (K, 4), int64 (K, 4); 0 where there are no pixels."""
    outward = np.concatenate([np.floor(corners[:, :2]), np.ceil(corners[:, 2:])], axis=1)
    boxes = np.clip(outward, 0, (size[1], size[0]) * 2).astype(np.int64)
    return np.asarray(boxes * (boxes[:, :2] < boxes[:, 2:]).all(axis=1, keepdims=True), np.int64)


def scaled_boxes(boxes: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """Boxes (K, 4) enlarged about their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * np.float32(factor / 2)
    return np.concatenate([centre - half, centre + half], axis=1)


def predicted_boxes(priors: npt.NDArray[np.float32], deltas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes (K, 4) that the localization net predicts by its deltas, see ``model.torch.crops.apply_deltas``."""
    centre, size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    moved = centre + deltas[:, :2] * size
    half = size * np.exp(np.clip(deltas[:, 2:], -1.4, 1.4)) / 2
    return np.concatenate([moved - half, moved + half], axis=1)


def whole(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The box of all of an image (h, w), float32 (4,), x0 y0 x1 y1."""
    return np.array([0, 0, size[1], size[0]], np.float32)
