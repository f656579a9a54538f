# SPDX-License-Identifier: Apache-2.0
"""Presence: when what was found is enough to say that an instance is seen."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from maskrnn_ros.config import Config
from maskrnn_ros.model.head import Head
from maskrnn_ros.tracking.evidence import is_seen
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceState
from maskrnn_ros.types import Box, InstanceStatus

SIZE = (64, 96)
HEAD = Head(4, torch.Generator().manual_seed(0))
STATE = InstanceState(
    instance_id=1,
    name="",
    patch=Patch.nothing(SIZE),
    status=InstanceStatus.TRACKING,
    seeded_ns=1,
    age=3,
    frames_unseen=0,
    area=400,
    usual_area=400.0,
    velocity=None,
    seed_mask=None,
    head=HEAD,
)


def mask_of(probability: float, side: int = 16) -> Patch:
    found = torch.full(SIZE, 0.1)
    found[8 : 8 + side, 8 : 8 + side] = probability
    return Patch.of(found)


def matching_of(inside: float, outside: float) -> Patch:
    """Log-odds in the cells of stride 8; ``mask_of`` covers the four cells from (1, 1) on."""
    cells = torch.full((8, 12), outside)
    cells[1:3, 1:3] = inside
    return Patch(cells, Box(0, 0, 12, 8), (8, 12))


@pytest.mark.parametrize(
    ("probability", "matching", "seen"),
    [
        (0.9, None, True),
        (0.9, matching_of(-2.0, -2.0), True),  # it looks different now, but its head knows it
        (0.6, None, False),  # the matching is off
        (0.6, matching_of(-1.0, 3.0), False),  # unsure, and like what was beside it: a wall
        (0.6, matching_of(1.0, -3.0), True),  # unsure, but like the object
        (0.77, matching_of(-1.0, -1.0), False),
        (0.79, matching_of(-1.0, -1.0), True),
    ],
)
def test_an_unsure_mask_is_no_object_unless_the_matching_agrees(
    probability: float, matching: Patch | None, seen: bool
) -> None:
    assert is_seen(mask_of(probability), 256, matching, STATE, Config()) == seen


def test_without_a_head_only_the_area_counts() -> None:
    state = dataclasses.replace(STATE, head=None)
    assert is_seen(mask_of(0.6), 256, None, state, Config())
    assert not is_seen(mask_of(0.6, 2), 4, None, state, Config())


def test_a_small_share_of_the_usual_area_is_not_seen() -> None:
    config = Config()
    assert is_seen(mask_of(0.9, 5), 25, None, STATE, config)
    assert not is_seen(mask_of(0.9, 4), 16, None, STATE, config)  # 0.04 of the usual area
    assert is_seen(mask_of(0.9, 4), 16, None, dataclasses.replace(STATE, usual_area=100.0), config)
