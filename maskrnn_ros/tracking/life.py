# SPDX-License-Identifier: Apache-2.0
"""The state of an instance from its seed on: what begins it, what an image changes, when it is occluded and lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.target import Known
from maskrnn_ros.types import InstanceState, Seed

Floats = npt.NDArray[np.float32]

_USUAL_AREA_RATE = 0.05
"""Weight of a new frame in the usual area: about a second of memory at 24 frames per second."""


def begun(
    instance_id: int,
    seed: Seed,
    frame: PreparedFrame,
    share: Floats,
    known: Known | None,
    former: InstanceMemory | None,
) -> InstanceMemory:
    """The first state of an instance.

    Args:
        instance_id: Its id.
        seed: Marks it.
        frame: The frame that the seed was drawn on.
        share: Share of each working pixel that it covers, float32 (h, w).
        known: What the networks know of it; None without networks.
        former: Its state until now, where it is corrected; None: it is new.
    """
    area = int(np.count_nonzero(share >= 0.5))
    return InstanceMemory(
        instance_id=instance_id,
        name=seed.names.get(instance_id, former.name if former else ""),
        patch=Patch.of(share),
        state=InstanceState.SEEDED,
        seeded_ns=frame.stamp_ns,
        age=0,
        frames_unseen=0,
        area=area,
        usual_area=float(max(area, 1)),
        velocity=None,
        seed_mask=seed.labels == instance_id,
        known=known,
    )


def carried(state: InstanceMemory, patch: Patch, area: int, seen: bool, images: int, config: Config) -> InstanceMemory:
    """The state some images later, without velocity.

    Args:
        state: Until now.
        patch: Its probability now.
        area: Pixels with probability of at least 0.5 now.
        seen: Whether it is there.
        images: How many images later it is.
        config: All settings.
    """
    unseen = 0 if seen else state.frames_unseen + images
    return dataclasses.replace(
        state,
        patch=patch,
        state=state_after(unseen, config),
        age=state.age + images,
        frames_unseen=unseen,
        area=area,
        usual_area=state.usual_area + (_USUAL_AREA_RATE * (area - state.usual_area) if seen else 0.0),
        velocity=None,
        seed_mask=None,
    )


def state_after(frames_unseen: int, config: Config) -> InstanceState:
    """The state of an instance that was not seen for so many images."""
    if frames_unseen == 0:
        return InstanceState.TRACKING
    lost = frames_unseen > config.presence.lost_after_frames
    return InstanceState.LOST if lost else InstanceState.OCCLUDED


def velocity_of(patch: Patch, flow: Floats, per_second: float | None) -> tuple[float, float] | None:
    """Mean motion under a mask, (x, y), pixels of the input per second; None where unknown.

    Flow points back to where it came from, hence the sign.

    Args:
        patch: The mask.
        flow: Backward flow, float32 (2, h, w), pixels of the working image.
        per_second: What a pixel of flow is in pixels of the input per second; None where the time is unknown.
    """
    if per_second is None or patch.box is None:
        return None
    total = float(patch.values.sum())
    dx, dy = (float((plane[patch.box.slices] * patch.values).sum()) / total for plane in flow)
    return -dx * per_second, -dy * per_second
