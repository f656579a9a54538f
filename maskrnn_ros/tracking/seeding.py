# SPDX-License-Identifier: Apache-2.0
"""A seed on its way through a session: how it came, what became of it, and what it is compared with."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Mapping

import cv2
import numpy as np

from maskrnn_ros.tracking.catch_up import CatchUp
from maskrnn_ros.tracking.ids import Admission
from maskrnn_ros.tracking.prompted import PromptSeed
from maskrnn_ros.tracking.replay import Replay
from maskrnn_ros.tracking.saved import SavedSeed
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import BoolArray, Frame, InstanceStatus, Seed, Track


class SeedStatus(enum.IntEnum):
    """What became of a seed; the values are those of ``SeedResult.status``."""

    PENDING = 1
    APPLIED = 2
    REJECTED = 3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SeedRequest:
    """A seed that was admitted.

    Args:
        ticket: Given back with the outcome; the node puts here what its client knows the seed by.
        admission: The seed, its ids settled.
        arrived: Clock of the session at its arrival, seconds.
        frame: Gives the image that the seed was drawn on, where the client or a drop left one at hand; asked only
            where the stream has it not, or a prompt is to be cut on it. A ValueError rejects the seed.
    """

    ticket: object
    admission: Admission
    arrived: float
    frame: Callable[[], Frame] | None = None


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
class Seeding:
    """A request that has no final outcome yet.

    Args:
        request: The request.
        admission: Its admission; a new session gives it another one.
        deadline_s: When it is given up, where it waits.
        verdict: What it will be told unless the next image goes back in time (see ``Session``).
        catch_up: Where it catches up, alone or with all instances.
        record: What is saved of it, once it has started.
        cut: Pixels of it that lay in the ignore mask of its image, and were left out.
        twins: Further tickets with the very same seed, which share its outcome.
        is_over: It has its final outcome: there is never another.
    """

    request: SeedRequest
    admission: Admission
    deadline_s: float
    verdict: tuple[SeedStatus, str] | None = None
    catch_up: CatchUp | Replay | None = None
    record: SavedSeed | None = None
    cut: int = 0
    twins: list[SeedRequest] = dataclasses.field(default_factory=list)
    is_over: bool = False

    @property
    def seed(self) -> Seed | PromptSeed:
        return self.admission.seed

    @property
    def waits(self) -> bool:
        return self.catch_up is None

    def check_distinct(
        self, states: Mapping[int, InstanceState], others: Mapping[int, InstanceState], limit: float
    ) -> None:
        """Refuse what is there already, where the seed asks for that.

        Args:
            states: By the seed.
            others: On the same frame.
            limit: IoU of two masks from which they are of one object.

        Raises:
            ValueError: One of the others is one of these.
        """
        if not (isinstance(self.seed, PromptSeed) and self.seed.distinct):
            return
        for i, state in states.items():
            for other in others.values():
                iou = _iou(state, other)
                if other.instance_id != i and iou > limit:
                    raise ValueError(
                        f"instance {other.instance_id} is there already: IoU of the masks {iou:.2f}, over {limit:g} "
                        "(prompts.same_iou)"
                    )


def masks_on(frame: PreparedFrame, ids: Collection[int], tracker: Tracker) -> dict[int, BoolArray]:
    """Masks that some instances have on a frame, bool (H, W); of another than the tracker's newest none is known."""
    if tracker.newest is None or frame.stamp_ns != tracker.newest.stamp_ns:
        return {}
    found = {i: state.probability for i, state in tracker.states.items() if i in ids}
    large = {i: cv2.resize(one, frame.size[::-1]) >= 0.5 for i, one in found.items()}
    return {i: mask for i, mask in large.items() if mask.any()}


def removed_track(state: InstanceState) -> Track:
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


def _iou(one: InstanceState, other: InstanceState) -> float:
    first, second = one.probability >= 0.5, other.probability >= 0.5
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0
