# SPDX-License-Identifier: Apache-2.0
"""From what is known at the working size to masks at the size of the input, each in its box."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import RefinementConfig
from maskrnn_ros.model.refinement import follow, line_of, luma, reach
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.tracking.merge import Likely
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import Box, UInt8Array

_BEYOND = 1
"""Pixels of the working image beyond a patch to which bilinear enlarging carries it."""


def enlarge(patches: Mapping[int, Patch], size: tuple[int, int]) -> dict[int, Likely]:
    """Probabilities at the size of the input, bilinear; ids whose patch is empty are left out.

    Args:
        patches: Probabilities at the working size, by id.
        size: (H, W) of the input.
    """
    return {i: _enlarged(patch, size) for i, patch in patches.items() if patch.box is not None}


def enlarge_along_edges(
    patches: Mapping[int, Patch], working: UInt8Array, image: UInt8Array, config: RefinementConfig, pool: ThreadPool
) -> dict[int, Likely]:
    """The same along the edges of the image, see ``model.refinement``.

    Args:
        patches: Probabilities at the working size, by id.
        working: The working image, RGB, uint8 (h, w, 3).
        image: The input, RGB, uint8 (H, W, 3).
        config: Of the filter.
        pool: Who does it.
    """
    known = {i: patch for i, patch in patches.items() if patch.box is not None}
    return pool.map_values(lambda patch: _refined(patch, working, image, config), known)


def _enlarged(patch: Patch, size: tuple[int, int]) -> Likely:
    assert patch.box is not None
    box = patch.box.grown(_BEYOND, patch.size)
    target = _scaled(box, patch.size, size)
    return Likely(target, _resampled(_padded(patch.values, patch.box, box), box, patch.size, target, size))


def _refined(patch: Patch, small: UInt8Array, image: UInt8Array, config: RefinementConfig) -> Likely:
    """A mask at the full size, its edge along the edges of the image."""
    assert patch.box is not None
    size = image.shape[0], image.shape[1]
    shown = patch.box.grown(reach(config.radius), patch.size)
    source = shown.grown(reach(config.radius), patch.size)
    guide = luma(small[source.slices])
    line = line_of(_padded(patch.values, patch.box, source), guide, config.radius, config.smoothness)
    target = _scaled(shown, patch.size, size)
    return Likely(target, follow(_resampled(line, source, patch.size, target, size), luma(image[target.slices])))


def _padded(values: npt.NDArray[np.float32], box: Box, larger: Box) -> npt.NDArray[np.float32]:
    """Values of a box in a larger one, 0 around them."""
    out = np.zeros((larger.height, larger.width), np.float32)
    out[box.moved(-larger.x0, -larger.y0).slices] = values
    return out


def _scaled(box: Box, size: tuple[int, int], to: tuple[int, int]) -> Box:
    """The pixels of the input that a box of the working image touches."""
    x, y = to[1] / size[1], to[0] / size[0]
    return Box(
        math.floor(box.x0 * x),
        math.floor(box.y0 * y),
        min(to[1], math.ceil(box.x1 * x)),
        min(to[0], math.ceil(box.y1 * y)),
    )


def _resampled(
    values: npt.NDArray[np.float32], box: Box, size: tuple[int, int], target: Box, to: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Bilinear from a box of the working image to one of the input, pixel areas aligned; at the border the nearest."""
    if size == to:
        return values[target.moved(-box.x0, -box.y0).slices]
    x, y = size[1] / to[1], size[0] / to[0]
    back = np.array(
        [[x, 0, (target.x0 + 0.5) * x - 0.5 - box.x0], [0, y, (target.y0 + 0.5) * y - 0.5 - box.y0]], np.float64
    )
    found = cv2.warpAffine(
        values,
        back,
        (target.width, target.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)
