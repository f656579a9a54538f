# SPDX-License-Identifier: Apache-2.0
"""How the tracker's stream is, in one line."""

from __future__ import annotations

import dataclasses
import math

from maskrnn_ros.rviz_tool.stream_line import StreamLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """The fields of TrackerStatus that are read."""

    run_id: str = "a"
    enabled: bool = True
    image_age: float = 0.05
    processed: int = 0
    age_ms_p50: float = 40.4
    ids: tuple[int, ...] = (1,)


def test_the_line_counts_images_between_two_messages() -> None:
    line = StreamLine()
    assert line.line(5.0) == "tracker: not heard of yet"
    line.take(Status(processed=100, age_ms_p50=math.nan), 10.0)
    assert line.line(10.0) == "tracker: 1 instance"
    line.take(Status(processed=130, ids=(1, 4)), 12.0)
    assert line.line(12.5) == "tracker: 2 instances, 15.0 images/s, masks after 40 ms"
    # a message of an event comes between two regular ones: too short a time to count in, but its news count
    line.take(Status(processed=131, ids=()), 12.01)
    assert line.line(12.5) == "tracker: 0 instances, 15.0 images/s, masks after 40 ms"
    line.take(Status(processed=150, ids=()), 14.0)
    assert "10.0 images/s" in line.line(14.0)


def test_a_tracker_that_was_started_again_is_counted_anew() -> None:
    for again in (Status(run_id="b", processed=500), Status(processed=3)):
        line = StreamLine()
        line.take(Status(processed=100), 1.0)
        line.take(Status(processed=120), 2.0)
        line.take(again, 3.0)
        assert line.line(3.0) == "tracker: 1 instance, masks after 40 ms"


def test_the_line_says_what_is_wrong_with_the_stream() -> None:
    for status, expected in (
        (Status(enabled=False), "tracker: disabled, images are dropped"),
        (Status(image_age=-1.0), "tracker: waits for the first image"),
        (Status(image_age=7.4), "tracker: no image for 7 s"),
    ):
        line = StreamLine()
        line.take(status, 100.0)
        assert line.line(102.0) == expected
        assert line.line(109.0) == "tracker: silent for 9 s"
