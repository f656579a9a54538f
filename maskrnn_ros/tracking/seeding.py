# SPDX-License-Identifier: Apache-2.0
"""A seed that has started: its instances on their way from its image to the newest one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

import cv2
import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.prompts import PromptBackend
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.catch_up import CatchUp
from maskrnn_ros.tracking.moment import Marking
from maskrnn_ros.tracking.prompted import AnySeed
from maskrnn_ros.tracking.replay import Replay
from maskrnn_ros.tracking.saved import SavedSeed
from maskrnn_ros.tracking.seed_request import Stream
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import BoolArray, Frame, Seed


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """A session as a seed finds it.

    Args:
        tracker: On the newest frame.
        buffer: The frames held.
        stream: What of the stream is at hand.
        config: Settings.
        prompts: Makes masks of boxes and points.
        picture: The newest image as it came.
        is_published: Whether its masks were published.
        removed: Ids that were removed in this session.
        clock: Monotonic time, seconds.
    """

    tracker: Tracker
    buffer: FrameBuffer
    stream: Stream
    config: Config
    prompts: PromptBackend
    picture: Frame | None
    is_published: bool
    removed: frozenset[int]
    clock: Callable[[], float]

    @property
    def newest(self) -> PreparedFrame:
        """The newest frame; seeds start on a frame, and there was one."""
        assert self.tracker.newest is not None
        return self.tracker.newest


@dataclasses.dataclass(frozen=True)
class Adopted:
    """What the tracker took in of a seed.

    Args:
        ids: Of its instances, but for those that were removed meanwhile.
        newer: Those of them that were corrected on a later image, which stays.
        cut: Pixels of the seed that lay in the ignore mask of its image, and were left out.
    """

    ids: tuple[int, ...]
    newer: frozenset[int]
    cut: int

    def __str__(self) -> str:
        """What is worth saying of it, for people; often nothing."""
        said = [f"instances {sorted(self.newer)} were corrected on a later image, which stays"] if self.newer else []
        said += [f"{self.cut} pixels in the ignore mask were left out"] if self.cut else []
        return "; ".join(said)


class Seeding:
    """Starts a seed on its frame and brings its instances to the newest one, alone or with all others (``Replay``).

    Args:
        seed: The seed.
        bring: Gives the image that it was drawn on; None: only the stream has it.
        scene: The session.

    Raises:
        ValueError: The seed cannot be applied.
    """

    def __init__(self, seed: AnySeed, bring: Callable[[], Frame] | None, scene: Scene) -> None:
        self._seed = seed
        self.frame, own = self._frame_of(bring, scene)
        replay = Replay(scene.tracker, scene.buffer, self.frame.stamp_ns) if scene.stream.replays else None
        drawn = self._cut(own, scene, scene.tracker if replay is None else replay.tracker)
        ignored = None if self.frame.ignored is None else self.frame.ignored.full
        labels = drawn.outside(ignored)
        self._pixels_cut = int(np.count_nonzero(drawn.labels)) - int(np.count_nonzero(labels.labels))
        image = self.frame.image if self.frame.fine is None else self.frame.fine
        self.record = SavedSeed(stamp_ns=self.frame.stamp_ns, image=image, labels=labels.labels, ignored=ignored)
        self.way: CatchUp | Replay = self._alone(labels, scene) if replay is None else replay
        if replay is not None:
            self._mark(replay, labels, scene)

    @property
    def frames_used(self) -> int:
        """Frames over which it was brought so far."""
        return self.way.frames_used

    @property
    def begins_again(self) -> bool:
        """Whether it must be started anew after an interruption: seeds and removals may have come meanwhile."""
        return isinstance(self.way, Replay)

    def is_done(self, tracker: Tracker) -> bool:
        """Whether its instances are on the tracker's newest frame."""
        return self.way.is_done(tracker)

    def step(self, tracker: Tracker, buffer: FrameBuffer) -> None:
        """Go one frame nearer to the newest, or over some where time is short."""
        self.way.step(tracker, buffer)

    def adopt(self, scene: Scene) -> Adopted:
        """Give the tracker its instances; they are on the newest frame.

        Raises:
            ValueError: All of them were removed meanwhile, or one is there already.
        """
        states = {i: state for i, state in self.way.states.items() if i not in scene.removed}
        if not states:
            raise ValueError(f"instances {sorted(self.way.states)} were removed meanwhile")
        if isinstance(self.way, Replay):
            newer = set(self.way.corrected & states.keys())
            self.way.commit(scene.tracker, scene.buffer, scene.picture if scene.is_published else None)
        else:
            newer = self._adopt_alone(states, scene)
        return Adopted(tuple(states), frozenset(newer), self._pixels_cut)

    def _adopt_alone(self, states: Mapping[int, InstanceMemory], scene: Scene) -> set[int]:
        """Take in what was carried beside the others; returns ids of those that were corrected on a later image."""
        tracker = scene.tracker
        # Both are on the newest frame now, so that masks can be compared even where the seed came late.
        self._check_distinct(states, tracker.states, scene.config.prompts.same_iou)
        # Stamps decide, not arrivals: what was corrected on a later image stays.
        newer = {i for i in states if i in tracker.states and tracker.states[i].seeded_ns > states[i].seeded_ns}
        tracker.adopt({i: state for i, state in states.items() if i not in newer})
        if scene.stream.replays:  # exact since it began: there is no way to here from earlier frames
            scene.buffer.renew(tracker.moment)
        return newer

    def _frame_of(self, bring: Callable[[], Frame] | None, scene: Scene) -> tuple[PreparedFrame, Frame | None]:
        """The frame that the seed was drawn on, and its image as it came with the seed where that is of use."""
        stamp = self._seed.stamp_ns
        frame = scene.newest if stamp == 0 else scene.buffer.at(stamp)
        own = _own_image(bring, scene.newest.size) if frame is None or self._seed.needs_picture else None
        if frame is None:
            if own is None:
                raise ValueError(scene.stream.not_held(stamp))
            frame = scene.tracker.prepare(own)
        return frame, own

    def _cut(self, own: Frame | None, scene: Scene, tracker: Tracker) -> Seed:
        """The seed's labels, cut on the largest picture of its frame that is at hand."""
        picture = scene.picture
        if own is None and picture is not None and picture.stamp_ns == self.frame.stamp_ns:
            own = picture
        image = own.image if own is not None else self.frame.image
        before = _masks_on(self.frame, self._seed.ids, tracker) if self._seed.needs_picture else {}
        return self._seed.cut(image, self.frame.size, scene.prompts, before)

    def _alone(self, labels: Seed, scene: Scene) -> CatchUp:
        """Begin beside the others."""
        is_shown = scene.tracker.is_coupled and self.frame is not scene.newest
        others = scene.buffer.others(self.frame.stamp_ns, labels.ids) if is_shown else None
        states = scene.tracker.start(labels, self.frame, others, is_sure=not self._seed.distinct)
        return CatchUp(states, self.frame, scene.config.catch_up, scene.clock)

    def _mark(self, replay: Replay, labels: Seed, scene: Scene) -> None:
        """Begin a replay with the seed."""
        ids = tuple(i for i in labels.ids if i not in scene.removed)
        if not ids:
            raise ValueError(f"instances {list(labels.ids)} were removed meanwhile")
        marking = Marking(seed=labels, ids=ids, drawn_on=None if self.frame is replay.frame else self.frame)
        states = marking.begun(replay.tracker)
        self._check_distinct(states, replay.tracker.states, scene.config.prompts.same_iou)
        replay.mark(marking, states)

    def _check_distinct(
        self, states: Mapping[int, InstanceMemory], others: Mapping[int, InstanceMemory], limit: float
    ) -> None:
        """Refuse what is there already, where the seed asks for that.

        Args:
            states: By the seed.
            others: On the same frame.
            limit: IoU of two masks from which they are of one object.

        Raises:
            ValueError: One of the others is one of these.
        """
        if not self._seed.distinct:
            return
        for i, state in states.items():
            for other in others.values():
                iou = _iou(state, other)
                if other.instance_id != i and iou > limit:
                    raise ValueError(
                        f"instance {other.instance_id} is there already: IoU of the masks {iou:.2f}, over {limit:g} "
                        "(prompts.same_iou)"
                    )


def _own_image(bring: Callable[[], Frame] | None, size: tuple[int, int]) -> Frame | None:
    """The image that came with the request, or that a drop left."""
    if bring is None:
        return None
    own = bring()
    if own.size != size:
        raise ValueError(
            f"image of the seed must be {size[1]}x{size[0]} (width x height) like the stream, "
            f"got {own.size[1]}x{own.size[0]}"
        )
    return own


def _masks_on(frame: PreparedFrame, ids: Collection[int], tracker: Tracker) -> dict[int, BoolArray]:
    """Masks that some instances have on a frame, bool (H, W); of another than the tracker's newest none is known."""
    if tracker.newest is None or frame.stamp_ns != tracker.newest.stamp_ns:
        return {}
    found = {i: state.probability for i, state in tracker.states.items() if i in ids}
    large = {i: cv2.resize(one, frame.size[::-1]) >= 0.5 for i, one in found.items()}
    return {i: mask for i, mask in large.items() if mask.any()}


def _iou(one: InstanceMemory, other: InstanceMemory) -> float:
    first, second = one.probability >= 0.5, other.probability >= 0.5
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0
