# SPDX-License-Identifier: Apache-2.0
"""A stream of images and seeds in their order of time: late and early seeds, removals, jumps of time.

One thread owns a session. The node's worker calls it with what the topics bring; nothing in it knows of ROS.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from maskrnn_ros.config import Config
from maskrnn_ros.prompts import PromptBackend, build_prompts
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.keeping import Keeper
from maskrnn_ros.tracking.moment import Moment, needs_of
from maskrnn_ros.tracking.prediction import Prediction
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.seed_request import Decision, SeedOutcome, SeedRequest, SeedStatus, Start, Stream, Tell
from maskrnn_ros.tracking.seeding import Scene, Seeding
from maskrnn_ros.tracking.seeds import SeedQueue
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.states import States
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Frame, Track, Tracks


class Session:
    """Applies seeds, removals and images in the order of their stamps.

    Args:
        config: All settings; may be replaced between two calls, see ``configure``.
        build: Makes the tracker of a new video.
        ids: The ids given out; shared with whoever admits requests.
        report: Called with every outcome of a seed.
        announce: Called with one line at every event (session begun, instance removed, a fault).
        clock: Monotonic time, seconds; used for timeouts and durations, never for the order of things.
        number: Of the first session.
        prompts: Makes masks of boxes and points; None: what the config names.
        saved: Instances to take up at the first image; their ids are in the book.
        keep: Called with what is to be saved, after every image and every change; None: nothing is.
    """

    def __init__(
        self,
        config: Config,
        build: Callable[[Config], Tracker],
        ids: IdBook,
        report: Callable[[SeedOutcome], None],
        announce: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        number: int = 1,
        prompts: PromptBackend | None = None,
        saved: Saved | None = None,
        keep: Callable[[Saved], None] | None = None,
    ) -> None:
        self.config = config
        self._build = build
        self._ids = ids
        self._report = report
        self._announce = announce
        self._clock = clock
        self.number = number
        self.frame_index = 0
        self._era = 0
        self.buffer = FrameBuffer(config.buffer)
        self.interrupted = threading.Event()
        self.fault = announce  # called with one line when something in the background failed
        self.marked: Callable[[Mapping[int, InstanceMemory]], None] = lambda first: None  # see Tracker
        self.progress: Callable[[], None] = lambda: None  # called while something long goes on as it should
        self._prompts = prompts or build_prompts(config.prompts, config.trunk.weights)
        self._picture: Frame | None = None
        self.keeper = Keeper(saved, keep)
        self._tracker = self._built()
        self._predict = Prediction()
        self.seeds = SeedQueue(ids, config)
        self._removals: list[tuple[int, tuple[int, ...]]] = []
        self._gone: list[Track] = []

    @property
    def tracker(self) -> Tracker:
        """The tracker of this video, to be looked at."""
        return self._tracker

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the stream, None before its first image."""
        return self._tracker.newest.size if self._tracker.newest else None

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest image processed, ns; 0 before the first."""
        return self._tracker.newest.stamp_ns if self._tracker.newest else 0

    @property
    def seeds_waiting(self) -> int:
        """Seeds that wait for their image or catch up."""
        return self.seeds.waiting

    @property
    def catching_up(self) -> bool:
        """Whether ``catch_up`` has work."""
        return self.seeds.late is not None

    @property
    def states(self) -> States:
        """States by id on the newest frame, read-only."""
        return self._tracker.states

    @property
    def next_timeout(self) -> float | None:
        """When ``expire`` will have something to do, by the session's clock."""
        return self.seeds.next_deadline

    @property
    def working_size(self) -> tuple[int, int] | None:
        """(h, w) that the tracker works on, None before the first image."""
        return self._tracker.newest.size_of_work if self._tracker.newest else None

    def configure(self, config: Config) -> None:
        """Take new values of live settings.

        Raises:
            ValueError: Another setting differs; nothing changes.
        """
        before = self._tracker.config
        self._tracker.configure(config)
        self.config = self.seeds.config = config
        self.buffer.config = config.buffer
        if needs_of(before) != needs_of(self._tracker.config):
            self.buffer.renew(self._moment)

    @property
    def _replays(self) -> bool:
        """Whether late seeds are run again with all instances."""
        return self._tracker.is_coupled and self.config.catch_up.mode == "exact"

    @property
    def _moment(self) -> Moment | None:
        """The tracker as it is now, where late seeds are to begin there again."""
        return self._tracker.moment if self._replays else None

    def process(self, frame: Frame, era: int = 0) -> Tracks:
        """Carry all instances to the next image, with the seeds and removals that are due.

        Args:
            frame: The image.
            era: Of its stamp (see ``timeline.StampOrder``): where it is another than before, stamps may go back.

        Raises:
            ValueError: The stamp is not newer than that of the newest image, or the size is another while instances
                live; the instances stay as they are.
        """
        self._check_time(frame, era)
        self._check_size(frame)
        prepared = self._tracker.prepare(frame)
        self._remove_due(frame.stamp_ns)
        self._take_up(prepared)
        self._tracker.advance(prepared)
        self.buffer.add(prepared, self._moment)
        self._picture = frame
        self._carry_out(self.seeds.due(frame.stamp_ns, self._stream))
        tracks = self._tracker.tracks(frame.image)
        self.seeds.shown()
        if self._tracker.is_coupled and self.config.catch_up.mode == "skip":
            self.buffer.publish(tracks.labels)
        self.frame_index += 1
        everyone = sorted((*tracks.tracks, *self.take_gone()), key=lambda track: track.instance_id)
        self.keeper.shown = tracks
        self.keeper.save(self.number, self._ids.used)
        return self._predict(dataclasses.replace(tracks, tracks=tuple(everyone)))

    def take_gone(self) -> list[Track]:
        """Tracks of the instances that were removed since the last image; whoever takes them says so."""
        gone, self._gone = self._gone, []
        return gone

    def give_gone(self, gone: list[Track]) -> None:
        """Say so with the next image after all."""
        self._gone += gone

    def seed(self, request: SeedRequest) -> None:
        """Apply a seed, now or when its image comes; the outcome is reported."""
        self._carry_out(self.seeds.add(request, self._clock(), self._stream))

    def remove(self, ids: tuple[int, ...], stamp_ns: int = 0) -> None:
        """Remove instances before the first image that is not older than the stamp; 0 is now."""
        if stamp_ns <= self.newest_ns:
            self._remove_now(ids)
        else:
            self._removals.append((stamp_ns, ids))

    def reset(self, reason: str) -> None:
        """Forget all and begin a new session; whoever asks has cleared the book of ids."""
        self.give_up(f"the session ended: {reason}")
        self._begin(reason)

    def give_up(self, reason: str) -> None:
        """End all seeds that wait or catch up: no image comes any more. Instances and buffer stay."""
        self._carry_out(self.seeds.give_up(reason))

    def expire(self, coming: Collection[int] = (), held: Collection[int] = ()) -> None:
        """Give up the seeds whose image has not come in time.

        Args:
            coming: Stamps of images that have come and are not processed yet.
            held: Of those that are held back until the next images show whether time has jumped.
        """
        self._carry_out(self.seeds.expired(self._clock(), self._stream, coming, held))

    def catch_up(self) -> None:
        """Bring the oldest late seed one frame nearer to now; with ``exact``, all the way."""
        late = self.seeds.late
        if late is not None:  # one that was interrupted begins again: other seeds and removals may have come meanwhile
            self._attempt(late, self._start if late.work is None or late.work.begins_again else self._go_on)

    # --- over a restart ---

    def _take_up(self, frame: PreparedFrame) -> None:
        ids = self.keeper.left_ids
        try:
            session = self.keeper.take_up(self._tracker, frame)
        except Exception as error:  # whatever it is, the stream goes on without them
            self._ids.drop(ids)
            self._tracker = self._built()
            why = str(error) if isinstance(error, ValueError) else _internal(error)
            self.fault(f"saved instances {ids} are not taken up: {why}")
            return
        if session is not None:
            self._announce(f"instances {ids} taken up from session {session}")

    def _built(self) -> Tracker:
        self.progress()
        tracker = self._build(self.config)
        tracker.announce = self._announce
        tracker.marked = lambda first: self.marked(first)
        self.progress()
        return tracker

    # --- time ---

    def _check_time(self, frame: Frame, era: int) -> None:
        newest = self._tracker.newest
        is_another, self._era = era != self._era, era
        if newest is None or frame.stamp_ns > newest.stamp_ns:
            return
        if not is_another:
            raise ValueError(f"stamp must be newer than the last image's, {newest.stamp_ns} ns, got {frame.stamp_ns}")
        line = f"time went back from {newest.stamp_ns} to {frame.stamp_ns} ns"
        if self.config.on_time_jump == "keep":
            self.buffer.clear()
            self._carry_out(self.seeds.give_up(line, started=True))
            self._announce(f"{line}: instances kept, buffer emptied")
            return
        self._carry_out(self.seeds.jumped(frame.stamp_ns, line))
        self._ids.clear()
        self._begin(line)
        self._carry_out(self.seeds.renew(self._stream))

    def _check_size(self, frame: Frame) -> None:
        newest = self._tracker.newest
        if newest is None or frame.size == newest.size:
            return
        if self._tracker.states or self.catching_up:
            check_size(frame.size, newest.size)
        self._tracker = self._built()
        self.buffer.clear()

    def _begin(self, reason: str) -> None:
        self._tracker = self._built()
        self.buffer.clear()
        self._removals.clear()
        self._gone.clear()
        self._predict.clear()
        self.keeper.clear()
        self.number += 1
        self.frame_index = 0
        self._announce(f"session {self.number} begins: {reason}")
        self.keeper.save(self.number, self._ids.used)

    # --- seeds ---

    @property
    def _stream(self) -> Stream:
        newest = self._tracker.newest
        newest_ns = None if newest is None else newest.stamp_ns
        return Stream(newest_ns, self.buffer.stamps, self._replays, self.buffer.replays_from_ns)

    @property
    def _scene(self) -> Scene:
        """All that a decision on seeds may look at."""
        return Scene(
            tracker=self._tracker,
            buffer=self.buffer,
            stream=self._stream,
            config=self.config,
            prompts=self._prompts,
            picture=self._picture,
            is_published=self.keeper.shown is not None and self.keeper.shown.stamp_ns == self.newest_ns,
            removed=self._ids.removed,
            clock=self._clock,
        )

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Start):
                self._attempt(decision.request, self._start)
            else:
                self._tell(decision)

    def _tell(self, said: Tell) -> None:
        try:
            self._report(said.outcome(self.number, self._clock()))
        except Exception as error:  # whoever hears it has failed, which changes no verdict and ends no other seed
            self._announce(_internal(error))

    def _attempt(self, request: SeedRequest, action: Callable[[SeedRequest], None]) -> None:
        """A seed that cannot be applied, or a fault of ours in it, ends that seed and nothing else."""
        try:
            action(request)
        except ValueError as error:
            self._carry_out(self.seeds.reject(request, str(error)))
        except Exception as error:
            self._carry_out(self.seeds.reject(request, _internal(error)))
            self._announce(_internal(error))

    def _start(self, request: SeedRequest) -> None:
        """Start the seed's instances on their frame; where that is the newest, they are in time."""
        request.work = work = Seeding(request.seed, request.frame, self._scene)
        if work.frame is not self._tracker.newest:
            images = self.buffer.count_after(work.frame.stamp_ns)
            self._carry_out(self.seeds.pending(request, f"catches up {images} images"))
            if self.config.catch_up.mode == "skip":
                return
        self._go_on(request, to_the_end=True)

    def _go_on(self, request: SeedRequest, to_the_end: bool = False) -> None:
        """Bring a late seed one step nearer to now, or all the way; a node that shuts down interrupts it."""
        work = request.work
        assert work is not None  # it has started
        whole = to_the_end or self.config.catch_up.mode == "exact"
        while not work.is_done(self._tracker):
            work.step(self._tracker, self.buffer)
            self.progress()
            if not whole or self.interrupted.is_set():
                break
        if work.is_done(self._tracker):
            adopted = work.adopt(self._scene)
            self.keeper.add(work.record, [i for i in adopted.ids if i not in adopted.newer])
            self._carry_out(self.seeds.finish(request, SeedStatus.APPLIED, str(adopted), adopted.ids))

    # --- removals ---

    def _remove_due(self, stamp_ns: int) -> None:
        due = [ids for stamp, ids in self._removals if stamp <= stamp_ns]
        self._removals = [(stamp, ids) for stamp, ids in self._removals if stamp > stamp_ns]
        for ids in due:
            self._remove_now(ids)

    def _remove_now(self, ids: tuple[int, ...]) -> None:
        self._ids.drop(ids)
        tracked = {i: self._tracker.states[i] for i in ids if i in self._tracker.states}
        self._tracker.remove(tracked)
        self.buffer.removed(ids)
        self._gone += [state.removed_track for state in tracked.values()]
        self.keeper.remove(ids)
        self.keeper.save(self.number, self._ids.used)
        self._announce(f"instances {sorted(ids)} removed")


def check_size(size: tuple[int, int], before: tuple[int, int]) -> None:
    """Refuse an image whose size (H, W) is not that of those before.

    Raises:
        ValueError: It is another one.
    """
    if size != before:
        raise ValueError(
            f"image must be {before[1]}x{before[0]} (width x height) like those before, got {size[1]}x{size[0]}; call "
            "~/reset to go on with the new size"
        )


def _internal(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}"


__all__ = ["SeedOutcome", "SeedRequest", "SeedStatus", "Session"]
