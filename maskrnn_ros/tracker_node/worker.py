# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the session: images in, tracks out, seeds and removals in between."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracking.session import Session
from maskrnn_ros.types import BoolArray, Frame, InstanceState, Tracks, UInt8Array

_WINDOW = 100
"""Images over which the percentiles of times are taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One processed image.

    Args:
        message: The image message.
        image: Its pixels, RGB, uint8 (H, W, 3).
        tracks: What was found on it.
        session: Number of the session.
        frame_index: Images processed in this session before.
        frames_skipped: Images dropped since the previous result.
    """

    message: Any
    image: UInt8Array
    tracks: Tracks
    session: int
    frame_index: int
    frames_skipped: int


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._inbox = inbox
        self._convert = convert
        self._publish = publish
        self._reject = reject
        self._crash = crash
        self._ignored = ignored
        self._clock = clock
        self._job = ""  # what is worked on; nothing while it waits
        self._alive_s = clock()
        session.progress = self._progress
        self._step_ms: deque[float] = deque(maxlen=_WINDOW)
        self._age_ms: deque[float] = deque(maxlen=_WINDOW)
        self._skipped = 0
        self._published_s: float | None = None
        self.snapshot = self._look()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._session.interrupted.clear()
        self._thread.start()

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
        return not self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def silent_s(self) -> float:
        """How long there has been no progress with what is worked on, seconds; 0 while there is nothing to do."""
        return self._clock() - self._alive_s if self._job else 0.0

    @property
    def doing(self) -> str:
        """What is worked on, and how long there has been no progress, for people."""
        return f"{self._job or 'nothing'}, no progress for {self.silent_s:.1f} s"

    def fault(self, limit_s: float) -> str:
        """Why the thread is of no use any more, in one line; empty while it is.

        Args:
            limit_s: So long it may go without progress, seconds; 0: for ever.
        """
        if self._thread.ident is not None and not self.is_alive and not self._inbox.closed:
            return "the worker's thread has ended unasked"
        return f"the worker hangs: {self.doing}" if limit_s and self.silent_s > limit_s else ""

    def excuse(self, away_s: float) -> None:
        """Leave a time out of account in which nothing in this process could run, seconds."""
        self._alive_s = min(self._clock(), self._alive_s + away_s)

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
            except Exception as error:  # a fault of ours: say so and go on, the stream must not end
                self._crash(f"internal error: {type(error).__name__}: {error}")
            self.refresh()

    def refresh(self) -> None:
        """Bring the snapshot up to date; for what the session calls back."""
        self.snapshot = self._look()

    def _patience(self) -> float | None:
        if self._session.catching_up:
            return 0.0
        timeout = self._session.next_timeout
        return None if timeout is None else max(0.0, timeout - time.monotonic())

    def _image(self, arrival: Arrival) -> None:
        begin = time.monotonic()
        self._skipped += arrival.skipped
        try:
            image = self._convert(arrival.message)
            ignored = self._ignored(arrival.stamp_ns, (image.shape[0], image.shape[1]), arrival.era)
            frame = Frame(stamp_ns=arrival.stamp_ns, image=image, ignored=ignored)
            tracks = self._session.process(frame, arrival.era)
            self._step_ms.append((time.monotonic() - begin) * 1e3)
            self._publish(
                Result(
                    message=arrival.message,
                    image=image,
                    tracks=tracks,
                    session=self._session.number,
                    frame_index=self._session.frame_index - 1,
                    frames_skipped=self._skipped,
                )
            )
            self._skipped = 0
            self._published_s = time.monotonic()
            self._age_ms.append((self._published_s - arrival.arrived) * 1e3)
        except ValueError as error:
            self._inbox.done(processed=False)
            self._reject(f"image {arrival.stamp_ns}: {error}")  # counted before it is said
        except Exception:
            self._inbox.done(processed=False)
            raise
        else:
            self._inbox.done(processed=True)

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
            published_s=self._published_s,
            lost=sum(state.state == InstanceState.LOST for state in session.states.values()),
            seeds_waiting=session.seeds_waiting,
            buffer_frames=len(session.buffer),
            buffer_oldest_ns=oldest.stamp_ns if oldest else 0,
            newest_ns=session.newest_ns,
            size=session.size,
            quality=session.config.quality,
            working_size=session.working_size,
            step_ms=percentiles(self._step_ms),
            age_ms=percentiles(self._age_ms),
        )


def percentiles(values: deque[float]) -> tuple[float, float]:
    """p50 and p95; NaN where there is nothing yet."""
    if not values:
        return math.nan, math.nan
    p50, p95 = np.percentile(values, (50, 95)).tolist()
    return p50, p95
