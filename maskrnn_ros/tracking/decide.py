# SPDX-License-Identifier: Apache-2.0
"""What is decided of K objects on a frame: of each by its own crop, before any is told of the others.

What differs from one object to the next is a number in an array; nothing here depends on how many there are.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.model.engine import Engine, Looked
from maskrnn_ros.model.shapes import FINE
from maskrnn_ros.tracking.cells import Floats, cut, pasted, sigmoid
from maskrnn_ros.tracking.gate import clipped, predicted_boxes, scaled_boxes, whole
from maskrnn_ros.tracking.look_alikes import in_crops
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.recognition import Measured, are_seen, measured, strays, usually
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.tracking.states import States
from maskrnn_ros.tracking.target import Carried, Known
from maskrnn_ros.types import BoolArray

_OFF = np.float32(-8.0)
"""Log-odds of what is surely not the object."""


@dataclasses.dataclass(frozen=True, eq=False)
class Decided:
    """What is decided of K objects, before any is told of the others.

    Args:
        patches: Their probabilities at the pixels of the working image; nothing of one that is not seen.
        known: What is carried on, with the memories as they were.
        measured: What their masks are like.
        sees: Whether each is there, bool (K,).
        covered: Share of each cell of their crops that is ignored, float32 (K, FINE, FINE); None without a mask.
    """

    patches: Patches
    known: Known
    measured: Measured
    sees: BoolArray
    covered: Floats | None


def decide(
    states: States, looked: Looked, alike: Floats, frame: PreparedFrame, config: Config, engine: Engine
) -> Decided:
    """What of the crops is the objects, and whether they are there.

    Args:
        states: Of the objects on the frame before; the networks have begun them.
        looked: What the step says of them.
        alike: Where else something looks like them, on the frame, see ``look_alikes``.
        frame: The frame.
        config: All settings.
        engine: Holds the hidden states.
    """
    known, has_looked = states.begun, looked.looked > 0
    log_odds = looked.log_odds.copy()
    if config.gate.enabled and config.network.localization:
        np.copyto(log_odds, _OFF, where=~_gate(looked, config))
    covered = _covered(frame, looked.crops)
    if covered is not None:
        np.copyto(log_odds, _OFF, where=covered >= 0.5)
    np.copyto(log_odds, _OFF, where=in_crops(alike, looked.crops, frame.size_of_work, FINE))
    matched = looked.matched
    np.copyto(log_odds, _OFF, where=strays(log_odds >= 0, matched[:, 2], matched[:, 0], known.likeness))
    probability = sigmoid(log_odds)
    patches = _patches(log_odds, looked.crops, has_looked, frame)
    presence = 1 / (1 + np.exp(-looked.presence.astype(np.float64)))
    found = measured(log_odds, probability, patches, presence, matched)
    sees = has_looked & are_seen(found, known.likeness, states.frames_unseen == 0, states.usual_area, config)
    gone = np.flatnonzero(~sees)
    probability[gone] = 0
    # where nothing was looked at the crop stays: around the last one it would grow with every frame
    crops = np.where(has_looked[:, None], looked.crops, known.carried.crop)
    hidden = engine.without(looked.hidden, gone.tolist())
    likeness = np.where(sees, usually(known.likeness, found.likeness), known.likeness)
    after = dataclasses.replace(known, carried=Carried(probability, crops, hidden), likeness=likeness, alike=alike)
    return Decided(patches.only(sees), after, found, sees, covered)


def _patches(log_odds: Floats, crops: Floats, has_looked: BoolArray, frame: PreparedFrame) -> Patches:
    """Probabilities at the pixels of the working image."""
    boxes = clipped(crops, frame.size_of_work) * has_looked[:, None]
    patches = Patches.empty(boxes, frame.size_of_work)
    views = patches.views
    pasted(log_odds, crops, boxes, views)
    sigmoid(patches.values, out=patches.values)
    if frame.unknown is not None:
        for view, (x0, y0, x1, y1) in zip(views, boxes.tolist(), strict=True):
            view[frame.unknown[y0:y1, x0:x1]] = 0
    return patches


def _covered(frame: PreparedFrame, crops: Floats) -> Floats | None:
    """Share of each cell of crops (K, 4) in which nothing may be found or learned; None: nowhere."""
    if frame.unknown is None:
        return None
    return cut(frame.unknown.astype(np.float32)[None], whole(frame.size_of_work)[None], crops, FINE)


def _gate(looked: Looked, config: Config) -> BoolArray:
    """Inside the enlarged boxes that the localization net predicts (MaskRNN), (K, FINE, FINE)."""
    corners = scaled_boxes(predicted_boxes(looked.around, looked.deltas), config.gate.enlarge)
    if config.gate.spans_prior:
        grown = scaled_boxes(looked.around, config.gate.enlarge)
        corners = np.concatenate(
            [np.minimum(corners[:, :2], grown[:, :2]), np.maximum(corners[:, 2:], grown[:, 2:])], axis=1
        )
    steps = (np.arange(FINE, dtype=np.float32) + 0.5) / FINE
    low, high = looked.crops[:, :2, None], looked.crops[:, 2:, None]
    places = low + steps * (high - low)  # (K, 2, FINE)
    inside = (places >= corners[:, :2, None]) & (places < corners[:, 2:, None])
    both: BoolArray = inside[:, 1, :, None] & inside[:, 0, None]
    return both
