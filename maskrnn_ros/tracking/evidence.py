# SPDX-License-Identifier: Apache-2.0
"""What prior, matching and head say together of one instance on one frame."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.config import Config
from maskrnn_ros.model.backbone import cells_of, pixels_of
from maskrnn_ros.model.head import head_log_odds
from maskrnn_ros.model.matching import STRIDE, Reference, match
from maskrnn_ros.tracking.gate import gate
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.types import Box


def combine(
    state: InstanceState, frame: PreparedFrame, prior: Tensor | None, box: Box | None, config: Config
) -> Tensor:
    """Probability of an instance from the log-odds of all parts, in their weights.

        p = sigmoid(w_prior logit(prior) + w_matching logit(matching) + w_head head)

    A part that is off, or not there yet, says nothing; until there is a head the other two have weights of their own.

    Args:
        state: The instance on the frame before.
        frame: The frame.
        prior: Its probability warped to the frame, float32 (h, w); None where it is lost: all is possible then.
        box: The enlarged box of the prior, pixels; None looks everywhere.
        config: All settings.

    Returns:
        float32, (h, w), not gated.
    """
    size = (frame.image.shape[1], frame.image.shape[2])
    total = torch.zeros(size, device=frame.image.device)
    if prior is not None:
        weight = config.prior.weight if state.head is not None else config.prior.weight_without_head
        total += weight * log_odds(prior, config.prior.floor)
    if config.matching.enabled and state.seeds:
        window = _cells(box) if box is not None else None
        references = tuple(Reference(seed.descriptors, cells_of(seed.share, STRIDE)) for seed in state.seeds)
        references += state.recent if box is not None else ()
        matched = match(frame.descriptors, references, window, config.matching)
        weight = config.matching.weight if state.head is not None else config.matching.weight_without_head
        total += weight * pixels_of(log_odds(matched, config.prior.floor), STRIDE, size)
    if state.head is not None:
        total += config.adaptation.weight * head_log_odds(state.head, frame.features, size)
    return total.sigmoid()


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
    if not config.matching.enabled or not config.matching.recent_frames:
        return ()
    newest = Reference(frame.descriptors, cells_of(probability, STRIDE))
    return (*state.recent, newest)[-config.matching.recent_frames :]


def is_seen(area: int, state: InstanceState, config: Config) -> bool:
    """Whether an area (pixels) is enough to say that the instance is seen."""
    enough = float(config.presence.min_pixels)
    if has_evidence(state, config):
        enough = max(enough, config.presence.min_share * state.usual_area)
    return area >= enough


def has_evidence(state: InstanceState, config: Config) -> bool:
    """Whether there is more than a prior."""
    return state.head is not None or (config.matching.enabled and bool(state.seeds))


def log_odds(probability: Tensor, floor: float) -> Tensor:
    """log(p / (1 - p)), p kept between floor and 1 - floor."""
    return torch.logit(probability, eps=floor)


def _cells(box: Box) -> Box:
    """The cells of the matching's stride that a box of pixels touches."""
    return Box(box.x0 // STRIDE, box.y0 // STRIDE, math.ceil(box.x1 / STRIDE), math.ceil(box.y1 / STRIDE))
