# SPDX-License-Identifier: Apache-2.0
"""What prior, matching and head say together of one instance on one frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import Config
from maskrnn_ros.model.backbone import cells_of
from maskrnn_ros.model.head import STRIDE as FINE
from maskrnn_ros.model.matching import STRIDE, Reference, match
from maskrnn_ros.model.network import LOG_ODDS, PLANES
from maskrnn_ros.tracking.crew import Crew
from maskrnn_ros.tracking.gate import box_of
from maskrnn_ros.tracking.patch import Patch, cells_in, enlarged
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.tracking.view import View
from maskrnn_ros.types import Box


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """What each part says of one instance on one frame; None where it is off or has nothing to say.

    Args:
        prior: Probability carried from the frame before, at the pixels.
        matching: Log-odds in the cells of stride 8.
        head: Log-odds in the cells of stride 4, as far as they were asked for.
    """

    prior: Patch | None
    matching: Patch | None
    head: Patch | None


def gather(
    state: InstanceState,
    view: View,
    prior: Patch | None,
    search: Box | None,
    region: Box | None,
    config: Config,
    crew: Crew | None = None,
) -> Evidence:
    """Ask all parts.

    Args:
        state: The instance on the frame before.
        view: The frame.
        prior: Its probability carried to the frame; None where it is lost: all is possible then.
        search: Where the matching looks, pixels; None looks everywhere.
        region: Where the head's answer will be needed, pixels; None is everywhere.
        config: All settings.
        crew: Who asks them.
    """
    is_shown = prior is None or matches_always(config)

    def ask_head() -> Patch | None:
        return _head(state, view, region) if state.head is not None else None

    def ask_matching() -> Patch | None:
        return _matching(state, view, search, config) if is_shown else None

    head, matching = (crew or Crew()).call(ask_head, ask_matching)
    return Evidence(prior=prior, matching=matching, head=head)


def _matching(state: InstanceState, view: View, search: Box | None, config: Config) -> Patch | None:
    if not config.matching.enabled or not state.seeds:
        return None
    frame = view.frame
    size = (frame.descriptors.shape[1], frame.descriptors.shape[2])
    window = cells_in(search, STRIDE, 0, size) if search is not None else None
    references = tuple(seed.reference for seed in state.seeds)
    if search is not None and not config.network.enabled:  # it was trained on the seeds alone
        references += state.recent
    matched = match(frame.descriptors, references, window, config.matching, frame.nearest)
    outside = float(log_odds(torch.zeros(1), config.prior.floor))
    return Patch(log_odds(matched, config.prior.floor), window or _whole(size), size, outside)


def _head(state: InstanceState, view: View, region: Box | None) -> Patch:
    assert state.head is not None
    size = (view.maps[0].shape[2], view.maps[0].shape[3])
    # from a cell of the network's crop on bilinear sampling reaches one further, and enlarging to the pixels does, too
    cells = cells_in(region, FINE, 2, size) if region is not None else _whole(size)
    return Patch(state.head.frozen.log_odds(view.maps, cells), cells, size)


def gather_lost(state: InstanceState, view: View, config: Config) -> tuple[Evidence, Box] | None:
    """Ask the parts where a lost instance could be back; None where it can be nowhere.

    The head is asked first. Beside it the matching can only be so sure, so that the other part needs to look only where
    both together may reach a half.

    Returns:
        What they say, and the pixels outside which there is nothing.
    """
    if state.head is None:
        return gather(state, view, None, None, None, config), _whole(view.size)
    head = _head(state, view, None)
    surest = float(log_odds(torch.ones(1), config.prior.floor)) * config.matching.weight
    possible = config.adaptation.weight * head.values + surest >= 0
    cells = box_of(possible, 1)
    # what is between cells is interpolated: a pixel can be no surer than the surest of the four about it
    reach = functional.max_pool2d(possible[None].float(), 3, 1, 1)
    if cells is None or float(reach.sum()) * FINE * FINE < _needed(state.usual_area, config):
        return None
    cells = cells.grown(1, head.size)
    height, width = view.size
    box = Box(cells.x0 * FINE, cells.y0 * FINE, min(width, cells.x1 * FINE), min(height, cells.y1 * FINE))
    search = box.grown(STRIDE, view.size)  # it is enlarged to the pixels, too
    limited = config.matching.radius < max(view.size) // STRIDE  # then it looks from everywhere to everywhere
    matching = _matching(state, view, None if limited else search, config)
    return Evidence(prior=None, matching=matching, head=head), box


def weigh(evidence: Evidence, box: Box, size: tuple[int, int], config: Config) -> Patch:
    """Probability of an instance from the log-odds of all parts, in the weights of the config.

        p = sigmoid(w_prior logit(prior) + w_matching logit(matching) + w_head head)

    Until there is a head the other two have weights of their own.

    Args:
        evidence: Of that box at least.
        box: Pixels.
        size: (h, w) of the working image.
        config: All settings.

    Returns:
        In that box, not gated.
    """
    if evidence.head is None:
        weights = (config.prior.weight_without_head, config.matching.weight_without_head, 0.0)
    else:
        weights = (config.prior.weight, config.matching.weight, config.adaptation.weight)
    return Patch(add_up(evidence, box, weights, config).sigmoid(), box, size)


def add_up(
    evidence: Evidence, box: Box, weights: Sequence[float], config: Config, device: torch.device | str = "cpu"
) -> Tensor:
    """Log-odds of all parts at the pixels of a box, weighted in the order of ``network.PLANES``.

    Returns:
        float32, (box.height, box.width).
    """
    parts = []
    if evidence.prior is not None:
        parts.append(weights[0] * log_odds(evidence.prior.within(box), config.prior.floor))
    if evidence.matching is not None:
        parts.append(weights[1] * enlarged(evidence.matching, STRIDE, box))
    if evidence.head is not None:
        parts.append(weights[2] * enlarged(evidence.head, FINE, box))
    total = parts[0] if parts else torch.zeros(box.height, box.width, device=device)
    for part in parts[1:]:
        total = total + part
    return total


def planes(evidence: Evidence, box: Box, config: Config, device: torch.device | str = "cpu") -> Tensor:
    """What the network is shown of it: ``network.PLANES`` in a box of cells of stride 4, float32 (3, rows, columns)."""
    out = torch.zeros(len(PLANES), box.height, box.width, device=device)
    if evidence.prior is not None:
        height, width = evidence.prior.size
        pixels = Box(box.x0 * FINE, box.y0 * FINE, min(width, box.x1 * FINE), min(height, box.y1 * FINE))
        out[0] = log_odds(cells_of(evidence.prior.within(pixels), FINE), config.prior.floor)
    if evidence.matching is not None:
        out[1] = enlarged(evidence.matching, STRIDE // FINE, box)
    if evidence.head is not None:
        out[2] = evidence.head.within(box)
    return out / LOG_ODDS


def find_again(probability: Patch, usual_area: float, config: Config) -> Patch:
    """Where an unseen instance is back: its largest connected piece, if that is large and sure enough, else nothing.

    Args:
        probability: From all parts but the prior.
        usual_area: Area while it was seen, pixels.
        config: ``presence`` says what is enough.

    Returns:
        The probability inside the box of that piece, 0 elsewhere.
    """
    mask = (probability.values >= 0.5).cpu().numpy().astype(np.uint8)
    if probability.box is None or not mask.any():
        return probability.gated(None)
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = (int(value) for value in statistics[largest])
    inside = torch.from_numpy(pieces == largest).to(probability.values.device)
    sure = float(probability.values[inside].mean()) >= config.presence.return_probability
    if area < _needed(usual_area, config) or not sure:
        return probability.gated(None)
    box = Box(left, top, left + width, top + height)
    return probability.gated(box.moved(probability.box.x0, probability.box.y0))


def _needed(usual_area: float, config: Config) -> float:
    """Pixels that an instance must have to be found again."""
    return max(config.presence.min_pixels, config.presence.return_share * usual_area)


def remember(state: InstanceState, frame: PreparedFrame, probability: Patch, config: Config) -> tuple[Reference, ...]:
    """The recent references after a frame on which the instance was seen."""
    if not config.matching.enabled or not config.matching.recent_frames or config.network.enabled:
        return ()
    ignored = None if frame.ignored is None else frame.ignored.cells(STRIDE)
    newest = Reference(frame.descriptors, cells_of(probability.full, STRIDE), ignored=ignored)
    return (*state.recent, newest)[-config.matching.recent_frames :]


def is_seen(probability: Patch, area: int, matching: Patch | None, state: InstanceState, config: Config) -> bool:
    """Whether what was found is enough to say that the instance is seen.

    What hides an object is nothing that its head has seen: a mask that sits on it is large, perhaps, but unsure, and
    looks rather like what was beside the object in the seeds. An object that looks different now is only one of these.

    Args:
        probability: Of the instance on the frame.
        area: Pixels of it that are at least 0.5.
        matching: Log-odds of the matching in the cells of stride 8; None where it is off.
        state: The instance on the frame before.
        config: ``presence`` says what is enough.
    """
    presence = config.presence
    enough = float(presence.min_pixels)
    if has_evidence(state, config):
        enough = max(enough, presence.min_share * state.usual_area)
    if area < enough or probability.box is None:
        return False
    mask = (probability.values >= 0.5).float()
    if state.head is None or float((probability.values * mask).sum()) >= presence.min_probability * area:
        return True
    if matching is None:
        return False
    cells = cells_in(probability.box, STRIDE, 0, matching.size)
    height, width = probability.size
    pixels = Box(cells.x0 * STRIDE, cells.y0 * STRIDE, min(width, cells.x1 * STRIDE), min(height, cells.y1 * STRIDE))
    share = cells_of(dataclasses.replace(probability, values=mask).within(pixels), STRIDE)
    return float((share * matching.within(cells)).sum()) >= 0.0


def has_evidence(state: InstanceState, config: Config) -> bool:
    """Whether there is more than a prior."""
    return state.head is not None or (config.matching.enabled and bool(state.seeds))


def matches_always(config: Config) -> bool:
    """Whether the matching looks at every frame, or only for lost instances: a network need not be shown it."""
    return config.network.matching or not config.network.enabled


def log_odds(probability: Tensor, floor: float) -> Tensor:
    """log(p / (1 - p)), p kept between floor and 1 - floor."""
    return torch.logit(probability, eps=floor)


def _whole(size: tuple[int, int]) -> Box:
    return Box(0, 0, size[1], size[0])
