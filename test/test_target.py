# SPDX-License-Identifier: Apache-2.0
"""The target model of the tracker is that of the training, and the regression that it says it is."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shipped import assert_same, engine

from maskrnn_ros.model.engine import Keys, Summed
from maskrnn_ros.model.shapes import CODES, COLUMNS, KEYS, RATE, SEED_SHARE, TARGET
from maskrnn_ros.model.torch import target as training
from maskrnn_ros.model.torch.matching import Keys as TrainingKeys
from maskrnn_ros.tracking.target import Memory, Sums, stacked, taken

RIDGE = -6.0


def rows(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Rectified columns with the constant 1, and what is asked for, float64."""
    random = np.random.default_rng(seed)
    columns = np.maximum(random.normal(0.3, 1, (count, COLUMNS)), 0)
    return np.concatenate([columns, np.ones((count, 1))], axis=1), random.uniform(-1, 1, (count, TARGET))


def sums(seed: int) -> Sums:
    columns, asked = rows(seed)
    weight = 1 / len(columns)
    square, moved = weight * columns.T @ columns, weight * columns.T @ asked
    return Sums(square.astype(np.float32)[None], moved.astype(np.float32)[None])


def keys(value: float) -> Keys:
    return Keys(np.full((1, CODES, KEYS), value, np.float32), np.full((1, 2, KEYS), value, np.float32))


def summed(one: Sums, cells: Keys) -> Summed:
    return Summed(one.square, one.target, cells.code, cells.values)


def in_training(memory: Memory) -> training.Memory:
    def tensors(one: Sums) -> training.Sums:
        return training.Sums(torch.from_numpy(one.square), torch.from_numpy(one.target))

    def cells(one: Keys) -> TrainingKeys:
        return TrainingKeys(torch.from_numpy(one.code), torch.from_numpy(one.values))

    return training.Memory(
        tensors(memory.seed), tensors(memory.recent), cells(memory.seed_keys), cells(memory.newest_keys)
    )


def test_coefficients_solve_the_weighted_ridge_regression() -> None:
    """Least squares over the rows of seed and recent frames, by their shares, and rows of the ridge."""
    memory = Memory(sums(1), sums(2), keys(0), keys(0))
    (found,) = memory.coefficients(RIDGE, [0])
    assert found.shape == (COLUMNS + 1, TARGET) and found.dtype == np.float32
    (one, one_asked), (other, other_asked) = rows(1), rows(2)
    shares = SEED_SHARE / len(one), (1 - SEED_SHARE) / len(other)
    square = shares[0] * one.T @ one + shares[1] * other.T @ other
    ridge = math.exp(RIDGE) * np.diagonal(square).mean() + 1e-6
    left = np.concatenate(
        [math.sqrt(shares[0]) * one, math.sqrt(shares[1]) * other, math.sqrt(ridge) * np.eye(COLUMNS + 1)]
    )
    right = np.concatenate(
        [math.sqrt(shares[0]) * one_asked, math.sqrt(shares[1]) * other_asked, np.zeros((COLUMNS + 1, TARGET))]
    )
    expected = np.linalg.lstsq(left, right, rcond=None)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [0.1, 0.19])
def test_a_new_frame_is_blended_in_as_in_the_training(rate: float) -> None:
    memory = Memory(sums(1), sums(2), keys(0.1), keys(0.2))
    after = memory.after([0], summed(sums(3), keys(0.3)), np.array([rate]))
    new = in_training(Memory(sums(3), sums(3), keys(0.3), keys(0.3)))
    expected = training.remember(in_training(memory), new.recent, new.seed_keys, torch.tensor([rate]))
    for part in ("seed", "recent"):
        for field in ("square", "target"):
            found, other = (getattr(getattr(one, part), field) for one in (after, expected))
            np.testing.assert_allclose(found, other, rtol=1e-6, atol=1e-7)
    assert after.seed is memory.seed and after.seed_keys is memory.seed_keys
    assert np.array_equal(after.newest_keys.code, expected.newest_keys.code)
    net = SimpleNamespace(ridge=torch.tensor(RIDGE))
    np.testing.assert_allclose(
        after.coefficients(RIDGE, [0]), training.coefficients(net, expected), rtol=1e-3, atol=1e-4
    )


def test_a_blend_lies_between_both_by_its_share() -> None:
    one, other = sums(1), sums(2)
    found = one.blend(other, 0.25)
    assert found.square.dtype == found.target.dtype == np.float32
    np.testing.assert_allclose(found.square, 0.75 * one.square + 0.25 * other.square, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.target, 0.75 * one.target + 0.25 * other.target, rtol=1e-5, atol=1e-6)


def test_the_seed_keeps_its_share_whatever_comes() -> None:
    seed = memory = Memory(sums(1), sums(1), keys(0), keys(0))
    for _ in range(200):
        memory = memory.after([0], summed(sums(2), keys(1)), np.array([RATE]))
    np.testing.assert_allclose(memory.recent.square, sums(2).square, rtol=1e-4, atol=1e-5)
    assert memory.seed is seed.seed and memory.newest_keys.values.min() == 1


def test_a_memory_that_knows_nothing_says_nothing() -> None:
    nothing = Memory.nothing(2, engine())
    assert nothing.coefficients(RIDGE, [0, 1]).shape[0] == 2 and not nothing.coefficients(RIDGE, [0, 1]).any()
    assert nothing.seed_keys.code.shape == (2, CODES, KEYS) and not nothing.seed_keys.values.any()


def test_of_many_each_learns_and_is_solved_as_it_is_alone() -> None:
    """Bit by bit: which others there are changes nothing."""
    alone = [Memory(sums(k), sums(k + 10), keys(k), keys(k)) for k in range(5)]
    many = stacked([taken(one, 0) for one in alone], engine())
    lessons, rates = [sums(20 + k) for k in range(3)], np.array([0.1, 0.19, 0.3])
    which, new = [0, 2, 3], keys(9)
    all_keys = Keys(np.repeat(new.code, 5, axis=0), np.repeat(new.values, 5, axis=0))
    found = Summed(
        np.concatenate([one.square for one in lessons]),
        np.concatenate([one.target for one in lessons]),
        all_keys.code,
        all_keys.values,
    )
    after = many.after(which, found, rates)
    weights = after.coefficients(RIDGE, which)
    for n, k in enumerate(which):
        one = alone[k].after([0], summed(lessons[n], new), rates[n : n + 1])
        np.testing.assert_array_equal(taken(after.recent, k).square, one.recent.square[0])
        np.testing.assert_array_equal(weights[n], one.coefficients(RIDGE, [0])[0])
    for k in (1, 4):
        assert_same(taken(after.recent, k), taken(many.recent, k))
