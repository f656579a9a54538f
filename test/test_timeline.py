# SPDX-License-Identifier: Apache-2.0
"""What a late image, a jump, a wild stamp and a repeated one are, and that everybody who reads time agrees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from test_session import Bench

from maskrnn_ros.seed_ui.recent import FrameStore
from maskrnn_ros.timeline import StampOrder, TimeRule
from maskrnn_ros.tracking.session import SeedStatus
from maskrnn_ros.types import Frame, InstanceState

MS, S, HOUR = 10**6, 10**9, 3600 * 10**9
PERIOD = 33 * MS
T0 = 1_700_000_000 * S
RULE = TimeRule(jump_s=2.0, images=3)


def stream(count: int, start: int = T0, period: int = PERIOD) -> list[int]:
    return [start + i * period for i in range(count)]


def judged(stamps: list[int], rule: TimeRule = RULE) -> tuple[list[int], list[str], int, StampOrder[int]]:
    """Stamps that pass, reasons of those that do not, jumps back, the judge."""
    order, passed, refused, back = StampOrder[int](rule), [], [], 0
    for stamp in stamps:
        ruling = order.put(stamp, stamp)
        passed += [entry.stamp_ns for entry in ruling.passed]
        refused += [f"{(refusal.stamp_ns - T0) // MS}: {refusal.reason}" for refusal in ruling.refused]
        back += ruling.went_back
    return passed, refused, back, order


def test_a_stream_in_order_passes_at_once() -> None:
    order = StampOrder[int](RULE)
    assert [len(order.put(stamp, 0).passed) for stamp in stream(100)] == [1] * 100


def test_one_late_image_is_refused_and_the_stream_goes_on() -> None:
    """As from usb_cam (issue 259) and depthai-ros (issue 53)."""
    s = stream(6)
    passed, refused, back, _ = judged([s[0], s[1], s[3], s[2], s[4], s[5]])
    assert (passed, back) == ([s[0], s[1], s[3], s[4], s[5]], 0)
    assert refused == [f"66: stamp {s[2]} ns is 33 ms older than the newest, {s[3]} ns, too late"]


def test_a_burst_of_late_images_is_no_jump() -> None:
    s = stream(40)
    passed, refused, back, _ = judged([*s[:3], s[20], *s[3:20], *s[21:]])
    assert (passed, len(refused), back) == ([*s[:3], s[20], *s[21:]], 17, 0)


def test_late_is_less_than_the_jump_and_a_jump_is_not() -> None:
    s = stream(3, period=S)
    newest = s[-1] + 2 * S
    for apart, is_held in ((2 * S - 1, False), (2 * S, True)):
        _, refused, _, order = judged([*s, newest - S, newest, newest - apart])
        assert (len(order.held), len(refused)) == (int(is_held), int(not is_held))


@pytest.mark.parametrize("wild", [T0 + HOUR, T0 - HOUR, T0 + 3 * S, 5])
def test_one_wild_stamp_is_refused_when_the_stream_goes_on(wild: int) -> None:
    s = stream(5)
    passed, refused, back, order = judged([*s[:3], wild, *s[3:]])
    assert (passed, back, order.era) == (s, 0, 0)
    (line,) = refused
    assert "a jump is believed after 3 in a row (time_jump_images), 1 came" in line
    assert ("ahead of" if wild > T0 else "older than") in line


def test_wild_stamps_on_both_sides_are_no_jump() -> None:
    s = stream(4)
    passed, refused, back, _ = judged([*s[:2], T0 + HOUR, T0 - HOUR, T0 + 2 * HOUR, T0 - 2 * HOUR, *s[2:]])
    assert (passed, len(refused), back) == (s, 4, 0)


def test_a_wild_stamp_and_late_ones_are_no_jump() -> None:
    s = stream(6)
    passed, refused, back, _ = judged([s[0], s[3], T0 - HOUR, s[1], s[2], s[4], s[5]])
    assert (passed, len(refused), back) == ([s[0], s[3], s[4], s[5]], 3, 0)


def test_a_bag_that_begins_again_loses_nothing() -> None:
    s = stream(100)
    order, told = StampOrder[int](RULE), []
    for stamp in [*s, *s, *s]:
        told.append([entry.stamp_ns for entry in order.put(stamp, 0).passed])
    assert [len(passed) for passed in told] == ([1] * 100 + ([0, 0, 3] + [1] * 97) * 2)
    assert sum(told, []) == [*s, *s, *s] and order.era == 2


@pytest.mark.parametrize("count", [3, 4, 10, 60])
def test_a_bag_shorter_than_a_jump_is_known_by_its_own_stamps(count: int) -> None:
    s = stream(count)
    passed, refused, back, _ = judged([*s, *s, *s])
    assert (passed, refused, back) == ([*s, *s, *s], [], 2)


def test_a_seek_back_into_a_bag_loses_nothing() -> None:
    s = stream(300)
    passed, refused, back, _ = judged([*s[:200], *s[50:]])
    assert (passed, refused, back) == ([*s[:200], *s[50:]], [], 1)


def test_a_pause_and_a_seek_ahead_go_on_in_the_same_era() -> None:
    s = stream(6)
    later = [stamp + HOUR for stamp in s]
    passed, refused, back, order = judged([*s, *later])
    assert (passed, refused, back, order.era) == ([*s, *later], [], 0, 0)


def test_a_wild_stamp_that_is_the_first_is_left_behind() -> None:
    s = stream(6)
    passed, refused, back, _ = judged([T0 + HOUR, *s])
    assert (passed, refused, back) == ([T0 + HOUR, *s], [], 1)


@pytest.mark.parametrize("period", [2 * S, 5 * S, 60 * S])
def test_a_stream_slower_than_a_jump_is_learnt(period: int) -> None:
    s = stream(10, period=period)
    order = StampOrder[int](RULE)
    told = [len(order.put(stamp, 0).passed) for stamp in s]
    assert told == [1, 0, 0, 3, 1, 1, 1, 1, 1, 1]
    assert not order.put(s[-1] + HOUR, 0).passed, "a wild stamp is one there, too"


def test_a_camera_that_becomes_slow_goes_on() -> None:
    fast = stream(5)
    slow = stream(8, start=fast[-1] + 5 * S, period=5 * S)
    passed, refused, back, _ = judged([*fast, *slow])
    assert (passed, refused, back) == ([*fast, *slow], [], 0)


def test_the_same_stamp_again_is_refused_held_or_not() -> None:
    s = stream(4)
    again = [stamp for stamp in s for _ in range(2)]
    passed, refused, back, _ = judged([*again, *again])
    assert (passed, back) == ([*s, *s], 1)
    assert len(refused) == 8 and all("got the same" in line for line in refused)


def test_two_cameras_of_different_clocks_on_one_topic_stay_with_the_first() -> None:
    s = stream(20)
    passed, refused, back, _ = judged([stamp for one in s for stamp in (one, one + HOUR)])
    assert (passed, len(refused), back) == (s, 19, 0)


def test_with_one_image_every_jump_is_believed_at_once_but_late_ones_stay_late() -> None:
    s = stream(5)
    rule = TimeRule(jump_s=2.0, images=1)
    passed, refused, back, _ = judged([*s, T0 - HOUR, T0 - HOUR - PERIOD], rule)
    assert (passed, len(refused), back) == ([*s, T0 - HOUR], 1, 1)


def test_a_stamp_that_is_no_time_is_refused_and_is_no_jump() -> None:
    s = stream(4)
    passed, refused, back, _ = judged([0, *s[:2], 0, -5, 0, *s[2:]])
    assert (passed, back) == (s, 0)
    assert len(refused) == 4 and all("stamp must be > 0 ns" in line for line in refused)


def test_stamps_that_saw_the_clock_of_two_machines_stay_with_the_newer() -> None:
    """Frames stamped now by the driver, now by the device, 40 ms apart (usb_cam, issue 278): none goes back."""
    s = stream(60)
    stamps = [stamp + (40 * MS if i % 3 == 0 else 0) for i, stamp in enumerate(s)]
    passed, refused, back, _ = judged(stamps)
    assert back == 0 and passed == sorted(passed) and len(passed) + len(refused) == 60
    assert len(refused) <= 20


def test_what_is_forgotten_judges_nothing() -> None:
    _, _, _, order = judged([*stream(3), T0 - HOUR])
    assert [refusal.stamp_ns for refusal in order.clear()] == [T0 - HOUR]
    assert order.put(7, 7).passed and order.era == 1


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*range(0, 40), 100, 101, 102, 103, 5000, 5001, 5002]), max_size=60))
def test_nothing_is_lost_and_nothing_goes_back_within_an_era(numbers: list[int]) -> None:
    order = StampOrder[int](RULE)
    passed: list[tuple[int, int, int]] = []
    refused: list[int] = []
    for place, number in enumerate(numbers):
        ruling = order.put(T0 + number * 100 * MS, place)
        assert ruling.went_back == (bool(ruling.passed) and bool(passed) and order.era > passed[-1][0])
        passed += [(order.era, entry.stamp_ns, entry.item) for entry in ruling.passed]
        refused += [entry.item for entry in ruling.refused]
    places = [place for _, _, place in passed]
    assert sorted([*places, *refused, *(entry.item for entry in order.held)]) == list(range(len(numbers)))
    assert places == sorted(places), "in the order in which they came"
    assert all(a[0] < b[0] or a[1] < b[1] for a, b in zip(passed, passed[1:], strict=False))
    assert len(order.held) < RULE.images


# --- the session ---


def at(number: int, stamp_ns: int) -> Frame:
    return dataclasses.replace(world.frame(number), stamp_ns=stamp_ns)


class Stream(Bench):
    """A bench whose frames come with any stamp."""

    def put(self, number: int, stamp_ns: int) -> list[np.ndarray]:
        ruling = self.order.put(stamp_ns, at(number, stamp_ns))
        self.refused += ruling.refused
        return [self.session.process(entry.item, self.order.era).labels for entry in ruling.passed]


@pytest.mark.parametrize("wild", [-PERIOD, HOUR, -S])
def test_all_objects_live_through_a_late_or_wild_stamp(wild: int) -> None:
    bench = Stream(time_jump_s=0.5)
    bench.seed(world.seed(0))
    for number in range(4):
        bench.image(number)
    assert bench.put(4, world.stamp_ns(3) + wild) == []
    tracks = bench.image(5)
    np.testing.assert_array_equal(tracks.labels, world.labels(5))
    assert [track.state for track in tracks.tracks] == [InstanceState.TRACKING] * 2
    assert (bench.session.number, len(bench.refused), bench.events) == (1, 1, [])


def test_a_jump_ahead_keeps_all_objects() -> None:
    bench = Stream()
    bench.seed(world.seed(0))
    bench.images(0, 1)
    out = [labels for number in (2, 3, 4) for labels in bench.put(number, world.stamp_ns(number) + HOUR)]
    for number, labels in zip((2, 3, 4), out, strict=True):
        np.testing.assert_array_equal(labels, world.labels(number))
    assert bench.session.number == 1


def test_a_seed_outlives_its_timeout_while_its_image_is_held_back() -> None:
    bench = Bench(seed_timeout=1.0)
    bench.seed(world.seed(0))
    bench.images(*range(60))
    bench.seed(world.seed(0))  # the bag begins again, slowly
    assert "the next image decides" in bench.outcomes[-1].reason
    assert bench.images(0, 1) == []
    bench.now = 10.0
    held = {entry.stamp_ns for entry in bench.order.held}
    bench.session.expire(held=held)
    timeout = bench.session.next_timeout
    assert timeout is not None and timeout > bench.now, "nobody is woken in vain"
    for number, tracks in enumerate(bench.images(2)):
        np.testing.assert_array_equal(tracks.labels, world.labels(number))
    assert bench.said()[-1] == SeedStatus.APPLIED and bench.session.number == 2


# --- the seed editor's frames ---


def test_the_editor_shows_no_late_frame_and_stays_at_no_wild_one() -> None:
    store, s = FrameStore(), stream(6)
    for stamp in (s[0], s[1], s[3], s[2], T0 + HOUR, s[4]):
        store.put_image(stamp, b"image")
    newest = store.wait(0, False, 0)
    assert newest is not None and newest.stamp_ns == s[4]
    assert store.at(s[1]).image == b"image", "a late frame empties nothing"
