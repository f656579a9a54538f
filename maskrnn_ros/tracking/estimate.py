# SPDX-License-Identifier: Apache-2.0
"""Where instances are on a frame, from all that is known of them: with the network or without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from maskrnn_ros.config import Config
from maskrnn_ros.model.network import CONTEXT, Hidden, scale_boxes
from maskrnn_ros.model.network import STRIDE as FINE
from maskrnn_ros.tracking.crew import Crew
from maskrnn_ros.tracking.evidence import Evidence, add_up, find_again, gather, gather_lost, has_evidence, planes, weigh
from maskrnn_ros.tracking.gate import box_of, clip, enlarge
from maskrnn_ros.tracking.patch import Patch, cells_in
from maskrnn_ros.tracking.state import InstanceState
from maskrnn_ros.tracking.view import Look, Sight, View
from maskrnn_ros.types import Box

_MARGIN = 16
"""Pixels by which the matching's window is larger than the gate; the training's windows are, too."""


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """An instance on a frame.

    Args:
        probability: At the pixels, gated.
        is_present: False where the network says that it is not there.
        hidden: What the network remembers of it.
        matching: Log-odds of the matching in the cells of stride 8; None where it is off.
    """

    probability: Patch
    is_present: bool = True
    hidden: Hidden | None = None
    matching: Patch | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Open:
    """An instance that the network is still to look at: what the other parts say, and the gate about the prior."""

    evidence: Evidence
    around: Box
    look: Look


def estimate(
    states: Mapping[int, InstanceState],
    view: View,
    config: Config,
    crew: Crew | None = None,
    together: bool | None = None,
) -> dict[int, Estimate]:
    """Look for instances on the next frame; what is found of one depends on no other.

    On a CPU each goes its whole way on one core. On a GPU the network looks at all of them at once.

    Args:
        states: The instances on the frame before.
        view: The frame, and the flow between the two.
        config: All settings.
        crew: Who does it.
        together: Whether the network looks at all of them at once; None: where the flow is on a GPU.
    """
    if together is None:
        together = view.flow.device.type != "cpu"
    if not together:
        crew = crew or Crew()
        alone = crew if len(states) == 1 else None  # the parts of one are shared out, where there is only one
        return crew.map_values(lambda state: _estimate_one(state, view, config, alone), states)
    found = {i: _begin(state, view, config) for i, state in states.items()}
    waiting = {i: one for i, one in found.items() if isinstance(one, _Open)}
    sights = dict(zip(waiting, view.look([one.look for one in waiting.values()]), strict=True))
    return {i: _end(one, sights[i], view, config) if isinstance(one, _Open) else one for i, one in found.items()}


def _estimate_one(state: InstanceState, view: View, config: Config, crew: Crew | None) -> Estimate:
    found = _begin(state, view, config, crew)
    return _end(found, view.look([found.look])[0], view, config) if isinstance(found, _Open) else found


def _begin(state: InstanceState, view: View, config: Config, crew: Crew | None = None) -> Estimate | _Open:
    if config.prior.source == "none":
        return _look_everywhere(state, view, config)
    prior = view.allowed(view.carried(state.patch) if config.prior.source == "warped" else state.patch)
    box = prior.box and box_of(prior.values)
    if prior.box is None or box is None:
        return _find_again(state, view, config) if has_evidence(state, config) else Estimate(prior.gated(None))
    box = box.moved(prior.box.x0, prior.box.y0)
    around = enlarge(box, config.gate.enlarge, view.size) if config.gate.enabled else _whole(view.size)
    if view.has_network:
        region = _region(box, around, view.size, config)
        evidence = gather(state, view, prior, _search(box, view.size, config), region, config, crew)
        return _open(view, evidence, box, state.hidden, around, config)
    if not has_evidence(state, config):
        return Estimate(prior.gated(around))
    evidence = gather(state, view, prior, around, None, config)
    return Estimate(view.allowed(weigh(evidence, around, view.size, config)), matching=evidence.matching)


def _look_everywhere(state: InstanceState, view: View, config: Config) -> Estimate | _Open:
    """As if the frame were alone (OSVOS); the network looks at where the other parts see the instance.

    Until they know anything of it, it stays where it was marked.
    """
    if not has_evidence(state, config):
        return Estimate(view.allowed(state.patch))
    evidence = gather(state, view, None, None, None, config)
    probability = view.allowed(weigh(evidence, _whole(view.size), view.size, config))
    box = box_of(probability.values)
    if not view.has_network or box is None:
        return Estimate(probability, matching=evidence.matching)
    return _open(view, evidence, box, state.hidden, _whole(view.size), config)


def _find_again(state: InstanceState, view: View, config: Config) -> Estimate | _Open:
    """The other parts propose where a lost instance is back; the network must agree. It remembers nothing of it."""
    asked = gather_lost(state, view, config)
    if asked is None:
        return Estimate(Patch.nothing(view.size, view.flow.device))
    evidence, possible = asked
    found = find_again(view.allowed(weigh(evidence, possible, view.size, config)), state.usual_area, config)
    box = found.box and box_of(found.values)
    if not view.has_network or found.box is None or box is None:
        return Estimate(found, matching=evidence.matching)
    box = box.moved(found.box.x0, found.box.y0)
    around = enlarge(box, config.gate.enlarge, view.size)
    return _open(view, evidence, box, None, around, config)


def _open(view: View, evidence: Evidence, box: Box, hidden: Hidden | None, around: Box, config: Config) -> _Open:
    if not config.network.matching:
        evidence = dataclasses.replace(evidence, matching=None)
    cells = cells_in(_context(box, view.size), FINE, 2, (view.maps[0].shape[2], view.maps[0].shape[3]))
    shown = planes(evidence, cells, config, view.flow.device)
    return _Open(evidence, around, view.ready(box, shown, cells, hidden))


def _end(one: _Open, sight: Sight, view: View, config: Config) -> Estimate:
    """What the network says beside the other parts, gated by its own box if it was asked for that, else by ``around``.

    The other parts are added up at the pixels, so that their edges do not pass through the cells of the crop.
    """
    within: Box | None = one.around
    if sight.corners is not None and config.gate.enabled:
        within = clip(scale_boxes(sight.corners, config.gate.enlarge)[0].tolist(), view.size)
        if config.gate.spans_prior:
            within = one.around if within is None else within.union(one.around)
    is_present = sight.presence is None or sight.presence >= config.presence.threshold
    probability = Patch(torch.zeros(0, 0, device=view.flow.device), None, view.size)
    if within is not None:
        log_odds = add_up(one.evidence, within, view.weights, config, view.flow.device) + sight.within(within)
        probability = view.allowed(Patch(log_odds.sigmoid(), within, view.size))
    return Estimate(probability, is_present, sight.hidden, one.evidence.matching)


def _region(box: Box, around: Box, size: tuple[int, int], config: Config) -> Box | None:
    """Where the head's answer is needed: in crop and gate. Where the network's own box may lie is not known yet."""
    return None if config.network.localization else around.union(_context(box, size))


def _context(box: Box, size: tuple[int, int]) -> Box:
    """What of the network's crop lies in the image."""
    crop = scale_boxes(torch.tensor([[box.x0, box.y0, box.x1, box.y1]], dtype=torch.float32), CONTEXT)
    found = clip(crop[0].tolist(), size)
    assert found is not None  # the box itself lies in the image
    return found


def _search(box: Box, size: tuple[int, int], config: Config) -> Box:
    """Where the matching looks for the network: as in its training, somewhat beyond the gate, be that on or off."""
    return enlarge(box, config.gate.enlarge, size).grown(_MARGIN, size)


def _whole(size: tuple[int, int]) -> Box:
    return Box(0, 0, size[1], size[0])
