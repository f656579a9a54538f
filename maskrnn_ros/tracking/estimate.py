# SPDX-License-Identifier: Apache-2.0
"""Where one instance is on a frame, from all that is known of it: with the network or without."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from maskrnn_ros.config import Config
from maskrnn_ros.flow import warp
from maskrnn_ros.model.network import Hidden, scale_boxes
from maskrnn_ros.tracking.evidence import Evidence, add_up, find_again, gather, has_evidence, planes, weigh
from maskrnn_ros.tracking.gate import box_of, clip, enlarge, gate
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.view import View
from maskrnn_ros.types import Box

_MARGIN = 16
"""Pixels by which the matching's window is larger than the gate; the training's windows are, too."""


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """An instance on a frame.

    Args:
        probability: float32, (h, w), gated.
        is_present: False where the network says that it is not there.
        hidden: What the network remembers of it.
        matching: Log-odds of the matching, float32 (h8, w8); None where it is off.
    """

    probability: Tensor
    is_present: bool = True
    hidden: Hidden | None = None
    matching: Tensor | None = None


def estimate(state: InstanceState, frame: PreparedFrame, flow: Tensor, view: View | None, config: Config) -> Estimate:
    """Look for an instance on the next frame.

    Args:
        state: The instance on the frame before.
        frame: The frame.
        flow: Backward flow between the two, float32, (2, h, w), pixels.
        view: The frame as the network sees it; None without a network.
        config: All settings.
    """
    if config.prior.source == "none":
        return _look_everywhere(state, frame, view, config)
    prior = warp(state.probability[None], flow)[0] if config.prior.source == "warped" else state.probability
    box = box_of(prior)
    if box is None:
        return _find_again(state, frame, view, config) if has_evidence(state, config) else Estimate(gate(prior, None))
    size = (prior.shape[0], prior.shape[1])
    around = enlarge(box, config.gate.enlarge, size) if config.gate.enabled else _whole(size)
    if view is not None:
        evidence = gather(state, frame, prior, _search(box, size, config), config)
        return _look(view, frame, evidence, box, state.hidden, around, config)
    if not has_evidence(state, config):
        return Estimate(gate(prior, around))
    evidence = gather(state, frame, prior, around, config)
    return Estimate(gate(weigh(evidence, frame, config), around), matching=evidence.matching)


def _look_everywhere(state: InstanceState, frame: PreparedFrame, view: View | None, config: Config) -> Estimate:
    """As if the frame were alone (OSVOS); the network looks at where the other parts see the instance.

    Until they know anything of it, it stays where it was marked.
    """
    if not has_evidence(state, config):
        return Estimate(state.probability)
    evidence = gather(state, frame, None, None, config)
    probability = weigh(evidence, frame, config)
    box = box_of(probability)
    if view is None or box is None:
        return Estimate(probability, matching=evidence.matching)
    size = (probability.shape[0], probability.shape[1])
    return _look(view, frame, evidence, box, state.hidden, _whole(size), config)


def _find_again(state: InstanceState, frame: PreparedFrame, view: View | None, config: Config) -> Estimate:
    """The other parts propose where a lost instance is back; the network must agree. It remembers nothing of it."""
    evidence = gather(state, frame, None, None, config)
    found = find_again(weigh(evidence, frame, config), state.usual_area, config)
    box = box_of(found)
    if view is None or box is None:
        return Estimate(found, matching=evidence.matching)
    around = enlarge(box, config.gate.enlarge, (found.shape[0], found.shape[1]))
    return _look(view, frame, evidence, box, None, around, config)


def _look(
    view: View, frame: PreparedFrame, evidence: Evidence, box: Box, hidden: Hidden | None, around: Box, config: Config
) -> Estimate:
    """What the network says beside the other parts, gated by its own box if it is asked for that, else by ``around``.

    The other parts are added up at the pixels, so that their edges do not pass through the cells of the crop.
    """
    if not config.network.matching:
        evidence = dataclasses.replace(evidence, matching=None)
    sight = view.look(box, planes(evidence, frame, config), hidden)
    probability = (add_up(evidence, frame, view.weights, config) + sight.added).sigmoid()
    if not config.network.localization:
        return Estimate(gate(probability, around), hidden=sight.hidden, matching=evidence.matching)
    within: Box | None = around
    if config.gate.enabled:
        size = (probability.shape[0], probability.shape[1])
        within = clip(scale_boxes(sight.corners, config.gate.enlarge)[0].tolist(), size)
        if config.gate.spans_prior:
            within = around if within is None else within.union(around)
    is_present = sight.presence >= config.presence.threshold
    return Estimate(gate(probability, within), is_present, sight.hidden, evidence.matching)


def _search(box: Box, size: tuple[int, int], config: Config) -> Box:
    """Where the matching looks for the network: as in its training, somewhat beyond the gate, be that on or off."""
    gate = enlarge(box, config.gate.enlarge, size)
    grown = clip((gate.x0 - _MARGIN, gate.y0 - _MARGIN, gate.x1 + _MARGIN, gate.y1 + _MARGIN), size)
    return grown or gate


def _whole(size: tuple[int, int]) -> Box:
    return Box(0, 0, size[1], size[0])
