# SPDX-License-Identifier: Apache-2.0
"""Frames and states at another working size, so that instances go on when it changes between two frames.

Whatever is counted in pixels of the working image is carried over; what was learned (target models, hidden states)
stays as it is, for features hardly change with the size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np

from maskrnn_ros.tracking.cells import resized
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame


def rescaled_frame(frame: PreparedFrame, size: tuple[int, int]) -> PreparedFrame:
    """A frame of which only the working image is at hand, at another working size; features are computed anew."""
    shrinks = size[0] <= frame.image.shape[0]
    image = cv2.resize(frame.image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    ignored = None if frame.ignored is None else frame.ignored.at(size)
    small = np.asarray(image, np.uint8)
    return PreparedFrame(stamp_ns=frame.stamp_ns, size=frame.size, image=small, engine=frame.engine, ignored=ignored)


def rescaled_states(states: Mapping[int, InstanceState], size: tuple[int, int]) -> dict[int, InstanceState]:
    """States by id at another working size.

    Args:
        states: All of one working size.
        size: The new one, (h, w).
    """
    return {i: _state(state, size) for i, state in states.items()}


def _state(state: InstanceState, size: tuple[int, int]) -> InstanceState:
    old = state.patch.size
    across, down = size[1] / old[1], size[0] / old[0]
    patch = _patch(state.patch, size)
    known = state.known
    if known is not None:
        crop = known.carried.crop * np.array([across, down, across, down], np.float32)
        known = dataclasses.replace(known, carried=dataclasses.replace(known.carried, crop=crop))
    return dataclasses.replace(
        state, patch=patch, area=patch.area, usual_area=max(1.0, state.usual_area * across * down), known=known
    )


def _patch(patch: Patch, size: tuple[int, int]) -> Patch:
    if patch.box is None:
        return Patch.nothing(size)
    return Patch.of(resized(patch.full, size))
