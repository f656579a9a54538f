# SPDX-License-Identifier: Apache-2.0
"""From what is known at the working size to masks at the size of the input, each in its box.

A mask is where the probability is at least 0.5, and the crop of an object is three times as large as that: what cannot
come to it is left out at the working size, before it costs anything at the full one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Drafts
from maskrnn_ros.model.refinement import follow, line_of, luma, reach, too_little
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.merge import Likely
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.sheet import ONE, Sheet, bounds, common, grown, inside, parts, scaled
from maskrnn_ros.types import BoolArray, UInt8Array

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BEYOND = 1
"""Pixels of the working image beyond a place to which bilinear enlarging carries it."""

_LEAST = 0.45
"""What bilinear enlarging may make 0.5 of: no more than it is, but for rounding; OpenCV's weights are 32nds."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Places:
    """Where K of all instances are at the working size.

    Args:
        ids: int64, (K,).
        values: Probabilities, float32 (height, width) of each.
        boxes: Of the values, int64 (K, 4).
        likely: Of what of them may come to 0.5 at the full size, likewise.
        size: (h, w).
    """

    ids: Ints
    values: Sequence[Floats]
    boxes: Ints
    likely: Ints
    size: tuple[int, int]

    @staticmethod
    def of(ids: Sequence[int], patches: Patches, least: float) -> _Places:
        """Those that are somewhere at least so probable."""
        limit = np.float32(least)
        likely = bounds([(values >= limit) * ONE for values in patches.views], patches.boxes)
        which = np.flatnonzero(likely[:, 2])
        values = [patches.views[k] for k in which.tolist()]
        return _Places(np.array(ids, np.int64)[which], values, patches.boxes[which], likely[which], patches.size)


def enlarge(ids: Sequence[int], patches: Patches, size: tuple[int, int]) -> Likely:
    """Probabilities at the size of the input, bilinear, where they may be 0.5; ids without such a place are left out.

    Args:
        ids: Ascending.
        patches: Probabilities at the working size.
        size: (H, W) of the input.
    """
    some = _Places.of(ids, patches, _LEAST)
    boxes = inside(grown(some.likely, _BEYOND), some.size)
    small = Sheet.of(inside(grown(boxes, _BEYOND), some.size))
    targets = scaled(boxes, some.size, size)
    values = small.views(small.filled(some.values, some.boxes))
    return Likely(some.ids, targets, _resampled(values, small.windows, some.size, targets, size))


def enlarge_along_edges(
    ids: Sequence[int],
    patches: Patches,
    working: UInt8Array,
    image: UInt8Array,
    config: RefinementConfig,
    pool: ThreadPool,
) -> Likely:
    """The same along the edges of the image, see ``model.refinement``.

    Args:
        ids: Ascending.
        patches: Probabilities at the working size.
        working: The working image, RGB, uint8 (h, w, 3), or its brightness (h, w).
        image: The input, RGB, uint8 (H, W, 3), or its brightness (H, W).
        config: Of the filter.
        pool: Who does it.
    """
    some, size = _Places.of(ids, patches, too_little(config.smoothness)), (image.shape[0], image.shape[1])
    if not len(some.ids):
        return Likely.joined([])
    which, lines, boxes, shown = _lines(some, working, config)
    targets = scaled(inside(grown(shown, _BEYOND), some.size), some.size, size)

    def followed(part: slice) -> list[Floats]:
        fine = _resampled(lines[part], boxes[part], some.size, targets[part], size)
        sheet = Sheet.of(targets[part])
        guides = sheet.views(luma(sheet.cut(image, targets[part])))
        return [follow(line, guide) for line, guide in zip(fine, guides, strict=True)]

    planes = [plane for part in pool.map(followed, pool.parts(len(lines))) for plane in part]
    return Likely(some.ids[which], targets, planes)


def drafts_of(
    ids: Sequence[int],
    patches: Patches,
    size: tuple[int, int],
    guides: tuple[UInt8Array, UInt8Array] | None,
    config: RefinementConfig,
    ignored: BoolArray | None,
) -> Drafts | None:
    """What an engine is told to do the same; None: nothing can win a pixel.

    Args:
        ids: Ascending.
        patches: Probabilities at the working size.
        size: (H, W) of the input.
        guides: See ``Drafts``.
        config: Of the filter.
        ignored: Where no object may be, bool (H, W); None: nowhere.
    """
    least, far = (_LEAST, _BEYOND) if guides is None else (too_little(config.smoothness), reach(config.radius))
    some = _Places.of(ids, patches, least)
    if not len(some.ids):
        return None
    near = common(grown(some.likely, 2 * far), some.boxes)
    return Drafts(
        ids=some.ids.tolist(),
        values=parts(some.values, some.boxes, near),
        boxes=near,
        shown=inside(grown(some.likely, far), some.size),
        size_of_work=some.size,
        size=size,
        guides=guides,
        radius=config.radius,
        smoothness=config.smoothness,
        ignored=ignored,
    )


def _lines(
    some: _Places, working: UInt8Array, config: RefinementConfig
) -> tuple[npt.NDArray[np.intp], list[npt.NDArray[Any]], Ints, Ints]:
    """How brightness says the probability, of those that it may make 0.5 somewhere.

    Returns:
        Which these are, (N,).
        The lines of each, see ``refinement.follow``, float32 (height, width, 2).
        The boxes of these, int64 (N, 4).
        Where it may be 0.5, likewise.
    """
    far = reach(config.radius)
    sheet = Sheet.of(grown(some.likely, 2 * far))
    boxes = inside(sheet.windows, some.size)
    probability, guide = sheet.filled(some.values, some.boxes), luma(sheet.cut(working, boxes))
    for plane in (probability, guide):
        sheet.mirror(plane, boxes)
    slope, start = line_of(probability, guide, config.radius, config.smoothness)
    # the brightness is 0 to 1, so the higher end of the line is all that it can come to
    may_win = start + np.maximum(slope, 0) >= np.float32(_LEAST)
    known = inside(grown(some.likely, far), some.size)
    shown = bounds(sheet.views(may_win.view(np.uint8), known), known)
    which = np.flatnonzero(shown[:, 2])
    lines = sheet.views(cv2.merge((slope, start)), boxes)
    return which, [lines[k] for k in which.tolist()], boxes[which], shown[which]


def _resampled(
    values: Sequence[Floats], boxes: Ints, size: tuple[int, int], targets: Ints, to: tuple[int, int]
) -> list[npt.NDArray[Any]]:
    """Bilinear from boxes of the working image to those of the input; at the border the nearest.

    Args:
        values: float32 (height, width, ...) of each box.
        boxes: Of the working image, int64 (K, 4).
        size: (h, w) of that.
        targets: Of the input, inside the others, likewise.
        to: (H, W) of the input; areas of pixels are aligned.

    Returns:
        float32 (height, width, ...) of each target.
    """
    if size == to:
        return parts(values, boxes, targets)
    scale = np.array((size[1], size[0])) / (to[1], to[0])
    back = np.zeros((len(boxes), 2, 3))
    back[:, (0, 1), (0, 1)] = scale
    back[:, :, 2] = (targets[:, :2] + 0.5) * scale - 0.5 - boxes[:, :2]
    sides = (targets[:, 2:] - targets[:, :2]).tolist()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return [
        cv2.warpAffine(one, change, side, None, flags, cv2.BORDER_REPLICATE)
        for one, change, side in zip(values, back, sides, strict=True)
    ]
