# SPDX-License-Identifier: Apache-2.0
"""What training makes small, one function each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.training.groups import Groups

SURE = 15.0
"""Log-odds that cost nothing where they are right."""

_NEVER = -1e4
"""Log-odds of what is not there."""


def balanced_cross_entropy(log_odds: Tensor, truth: Tensor) -> Tensor:
    """Class-balanced cross entropy of MaskRNN (in its re-implementations; HED, Xie and Tu, ICCV 2015).

        (negatives / all) * loss over positives + (positives / all) * loss over negatives

    each crop by itself, so that a small object counts as much as a large one; scaled to the size of the plain loss.

    Args:
        log_odds: float32, (K, n, n).
        truth: float32, (K, n, n), share of each cell that is the object, 0..1.

    Returns:
        float32, (K,).
    """
    share = truth.mean(dim=(1, 2), keepdim=True).clamp(0.02, 0.98)
    weight = truth * (1 - share) + (1 - truth) * share
    weight = weight / weight.mean(dim=(1, 2), keepdim=True)
    loss = functional.binary_cross_entropy_with_logits(log_odds, truth, weight=weight, reduction="none")
    return loss.mean(dim=(1, 2))


def dice(log_odds: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice coefficient (V-Net, Milletari et al., 3DV 2016), arguments and result likewise; 0 where both are empty.

    The squares of the denominator are those of V-Net; one cell is added to both sides.
    """
    probability = log_odds.sigmoid()
    both = 2 * (probability * truth).sum(dim=(1, 2)) + 1
    return 1 - both / ((probability * probability).sum(dim=(1, 2)) + (truth * truth).sum(dim=(1, 2)) + 1)


def box(deltas: Tensor, targets: Tensor, present: Tensor) -> Tensor:
    """Smooth-L1 on the deltas (Fast R-CNN, Girshick, ICCV 2015), (K, 4) each; nothing where ``present`` (K,) is 0."""
    loss = functional.smooth_l1_loss(deltas, torch.where(present[:, None] > 0, targets, 0.0), reduction="none")
    return loss.sum(dim=1) * present


def presence(log_odds: Tensor, present: Tensor) -> Tensor:
    """Cross entropy of being visible, (K,) each."""
    return functional.binary_cross_entropy_with_logits(log_odds, present, reduction="none")


def edge_cross_entropy(log_odds: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Cross entropy in which cells near the object's edge count three times.

    Args:
        log_odds: float32, (K, n, n).
        truth: Likewise, share of each cell that is the object, 0..1.
        known: Likewise, weight of each cell.

    Returns:
        float32, (K,).
    """
    near = (functional.avg_pool2d(truth, 7, 1, 3) - truth).abs() > 0.05
    weight = (1 + 2 * near.float()) * known
    loss = functional.binary_cross_entropy_with_logits(log_odds, truth, weight=weight, reduction="none")
    return loss.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)


def merged_cross_entropy(log_odds: Tensor, shares: Tensor, unknown: Tensor, groups: Groups) -> Tensor:
    """Cross entropy of the merged masks of each frame, its objects against each other and a background.

        p_i = exp(l_i) / (1 + sum_j exp(l_j)),   the soft aggregation of STM (Oh et al., ICCV 2019) in log-odds

    Args:
        log_odds: float32, (K, a, b), of each object in its whole frame.
        shares: Truth, likewise, 0..1.
        unknown: Likewise: share of each cell that nobody knows; what other objects, not followed, are is background.
        groups: The frame of each object.

    Returns:
        Mean over the frames; cells count by whether they are near an object, so that empty frames are not all.
    """
    odds, truth = groups.padded(log_odds, _NEVER), groups.padded(shares)  # (B, M, a, b)
    known = (groups.padded(unknown)[:, 0] < 0.5).float()
    whole = torch.cat([torch.zeros_like(odds[:, :1]), odds], dim=1).logsumexp(dim=1)
    loss = whole - (truth * odds).sum(dim=1)
    near = functional.max_pool2d(truth.sum(dim=1), 9, 1, 4) > 0
    weight = known * (0.2 + near.float())
    of_frames: Tensor = (loss * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)
    return of_frames.mean()
