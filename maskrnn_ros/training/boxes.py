# SPDX-License-Identifier: Apache-2.0
"""Boxes of many masks at once."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def boxes_of(masks: Tensor, otherwise: Tensor, stride: float = 1.0) -> Tensor:
    """Boxes of masks, half open.

    Args:
        masks: float32, (B, a, b): what is 0.5 or more is inside.
        otherwise: float32, (B, 4), pixels: the box where nothing is.
        stride: Of a cell, pixels.

    Returns:
        x0, y0, x1, y1, float32, (B, 4), pixels.
    """
    inside = masks >= 0.5  # at once for all: a loop would wait for a GPU at every object
    corners = [*_ends(inside.any(dim=1)), *_ends(inside.any(dim=2))]  # x0, x1, y0, y1
    found = torch.stack([corners[k] for k in (0, 2, 1, 3)], dim=1).float() * stride
    return torch.where(inside.flatten(1).any(dim=1)[:, None], found, otherwise)


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """First, and last and 1, of what is set in lines bool (B, n), int64 (B,) each."""
    return line.int().argmax(dim=1), line.shape[1] - line.flip(1).int().argmax(dim=1)
