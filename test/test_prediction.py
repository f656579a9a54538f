# SPDX-License-Identifier: Apache-2.0
"""Where a hidden instance would be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import world
from test_session import Bench

from maskrnn_ros.tracking.prediction import Prediction
from maskrnn_ros.types import Box, InstanceState, Track, Tracks

SIZE = (96, 128)
BALL = Box(20, 30, 40, 45)


def track(status: InstanceState, box: Box | None = None, velocity: tuple[float, float] | None = None) -> Track:
    shape = (box.height, box.width) if box else (0, 0)
    return Track(
        instance_id=1,
        name="",
        state=status,
        age=0,
        frames_unseen=0,
        score=0.0,
        visibility=0.0,
        box=box,
        mask=np.ones(shape, bool),
        probability=np.ones(shape, np.float32),
        velocity=velocity,
    )


def predicted(predict: Prediction, seconds: float, *tracks: Track) -> list[Box | None]:
    given = Tracks(stamp_ns=round(seconds * 1e9), labels=np.zeros(SIZE, np.int32), tracks=tracks)
    return [one.predicted_box for one in predict(given).tracks]


SEEN, HIDDEN = track(InstanceState.TRACKING, BALL, (30.0, -10.0)), track(InstanceState.OCCLUDED)


def test_the_last_box_moves_by_the_last_velocity_while_occluded_and_only_then() -> None:
    predict = Prediction()
    assert predicted(predict, 1.0, SEEN) == [None]
    assert predicted(predict, 1.1, HIDDEN) == [Box(23, 29, 43, 44)]
    assert predicted(predict, 2.0, HIDDEN) == [Box(50, 20, 70, 35)]
    assert predicted(predict, 2.1, track(InstanceState.LOST)) == [None]
    assert predicted(predict, 2.2, HIDDEN) == [Box(56, 18, 76, 33)]
    assert predicted(predict, 2.3, track(InstanceState.REMOVED)) == [None]
    assert predicted(predict, 2.4) == [] and predicted(predict, 2.5, HIDDEN) == [None]  # a stranger by now


def test_it_is_cut_at_the_border_and_ends_beyond_it() -> None:
    predict = Prediction()
    predicted(predict, 1.0, track(InstanceState.TRACKING, BALL, (100.0, 0.0)))
    assert predicted(predict, 2.0, HIDDEN) == [Box(120, 30, 128, 45)]
    assert predicted(predict, 2.1, HIDDEN) == [None]


@pytest.mark.parametrize("velocity", [None, (0.0, 0.0)])
def test_without_a_velocity_it_is_expected_where_it_was(velocity: tuple[float, float] | None) -> None:
    predict = Prediction()
    predicted(predict, 1.0, track(InstanceState.SEEDED, BALL, velocity))
    assert predicted(predict, 3.0, HIDDEN) == [BALL]


def test_what_was_never_seen_or_later_or_in_another_session_is_not_predicted() -> None:
    predict = Prediction()
    assert predicted(predict, 1.0, HIDDEN) == [None]
    predicted(predict, 5.0, SEEN)
    assert predicted(predict, 4.0, HIDDEN) == [None]  # time went back, instances were kept
    predicted(predict, 5.0, SEEN)
    predict.clear()
    assert predicted(predict, 6.0, HIDDEN) == [None]


def test_an_object_that_passes_behind_another_is_predicted_where_it_is() -> None:
    """The world's own positions are the oracle: the object goes on as it went, behind a larger one."""
    ball, wall = world.Shape(1, 10, 30, 12, 14, 4, 0), world.Shape(2, 50, 10, 40, 60, 0, 0)
    shapes = (ball, wall, world.Shape(3, 100, 85, 8, 8, -1, 0))  # the third: no two pictures are the same
    bench = Bench(lambda config: world.exact_tracker(config, shapes))
    bench.seed(world.seed(0, 1, 2, shapes=shapes))
    checked = 0
    for number in range(20):
        tracks = bench.session.process(world.frame(number, shapes)).tracks
        hidden = next(one for one in tracks if one.instance_id == 1)
        if hidden.state != InstanceState.OCCLUDED:
            assert hidden.predicted_box is None
            continue
        checked += 1
        now = dataclasses.replace(ball, x=ball.x + ball.dx * number)
        last = hidden.predicted_box  # of the last sliver that was seen: its left edge moves as the object
        assert last is not None and last.x0 == now.x and (last.y0, last.y1) == (30, 44)
    assert checked >= 3
