# SPDX-License-Identifier: Apache-2.0
"""Crops around objects and what is done with boxes, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

from maskrnn_ros.model.shapes import CROP, LOG_ODDS


def scaled(images: Tensor) -> Tensor:
    """Images of 0..255 as the streams see them, float32 in -1..1."""
    return images.float().mul_(1 / 127.5).sub_(1)


def half(planes: Tensor) -> Tensor:
    """Planes (K, C, 2n, 2n) at half the size, means of 2x2 cells."""
    return functional.avg_pool2d(planes, 2)


def double(planes: Tensor) -> Tensor:
    """Planes (K, C, n, n) at twice the size, bilinear."""
    return functional.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)


def crop(maps: Tensor, rois: Tensor, cells: int, scale: float) -> Tensor:
    """RoIAlign (He et al., ICCV 2017), pixel areas aligned: (N, C, ., .) and K rois to (K, C, cells, cells)."""
    found: Tensor = roi_align(maps, rois, cells, scale, sampling_ratio=1 if cells >= CROP else 2, aligned=True)
    return found


def scale_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (K, 4) enlarged about their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def deltas_of(boxes: Tensor, priors: Tensor) -> Tensor:
    """Fast R-CNN's box regression targets (Girshick, ICCV 2015): (K, 4) of boxes against priors."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    old_centre, old_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    return torch.cat([(centre - old_centre) / old_size, (size / old_size).log()], dim=1)


def apply_deltas(priors: Tensor, deltas: Tensor) -> Tensor:
    """The inverse of ``deltas_of``; a side changes at most fourfold."""
    old_centre, old_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    centre = old_centre + deltas[:, :2] * old_size
    half = old_size * deltas[:, 2:].clamp(-1.4, 1.4).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def cell_centres(boxes: Tensor, cells: int) -> Tensor:
    """Centres of a crop's cells, (K, cells, cells, 2), (x, y) in pixels."""
    steps = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    x, y = ((boxes[:, k, None] + steps * (boxes[:, k + 2] - boxes[:, k])[:, None]) for k in (0, 1))
    return torch.stack([x[:, None, :].expand(-1, cells, -1), y[:, :, None].expand(-1, -1, cells)], dim=-1)


def sample_crop(maps: Tensor, boxes: Tensor, points: Tensor, padding: str = "zeros") -> Tensor:
    """Maps in crops (K, C, n, n) of boxes (K, 4), at points (K, a, b, 2) in pixels: (K, C, a, b), bilinear.

    Outside the crop: 0, or with ``border`` its nearest cell.
    """
    return functional.grid_sample(maps, _in_crops(points, boxes), "bilinear", padding, align_corners=False)


def _in_crops(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (K or 1, a, b, 2) in pixels as ``grid_sample`` wants them, -1..1 in boxes (K, 4): (K, a, b, 2).

    As one product of matrices: ONNX Runtime is slow where axes of 2 are stretched.
    """
    scale = 2 / (boxes[:, 2:] - boxes[:, :2])
    shift = -1 - boxes[:, :2] * scale
    ones = torch.ones_like(points[..., :1])
    axes = torch.eye(2, device=boxes.device, dtype=boxes.dtype)
    turn = torch.cat([axes * scale[:, None], shift[:, None]], dim=1)  # (K, 3, 2)
    flat = torch.cat([points, ones], dim=-1).flatten(1, 2)
    return (flat @ turn).reshape(-1, *points.shape[1:3], 2)


def paste(log_odds: Tensor, boxes: Tensor, size: tuple[int, int], outside: float = -LOG_ODDS) -> Tensor:
    """Log-odds of crops (K, n, n) in whole images, float32 (K, h, w); ``outside`` where a crop is not."""
    height, width = size
    steps_x = (torch.arange(width, device=boxes.device) + 0.5).expand(height, width)
    steps_y = (torch.arange(height, device=boxes.device) + 0.5)[:, None].expand(height, width)
    points = torch.stack([steps_x, steps_y], dim=-1).expand(boxes.shape[0], -1, -1, -1)
    found = sample_crop(log_odds[:, None], boxes, points, "border")[:, 0]
    x, y = points[..., 0], points[..., 1]
    corners = boxes[:, None, None]
    inside = (x >= corners[..., 0]) & (x < corners[..., 2]) & (y >= corners[..., 1]) & (y < corners[..., 3])
    return torch.where(inside, found, outside)


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
