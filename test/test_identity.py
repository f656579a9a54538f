# SPDX-License-Identifier: Apache-2.0
"""Switched identities and masks of absent objects against plain counts."""

import doctest

import numpy as np
import pytest

from maskrnn_ros.metrics import identity
from maskrnn_ros.metrics.identity import Identity, IdentityEvaluator


def slow(predictions, truths, i):
    switches = absent = claimed = 0
    for prediction, truth in zip(predictions, truths, strict=True):
        pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
        overlap = {}
        for p, t in pairs:
            if p == i and t:
                overlap[t] = overlap.get(t, 0) + 1
        own = overlap.pop(i, 0)
        switches += any(count > own for count in overlap.values())
        if not any(t == i for _, t in pairs):
            absent += 1
            claimed += any(p == i for p, _ in pairs)
    return Identity(id_switches=switches, absent=absent, claimed=claimed)


@pytest.mark.parametrize(("convention", "last"), [("davis2017", -1), ("segtrack2", None)])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_the_definition(convention, last, seed):
    rng = np.random.default_rng(seed)
    predictions = rng.integers(0, 4, (300, 2, 3))
    truths = rng.choice([0, 1, 2, 3, 4], (300, 2, 3))  # 4 is none of the scored objects
    evaluator = IdentityEvaluator((1, 2, 3), convention)
    for pair in zip(predictions, truths, strict=True):
        evaluator.add(*pair)
    for i, found in evaluator.results().items():
        assert found == slow(predictions[1:last], truths[1:last], i)
        assert found.id_switches and found.absent and found.claimed
        assert found.absent_false_rate == found.claimed / found.absent


def test_the_only_object_of_davis2016_is_never_another_and_may_be_absent():
    evaluator = IdentityEvaluator((1,), "davis2016")
    for prediction, truth in [(1, 1), (7, 255), (255, 0), (0, 0), (1, 1)]:
        evaluator.add(np.array([[prediction]]), np.array([[truth]]))
    assert evaluator.results()[1] == Identity(id_switches=0, absent=2, claimed=1)


def test_an_object_that_is_always_there_has_no_rate():
    assert Identity(id_switches=0, absent=0, claimed=0).absent_false_rate is None


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(identity).attempted >= 3
    assert not doctest.testmod(identity).failed
