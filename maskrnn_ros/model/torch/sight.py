# SPDX-License-Identifier: Apache-2.0
"""What the decoder is shown of a frame: where objects are to be looked for, and the crops there."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.shapes import CONTEXT, CROP, FINE, SMALLEST, STRIDE, STRIDES
from maskrnn_ros.model.torch.crops import cell_centres, crop, sample_crop


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """What all objects of a frame share, N frames at a time.

    Args:
        image: float32, (N, 3, h, w), RGB in -1..1.
        columns: float32, (N, COLUMNS, h4, w4): what the target model is linear in, but for the 1.
        stride8: float32, (N, 40, h8, w8).
        stride16: float32, (N, 112, h16, w16).
        flow: float32, (N, 2, h4, w4): backward flow to the frame before, pixels.
    """

    image: Tensor
    columns: Tensor
    stride8: Tensor
    stride16: Tensor
    flow: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """What K objects take with them from a frame to the next.

    Args:
        probability: float32, (K, 1, FINE, FINE): in the crops, gated, before the merge.
        boxes: float32, (K, 4), x0 y0 x1 y1: the crops, pixels of the working image.
        hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2).
    """

    probability: Tensor
    boxes: Tensor
    hidden: Tensor

    def __getitem__(self, which: Tensor) -> Carried:
        return Carried(self.probability[which], self.boxes[which], self.hidden[which])


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """The crops of K objects on a frame, ready for the decoder.

    Args:
        image: float32, (K, 3, FINE, FINE).
        columns: float32, (K, COLUMNS, CROP, CROP).
        stride8: float32, (K, 40, CROP / 2, CROP / 2).
        stride16: float32, (K, 112, CROP / 4, CROP / 4).
        prior: float32, (K, 1, CROP, CROP): the warped mask, 0..1.
        others: Likewise: the most of the warped masks of all other objects.
        flow: float32, (K, 2, CROP / 2, CROP / 2), pixels.
        hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2), warped.
    """

    image: Tensor
    columns: Tensor
    stride8: Tensor
    stride16: Tensor
    prior: Tensor
    others: Tensor
    flow: Tensor
    hidden: Tensor


def place(probability: Tensor, boxes: Tensor, flow: Tensor, which: Tensor) -> Tensor:
    """The masks of the frame before, where they are now, (K, h4, w4), 0..1.

    Args:
        probability: Of the frame before, see ``Carried``.
        boxes: Its crops.
        flow: Backward flow, float32, (N, 2, h4, w4), pixels.
        which: int64, (K,), the frame of each object.
    """
    points = _points(flow)
    return sample_crop(probability, boxes, points if len(flow) == 1 else points[which])[:, 0]


def crops_around(priors: Tensor) -> Tensor:
    """Crops (K, 4) around boxes of warped masks (K, 4), pixels: squares, so that nothing is seen distorted."""
    centre = (priors[:, :2] + priors[:, 2:]) / 2
    side = ((priors[:, 2:] - priors[:, :2]).amax(dim=1, keepdim=True) * CONTEXT).clamp(min=SMALLEST)
    return torch.cat([centre - side / 2, centre + side / 2], dim=1)


def see(
    shared: Shared,
    which: Tensor,
    boxes: Tensor,
    carried: Carried,
    others: Tensor,
    recurs: Tensor | None = None,
    warps: Tensor | None = None,
) -> Seen:
    """Cut out what the decoder looks at.

    Args:
        shared: N frames.
        which: int64, (K,): the frame of each object.
        boxes: float32, (K, 4): crops, pixels.
        carried: Of the frame before.
        others: Most of the warped masks of the other objects, float32, (K, h4, w4).
        recurs: float32, (K,): 0 where the hidden state is off; None: 1.
        warps: float32, (): 0 where what is carried stays where it was; None: 1.
    """
    rois = torch.cat([which[:, None].to(boxes.dtype), boxes], dim=1)
    own = torch.cat([torch.arange(boxes.shape[0], device=boxes.device)[:, None].to(boxes.dtype), boxes], dim=1)
    flow = crop(shared.flow, rois, CROP, 1 / STRIDE)
    half = functional.avg_pool2d(flow, 2)
    fine, coarse = (part if warps is None else part * warps for part in (flow, half))
    points = cell_centres(boxes, CROP) + fine.permute(0, 2, 3, 1)
    coarse = cell_centres(boxes, CROP // 2) + coarse.permute(0, 2, 3, 1)
    hidden = sample_crop(carried.hidden, carried.boxes, coarse)
    return Seen(
        image=crop(shared.image, rois, FINE, 1.0),
        columns=crop(shared.columns, rois, CROP, 1 / STRIDE),
        stride8=crop(shared.stride8, rois, CROP // 2, 1 / STRIDES[1]),
        stride16=crop(shared.stride16, rois, CROP // 4, 1 / STRIDES[2]),
        prior=sample_crop(functional.avg_pool2d(carried.probability, 2), carried.boxes, points),
        others=crop(others[:, None], own, CROP, 1 / STRIDE),
        flow=half,
        hidden=hidden if recurs is None else hidden * recurs[:, None, None, None],
    )


def _points(flow: Tensor) -> Tensor:
    """Where each cell was, (N, h4, w4, 2), (x, y) in pixels of the frame before."""
    height, width = flow.shape[-2:]
    x = (torch.arange(width, device=flow.device, dtype=flow.dtype) + 0.5) * STRIDE + flow[:, 0]
    y = (torch.arange(height, device=flow.device, dtype=flow.dtype) + 0.5)[:, None] * STRIDE + flow[:, 1]
    return torch.stack([x, y], dim=-1)
