# SPDX-License-Identifier: Apache-2.0
"""The tracker of one video: seed, step, remove."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config, settings, to_flat
from maskrnn_ros.flow import FlowEstimator
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.quality import resolved, working_size
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.tracking.cells import shrunk
from maskrnn_ros.tracking.follow import Beside, Following
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.life import begun, carried, rested, velocities_of
from maskrnn_ros.tracking.marks import around_of, check_size_of, outside
from maskrnn_ros.tracking.moment import Moment, needs_of
from maskrnn_ros.tracking.propagate import propagated
from maskrnn_ros.tracking.rest import Watched, among, awake
from maskrnn_ros.tracking.shown import Instances, Shown
from maskrnn_ros.tracking.stages import Stages
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.states import States
from maskrnn_ros.tracking.target import Known
from maskrnn_ros.tracking.tracks import tracks_of
from maskrnn_ros.tracking.zoom import begin, fine_image, near_views, settled, share_of, with_near
from maskrnn_ros.types import Frame, Seed, Track, Tracks, UInt8Array

Floats = npt.NDArray[np.float32]


class Tracker:
    """Follows instances through one video; a new video is a new tracker.

    Instances are coupled (``follow``): each is shown the others' masks of the frame before and learns from them. A late
    seed then is where a seed in time would be if all instances are run again from its frame on (``Replay``, by ``twin``
    and ``become``); carried alone, by ``start``, ``carry`` and ``adopt``, it is shown of the others what was published.
    On the frame where an instance is added, corrected or removed the others are what they would be without that, all
    the same: what is removed goes with them to one more frame, unseen.

    Args:
        config: All settings.
        flow: Estimator of backward flow between two working images.
        engine: Runs the networks; None: there are none, masks go where the flow takes them.
        announce: Called with one line when something has changed.
        threads: Of what is done for each instance on the CPU.
    """

    def __init__(
        self,
        config: Config,
        flow: FlowEstimator,
        engine: Engine | None = None,
        announce: Callable[[str], None] = lambda line: None,
        threads: int = 1,
    ) -> None:
        self.config = resolved(config)  # as often as not it is already
        self.announce = announce
        self.marked: Callable[[Mapping[int, InstanceMemory]], None] = lambda first: None
        """Called with the first states of instances that are marked on the newest frame, before the networks see them:
        until these are through, the seeds are all there is."""
        self.stages = Stages()
        self._pool = ThreadPool(threads)
        self._flow = flow
        self._engine = engine
        self._following = None if engine is None else Following(engine)
        self._states = self._leaving = States.of({})
        self._newest: PreparedFrame | None = None
        self._frames = 0
        self._shown: dict[int, int] = {}  # the frame (by count) on which an instance last won a pixel

    @property
    def device(self) -> str:
        """Where the networks run: cpu, cuda or cuda:N."""
        return "cpu" if self._engine is None else self._engine.device

    @property
    def engine(self) -> str:
        """What runs the networks: onnxruntime or torch; empty without networks."""
        return "" if self._engine is None else self._engine.name

    @property
    def precision(self) -> str:
        """Numbers that the trunk computes in: float32, float16 or int8; the decoder's are said where they differ."""
        if self._engine is None:
            return "float32"
        own, decoder = self._engine.precision, self._engine.decoder_precision
        return own if own == decoder else f"{own}, decoder {decoder}"

    @property
    def adaptation(self) -> str:
        """How instances are adapted to their seeds; off where they are not."""
        method = self.config.adaptation.method
        return "off" if self._engine is None or method == "none" else method  # the word of TrackerStatus

    @property
    def states(self) -> States:
        """States by id."""
        return self._states

    @property
    def newest(self) -> PreparedFrame | None:
        """The frame that the states belong to."""
        return self._newest

    @property
    def is_coupled(self) -> bool:
        """Whether instances learn from each other."""
        return self._following is not None

    @property
    def moment(self) -> Moment:
        """All that is carried from here on."""
        return Moment(self._states, self._leaving, self._frames, dict(self._shown))

    def twin(self, moment: Moment, frame: PreparedFrame) -> Tracker:
        """A tracker with the same parts that is where this one was after a frame; this one goes its own way."""
        twin = copy.copy(self)
        twin.marked = lambda first: None
        twin._take(moment, frame)
        return twin

    def become(self, twin: Tracker) -> None:
        """Go on from where a twin is."""
        assert twin._newest is not None
        self._take(twin.moment, twin._newest)

    def _take(self, moment: Moment, frame: PreparedFrame) -> None:
        self._states, self._leaving = self._table(moment.states), self._table(moment.leaving)
        self._frames, self._shown = moment.frames, dict(moment.shown)
        self._newest = frame

    def configure(self, config: Config) -> None:
        """Take new values of live settings between two frames.

        Raises:
            ValueError: Another setting differs: parts of the tracker were made by it.
        """
        config = resolved(config)
        old, new = to_flat(self.config), to_flat(config)
        for name, _, known in settings():
            if not known.live and new[name] != old[name]:
                raise ValueError(f"{name} must stay {old[name]!r} while the tracker runs, got {new[name]!r}")
        if needs_of(config) != needs_of(self.config):  # what rests was looked at by other settings
            self._states = awake(self._states)
        self.config = config

    def prepare(self, frame: Frame) -> PreparedFrame:
        """Bring a frame to the working size."""
        with self.stages.time("prepare"):
            height, width = working_size(frame.size, self.config.working_size)
            image = frame.image
            if (height, width) != frame.size:
                image = shrunk(image, (height, width))
            else:
                image = image.copy()  # it is the caller's
        ignored = Ignored.of(frame.ignored, (height, width))
        fine = None if self._engine is None else fine_image(frame.image, frame.size, (height, width), self.config)
        return PreparedFrame(
            stamp_ns=frame.stamp_ns, size=frame.size, image=image, engine=self._engine, ignored=ignored, fine=fine
        )

    def seed(self, seed: Seed, frame: Frame) -> Tracks:
        """Step to the frame, then add the seed's new ids and correct its known ones; the others go on.

        Raises:
            ValueError: The seed's size is not that of the frame, or the frame's not that of the video, or all of an
                instance lies in its ignore mask.
        """
        prepared = self.prepare(frame)
        seed = outside(seed, prepared)  # refuses before anything has changed
        self.advance(prepared)
        self.adopt(self.start(seed, prepared))
        return self.tracks(frame.image)

    def step(self, frame: Frame) -> Tracks:
        """Carry every instance to the next frame.

        Raises:
            ValueError: The frame's size is not that of the video.
        """
        self.advance(self.prepare(frame))
        return self.tracks(frame.image)

    def remove(self, instance_ids: Iterable[int]) -> None:
        """Drop instances; the state of the others stays as it is, and on the next frame is what it would have been.

        Where instances are coupled these are shown to the others on the way there once more, and are gone then.

        Raises:
            KeyError: One of them is not tracked; none is removed then.
        """
        doomed = set(instance_ids)
        unknown = doomed - set(self._states)
        if unknown:
            raise KeyError(f"no instance {sorted(unknown)}, tracked are {sorted(self._states)}")
        if self.is_coupled:
            self._leaving = self._table({**self._leaving, **{i: self._states[i] for i in doomed}})
        self._states = self._states.only([i for i in self._states if i not in doomed])
        self._shown = {i: frame for i, frame in self._shown.items() if i not in doomed}

    def advance(self, frame: PreparedFrame, images: int = 1) -> None:
        """Carry all states from the newest frame to this one.

        Args:
            frame: A newer one.
            images: How many images later it counts as; 0: as another picture of the newest.

        Raises:
            ValueError: Its size is not that of the video.
        """
        if self._newest is not None:
            check_size_of("frame", frame.size, self._newest.size)
            everyone = {**self._states, **self._leaving} if self._states and self._leaving else self._states
            self._states = self.carry(everyone, self._newest, frame, images).only(self._states.ids)
            self._leaving = States.of({})
            self._newest.forget()
        self._newest = frame
        self._frames += images

    def start(
        self, seed: Seed, frame: PreparedFrame, others: Floats | None = None, is_sure: bool = True
    ) -> dict[int, InstanceMemory]:
        """First states of the seed's instances, on the frame that it was drawn on; what of them is ignored is left out.

        Args:
            seed: Marks them.
            frame: The frame that it was drawn on.
            others: What other instances cover there, float32 (h4, w4) at its cells of stride 4, where it is not the
                newest frame; None: not known. Only coupled instances are begun by it.
            is_sure: Whether nothing can refuse the seed any more, so that ``marked`` may be told.

        Raises:
            ValueError: The seed's size is not that of the frame, or all of an instance lies in its ignore mask.
        """
        seed = outside(seed, frame)
        shares = {i: share_of(seed.labels == i, frame, self.config) for i in seed.ids}
        first = {i: begun(i, seed, frame, share, None, self._states.get(i)) for i, share in shares.items()}
        if self._following is None:
            return first
        if is_sure and frame is self._newest:
            self.marked(first)
        known = self._begun(shares, seed, frame, others, self._following)
        return {i: dataclasses.replace(one, known=known.get(i)) for i, one in first.items()}

    def _begun(
        self,
        shares: Mapping[int, Floats],
        seed: Seed,
        frame: PreparedFrame,
        covered: Floats | None,
        following: Following,
    ) -> dict[int, Known]:
        """What the networks know of a seed's instances; whatever else is marked or followed there is not them."""
        followed = self._states if self._newest is frame and covered is None else {}
        around = around_of(shares, seed, frame, covered, followed)
        return begin(following, frame, shares, around, self.config)

    def carry(
        self,
        states: Mapping[int, InstanceMemory],
        previous: PreparedFrame,
        current: PreparedFrame,
        images: int = 1,
        beside: Beside | None = None,
    ) -> States:
        """States on ``current`` from those on ``previous``; without instances no flow is computed.

        Args:
            states: States by id.
            previous: The frame that they belong to.
            current: A later one.
            images: How many images later it is; more than 1 where some are left out.
            beside: Other instances that coupled ones are shown; None: there are none.
        """
        table = self._table(states)
        if not table:
            return table
        seconds = (current.stamp_ns - previous.stamp_ns) * 1e-9
        rate = 1 / seconds if seconds > 0 else None
        table = self._table(settled(table, current))
        with self.stages.time("flow"):
            near = near_views(table, previous, current, self._flow, self._following, self.config, beside)
        rows: dict[int, InstanceMemory] = {}
        for i, view in near.items():
            per_second = _times(view.to_input, rate)
            one = self._table({i: view.state})
            rows[i] = view.told(self._carried(one, view.frame, view.flow, per_second, images, view.beside)[i])
        far = table.only([i for i in table.ids if i not in near])
        if not far:
            return self._table(rows)
        watched = self._watched(far, among(table), current, images)
        if watched is not None and watched.rests.all():
            moved = rested(far, watched, rate, images, self.config)
        else:
            with self.stages.time("flow"):
                flow = self._flow(current.image, previous.image)
            per_second = _times(current.size[1] / current.image.shape[1], rate)
            shown = with_near(beside, table, rows, current)
            moved = self._carried(far, current, flow, per_second, images, shown, watched)
        return self._table({**moved, **rows}) if rows else moved

    def _carried(
        self,
        table: States,
        frame: PreparedFrame,
        flow: Floats,
        per_second: float | None,
        images: int,
        beside: Beside | None,
        watched: Watched | None = None,
    ) -> States:
        """States on a frame, or a window of one, by the flow in it."""
        if self._following is None:
            with self.stages.time("heads"):
                found = propagated(table.patches, flow, frame.unknown, self.config)
        else:
            with self.stages.time("trunk"):
                _ = frame.features
            with self.stages.time("heads"):
                rests = None if watched is None else watched.rests
                found = self._following.advance(table, frame, flow, self.config, beside, rests)
        with self.stages.time("heads"):
            velocity = velocities_of(found.patches.only(found.sees), flow, per_second)
            return carried(table, found, velocity, images, self.config, watched)

    def _watched(self, table: States, there: bytes, frame: PreparedFrame, images: int) -> Watched | None:
        """What has changed around instances; None: nobody may rest."""
        if self._following is None or not self.config.rest.enabled:
            return None
        with self.stages.time("heads"):
            watched = Watched.of(table, there, frame, images, self.config.rest)
        if self.engine == "torch" and not watched.rests.all():
            # all or none: CUDA graphs and compiled networks are for one number of objects
            return dataclasses.replace(watched, rests=np.zeros_like(watched.rests))
        return watched

    def _table(self, states: Mapping[int, InstanceMemory]) -> States:
        return States.of(states, self._engine)

    def adopt(self, states: Mapping[int, InstanceMemory]) -> None:
        """Take in states that belong to the newest frame; known ids are replaced."""
        self._states = self._table({**self._states, **states})

    def tracks(self, image: UInt8Array | None = None) -> Tracks:
        """Merge the instances on the newest frame, at the size of the input.

        Args:
            image: The newest frame as it came, RGB, uint8 (H, W, 3), for the refinement; None leaves that out.

        Raises:
            RuntimeError: There was no frame yet.
        """
        if self._newest is None:
            raise RuntimeError("no frame yet: call step or seed first")
        with self.stages.time("merge"):
            return self._merged(self._newest, image)

    def _merged(self, newest: PreparedFrame, image: UInt8Array | None) -> Tracks:
        states = self._states
        is_seen = states.frames_unseen == 0
        is_marked = np.array([mask is not None for mask in states.seed_masks], np.bool_)
        marks = zip(states.ids, states.seed_masks, is_seen.tolist(), strict=True)
        instances = Instances(
            ids=states.ids,
            patches=states.patches.only(is_seen & ~is_marked),
            seeds={i: mask for i, mask, seen in marks if seen and mask is not None},
            frame=newest,
            image=image if self.config.refinement.enabled else None,
            config=self.config.refinement,
        )
        labels, shown = instances.shown(None if self._engine is None else self._engine.merge, self._pool)
        return Tracks(stamp_ns=newest.stamp_ns, labels=labels, tracks=self._tracks(shown))

    def _tracks(self, shown: Mapping[int, Shown]) -> tuple[Track, ...]:
        """The public view of the states; one counts as unseen, too, while others win all of its pixels.

        That count is kept here and not in the states, which know of no other instance.
        """
        ids, before = self._states.ids, self._frames - 1
        won = [shown[i] if i in shown else None for i in ids]
        self._shown = {**{i: before for i in ids}, **self._shown, **{i: self._frames for i in shown}}
        last = np.array([self._shown[i] for i in ids], np.int64)
        return tracks_of(self._states, won, self._frames - last, self.config)


def _times(to_input: float, rate: float | None) -> float | None:
    return None if rate is None else to_input * rate
