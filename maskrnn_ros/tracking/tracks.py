# SPDX-License-Identifier: Apache-2.0
"""What is published of instances: a track of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.life import phases_after
from maskrnn_ros.tracking.shown import Shown
from maskrnn_ros.tracking.states import States
from maskrnn_ros.types import Track


def tracks_of(
    states: States, won: Sequence[Shown | None], hidden: npt.NDArray[np.int64], config: Config
) -> tuple[Track, ...]:
    """The tracks of all instances.

    Args:
        states: Of K instances on the image.
        won: What each won of it.
        hidden: For how many images others have won all of it, (K,).
        config: All settings.
    """
    unseen = np.maximum(states.frames_unseen, hidden)
    unseen = np.where([one is None for one in won], np.maximum(unseen, 1), unseen)
    visibility = np.minimum(1.0, states.area / np.maximum(states.usual_area, 1.0))
    columns = (
        states.ids,
        states.names,
        states.phases,
        phases_after(unseen, config),
        states.age.tolist(),
        unseen.tolist(),
        visibility.tolist(),
        states.velocities,
        won,
    )
    nothing = np.zeros((0, 0), np.bool_), np.zeros((0, 0), np.float32)
    tracks = [
        Track(
            instance_id=i,
            name=name,
            state=after if one is None else phase,
            age=age,
            frames_unseen=frames_unseen,
            score=0.0 if one is None else one.score,
            visibility=0.0 if one is None else visible,
            box=None if one is None else one.box,
            mask=nothing[0] if one is None else one.mask,
            probability=nothing[1] if one is None else one.probability,
            velocity=None if one is None else velocity,
        )
        for i, name, phase, after, age, frames_unseen, visible, velocity, one in zip(*columns, strict=True)
    ]
    return tuple(tracks)
