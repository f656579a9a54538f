# SPDX-License-Identifier: Apache-2.0
"""The state of an instance from its seed on: what begins it, what an image changes, when it is occluded and lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.rest import Watched
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.states import Found, States
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


def carried(
    states: States,
    found: Found,
    velocity: npt.NDArray[np.float64],
    images: int,
    config: Config,
    watched: Watched | None = None,
) -> States:
    """The states some images later.

    Args:
        states: Until now.
        found: What there is of them now.
        velocity: See ``velocities_of``.
        images: How many images later it is; 0: it is another picture of the same.
        config: All settings.
        watched: What has changed around them; None: nobody may rest.
    """
    unseen = np.where(found.sees, 0, np.maximum(states.frames_unseen + images, 1))
    grown = _USUAL_AREA_RATE * (found.area - states.usual_area)
    return dataclasses.replace(
        states,
        patches=found.patches,
        phases=phases_after(unseen, config),
        age=states.age + images,
        frames_unseen=unseen,
        area=found.area,
        usual_area=states.usual_area + np.where(found.sees, grown, 0.0),
        velocity=velocity,
        seed_masks=(None,) * len(states),
        known=found.known,
        stills=(None,) * len(states) if watched is None else watched.after(states.stills, found.sees),
    )


def rested(states: States, watched: Watched, per_second: float | None, images: int, config: Config) -> States:
    """The same where all of them rest.

    Args:
        states: Until now.
        watched: What has changed around them.
        per_second: Images per second; None where the time is unknown.
        images: How many images later it is.
        config: All settings.
    """
    velocity = np.full((len(states), 2), np.nan if per_second is None else 0.0)
    everything = np.ones(len(states), np.bool_)
    found = Found(states.patches, states.known, states.area, everything)
    return carried(states, found, velocity, images, config, watched)


_PHASES = InstanceState.TRACKING, InstanceState.OCCLUDED, InstanceState.LOST


def phases_after(frames_unseen: npt.NDArray[np.int64], config: Config) -> tuple[InstanceState, ...]:
    """The state of each instance that was not seen for so many images, (K,)."""
    steps = (frames_unseen > 0).astype(int) + (frames_unseen > max(0, config.presence.lost_after_frames))
    return tuple([_PHASES[step] for step in steps.tolist()])


def velocities_of(patches: Patches, flow: Floats, per_second: float | None) -> npt.NDArray[np.float64]:
    """Mean motion under masks, float64 (K, 2), x and y in pixels of the input per second; NaN where unknown.

    Flow points back to where it came from, hence the sign.

    Args:
        patches: The masks.
        flow: Backward flow, float32 (2, h, w), pixels of the working image.
        per_second: What a pixel of flow is in pixels of the input per second; None where the time is unknown.
    """
    if per_second is None:
        return np.full((len(patches), 2), np.nan)
    moved = np.zeros((2, len(patches.values)), np.float32)
    for view, start, (x0, y0, x1, y1) in zip(
        patches.views, patches.starts.tolist(), patches.boxes.tolist(), strict=True
    ):
        place = moved[:, start : start + view.size].reshape(2, *view.shape)
        np.multiply(flow[:, y0:y1, x0:x1], view, out=place)
    total = patches.sums(patches.values).astype(np.float64)
    return patches.sums(moved).T * (-per_second / np.where(total > 0, total, np.nan))[:, None]
