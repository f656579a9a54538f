# SPDX-License-Identifier: Apache-2.0
"""A step by those operations that ONNX Runtime is fast at on a CPU: what its graph is traced from.

The numbers are those of ``frame_step`` up to rounding, and of the same weights; ``maskrnn export`` compares the two.
Training and torch's engine have no use for this form. A node of a graph costs 3 to 5 us however little it does, the
same for one object as for sixteen; a thousand of them, most about boxes, took as long as half an object. So the places
of all crops in all maps are one product here, and what is made of them is made once.

What objects have to do with each other is in ``PlaceGraph``, so that they can be looked at by any number of calls of
``LookGraph``, in threads of their own: one call with two threads leaves a third of the second core idle. An object's
numbers are the same to the bit whatever others are in its call (``test_engine``).

Crops are products of matrices; those of the image and of the columns, which are many and fine, are given (``crops``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import CROP, STRIDE, STRIDES
from maskrnn_ros.model.torch.crops import half
from maskrnn_ros.model.torch.for_graphs import in_blocks
from maskrnn_ros.model.torch.frame_step import answers_of, places_of
from maskrnn_ros.model.torch.sight import Seen
from maskrnn_ros.model.torch.step import StepNet

_COUNTS = (CROP, CROP, CROP, CROP, CROP // 2, CROP // 2)
"""Samples of a crop along x and y in maps of strides 4, 8 and 16; of the coarser ones two make a cell."""

_OUTSIDE = -2.0
"""Where a sample is put that lies beyond the map: no cell is near."""


class PlaceGraph(nn.Module):
    """``FrameStep.place`` for graphs."""

    def forward(
        self,
        flow: Tensor,
        ignored: Tensor,
        beside: Tensor,
        switches: Tensor,
        probability: Tensor,
        boxes: Tensor,
        sought: Tensor,
    ) -> tuple[Tensor, ...]:
        """See ``engine.PLACE_INPUTS``."""
        height, width = flow.shape[2:]
        x, y = ((torch.arange(size, dtype=flow.dtype) + 0.5) * STRIDE for size in (width, height))
        moved = flow * switches[0]
        scale, shift = _in_crops(boxes)
        points = torch.cat([moved[:, :1] + x, moved[:, 1:] + y[:, None]], dim=1) * scale[..., None] + shift[..., None]
        prior4 = functional.grid_sample(probability, points.permute(0, 2, 3, 1), align_corners=False)[:, 0]
        free = switches[1] * (ignored < 0.5).to(flow.dtype)
        return places_of(prior4 * free, beside * free, boxes, sought)


class LookGraph(nn.Module):
    """``FrameStep.look`` for graphs.

    Args:
        net: The network; it is copied.
    """

    places: Tensor

    def __init__(self, net: StepNet) -> None:
        super().__init__()
        self.net = in_blocks(net)
        self.register_buffer("places", _places())

    def forward(
        self,
        stride8: Tensor,
        stride16: Tensor,
        flow: Tensor,
        switches: Tensor,
        crops: Tensor,
        others: Tensor,
        image: Tensor,
        columns: Tensor,
        probability: Tensor,
        boxes: Tensor,
        hidden: Tensor,
        *known: Tensor,
    ) -> tuple[Tensor, ...]:
        """See ``engine.LOOK_INPUTS``."""
        raw = crops @ self.places - 0.5
        held = _held(raw, (flow, stride8, stride16))
        across, down = (_shares(held[k], flow.shape[3 - k]) for k in (0, 1))
        moved = _multiplied(flow, across, down)
        points = _points(moved * switches[0], raw, boxes)
        prior = functional.grid_sample(half(probability), points.permute(0, 2, 3, 1), align_corners=False)
        carried = functional.grid_sample(hidden, half(points).permute(0, 2, 3, 1), align_corners=False)
        seen = Seen(
            image=image.permute(0, 3, 1, 2).to(flow.dtype) - 127.5,
            columns=columns.permute(0, 3, 1, 2),
            stride8=_multiplied(stride8, *(_means(held[2 + k], stride8.shape[3 - k]) for k in (0, 1))),
            stride16=_multiplied(stride16, *(_means(held[4 + k], stride16.shape[3 - k]) for k in (0, 1))),
            prior=prior * switches[1],
            others=_multiplied(others[:, None], across, down),
            flow=half(moved) * switches[2],
            hidden=carried * switches[3],
        )
        return answers_of(self.net, seen, *known)


def _places() -> Tensor:
    """What crops (x0, y0, x1, y1) times it are, less half a cell: samples in cells of the maps, (4, sum of _COUNTS)."""
    found = torch.zeros(4, sum(_COUNTS))
    start = 0
    for number, count in enumerate(_COUNTS):
        stride, axis = STRIDES[number // 2], number % 2
        steps = (torch.arange(count) + 0.5) / count
        if stride != STRIDE:  # the first halves of all cells, then the second ones
            steps = torch.cat([steps[::2], steps[1::2]])
        found[axis, start : start + count] = (1 - steps) / stride
        found[axis + 2, start : start + count] = steps / stride
        start += count
    return found


def _held(raw: Tensor, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Samples at which RoiAlign looks, (K, n) for each of _COUNTS: on the map's edge up to a cell beyond it."""
    sizes = torch.stack([torch.as_tensor(map_.shape[axis]) for map_ in maps for axis in (3, 2)])
    numbers = [number for number, count in enumerate(_COUNTS) for _ in range(count)]
    last = (sizes - 1).to(raw.dtype)[numbers]
    clipped = raw.clamp(min=0).minimum(last)
    return torch.split(torch.where((raw - clipped).abs() <= 1, clipped, _OUTSIDE), list(_COUNTS), dim=1)


def _shares(places: Tensor, size: int) -> Tensor:
    """What each sample of crops has of each cell of a line, (K, n, size)."""
    return functional.relu(1 - (places[..., None] - torch.arange(size, dtype=places.dtype)).abs())


def _means(places: Tensor, size: int) -> Tensor:
    """What each cell of crops has of each cell of a line, two samples each, (K, n / 2, size)."""
    shares, cells = _shares(places, size), int(places.shape[1]) // 2
    return (shares[:, :cells] + shares[:, cells:]) * 0.5


def _multiplied(maps: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Crops of maps (1 or K, C, h, w), (K, C, n, n)."""
    channels, cells = int(maps.shape[1]), int(across.shape[1])  # numbers, for the tracer
    turned = across.transpose(1, 2)
    if channels <= 2:
        return down[:, None] @ (maps @ turned[:, None])
    return down[:, None] @ (maps.flatten(1, 2) @ turned).reshape(-1, channels, maps.shape[2], cells)


def _in_crops(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels times the first and the second added are -1..1 in crops, (K, 2, 1) both."""
    scale = 2 / (boxes[:, 2:] - boxes[:, :2])
    return scale[..., None], (-1 - boxes[:, :2] * scale)[..., None]


def _points(flow: Tensor, raw: Tensor, boxes: Tensor) -> Tensor:
    """Where the cells of crops were in those of the frame before, -1..1, (K, 2, CROP, CROP)."""
    scale, shift = _in_crops(boxes)
    centres = raw[:, : 2 * CROP].reshape(-1, 2, CROP) * (STRIDE * scale) + (scale * (STRIDE / 2) + shift)
    moved = flow * scale[..., None]
    return torch.cat([moved[:, :1] + centres[:, :1, None], moved[:, 1:] + centres[:, 1:, :, None]], dim=1)
