# SPDX-License-Identifier: Apache-2.0
"""The table of states, patches of all instances in one array, and pieces of all masks at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import world
from shipped import CONFIG, LARGE, assert_same, engine, tracker

from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.pieces import Pieces
from maskrnn_ros.tracking.states import States

SIZE = (12, 16)


@pytest.fixture(scope="module")
def followed() -> Tracker:
    one = tracker(CONFIG)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for number in (1, 2):
        one.step(world.frame(number, LARGE))
    return one


# --- the table ---


def test_rows_make_the_table_that_they_are_of(followed: Tracker) -> None:
    table = followed.states
    again = States.of(dict(sorted(table.items(), reverse=True)), engine())
    assert again is not table and again.ids == table.ids == (1, 2)
    assert_same(dict(again), dict(table))
    assert States.of(table) is table and table.only((1, 2)) is table


def test_a_row_shares_the_arrays_and_some_rows_have_their_own(followed: Tracker) -> None:
    table = followed.states
    known, some = table[2].known, table.only((2,))
    assert known is not None and np.shares_memory(known.carried.hidden, table.begun.carried.hidden)
    assert tuple(some) == (2,) and not np.shares_memory(some.begun.carried.hidden, table.begun.carried.hidden)
    assert_same(some[2], table[2])
    assert not table.only(()) and table.only(()).known is None
    assert 2 in table and 3 not in table and table.get(3) is None
    with pytest.raises(KeyError, match="3"):
        table[3]


def test_no_state_is_written_to_when_time_goes_on(followed: Tracker) -> None:
    table = followed.states
    before = {name: value.copy() for name, value in vars(table.begun.carried).items()}
    weights, values = table.begun.weights.copy(), table.patches.values.copy()
    twin = followed.twin(followed.moment, followed.newest)  # type: ignore[arg-type]
    for number in (3, 4, 5):
        twin.step(world.frame(number, LARGE))
    twin.remove([1])
    twin.step(world.frame(6, LARGE))
    assert followed.states is table
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(table.begun.carried, name), value)
    np.testing.assert_array_equal(table.begun.weights, weights)
    np.testing.assert_array_equal(table.patches.values, values)


# --- patches ---


def some_patches() -> list[Patch]:
    random = np.random.default_rng(0)
    whole = np.zeros((3, *SIZE), np.float32)
    whole[0, 2:7, 3:9] = random.uniform(0.1, 1, (5, 6))
    whole[2, 6:12, 0:16] = random.uniform(0.1, 1, (6, 16))
    return [Patch.nothing(SIZE), *(Patch.of(one) for one in whole), Patch.nothing(SIZE)]


def test_patches_come_out_as_they_went_in() -> None:
    given = some_patches()
    found = Patches.of(given)
    assert len(found) == 5 and len(found.values) == 30 + 96
    for k, one in enumerate(given):
        assert found[k].box == one.box and np.array_equal(found[k].full, one.full)
        assert found.areas[k] == one.area and found.sums(found.values)[k] == pytest.approx(one.values.sum())
    which = np.array([True, False, True, True, True])
    assert [found.only(which)[k].box for k in range(5)] == [None, None, None, given[3].box, None]
    assert found.only(which).areas.tolist() == [0, 0, 0, given[3].area, 0]
    assert len(Patches.of([])) == 0 and Patches.of([]).areas.shape == (0,)


# --- pieces ---


def test_pieces_of_all_masks_are_those_of_each() -> None:
    random = np.random.default_rng(1)
    masks = random.random((6, 20, 24)) > np.array([0.55, 0.7, 0.9, 1.0, -1.0, 0.6])[:, None, None]
    found = Pieces.of(masks)
    assert found.counts[3] == 0 and found.counts[4] == 1 and found.counts.max() > 5
    values = random.random(masks.shape, np.float32)
    largest, most = found.largest(found.areas), found.largest(found.sums(values))
    for k, mask in enumerate(masks):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        mine = np.flatnonzero(found.owners == k)
        assert found.counts[k] == len(mine) == count - 1
        sums = [float(values[k][pieces == piece].sum()) for piece in range(1, count)]
        order = [int(pieces[tuple(np.argwhere(found.map[k] == piece + 1)[0])]) for piece in mine]
        assert sorted(order) == list(range(1, count))
        for piece, theirs in zip(mine, order, strict=True):
            assert np.array_equal(found.map[k] == piece + 1, pieces == theirs)
            assert [*found.boxes[piece], found.areas[piece]] == stats[theirs].tolist()
            assert found.sums(values)[piece] == pytest.approx(sums[theirs - 1], rel=1e-5)
        if count > 1:
            assert found.areas[largest[k]] == stats[1:, cv2.CC_STAT_AREA].max()
            assert found.sums(values)[most[k]] == pytest.approx(max(sums), rel=1e-5)
        else:
            assert largest[k] == most[k] == -1
