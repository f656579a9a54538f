# SPDX-License-Identifier: Apache-2.0
"""A stream of images and seeds in their order of time: late and early seeds, removals, jumps of time.

One thread owns a session. The node's worker calls it with what the topics bring; nothing in it knows of ROS.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.ids import Admission, IdBook
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Frame, InstanceStatus, Seed, Track, Tracks


class SeedStatus(enum.IntEnum):
    """What became of a seed; the values are those of ``SeedResult.status``."""

    PENDING = 1
    APPLIED = 2
    REJECTED = 3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SeedRequest:
    """A seed that was admitted.

    Args:
        ticket: Given back with the outcome; the node puts the seed's header here.
        admission: The seed, its ids settled.
        arrived: Clock of the session at its arrival, seconds.
        frame: The image that the seed was drawn on, where the client or a drop left one at hand; else the stream's.
    """

    ticket: object
    admission: Admission
    arrived: float
    frame: Frame | None = None

    @property
    def seed(self) -> Seed:
        """The seed with its final ids."""
        return self.admission.seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOutcome:
    """What became of a seed request; the fields are those of ``SeedResult``."""

    ticket: object
    status: SeedStatus
    reason: str
    ids: tuple[int, ...]
    session: int
    frames_used: int
    duration_s: float


@dataclasses.dataclass(eq=False)
class _CatchUp:
    """A late seed on its way to the newest frame."""

    request: SeedRequest
    states: dict[int, InstanceState]
    at: PreparedFrame
    deadline: float
    last_time: float
    pace_s: float = 0.0
    frames_used: int = 0


class Session:
    """Applies seeds, removals and images in the order of their stamps.

    Args:
        config: All settings; may be replaced between two calls, see ``configure``.
        build: Makes the tracker of a new video.
        ids: The ids given out; shared with whoever admits requests.
        report: Called with every outcome of a seed.
        announce: Called with one line at every event (session begun, instance removed).
        clock: Monotonic time, seconds; used for timeouts and durations, never for the order of things.
    """

    def __init__(
        self,
        config: Config,
        build: Callable[[Config], Tracker],
        ids: IdBook,
        report: Callable[[SeedOutcome], None],
        announce: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._build = build
        self._ids = ids
        self._report = report
        self._announce = announce
        self._clock = clock
        self.number = 1
        self.frame_index = 0
        self.buffer = FrameBuffer(config.buffer)
        self._tracker = self._built()
        self._waiting: list[SeedRequest] = []
        self._catching_up: list[_CatchUp] = []
        self._removals: list[tuple[int, tuple[int, ...]]] = []
        self._gone: list[Track] = []
        self._recent: list[SeedRequest] = []

    @property
    def device(self) -> torch.device:
        """Where the tracker runs."""
        return self._tracker.device

    @property
    def seeds_waiting(self) -> int:
        """Seeds that wait for their image or catch up."""
        return len(self._waiting) + len(self._catching_up)

    @property
    def catching_up(self) -> bool:
        """Whether ``catch_up`` has work."""
        return bool(self._catching_up)

    @property
    def states(self) -> Mapping[int, InstanceState]:
        """States by id on the newest frame, read-only."""
        return self._tracker.states

    @property
    def next_timeout(self) -> float | None:
        """When ``expire`` will have something to do, by the session's clock."""
        return min((r.arrived + self.config.seed_timeout for r in self._waiting), default=None)

    def configure(self, config: Config) -> None:
        """Take new values of live settings."""
        self.config = self._tracker.config = config
        self.buffer.config = config.buffer

    def process(self, frame: Frame) -> Tracks:
        """Carry all instances to the next image, with the seeds and removals that are due.

        Raises:
            ValueError: The stamp is that of the newest image, or the size changed while instances live; nothing
                is changed then.
        """
        self._check_time(frame)
        self._check_size(frame)
        prepared = self._tracker.prepare(frame)
        self._remove_due(frame.stamp_ns)
        self._tracker.advance(prepared)
        self.buffer.add(prepared)
        self._seed_due(prepared)
        tracks = self._tracker.tracks(frame.image)
        self.frame_index += 1
        everyone = sorted((*tracks.tracks, *self._gone), key=lambda track: track.instance_id)
        self._gone.clear()
        return dataclasses.replace(tracks, tracks=tuple(everyone))

    def seed(self, request: SeedRequest) -> None:
        """Apply a seed, now or when its image comes; the outcome is reported."""
        self._remember(request)
        if request.admission.duplicate:
            self._outcome(request, SeedStatus.APPLIED, "the same seed came before: nothing to do")
            return
        newest = self._tracker.newest
        stamp = request.seed.stamp_ns
        if stamp == 0 or newest is None or stamp > newest.stamp_ns:
            self._waiting.append(request)
            reason = "waits for the next image" if stamp == 0 else f"waits for the image with stamp {stamp}"
            self._outcome(request, SeedStatus.PENDING, reason)
            return
        held = self.buffer.at(stamp)
        if held is not None:
            self._start(request, held)
        elif request.frame is not None:
            self._start_on_own_frame(request)
        else:
            self._reject(request, self._not_held(stamp))

    def remove(self, ids: tuple[int, ...], stamp_ns: int = 0) -> None:
        """Remove instances before the first image that is not older than the stamp; 0 is now."""
        newest = self._tracker.newest
        if newest is None or stamp_ns <= newest.stamp_ns:
            self._remove_now(ids)
        else:
            self._removals.append((stamp_ns, ids))

    def reset(self, reason: str) -> None:
        """Forget all and begin a new session; whoever asks has cleared the book of ids."""
        self._reject_all(f"the session ended: {reason}")
        self._recent.clear()
        self._begin(reason)

    def expire(self) -> None:
        """Reject the seeds whose image has not come in time."""
        now = self._clock()
        for request in [r for r in self._waiting if now - r.arrived >= self.config.seed_timeout]:
            self._waiting.remove(request)
            stamp = request.seed.stamp_ns
            what = f"no image with stamp {stamp} came" if stamp else "no image came"
            self._reject(request, f"{what} within {self.config.seed_timeout:g} s (seed_timeout); {self._held(stamp)}")

    def catch_up(self) -> None:
        """Bring the oldest late seed one frame nearer to now."""
        if self._catching_up:
            self._catch_up_one(self._catching_up[0])

    def fail(self, reason: str) -> None:
        """An internal error hit while catching up: give up the seed that was worked on, the stream goes on."""
        if self._catching_up:
            self._reject(self._catching_up.pop(0).request, reason)

    def _built(self) -> Tracker:
        tracker = self._build(self.config)
        tracker.announce = self._announce
        return tracker

    # --- time ---

    def _check_time(self, frame: Frame) -> None:
        newest = self._tracker.newest
        if newest is None or frame.stamp_ns > newest.stamp_ns:
            return
        if frame.stamp_ns == newest.stamp_ns:
            raise ValueError(f"stamp must be newer than the last image's, got the same {frame.stamp_ns} ns again")
        line = f"time went back from {newest.stamp_ns} to {frame.stamp_ns} ns"
        if self.config.on_time_jump == "keep":
            self.buffer.clear()
            self._reject_catch_ups(line)
            self._announce(f"{line}: instances kept, buffer emptied")
            return
        # A looped bag says its seed again before its first image, which is when the jump shows: what has just come
        # and belongs to the new time is not lost with the old.
        now = self._clock()
        again = [
            r for r in self._recent if r.seed.stamp_ns >= frame.stamp_ns and now - r.arrived <= self.config.seed_timeout
        ]
        self._reject_all(line, keep=again)
        self._recent.clear()
        self._ids.clear()
        self._begin(line)
        for request in again:
            self._readmit(request)

    def _readmit(self, request: SeedRequest) -> None:
        try:
            admission = self._ids.admit(request.admission.original, self.config)
        except ValueError as error:
            self._reject(request, str(error))
        else:
            self.seed(dataclasses.replace(request, admission=admission))

    def _check_size(self, frame: Frame) -> None:
        newest = self._tracker.newest
        if newest is None or frame.size == newest.size:
            return
        if self._tracker.states or self._catching_up:
            raise ValueError(
                f"image must be {newest.size[1]}x{newest.size[0]} (width x height) like those before, got "
                f"{frame.size[1]}x{frame.size[0]}; call ~/reset to go on with the new size"
            )
        self._tracker = self._built()
        self.buffer.clear()

    def _begin(self, reason: str) -> None:
        self._tracker = self._built()
        self.buffer.clear()
        self._removals.clear()
        self._gone.clear()
        self.number += 1
        self.frame_index = 0
        self._announce(f"session {self.number} begins: {reason}")

    # --- seeds ---

    def _seed_due(self, frame: PreparedFrame) -> None:
        due = [r for r in self._waiting if r.seed.stamp_ns <= frame.stamp_ns]
        self._waiting = [r for r in self._waiting if r.seed.stamp_ns > frame.stamp_ns]
        for request in due:
            if request.seed.stamp_ns in (0, frame.stamp_ns):
                self._start(request, frame)
            elif request.frame is not None:
                self._start_on_own_frame(request)
            else:
                self._reject(request, self._not_held(request.seed.stamp_ns))

    def _start_on_own_frame(self, request: SeedRequest) -> None:
        assert request.frame is not None
        newest = self._tracker.newest
        if newest is not None and request.frame.size != newest.size:
            self._reject(
                request,
                f"image of the seed must be {newest.size[1]}x{newest.size[0]} (width x height) like the stream, got "
                f"{request.frame.size[1]}x{request.frame.size[0]}",
            )
            return
        self._start(request, self._tracker.prepare(request.frame))

    def _start(self, request: SeedRequest, frame: PreparedFrame) -> None:
        """Start the seed's instances on their frame; where that is the newest, they are in time."""
        try:
            states = self._tracker.start(request.seed, frame)
        except ValueError as error:
            self._reject(request, str(error))
            return
        now = self._clock()
        late = _CatchUp(request, states, frame, now + self.config.catch_up.max_s, now)
        if frame is self._tracker.newest:
            self._finish(late)
            return
        self._catching_up.append(late)
        behind = len(self.buffer.after(frame.stamp_ns))
        self._outcome(request, SeedStatus.PENDING, f"catches up {behind} images")
        while self.config.catch_up.mode == "exact" and late in self._catching_up:
            self._catch_up_one(late)

    def _catch_up_one(self, late: _CatchUp) -> None:
        ahead = self.buffer.after(late.at.stamp_ns)
        following = ahead[self._stride(late, len(ahead)) - 1]
        late.states = self._tracker.carry(late.states, late.at, following)
        late.at = following
        late.frames_used += 1
        now = self._clock()
        spent = now - late.last_time
        late.pace_s = spent if late.frames_used == 1 else 0.7 * late.pace_s + 0.3 * spent
        late.last_time = now
        if following is self._tracker.newest:
            self._catching_up.remove(late)
            self._finish(late)

    def _stride(self, late: _CatchUp, ahead: int) -> int:
        """How many frames to go ahead, so that the rest fits into the time left at the pace so far."""
        if self.config.catch_up.mode == "exact":
            return 1
        left_s = late.deadline - self._clock()
        steps = max(1, int(left_s / max(late.pace_s, 1e-6))) if left_s > 0 else 1
        return min(ahead, -(-ahead // steps))

    def _finish(self, late: _CatchUp) -> None:
        later = {i for _, ids in self._removals for i in ids}  # their removal is not due yet
        removed = self._ids.removed - later
        states = {i: state for i, state in late.states.items() if i not in removed}
        if not states:
            self._reject(late.request, f"instances {sorted(late.states)} were removed meanwhile")
            return
        self._tracker.adopt(states)
        self._ids.confirm(late.request.admission)
        self._outcome(late.request, SeedStatus.APPLIED, "", frames_used=late.frames_used)

    def _reject(self, request: SeedRequest, reason: str) -> None:
        self._ids.release(request.admission, self._tracker.states)
        self._outcome(request, SeedStatus.REJECTED, reason)

    def _reject_catch_ups(self, reason: str) -> None:
        late, self._catching_up = self._catching_up, []
        for one in late:
            self._reject(one.request, reason)

    def _reject_all(self, reason: str, keep: list[SeedRequest] | None = None) -> None:
        """Reject what waits or catches up, but for ``keep``, which goes on in the new session."""
        kept = keep or []
        self._catching_up = [late for late in self._catching_up if late.request not in kept]
        self._reject_catch_ups(reason)
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if request not in kept:
                self._reject(request, reason)

    def _outcome(self, request: SeedRequest, status: SeedStatus, reason: str, frames_used: int = 0) -> None:
        self._report(
            SeedOutcome(
                ticket=request.ticket,
                status=status,
                reason=reason,
                ids=request.seed.ids,
                session=self.number,
                frames_used=frames_used,
                duration_s=self._clock() - request.arrived,
            )
        )

    def _remember(self, request: SeedRequest) -> None:
        now = self._clock()
        self._recent = [r for r in self._recent if now - r.arrived <= self.config.seed_timeout]
        self._recent.append(request)

    def _held(self, stamp_ns: int) -> str:
        oldest, newest = self.buffer.oldest, self._tracker.newest
        if oldest is None or newest is None:
            return "no image is held"
        nearest = f", nearest is {self.buffer.nearest(stamp_ns)}" if stamp_ns else ""
        return f"held are {len(self.buffer)} images from {oldest.stamp_ns} to {newest.stamp_ns}{nearest}"

    def _not_held(self, stamp_ns: int) -> str:
        return f"the image with stamp {stamp_ns} is not held (too old, or dropped); {self._held(stamp_ns)}"

    # --- removals ---

    def _remove_due(self, stamp_ns: int) -> None:
        due = [ids for stamp, ids in self._removals if stamp <= stamp_ns]
        self._removals = [(stamp, ids) for stamp, ids in self._removals if stamp > stamp_ns]
        for ids in due:
            self._remove_now(ids)

    def _remove_now(self, ids: tuple[int, ...]) -> None:
        tracked = {i: self._tracker.states[i] for i in ids if i in self._tracker.states}
        self._tracker.remove(tracked)
        self._gone += [_removed_track(state) for state in tracked.values()]
        self._announce(f"instances {sorted(ids)} removed")


def _removed_track(state: InstanceState) -> Track:
    """What is said once of an instance that was removed."""
    return Track(
        instance_id=state.instance_id,
        name=state.name,
        status=InstanceStatus.REMOVED,
        age=state.age,
        frames_unseen=state.frames_unseen,
        score=0.0,
        visibility=0.0,
        box=None,
        mask=np.zeros((0, 0), np.bool_),
        probability=np.zeros((0, 0), np.float32),
        velocity=None,
    )
