# SPDX-License-Identifier: Apache-2.0
"""Without networks: masks go where the flow takes them, inside a gate; the least that a tracker does."""

from __future__ import annotations

from maskrnn_ros.config import Config
from maskrnn_ros.flow.warp import warp
from maskrnn_ros.tracking.cells import Floats
from maskrnn_ros.tracking.gate import box_of, enlarge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.states import Found
from maskrnn_ros.types import BoolArray


def propagated(patches: Patches, flow: Floats, unknown: BoolArray | None, config: Config) -> Found:
    """Instances on the next frame.

    Args:
        patches: Their probabilities on the frame before.
        flow: Backward flow between the two, float32 (2, h, w), pixels.
        unknown: Where no object may be, bool (h, w); None: it may be anywhere.
        config: ``prior.source``, ``gate`` and ``presence.min_pixels`` count.
    """
    moved = Patches.of([_one(patches[k], flow, unknown, config) for k in range(len(patches))])
    return Found(moved, None, moved.areas, moved.areas >= config.presence.min_pixels)


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
