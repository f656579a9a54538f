# SPDX-License-Identifier: Apache-2.0
"""Carry a map along a flow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def warp(previous: Tensor, flow: Tensor) -> Tensor:
    """Carry a map of the previous frame to where it is now (MaskRNN's phi).

        out[c, v, u] = previous[c, v + flow[1, v, u], u + flow[0, v, u]]

    sampled bilinearly at pixel centres. What came from outside the image is 0: an object that was never seen there is
    not assumed there.

    Args:
        previous: Map of frame t-1, float (C, H, W), e.g. the mask probability; any device.
        flow: Backward flow t -> t-1, float (2, H, W), (dx, dy) in pixels; same device.

    Returns:
        Map of frame t, same shape, dtype and device as ``previous``.

    Raises:
        ValueError: The two do not share H and W, or flow has not two channels.

    >>> step = torch.tensor([[[0.0, 0.0, 1.0]]])                    # an edge at column 2
    >>> warp(step, torch.stack([torch.ones(1, 3), torch.zeros(1, 3)]))  # came from one to the right
    tensor([[[0., 1., 0.]]])
    """
    channels, height, width = previous.shape
    if flow.shape != (2, height, width):
        raise ValueError(f"flow must be (2, {height}, {width}) like the map, got {tuple(flow.shape)}")
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[0]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[1]
    # grid_sample's own unit with align_corners=False: -1 and 1 are the outer edges of the image, so the centre of
    # column u lies at (2 u + 1) / W - 1.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    sampled = functional.grid_sample(
        previous[None],
        grid[None].to(previous.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled[0]
