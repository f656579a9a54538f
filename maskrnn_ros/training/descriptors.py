# SPDX-License-Identifier: Apache-2.0
"""Descriptors of cells that the trunk learns to make alike for the same thing on two frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_DEVIATION_FLOOR = 1e-3


def describe_batch(fine: Tensor, coarse: Tensor) -> Tensor:
    """Descriptors of N frames: (N, C8, j, i) and (N, C16, ., .) to float32 (N, C8 + C16, j, i) of length 1."""
    enlarged = _pixels_of(coarse, 2, (fine.shape[-2], fine.shape[-1]))
    both = [_of_length(_standardised(map_), math.sqrt(0.5)) for map_ in (fine, enlarged)]
    return torch.cat(both, dim=1)  # of length 1


def _standardised(map_: Tensor) -> Tensor:
    centred = map_ - map_.mean(dim=(2, 3), keepdim=True)
    deviation = (centred * centred).mean(dim=(2, 3), keepdim=True).sqrt()
    return centred / (deviation + _DEVIATION_FLOOR)


def _of_length(map_: Tensor, length: float) -> Tensor:
    return map_ * (length / (map_ * map_).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt())


def _pixels_of(cells: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bilinear from cells (..., j, i) to the pixels (..., h, w) that they cover, the inverse of ``cells_of``."""
    fine = functional.interpolate(cells.reshape(1, -1, *cells.shape[-2:]), scale_factor=stride, mode="bilinear")
    return fine.reshape(*cells.shape[:-2], *fine.shape[-2:])[..., : size[0], : size[1]]
