# SPDX-License-Identifier: Apache-2.0
"""One life of a seed: whatever happens in whatever order, it gets one outcome and its ids are given back.

Two machines draw orders of seeds, images, jumps of time, removals and resets. One drives the queue alone and answers
its decisions at random; the other drives the real session, and compares what it publishes with the exact world.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import world
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_session import Bench

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.prompted import AnySeed, PromptedInstance, PromptSeed
from maskrnn_ros.tracking.seed_request import Decision, SeedRequest, SeedState, SeedStatus, Start, Stream
from maskrnn_ros.tracking.seeds import SeedQueue
from maskrnn_ros.types import InstanceState, Seed

PENDING, APPLIED, REJECTED = SeedStatus.PENDING, SeedStatus.APPLIED, SeedStatus.REJECTED
RARELY = st.sampled_from([False] * 5 + [True])
SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}


def check_said(statuses: list[SeedStatus]) -> None:
    """Pending at most once, and only before the one outcome."""
    assert statuses in ([], [PENDING], [APPLIED], [REJECTED], [PENDING, APPLIED], [PENDING, REJECTED]), statuses


def marks(kind: str, stamp_ns: int) -> AnySeed:
    """A seed: ids in a label mask, the value of a new one, or clicks."""
    if kind == "clicks":
        clicks = (Prompt(points=(Point(x=1, y=1),)), Prompt(points=(Point(x=2, y=1),)))
        return PromptSeed(stamp_ns=stamp_ns, prompted=tuple(PromptedInstance(prompt=click) for click in clicks))
    ids = {"one": [1], "both": [1, 2], "two": [2], "new": [255], "many": [5, 6, 7, 8, 9]}[kind]
    return Seed(stamp_ns=stamp_ns, labels=np.array([ids], np.int32))


class QueueMachine(RuleBasedStateMachine):
    """The queue, an inbox before it, and whoever carries its decisions out as the dice say."""

    @initialize(replays=st.booleans())
    def begin(self, replays: bool) -> None:
        self.config = with_values(Config(), seed_timeout=10.0, max_instances=8)
        self.ids, self.now, self.newest = IdBook(), 0.0, 10
        self.queue = SeedQueue(self.ids, self.config)
        self.stamps = [8, 9, 10]
        self.replays = replays
        self.inbox: list[SeedRequest] = []
        self.sent: list[SeedRequest] = []
        self.tracked: set[int] = set()
        self.said: dict[SeedRequest, list[SeedStatus]] = defaultdict(list)

    @property
    def stream(self) -> Stream:
        newest = self.stamps[-1] if self.stamps else None
        return Stream(newest, tuple(self.stamps), self.replays, self.stamps[0] if self.stamps else None)

    def carry_out(self, decisions: list[Decision], data: st.DataObject) -> None:
        for decision in decisions:
            if isinstance(decision, Start):
                self.attempt(decision.request, data)
            else:
                self.hear(decision)

    def hear(self, tell: Decision) -> None:
        assert not isinstance(tell, Start)
        self.said[tell.request].append(tell.status)

    def attempt(self, request: SeedRequest, data: st.DataObject) -> None:
        """A seed that starts is applied, refused, or comes late."""
        assert request.state == SeedState.STARTED and self.stamps
        match data.draw(st.sampled_from(["applied", "applied", "late", "refused"])):
            case "applied":
                ids = tuple(i for i in request.seed.ids if i not in self.ids.removed)
                self.tracked |= set(ids)
                for tell in self.queue.finish(request, APPLIED, "", ids):
                    self.hear(tell)
            case "refused":
                for tell in self.queue.reject(request, "it cannot be cut"):
                    self.hear(tell)
            case _:
                for tell in self.queue.pending(request, "catches up"):
                    self.hear(tell)

    @rule(
        kind=st.sampled_from(["one", "two", "both", "new", "new", "many", "clicks"]),
        ahead=st.integers(-4, 2),
        is_next=RARELY,
        brings=st.booleans(),
        twice=st.booleans(),
        waits=st.booleans(),
        data=st.data(),
    )
    def send(
        self, kind: str, ahead: int, is_next: bool, brings: bool, twice: bool, waits: bool, data: st.DataObject
    ) -> None:
        seed = marks(kind, 0 if is_next else max(1, self.newest + ahead))
        for _ in range(1 + twice):
            used = self.ids.used
            try:
                admission = self.ids.admit(seed, self.config)
            except ValueError:
                return  # refused before it was a seed
            if kind in ("new", "clicks") and not admission.is_duplicate:
                assert used.isdisjoint(admission.seed.ids), "an id was given twice"
            own = (lambda: None) if brings else None
            request = SeedRequest(ticket=None, admission=admission, arrived=self.now, frame=own)
            self.queue.arrive(request)
            self.sent.append(request)
            self.inbox.append(request)
        while self.inbox and not waits:
            self.take(data)

    @precondition(lambda self: self.inbox)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        self.carry_out(self.queue.add(self.inbox.pop(0), self.now, self.stream), data)

    @rule(later=st.lists(st.integers(1, 2), min_size=1, max_size=4), data=st.data())
    def images(self, later: list[int], data: st.DataObject) -> None:
        for step in later:
            self.newest += step
            self.see(data)

    def see(self, data: st.DataObject) -> None:
        """The image of the newest stamp: what waited for it starts, what it has passed ends."""
        self.stamps = [*self.stamps, self.newest][-3:]
        waiting = [r for r in self.sent if r.state == SeedState.WAITING and r.stamp_ns in (0, self.newest)]
        doubted = [r for r in self.sent if r.state == SeedState.IN_DOUBT and r.stamp_ns <= self.newest]
        verdicts = [r.verdict for r in doubted]
        decisions = self.queue.due(self.newest, self.stream)
        assert set(waiting) <= {d.request for d in decisions if isinstance(d, Start)}
        told = {d.request: (d.status, d.reason) for d in decisions if not isinstance(d, Start)}
        assert [told[request] for request in doubted] == verdicts
        self.carry_out(decisions, data)
        self.queue.shown()
        assert not [r for r in self.sent if r.waits and r.stamp_ns <= self.newest]

    @rule(back=st.integers(1, 8), keeps=st.booleans(), data=st.data())
    def jump(self, back: int, keeps: bool, data: st.DataObject) -> None:
        self.newest = max(1, self.newest - back)
        if keeps:
            self.carry_out(list(self.queue.give_up("time went back", started=True)), data)
            self.stamps = []
        else:
            self.carry_out(list(self.queue.jumped(self.newest, "time went back")), data)
            self.new_session()
            self.carry_out(self.queue.renew(self.stream), data)
        self.see(data)
        while self.inbox:  # admitted before the jump, taken after it
            self.take(data)

    def new_session(self) -> None:
        self.ids.clear()
        self.tracked.clear()
        self.stamps = []

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        """The book is cleared at once; the session hears of it after the seeds that were sent before."""
        self.ids.clear()
        self.tracked.clear()
        while self.inbox:
            self.take(data)
        self.carry_out(list(self.queue.give_up("asked for")), data)
        self.ids.clear()
        self.new_session()
        assert not self.queue.waiting

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0]), coming=st.booleans(), held=st.booleans(), data=st.data())
    def wait(self, seconds: float, coming: bool, held: bool, data: st.DataObject) -> None:
        self.now += seconds
        images = {self.newest + 1}
        self.carry_out(
            self.queue.expired(self.now, self.stream, images if coming else (), images if held else ()), data
        )
        if not (coming or held):
            assert all(request.deadline_s > self.now for request in self.sent if request.waits)

    @precondition(lambda self: self.queue.late is not None and self.stamps)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        late = self.queue.late
        assert late is not None
        self.attempt(late, data)

    @precondition(lambda self: self.ids.live)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from(self.ids.live))
        self.ids.remove([i])
        self.tracked.discard(i)

    @invariant()
    def one_outcome(self) -> None:
        for request in getattr(self, "sent", ()):
            check_said(self.said[request])
            is_over = self.said[request][-1:] in ([APPLIED], [REJECTED])
            assert is_over == (request.state == SeedState.OVER)
            assert is_over or self.queue.wants(request.stamp_ns)

    @invariant()
    def ids_are_conserved(self) -> None:
        if hasattr(self, "sent"):
            waiting = [r.admission for r in self.sent if r.state != SeedState.OVER]
            held = {i for one in waiting if self.ids.is_current(one) and not one.is_duplicate for i in one.seed.ids}
            assert set(self.ids.live) == (self.tracked | held) - self.ids.removed

    def teardown(self) -> None:
        if not hasattr(self, "sent"):
            return
        for tell in self.queue.end_all("the end"):
            self.hear(tell)
        for request in self.inbox:
            assert self.queue.add(request, self.now, self.stream) == []
        assert self.queue.waiting == 0 and self.queue.end_all("again") == []
        assert all(self.said[request][-1] in (APPLIED, REJECTED) for request in self.sent)
        self.one_outcome()
        self.ids_are_conserved()


class SessionMachine(RuleBasedStateMachine):
    """The real session with the exact tracker: what it says of seeds, and that its masks are those of the world."""

    @initialize(mode=st.sampled_from(["exact", "skip"]), jump=st.sampled_from(["reset", "keep"]))
    def begin(self, mode: str, jump: str) -> None:
        self.bench = Bench(catch_up__mode=mode, on_time_jump=jump, buffer__seconds=0.15, seed_timeout=1.0)
        self.number, self.sent, self.heard = 5, 0, 0
        self.objects: dict[int, tuple[int, ...]] = {}  # by ticket
        self.new: set[int] = set()  # tickets of one new instance, whatever it covers
        self.marked: dict[tuple[int, ...], tuple[int, ...]] = {}  # by session, instance and image of its seed

    def hear(self) -> None:
        """Learn from outcomes which object an instance is."""
        session = self.bench.session
        for outcome in self.bench.outcomes[self.heard :]:
            if outcome.status != APPLIED or outcome.session != session.number:
                continue
            objects = self.objects[outcome.ticket]
            for i in outcome.ids:
                state = session.states.get(i)
                if state is not None:
                    mine = objects if outcome.ticket in self.new else (i // 10,)
                    self.marked.setdefault((session.number, i, state.seeded_ns), mine)
        self.heard = len(self.bench.outcomes)

    def see(self, published: list) -> None:
        """Where something is followed, and nowhere else, there are masks."""
        self.hear()
        if not published:
            return
        tracks, states, session = published[-1], self.bench.session.states, self.bench.session.number
        there = [track.instance_id for track in tracks.tracks if track.state != InstanceState.REMOVED]
        assert there == list(states)
        objects = {one for i, state in states.items() for one in self.marked[session, i, state.seeded_ns]}
        exact = np.isin(world.labels(self.number), list(objects))
        np.testing.assert_array_equal(tracks.labels != 0, exact)
        assert set(np.unique(tracks.labels)) - {0} <= set(states)

    # on 19 object 2 begins to leave the picture, and flow brings nothing back from there when time jumps back
    @precondition(lambda self: self.number < 15)
    @rule(count=st.integers(1, 4))
    def images(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.see(self.bench.images(self.number))

    @precondition(lambda self: not self.bench.session.seeds.wants(0))  # that one was drawn for another next image
    @rule(back=st.integers(1, 8))
    def jump(self, back: int) -> None:
        self.number = max(0, self.number - back)
        self.see([self.bench.jump(self.number)])

    @rule(
        ahead=st.integers(-7, 3),
        objects=st.sampled_from([(1,), (2,), (1, 2)]),
        is_new=st.booleans(),
        is_next=RARELY,
        brings=st.booleans(),
        times=st.integers(1, 2),
    )
    def seed(self, ahead: int, objects: tuple[int, ...], is_new: bool, is_next: bool, brings: bool, times: int) -> None:
        number = self.number + 1 if is_next else max(0, self.number + ahead)
        seed = world.seed(number, *objects)
        labels = np.where(seed.labels != 0, 255, 0).astype(np.int32) if is_new else seed.labels * 10
        seed = dataclasses.replace(seed, labels=labels, stamp_ns=0 if is_next else seed.stamp_ns)
        own = (lambda: world.frame(number)) if brings and not is_next else None
        for _ in range(times):
            used = self.bench.ids.used
            try:
                admission = self.bench.ids.admit(seed, self.bench.config)
            except ValueError:
                return  # refused before it was a seed
            if is_new and not admission.is_duplicate:
                assert used.isdisjoint(admission.seed.ids), "an id was given twice"
            self.sent += 1
            self.objects[self.sent] = objects
            self.new |= {self.sent} if is_new else set()
            request = SeedRequest(ticket=self.sent, admission=admission, arrived=self.bench.now, frame=own)
            self.bench.session.seed(request)
        self.hear()

    @rule()
    def catch_up(self) -> None:
        self.bench.session.catch_up()
        self.hear()

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.session.expire()
        self.hear()

    @rule()
    def reset(self) -> None:
        self.bench.ids.clear()
        self.bench.session.reset("asked for")
        self.hear()

    @precondition(lambda self: self.bench.ids.live)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.bench.remove(data.draw(st.sampled_from(self.bench.ids.live)))

    @invariant()
    def one_outcome(self) -> None:
        if hasattr(self, "bench"):
            said = defaultdict(list)
            for outcome in self.bench.outcomes:
                said[outcome.ticket].append(outcome.status)
            for statuses in said.values():
                check_said(statuses)
            assert said.keys() == self.objects.keys()

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        session = self.bench.session
        session.give_up("the end")
        self.one_outcome()
        final = [outcome.ticket for outcome in self.bench.outcomes if outcome.status != PENDING]
        assert sorted(final) == sorted(self.objects)
        assert session.seeds_waiting == 0 and session.seeds.end_all("again") == []
        assert self.bench.ids.live == tuple(session.states)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=100, stateful_step_count=50, **SETTINGS)
TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=40, stateful_step_count=40, **SETTINGS)
