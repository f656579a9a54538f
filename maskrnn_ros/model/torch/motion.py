# SPDX-License-Identifier: Apache-2.0
"""What the flow in a crop says: how well each cell moves with the object, how well with what is around it."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrnn_ros.model.torch.crops import half


def motion_planes(flow: Tensor, prior: Tensor) -> Tensor:
    """Flow as three planes, (K, 3, n, n): its length, and its distance from the object's and its surroundings' motion.

    Lengths are log(1 + pixels). Both motions are affine, fitted by weighted least squares to the flow under the warped
    mask and around it, twice, the second time without what did not fit.

    Args:
        flow: float32, (K, 2, n, n), pixels.
        prior: float32, (K, 1, 2n, 2n), 0..1.
    """
    share = half(prior)
    lengths = [torch.log1p(flow.square().sum(dim=1, keepdim=True).clamp(min=1e-6).sqrt())]
    for weight in (share, (1 - share).square()):
        off = _misfit(flow, weight)
        off = _misfit(flow, weight / (1 + off.square()))
        lengths.append(torch.log1p(off))
    return torch.cat(lengths, dim=1)


def _misfit(flow: Tensor, weight: Tensor) -> Tensor:
    """Distance of a flow from the affine motion that fits it best, (K, 1, n, n), pixels."""
    count = flow.shape[-1]
    steps = (torch.arange(count, device=flow.device, dtype=flow.dtype) + 0.5) * (2 / count) - 1
    ones = torch.ones(count, count, device=flow.device, dtype=flow.dtype)
    basis = torch.stack([ones, ones * steps, ones * steps[:, None]]).flatten(1)  # (3, n n)
    weighed = weight.flatten(1)[:, None] * basis  # (K, 3, n n)
    square = weighed @ basis.T  # (K, 3, 3)
    square = square + torch.eye(3, device=flow.device, dtype=flow.dtype) * 1e-2
    target = weighed @ flow.flatten(2).transpose(1, 2)  # (K, 3, 2)
    fitted = (_inverse3(square) @ target).transpose(1, 2) @ basis  # (K, 2, n n)
    off = (flow.flatten(2) - fitted).square().sum(dim=1).clamp(min=1e-6).sqrt()
    return off.reshape(-1, 1, count, count)


def _inverse3(matrix: Tensor) -> Tensor:
    """Of symmetric (K, 3, 3), by cofactors: graphs know no solve."""
    a, b, c = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2]
    d, e, f = matrix[:, 1, 1], matrix[:, 1, 2], matrix[:, 2, 2]
    rows = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    determinant = a * rows[0] + b * rows[1] + c * rows[2]
    cofactors = torch.stack([rows[k] for k in (0, 1, 2, 1, 3, 4, 2, 4, 5)], dim=1).reshape(-1, 3, 3)
    return cofactors / determinant[:, None, None]
