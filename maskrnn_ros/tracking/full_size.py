# SPDX-License-Identifier: Apache-2.0
"""From what is known at the working size to masks at the size of the input, each in its box.

A mask is where the probability is at least 0.5, and the crop of an object is three times as large as that: what cannot
come to it is left out at the working size, before it costs anything at the full one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Drafts
from maskrnn_ros.model.refinement import follow, line_of, luma, reach, too_little
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.merge import Likely
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.sheet import Sheet, bounds, common, grown, inside, parts, scaled
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
        likely = bounds([values >= limit for values in patches.views], patches.boxes)
        every = _Places(np.array(ids, np.int64), patches.views, patches.boxes, likely, patches.size)
        return every.only(np.flatnonzero(likely[:, 2]))

    def only(self, which: npt.NDArray[np.intp]) -> _Places:
        """Some of them."""
        values = [self.values[k] for k in which.tolist()]
        return _Places(self.ids[which], values, self.boxes[which], self.likely[which], self.size)


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
    fine = Sheet.of(scaled(boxes, some.size, size))
    found = _resampled(small.filled(some.values, some.boxes), small, some.size, fine, size)
    return Likely(some.ids, fine.windows, fine.views(found))


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
    some = _Places.of(ids, patches, too_little(config.smoothness))
    shares = pool.shares(len(some.ids))
    return Likely.joined(pool.map(lambda which: _refined(some.only(which), working, image, config), shares))


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


def _refined(some: _Places, working: UInt8Array, image: UInt8Array, config: RefinementConfig) -> Likely:
    """Probabilities at the full size, their edges along the edges of the image."""
    size, far = (image.shape[0], image.shape[1]), reach(config.radius)
    small = Sheet.of(grown(some.likely, 2 * far))
    windows = inside(small.windows, some.size)
    probability, guide = small.filled(some.values, some.boxes), luma(small.cut(working, windows))
    for plane in (probability, guide):
        small.mirror(plane, windows)
    slope, start = line_of(probability, guide, config.radius, config.smoothness)
    # the brightness is 0 to 1, so the higher end of the line is all that it can come to
    may_win = start + np.maximum(slope, 0) >= np.float32(_LEAST)
    known = inside(grown(some.likely, far), some.size)
    shown = bounds(small.views(may_win, known), known)
    which = np.flatnonzero(shown[:, 2])
    if not which.size:
        return Likely.joined([])
    fine = Sheet.of(scaled(inside(grown(shown[which], _BEYOND), some.size), some.size, size))
    small = dataclasses.replace(small, windows=windows).only(which)
    line = _resampled(cv2.merge((slope, start)), small, some.size, fine, size)
    return Likely(some.ids[which], fine.windows, fine.views(follow(line[..., 0], line[..., 1], luma(fine.cut(image)))))


def _resampled(values: Floats, small: Sheet, size: tuple[int, int], fine: Sheet, to: tuple[int, int]) -> Floats:
    """Bilinear from windows of the working image to those of the input; at the border the nearest.

    Args:
        values: float32, of the sheet ``small``.
        small: Windows of the working image.
        size: (h, w) of that.
        fine: Windows of the input, inside those of the other sheet.
        to: (H, W) of the input; areas of pixels are aligned.

    Returns:
        float32, of the sheet ``fine``.
    """
    found = np.zeros((*fine.size, *values.shape[2:]), np.float32)
    if size == to:
        for room, view in zip(fine.views(found), small.views(values, fine.windows), strict=True):
            room[:] = view
        return found
    scale = np.array((size[1], size[0])) / (to[1], to[0])
    back = np.zeros((len(fine.windows), 2, 3))
    back[:, (0, 1), (0, 1)] = scale
    back[:, :, 2] = (fine.windows[:, :2] + 0.5) * scale - 0.5 - small.windows[:, :2]
    sides = (fine.windows[:, 2:] - fine.windows[:, :2]).tolist()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for view, change, side, room in zip(small.views(values), back, sides, fine.views(found), strict=True):
        cv2.warpAffine(view, change, side, room, flags, cv2.BORDER_REPLICATE)
    return found
