# SPDX-License-Identifier: Apache-2.0
"""Without networks: masks go where the flow takes them, inside a gate; the least that a tracker does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.flow.warp import warp
from maskrnn_ros.tracking.cells import Floats
from maskrnn_ros.tracking.gate import box_of, enlarge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory
from maskrnn_ros.types import BoolArray


def propagated(
    states: Mapping[int, InstanceMemory], flow: Floats, unknown: BoolArray | None, config: Config
) -> dict[int, Patch]:
    """Probabilities on the next frame, by id.

    Args:
        states: On the frame before.
        flow: Backward flow between the two, float32 (2, h, w), pixels.
        unknown: Where no object may be, bool (h, w); None: it may be anywhere.
        config: ``prior.source`` and ``gate`` count.
    """
    return {i: _one(state.patch, flow, unknown, config) for i, state in states.items()}


def _one(patch: Patch, flow: Floats, unknown: BoolArray | None, config: Config) -> Patch:
    """A mask where the flow takes it, gated by its own box."""
    if config.prior.source == "none":  # nothing else says where it is: it stays where it was marked
        return patch.without(unknown)
    moved = patch
    if config.prior.source == "warped" and patch.box is not None:
        moved = Patch.of(warp(patch.full, flow))
    moved = moved.without(unknown)
    box = None if moved.box is None else box_of(moved.values)
    if moved.box is None or box is None:
        return Patch.nothing(patch.size)
    box = box.moved(moved.box.x0, moved.box.y0)
    return moved.gated(enlarge(box, config.gate.enlarge, patch.size)) if config.gate.enabled else moved


def is_enough(patch: Patch, config: Config) -> bool:
    """Whether so much of it is there that it counts as seen."""
    return bool(np.count_nonzero(patch.values >= 0.5) >= config.presence.min_pixels)
