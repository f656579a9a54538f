# SPDX-License-Identifier: Apache-2.0
"""From what is known at the working size to masks at the size of the input, each in its box.

A mask is where the probability is at least 0.5, and the crop of an object is three times as large as that: what cannot
come to it is left out at the working size, before it costs anything at the full one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Drafts
from maskrnn_ros.model.refinement import follow, line_of, luma, reach, too_little
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.merge import Likely
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import BoolArray, Box, UInt8Array

_BEYOND = 1
"""Pixels of the working image beyond a place to which bilinear enlarging carries it."""

_LEAST = 0.45
"""What bilinear enlarging may make 0.5 of: no more than it is, but for rounding; OpenCV's weights are 32nds."""


def enlarge(patches: Mapping[int, Patch], size: tuple[int, int]) -> dict[int, Likely]:
    """Probabilities at the size of the input, bilinear, where they may be 0.5; ids without such a place are left out.

    Args:
        patches: Probabilities at the working size, by id.
        size: (H, W) of the input.
    """
    found = {i: _enlarged(patch, size) for i, patch in patches.items()}
    return {i: one for i, one in found.items() if one is not None}


def enlarge_along_edges(
    patches: Mapping[int, Patch], working: UInt8Array, image: UInt8Array, config: RefinementConfig, pool: ThreadPool
) -> dict[int, Likely]:
    """The same along the edges of the image, see ``model.refinement``.

    Args:
        patches: Probabilities at the working size, by id.
        working: The working image, RGB, uint8 (h, w, 3).
        image: The input, RGB, uint8 (H, W, 3), or its brightness (H, W).
        config: Of the filter.
        pool: Who does it.
    """
    found = pool.map_values(lambda patch: _refined(patch, working, image, config), patches)
    return {i: one for i, one in found.items() if one is not None}


def drafts_of(
    patches: Mapping[int, Patch],
    size: tuple[int, int],
    guides: tuple[UInt8Array, UInt8Array] | None,
    config: RefinementConfig,
    ignored: BoolArray | None,
) -> Drafts | None:
    """What an engine is told to do the same; None: nothing can win a pixel.

    Args:
        patches: Probabilities at the working size, by id.
        size: (H, W) of the input.
        guides: See ``Drafts``.
        config: Of the filter.
        ignored: Where no object may be, bool (H, W); None: nowhere.
    """
    least, far = (_LEAST, _BEYOND) if guides is None else (too_little(config.smoothness), reach(config.radius))
    ids, values, boxes, shown = [], [], [], []
    for i, patch in sorted(patches.items()):
        likely = _where(patch.values, patch.box, least)
        near = (
            None if likely is None or patch.box is None else likely.grown(2 * far, patch.size).intersection(patch.box)
        )
        if likely is None or near is None or patch.box is None:
            continue
        ids.append(i)
        values.append(patch.values[near.moved(-patch.box.x0, -patch.box.y0).slices])
        boxes.append((near.x0, near.y0, near.x1, near.y1))
        grown = likely.grown(far, patch.size)
        shown.append((grown.x0, grown.y0, grown.x1, grown.y1))
    if not ids:
        return None
    return Drafts(
        ids=ids,
        values=values,
        boxes=np.array(boxes, np.int64),
        shown=np.array(shown, np.int64),
        size_of_work=patches[ids[0]].size,
        size=size,
        guides=guides,
        radius=config.radius,
        smoothness=config.smoothness,
        ignored=ignored,
    )


def _enlarged(patch: Patch, size: tuple[int, int]) -> Likely | None:
    box = _where(patch.values, patch.box, _LEAST)
    if box is None:
        return None
    box = box.grown(_BEYOND, patch.size)
    target = _scaled(box, patch.size, size)
    source = box.grown(_BEYOND, patch.size)
    return Likely(target, _resampled(_padded(patch, source), source, patch.size, target, size))


def _refined(patch: Patch, small: UInt8Array, image: UInt8Array, config: RefinementConfig) -> Likely | None:
    """A mask at the full size, its edge along the edges of the image."""
    size = image.shape[0], image.shape[1]
    likely = _where(patch.values, patch.box, too_little(config.smoothness))
    if likely is None:
        return None
    source = likely.grown(2 * reach(config.radius), patch.size)
    line = line_of(_padded(patch, source), luma(small[source.slices]), config.radius, config.smoothness)
    # the brightness is 0 to 1, so the higher end of the line is all that it can come to
    known = likely.grown(reach(config.radius), patch.size)
    inside = line[known.moved(-source.x0, -source.y0).slices]
    shown = _where(inside[..., 1] + np.maximum(inside[..., 0], 0), known, _LEAST)
    if shown is None:
        return None
    target = _scaled(shown.grown(_BEYOND, patch.size), patch.size, size)
    return Likely(target, follow(_resampled(line, source, patch.size, target, size), luma(image[target.slices])))


def _where(values: npt.NDArray[np.float32], box: Box | None, least: float) -> Box | None:
    """The box of what is at least so much, of the values of a box; None: nothing is."""
    if box is None:
        return None
    x, y, width, height = cv2.boundingRect((values >= np.float32(least)).view(np.uint8))
    return Box(x, y, x + width, y + height).moved(box.x0, box.y0) if width else None


def _padded(patch: Patch, box: Box) -> npt.NDArray[np.float32]:
    """A patch in another box, 0 beside it."""
    out = np.zeros((box.height, box.width), np.float32)
    both = box.intersection(patch.box) if patch.box is not None else None
    if both is not None and patch.box is not None:
        values = patch.values[both.moved(-patch.box.x0, -patch.box.y0).slices]
        out[both.moved(-box.x0, -box.y0).slices] = values
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
