# SPDX-License-Identifier: Apache-2.0
"""T against plain loops written from the definition, and its polygon against what a polygon of a mask must be."""

from __future__ import annotations

import doctest
import itertools
import math

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrnn_ros.metrics import temporal
from maskrnn_ros.metrics.temporal import TemporalStability, instability, matching_cost, outline, shape_contexts

masks = hnp.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 9)))


def square(y0, x0, y1, x1, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def blob(seed, shape=(60, 80)):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random(shape).astype(np.float32), (0, 0), 6)
    return noise > np.quantile(noise, 0.7)


# --- the definition again, one point at a time ---


def slow_contexts(points):
    distances = [math.dist(a, b) for a in points for b in points]
    mean = sum(distances) / len(distances)
    edges = [2 ** (-3 + k) for k in range(5)]  # 1/8 .. 2
    found = []
    for ax, ay in points:
        histogram = {}
        for bx, by in points:
            share = math.dist((ax, ay), (bx, by)) / mean
            if share < edges[-1]:
                angle = math.atan2(by - ay, bx - ax) % (2 * math.pi)
                key = (min(11, int(angle / (2 * math.pi / 12))), sum(share < edge for edge in edges))
                histogram[key] = histogram.get(key, 0) + 1
        found.append({key: count / sum(histogram.values()) for key, count in histogram.items()})
    return found


def slow_cost(a, b):
    keys = a.keys() | b.keys()
    return 0.5 * sum((a.get(k, 0) - b.get(k, 0)) ** 2 / (a.get(k, 0) + b.get(k, 0)) for k in keys)


def slow_path(cost):
    n, m = len(cost), len(cost[0])
    best = {(0, 0): (0.0, None)}
    for i, j in itertools.product(range(n), range(m)):
        before = [(best[p][0], k, p) for k, p in enumerate([(i - 1, j - 1), (i - 1, j), (i, j - 1)]) if p in best]
        if before:
            total, _, place = min(before)
            best[i, j] = (total + cost[i][j], place)
    path = [(n - 1, m - 1)]
    while path[-1] != (0, 0):
        path.append(best[path[-1]][1])
    return path


def slow_t(first, second):
    a, b = slow_contexts(first), slow_contexts(second)
    cost = [[slow_cost(p, q) for q in b] for p in a]
    n, m = len(a), len(b)
    path = slow_path(cost)[:-1]
    row, column = min(path, key=lambda pair: cost[pair[0]][pair[1]])
    turned = [[cost[(i + row + 1) % n][(j + column + 1) % m] for j in range(m)] for i in range(n)]
    pairs = [((i + row + 1) % n, (j + column + 1) % m) for i, j in slow_path(turned)]
    for side in (0, 1):
        kept = {}
        for pair in pairs:
            if pair[side] not in kept or cost[pair[0]][pair[1]] < cost[kept[pair[side]][0]][kept[pair[side]][1]]:
                kept[pair[side]] = pair
        pairs = list(kept.values())
    return 5 * sum(cost[i][j] for i, j in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(8))
def test_t_is_that_of_the_definition(seed):
    first, second = outline(blob(seed)), outline(blob(seed + 100))
    assert len(first) > 20
    expected = slow_t(first.tolist(), second.tolist())
    assert matching_cost(shape_contexts(first), shape_contexts(second)) == pytest.approx(expected, abs=1e-9)
    assert instability(blob(seed), blob(seed + 100)) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.1


# --- the polygon ---


@hypothesis.given(mask=masks)
@hypothesis.settings(max_examples=300)
def test_loops_are_the_edges_of_the_mask_and_enclose_its_area(mask):
    edges, area = set(), 0.0
    for loop in temporal._loops(mask):
        corners = [tuple(corner) for corner in loop.tolist()]
        assert len(set(corners)) == len(corners) >= 4
        assert corners[0] == min(corners, key=lambda corner: (corner[1], corner[0]))
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            assert abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
            assert (a, b) not in edges
            edges.add((a, b))
            area += (a[0] * b[1] - b[0] * a[1]) / 2
    assert area == mask.sum()  # clockwise on the screen: holes count negative
    padded = np.pad(mask, 1)
    assert len(edges) == np.count_nonzero(padded[1:] ^ padded[:-1]) + np.count_nonzero(padded[:, 1:] ^ padded[:, :-1])


def test_outline_of_a_square_has_points_3_pixels_apart():
    points = outline(square(10, 20, 19, 32))
    assert points.tolist() == [
        *[[y, 0.0] for y in (0.0, 3.0, 6.0, 9.0)],
        *[[9.0, x] for x in (3.0, 6.0, 9.0, 12.0)],
        *[[y, 12.0] for y in (6.0, 3.0, 0.0)],
        *[[0.0, x] for x in (9.0, 6.0, 3.0, 0.0)],
    ]


def test_outline_is_that_of_the_polygon_with_most_points_and_without_small_steps():
    steps = square(10, 20, 19, 32)
    steps[18, 26:32] = False  # one pixel = 2 on the doubled grid, within the tolerance of 3
    assert len(temporal._simplified(2 * temporal._turns(next(temporal._loops(steps[10:19, 20:32]))), 3.0)) == 5
    both = square(30, 5, 36, 11) | blob(3)
    assert len(outline(both)) >= len(outline(square(30, 5, 36, 11)))


def test_line_is_simplified_as_by_douglas_and_peucker():
    line = np.array([[0, 0], [1, 0], [10, 4], [20, 0], [30, 9], [40, 0]], float)
    # (1, 0) lies too near to the first; of the rest (30, 9) is farthest, then (20, 0) from the chord to it
    assert temporal._simplified(line, 3.0).tolist() == [[0, 0], [10, 4], [20, 0], [30, 9], [40, 0]]
    assert temporal._simplified(line, 5.0).tolist() == [[0, 0], [20, 0], [30, 9], [40, 0]]
    assert temporal._simplified(line, 9.0).tolist() == [[0, 0], [40, 0]]


# --- edges ---


@pytest.mark.parametrize("mask", [blob(1), np.ones((60, 80), bool), square(0, 0, 60, 40), square(57, 77, 60, 80)])
def test_same_mask_has_t_0_and_so_has_a_shifted_one(mask):
    assert instability(mask, mask) == 0.0
    shifted = np.pad(mask, ((5, 0), (3, 0)))
    assert instability(np.pad(mask, ((0, 5), (0, 3))), shifted) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("nothing", [square(0, 0, 0, 0), square(9, 9, 10, 10), square(0, 0, 1, 1)])
def test_empty_masks_and_single_pixels_have_no_outline_and_no_t(nothing):
    assert outline(nothing).shape == (0, 2)
    assert instability(nothing, blob(1)) is None
    assert instability(blob(1), nothing) is None
    assert instability(nothing, nothing) is None


def test_t_grows_with_the_change_of_shape():
    base = square(10, 10, 50, 50)
    values = [instability(base, square(10, 10, 50 - cut, 50)) for cut in (0, 6, 14, 26)]
    assert values == sorted(values)
    assert values[0] == 0.0 < values[1]


# --- the series ---


def series(frames):
    stability = TemporalStability()
    for mask in frames:
        stability.add(mask)
    return stability


@pytest.mark.parametrize("n", [3, 4, 7])
def test_scored_frames_and_the_first_before_them_count(n):
    frames = [blob(seed) for seed in range(n)]
    expected = [instability(a, b) for a, b in itertools.pairwise(frames[:-1])]
    assert list(series(frames).values) == expected
    assert series(frames).mean() == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_short_a_sequence_has_no_t(n):
    assert series([blob(0)] * n).mean() is None


def test_pairs_without_a_value_do_not_count():
    frames = [blob(0), blob(1), square(0, 0, 0, 0), blob(1), blob(2), blob(3)]
    found = series(frames)
    first, second = instability(blob(0), blob(1)), instability(blob(1), blob(2))
    assert found.values == (first, None, None, second)
    assert found.mean() == pytest.approx((first + second) / 2)
    assert series([square(0, 0, 0, 0)] * 5).mean() is None


def test_more_than_256_frames():
    a, b = square(10, 10, 30, 30), square(10, 10, 30, 40)
    found = series([a if t % 2 else b for t in range(300)])
    assert len(found.values) == 298
    assert found.mean() == pytest.approx((instability(a, b) + instability(b, a)) / 2)


def test_examples_in_the_docstrings_run():
    found = doctest.testmod(temporal)
    assert found.attempted >= 5
    assert not found.failed
