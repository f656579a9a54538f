# SPDX-License-Identifier: Apache-2.0
"""What is decided of one object on a frame, by what the step found in its crop and before any is told of the others."""

from __future__ import annotations

import dataclasses

import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.model.engine import Engine, Looked
from maskrnn_ros.model.shapes import FINE
from maskrnn_ros.tracking.cells import Floats, cut, pasted, sigmoid
from maskrnn_ros.tracking.gate import clip, predicted_boxes, scaled_boxes, whole
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.recognition import Measured, is_seen, measured, strays, usually
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.target import Carried, Known
from maskrnn_ros.types import BoolArray

_OFF = -8.0
"""Log-odds of what is surely not the object."""


@dataclasses.dataclass(frozen=True, eq=False)
class Decided:
    """What is decided of one object, before any is told of the others.

    Args:
        patch: See ``Found``.
        carried: Mask and hidden state in its crop.
        measured: What its mask is like.
        sees: Whether it is there.
        likeness: See ``Known``.
        covered: Share of each cell of the crop that an ignore mask covers, float32 (FINE, FINE); None without one.
    """

    patch: Patch
    carried: Carried
    measured: Measured
    sees: bool
    likeness: float | None
    covered: Floats | None


def decide(
    state: InstanceMemory,
    looked: Looked,
    k: int,
    frame: PreparedFrame,
    unknown: Floats | None,
    config: Config,
    engine: Engine,
) -> Decided:
    """What of a crop is the object, and whether it is there.

    Args:
        state: Of the object on the frame before; the networks have begun it.
        looked: What the step says of all objects.
        k: Which of them it is.
        frame: The frame.
        unknown: 1 where nothing may be found, float32 (h, w); None: nowhere.
        config: All settings.
        engine: Holds the hidden states.
    """
    log_odds, crop, usual = looked.log_odds[k], looked.crops[k], known_of(state).likeness
    if config.gate.enabled and config.network.localization:
        log_odds = np.where(_gate(looked.deltas[k], looked.around[k], crop, config), log_odds, np.float32(_OFF))
    size = frame.size_of_work
    covered = None
    if unknown is not None:
        covered = cut(unknown, whole(size), crop, FINE)
        log_odds = np.where(covered >= 0.5, np.float32(_OFF), log_odds)
    matched = looked.matched[k]
    stray = strays((log_odds >= 0).astype(np.uint8), (matched[2], matched[0]), usual)
    log_odds = np.where(stray, np.float32(_OFF), log_odds) if stray.any() else log_odds
    probability = sigmoid(log_odds)
    box = clip(crop.tolist(), size) if looked.looked[k] else None
    patch = Patch.nothing(size) if box is None else Patch(sigmoid(pasted(log_odds, crop, box)), box, size)
    patch = patch.without(frame.unknown)
    presence = float(1 / (1 + np.exp(-np.float64(looked.presence[k]))))
    found = measured(log_odds, probability, patch, presence, matched)
    sees = box is not None and is_seen(found, usual, state, config)
    if not sees:
        # where nothing was looked at the crop stays: around the last one it would grow with every frame
        last = crop.copy() if looked.looked[k] else known_of(state).carried.crop
        return Decided(Patch.nothing(size), Carried.nowhere(last, engine), found, False, usual, covered)
    carried = Carried(probability, crop.copy(), engine.one(looked.hidden, k))
    return Decided(patch, carried, found, True, usually(usual, found.likeness), covered)


def known_of(state: InstanceMemory) -> Known:
    """What the networks carry of an object that they have begun."""
    assert state.known is not None
    return state.known


def _gate(deltas: Floats, around: Floats, crop: Floats, config: Config) -> BoolArray:
    """Inside the enlarged box that the localization net predicts (MaskRNN), (FINE, FINE)."""
    corners = scaled_boxes(predicted_boxes(around[None], deltas[None]), config.gate.enlarge)[0]
    if config.gate.spans_prior:
        grown = scaled_boxes(around[None], config.gate.enlarge)[0]
        corners = np.concatenate([np.minimum(corners[:2], grown[:2]), np.maximum(corners[2:], grown[2:])])
    steps = (np.arange(FINE, dtype=np.float32) + 0.5) / FINE
    x, y = (crop[k] + steps * (crop[k + 2] - crop[k]) for k in (0, 1))
    inside: BoolArray = ((y >= corners[1]) & (y < corners[3]))[:, None] & ((x >= corners[0]) & (x < corners[2]))
    return inside
