# SPDX-License-Identifier: Apache-2.0
"""From the working size to the size of the input, along the edges of the image."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

Map: TypeAlias = npt.NDArray[np.float32]


def brightness(image: UInt8Array) -> UInt8Array:
    """That of an RGB image, uint8 (H, W, 3), as uint8 (H, W)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def luma(image: UInt8Array) -> Map:
    """Brightness as float32 (H, W) in 0..1, of an RGB image, uint8 (H, W, 3), or of ``brightness``."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.divide(grey, np.float32(255), dtype=np.float32)


def refine(probability: Map, guide: Map, fine_guide: Map, radius: int, smoothness: float) -> Map:
    """Enlarge a probability so that its edges lie on edges of the image.

    Guided filter (He, Sun, Tang, ECCV 2010) in its fast form (He and Sun, arXiv 1505.00996): in every window the
    probability is a linear function of the brightness, found at the small size and applied at the full one,

        a = cov(guide, p) / (var(guide) + smoothness),  b = mean(p) - a mean(guide)
        out = enlarged(mean(a)) fine_guide + enlarged(mean(b))

    At the border the windows are filled by reflection.

    Args:
        probability: float32, (h, w), 0..1.
        guide: Brightness of the working image, (h, w), 0..1.
        fine_guide: Brightness of the input, (H, W).
        radius: Half side of the window, pixels of (h, w).
        smoothness: Variance below which brightness says nothing.

    Returns:
        float32, (H, W), 0..1.
    """
    line = cv2.merge(line_of(probability, guide, radius, smoothness))
    return follow(cv2.resize(line, (fine_guide.shape[1], fine_guide.shape[0])), fine_guide)


def reach(radius: int) -> int:
    """How far around a place its value comes from, pixels of the small size."""
    return 2 * radius + 1


def too_little(smoothness: float) -> float:
    """Where within ``reach`` every probability is at most this, the refined one is less than 0.5.

    Values from 0 to t deviate by at most t / 2, so the slope is at most t / (4 sqrt(smoothness)), and brightness is
    within 1 of its mean:

        out <= t (1 + 1 / (4 sqrt(smoothness)))

    0.4 instead of 0.5 leaves something for rounding.
    """
    return 0.4 / (1 + 0.25 / math.sqrt(smoothness))


def line_of(probability: Map, guide: Map, radius: int, smoothness: float) -> tuple[Map, Map]:
    """mean(a) and mean(b) of ``refine``, (h, w) each."""
    side = 2 * radius + 1

    def mean(plane: Map) -> Map:
        return np.asarray(cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)

    mean_guide, mean_p = mean(guide), mean(probability)
    variance: Map = np.maximum(mean(guide * guide) - mean_guide * mean_guide, 0)
    slope: Map = (mean(guide * probability) - mean_guide * mean_p) / (variance + np.float32(smoothness))
    return mean(slope), mean(mean_p - slope * mean_guide)


def follow(line: Map, guide: Map) -> Map:
    """The probability at every pixel from its line, (H, W, 2), and its brightness, (H, W)."""
    found: Map = line[..., 0] * guide
    found += line[..., 1]
    np.maximum(found, 0, out=found)
    return np.minimum(found, 1, out=found)
