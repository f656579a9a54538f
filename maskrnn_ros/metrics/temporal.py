# SPDX-License-Identifier: Apache-2.0
"""Temporal stability T of DAVIS-2016: how much the outline changes its shape from one frame to the next.

After Perazzi et al. (CVPR 2016), whose public code is the reference: the outline as a polygon, shape contexts
(Belongie et al.) at its points, dynamic time warping between two frames. Smaller is steadier. Jitter counts, but so
does true deformation and occlusion, so the published means leave the sequences out where the object itself is
unsteady (``UNSTEADY``): with that the ground truth of DAVIS-2016 val has 0.088, and other sets cannot be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 3.0
"""Of the simplified polygon, in half pixels; also the longest segment, in pixels."""
ANGLES, RADII = 12, 5
SCALE = 5.0
"""The reference multiplies the mean cost by it."""
UNSTEADY = frozenset(
    "bmx-bumps bmx-trees breakdance breakdance-flare dance-twirl dog dog-agility drift-chicane goat horsejump-high "
    "horsejump-low libby lucia mallard-fly motocross-jump motorbike paragliding parkour rollerblade scooter-gray "
    "soccerball stunt swing tennis".split()
)
"""Sequences of DAVIS-2016 that the mean of T over a set leaves out (davis-matlab, db_seqs)."""
_EDGES = np.logspace(np.log10(1 / 8), np.log10(2), RADII)


def instability(previous: BoolArray, current: BoolArray) -> float | None:
    """T of two consecutive masks, >= 0; None where one has no outline of more than a few pixels.

    Args:
        previous: bool, (H, W).
        current: bool, (H, W).
    """
    before, now = shape_contexts(outline(previous)), shape_contexts(outline(current))
    return matching_cost(before, now) if len(before) and len(now) else None


class TemporalStability:
    """T over the consecutive predicted masks of one object, frame by frame; it keeps no images.

    As in the public numbers the first frame, whose mask is given, is what the second is compared with; the last is
    left out.

    >>> square = np.zeros((40, 40), bool)
    >>> square[10:30, 10:30] = True
    >>> stability = TemporalStability()
    >>> for _ in range(4):
    ...     stability.add(square)
    >>> stability.mean()
    0.0
    """

    def __init__(self) -> None:
        self._previous: FloatArray | None = None
        self._values: list[float | None] = []

    def add(self, prediction: BoolArray) -> None:
        """Take the mask of the next frame, bool (H, W); of the first frame that of the annotation."""
        now = shape_contexts(outline(prediction))
        before, self._previous = self._previous, now
        if before is not None:
            self._values.append(matching_cost(before, now) if len(before) and len(now) else None)

    @property
    def values(self) -> tuple[float | None, ...]:
        """T of every scored frame and the one before it, in order; None where one of the two has no outline."""
        return tuple(self._values[:-1])

    def mean(self) -> float | None:
        """Mean over the pairs that have a value; None where none has."""
        known = [value for value in self.values if value is not None]
        return float(np.mean(known)) if known else None


def outline(mask: BoolArray) -> FloatArray:
    """The polygon with most points around or inside the mask, no segment longer than 3 pixels.

    Polygons run on the grid of pixel corners, begin at their leftmost corner, the upper one of several, with the mask
    on their left hand (as those that the public numbers were made with: it decides the first alignment), and repeat
    their first point as the last. They are simplified in doubled coordinates (Douglas-Peucker, tolerance 3, after
    dropping points nearer than that to the one kept before), and those of 3 points or fewer are dropped. Coordinates
    count from the mask's box.

    Args:
        mask: bool, (H, W).

    Returns:
        float64, (n, 2), (y, x) in pixels; (0, 2) where there is no such polygon.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    longest = np.zeros((0, 2))
    for loop in _loops(mask[y : y + height, x : x + width].T):
        polygon = _simplified(2 * _turns(loop), TOLERANCE) / 2
        if len(polygon) > max(3, len(longest) - 1):
            longest = polygon
    return _subdivided(longest, TOLERANCE)


def shape_contexts(points: FloatArray) -> FloatArray:
    """Share of the points in each of 12 x 5 sectors around each point; directions are absolute.

    The radii end at 1/8 .. 2 of the mean distance of all pairs, in equal steps of the logarithm.

    Args:
        points: float64, (n, 2).

    Returns:
        float64, (n, 60), each row sums to 1.
    """
    count = len(points)
    if not count:
        return np.zeros((0, ANGLES * RADII))
    dx, dy = (points[:, k] - points[:, k, None] for k in range(2))  # [i, j]: from i to j
    distance = np.hypot(dx, dy)
    ring = (distance[..., None] / distance.mean() < _EDGES).sum(axis=-1)  # 5 = innermost, 0 = outside
    sector = np.floor(np.mod(np.arctan2(dy, dx), 2 * np.pi) / (2 * np.pi / ANGLES)).astype(int)
    rows, columns = np.nonzero(ring)
    bins = np.minimum(sector[rows, columns], ANGLES - 1) * RADII + ring[rows, columns] - 1
    histogram = np.bincount(rows * ANGLES * RADII + bins, minlength=count * ANGLES * RADII)
    histogram = histogram.reshape(count, ANGLES * RADII)
    return np.asarray(histogram / histogram.sum(axis=1, keepdims=True), np.float64)


def matching_cost(before: FloatArray, now: FloatArray) -> float:
    """5 times the mean cost of the matched points of two outlines.

    Args:
        before: Shape contexts, float64, (n, 60), n >= 1.
        now: Shape contexts, float64, (m, 60), m >= 1.
    """
    cost = _chi_squared(before, now)
    pairs = _cheapest_path(cost)
    row, column = pairs[np.argmin(cost[pairs[:-1, 0], pairs[:-1, 1]])] if len(pairs) > 1 else pairs[0]
    shift = np.array([row + 1, column + 1])
    pairs = _cheapest_path(np.roll(cost, tuple(-shift), axis=(0, 1)))
    pairs = (pairs + shift) % cost.shape
    for side in range(2):
        pairs = _cheapest_of_each(pairs, cost, side)
    return SCALE * float(cost[pairs[:, 0], pairs[:, 1]].mean())


def _chi_squared(before: FloatArray, now: FloatArray) -> FloatArray:
    """0.5 * sum (a - b)^2 / (a + b) for all pairs of rows, (n, m): 0 for equal rows, 1 for disjoint ones."""
    shared = np.zeros((len(before), len(now)))
    for a, b in zip(before.T, now.T, strict=True):  # = 1 - 2 sum a b / (a + b), most of whose terms are 0
        rows, columns = np.flatnonzero(a), np.flatnonzero(b)
        some = np.ix_(rows, columns)
        shared[some] += a[rows, None] * b[columns] / (a[rows, None] + b[columns])
    cost = 1 - 2 * shared
    return np.where(cost < 1e-12, 0.0, cost)


def _cheapest_path(cost: FloatArray) -> npt.NDArray[np.int64]:
    """Dynamic time warping: pairs (i, j) from the last (n-1, m-1) back to (0, 0), whose own cost does not count."""
    n, m = cost.shape
    flipped = cost[:, ::-1]
    total = np.full((n + m - 1, n + 1), np.inf)  # total[i + j, i + 1]: cheapest way to (i, j)
    total[0, 1] = 0.0
    for k in range(1, n + m - 1):
        low, high = max(0, k - m + 1), min(n, k + 1)
        best = np.minimum(total[k - 1, low:high], total[k - 1, low + 1 : high + 1])
        if k > 1:
            best = np.minimum(best, total[k - 2, low:high])
        total[k, low + 1 : high + 1] = best + flipped.diagonal(m - 1 - k)
    i, j = n - 1, m - 1
    path = [(i, j)]
    while i or j:
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((s for s in steps if min(s) >= 0), key=lambda s: total[s[0] + s[1], s[0] + 1])
        path.append((i, j))
    return np.array(path)


def _cheapest_of_each(pairs: npt.NDArray[np.int64], cost: FloatArray, side: int) -> npt.NDArray[np.int64]:
    """Of the pairs that share their point on one side (0 or 1) the cheapest."""
    order = np.lexsort((cost[pairs[:, 0], pairs[:, 1]], pairs[:, side]))
    ordered = pairs[order]
    is_first = np.append(True, np.diff(ordered[:, side]) != 0)
    return np.asarray(ordered[is_first])


def _loops(mask: BoolArray) -> Iterator[npt.NDArray[np.int64]]:
    """Closed ways along the edges of the mask, (n, 2) corners (x, y), that visit no corner twice.

    Each begins at its upper left corner. Where two pixels touch with their corners only, the way turns right.
    """
    following, width = _edges(mask), mask.shape[1] + 1
    right_of = {1: width, width: -1, -1: -width, -width: 1}
    for start in following:
        while following[start]:
            way, place, step = [start], {start: 0}, 0
            while way:
                onward = following[way[-1]]
                turned = way[-1] + right_of.get(step, 0)
                corner = onward.pop(onward.index(turned) if turned in onward else -1)
                step = corner - way[-1]
                if corner not in place:
                    place[corner] = len(way)
                    way.append(corner)
                    continue
                loop = way[place[corner] :]
                way = way[: place[corner] + 1] if corner != start else []
                for visited in loop[1:]:
                    del place[visited]
                corners = np.roll(loop, -int(np.argmin(loop)))
                yield np.stack([corners % width, corners // width], axis=1)


def _edges(mask: BoolArray) -> dict[int, list[int]]:
    """The one or two corners that follow on a corner, by number of the corner, with the mask on the right."""
    height, width = mask.shape
    padded = np.pad(mask, 1).astype(np.int8)
    below, beside = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    corner = np.arange((height + 1) * (width + 1)).reshape(height + 1, width + 1)
    pairs = [
        (corner[:, :-1][below == 1], 1),
        (corner[:, 1:][below == -1], -1),
        (corner[1:][beside == 1], -(width + 1)),
        (corner[:-1][beside == -1], width + 1),
    ]
    starts = np.concatenate([start for start, _ in pairs])
    ends = np.concatenate([start + step for start, step in pairs])
    order = np.argsort(starts, kind="stable")
    following: dict[int, list[int]] = {}
    for start, end in zip(starts[order].tolist(), ends[order].tolist(), strict=True):
        following.setdefault(start, []).append(end)
    return following


def _turns(loop: npt.NDArray[np.int64]) -> FloatArray:
    """The closed polygon without the points on its straight edges; the first point stays and is the last as well."""
    closed = np.concatenate([loop, loop[:1]])
    steps = np.diff(closed, axis=0)
    is_turn = np.concatenate([[True], (steps[1:] != steps[:-1]).any(axis=1), [True]])
    return np.asarray(closed[is_turn], np.float64)


def _simplified(line: FloatArray, tolerance: float) -> FloatArray:
    """The line (n, 2) without points nearer than the tolerance to the one kept before, then Douglas-Peucker."""
    kept = [0]
    for i, point in enumerate(line[1:-1].tolist(), start=1):
        dx, dy = point[0] - line[kept[-1], 0], point[1] - line[kept[-1], 1]
        if dx * dx + dy * dy >= tolerance**2:
            kept.append(i)
    line = line[[*kept, len(line) - 1]]
    keys, waiting = {0, len(line) - 1}, [(0, len(line) - 1)]
    while waiting:
        first, last = waiting.pop()
        distance = _distance_to_segment(line[first + 1 : last], line[first], line[last])
        if distance.size and distance.max() > tolerance:
            key = last - 1 - int(np.argmax(distance[::-1]))  # of equal ones the last
            keys.add(key)
            waiting += [(first, key), (key, last)]
    return np.asarray(line[sorted(keys)])


def _distance_to_segment(points: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    """Distance of each point (n, 2) to the segment; a segment of no length is its point."""
    along = end - start
    length2 = float(along @ along)
    share = np.clip((points - start) @ along / length2, 0, 1) if length2 else np.zeros(len(points))
    away = points - start - share[:, None] * along
    return np.asarray(np.hypot(away[:, 0], away[:, 1]))


def _subdivided(polygon: FloatArray, longest: float) -> FloatArray:
    """The polygon (n, 2) with its segments split into equal parts, none longer than asked for."""
    if not len(polygon):
        return polygon
    parts = [polygon[:1]]
    for start, end in zip(polygon[:-1], polygon[1:], strict=True):
        count = max(1, int(np.ceil(np.hypot(*(end - start)) / longest)))
        parts.append(start + (end - start) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(parts)
