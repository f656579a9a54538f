# SPDX-License-Identifier: Apache-2.0
"""From one probability per instance to one label per pixel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def resize_probability(probability: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (h, w) to (H, W), pixel areas aligned."""
    if tuple(probability.shape) == size:
        return probability
    return functional.interpolate(probability[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def merge(probabilities: Mapping[int, Tensor], size: tuple[int, int], device: torch.device) -> Tensor:
    """Give every pixel to the likeliest instance, or to the background.

        labels[v, u] = argmax_i probabilities[i][v, u]  where that maximum >= 0.5, else 0

    MaskRNN, argmax over the objects; the threshold is our choice, the paper's value is not known. Of equal
    probabilities the smaller id wins, so the order of the mapping does not matter.

    Args:
        probabilities: float32 (H, W) by instance id.
        size: (H, W).
        device: Where the labels are made.

    Returns:
        int32 (H, W) of ids, 0 = background.
    """
    labels = torch.zeros(size, dtype=torch.int32, device=device)
    best = torch.zeros(size, device=device)
    for instance_id in sorted(probabilities):
        probability = probabilities[instance_id]
        wins = (probability >= 0.5) & (probability > best)
        labels.masked_fill_(wins, instance_id)
        best = torch.maximum(best, probability)
    return labels
