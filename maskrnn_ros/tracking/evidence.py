# SPDX-License-Identifier: Apache-2.0
"""What prior, matching and head say together of one instance on one frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.config import Config
from maskrnn_ros.model.backbone import cells_of, pixels_of
from maskrnn_ros.model.head import STRIDE as FINE
from maskrnn_ros.model.head import head_log_odds
from maskrnn_ros.model.matching import STRIDE, Reference, match
from maskrnn_ros.model.network import LOG_ODDS, PLANES
from maskrnn_ros.tracking.gate import gate
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.types import Box


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """What each part says of one instance on one frame; None where it is off or has nothing to say.

    Args:
        prior: Probability carried from the frame before, float32 (h, w).
        matching: Log-odds in the cells of stride 8, float32 (h8, w8).
        head: Log-odds in the cells of stride 4, float32 (h4, w4).
    """

    prior: Tensor | None
    matching: Tensor | None
    head: Tensor | None


def gather(
    state: InstanceState, frame: PreparedFrame, prior: Tensor | None, box: Box | None, config: Config
) -> Evidence:
    """Ask all parts.

    Args:
        state: The instance on the frame before.
        frame: The frame.
        prior: Its probability carried to the frame, float32 (h, w); None where it is lost: all is possible then.
        box: Where to look, pixels; None looks everywhere.
        config: All settings.
    """
    matching = None
    if config.matching.enabled and state.seeds and (box is None or matches_always(config)):
        window = _cells(box) if box is not None else None
        references = tuple(Reference(seed.descriptors, cells_of(seed.share, STRIDE)) for seed in state.seeds)
        if box is not None and not config.network.enabled:  # it was trained on the seeds alone
            references += state.recent
        matched = match(frame.descriptors, references, window, config.matching)
        matching = log_odds(matched, config.prior.floor)
    head = head_log_odds(state.head, frame.features) if state.head is not None else None
    return Evidence(prior=prior, matching=matching, head=head)


def weigh(evidence: Evidence, frame: PreparedFrame, config: Config) -> Tensor:
    """Probability of an instance from the log-odds of all parts, in the weights of the config.

        p = sigmoid(w_prior logit(prior) + w_matching logit(matching) + w_head head)

    Until there is a head the other two have weights of their own.

    Returns:
        float32, (h, w), not gated.
    """
    if evidence.head is None:
        weights = (config.prior.weight_without_head, config.matching.weight_without_head, 0.0)
    else:
        weights = (config.prior.weight, config.matching.weight, config.adaptation.weight)
    return add_up(evidence, frame, weights, config).sigmoid()


def add_up(evidence: Evidence, frame: PreparedFrame, weights: Sequence[float], config: Config) -> Tensor:
    """Log-odds of all parts at the pixels of the working image, weighted in the order of ``network.PLANES``.

    Returns:
        float32, (h, w).
    """
    size = (frame.image.shape[1], frame.image.shape[2])
    total = torch.zeros(size, device=frame.image.device)
    if evidence.prior is not None:
        total += weights[0] * log_odds(evidence.prior, config.prior.floor)
    if evidence.matching is not None:
        total += weights[1] * pixels_of(evidence.matching, STRIDE, size)
    if evidence.head is not None:
        total += weights[2] * pixels_of(evidence.head, FINE, size)
    return total


def planes(evidence: Evidence, frame: PreparedFrame, config: Config) -> Tensor:
    """What the network is shown of it: ``network.PLANES``, float32 (3, h4, w4)."""
    size = (-(-frame.image.shape[1] // FINE), -(-frame.image.shape[2] // FINE))
    out = torch.zeros(len(PLANES), *size, device=frame.image.device)
    if evidence.prior is not None:
        out[0] = log_odds(cells_of(evidence.prior, FINE), config.prior.floor)
    if evidence.matching is not None:
        out[1] = pixels_of(evidence.matching, STRIDE // FINE, size)
    if evidence.head is not None:
        out[2] = evidence.head
    return out / LOG_ODDS


def find_again(probability: Tensor, usual_area: float, config: Config) -> Tensor:
    """Where an unseen instance is back: its largest connected piece, if that is large and sure enough, else nothing.

    Args:
        probability: float32 (h, w), from all parts but the prior.
        usual_area: Area while it was seen, pixels.
        config: ``presence`` says what is enough.

    Returns:
        float32 (h, w): the probability inside the box of that piece, 0 elsewhere.
    """
    mask = (probability >= 0.5).cpu().numpy().astype(np.uint8)
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return torch.zeros_like(probability)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, area = (int(value) for value in statistics[largest])
    inside = torch.from_numpy(pieces == largest).to(probability.device)
    needed = max(config.presence.min_pixels, config.presence.return_share * usual_area)
    if area < needed or float(probability[inside].mean()) < config.presence.return_probability:
        return torch.zeros_like(probability)
    return gate(probability, Box(left, top, left + width, top + height))


def remember(state: InstanceState, frame: PreparedFrame, probability: Tensor, config: Config) -> tuple[Reference, ...]:
    """The recent references after a frame on which the instance was seen."""
    if not config.matching.enabled or not config.matching.recent_frames or config.network.enabled:
        return ()
    newest = Reference(frame.descriptors, cells_of(probability, STRIDE))
    return (*state.recent, newest)[-config.matching.recent_frames :]


def is_seen(probability: Tensor, area: int, matching: Tensor | None, state: InstanceState, config: Config) -> bool:
    """Whether what was found is enough to say that the instance is seen.

    What hides an object is nothing that its head has seen: a mask that sits on it is large, perhaps, but unsure, and
    looks rather like what was beside the object in the seeds. An object that looks different now is only one of these.

    Args:
        probability: float32 (h, w), of the instance on the frame.
        area: Pixels of it that are at least 0.5.
        matching: Log-odds of the matching, float32 (h8, w8); None where it is off.
        state: The instance on the frame before.
        config: ``presence`` says what is enough.
    """
    presence = config.presence
    enough = float(presence.min_pixels)
    if has_evidence(state, config):
        enough = max(enough, presence.min_share * state.usual_area)
    if area < enough:
        return False
    mask = probability >= 0.5
    if state.head is None or float(probability[mask].mean()) >= presence.min_probability:
        return True
    return matching is not None and float((cells_of(mask.float(), STRIDE) * matching).sum()) >= 0.0


def has_evidence(state: InstanceState, config: Config) -> bool:
    """Whether there is more than a prior."""
    return state.head is not None or (config.matching.enabled and bool(state.seeds))


def matches_always(config: Config) -> bool:
    """Whether the matching looks at every frame, or only for lost instances: a network need not be shown it."""
    return config.network.matching or not config.network.enabled


def log_odds(probability: Tensor, floor: float) -> Tensor:
    """log(p / (1 - p)), p kept between floor and 1 - floor."""
    return torch.logit(probability, eps=floor)


def _cells(box: Box) -> Box:
    """The cells of the matching's stride that a box of pixels touches."""
    return Box(box.x0 // STRIDE, box.y0 // STRIDE, math.ceil(box.x1 / STRIDE), math.ceil(box.y1 / STRIDE))
