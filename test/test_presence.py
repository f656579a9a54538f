# SPDX-License-Identifier: Apache-2.0
"""Presence: when what was found is enough to say that an instance is seen."""

from __future__ import annotations

import numpy as np
import pytest

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.shapes import FINE
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.recognition import Measured, are_seen, measured, strays, usually
from maskrnn_ros.tracking.target import UNKNOWN

SIZE = (64, 96)
HALF = FINE // 4
"""Cells at which the matching speaks."""

FOUND = {"presence": 0.99, "likeness": 0.8, "agreement": 0.5, "inside": 0.95, "area": 256, "sure": 0.95}


def is_seen(
    usual: float = 0.8,
    *,
    was_seen: bool = True,
    usual_area: float = 400.0,
    config: Config = Config(),  # noqa: B008
    **changes: float,
) -> bool:
    """Of one object, between two others of which one is not there: what it is does not depend on them."""
    values = [FOUND, {**FOUND, **changes}, {**FOUND, "area": 0}]
    found = Measured(*(np.array([value[name] for value in values]) for name in Measured._fields))
    usuals, before = np.array([0.8, usual, 0.8]), np.array([True, was_seen, True])
    said = are_seen(found, usuals, before, np.array([400.0, usual_area, 400.0]), config)
    assert said.dtype == np.bool_ and said[0] and not said[2]
    return bool(said[1])


@pytest.mark.parametrize(
    ("changes", "usual", "seen"),
    [
        ({}, 0.8, True),
        ({"likeness": 0.1}, 0.8, True),  # it looks different now, but the mask is sure
        ({"sure": 0.77}, 0.8, True),  # not sure, but like the seed, and the network is certain
        ({"sure": 0.77}, UNKNOWN, True),  # not known yet how much it is like it
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
    changes: dict[str, float], usual: float, seen: bool
) -> None:
    assert is_seen(usual, **changes) == seen


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
    assert is_seen(was_seen=False, **changes) == seen
    assert is_seen(**changes), "one that was seen needs not all of that"


def test_a_small_share_of_the_usual_area_is_not_seen() -> None:
    assert is_seen(area=20)
    assert not is_seen(area=19)  # less than 0.05 of the usual area
    assert is_seen(area=19, usual_area=100.0)
    config = with_values(Config(), presence__min_pixels=20)
    assert not is_seen(area=19, usual_area=100.0, config=config)


def test_the_usual_likeness_begins_with_the_first_and_follows_slowly() -> None:
    assert usually(np.array([UNKNOWN, 0.8]), np.array([0.7, 0.7])).tolist() == [0.7, pytest.approx(0.79)]


def matched(likeness: float = 1.0, agreement: float = 1.0) -> np.ndarray:
    planes = np.zeros((6, HALF, HALF), np.float32)
    planes[0], planes[2] = agreement, likeness
    return planes


def test_masks_are_like_what_their_cells_were_matched_with() -> None:
    log_odds, planes = np.full((2, FINE, FINE), -4.0, np.float32), np.stack([matched(9.0, 9.0)] * 2)
    log_odds[1, : FINE // 2] = 4.0
    planes[1, 2, : HALF // 2], planes[1, 0, : HALF // 2] = 0.75, -0.5
    patches = Patches.of([Patch.nothing(SIZE), Patch.of(np.array([[0.4, 0.5], [0.9, 0.7]], np.float32))])
    found = measured(log_odds, 1 / (1 + np.exp(-log_odds)), patches, np.array([0.3, 0.3]), planes)
    assert {len(column) for column in found} == {2}
    nothing, one = (dict(zip(Measured._fields, row, strict=True)) for row in zip(*found, strict=True))
    assert nothing == {"presence": 0.3, "likeness": 0, "agreement": 0, "inside": 0, "area": 0, "sure": 0}
    assert (one["likeness"], one["agreement"]) == (pytest.approx(0.75), pytest.approx(-0.5))
    assert one["inside"] == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert (one["area"], one["sure"]) == (3, pytest.approx(0.7))


def pieces() -> np.ndarray:
    """The object, a small piece near it, a large one far away; a small one far away is a stray."""
    mask = np.zeros((FINE, FINE), np.bool_)
    mask[40:80, 40:80] = mask[42:50, 84:90] = mask[100:126, 96:126] = mask[2:8, 2:8] = 1
    return mask


@pytest.mark.parametrize("is_turned", [False, True])
def test_stray_pieces_far_from_the_object_are_left_out_and_near_or_large_ones_stay(is_turned: bool) -> None:
    expected = np.zeros((FINE, FINE), bool)
    expected[2:8, 2:8] = True
    planes = matched()
    mask, expected = (np.ascontiguousarray(m.T) if is_turned else m for m in (pieces(), expected))
    assert np.array_equal(stray(mask, planes, 1.0), expected)
    assert np.array_equal(stray(mask, planes, UNKNOWN), expected)
    assert not stray(np.zeros_like(mask), planes, 1.0).any()


def stray(mask: np.ndarray, planes: np.ndarray, usual: float) -> np.ndarray:
    """Of one, between others: one of one piece, one of none, one of pieces that touch the border."""
    others = np.zeros((3, FINE, FINE), np.bool_)
    others[0, 30:90, 30:90] = others[2, -20:, 10:60] = others[2, :2, :2] = others[2, -1, -1] = True
    found = strays(
        np.stack([others[0], mask, *others[1:]]), *np.stack([planes] * 4, axis=1)[[2, 0]], np.array([usual] * 4)
    )
    far = np.zeros((FINE, FINE), np.bool_)
    far[:2, :2] = far[-1, -1] = True
    assert not found[[0, 2]].any() and np.array_equal(found[3] & others[2], far)
    return np.asarray(found[1])


@pytest.mark.parametrize(
    ("likeness", "agreement", "usual", "stays"),
    [
        (0.9, 0.2, 1.0, False),
        (0.9, 0.4, 1.0, True),
        (0.95, 0.2, 1.0, True),
        (0.9, 0.2, 0.95, True),
        (0.9, 0.2, UNKNOWN, True),
    ],
)
def test_a_piece_that_is_unlike_the_seed_is_left_out_however_near(
    likeness: float, agreement: float, usual: float, stays: bool
) -> None:
    mask, planes = np.zeros((FINE, FINE), np.bool_), matched()
    mask[40:80, 40:80] = mask[40:80, 84:100] = 1
    planes[2, :, 21:], planes[0, :, 21:] = likeness, agreement
    found = stray(mask, planes, usual)
    assert not found[40:80, 40:80].any() and bool(found[40:80, 84:100].all()) is not stays
