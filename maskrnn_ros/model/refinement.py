# SPDX-License-Identifier: Apache-2.0
"""From the working size to the size of the input, along the edges of the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Brightness of an RGB image, uint8 (3, H, W), as float32 (H, W) in 0..1."""
    weights = torch.tensor(_LUMA, device=image.device) / 255.0
    return torch.einsum("chw,c->hw", image.float(), weights)


def refine(probability: Tensor, guide: Tensor, fine_guide: Tensor, radius: int, smoothness: float) -> Tensor:
    """Enlarge a probability so that its edges lie on edges of the image.

    Guided filter (He, Sun, Tang, ECCV 2010) in its fast form (He and Sun, arXiv 1505.00996): in every window the
    probability is a linear function of the brightness, found at the small size and applied at the full one,

        a = cov(guide, p) / (var(guide) + smoothness),  b = mean(p) - a mean(guide)
        out = enlarged(mean(a)) fine_guide + enlarged(mean(b))

    Args:
        probability: float32, (h, w), 0..1.
        guide: Brightness of the working image, float32, (h, w), 0..1.
        fine_guide: Brightness of the input, (H, W).
        radius: Half side of the window, pixels of (h, w).
        smoothness: Variance below which brightness says nothing.

    Returns:
        float32, (H, W), 0..1.
    """
    maps = torch.stack([guide, probability, guide * probability, guide * guide])
    mean_guide, mean_p, mean_both, mean_square = _mean(maps, radius)
    slope = (mean_both - mean_guide * mean_p) / (mean_square - mean_guide**2 + smoothness)
    line = _mean(torch.stack([slope, mean_p - slope * mean_guide]), radius)
    size = (fine_guide.shape[0], fine_guide.shape[1])
    fine = functional.interpolate(line[None], size=size, mode="bilinear", align_corners=False)[0]
    return (fine[0] * fine_guide + fine[1]).clamp_(0.0, 1.0)


def _mean(maps: Tensor, radius: int) -> Tensor:
    """Mean over the window, of the pixels inside the image, (N, h, w)."""
    side = 2 * radius + 1
    rows = functional.avg_pool2d(maps[None], (side, 1), stride=1, padding=(radius, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, side), stride=1, padding=(0, radius), count_include_pad=False)[0]
