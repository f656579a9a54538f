# SPDX-License-Identifier: Apache-2.0
"""J, F and their statistics against frozen values and against plain loops written from the definition."""

from __future__ import annotations

import doctest
import math
import re
import weakref
from fractions import Fraction

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrnn_ros.metrics import davis as metrics
from maskrnn_ros.metrics.davis import (
    Evaluator,
    Scores,
    Statistics,
    boundary,
    boundary_f,
    jaccard,
    statistics,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 11))
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))


def mask_of(text):
    """Mask of lines of "#" and "."."""
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def square(y0, x0, y1, x1, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


EMPTY, FULL = square(0, 0, 0, 0), square(0, 0, 60, 80)


# --- the definition again, one pixel at a time ---


def slow_jaccard(prediction, truth):
    p, g = (set(zip(*np.nonzero(mask), strict=True)) for mask in (prediction, truth))
    return len(p & g) / len(p | g) if p | g else 1.0


def slow_boundary(mask):
    height, width = mask.shape

    def at(v, u):
        return bool(mask[v, u]) if v < height and u < width else False

    found = set()
    for v in range(height):
        for u in range(width):
            m, e, s, se = at(v, u), at(v, u + 1), at(v + 1, u), at(v + 1, u + 1)
            is_boundary = m != e or m != s or m != se
            if v == height - 1:
                is_boundary = m != e
            if u == width - 1:
                is_boundary = m != s
            if v == height - 1 and u == width - 1:
                is_boundary = False
            if is_boundary:
                found.add((v, u))
    return found


def slow_boundary_f(prediction, truth, radius):
    p, g = slow_boundary(prediction), slow_boundary(truth)
    if not p or not g:
        return 1.0 if not p and not g else 0.0

    def share(these, those):
        near = [a for a in these if any((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 <= radius**2 for b in those)]
        return len(near) / len(these)

    precision, recall = share(p, g), share(g, p)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def slow_statistics(values):
    n = len(values)
    ids = [math.floor(1 + Fraction(k * (n - 1), 4) + Fraction(1, 2)) - 1 for k in range(5)]
    first, last = values[ids[0] : ids[1] + 1], values[ids[3] : ids[4] + 1]
    return (
        sum(values) / n,
        sum(1 for value in values if value > 0.5) / n,
        sum(first) / len(first) - sum(last) / len(last),
    )


# --- J ---


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (EMPTY, FULL, 0.0),
        (FULL, EMPTY, 0.0),
        (FULL, FULL, 1.0),
        (square(0, 0, 10, 10), square(0, 5, 10, 15), 1 / 3),
        (square(0, 0, 1, 1), square(0, 0, 1, 1), 1.0),
        (square(0, 0, 1, 1), square(0, 1, 1, 2), 0.0),
        (square(0, 0, 60, 40), FULL, 0.5),
    ],
)
def test_jaccard_frozen(prediction, truth, expected):
    assert jaccard(prediction, truth) == pytest.approx(expected, abs=1e-12)


@hypothesis.given(pair=pairs)
def test_jaccard_is_that_of_the_definition(pair):
    assert jaccard(*pair) == pytest.approx(slow_jaccard(*pair), abs=1e-9)
    assert type(jaccard(*pair)) is float


# --- boundary ---


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # a pixel is seen from above, from the left and from both
        ("..... ..... ..#.. .....", "..... .##.. .##.. ....."),
        ("#.. ... ...", "#.. ... ..."),
        ("... ... ..#", "... .## .#."),
        ("### ### ###", "... ... ..."),
        ("... ### ...", "### ### ..."),
        (".#. .#. .#.", "##. ##. ##."),
        ("### ### ...", "... ### ..."),
        ("##. ##. ##.", ".#. .#. .#."),
        ("#.#", "##."),
        ("# . #", "# # ."),
        ("#", "."),
    ],
)
def test_boundary_frozen(mask, expected):
    np.testing.assert_array_equal(boundary(mask_of(mask)), mask_of(expected))


@hypothesis.given(mask=hnp.arrays(bool, shapes))
def test_boundary_is_that_of_the_definition(mask):
    found = boundary(mask)
    assert found.dtype == np.bool_
    assert set(zip(*np.nonzero(found), strict=True)) == slow_boundary(mask)


# --- F ---


@pytest.mark.parametrize(
    ("prediction", "truth", "radius", "expected"),
    [
        (EMPTY, EMPTY, None, 1.0),
        (FULL, FULL, None, 1.0),
        # a full mask has no boundary, nor has an empty one
        (FULL, EMPTY, None, 1.0),
        (EMPTY, square(20, 20, 40, 40), None, 0.0),
        (square(20, 20, 40, 40), EMPTY, None, 0.0),
        (FULL, square(20, 20, 40, 40), None, 0.0),
        (square(20, 20, 40, 40), square(20, 20, 40, 40), 0, 1.0),
        (square(9, 9, 10, 10), square(9, 9, 10, 10), 0, 1.0),
        # one pixel has four boundary pixels, two of which lie a step further
        (square(9, 9, 10, 10), square(9, 10, 10, 11), 0, 0.5),
        (square(9, 9, 10, 10), square(9, 10, 10, 11), 1, 1.0),
        # far off
        (square(2, 2, 5, 5), square(50, 70, 55, 75), 5, 0.0),
        # straight edges from border to border: nothing but the distance counts
        (square(0, 0, 60, 40), square(0, 0, 60, 43), 3, 1.0),
        (square(0, 0, 60, 40), square(0, 0, 60, 44), 3, 0.0),
        (square(0, 0, 30, 80), square(0, 0, 33, 80), 3, 1.0),
        (square(0, 0, 30, 80), square(0, 0, 34, 80), 3, 0.0),
        # precision 1, recall 1/2
        (square(0, 10, 60, 80), square(0, 10, 60, 40), 0, 2 / 3),
    ],
)
def test_boundary_f_frozen(prediction, truth, radius, expected):
    assert boundary_f(prediction, truth, radius) == pytest.approx(expected, abs=1e-12)


def single(v, u):
    image = np.zeros((20, 20), np.uint8)
    image[v, u] = 1
    return image


@pytest.mark.parametrize(
    ("dx", "dy", "share"), [(3, 4, 1), (-4, 3, 1), (5, 0, 1), (0, -5, 1), (4, 4, 0), (5, 1, 0), (0, 6, 0)]
)
def test_radius_is_euclidean_and_included(dx, dy, share):
    assert metrics._share_near(single(9, 9), single(9 + dy, 9 + dx), 5) == share


@pytest.mark.parametrize(
    ("shape", "radius"),
    [((480, 854), 8), ((480, 640), 7), ((1080, 1920), 18), ((10, 10), 1), ((100, 75), 1), ((3, 4), 1)],
)
def test_default_radius_is_that_of_davis(shape, radius):
    height = shape[0]
    truth = square(0, 0, height, 1, shape)
    assert boundary_f(square(0, 0, height, 1 + radius, shape), truth) == 1.0
    assert boundary_f(square(0, 0, height, 2 + radius, shape), truth) == 0.0


@hypothesis.given(pair=pairs, radius=st.integers(0, 4))
@hypothesis.settings(max_examples=300)
def test_boundary_f_is_that_of_the_definition(pair, radius):
    assert boundary_f(*pair, radius) == pytest.approx(slow_boundary_f(*pair, radius), abs=1e-9)
    assert type(boundary_f(*pair, radius)) is float


def blobs(rng, shape, scale):
    noise = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), scale)
    return noise > np.quantile(noise, rng.uniform(0.3, 0.95))


@pytest.mark.parametrize("seed", range(6))
def test_boundary_f_of_blobs_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 50)), int(rng.integers(20, 50)))
    prediction, truth = blobs(rng, shape, 4), blobs(rng, shape, 4)
    radius = math.ceil(0.008 * math.sqrt(shape[0] ** 2 + shape[1] ** 2))
    assert boundary_f(prediction, truth) == pytest.approx(slow_boundary_f(prediction, truth, radius), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_boundary_f_of_full_frames_is_that_of_the_exact_distance_transform(seed):
    rng = np.random.default_rng(100 + seed)
    prediction, truth = blobs(rng, (480, 854), 20), blobs(rng, (480, 854), 20)
    p, g = (np.zeros(prediction.shape, bool) for _ in range(2))
    for mask, found in ((prediction, p), (truth, g)):
        for pixel in np.argwhere(boundary(mask)):
            found[tuple(pixel)] = True

    def share(these, those):
        distance = cv2.distanceTransform((~those).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return (np.rint(distance[these].astype(float) ** 2) <= 8**2).mean()

    precision, recall = share(p, g), share(g, p)
    assert 0 < precision < 1
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f(prediction, truth) == pytest.approx(expected, abs=1e-9)


@hypothesis.given(pair=pairs)
def test_f_is_symmetric_and_perfect_for_itself(pair):
    assert boundary_f(pair[0], pair[1]) == pytest.approx(boundary_f(pair[1], pair[0]), abs=1e-12)
    assert boundary_f(pair[0], pair[0]) == 1.0


@pytest.mark.parametrize("measure", [jaccard, boundary_f])
@pytest.mark.parametrize(
    ("prediction", "truth", "got"),
    [
        (np.ones((2, 3), bool), np.ones((3, 2), bool), "bool (2, 3) and bool (3, 2)"),
        (np.ones((2, 3), np.uint8), np.ones((2, 3), bool), "uint8 (2, 3) and bool (2, 3)"),
        (np.ones((2, 3), bool), np.ones((2, 3), np.int32), "bool (2, 3) and int32 (2, 3)"),
        (np.ones((1, 2, 3), bool), np.ones((1, 2, 3), bool), "bool (1, 2, 3) and bool (1, 2, 3)"),
    ],
)
def test_masks_that_do_not_match_are_refused(measure, prediction, truth, got):
    with pytest.raises(ValueError, match=f"masks must be bool .* of one shape, got {re.escape(got)}$"):
        measure(prediction, truth)


def test_negative_radius_is_refused():
    with pytest.raises(ValueError, match=r"^radius must be >= 0 pixels, got -1$"):
        boundary_f(FULL, FULL, -1)


# --- statistics ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.75], Statistics(0.75, 1.0, 0.0)),
        ([0.5], Statistics(0.5, 0.0, 0.0)),
        ([0.5, math.nextafter(0.5, 1)], Statistics(0.5, 0.5, 0.0)),
        # ids 0 0 1 1 1 (1 + 0.25 rounds to 1, 1.5 up to 2): values[0:1] and values[1:2]
        ([1.0, 0.0], Statistics(0.5, 0.5, 1.0)),
        # ids 0 1 2 3 4: both ends of a quarter belong to it
        ([1.0, 0.8, 0.6, 0.4, 0.2], Statistics(0.6, 0.6, 0.9 - 0.3)),
    ],
)
def test_statistics_frozen(values, expected):
    found = statistics(values)
    assert (found.mean, found.recall, found.decay) == pytest.approx(
        (expected.mean, expected.recall, expected.decay), abs=1e-12
    )


@pytest.mark.parametrize("n", [*range(1, 60), 100, 254, 255, 256, 257, 258, 300, 511, 1000])
def test_statistics_are_those_of_the_definition(n):
    values = np.random.default_rng(n).random(n).tolist()
    found = statistics(values)
    assert (found.mean, found.recall, found.decay) == pytest.approx(slow_statistics(values), abs=1e-9)


def test_decay_is_right_beyond_256_frames():
    # 400 frames have ids 0 100 200 299 399; the reference's uint8 takes 299 for 43
    values = [1.0] * 101 + [0.5] * 198 + [0.25] * 101
    assert statistics(values).decay == 0.75


def test_statistics_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"^statistics need at least one value, got none$"):
        statistics([])


# --- the evaluator ---


def label_frames(n, shape=(12, 16), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 4, shape).astype(np.int32) for _ in range(n)]


def evaluate(predictions, truths, ids, convention):
    evaluator = Evaluator(ids, convention)
    for prediction, truth in zip(predictions, truths, strict=True):
        evaluator.add(prediction, truth)
    return evaluator.scores()


@pytest.mark.parametrize("n", [3, 4, 9])
def test_first_and_last_frame_are_not_scored(n):
    predictions, truths = label_frames(n, seed=1), label_frames(n, seed=2)
    scores = evaluate(predictions, truths, (1, 3), "davis2017")
    assert list(scores) == [1, 3]
    for i, found in scores.items():
        inner = [(p == i, t == i) for p, t in zip(predictions[1:-1], truths[1:-1], strict=True)]
        assert found.jaccard == pytest.approx([slow_jaccard(*pair) for pair in inner], abs=1e-9)
        assert found.boundary_f == pytest.approx([slow_boundary_f(*pair, 1) for pair in inner], abs=1e-9)


def test_scores_may_be_asked_for_while_the_sequence_goes_on():
    predictions, truths = label_frames(6, seed=1), label_frames(6, seed=2)
    evaluator = Evaluator((2,), "davis2017")
    for t in range(6):
        evaluator.add(predictions[t], truths[t])
        if t >= 2:
            expected = evaluate(predictions[: t + 1], truths[: t + 1], (2,), "davis2017")
            assert evaluator.scores() == expected
            assert len(expected[2].jaccard) == t - 1


@pytest.mark.parametrize("n", [2, 3, 300])
def test_segtrack2_scores_all_but_the_seed(n):
    predictions, truths = label_frames(n, seed=1), label_frames(n, seed=2)
    scores = evaluate(predictions, truths, (1, 3), "segtrack2")
    for i, found in scores.items():
        later = [(p == i, t == i) for p, t in zip(predictions[1:], truths[1:], strict=True)]
        assert found.jaccard == pytest.approx([slow_jaccard(*pair) for pair in later], abs=1e-9)


@pytest.mark.parametrize("n", [0, 1])
def test_segtrack2_needs_a_frame_after_the_seed(n):
    with pytest.raises(ValueError, match=rf"^a sequence needs 2 frames \(the first is not scored\), got {n}$"):
        evaluate(label_frames(n), label_frames(n), (1,), "segtrack2")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_sequence_without_a_frame_between_is_refused(n):
    with pytest.raises(ValueError, match=rf"^a sequence needs 3 frames .*, got {n}$"):
        evaluate(label_frames(n), label_frames(n), (1,), "davis2017")


def test_davis2016_takes_all_that_is_not_0():
    prediction = np.array([[0, 7, 255, 0]], np.uint8)
    truth = np.array([[0, 255, 1, 255]], np.int32)
    assert evaluate([prediction] * 3, [truth] * 3, (1,), "davis2016")[1].jaccard == (2 / 3,)


def test_davis2016_takes_masks():
    prediction = np.array([[False, True, True, False]])
    assert evaluate([prediction] * 3, [prediction] * 3, (1,), "davis2016")[1].jaccard == (1.0,)


def test_davis2017_void_is_background_and_ids_are_told_apart():
    prediction = np.array([[1, 1, 2, 2, 9]], np.uint8)
    truth = np.array([[1, 255, 2, 1, 255]], np.int32)
    scores = evaluate([prediction] * 3, [truth] * 3, (1, 2), "davis2017")
    assert scores[1].jaccard == (1 / 3,)
    assert scores[2].jaccard == (1 / 2,)


def test_object_without_a_prediction_is_empty():
    truth = square(4, 4, 9, 9).astype(np.int32)
    scores = evaluate([np.zeros_like(truth)] * 3, [truth] * 3, (1, 2), "davis2017")
    assert scores[1] == Scores(jaccard=(0.0,), boundary_f=(0.0,))
    assert scores[2] == Scores(jaccard=(1.0,), boundary_f=(1.0,))


def test_scores_of_300_frames_have_their_statistics():
    # the mask fades out pixel by pixel: J falls from 1 to 2/300
    truth = np.ones((1, 300), np.uint8)
    predictions = [(np.arange(300) < 300 - t).astype(np.uint8)[None] for t in range(300)]
    found = evaluate(predictions, [truth] * 300, (1,), "davis2017")[1]
    series = [(300 - t) / 300 for t in range(1, 299)]
    assert found.jaccard == pytest.approx(series, abs=1e-12)
    of_j, of_f = found.jaccard_statistics, found.boundary_f_statistics
    assert (of_j.mean, of_j.recall, of_j.decay) == pytest.approx(slow_statistics(series), abs=1e-9)
    # the truth has no boundary, the predictions have one
    assert of_f == Statistics(0.0, 0.0, 0.0)


def test_no_frame_is_kept():
    evaluator = Evaluator((1,), "davis2017")
    references = []
    for labels in label_frames(4):
        truth = labels.copy()
        references += [weakref.ref(labels), weakref.ref(truth)]
        evaluator.add(labels, truth)
    del labels, truth
    assert not any(reference() is not None for reference in references)


@pytest.mark.parametrize(
    ("ids", "convention", "text"),
    [
        ((), "davis2017", "instance_ids must be unique and >= 1, at least one, got ()"),
        ((1, 1), "davis2017", "instance_ids must be unique and >= 1, at least one, got (1, 1)"),
        ((0, 1), "davis2017", "instance_ids must be unique and >= 1, at least one, got (0, 1)"),
        ((1, 2), "davis2016", "davis2016 scores one object, got ids (1, 2)"),
        ((1,), "davis", "convention must be one of davis2016, davis2017, segtrack2, got 'davis'"),
    ],
)
def test_evaluator_that_makes_no_sense_is_refused(ids, convention, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Evaluator(ids, convention)


@pytest.mark.parametrize(("first", "second"), [((2, 3), (3, 2)), ((2, 3, 1), (2, 3, 1)), ((6,), (6,))])
def test_labels_that_do_not_match_are_refused(first, second):
    text = f"labels must be (H, W) of one shape, got {first} and {second}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Evaluator((1,), "davis2017").add(np.zeros(first, int), np.zeros(second, int))


def test_examples_in_the_docstrings_run():
    found = doctest.testmod(metrics)
    assert found.attempted >= 6
    assert not found.failed
