# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the session: images in, tracks out, seeds and removals in between.

Beside it, another carries masks by flow to the images that the first has no time for.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracker_node.propagator import Known, Pictures, Propagator
from maskrnn_ros.tracker_node.results import Result, Results, Times
from maskrnn_ros.tracking.ahead import Ahead, Look
from maskrnn_ros.tracking.session import Session
from maskrnn_ros.tracking.state import InstanceMemory
from maskrnn_ros.types import BoolArray, InstanceState, UInt8Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The session as others may see it while the worker goes on; ``published_s`` is monotonic, None: nothing yet."""

    session: int = 0
    ids: tuple[int, ...] = ()
    engine: str = ""
    precision: str = ""
    adaptation: str = ""
    published_s: float | None = None
    lost: int = 0
    resting: int = 0
    seeds_waiting: int = 0
    buffer_frames: int = 0
    buffer_oldest_ns: int = 0
    newest_ns: int = 0
    size: tuple[int, int] | None = None
    quality: str = ""
    working_size: tuple[int, int] | None = None
    step_ms: tuple[float, float] = (math.nan, math.nan)
    age_ms: tuple[float, float] = (math.nan, math.nan)


class Worker:
    """Runs a session on what the inbox holds, in a thread of its own.

    Args:
        session: Touched by this thread only, once it runs.
        inbox: Where images and requests come from.
        convert: Image message to RGB; a ValueError rejects the image.
        publish: Called with every result.
        reject: Called with one line when an image cannot be used; the stream goes on.
        crash: Called with one line, inside the handler, when our own code failed; the stream goes on.
        ignored: Gives the ignore mask bool (H, W) of an image by its stamp, size and era; None: it has none.
        ahead: Carries masks by flow to the images that there is no time for; None: these are dropped.
        clock: Monotonic time, seconds.
    """

    def __init__(
        self,
        session: Session,
        inbox: Inbox,
        *,
        convert: Callable[[Any], UInt8Array],
        publish: Callable[[Result], None],
        reject: Callable[[str], None],
        crash: Callable[[str], None],
        ignored: Callable[[int, tuple[int, int], int], BoolArray | None] = lambda stamp_ns, size, era: None,
        ahead: Ahead | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._inbox = inbox
        self._pictures = Pictures(convert, ignored)
        self._reject = reject
        self._crash = crash
        self._clock = clock
        self._job = ""  # what is worked on; nothing while it waits
        self._alive_s = clock()
        session.progress = self._progress
        session.marked = self._marked
        self._step_ms = Times()
        self._results = Results(publish, session.number, session.frame_index)
        self._known: Known | None = None
        self._era = self._newest_era = 0
        self._propagator = None if ahead is None else self._propagating(ahead)
        self._snapshot = self._look()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def _propagating(self, ahead: Ahead) -> Propagator:
        made = Propagator(
            ahead,
            self._inbox,
            self._pictures,
            self._results,
            known=lambda: self._known,
            reject=self._reject,
            crash=self._crash,
        )
        self._inbox.goes_ahead = made.goes_ahead
        return made

    def start(self) -> None:
        """Start the thread."""
        self._session.interrupted.clear()
        self._thread.start()
        if self._propagator is not None:
            self._propagator.start()

    def stop(self, *, finish: bool = True, timeout_s: float | None = None) -> bool:
        """Finish the step that is worked on, carry out the requests that are left, end the thread.

        Args:
            finish: False: leave out the requests.
            timeout_s: How long to wait for it; None: as long as it takes.

        Returns:
            Whether the thread has ended.
        """
        self._session.interrupted.set()
        self._inbox.close(finish=finish)
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_s)
        if self._thread.is_alive() or not (self._propagator is None or self._propagator.join(timeout_s)):
            return False
        self._inbox.goes_ahead = None
        if self._results.session == self._session.number:
            self._session.frame_index = self._results.index
            self._session.give_gone(self._results.take_removed())
        return True

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() or (self._propagator is not None and self._propagator.is_alive)

    @property
    def silent_s(self) -> float:
        """How long there has been no progress with what is worked on, seconds; 0 while there is nothing to do."""
        own = self._clock() - self._alive_s if self._job else 0.0
        return max(own, 0.0 if self._propagator is None else self._propagator.silent_s)

    @property
    def doing(self) -> str:
        """What is worked on, and how long there has been no progress, for people."""
        return f"{self._job or 'nothing'}, no progress for {self.silent_s:.1f} s"

    def fault(self, limit_s: float) -> str:
        """Why the thread is of no use any more, in one line; empty while it is.

        Args:
            limit_s: So long it may go without progress, seconds; 0: for ever.
        """
        threads = [self._thread.is_alive()] + ([] if self._propagator is None else [self._propagator.is_alive])
        if self._thread.ident is not None and not all(threads) and not self._inbox.closed:
            return "the worker's thread has ended unasked"
        return f"the worker hangs: {self.doing}" if limit_s and self.silent_s > limit_s else ""

    def excuse(self, away_s: float) -> None:
        """Leave a time out of account in which nothing in this process could run, seconds."""
        self._alive_s = min(self._clock(), self._alive_s + away_s)
        if self._propagator is not None:
            self._propagator.excuse(away_s)

    def _progress(self) -> None:
        self._alive_s = self._clock()

    def _begin(self, job: str) -> None:
        self._progress()
        self._job = job

    def _run(self) -> None:
        while True:
            self._begin("")
            job = self._inbox.take(self._patience())
            if job is None and self._inbox.closed:
                return
            try:
                if isinstance(job, Arrival):
                    self._begin(f"image {job.stamp_ns}")
                    self._image(job)
                elif job is not None:
                    self._begin("a request")
                    job()
                self._begin("late seeds")
                # One step for every image or request, more while the stream leaves time.
                self._session.catch_up()
                self._session.expire(coming=self._inbox.stamps, held=self._inbox.held)
                self._know()
            except Exception as error:  # a fault of ours: say so and go on, the stream must not end
                self._crash(f"internal error: {type(error).__name__}: {error}")
            self.refresh()

    def refresh(self) -> None:
        """Bring the snapshot up to date; for what the session calls back."""
        self._snapshot = self._look()

    @property
    def snapshot(self) -> Snapshot:
        """The session as it was after the last image or request, and what was published until now."""
        results = self._results
        return dataclasses.replace(self._snapshot, published_s=results.published_s, age_ms=results.age_ms)

    def _patience(self) -> float | None:
        if self._session.catching_up:
            return 0.0
        timeout = self._session.next_timeout
        return None if timeout is None else max(0.0, timeout - time.monotonic())

    def _image(self, arrival: Arrival) -> None:
        begin = time.monotonic()
        if not arrival.is_ahead:
            self._results.skipped(arrival.skipped)
        self._newest_era = arrival.era
        processed: bool | None = False
        refusal = ""
        try:
            frame = self._pictures.of(arrival)
            tracks = self._session.process(frame, arrival.era)
            self._step_ms.add((time.monotonic() - begin) * 1e3)
            self._era = arrival.era
            self._know()
            if self._inbox.tell():
                is_out = self._results.put(arrival, frame.image, tracks, self._session.number)
                processed = True if is_out else None
            else:
                self._results.removed(tracks.tracks, self._session.number)
                processed = True
        except ValueError as error:
            refusal = f"image {arrival.stamp_ns}: {error}"
        finally:
            self._newest_era = self._era
            counts = self._inbox.done(processed=processed)
        if refusal and counts:
            self._reject(refusal)  # counted before it is said

    def _know(self) -> None:
        """Let the other thread go on from here, where something is another than it knows."""
        if self._propagator is None:
            return
        self._results.removed(self._session.take_gone(), self._session.number)
        look, known = Look.of(self._session.tracker), self._known
        if look is None:
            self._known = None
        elif known is None or not look.is_of(known.look):
            self._known = Known(look, self._session.number, self._era)

    def _marked(self, first: Mapping[int, InstanceMemory]) -> None:
        """Let it show what is marked, while the networks learn it."""
        look = Look.of(self._session.tracker)
        if self._propagator is not None and look is not None:
            self._known = Known(look.marked(first), self._session.number, self._newest_era)

    def _look(self) -> Snapshot:
        """What other threads may know of the session, copied."""
        session = self._session
        oldest = session.buffer.oldest
        return Snapshot(
            session=session.number,
            ids=tuple(session.states),
            engine=session.tracker.engine,
            precision=session.tracker.precision,
            adaptation=session.tracker.adaptation,
            lost=sum(state.state == InstanceState.LOST for state in session.states.values()),
            resting=session.states.resting,
            seeds_waiting=session.seeds_waiting,
            buffer_frames=len(session.buffer),
            buffer_oldest_ns=oldest.stamp_ns if oldest else 0,
            newest_ns=session.newest_ns,
            size=session.size,
            quality=session.config.quality,
            working_size=session.working_size,
            step_ms=self._step_ms.percentiles,
        )
