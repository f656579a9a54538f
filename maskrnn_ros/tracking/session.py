# SPDX-License-Identifier: Apache-2.0
"""A stream of images and seeds in their order of time: late and early seeds, removals, jumps of time.

One thread owns a session. The node's worker calls it with what the topics bring; nothing in it knows of ROS.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Mapping

import numpy as np

from maskrnn_ros.config import Config, from_flat, to_flat
from maskrnn_ros.prompts import PromptBackend, build_prompts
from maskrnn_ros.quality import chosen
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.catch_up import CatchUp
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.moment import Marking, Moment
from maskrnn_ros.tracking.prediction import Prediction
from maskrnn_ros.tracking.prompted import PromptSeed
from maskrnn_ros.tracking.replay import Replay, needs_of
from maskrnn_ros.tracking.saved import Saved, SavedSeed, SeedLog, stamped_before, take_up, without
from maskrnn_ros.tracking.seeding import Seeding, SeedOutcome, SeedRequest, SeedStatus, masks_on, removed_track
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.tracking.tuning import Tuning
from maskrnn_ros.types import Frame, Seed, Track, Tracks


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
        self.progress: Callable[[], None] = lambda: None  # called while something long goes on as it should
        self._prompts = prompts or build_prompts(config.prompts, config.trunk.weights)
        self._tuning = Tuning(config)
        self._delayed = ""  # why settings of the tracker are to change when no seed catches up
        self._picture: Frame | None = None
        self._saved = saved
        self._keep = keep
        self._spares = False
        self._log = SeedLog()
        self._shown: Tracks | None = None
        self._tracker = self._built()
        self._predict = Prediction()
        self._seedings: list[Seeding] = []
        self._told: set[SeedRequest] = set()  # those that were said to be pending
        self._removals: list[tuple[int, tuple[int, ...]]] = []
        self._gone: list[Track] = []

    @property
    def device(self) -> str:
        """Where the networks run: cpu, cuda or cuda:N."""
        return self._tracker.device

    @property
    def engine(self) -> str:
        """What runs the networks: onnxruntime or torch."""
        return self._tracker.engine

    @property
    def precision(self) -> str:
        """Numbers that the networks compute in: float32, float16 or int8."""
        return self._tracker.precision

    @property
    def adaptation(self) -> str:
        """How instances are adapted to their seeds, off where they are not."""
        return self._tracker.adaptation

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
        return len(self._seedings)

    @property
    def catching_up(self) -> bool:
        """Whether ``catch_up`` has work."""
        return any(not seeding.waits for seeding in self._seedings)

    @property
    def states(self) -> Mapping[int, InstanceState]:
        """States by id on the newest frame, read-only."""
        return self._tracker.states

    @property
    def next_timeout(self) -> float | None:
        """When ``expire`` will have something to do, by the session's clock."""
        return min((seeding.deadline_s for seeding in self._seedings if seeding.waits), default=None)

    @property
    def quality(self) -> str:
        """The level of quality in use, or about to be."""
        return self._tuning.level

    @property
    def working_size(self) -> tuple[int, int] | None:
        """(h, w) that the tracker works on, None before the first image."""
        newest = self._tracker.newest
        return newest.size_of_work if newest else None

    def configure(self, config: Config) -> None:
        """Take new values of live settings; while a seed catches up, the working size and the flow wait for it."""
        self.config = config
        self.buffer.config = config.buffer
        self._tuning.configure(config)
        self._tune(self._tuning.said)

    def took(self, step_ms: float) -> None:
        """Hear what the newest image took, milliseconds; the level of quality may change by it (``max_latency_ms``)."""
        if self.size is None or self.catching_up:  # nothing could change now
            return
        why = self._tuning.observe(step_ms, self.size, len(self.states)) or self._delayed
        if why:
            self._tune(why)

    def _tune(self, why: str) -> None:
        """Bring the tracker to the settings in use, and say why if that changes its work.

        What catches up is not among the tracker's states and would be left at another size: a change waits for it.
        """
        wanted, now = self._tuning.settings, self._tracker.config
        changes = chosen(wanted) != chosen(now)
        self._delayed = why if changes and self.catching_up else ""
        if self._delayed:
            wanted = from_flat({**to_flat(wanted), **chosen(now)})
        self._tracker.configure(wanted, self._picture)
        if changes and not self._delayed:
            if self._tracker.newest is not None:
                self.buffer.replace_newest(self._tracker.newest)
            self._announce(why)
        if needs_of(now) != needs_of(self._tracker.config):
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
        self._seed_due(prepared)
        tracks = self._tracker.tracks(frame.image)
        if self._tracker.is_coupled and self.config.catch_up.mode == "skip":
            self.buffer.publish(tracks.labels)
        self.frame_index += 1
        everyone = sorted((*tracks.tracks, *self._gone), key=lambda track: track.instance_id)
        self._gone.clear()
        self._shown = tracks
        self._save()
        return self._predict(dataclasses.replace(tracks, tracks=tuple(everyone)))

    def seed(self, request: SeedRequest) -> None:
        """Apply a seed, now or when its image comes; the outcome is reported."""
        seeding = Seeding(request, request.admission, self._clock() + self.config.seed_timeout)
        if not self._ids.is_current(seeding.admission) and not self._readmit(seeding):
            return  # a session began between its admission and now
        if seeding.admission.duplicate_of is not None:
            self._seed_again(seeding)
        else:
            self._place(seeding)

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
        self._reject_all(list(self._seedings), reason)

    def expire(self, coming: Collection[int] = (), held: Collection[int] = ()) -> None:
        """Give up the seeds whose image has not come in time.

        Args:
            coming: Stamps of images that have come and are not processed yet.
            held: Of those that are held back until the next images show whether time has jumped.
        """
        now = self._clock()
        for seeding in [s for s in self._seedings if s.waits and now >= s.deadline_s]:
            stamp = seeding.seed.stamp_ns
            if held and (seeding.verdict is not None or stamp == 0 or stamp in held):
                seeding.deadline_s = now + self.config.seed_timeout
            elif seeding.verdict is not None:
                self._end(seeding, *seeding.verdict)
            elif self._is_passed(seeding):  # the stream pauses, and the seed needs none of it
                self._attempt(seeding, self._start)
            elif not (stamp in coming or (stamp == 0 and coming)):
                what = f"no image with stamp {stamp} came" if stamp else "no image came"
                self._reject(
                    seeding, f"{what} within {self.config.seed_timeout:g} s (seed_timeout); {self._held(stamp)}"
                )

    def catch_up(self) -> None:
        """Bring the oldest late seed one frame nearer to now; with ``exact``, all the way."""
        late = next((seeding for seeding in self._seedings if not seeding.waits), None)
        if late is not None:  # one that was interrupted begins again: other seeds and removals may have come meanwhile
            self._attempt(late, self._start if isinstance(late.catch_up, Replay) else self._catch_up)

    # --- over a restart ---

    def _take_up(self, frame: PreparedFrame) -> None:
        saved, self._saved = self._saved, None
        if saved is None or not saved.instances:
            return
        ids = [instance.instance_id for instance in saved.instances]
        try:
            saved = stamped_before(saved, frame.stamp_ns)
            take_up(self._tracker, saved, frame)
        except Exception as error:  # whatever it is, the stream goes on without them
            self._ids.drop(ids)
            self._tracker = self._built()
            self._spares = True  # it may have been the wrong camera: what is saved stays until there is something new
            why = str(error) if isinstance(error, ValueError) else f"internal error: {type(error).__name__}: {error}"
            self.fault(f"saved instances {ids} are not taken up: {why}")
            return
        self._log.take_up(saved)
        self._announce(f"instances {ids} taken up from session {saved.session}")

    def _save(self) -> None:
        if self._keep is not None and self._saved is None and not self._spares:
            self._keep(self._log.saved(self.number, self._shown, self._ids.used))

    def _built(self) -> Tracker:
        self.progress()
        tracker = self._build(self._tuning.settings)
        tracker.announce = self._announce
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
            self._reject_all([s for s in self._seedings if not s.waits], line)
            self._announce(f"{line}: instances kept, buffer emptied")
            return
        # What waits for an image of the new time, or for any, goes on in the new session.
        later = [s for s in self._seedings if s.waits and (not s.seed.stamp_ns or s.seed.stamp_ns >= frame.stamp_ns)]
        self._reject_all([s for s in self._seedings if s not in later], line)
        self._seedings.clear()
        self._ids.clear()
        self._begin(line)
        for seeding in later:
            if self._readmit(seeding):
                self._place(dataclasses.replace(seeding, verdict=None))

    def _readmit(self, seeding: Seeding) -> bool:
        """Settle the ids anew, in a new session; a refusal is reported."""
        try:
            seeding.admission = self._ids.admit(seeding.admission.original, self.config)
        except ValueError as error:
            self._outcome(seeding, SeedStatus.REJECTED, str(error))
            return False
        return True

    def _check_size(self, frame: Frame) -> None:
        newest = self._tracker.newest
        if newest is None or frame.size == newest.size:
            return
        if self._tracker.states or self.catching_up:
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
        self._predict.clear()
        self._log.clear()
        self._saved = self._shown = None
        self._spares = False
        self.number += 1
        self.frame_index = 0
        self._announce(f"session {self.number} begins: {reason}")
        self._save()

    # --- seeds ---

    def _seed_again(self, seeding: Seeding) -> None:
        """The very same seed came before: share its outcome, or say that it was applied."""
        for other in self._seedings:
            if other.admission is seeding.admission.duplicate_of:
                other.twins.append(seeding.request)
                self._outcome(seeding, SeedStatus.PENDING, "the same seed came before and waits")
                return
        if self._ids.knows(seeding.admission):
            self._doubt(seeding, SeedStatus.APPLIED, "the same seed came before: nothing to do")
        elif self._readmit(seeding):  # the other was rejected meanwhile
            self._place(seeding)

    def _place(self, seeding: Seeding) -> None:
        """Start a seed whose image is held, let wait one whose image is to come."""
        newest, oldest = self._tracker.newest, self.buffer.oldest
        stamp = seeding.seed.stamp_ns
        if stamp == 0 or newest is None or stamp > newest.stamp_ns:
            self._seedings.append(seeding)
            reason = "waits for the next image" if stamp == 0 else f"waits for the image with stamp {stamp}"
            self._outcome(seeding, SeedStatus.PENDING, reason)
        elif self.buffer.at(stamp) is None and (seeding.request.frame is None or oldest is None):
            self._doubt(seeding, SeedStatus.REJECTED, self._not_held(stamp))
        elif oldest is not None and stamp < oldest.stamp_ns and self._replays:
            self._doubt(seeding, SeedStatus.REJECTED, self._not_held(stamp))
        elif oldest is not None and stamp < oldest.stamp_ns:
            # It brings its image. Drawing by hand takes longer than the buffer reaches back: the seed starts on that
            # image and goes to the oldest one held in one step. But first the next image shows whether time jumps.
            self._seedings.append(seeding)
            gap_s = (oldest.stamp_ns - stamp) * 1e-9
            reason = f"starts when the next image comes: its own is {gap_s:.1f} s older than the oldest image held"
            self._outcome(seeding, SeedStatus.PENDING, reason)
        else:
            self._attempt(seeding, self._start)

    def _is_passed(self, seeding: Seeding) -> bool:
        """Whether a seed that waits brings its image, and that is older than the newest."""
        newest = self._tracker.newest
        return seeding.request.frame is not None and newest is not None and 0 < seeding.seed.stamp_ns < newest.stamp_ns

    def _doubt(self, seeding: Seeding, status: SeedStatus, reason: str) -> None:
        """Wait for the next image with a verdict that a jump of time would overturn.

        A looped bag says its seed again before its first image, when the jump does not show yet: the seed looks like
        one that came before, or like one that is too old.
        """
        seeding.verdict = status, reason
        self._seedings.append(seeding)
        self._outcome(seeding, SeedStatus.PENDING, f"the next image decides; if time goes on: {reason}")

    def _seed_due(self, frame: PreparedFrame) -> None:
        for seeding in [s for s in self._seedings if s.waits and s.seed.stamp_ns <= frame.stamp_ns]:
            if seeding.verdict is not None:
                self._end(seeding, *seeding.verdict)
            elif seeding.seed.stamp_ns in (0, frame.stamp_ns) or seeding.request.frame is not None:
                self._attempt(seeding, self._start)
            else:
                self._reject(seeding, self._not_held(seeding.seed.stamp_ns))

    def _attempt(self, seeding: Seeding, action: Callable[[Seeding], None]) -> None:
        """A seed that cannot be applied, or a fault of ours in it, ends that seed and nothing else."""
        try:
            action(seeding)
        except ValueError as error:
            self._reject(seeding, str(error))
        except Exception as error:
            line = f"internal error: {type(error).__name__}: {error}"
            self._reject(seeding, line)
            self._announce(line)

    def _start(self, seeding: Seeding) -> None:
        """Start the seed's instances on their frame; where that is the newest, they are in time."""
        newest = self._tracker.newest
        assert newest is not None  # seeds start on a frame, and there was one
        frame, own = self._frame_of(seeding, newest)
        replay = None
        if self._replays:
            seeding.catch_up = replay = Replay(self._tracker, self.buffer, frame.stamp_ns)
        seed = self._labelled(seeding, frame, own, self._tracker if replay is None else replay.tracker)
        if replay is not None:
            self._mark(seeding, seed, frame, replay)
        else:
            is_shown = self._tracker.is_coupled and frame is not newest
            others = self.buffer.others(frame.stamp_ns, seed.ids) if is_shown else None
            states = self._tracker.start(seed, frame, others)
            seeding.catch_up = CatchUp(states, frame, self.config.catch_up, self._clock)
        if frame is not newest:
            if seeding not in self._seedings:
                self._seedings.append(seeding)
            self._outcome(seeding, SeedStatus.PENDING, f"catches up {self.buffer.count_after(frame.stamp_ns)} images")
            if self.config.catch_up.mode == "skip":
                return
        self._catch_up(seeding, to_the_end=True)

    def _frame_of(self, seeding: Seeding, newest: PreparedFrame) -> tuple[PreparedFrame, Frame | None]:
        """The frame that the seed was drawn on, and its image as it came with the seed where that is of use."""
        stamp = seeding.seed.stamp_ns
        frame = newest if stamp == 0 else self.buffer.at(stamp)
        own = None
        if frame is None or (isinstance(seeding.seed, PromptSeed) and seeding.seed.needs_picture):
            own = self._own_image(seeding, newest.size)
        if frame is None:
            if own is None:
                raise ValueError(self._not_held(stamp))
            frame = self._tracker.prepare(own)
        return frame, own

    def _mark(self, seeding: Seeding, seed: Seed, frame: PreparedFrame, replay: Replay) -> None:
        """Begin a replay with the seed."""
        ids = tuple(i for i in seed.ids if i not in self._ids.removed)
        if not ids:
            raise ValueError(f"instances {list(seed.ids)} were removed meanwhile")
        marking = Marking(seed=seed, ids=ids, drawn_on=None if frame is replay.frame else frame)
        states = marking.begun(replay.tracker)
        seeding.check_distinct(states, replay.tracker.states, self.config.prompts.same_iou)
        replay.mark(marking, states)

    def _own_image(self, seeding: Seeding, size: tuple[int, int]) -> Frame | None:
        """The image that came with the request, or that a drop left."""
        if seeding.request.frame is None:
            return None
        own = seeding.request.frame()
        if own.size != size:
            raise ValueError(
                f"image of the seed must be {size[1]}x{size[0]} (width x height) like the stream, "
                f"got {own.size[1]}x{own.size[0]}"
            )
        return own

    def _labelled(self, seeding: Seeding, frame: PreparedFrame, own: Frame | None, tracker: Tracker) -> Seed:
        """The seed as it is applied: its prompts cut, what is ignored left out."""
        drawn = self._cut(seeding.seed, frame, own, tracker)
        ignored = None if frame.ignored is None else frame.ignored.full
        seed = drawn.outside(ignored)
        seeding.cut = int(np.count_nonzero(drawn.labels)) - int(np.count_nonzero(seed.labels))
        seeding.record = SavedSeed(stamp_ns=frame.stamp_ns, image=frame.image, labels=seed.labels, ignored=ignored)
        return seed

    def _cut(self, seed: Seed | PromptSeed, frame: PreparedFrame, own: Frame | None, tracker: Tracker) -> Seed:
        """The seed with its prompts cut on the largest picture of its frame that is at hand."""
        if isinstance(seed, Seed):
            return seed
        if own is None and self._picture is not None and self._picture.stamp_ns == frame.stamp_ns:
            own = self._picture
        image = own.image if own is not None else frame.image
        return seed.cut(image, frame.size, self._prompts, masks_on(frame, seed.ids, tracker))

    def _catch_up(self, seeding: Seeding, to_the_end: bool = False) -> None:
        """Go on for one step or, with ``exact``, until the end; a node that shuts down interrupts it."""
        late = seeding.catch_up
        assert late is not None
        whole = to_the_end or self.config.catch_up.mode == "exact"
        while not late.is_done(self._tracker):
            late.step(self._tracker, self.buffer)
            self.progress()
            if not whole or self.interrupted.is_set():
                break
        if late.is_done(self._tracker):
            self._adopt(seeding, late)

    def _adopt(self, seeding: Seeding, late: CatchUp | Replay) -> None:
        removed = self._ids.removed
        states = {i: state for i, state in late.states.items() if i not in removed}
        if not states:
            raise ValueError(f"instances {sorted(late.states)} were removed meanwhile")
        if isinstance(late, Replay):
            newer = {i for i, state in states.items() if i in late.corrected}
            is_published = self._shown is not None and self._shown.stamp_ns == self.newest_ns
            late.commit(self._tracker, self.buffer, self._picture if is_published else None)
        else:
            newer = self._adopt_alone(seeding, late, states)
        if seeding.record is not None:
            self._log.add(seeding.record, [i for i in states if i not in newer])
            self._spares = False
        self._ids.confirm(seeding.admission)
        said = [f"instances {sorted(newer)} were corrected on a later image, which stays"] if newer else []
        said += [f"{seeding.cut} pixels in the ignore mask were left out"] if seeding.cut else []
        self._end(seeding, SeedStatus.APPLIED, "; ".join(said), ids=tuple(states))

    def _adopt_alone(self, seeding: Seeding, late: CatchUp, states: Mapping[int, InstanceState]) -> set[int]:
        """Take in what was carried beside the others; returns ids of those that were corrected on a later image."""
        # Both are on the newest frame now, so that masks can be compared even where the seed came late.
        seeding.check_distinct(states, self.states, self.config.prompts.same_iou)
        # Stamps decide, not arrivals: what was corrected on a later image stays.
        newer = {i for i in states if i in self.states and self.states[i].seeded_ns > states[i].seeded_ns}
        self._tracker.adopt({i: state for i, state in states.items() if i not in newer})
        if self._replays:  # exact since it began: there is no way to here from earlier frames
            self.buffer.renew(self._moment)
        return newer

    def _reject(self, seeding: Seeding, reason: str) -> None:
        self._end(seeding, SeedStatus.REJECTED, reason)

    def _reject_all(self, seedings: list[Seeding], reason: str) -> None:
        for seeding in seedings:
            if seeding.verdict is not None:
                self._end(seeding, *seeding.verdict)
            else:
                self._reject(seeding, reason)

    def _end(self, seeding: Seeding, status: SeedStatus, reason: str, ids: tuple[int, ...] | None = None) -> None:
        if seeding.is_over:  # whoever was told has failed, which ends this attempt: there is one verdict
            return
        seeding.is_over = True
        if seeding in self._seedings:
            self._seedings.remove(seeding)
        if status == SeedStatus.REJECTED:
            self._ids.release(seeding.admission)
        self._outcome(seeding, status, reason, ids)

    def _outcome(self, seeding: Seeding, status: SeedStatus, reason: str, ids: tuple[int, ...] | None = None) -> None:
        """Tell all who sent it; that it is pending once, however often what it waits for changes."""
        for request in (seeding.request, *seeding.twins):
            if status != SeedStatus.PENDING:
                self._told.discard(request)
            elif request in self._told:
                continue
            else:
                self._told.add(request)
            self._report(
                SeedOutcome(
                    ticket=request.ticket,
                    status=status,
                    reason=reason,
                    ids=seeding.seed.ids if ids is None else ids,
                    session=self.number,
                    frames_used=seeding.catch_up.frames_used if seeding.catch_up else 0,
                    duration_s=self._clock() - request.arrived,
                )
            )

    def _held(self, stamp_ns: int) -> str:
        oldest, newest = self.buffer.oldest, self._tracker.newest
        if oldest is None or newest is None:
            return "no image is held"
        nearest = f", nearest is {self.buffer.nearest(stamp_ns)}" if stamp_ns else ""
        since = f", instances' states from {self.buffer.replays_from_ns} on" if self._replays else ""
        return f"held are {len(self.buffer)} images from {oldest.stamp_ns} to {newest.stamp_ns}{nearest}{since}"

    def _not_held(self, stamp_ns: int) -> str:
        return f"the image with stamp {stamp_ns} is not held (too old, or dropped); {self._held(stamp_ns)}"

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
        self._gone += [removed_track(state) for state in tracked.values()]
        self._log.remove(ids)
        if self._saved is not None:
            self._saved = without(self._saved, ids)
        self._save()
        self._announce(f"instances {sorted(ids)} removed")


__all__ = ["SeedOutcome", "SeedRequest", "SeedStatus", "Session"]
