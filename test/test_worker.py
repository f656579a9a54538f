# SPDX-License-Identifier: Apache-2.0
"""Inbox and worker without topics: who waits, who is dropped, what is counted, what survives a fault."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import world

from maskrnn_ros.config import with_values
from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracker_node.worker import Worker
from maskrnn_ros.tracking.catch_up import CatchUp
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedRequest, SeedStatus, Session

TIMEOUT_S = 30.0


@dataclasses.dataclass
class Message:
    """What the inbox needs of an image message."""

    number: int
    data: bytes = bytes(100)


def put(inbox: Inbox, *numbers: int) -> None:
    for number in numbers:
        inbox.put_image(Message(number), number)


def taken(inbox: Inbox) -> tuple[int, int] | None:
    job = inbox.take(0)
    if job is None:
        return None
    assert isinstance(job, Arrival)
    inbox.done(processed=True)
    return job.stamp_ns, job.skipped


def test_the_latest_image_wins_and_the_next_one_says_how_many_were_left_out() -> None:
    inbox = Inbox(1000)
    put(inbox, 1)
    assert taken(inbox) == (1, 0)
    put(inbox, 2, 3, 4)
    assert taken(inbox) == (4, 2)
    assert taken(inbox) is None
    put(inbox, 5)
    assert taken(inbox) == (5, 0)
    counts = inbox.counts
    assert (counts.received, counts.processed, counts.dropped, counts.waiting) == (5, 3, 2, 0)


def test_drops_during_a_step_are_told_with_the_image_that_came_after_them() -> None:
    inbox = Inbox(1000)
    put(inbox, 1)
    first = inbox.take(0)
    put(inbox, 2, 3, 4)  # while 1 is worked on
    inbox.done(processed=True)
    assert isinstance(first, Arrival) and first.skipped == 0
    assert taken(inbox) == (4, 2)


def test_an_image_that_a_seed_waits_for_is_not_dropped_until_none_does() -> None:
    waiting = [2, 2]
    inbox = Inbox(1000, wanted=lambda stamp_ns: stamp_ns in waiting)
    put(inbox, 1, 2, 3)
    assert inbox.stamps == {2, 3}
    waiting.pop()
    put(inbox, 4)
    assert inbox.stamps == {2, 4}
    waiting.pop()
    put(inbox, 5)
    assert inbox.stamps == {5}


def test_dropped_images_are_kept_within_their_bound() -> None:
    inbox = Inbox(250)  # two messages of 100 bytes
    put(inbox, 1, 2, 3, 4, 4)
    assert [inbox.dropped_image(n) is not None for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_while_disabled_images_are_dropped_and_kept() -> None:
    inbox = Inbox(1000, enabled=False)
    put(inbox, 1)
    assert inbox.take(0) is None and inbox.dropped_image(1) is not None
    assert (inbox.counts.received, inbox.counts.dropped) == (1, 1)


def test_requests_go_first_and_are_still_given_after_closing() -> None:
    inbox = Inbox(1000)
    put(inbox, 1)
    inbox.put_request(lambda: None)
    assert callable(inbox.take(0)) and not isinstance(inbox.take(0), type(None))
    inbox.done(processed=False)
    put(inbox, 2)
    inbox.put_request(lambda: None)
    inbox.close()
    assert callable(inbox.take(None))
    assert inbox.take(None) is None
    counts = inbox.counts
    assert (counts.received, counts.dropped, counts.rejected, counts.waiting) == (2, 1, 1, 0)


def test_a_late_image_takes_no_place_from_a_newer_one_and_is_kept_for_a_seed() -> None:
    inbox = Inbox(1000)
    put(inbox, 1, 3)
    (refusal,) = inbox.put_image(Message(2), 2)
    assert (refusal.stamp_ns, "too late" in refusal.reason) == (2, True)
    assert taken(inbox) == (3, 1)
    assert inbox.dropped_image(2) is not None
    counts = inbox.counts
    assert (counts.received, counts.processed, counts.dropped, counts.rejected, counts.waiting) == (3, 1, 1, 1, 0)
    assert counts.rejected_stamps == (2,)


def test_images_that_are_held_back_wait_and_then_all_go_through_in_order() -> None:
    inbox, far = Inbox(1000), 10**13
    put(inbox, 1)
    assert taken(inbox) == (1, 0)
    put(inbox, far, far + 1)
    assert (inbox.counts.waiting, inbox.counts.held_stamps, inbox.held) == (2, (far, far + 1), {far, far + 1})
    assert inbox.take(0) is None and not inbox.stamps
    put(inbox, far + 2, far + 3, far + 4)  # the third ends the doubt; of those after it the latest wins
    stamps, skipped = zip(*[taken(inbox) or (0, 0) for _ in range(4)], strict=True)
    assert (stamps, sum(skipped)) == ((far, far + 1, far + 2, far + 4), 1)
    assert inbox.take(0) is None and inbox.counts.rejected == 0


def test_a_wild_image_is_rejected_by_the_next_one_and_closing_drops_what_is_held() -> None:
    inbox, far = Inbox(1000), 10**13
    put(inbox, 1, far)
    refused = inbox.put_image(Message(2), 2)
    assert [refusal.stamp_ns for refusal in refused] == [far] and taken(inbox) == (2, 1)
    put(inbox, far)
    inbox.close()
    counts = inbox.counts
    assert (counts.received, counts.processed, counts.dropped, counts.rejected, counts.waiting) == (4, 1, 2, 1, 0)


def test_the_time_may_be_forgotten_and_then_any_stamp_is_taken_as_of_another_era() -> None:
    inbox = Inbox(1000)
    put(inbox, 5, 10**13)
    assert [refusal.stamp_ns for refusal in inbox.forget_time()] == [10**13]
    put(inbox, 3)
    job = inbox.take(0)
    assert isinstance(job, Arrival) and (job.stamp_ns, job.era) == (3, 1)


def test_while_disabled_time_goes_on() -> None:
    inbox = Inbox(1000, enabled=False)
    put(inbox, 1, 2)
    inbox.enabled = True
    assert [refusal.stamp_ns for refusal in inbox.put_image(Message(1), 2)] == [2]
    put(inbox, 3)
    assert taken(inbox) == (3, 2)


class Bench:
    """A worker whose images are frames of the world, by number."""

    def __init__(self, **changes: object) -> None:
        self.config = with_values(world.WARP_ONLY, **changes)
        self.ids = IdBook()
        self.outcomes: list = []
        self.results: list = []
        self.rejects: list[str] = []
        self.crashes: list[str] = []
        self.changed = threading.Condition()
        self.session = Session(self.config, world.exact_tracker, self.ids, self.note(self.outcomes))
        self.inbox = Inbox(10_000_000, wanted=self.session.seeds.wants)
        self.now = 0.0
        self.convert = lambda message: world.image(message.number)
        self.worker = Worker(
            self.session,
            self.inbox,
            convert=lambda message: self.convert(message),
            publish=self.note(self.results),
            reject=self.note(self.rejects),
            crash=self.note(self.crashes),
            clock=lambda: self.now,
        )
        self.worker.start()

    def note(self, where: list):
        def append(what) -> None:
            with self.changed:
                where.append(what)
                self.changed.notify_all()

        return append

    def wait(self, is_done) -> None:
        with self.changed:
            assert self.changed.wait_for(is_done, TIMEOUT_S), "waited in vain"

    def image(self, number: int) -> None:
        before = len(self.results) + len(self.rejects) + len(self.crashes)
        self.inbox.put_image(Message(number), world.stamp_ns(number))
        self.wait(lambda: len(self.results) + len(self.rejects) + len(self.crashes) > before)

    def seed(self, seed) -> None:
        admission = self.ids.admit(seed, self.config)
        request = SeedRequest(ticket=None, admission=admission, arrived=time.monotonic())
        self.session.seeds.arrive(request)
        self.inbox.put_request(lambda: self.session.seed(request))

    def said(self) -> list[SeedStatus]:
        return [outcome.status for outcome in self.outcomes]


@pytest.fixture
def bench(request: pytest.FixtureRequest):
    made = Bench(**getattr(request, "param", {}))
    yield made
    made.worker.stop()


def test_a_fault_of_ours_in_one_image_does_not_end_the_stream(bench: Bench) -> None:
    bench.seed(world.seed(0))
    bench.image(0)
    bench.convert = lambda message: [][0]
    bench.image(1)
    assert "IndexError" in bench.crashes[0]
    bench.convert = lambda message: world.image(message.number)
    bench.image(2)
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, world.labels(2))
    bench.wait(lambda: bench.inbox.counts.waiting == 0)
    assert (bench.inbox.counts.processed, bench.inbox.counts.rejected) == (2, 1)


@pytest.mark.parametrize("bench", [{"seed_timeout": 0.1}], indirect=True)
def test_a_seed_times_out_although_nothing_else_happens(bench: Bench) -> None:
    bench.image(0)
    bench.seed(world.seed(3))
    bench.wait(lambda: bench.said() == [SeedStatus.PENDING, SeedStatus.REJECTED])


@pytest.mark.parametrize("bench", [{"catch_up__mode": "skip"}], indirect=True)
def test_a_late_seed_catches_up_although_no_image_comes(bench: Bench) -> None:
    for number in range(8):
        bench.image(number)
    bench.seed(world.seed(1))
    bench.wait(lambda: bench.said() == [SeedStatus.PENDING, SeedStatus.APPLIED])
    bench.image(8)
    np.testing.assert_array_equal(bench.results[-1].tracks.labels, world.labels(8))


@pytest.mark.parametrize("bench", [{"seed_timeout": 0.05}], indirect=True)
def test_a_seed_does_not_time_out_while_the_worker_is_busy_and_its_image_waits(bench: Bench) -> None:
    hold = threading.Event()
    bench.inbox.put_request(lambda: hold.wait(TIMEOUT_S) and None)
    bench.seed(world.seed(1))
    bench.inbox.put_request(lambda: time.sleep(0.1))  # longer than the timeout, after the seed was taken
    bench.inbox.put_image(Message(1), world.stamp_ns(1))
    hold.set()
    bench.wait(lambda: bench.said()[-1:] == [SeedStatus.APPLIED])


def test_the_snapshot_shows_the_session_after_every_job(bench: Bench) -> None:
    bench.seed(world.seed(0))
    bench.image(0)
    done = threading.Event()
    bench.inbox.put_request(done.set)  # the snapshot after the image is there when this runs
    assert done.wait(TIMEOUT_S)
    seen = bench.worker.snapshot
    assert (seen.session, seen.ids, seen.size, seen.buffer_frames) == (1, (1, 2), (96, 128), 1)
    assert seen.newest_ns == seen.buffer_oldest_ns == world.stamp_ns(0)


def test_requests_that_are_left_at_the_stop_are_carried_out() -> None:
    bench = Bench()
    ran: list[int] = []
    for number in range(50):
        bench.inbox.put_request(lambda number=number: ran.append(number))
    bench.worker.stop()
    assert ran == list(range(50))


# --- the watchdog ---


def held(bench: Bench) -> threading.Event:
    """A request that runs until the event is set."""
    begun, hold = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert hold.wait(TIMEOUT_S)

    bench.inbox.put_request(wait)
    assert begun.wait(TIMEOUT_S)
    return hold


def test_a_job_that_never_returns_is_a_fault_and_one_that_waits_for_work_is_none(bench: Bench) -> None:
    bench.image(0)
    bench.wait(lambda: bench.inbox.counts.waiting == 0)
    hold = held(bench)
    bench.now += 29.0
    assert (bench.worker.silent_s, bench.worker.fault(30.0)) == (29.0, "")
    bench.now += 2.0
    assert bench.worker.fault(30.0) == "the worker hangs: a request, no progress for 31.0 s"
    assert bench.worker.fault(0.0) == ""
    assert not bench.worker.stop(timeout_s=0.01) and bench.worker.is_alive
    hold.set()
    assert bench.worker.stop()
    bench.now += 1000.0
    assert bench.worker.fault(30.0) == ""


def test_a_time_in_which_the_process_stood_still_is_no_silence(bench: Bench) -> None:
    hold = held(bench)
    bench.now += 1010.0
    bench.worker.excuse(1000.0)
    assert (bench.worker.silent_s, bench.worker.fault(30.0)) == (10.0, "")
    bench.worker.excuse(1000.0)  # a step that began after it has no debt
    assert bench.worker.silent_s == 0.0
    bench.now += 31.0
    assert bench.worker.fault(30.0)
    hold.set()


def test_waiting_for_images_is_no_silence(bench: Bench) -> None:
    bench.image(0)
    done = threading.Event()
    bench.inbox.put_request(done.set)
    assert done.wait(TIMEOUT_S)
    while bench.worker.doing != "nothing, no progress for 0.0 s":
        assert bench.worker.is_alive
    bench.now += 1000.0
    assert (bench.worker.silent_s, bench.worker.fault(30.0)) == (0.0, "")


def test_a_thread_that_ended_unasked_is_a_fault(bench: Bench) -> None:
    bench.inbox.put_request(sys.exit)
    bench.worker._thread.join(TIMEOUT_S)
    assert bench.worker.fault(0.0) == "the worker's thread has ended unasked"


@pytest.mark.parametrize("bench", [{"catch_up__mode": "exact"}], indirect=True)
def test_an_exact_catch_up_longer_than_the_limit_is_progress(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        bench.image(number)
    silent: list[float] = []
    real = CatchUp.step

    def slow(late: CatchUp, *arguments: object) -> None:
        bench.now += 20.0
        silent.append(bench.worker.silent_s)
        assert not bench.worker.fault(30.0)
        real(late, *arguments)

    monkeypatch.setattr(CatchUp, "step", slow)
    bench.seed(world.seed(1))
    bench.wait(lambda: bench.said() == [SeedStatus.PENDING, SeedStatus.APPLIED])
    assert silent == [20.0] * 6


def test_what_is_left_at_the_end_of_the_process_is_not_carried_out(bench: Bench) -> None:
    hold, ran = held(bench), []
    bench.inbox.put_request(lambda: ran.append(1))
    assert not bench.worker.stop(finish=False, timeout_s=0.01)
    hold.set()
    assert bench.worker.stop() and not ran
