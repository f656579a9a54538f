# SPDX-License-Identifier: Apache-2.0
"""What looks like an object and is not it: where else a frame scored high while the object was seen elsewhere.

When an object goes behind something, what resembles it most is often another thing of its kind that has been in the
picture all along. Each object carries a map of such places. The flow moves it with what is there, also while the object
cannot be seen; where the map is sure, the object is neither looked for nor found. Nobody else's objects enter it.

Behind a wall of noise (``tools/measure_occlusion.py``, 24 held-out stills) all frames are OCCLUDED or LOST with the
map, 0.83 of them without. Background that does not score is left out on purpose: the flow is not sharp enough to tell
what comes out from behind an edge from the edge (J&F of the five held-out clips was 0.752 with it and 0.805 without).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.tracking.cells import Floats, cut
from maskrnn_ros.tracking.gate import whole
from maskrnn_ros.types import BoolArray

GRID = 64
"""Cells of a map in each direction, whatever the size of the working image: maps of all objects are one array."""

_SCORE = 0.1
"""Score in the target model from which a cell looks like the object; from 0.03 to 0.1 nothing changes."""

_RISE, _FADE = 0.6, 0.8
"""What a frame adds to a cell that looks like it, and what is left of one that does not."""

_SURE = 0.5
"""Value of a map from which a cell is not the object."""

_OWN, _NEAR = 0.05, (0.4, 3)
"""Probability from which a cell is the object's own; how far around the box of those cells nothing is noted, in sizes
of the box, and cells more. What a mask misses of its object may join it later: where a map is sure it could not."""


def none_yet(count: int) -> Floats:
    """Maps of K objects of which nothing is known, float32 (K, GRID, GRID), 0..1."""
    return np.zeros((count, GRID, GRID), np.float32)


def moved(maps: Floats, flow: Floats) -> Floats:
    """Maps (K, GRID, GRID) on the next frame.

    Args:
        maps: On the frame before.
        flow: Backward flow at cells of stride 4, float32 (2, h4, w4), pixels.
    """
    which = np.flatnonzero(maps.any(axis=(1, 2)))
    if not which.size:
        return maps
    (left, x), (top, y) = (_placed(plane, axis) for axis, plane in ((1, flow[0]), (0, flow[1])))
    # with a border of 0; in NumPy: OpenCV would take a call for each map, and rounds otherwise where it has all at once
    side = GRID + 2
    cells = np.pad(maps[which], ((0, 0), (1, 1), (1, 1))).reshape(len(which), -1)
    first = top * side + left
    # take: four times as fast as an index
    at, right, under, last = (cells.take(first + step, axis=1) for step in (0, 1, side, side + 1))
    above, below = at * (1 - x) + right * x, under * (1 - x) + last * x
    found = np.zeros_like(maps)
    found[which] = above * (1 - y) + below * y
    return found


def at_cells(maps: Floats, size: tuple[int, int]) -> BoolArray:
    """Where maps are sure, at the cells of a frame, bool (K, h4, w4)."""
    return np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in maps]) >= _SURE


def in_crops(maps: Floats, crops: Floats, size: tuple[int, int], cells: int) -> BoolArray:
    """Where maps are sure, in crops.

    Args:
        maps: Of K objects.
        crops: One of each, (K, 4), pixels of the working image.
        size: (h, w) of that.
        cells: Of a crop in each direction, even.

    Returns:
        bool, (K, cells, cells).
    """
    found = np.zeros((len(maps), cells, cells), np.bool_)
    which = np.flatnonzero((maps >= _SURE).any(axis=(1, 2)))
    if which.size:
        half = cut(maps, _everywhere(len(maps), size), crops[which], cells // 2, which)  # finer than the map as it is
        found[which] = (half >= _SURE).repeat(2, 1).repeat(2, 2)
    return found


def seen_elsewhere(maps: Floats, scores: Floats, probability: Floats, crops: Floats, size: tuple[int, int]) -> Floats:
    """Maps of objects that are surely where their masks are, after a frame.

    Args:
        maps: Of K objects, on this frame.
        scores: By their target models, float32 (K, h4, w4).
        probability: Of their masks in their crops, float32 (K, n, n).
        crops: See ``in_crops``.
        size: (h, w) of the working image.
    """
    numbers, everywhere = np.arange(len(maps)), _everywhere(len(maps), size)
    # one below the other: no cell of the grid has a part of two of them
    lines = cv2.resize(scores.reshape(-1, scores.shape[2]), (GRID, GRID * len(maps)), interpolation=cv2.INTER_AREA)
    is_like = lines.reshape(maps.shape) > _SCORE
    is_near = _around(cut(probability, crops, everywhere, GRID, numbers) > _OWN)
    rise = np.where(is_near, np.float32(0), np.float32(_RISE))
    return np.asarray(np.where(is_like, np.minimum(maps + rise, 1), maps * np.float32(_FADE)), np.float32)


def _placed(flow: Floats, axis: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Where along an axis the cells of the grid were, by the flow along it at cells of stride 4, (h4, w4).

    Returns:
        After which cell of a grid with a border of one cell, (GRID, GRID), and with what weight of the next.
    """
    per_cell = np.float32(GRID / (flow.shape[axis] * STRIDE))
    start = np.arange(GRID, dtype=np.float32)
    start = start[:, None] if axis == 0 else start
    place = start + per_cell * np.asarray(cv2.resize(flow, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)
    place = np.clip(place + 1, 0, GRID + np.float32(0.999))
    low = place.astype(np.intp)
    return low, np.asarray(place - low, np.float32)


def _everywhere(count: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.repeat(whole(size)[None], count, axis=0)


def _around(cells: BoolArray) -> BoolArray:
    """Cells in the box of each map's own, enlarged by ``_NEAR``, bool (K, GRID, GRID)."""
    rows, columns = (_reach(np.asarray(cells.any(axis=axis))) for axis in (2, 1))
    return np.asarray(rows[:, :, None] & columns[:, None], np.bool_)


def _reach(cells: BoolArray) -> BoolArray:
    """Along an axis, (K, GRID)."""
    first = cells.argmax(axis=1)
    last = GRID - 1 - cells[:, ::-1].argmax(axis=1)
    margin = _NEAR[0] * (last - first + 1) + _NEAR[1]
    places = np.arange(GRID)
    inside = (places >= (first - margin)[:, None]) & (places <= (last + margin)[:, None])
    return np.asarray(inside & cells.any(axis=1, keepdims=True), np.bool_)
