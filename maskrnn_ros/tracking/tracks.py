# SPDX-License-Identifier: Apache-2.0
"""What is published of instances: a track of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.life import phases_after
from maskrnn_ros.tracking.merge import Likely
from maskrnn_ros.tracking.score import score
from maskrnn_ros.tracking.states import States
from maskrnn_ros.types import BoolArray, Box, LabelArray, Track


class Won(NamedTuple):
    """What an instance won of an image, at least one pixel.

    Args:
        box: Smallest box around it.
        mask: bool, (box.height, box.width).
        probability: float32, likewise, before the merge.
    """

    box: Box
    mask: BoolArray
    probability: npt.NDArray[np.float32]


def won_of(labels: LabelArray, instance_id: int, likely: Likely | None) -> Won | None:
    """What an instance has of a label map, int32 (H, W); None: nothing, or it is not likely anywhere."""
    if likely is None:
        return None
    won = labels[likely.box.slices] == instance_id
    box = Box.of_mask(won)
    if box is None:
        return None
    there = box.moved(likely.box.x0, likely.box.y0)
    return Won(there, won[box.slices].copy(), likely.probability[box.slices])


def tracks_of(
    states: States, won: Sequence[Won | None], hidden: npt.NDArray[np.int64], config: Config
) -> tuple[Track, ...]:
    """The tracks of all instances.

    Args:
        states: Of K instances on the image.
        won: What each won of it.
        hidden: For how many images others have won all of it, (K,).
        config: All settings.
    """
    unseen = np.maximum(states.frames_unseen, hidden)
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
            score=0.0 if one is None else score(one.probability, one.mask),
            visibility=0.0 if one is None else visible,
            box=None if one is None else one.box,
            mask=nothing[0] if one is None else one.mask,
            probability=nothing[1] if one is None else one.probability,
            velocity=None if one is None else velocity,
        )
        for i, name, phase, after, age, frames_unseen, visible, velocity, one in zip(*columns, strict=True)
    ]
    return tuple(tracks)
