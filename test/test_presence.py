# SPDX-License-Identifier: Apache-2.0
"""Presence: when what was found is enough to say that an instance is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.shapes import FINE
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.recognition import Measured, is_seen, measured, strays, usually
from maskrnn_ros.tracking.state import InstanceMemory
from maskrnn_ros.types import InstanceState

SIZE = (64, 96)
STATE = InstanceMemory(
    instance_id=1,
    name="",
    patch=Patch.nothing(SIZE),
    state=InstanceState.TRACKING,
    seeded_ns=1,
    age=3,
    frames_unseen=0,
    area=400,
    usual_area=400.0,
    velocity=None,
    seed_mask=None,
)
HIDDEN = dataclasses.replace(STATE, frames_unseen=4)
FOUND = Measured(presence=0.99, likeness=0.8, agreement=0.5, inside=0.95, area=256, sure=0.95)
HALF = FINE // 4
"""Cells at which the matching speaks."""


@pytest.mark.parametrize(
    ("changes", "usual", "seen"),
    [
        ({}, 0.8, True),
        ({"likeness": 0.1}, 0.8, True),  # it looks different now, but the mask is sure
        ({"sure": 0.77}, 0.8, True),  # not sure, but like the seed, and the network is certain
        ({"sure": 0.77}, None, True),  # not known yet how much it is like it
        ({"sure": 0.77, "likeness": 0.71}, 0.8, False),  # below 0.9 times what is usual
        ({"sure": 0.77, "likeness": 0.73}, 0.8, True),
        ({"sure": 0.77, "presence": 0.94}, 0.8, False),
        ({"sure": 0.79, "presence": 0.51}, 0.8, True),
        ({"sure": 0.79, "presence": 0.49}, 0.8, False),
        ({"agreement": -0.61}, 0.8, False),  # what was beside it on its seed
        ({"agreement": -0.59}, 0.8, True),
    ],
)
def test_a_mask_counts_where_it_is_sure_or_where_it_looks_like_the_seed(
    changes: dict[str, float], usual: float | None, seen: bool
) -> None:
    assert is_seen(FOUND._replace(**changes), usual, STATE, Config()) == seen


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, True),
        ({"sure": 0.79}, False),
        ({"likeness": 0.71}, False),
        ({"presence": 0.94}, False),
        ({"area": 59}, False),
    ],
)
def test_what_is_found_again_must_be_large_sure_and_like_the_seed(changes: dict[str, float], seen: bool) -> None:
    assert is_seen(FOUND._replace(**changes), 0.8, HIDDEN, Config()) == seen
    assert is_seen(FOUND._replace(**changes), 0.8, STATE, Config()), "one that was seen needs not all of that"


def test_a_small_share_of_the_usual_area_is_not_seen() -> None:
    config = Config()
    assert is_seen(FOUND._replace(area=20), 0.8, STATE, config)
    assert not is_seen(FOUND._replace(area=19), 0.8, STATE, config)  # less than 0.05 of the usual area
    assert is_seen(FOUND._replace(area=19), 0.8, dataclasses.replace(STATE, usual_area=100.0), config)
    config = with_values(config, presence__min_pixels=20)
    assert not is_seen(FOUND._replace(area=19), 0.8, dataclasses.replace(STATE, usual_area=100.0), config)


def test_the_usual_likeness_begins_with_the_first_and_follows_slowly() -> None:
    assert usually(None, 0.7) == 0.7
    assert usually(0.8, 0.7) == pytest.approx(0.79)


def matched(likeness: float = 1.0, agreement: float = 1.0) -> np.ndarray:
    planes = np.zeros((6, HALF, HALF), np.float32)
    planes[0], planes[2] = agreement, likeness
    return planes


def test_a_mask_is_like_what_its_cells_were_matched_with() -> None:
    log_odds, planes = np.full((FINE, FINE), -4.0, np.float32), matched(9.0, 9.0)
    probability = 1 / (1 + np.exp(-log_odds))
    nothing = measured(log_odds, probability, Patch.nothing(SIZE), 0.3, planes)
    assert nothing == Measured(presence=0.3, likeness=0, agreement=0, inside=0, area=0, sure=0)
    log_odds[: FINE // 2] = 4.0
    planes[2, : HALF // 2], planes[0, : HALF // 2] = 0.75, -0.5
    patch = Patch.of(np.array([[0.4, 0.5], [0.9, 0.7]], np.float32))
    found = measured(log_odds, 1 / (1 + np.exp(-log_odds)), patch, 0.3, planes)
    assert (found.likeness, found.agreement) == (pytest.approx(0.75), pytest.approx(-0.5))
    assert found.inside == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert (found.area, found.sure) == (3, pytest.approx(0.7))


def pieces() -> np.ndarray:
    """The object, a small piece near it, a large one far away; a small one far away is a stray."""
    mask = np.zeros((FINE, FINE), np.uint8)
    mask[40:80, 40:80] = mask[42:50, 84:90] = mask[100:126, 96:126] = mask[2:8, 2:8] = 1
    return mask


@pytest.mark.parametrize("is_turned", [False, True])
def test_stray_pieces_far_from_the_object_are_left_out_and_near_or_large_ones_stay(is_turned: bool) -> None:
    expected = np.zeros((FINE, FINE), bool)
    expected[2:8, 2:8] = True
    planes = matched()
    mask, expected = (np.ascontiguousarray(m.T) if is_turned else m for m in (pieces(), expected))
    assert np.array_equal(strays(mask, (planes[2], planes[0]), 1.0), expected)
    assert np.array_equal(strays(mask, (planes[2], planes[0]), None), expected)
    assert not strays(np.zeros_like(mask), (planes[2], planes[0]), 1.0).any()


@pytest.mark.parametrize(
    ("likeness", "agreement", "usual", "stays"),
    [
        (0.9, 0.2, 1.0, False),
        (0.9, 0.4, 1.0, True),
        (0.95, 0.2, 1.0, True),
        (0.9, 0.2, 0.95, True),
        (0.9, 0.2, None, True),
    ],
)
def test_a_piece_that_is_unlike_the_seed_is_left_out_however_near(
    likeness: float, agreement: float, usual: float | None, stays: bool
) -> None:
    mask, planes = np.zeros((FINE, FINE), np.uint8), matched()
    mask[40:80, 40:80] = mask[40:80, 84:100] = 1
    planes[2, :, 21:], planes[0, :, 21:] = likeness, agreement
    found = strays(mask, (planes[2], planes[0]), usual)
    assert not found[40:80, 40:80].any() and bool(found[40:80, 84:100].all()) is not stays
