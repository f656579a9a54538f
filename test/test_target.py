# SPDX-License-Identifier: Apache-2.0
"""The target model of the tracker is that of the training, and the regression that it says it is."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shipped import engine

from maskrnn_ros.model.engine import Keys
from maskrnn_ros.model.shapes import CODES, COLUMNS, KEYS, RATE, SEED_SHARE, TARGET
from maskrnn_ros.model.torch import target as training
from maskrnn_ros.model.torch.matching import Keys as TrainingKeys
from maskrnn_ros.tracking.target import Memory, Sums

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
    return Sums(square.astype(np.float32), moved.astype(np.float32))


def keys(value: float) -> Keys:
    return Keys(np.full((CODES, KEYS), value, np.float32), np.full((2, KEYS), value, np.float32))


def in_training(memory: Memory) -> training.Memory:
    def tensors(one: Sums) -> training.Sums:
        return training.Sums(torch.from_numpy(one.square)[None], torch.from_numpy(one.target)[None])

    def cells(one: Keys) -> TrainingKeys:
        return TrainingKeys(torch.from_numpy(one.code)[None], torch.from_numpy(one.values)[None])

    return training.Memory(
        tensors(memory.seed), tensors(memory.recent), cells(memory.seed_keys), cells(memory.newest_keys)
    )


def test_coefficients_solve_the_weighted_ridge_regression() -> None:
    """Least squares over the rows of seed and recent frames, by their shares, and rows of the ridge."""
    memory = Memory(sums(1), sums(2), keys(0), keys(0))
    found = memory.coefficients(RIDGE)
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
    after = memory.after(sums(3), keys(0.3), rate)
    new = in_training(Memory(sums(3), sums(3), keys(0.3), keys(0.3)))
    expected = training.remember(in_training(memory), new.recent, new.seed_keys, torch.tensor([rate]))
    for part in ("seed", "recent"):
        for field in ("square", "target"):
            found, other = (getattr(getattr(one, part), field) for one in (after, expected))
            np.testing.assert_allclose(found, other[0], rtol=1e-6, atol=1e-7)
    assert after.seed is memory.seed and after.seed_keys is memory.seed_keys
    assert np.array_equal(after.newest_keys.code, expected.newest_keys.code[0])
    net = SimpleNamespace(ridge=torch.tensor(RIDGE))
    np.testing.assert_allclose(after.coefficients(RIDGE), training.coefficients(net, expected)[0], rtol=1e-3, atol=1e-4)


def test_a_blend_lies_between_both_by_its_share() -> None:
    one, other = sums(1), sums(2)
    found = one.blend(other, 0.25)
    assert found.square.dtype == found.target.dtype == np.float32
    np.testing.assert_allclose(found.square, 0.75 * one.square + 0.25 * other.square, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.target, 0.75 * one.target + 0.25 * other.target, rtol=1e-5, atol=1e-6)


def test_the_seed_keeps_its_share_whatever_comes() -> None:
    seed = memory = Memory(sums(1), sums(1), keys(0), keys(0))
    for _ in range(200):
        memory = memory.after(sums(2), keys(1), RATE)
    np.testing.assert_allclose(memory.recent.square, sums(2).square, rtol=1e-4, atol=1e-5)
    assert memory.seed is seed.seed and memory.newest_keys.values.min() == 1


def test_a_memory_that_knows_nothing_says_nothing() -> None:
    nothing = Memory.nothing(engine())
    assert not nothing.coefficients(RIDGE).any()
    assert nothing.seed_keys.code.shape == (CODES, KEYS) and not nothing.seed_keys.values.any()
