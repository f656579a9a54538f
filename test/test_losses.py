# SPDX-License-Identifier: Apache-2.0
"""Losses by hand, and the boxes of masks."""

from __future__ import annotations

import math

import pytest
import torch

from maskrnn_ros.training import losses
from maskrnn_ros.training.boxes import boxes_of


def test_the_balanced_loss_is_that_of_the_paper_by_hand() -> None:
    truth = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    log_odds = torch.tensor([[[0.0, 1.0, -1.0, 2.0]]])
    cost = [math.log(2), *(math.log(1 + math.exp(x)) for x in (1.0, -1.0, 2.0))]
    weights = [0.75, 0.25, 0.25, 0.25]
    expected = sum(c * w for c, w in zip(cost, weights, strict=True)) / sum(weights)
    assert losses.balanced_cross_entropy(log_odds, truth).item() == pytest.approx(expected, rel=1e-6)


def test_the_dice_loss_is_0_for_the_truth_and_near_1_for_its_opposite() -> None:
    truth = torch.zeros(1, 8, 8)
    truth[:, :4] = 1
    sure = (truth * 2 - 1) * 30
    assert losses.dice(sure, truth).item() == pytest.approx(0, abs=1e-6)
    assert losses.dice(-sure, truth).item() == pytest.approx(1 - 1 / 65, abs=1e-6)


def test_an_absent_object_has_no_box_loss() -> None:
    deltas, targets = torch.ones(2, 4), torch.tensor([[0.0] * 4, [math.nan] * 4])
    assert losses.box(deltas, targets, torch.tensor([1.0, 0.0])).tolist() == [2.0, 0.0]


def test_boxes_are_half_open_and_the_other_is_taken_where_there_is_nothing() -> None:
    maps = torch.zeros(2, 6, 8)
    maps[0, 1:3, 2:7] = 0.5
    other = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert boxes_of(maps, other).tolist() == [[2, 1, 7, 3], [1, 2, 3, 4]]
    assert boxes_of(maps, other, 4.0).tolist() == [[8, 4, 28, 12], [1, 2, 3, 4]]
