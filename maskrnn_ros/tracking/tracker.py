# SPDX-License-Identifier: Apache-2.0
"""The tracker of one video: seed, step, remove."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from types import MappingProxyType

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.config import Config, FlowConfig
from maskrnn_ros.cores import cores
from maskrnn_ros.flow import FlowEstimator, build_flow
from maskrnn_ros.model.backbone import cells_of
from maskrnn_ros.model.engine import Models, Network, OnnxTrunk, load_models
from maskrnn_ros.model.head import STRIDE as HEAD_STRIDE
from maskrnn_ros.model.head import Head
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.quality import at_level, working_size
from maskrnn_ros.tracking.adaptation import Adapter, SeedView
from maskrnn_ros.tracking.crew import Crew
from maskrnn_ros.tracking.estimate import Estimate, estimate
from maskrnn_ros.tracking.evidence import has_evidence, is_seen, remember
from maskrnn_ros.tracking.follow import Beside, Following, Found
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.merge import Likely, merge
from maskrnn_ros.tracking.moment import Moment
from maskrnn_ros.tracking.outputs import enlarge, enlarge_along_edges
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.rescale import rescaled_frame, rescaled_states
from maskrnn_ros.tracking.score import score
from maskrnn_ros.tracking.stages import Stages
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.view import View
from maskrnn_ros.types import BoolArray, Box, Frame, InstanceStatus, LabelArray, Seed, Track, Tracks, UInt8Array

_USUAL_AREA_RATE = 0.05
"""Weight of a new frame in the usual area: about a second of memory at 24 frames per second."""

_TORCH_THREADS = torch.get_num_threads()
"""Its default, which knows of OMP_NUM_THREADS and of the cores that the process may use."""

_MAX_SEEDS = 4
"""Seeds of one instance that are kept: the first and the newest corrections."""


class Tracker:
    """Follows instances through one video; a new video is a new tracker.

    Without a decoder instances are independent of each other until the merge: what is carried for one never depends on
    another. So a late seed is started on its own frame with ``start``, carried through the frames in between with
    ``carry`` and taken in with ``adopt``, and is then where a seed in time would be, array for array.

    With a decoder (``follow``) instances are coupled: each is shown the others' masks of the frame before and learns
    from them. A late seed then is where a seed in time would be if all instances are run again from its frame on
    (``Replay``, by ``twin`` and ``become``); carried alone, it is shown of the others what was published. On the frame
    where an instance is added, corrected or removed the others are what they would be without that, all the same: what
    is removed goes with them to one more frame, unseen.

    Args:
        config: All settings.
        flow: Estimator of backward flow between two working images.
        device: Where states are kept.
        trunk: Computes the features of a frame; without one there is neither matching nor adaptation.
        network: The network, frozen; it needs a trunk. None for the parts alone.
        announce: Called with one line when an adapted head is taken into use between two frames.
        threads: How many instances are worked on at a time.
        refiners: Threads that bring the masks to the size of the input, which is the CPU's work; None: as many.
        together: Whether the network looks at all instances in one batch; None: on a GPU.
        make_flow: Makes another estimator where settings of the flow change; None stays with the one given.
    """

    def __init__(
        self,
        config: Config,
        flow: FlowEstimator,
        device: torch.device,
        trunk: Trunk | None = None,
        network: Network | None = None,
        announce: Callable[[str], None] = lambda line: None,
        threads: int = 1,
        together: bool | None = None,
        make_flow: Callable[[FlowConfig], FlowEstimator] | None = None,
        following: Following | None = None,
        refiners: int | None = None,
    ) -> None:
        self.config = at_level(config, config.quality)  # as often as not it is at its level already
        self.announce = announce
        self.fault = announce  # called with one line when something in the background failed
        self.progress: Callable[[], None] = lambda: None  # called while a head is trained at once
        self.stages = Stages()
        self._crew = Crew(threads)
        self._refiners = self._crew if refiners is None else Crew(refiners)
        self._together = together
        self._flow = flow
        self._make_flow = make_flow
        self._device = device
        self._trunk = trunk
        self._network = network
        self._following = following
        is_adapting = trunk is not None and config.adaptation.method != "none" and following is None
        self._adapter = Adapter(config.adaptation, trunk) if trunk is not None and is_adapting else None
        self._states: dict[int, InstanceState] = {}
        self._leaving: dict[int, InstanceState] = {}
        self._newest: PreparedFrame | None = None
        self._frames = 0
        self._shown: dict[int, int] = {}  # the frame (by count) on which an instance last won a pixel

    @property
    def device(self) -> torch.device:
        """Where the states are."""
        return self._device

    @property
    def engine(self) -> str:
        """What runs the networks: onnxruntime or torch."""
        return "onnxruntime" if isinstance(self._trunk, OnnxTrunk) else "torch"

    @property
    def precision(self) -> str:
        """Numbers that the networks compute in: float32, float16 or int8; a decoder's are said where they differ."""
        own = "float16" if self.config.precision == "float16" else "float32"
        if isinstance(self._trunk, OnnxTrunk):
            own = self._trunk.precision
        return own if self._following is None or own == "float32" else f"{own}, decoder float32"

    @property
    def adaptation(self) -> str:
        """How instances are adapted to their seeds: recursive, or finetune's mode; off where they are not."""
        own = self.config.adaptation
        if own.method == "none" or (self._adapter is None and self._following is None):
            return "off"  # the word of TrackerStatus
        return own.mode if own.method == "finetune" else own.method

    @property
    def states(self) -> Mapping[int, InstanceState]:
        """States by id, read-only."""
        return MappingProxyType(self._states)

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
        twin._take(moment, frame)
        return twin

    def become(self, twin: Tracker) -> None:
        """Go on from where a twin is."""
        assert twin._newest is not None
        self._take(twin.moment, twin._newest)

    def _take(self, moment: Moment, frame: PreparedFrame) -> None:
        self._states, self._leaving = dict(moment.states), dict(moment.leaving)
        self._frames, self._shown = moment.frames, dict(moment.shown)
        self._newest = frame

    @torch.no_grad()
    def configure(self, config: Config, picture: Frame | None = None) -> None:
        """Take new values of live settings between two frames; instances go on, whatever size they are worked on at.

        Other states than the tracker's own, of seeds that catch up, would stay at the old size: there must be none.

        Args:
            config: All settings.
            picture: The newest frame as it came, where that is at hand; else its working image is resized.
        """
        config = at_level(config, config.quality)
        if config.flow != self.config.flow and self._make_flow is not None:
            self._flow = self._make_flow(config.flow)
        self.config = config
        newest = self._newest
        size = working_size(newest.size, config.working_size) if newest is not None else (0, 0)
        if newest is None or size == newest.image.shape[1:]:
            return
        is_newest = picture is not None and picture.stamp_ns == newest.stamp_ns
        self._newest = self.prepare(picture) if picture is not None and is_newest else rescaled_frame(newest, size)
        self._states = rescaled_states(self._states, size, self._trunk)
        self._leaving = rescaled_states(self._leaving, size, self._trunk)

    def prepare(self, frame: Frame) -> PreparedFrame:
        """Bring a frame to the working size and onto the device."""
        with self.stages.time("prepare"):
            height, width = working_size(frame.size, self.config.working_size)
            image = frame.image
            if (height, width) != frame.size:
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            # what came from the caller is copied; what the resizing made is ours
            tensor = torch.tensor(image) if image is frame.image else torch.from_numpy(image)
            planar = tensor.to(self._device).permute(2, 0, 1)  # the memory stays as it is: OpenCV reads it, too
        # what is fetched from a GPU again and again is better kept
        host = None if planar.device.type == "cpu" else tensor.numpy()
        ignored = Ignored.of(frame.ignored, (height, width), self._device)
        return PreparedFrame(
            stamp_ns=frame.stamp_ns, size=frame.size, image=planar, trunk=self._trunk, host=host, ignored=ignored
        )

    def seed(self, seed: Seed, frame: Frame) -> Tracks:
        """Step to the frame, then add the seed's new ids and correct its known ones; the others go on.

        Raises:
            ValueError: The seed's size is not that of the frame, or the frame's not that of the video, or all of an
                instance lies in its ignore mask.
        """
        prepared = self.prepare(frame)
        seed = _outside(seed, prepared)  # refuses before anything has changed
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
        self.forget(self._states[i] for i in doomed)
        if self.is_coupled:
            self._leaving = {**self._leaving, **{i: self._states[i] for i in doomed}}
        self._states = {i: state for i, state in self._states.items() if i not in doomed}
        self._shown = {i: frame for i, frame in self._shown.items() if i not in doomed}

    def close(self) -> None:
        """Cancel what is trained in the background; no seed can follow."""
        if self._adapter is not None:
            self._adapter.close()

    @torch.no_grad()
    def advance(self, frame: PreparedFrame) -> None:
        """Carry all states from the newest frame to this one.

        Raises:
            ValueError: Its size is not that of the video.
        """
        if self._newest is not None:
            _check_size("frame", frame.size, self._newest.size)
            self._states = {i: self._with_finished_head(state) for i, state in self._states.items()}
            everyone = dict(sorted({**self._states, **self._leaving}.items())) if self._states else {}
            carried = self.carry(everyone, self._newest, frame)
            self._states = {i: carried[i] for i in self._states}
            self._leaving = {}
        self._newest = frame
        self._frames += 1

    def start(self, seed: Seed, frame: PreparedFrame, others: Tensor | None = None) -> dict[int, InstanceState]:
        """First states of the seed's instances, on the frame that it was drawn on; what of them is ignored is left out.

        Args:
            seed: Marks them.
            frame: The frame that it was drawn on.
            others: What other instances cover there, float32 (h4, w4) at its cells of stride 4, where it is not the
                newest frame; None: not known. Only coupled instances are begun by it.

        Raises:
            ValueError: The seed's size is not that of the frame, or all of an instance lies in its ignore mask.
        """
        seed = _outside(seed, frame)
        states = {i: self._first_state(i, seed, frame) for i in seed.ids}
        return states if self._following is None else self._begun(states, seed, frame, others, self._following)

    @torch.no_grad()
    def _begun(
        self,
        states: dict[int, InstanceState],
        seed: Seed,
        frame: PreparedFrame,
        covered: Tensor | None,
        following: Following,
    ) -> dict[int, InstanceState]:
        """States with what the decoder knows of them; whatever else is marked or followed there is no part of them."""
        height, width = frame.image.shape[1:]
        live = torch.zeros(height, width, device=self._device)
        if covered is not None:
            live = covered.repeat_interleave(HEAD_STRIDE, 0).repeat_interleave(HEAD_STRIDE, 1)[:height, :width]
        elif self._newest is frame:
            for i, state in self._states.items():
                if i not in states:
                    live = torch.maximum(live, state.probability)
        shares, around = {}, {}
        for i in states:
            rest = (seed.labels != i) & (seed.labels != 0)
            others = cv2.resize(rest.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            shares[i] = states[i].probability
            around[i] = torch.maximum(torch.tensor(others, device=self._device), live) * (1 - shares[i])
        known = following.begin(frame, shares, around, self.config)
        return {i: dataclasses.replace(state, known=known[i]) for i, state in states.items()}

    @torch.no_grad()
    def carry(
        self,
        states: Mapping[int, InstanceState],
        previous: PreparedFrame,
        current: PreparedFrame,
        images: int = 1,
        beside: Beside | None = None,
    ) -> dict[int, InstanceState]:
        """States on ``current`` from those on ``previous``; without instances no flow is computed.

        Args:
            states: States by id.
            previous: The frame that they belong to.
            current: A later one.
            images: How many images later it is; more than 1 where some are left out.
            beside: Other instances that coupled ones are shown; None: there are none.
        """
        if not states:
            return {}
        with self.stages.time("flow"):
            flow = self._flow(current.image, previous.image)
        seconds = (current.stamp_ns - previous.stamp_ns) * 1e-9
        to_input = current.size[1] / current.image.shape[2]
        per_second = to_input / seconds if seconds > 0 else None
        if self._following is not None:
            with self.stages.time("backbone"):
                _ = current.features
            with self.stages.time("heads"):
                looked = self._following.advance(states, current, flow, self.config, self._crew, beside)
                patches = {i: found.patch for i, found in looked.items() if found.is_seen}
                velocities = _velocities(patches, flow, per_second)
                return {i: self._followed(states[i], looked[i], velocities.get(i), images) for i in states}
        view = View(current, flow, self._network, self.config.network)
        if self._trunk is not None:
            with self.stages.time("backbone"):
                view.share(self._crew, with_descriptors=self.config.matching.enabled)
        with self.stages.time("heads"):
            found = estimate(states, view, self.config, self._crew, self._together)
            pairs = {i: (state, found[i]) for i, state in states.items()}
            return self._crew.map_values(lambda pair: self._carried(*pair, view, per_second, images), pairs)

    def forget(self, states: Iterable[InstanceState]) -> None:
        """States that nobody will carry on: what is trained for them in the background is cancelled."""
        for state in states:
            if state.promise is not None and self._adapter is not None:
                self._adapter.cancel(state.promise)

    def adopt(self, states: Mapping[int, InstanceState]) -> None:
        """Take in states that belong to the newest frame; known ids are replaced."""
        former = [self._states[i] for i in states if i in self._states]
        self.forget(state for state in former if state.promise is not states[state.instance_id].promise)
        self._states = dict(sorted({**self._states, **states}.items()))

    @torch.no_grad()
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
        seen = {i: state for i, state in self._states.items() if state.frames_unseen == 0}
        patches = {i: state.patch for i, state in seen.items() if state.seed_mask is None}
        if image is not None and self.config.refinement.enabled:
            likely = enlarge_along_edges(patches, newest.pixels, image, self.config.refinement, self._refiners)
        else:
            likely = enlarge(patches, newest.size)
        # on the seeded frame the seed itself, to the pixel
        likely |= {i: _marked(state.seed_mask) for i, state in seen.items() if state.seed_mask is not None}
        if newest.ignored is not None and likely:  # edges were refined, and the working size is coarser
            allowed = ~newest.ignored.full
            likely = {i: Likely(one.box, one.probability * allowed[one.box.slices]) for i, one in likely.items()}
        labels = merge(likely, newest.size)
        tracks = tuple(self._track(state, labels, likely.get(i)) for i, state in self._states.items())
        return Tracks(stamp_ns=newest.stamp_ns, labels=labels, tracks=tracks)

    def _track(self, state: InstanceState, labels: LabelArray, likely: Likely | None) -> Track:
        """The public view of a state; it counts as unseen, too, while others win all of its pixels.

        That count is kept here and not in the state, which knows of no other instance.
        """
        box = None if likely is None else Box.of_mask(labels[likely.box.slices] == state.instance_id)
        if box is not None:
            self._shown[state.instance_id] = self._frames
        last_shown = self._shown.setdefault(state.instance_id, self._frames - 1)
        frames_unseen = max(state.frames_unseen, self._frames - last_shown)
        seen = box is not None
        mask, inside = np.zeros((0, 0), np.bool_), np.zeros((0, 0), np.float32)
        if box is not None and likely is not None:
            inside = likely.probability[box.slices]
            box = box.moved(likely.box.x0, likely.box.y0)
            mask = labels[box.slices] == state.instance_id
        return Track(
            instance_id=state.instance_id,
            name=state.name,
            status=state.status if seen else self._status(frames_unseen),
            age=state.age,
            frames_unseen=frames_unseen,
            score=score(inside, mask) if seen else 0.0,
            visibility=min(1.0, state.area / max(state.usual_area, 1.0)) if seen else 0.0,
            box=box,
            mask=mask,
            probability=inside,
            velocity=state.velocity if seen else None,
        )

    def _with_finished_head(self, state: InstanceState) -> InstanceState:
        """The state with the head that was trained in the background, if that is done."""
        if state.promise is None or not state.promise.done():
            return state
        error = state.promise.exception()
        if error is not None:
            self.fault(f"instance {state.instance_id}: adaptation failed: {type(error).__name__}: {error}")
            return dataclasses.replace(state, promise=None)
        self.announce(f"instance {state.instance_id}: adapted head in use")
        return dataclasses.replace(state, head=state.promise.result(), promise=None)

    def _first_state(self, instance_id: int, seed: Seed, frame: PreparedFrame) -> InstanceState:
        mask = seed.labels == instance_id
        height, width = frame.image.shape[1:]
        # Area averaging: a working pixel's probability is the share of it that the mask covers.
        small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        area = int(np.count_nonzero(small >= 0.5))
        share = torch.tensor(small, device=self._device)
        rest = (seed.labels != instance_id) & (seed.labels != 0)
        others = cv2.resize(rest.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        beside = torch.tensor(others, device=self._device) if rest.any() else None
        seeds = self._seeds(instance_id, share, beside, frame)
        head = self._adapter.start(seeds, self.progress) if self._adapter is not None else None
        known = self._states.get(instance_id)
        return InstanceState(
            instance_id=instance_id,
            name=seed.names.get(instance_id, self._name_of(instance_id)),
            patch=Patch.of(share),
            status=InstanceStatus.SEEDED,
            seeded_ns=frame.stamp_ns,
            age=0,
            frames_unseen=0,
            area=area,
            usual_area=float(max(area, 1)),
            velocity=None,
            seed_mask=mask,
            seeds=seeds,
            # a corrected instance keeps its head until the new one is trained
            head=(known.head if known else self._first_head(seeds[-1], frame)) if isinstance(head, Future) else head,
            promise=head if isinstance(head, Future) else None,
        )

    def _first_head(self, seed: SeedView, frame: PreparedFrame) -> Head | None:
        """A head fitted on the seed alone, a matter of milliseconds: what there is while a better one is trained."""
        if self._trunk is None or self._trunk.start is None:
            return None
        maps = [map_[None].float() for map_ in frame.features.maps]
        others = None if seed.others is None else cells_of(seed.others, HEAD_STRIDE)[None]
        known = None if seed.ignored is None else 1 - cells_of(seed.ignored, HEAD_STRIDE)[None]
        return self._trunk.start.fit(maps, cells_of(seed.share, HEAD_STRIDE)[None], others, known)

    def _seeds(
        self, instance_id: int, share: Tensor, others: Tensor | None, frame: PreparedFrame
    ) -> tuple[SeedView, ...]:
        """The earlier seeds of the instance and this one."""
        if self._trunk is None or self._following is not None:
            return ()
        known = self._states.get(instance_id)
        earlier = [seed for seed in known.seeds if seed.stamp_ns < frame.stamp_ns] if known else []
        kept = [*earlier[:1], *earlier[1:][-(_MAX_SEEDS - 2) :]]
        ignored = None if frame.unknown is None else frame.unknown.float()
        return (*kept, SeedView(frame.stamp_ns, frame.image, share, frame.descriptors, others, ignored=ignored))

    def _name_of(self, instance_id: int) -> str:
        known = self._states.get(instance_id)
        return known.name if known else ""

    def _carried(
        self, state: InstanceState, found: Estimate, view: View, per_second: float | None, images: int
    ) -> InstanceState:
        patch, hidden = found.probability, found.hidden
        area = int((patch.values >= 0.5).sum())
        seen = found.is_present and is_seen(patch, area, found.matching, state, self.config)
        if not seen and has_evidence(state, self.config):
            patch, hidden = patch.gated(None), None  # the unseen has no place to be carried from
        unseen = 0 if seen else state.frames_unseen + images
        return dataclasses.replace(
            state,
            patch=patch,
            status=self._status(unseen),
            age=state.age + images,
            frames_unseen=unseen,
            area=area,
            usual_area=state.usual_area + (_USUAL_AREA_RATE * (area - state.usual_area) if seen else 0.0),
            velocity=_velocities({0: patch}, view.flow, per_second).get(0) if seen else None,
            seed_mask=None,
            recent=remember(state, view.frame, patch, self.config) if seen and state.seeds else state.recent,
            hidden=hidden,
        )

    def _followed(
        self, state: InstanceState, found: Found, velocity: tuple[float, float] | None, images: int
    ) -> InstanceState:
        unseen = 0 if found.is_seen else state.frames_unseen + images
        grown = _USUAL_AREA_RATE * (found.area - state.usual_area) if found.is_seen else 0.0
        return dataclasses.replace(
            state,
            patch=found.patch,
            status=self._status(unseen),
            age=state.age + images,
            frames_unseen=unseen,
            area=found.area,
            usual_area=state.usual_area + grown,
            velocity=velocity,
            seed_mask=None,
            known=found.known,
        )

    def _status(self, frames_unseen: int) -> InstanceStatus:
        if frames_unseen == 0:
            return InstanceStatus.TRACKING
        lost = frames_unseen > self.config.presence.lost_after_frames
        return InstanceStatus.LOST if lost else InstanceStatus.OCCLUDED


def build_tracker(config: Config) -> Tracker:
    """The tracker that the config describes, at its level of quality; node, replay and command line get theirs here.

    Raises:
        RuntimeError: The device asked for by name is not there, or the weights cannot be read.
    """
    config = at_level(config, config.quality)
    device = choose_device(config.device)
    models = load_models(config, device)
    _share_out_threads(config, models)
    make_flow = partial(build_flow, device=device)
    flow = make_flow(config.flow)
    following = None
    if models.step is not None and models.trunk is not None and models.trunk.start is not None:
        following = Following(models.step, models.trunk)
    return Tracker(
        config,
        flow,
        device,
        models.trunk,
        models.network,
        threads=models.threads,
        make_flow=make_flow,
        following=following,
        # a GPU works on all instances at once, and the cores have nothing else to do meanwhile
        refiners=(config.threads or len(cores())) if device.type != "cpu" else None,
    )


def _share_out_threads(config: Config, models: Models) -> None:
    """Where instances are shared out to threads, torch has one; where they are not, all of them again."""
    torch.set_num_threads(1 if models.threads > 1 else config.threads or _TORCH_THREADS)
    # OpenCV's threads are born here: in a thread that gives way, or stays on a core, they would inherit that
    cv2.resize(np.zeros((1024, 1024, 3), np.uint8), (600, 600), interpolation=cv2.INTER_AREA)


def choose_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        RuntimeError: cuda was asked for by name and is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RuntimeError(
            f"device {name!r} was asked for, but torch sees {count} cuda devices; use device auto or cpu"
        )
    return device


def warm_up(tracker: Tracker) -> None:
    """Run two small frames through, so that the first image does not pay for what is set up lazily."""
    frames = [Frame(stamp_ns=stamp, image=np.zeros((64, 64, 3), np.uint8)) for stamp in (1, 2)]
    labels = np.zeros((64, 64), np.int32)
    labels[16:48, 16:48] = 1
    tracker.seed(Seed(stamp_ns=1, labels=labels), frames[0])
    tracker.step(frames[1])


def set_threads(number: int) -> None:
    """Threads of OpenCV and, until a tracker is built, of torch for one operation; 0 leaves their default."""
    if number:
        torch.set_num_threads(number)
        cv2.setNumThreads(number)


def _check_size(what: str, actual: tuple[int, int], expected: tuple[int, int]) -> None:
    if actual != expected:
        raise ValueError(
            f"{what} must be {expected[1]}x{expected[0]} (width x height) like the video, got {actual[1]}x{actual[0]}"
        )


def _outside(seed: Seed, frame: PreparedFrame) -> Seed:
    """The seed of a frame without what is ignored there."""
    _check_size("seed", seed.size, frame.size)
    return seed.outside(frame.ignored.full if frame.ignored is not None else None)


def _marked(mask: BoolArray) -> Likely:
    box = Box.of_mask(mask)
    assert box is not None  # a seed marks what its ids are
    return Likely(box, mask[box.slices].astype(np.float32))


def _velocities(patches: Mapping[int, Patch], flow: Tensor, per_second: float | None) -> dict[int, tuple[float, float]]:
    """Mean motion under masks, by id, all read at once; flow points back to where it came from, hence the sign."""
    known = {i: patch for i, patch in patches.items() if patch.box is not None}
    if per_second is None or not known:
        return {}
    moved = [
        (flow[(slice(None), *patch.box.slices)] * patch.values).sum(dim=(1, 2)) / patch.values.sum()
        for patch in known.values()
        if patch.box is not None
    ]
    rows = (-torch.stack(moved) * per_second).tolist()
    return {i: (dx, dy) for i, (dx, dy) in zip(known, rows, strict=True)}
