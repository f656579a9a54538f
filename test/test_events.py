# SPDX-License-Identifier: Apache-2.0
"""Changes of state from image to image."""

from __future__ import annotations

import numpy as np
import pytest

from maskrnn_ros.events import Event, Seen, changes
from maskrnn_ros.types import InstanceState, Track

SEEDED, TRACKING, OCCLUDED, LOST, REMOVED = InstanceState


def track(instance_id: int, status: InstanceState, name: str = "") -> Track:
    return Track(
        instance_id=instance_id,
        name=name,
        state=status,
        age=0,
        frames_unseen=0,
        score=0.0,
        visibility=0.0,
        box=None,
        mask=np.zeros((0, 0), np.bool_),
        probability=np.zeros((0, 0), np.float32),
        velocity=None,
    )


def tracks(states: dict[int, InstanceState]) -> tuple[Track, ...]:
    return tuple(track(i, status) for i, status in states.items())


def said(events: tuple[Event, ...]) -> list[tuple[int, InstanceState | None, InstanceState]]:
    return [(event.instance_id, event.before, event.after) for event in events]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({}, {1: SEEDED}, [(1, None, SEEDED)]),
        ({}, {1: TRACKING}, [(1, None, TRACKING)]),  # a late seed that has caught up
        ({1: SEEDED}, {1: TRACKING}, [(1, SEEDED, TRACKING)]),
        ({1: TRACKING}, {1: TRACKING}, []),
        ({1: TRACKING}, {1: SEEDED}, [(1, TRACKING, SEEDED)]),  # corrected
        ({1: TRACKING}, {1: OCCLUDED}, [(1, TRACKING, OCCLUDED)]),
        ({1: OCCLUDED}, {1: LOST}, [(1, OCCLUDED, LOST)]),
        ({1: LOST}, {1: TRACKING}, [(1, LOST, TRACKING)]),
        ({1: TRACKING}, {1: REMOVED}, [(1, TRACKING, REMOVED)]),
        ({1: REMOVED}, {}, []),  # said once
        ({1: TRACKING}, {}, [(1, TRACKING, REMOVED)]),
        (
            {1: TRACKING, 3: OCCLUDED},
            {1: OCCLUDED, 2: SEEDED, 3: OCCLUDED},
            [(1, TRACKING, OCCLUDED), (2, None, SEEDED)],
        ),
        ({2: TRACKING}, {1: SEEDED}, [(1, None, SEEDED), (2, TRACKING, REMOVED)]),
    ],
)
def test_what_changes_between_two_images_is_said(before, after, expected) -> None:
    assert said(changes(Seen.of(4, tracks(before)), 4, tracks(after))) == expected


def test_a_new_session_removes_what_was_there_although_the_id_is_used_again() -> None:
    events = changes(Seen.of(4, tracks({1: TRACKING, 2: LOST})), 5, tracks({1: TRACKING}))
    assert said(events) == [(1, TRACKING, REMOVED), (2, LOST, REMOVED), (1, None, TRACKING)]
    assert [event.session for event in events] == [4, 4, 5]


def test_an_event_names_the_instance_as_it_was_called_last() -> None:
    before = Seen.of(1, (track(1, TRACKING, "cup"), track(2, TRACKING, "can")))
    events = changes(before, 1, (track(1, OCCLUDED, "mug"),))
    assert [event.name for event in events] == ["mug", "can"]


def test_before_the_first_image_there_is_nothing() -> None:
    assert changes(Seen(), 1, ()) == ()
    assert said(changes(Seen(), 1, tracks({7: SEEDED}))) == [(7, None, SEEDED)]
