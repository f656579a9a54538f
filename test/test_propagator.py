# SPDX-License-Identifier: Apache-2.0
"""Images that come while the networks are at work get their masks by flow: who gets them, in what order, by what."""

from __future__ import annotations

import dataclasses
import doctest
import itertools
import threading
import time

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import world

from maskrnn_ros.config import with_values
from maskrnn_ros.tracker_node import pace
from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracker_node.pace import Pace
from maskrnn_ros.tracker_node.results import Results
from maskrnn_ros.tracker_node.worker import Worker
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.ahead import Ahead, Look
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedRequest, SeedStatus, Session
from maskrnn_ros.types import Frame, InstanceState

TIMEOUT_S = 30.0


@dataclasses.dataclass
class Message:
    """What the inbox needs of an image message."""

    number: int
    data: bytes = bytes(100)


# --- the pace ---


def test_the_examples_of_the_pace_run() -> None:
    assert doctest.testmod(pace) == (0, doctest.testmod(pace).attempted) and doctest.testmod(pace).attempted


def test_what_flow_takes_meanwhile_and_pauses_do_not_count() -> None:
    made = Pace()
    for k in range(8):
        made.came(0.1 * k + (60.0 if k > 3 else 0.0))
        made.begun()
        made.carried(0.04)
        made.looked(0.12)
    assert made.keeps_up
    for _ in range(8):
        made.begun()
        made.carried(0.01)
        made.looked(0.12)
    assert not made.keeps_up


# --- the inbox: which images are handed on ---


def put(inbox: Inbox, *numbers: int) -> None:
    for number in numbers:
        inbox.put_image(Message(number), number)


def handed_on(inbox: Inbox) -> list[tuple[int, int]]:
    """Stamps and drops before them, of all that were handed on until now."""
    found = []
    while inbox._ahead:
        arrival = inbox.take_ahead()
        assert arrival is not None
        found.append((arrival.stamp_ns, arrival.skipped))
        inbox.done_ahead(processed=True)
    return found


def looked_at(inbox: Inbox) -> Arrival:
    job = inbox.take(0)
    assert isinstance(job, Arrival)
    return job


@dataclasses.dataclass
class Fixed(Pace):
    """A pace that is known."""

    is_quick: bool

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def keeps_up(self) -> bool:
        return self.is_quick


def inbox_of(*, is_quick: bool) -> Inbox:
    made = Inbox(1000, goes_ahead=lambda arrival: True)
    made._pace = Fixed(is_quick)
    return made


@pytest.fixture
def inbox() -> Inbox:
    return inbox_of(is_quick=False)


def adds_up(inbox: Inbox) -> bool:
    counts = inbox.counts
    return counts.received == counts.processed + counts.dropped + counts.rejected + counts.waiting


@pytest.mark.parametrize("is_quick", [False, True])
def test_where_each_image_has_its_masks_before_the_next_one_comes_none_is_handed_on(is_quick: bool) -> None:
    inbox = inbox_of(is_quick=is_quick)
    for number in range(1, 4):
        put(inbox, number)
        assert not looked_at(inbox).is_ahead
        assert inbox.tell()
        put(inbox, number + 10) if number == 3 else None  # the masks of 3 are out, only `done` is still to come
        assert inbox.done(processed=True)
    assert handed_on(inbox) == []
    assert (inbox.counts.processed, inbox.counts.propagated, inbox.counts.waiting) == (3, 0, 1)


def test_an_image_that_comes_while_another_is_looked_at_is_handed_on_with_that_one(inbox: Inbox) -> None:
    put(inbox, 1)
    looked_at(inbox)
    put(inbox, 2, 3, 4)
    assert adds_up(inbox) and inbox.counts.waiting == 3
    assert handed_on(inbox) == [(2, 1), (3, 0), (4, 0)], "of four that wait in line the oldest makes room"
    assert not inbox.tell() and not inbox.done(processed=True)
    assert looked_at(inbox).stamp_ns == 4, "the networks look at the newest, and nobody waits for it"
    put(inbox, 5)
    assert handed_on(inbox) == [(5, 0)]
    assert not inbox.tell()
    inbox.done(processed=True)
    assert adds_up(inbox) and inbox.counts.processed == inbox.counts.propagated == 4


def test_where_the_networks_keep_up_one_image_may_wait_for_them() -> None:
    inbox = inbox_of(is_quick=True)
    put(inbox, 1)
    looked_at(inbox)
    put(inbox, 2)
    assert handed_on(inbox) == []
    assert inbox.tell() and inbox.done(processed=True)
    assert looked_at(inbox).stamp_ns == 2
    put(inbox, 3, 4)  # a look that takes far too long
    assert handed_on(inbox) == [(2, 0), (3, 0), (4, 0)]
    assert not inbox.done(processed=True)
    assert inbox.take(0) is None, "4 has its masks: the next image finds the networks free"
    put(inbox, 5)
    assert looked_at(inbox).stamp_ns == 5 and inbox.tell()
    inbox.done(processed=True)
    assert adds_up(inbox) and (inbox.counts.processed, inbox.counts.propagated) == (5, 3)


def test_an_image_that_a_seed_waits_for_is_looked_at_though_it_has_its_masks() -> None:
    inbox = inbox_of(is_quick=True)
    inbox._wanted = lambda stamp_ns: stamp_ns == 3
    put(inbox, 1)
    looked_at(inbox)
    put(inbox, 2, 3)
    inbox.done(processed=True)
    assert looked_at(inbox).stamp_ns == 3


def test_images_that_were_held_back_are_not_handed_on(inbox: Inbox) -> None:
    far = 10**13
    put(inbox, 1)
    looked_at(inbox)
    inbox.done(processed=True)
    put(inbox, far, far + 1, far + 2)
    assert looked_at(inbox).stamp_ns == far
    put(inbox, far + 3)
    assert handed_on(inbox) == [] and inbox.stamps == {far + 1, far + 2, far + 3}


def test_drops_before_are_told_once(inbox: Inbox) -> None:
    inbox.goes_ahead = lambda arrival: False
    put(inbox, 1)
    looked_at(inbox)
    put(inbox, 2, 3, 4)  # 2 and 3 make room
    inbox.goes_ahead = lambda arrival: True
    put(inbox, 5)
    assert handed_on(inbox) == [(1, 0), (4, 2), (5, 0)]


def test_what_was_handed_on_is_counted_once_whatever_becomes_of_it(inbox: Inbox) -> None:
    put(inbox, 1)
    looked_at(inbox)
    put(inbox, 2)
    for outcome in (False, None):
        assert inbox.take_ahead() is not None
        inbox.done_ahead(processed=outcome)
        assert adds_up(inbox)
    inbox.done(processed=False)
    counts = inbox.counts
    assert (counts.rejected, counts.dropped, counts.processed, counts.waiting) == (1, 1, 0, 0)
    assert inbox.dropped_image(2) is not None
    put(inbox, 3)
    inbox.close()
    assert inbox.take_ahead() is None and adds_up(inbox) and inbox.counts.waiting == 0


# --- the threads ---


class Gate:
    """Builds trackers that wait in every flow until they are let through."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.is_open = True

    def build(self, config: object) -> Tracker:
        exact = world.ExactFlow()

        def flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
            if not self.is_open:
                self.entered.release()
                assert self.permits.acquire(timeout=TIMEOUT_S)
            return exact(current, previous)

        return Tracker(world.unrefined(config), flow)

    def open(self) -> None:
        self.is_open = True
        self.permits.release(1000)


class Bench:
    """A worker whose images are frames of the world, and whose tracker waits at a gate."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.config = with_values(world.WARP_ONLY)
        self.ids = IdBook()
        self.said: list = []
        self.outcomes: list = []
        self.results: list = []
        self.changed = threading.Condition()
        self.session = Session(self.config, self.gate.build, self.ids, self.note(self.outcomes))
        self.inbox = Inbox(10_000_000, wanted=self.session.seeds.wants)
        self.inbox._pace = Fixed(False)
        self.ignored = None
        self.convert = lambda message: world.image(message.number)
        self.worker = Worker(
            self.session,
            self.inbox,
            convert=lambda message: self.convert(message),
            publish=self.note(self.results),
            reject=self.note(self.said),
            crash=self.note(self.said),
            ignored=lambda stamp_ns, size, era: self.ignored,
            ahead=Ahead(self.config, world.ExactFlow()),
        )
        self.worker.start()

    def note(self, where: list):
        def append(what) -> None:
            with self.changed:
                where.append(what)
                self.changed.notify_all()

        return append

    def wait(self, is_done) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not is_done():
            assert time.monotonic() < until, "waited in vain"
            with self.changed:
                self.changed.wait(0.02)

    def put(self, number: int) -> None:
        self.inbox.put_image(Message(number), world.stamp_ns(number))

    def image(self, number: int) -> None:
        before = len(self.results) + len(self.said)
        self.put(number)
        self.wait(lambda: len(self.results) + len(self.said) > before)

    def seed(self, number: int) -> None:
        admission = self.ids.admit(world.seed(number), self.config)
        request = SeedRequest(ticket=None, admission=admission, arrived=time.monotonic())
        self.session.seeds.arrive(request)
        self.inbox.put_request(lambda: self.session.seed(request))

    def begin(self) -> None:
        """Two instances, and the tracker at work on image 1."""
        self.seed(0)
        self.image(0)
        self.wait(lambda: [outcome.status for outcome in self.outcomes][-1:] == [SeedStatus.APPLIED])
        self.wait(lambda: self.inbox.counts.waiting == 0)
        self.gate.is_open = False
        self.put(1)
        assert self.gate.entered.acquire(timeout=TIMEOUT_S)

    @property
    def numbers(self) -> list[int]:
        return [result.message.number for result in self.results]


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.gate.open()
    made.worker.stop()


def test_every_image_has_its_masks_while_the_networks_are_at_work(bench: Bench) -> None:
    bench.begin()
    for number in range(2, 6):
        bench.put(number)
        bench.wait(lambda number=number: bench.numbers[-1] == number)
    assert bench.numbers == [0, 1, 2, 3, 4, 5]
    for result in bench.results:
        np.testing.assert_array_equal(result.tracks.labels, world.labels(result.message.number))
        assert [track.state for track in result.tracks.tracks[:1]] != [InstanceState.LOST]
    assert bench.session.newest_ns == world.stamp_ns(0), "the networks have looked at no other"
    bench.gate.open()  # they finish 1, then look at 5: nothing more is published of either
    bench.wait(lambda: bench.session.newest_ns == world.stamp_ns(5))
    bench.image(6)
    assert bench.numbers == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, world.labels(6))
    assert [result.frame_index for result in bench.results] == list(range(7))
    assert [result.frames_skipped for result in bench.results] == [0] * 7
    bench.wait(lambda: bench.inbox.counts.waiting == 0)
    counts = bench.inbox.counts
    assert (counts.received, counts.processed, counts.dropped) == (7, 7, 0)
    assert counts.propagated in (5, 6), "6 may come before the networks are through with 5"
    assert bench.said == []


def test_an_instance_that_is_removed_meanwhile_is_said_to_be_once(bench: Bench) -> None:
    bench.begin()
    bench.put(2)
    bench.wait(lambda: bench.numbers[-1] == 2)
    bench.ids.remove((1,))
    bench.inbox.put_request(lambda: bench.session.remove((1,)))
    bench.gate.permits.release()  # the tracker ends image 1, then carries the request out, then works on 2
    assert bench.gate.entered.acquire(timeout=TIMEOUT_S)
    for number in (3, 4):
        bench.put(number)
        bench.wait(lambda number=number: bench.numbers[-1] == number)
    said = [[(t.instance_id, t.state == InstanceState.REMOVED) for t in r.tracks.tracks] for r in bench.results]
    assert said == [[(1, False), (2, False)]] * 3 + [[(1, True), (2, False)], [(2, False)]]
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, np.where(world.labels(4) == 2, 2, 0))


def test_without_instances_nothing_is_carried_and_the_latest_image_wins(bench: Bench) -> None:
    bench.image(0)
    hold = threading.Event()
    bench.inbox.put_request(lambda: hold.wait(TIMEOUT_S) and None)
    bench.wait(lambda: bench.inbox.requests_waiting == 0)
    for number in (1, 2, 3):
        bench.put(number)
    hold.set()
    bench.wait(lambda: bench.numbers == [0, 3])
    assert bench.results[-1].frames_skipped == 2 and bench.inbox.counts.propagated == 0


def test_what_is_marked_is_shown_and_carried_while_the_networks_learn_it(bench: Bench) -> None:
    """Here nothing learns, so the session is told what the tracker tells it."""
    tracker = bench.session.tracker
    start, marked, learning = tracker.start, threading.Event(), threading.Event()

    def slow(*seed: object, **more: object) -> dict:
        found = start(*seed, **more)
        tracker.marked(found)
        marked.set()
        assert learning.wait(TIMEOUT_S)
        return found

    tracker.start = slow  # type: ignore[method-assign]
    bench.seed(0)
    bench.put(0)
    assert marked.wait(TIMEOUT_S)
    for number in range(1, 4):
        bench.put(number)
        bench.wait(lambda number=number: bench.numbers[-1:] == [number])
    assert bench.numbers == [0, 1, 2, 3]
    assert SeedStatus.APPLIED not in [outcome.status for outcome in bench.outcomes]
    for result in bench.results:
        np.testing.assert_array_equal(result.tracks.labels, world.labels(result.message.number))
    states = [track.state for result in bench.results for track in result.tracks.tracks]
    assert states == [InstanceState.SEEDED] * 2 + [InstanceState.TRACKING] * 6
    learning.set()
    bench.wait(lambda: [outcome.status for outcome in bench.outcomes][-1:] == [SeedStatus.APPLIED])
    bench.wait(lambda: bench.session.newest_ns == world.stamp_ns(3))
    bench.image(4)
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, world.labels(4))


def test_while_the_networks_hang_masks_are_carried_for_two_seconds(bench: Bench) -> None:
    bench.begin()
    last = 2_000_000_000 // world.PERIOD_NS
    for number in range(2, last + 2):
        bench.put(number)
        if number <= last:
            bench.wait(lambda number=number: bench.numbers[-1] == number)
    bench.put(last + 2)
    assert bench.inbox.counts.dropped == 1 and bench.numbers[-1] == last


def test_the_networks_are_given_the_ignore_mask_of_when_they_look(bench: Bench) -> None:
    bench.begin()
    bench.put(2)
    bench.wait(lambda: bench.numbers[-1] == 2)
    bench.ignored = np.ones(world.labels(0).shape, bool)  # it came somewhat after the image
    bench.gate.open()
    bench.wait(lambda: bench.session.newest_ns == world.stamp_ns(2))
    bench.wait(lambda: all(state.frames_unseen for state in bench.session.states.values()))


def test_a_fault_in_saying_so_does_not_end_the_thread(bench: Bench) -> None:
    bench.begin()
    reject, bench.worker._propagator._reject = bench.worker._propagator._reject, lambda line: [][0]
    bench.convert = lambda message: world.image(message.number)[:-3]
    bench.put(2)
    bench.wait(lambda: any("IndexError" in line for line in bench.said))
    bench.worker._propagator._reject = reject
    bench.convert = lambda message: world.image(message.number)
    bench.put(3)
    bench.wait(lambda: bench.numbers[-1] == 3)


def test_a_thread_that_hangs_is_a_fault(bench: Bench) -> None:
    bench.begin()
    bench.gate.open()
    bench.wait(lambda: bench.inbox.counts.waiting == 0 and bench.worker.silent_s == 0)
    hold = threading.Event()
    bench.worker._propagator._carry = lambda *arguments: hold.wait(TIMEOUT_S)
    bench.inbox._hand_on(Arrival(Message(2), world.stamp_ns(2), 0.0))
    with bench.inbox._condition:
        bench.inbox._condition.notify_all()
    bench.wait(lambda: "hangs" in bench.worker.fault(0.05))
    hold.set()
    bench.wait(lambda: bench.worker.silent_s == 0)
    assert not bench.worker.fault(0.05) and bench.worker.is_alive


def test_a_removal_that_is_not_said_is_said_after_the_next_activation(bench: Bench) -> None:
    bench.begin()
    bench.gate.open()
    bench.wait(lambda: bench.inbox.counts.waiting == 0)
    bench.ids.remove((2,))
    bench.inbox.put_request(lambda: bench.session.remove((2,)))
    bench.wait(lambda: 2 not in bench.session.states)
    assert bench.worker.stop()
    gone = bench.session.process(world.frame(9)).tracks
    assert [(t.instance_id, t.state) for t in gone if t.state == InstanceState.REMOVED] == [(2, InstanceState.REMOVED)]


def test_a_fault_in_one_image_ends_neither_stream(bench: Bench) -> None:
    bench.begin()
    bench.convert = lambda message: [][0] if message.number == 2 else world.image(message.number)[: 9 - message.number]
    for number, text in ((2, "IndexError"), (3, "like those before, got")):
        bench.put(number)
        bench.wait(lambda text=text: any(text in line for line in bench.said))
    bench.convert = lambda message: world.image(message.number)
    bench.put(4)
    bench.wait(lambda: bench.numbers == [0, 1, 4])
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, world.labels(4))
    bench.gate.open()
    bench.wait(lambda: bench.inbox.counts.waiting == 0)
    counts = bench.inbox.counts
    assert (counts.received, counts.processed, counts.rejected, counts.dropped) == (5, 3, 2, 0)


def test_after_a_reset_nothing_of_the_session_before_is_published(bench: Bench) -> None:
    bench.begin()
    bench.ids.clear()
    bench.inbox.put_request(lambda: bench.session.reset("asked"))
    bench.gate.open()
    bench.wait(lambda: bench.session.number == 2)
    bench.image(7)
    assert [result.session for result in bench.results] == [1, 1, 2] and bench.results[-1].frame_index == 0
    assert bench.results[-1].tracks.tracks == ()


# --- what is carried ---


def followed(count: int = 1) -> tuple[Tracker, Look]:
    tracker = world.exact_tracker(world.WARP_ONLY)
    tracker.seed(world.seed(0), world.frame(0))
    for number in range(1, count):
        tracker.step(world.frame(number))
    look = Look.of(tracker)
    assert look is not None
    return tracker, look


def test_the_networks_go_on_as_if_nothing_had_been_carried() -> None:
    tracker, look = followed(2)
    ahead = Ahead(world.WARP_ONLY, world.ExactFlow())
    before = {i: state.patch.full.copy() for i, state in tracker.states.items()}
    for number in (2, 3):
        np.testing.assert_array_equal(ahead.tracks(world.frame(number), look).labels, world.labels(number))
    assert tracker.moment.states is look.moment.states
    for i, state in tracker.states.items():
        np.testing.assert_array_equal(state.patch.full, before[i])


def test_from_a_new_look_the_flow_goes_through_all_images_since_and_each_pair_is_estimated_once() -> None:
    pairs: list[tuple[int, int]] = []
    exact = world.ExactFlow()

    def flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        pairs.append((exact._number(current), exact._number(previous)))
        return exact(current, previous)

    tracker, look = followed()
    ahead = Ahead(world.WARP_ONLY, flow)
    for number in (1, 2, 3):
        ahead.tracks(world.frame(number), look)
    tracker.step(world.frame(2))  # the networks look at 2 meanwhile
    newer = Look.of(tracker)
    assert newer is not None
    found = ahead.tracks(world.frame(4), newer)
    assert pairs == [(1, 0), (2, 1), (3, 2), (4, 3)]
    np.testing.assert_array_equal(found.labels, world.labels(4))


def test_an_instance_that_vanishes_between_two_looks_is_occluded() -> None:
    _, look = followed()
    ahead = Ahead(world.WARP_ONLY, world.ExactFlow())
    said = []
    for number in (1, 2, 3):
        ignored = np.full(world.labels(0).shape, number >= 2)
        frame = dataclasses.replace(world.frame(number), ignored=ignored)
        said.append([(track.state, track.frames_unseen) for track in ahead.tracks(frame, look).tracks])
    hidden = [(InstanceState.OCCLUDED, 1)] * 2
    assert said == [[(InstanceState.TRACKING, 0)] * 2, hidden, hidden]


def test_a_removal_is_said_once_though_masks_from_before_it_come_after_it() -> None:
    published: list = []
    results = Results(published.append, 1, 0)
    tracker, look = followed()
    before = Ahead(world.WARP_ONLY, world.ExactFlow()).tracks(world.frame(1), look)
    gone = [state.removed_track for i, state in tracker.states.items() if i == 1]
    results.removed(gone, 1)
    later = dataclasses.replace(before, tracks=before.tracks[1:])
    for number, tracks in ((1, before), (2, later), (3, later)):
        assert results.put(Arrival(Message(number), number, 0.0), world.image(number), tracks, 1)
    states = [[(t.instance_id, t.state == InstanceState.REMOVED) for t in r.tracks.tracks] for r in published]
    assert states == [[(1, False), (2, False)], [(1, True), (2, False)], [(2, False)]]
    assert not results.put(Arrival(Message(2), 2, 0.0), world.image(2), later, 1), "a newer one is out"


def test_after_a_jump_in_time_nothing_of_before_is_gone_through(bench: Bench) -> None:
    bench.begin()
    for number in (2, 3, 4):
        bench.put(number)
        bench.wait(lambda number=number: bench.numbers[-1] == number)
    assert len(bench.worker._propagator._ahead._past) == 4
    known = bench.worker._known
    bench.worker._known = dataclasses.replace(known, era=known.era + 1)
    bench.inbox._order.era += 1
    bench.put(5)
    bench.wait(lambda: bench.numbers[-1] == 5)
    assert len(bench.worker._propagator._ahead._past) == 1


def test_counts_of_unseen_images_do_not_run_ahead_of_the_networks() -> None:
    tracker, _ = followed(2)
    hidden = Frame(stamp_ns=world.stamp_ns(2), image=world.image(2), ignored=np.ones(world.labels(2).shape, bool))
    tracker.step(hidden)
    look = Look.of(tracker)
    assert look is not None and [state.frames_unseen for state in tracker.states.values()] == [1, 1]
    ahead = Ahead(world.WARP_ONLY, world.ExactFlow())
    counts = [[track.frames_unseen for track in ahead.tracks(world.frame(n), look).tracks] for n in (3, 4, 5)]
    assert counts == [[2, 2]] * 3, "as many as when the networks look at one of them"


def test_frames_since_a_look_are_held_within_a_bound() -> None:
    _, look = followed()
    ahead = Ahead(world.WARP_ONLY, world.ExactFlow())
    labels = [ahead.tracks(world.frame(number), look).labels for number in range(1, 25)]
    assert len(ahead._past) == 16 and len(ahead._flow._known) <= 16
    for number, found in itertools.islice(enumerate(labels, 1), 0, None, 6):
        np.testing.assert_array_equal(found, world.labels(number))
