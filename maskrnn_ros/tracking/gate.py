# SPDX-License-Identifier: Apache-2.0
"""Box gate: an instance is only where its enlarged box is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskrnn_ros.types import Box


def box_of(probability: Tensor, threshold: float = 0.5) -> Box | None:
    """Smallest box around the pixels of (h, w) that reach the threshold; None where there are none."""
    return Box.of_mask((probability >= threshold).cpu().numpy())


def enlarge(box: Box, factor: float, size: tuple[int, int]) -> Box:
    """Scale width and height about the centre, outwards to whole pixels, clipped to (H, W).

    MaskRNN enlarges the box of its localization net by 1.25.

    >>> enlarge(Box(10, 10, 18, 14), 1.25, (100, 100))
    Box(x0=9, y0=9, x1=19, y1=15)
    """
    margin_x, margin_y = (factor - 1) * box.width / 2, (factor - 1) * box.height / 2
    return Box(
        max(0, math.floor(box.x0 - margin_x)),
        max(0, math.floor(box.y0 - margin_y)),
        min(size[1], math.ceil(box.x1 + margin_x)),
        min(size[0], math.ceil(box.y1 + margin_y)),
    )


def gate(probability: Tensor, box: Box | None) -> Tensor:
    """The probability (h, w) inside the box, 0 outside; 0 everywhere where there is no box."""
    gated = torch.zeros_like(probability)
    if box is not None:
        gated[box.slices] = probability[box.slices]
    return gated
