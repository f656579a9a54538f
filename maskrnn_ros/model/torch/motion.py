# SPDX-License-Identifier: Apache-2.0
"""What the flow in a crop says: how well each cell moves with the object, how well with what is around it."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrnn_ros.model.torch.crops import half

_PLUS = (4, 2, 1, 2, 0, 1, 1, 1, 0), (8, 7, 5, 7, 8, 2, 5, 2, 4)
_MINUS = (5, 1, 2, 1, 2, 0, 2, 0, 1), (7, 8, 4, 8, 6, 5, 4, 5, 3)
"""Numbers of the entries of a symmetric 3 x 3 matrix: two products of them, less two others, are its cofactors."""


def motion_planes(flow: Tensor, prior: Tensor) -> Tensor:
    """Flow as three planes, (K, 3, n, n): its length, and its distance from the object's and its surroundings' motion.

    Lengths are log(1 + pixels). Both motions are affine, fitted by weighted least squares to the flow under the warped
    mask and around it, twice, the second time without what did not fit.

    Args:
        flow: float32, (K, 2, n, n), pixels.
        prior: float32, (K, 1, 2n, 2n), 0..1.
    """
    share = half(prior)
    weights = torch.cat([share, (1 - share).square()], dim=1)  # both at once: a graph then has half the nodes
    squares = _misfit(flow, weights / (1 + _misfit(flow, weights)))
    squares = torch.cat([flow.square().sum(dim=1, keepdim=True).clamp(min=1e-6), squares], dim=1)
    return torch.log1p(squares.sqrt())


def _misfit(flow: Tensor, weights: Tensor) -> Tensor:
    """Squared distance of a flow from the affine motions that fit it best under R weights, (K, R, n, n)."""
    count, roles = int(flow.shape[-1]), int(weights.shape[1])  # numbers, for the tracer
    basis = _basis(count, flow)
    weighed = (weights.reshape(-1, roles, 1, count * count) * basis).reshape(-1, 3 * roles, count * count)
    lines = flow.reshape(-1, 2, count * count)
    square = (weighed @ basis.T).reshape(-1, 3, 3) + torch.eye(3, device=flow.device, dtype=flow.dtype) * 1e-2
    target = (weighed @ lines.transpose(1, 2)).reshape(-1, 3, 2)
    fitted = (_inverse3(square) @ target).transpose(1, 2) @ basis  # (K R, 2, n n)
    off = (lines[:, None] - fitted.reshape(-1, roles, 2, count * count)).square().sum(dim=2).clamp(min=1e-6)
    return off.reshape(-1, roles, count, count)


def _basis(count: int, like: Tensor) -> Tensor:
    """1, x and y of each cell, the crop being -1..1, (3, n n)."""
    steps = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) * (2 / count) - 1
    ones = torch.ones(count, count, device=like.device, dtype=like.dtype)
    return torch.stack([ones, ones * steps, ones * steps[:, None]]).flatten(1)


def _inverse3(matrix: Tensor) -> Tensor:
    """Of symmetric (N, 3, 3), by cofactors: graphs know no solve."""
    entries = matrix.reshape(-1, 9)
    plus, minus = ([entries[:, list(numbers)] for numbers in two] for two in (_PLUS, _MINUS))
    cofactors = plus[0] * plus[1] - minus[0] * minus[1]
    determinant = (entries[:, :3] * cofactors[:, :3]).sum(dim=-1, keepdim=True)
    return (cofactors / determinant).reshape(-1, 3, 3)
