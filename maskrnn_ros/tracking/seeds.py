# SPDX-License-Identifier: Apache-2.0
"""Holds every seed from its arrival to its outcome, and decides; docs/seeds.md has the states as a drawing."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.prompted import AnySeed
from maskrnn_ros.tracking.seed_request import Decision, SeedRequest, SeedState, SeedStatus, Start, Stream, Tell


class SeedQueue:
    """Holds every seed from its arrival to its outcome, and decides what is done with it.

    It does nothing itself: it returns decisions, in order, which the session carries out. A seed that was to be started
    comes back by ``finish``. Each seed is said to be pending at most once, and gets one outcome.

    ``arrive``, ``wants``, ``marked`` and ``end_all`` are for any thread, the rest for the session's.

    Args:
        ids: The ids given out.
        config: Settings; may be replaced at any time.
    """

    def __init__(self, ids: IdBook, config: Config) -> None:
        self.config = config
        self._ids = ids
        self._lock = threading.Lock()
        self._open: dict[SeedRequest, None] = {}  # in the order of their arrival
        self._unseen: tuple[list[SeedRequest], list[SeedRequest]] = [], []  # applied: on the newest image, and since

    # --- for any thread ---

    def arrive(self, request: SeedRequest) -> None:
        """Hold a seed that the session will be given."""
        with self._lock:
            self._open[request] = None

    def wants(self, stamp_ns: int) -> bool:
        """Whether a seed is open that was drawn on the image of that stamp."""
        return any(request.stamp_ns == stamp_ns for request in self._requests())

    @property
    def marked(self) -> list[AnySeed]:
        """Seeds of this session whose masks may not have been published yet: open ones, and those just applied."""
        requests = [*self._unseen[0], *self._unseen[1], *self._requests()]
        return [request.seed for request in requests if self._ids.is_current(request.admission)]

    def end_all(self, reason: str) -> list[Tell]:
        """Reject all that are left, those too that the session was not given yet: it does not work any more."""
        return [tell for request in self._requests() for tell in self.reject(request, reason)]

    # --- what is there ---

    @property
    def waiting(self) -> int:
        """How many of those that the session was given have no outcome yet."""
        return sum(request.state != SeedState.ARRIVED for request in self._requests())

    @property
    def late(self) -> SeedRequest | None:
        """The first of those that catch up."""
        return next((request for request in self._requests() if request.state == SeedState.STARTED), None)

    @property
    def next_deadline(self) -> float | None:
        """When ``expired`` will have something to say."""
        return min((request.deadline_s for request in self._waiting()), default=None)

    # --- what happens ---

    def add(self, request: SeedRequest, now: float, stream: Stream) -> list[Decision]:
        """The session is given a seed.

        Args:
            request: May have arrived before.
            now: Clock of the session, seconds.
            stream: What is at hand.
        """
        if request.state == SeedState.OVER:  # ended before the session came to it
            return []
        self.arrive(request)
        request.deadline_s = now + self.config.seed_timeout
        if not self._ids.is_current(request.admission):  # a session began between its admission and now
            return self._readmitted(request, stream)
        return self._entered(request, stream)

    def due(self, stamp_ns: int, stream: Stream) -> list[Decision]:
        """An image was processed: what waited for it, and what it has passed."""
        decisions: list[Decision] = []
        for request in [request for request in self._waiting() if request.stamp_ns <= stamp_ns]:
            if request.verdict is not None:
                decisions += self.finish(request, *request.verdict)
            elif request.stamp_ns in (0, stamp_ns) or request.frame is not None:
                decisions.append(self._start(request))
            else:
                decisions += self.reject(request, stream.not_held(request.stamp_ns))
        return decisions

    def expired(
        self, now: float, stream: Stream, coming: Collection[int] = (), held: Collection[int] = ()
    ) -> list[Decision]:
        """Time has gone by: what has waited too long.

        Args:
            now: Clock of the session, seconds.
            stream: What is at hand.
            coming: Stamps of images that have come and are not processed yet.
            held: Of those that are held back until the next images show whether time has jumped.
        """
        decisions: list[Decision] = []
        for request in [request for request in self._waiting() if now >= request.deadline_s]:
            stamp = request.stamp_ns
            if held and (request.verdict is not None or stamp == 0 or stamp in held):
                request.deadline_s = now + self.config.seed_timeout
            elif request.verdict is not None:
                decisions += self.finish(request, *request.verdict)
            elif request.frame is not None and 0 < stamp < (stream.newest_ns or 0):
                decisions.append(self._start(request))  # the stream pauses, and the seed needs none of it
            elif not (stamp in coming or (stamp == 0 and coming)):
                what = f"no image with stamp {stamp} came" if stamp else "no image came"
                within = f"within {self.config.seed_timeout:g} s (seed_timeout)"
                decisions += self.reject(request, f"{what} {within}; {stream.held(stamp)}")
        return decisions

    def jumped(self, stamp_ns: int, reason: str) -> list[Tell]:
        """A new session is to begin, with an image of this stamp: what belongs to the time before it ends.

        What waits for that image, for a later one or for any goes on in the new session: see ``renew``.
        """
        later = [r for r in self._waiting() if r.stamp_ns == 0 or r.stamp_ns >= stamp_ns]
        return self._give_up([request for request in self._held() if request not in later], reason)

    def renew(self, stream: Stream) -> list[Decision]:
        """A new session has begun: settle the ids of what waits anew."""
        waiting = list(self._waiting())
        for request in waiting:
            request.state, request.verdict = SeedState.ARRIVED, None
        return [decision for request in waiting for decision in self._readmitted(request, stream)]

    def give_up(self, reason: str, *, started: bool = False) -> list[Tell]:
        """End all that the session was given, or those alone that have started; one in doubt gets its verdict."""
        ending = [r for r in self._held() if r.state == SeedState.STARTED or not started]
        return self._give_up(ending, reason)

    def shown(self) -> None:
        """Masks of an image were made: those of seeds that were applied until now are among them."""
        self._unseen = self._unseen[1], []

    # --- of seeds that have started ---

    def pending(self, request: SeedRequest, reason: str) -> list[Tell]:
        """It has no outcome yet; that is told once, however often what it waits for changes."""
        if request.is_told or request.state == SeedState.OVER:
            return []
        request.is_told = True
        return [Tell(request, SeedStatus.PENDING, reason, request.seed.ids)]

    def finish(
        self, request: SeedRequest, status: SeedStatus, reason: str, ids: tuple[int, ...] | None = None
    ) -> list[Tell]:
        """It has its outcome, and so have its twins; nothing is told where it had one.

        Args:
            request: The seed.
            status: APPLIED or REJECTED.
            reason: For people.
            ids: Those of its ids that were taken from it; None: all.
        """
        ended = [request, *(other for other in self._requests() if other.twin_of is request)]
        with self._lock:
            ended = [one for one in ended if one in self._open]
            for one in ended:
                del self._open[one]
        if request in ended:
            if status == SeedStatus.APPLIED and request.state == SeedState.STARTED:
                self._ids.confirm(request.admission)
                self._unseen[1].append(request)
            elif status == SeedStatus.REJECTED:
                self._ids.release(request.admission)
        tells = []
        for one in ended:
            one.state = SeedState.OVER
            used = request.work.frames_used if request.work is not None else 0
            tells.append(Tell(one, status, reason, request.seed.ids if ids is None else ids, used))
        request.work = None
        return tells

    def reject(self, request: SeedRequest, reason: str) -> list[Tell]:
        """It cannot be applied."""
        return self.finish(request, SeedStatus.REJECTED, reason)

    # --- parts ---

    def _requests(self) -> list[SeedRequest]:
        with self._lock:
            return list(self._open)

    def _held(self) -> Iterator[SeedRequest]:
        """Those that the session was given, but for twins, which end with others."""
        aside = (SeedState.ARRIVED, SeedState.TWIN)
        return (request for request in self._requests() if request.state not in aside)

    def _waiting(self) -> Iterator[SeedRequest]:
        return (request for request in self._requests() if request.waits)

    def _readmitted(self, request: SeedRequest, stream: Stream) -> list[Decision]:
        """Settle its ids anew."""
        try:
            request.admission = self._ids.admit(request.admission.original, self.config)
        except ValueError as error:
            return list(self.reject(request, str(error)))
        return self._entered(request, stream)

    def _entered(self, request: SeedRequest, stream: Stream) -> list[Decision]:
        """What is done with a seed that arrives: it is placed, or goes with an equal one that came before."""
        admission = request.admission
        if not admission.is_duplicate:
            return self._placed(request, stream)
        others = (r for r in self._requests() if not r.admission.is_duplicate)
        twin = next((r for r in others if r.admission.known is admission.known), None)
        if twin is not None:
            request.state, request.twin_of = SeedState.TWIN, twin
            return list(self.pending(request, "the same seed came before and waits"))
        if self._ids.knows(admission):
            return self._doubted(request, SeedStatus.APPLIED, "the same seed came before: nothing to do")
        return self._readmitted(request, stream)  # the other was rejected meanwhile

    def _placed(self, request: SeedRequest, stream: Stream) -> list[Decision]:
        """Start a seed whose image is held, let wait one whose image is to come."""
        stamp, oldest = request.stamp_ns, stream.oldest_ns
        if stamp == 0 or stream.newest_ns is None or stamp > stream.newest_ns:
            reason = "waits for the next image" if stamp == 0 else f"waits for the image with stamp {stamp}"
            return self._waits(request, reason)
        if stamp in stream.stamps:
            return [self._start(request)]
        if request.frame is None or oldest is None or (stamp < oldest and stream.replays):
            return self._doubted(request, SeedStatus.REJECTED, stream.not_held(stamp))
        if stamp < oldest:
            # It brings its image. Drawing by hand takes longer than the buffer reaches back: the seed starts on that
            # image and goes to the oldest one held in one step. But first the next image shows whether time jumps.
            gap = f"{(oldest - stamp) * 1e-9:.1f} s older than the oldest image held"
            return self._waits(request, f"starts when the next image comes: its own is {gap}")
        return [self._start(request)]

    def _start(self, request: SeedRequest) -> Start:
        request.state = SeedState.STARTED
        return Start(request)

    def _waits(self, request: SeedRequest, reason: str) -> list[Decision]:
        request.state = SeedState.WAITING
        return list(self.pending(request, reason))

    def _doubted(self, request: SeedRequest, status: SeedStatus, reason: str) -> list[Decision]:
        """Wait for the next image with a verdict that a jump of time would overturn.

        A looped bag says its seed again before its first image, when the jump does not show yet: the seed looks like
        one that came before, or like one that is too old.
        """
        request.state, request.verdict = SeedState.IN_DOUBT, (status, reason)
        return list(self.pending(request, f"the next image decides; if time goes on: {reason}"))

    def _give_up(self, requests: list[SeedRequest], reason: str) -> list[Tell]:
        rejected = SeedStatus.REJECTED, reason
        return [tell for request in requests for tell in self.finish(request, *(request.verdict or rejected))]
