# SPDX-License-Identifier: Apache-2.0
"""Columns and decoder by those operations that ONNX Runtime is fast at on a CPU: what their graphs are traced from.

The numbers are those of ``frame_step`` up to rounding, and of the same weights; ``maskrnn export`` compares the two.
Training and torch's engine have no use for this form. Of a step with 4 objects on one core with AVX-512:

    edge    the finest cells as 48 channels of a map of half the size    -7 %
    sums    of two convolutions inside the second one                    -2 %

Columns by products of matrices take 0.7 of the time.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import COLUMNS, STRIDE, STRIDES
from maskrnn_ros.model.torch.frame_step import Columns
from maskrnn_ros.model.torch.step import Decoder, StepNet

_DOUBLED = (
    ((0.75, 0.25, 0.0), (0.25, 0.75, 0.75), (0.0, 0.0, 0.25)),
    ((0.25, 0.0, 0.0), (0.75, 0.75, 0.25), (0.0, 0.25, 0.75)),
)
"""What a cell and its neighbours (rows) give to a fine cell and its neighbours, of the first and of the second half."""


class ProductColumns(Columns):
    """Maps are enlarged to what is wanted of them by products, lines of both strides in one."""

    def forward(self, stride4: Tensor, stride8: Tensor, stride16: Tensor) -> tuple[Tensor]:
        """See ``Columns``."""
        height, width = stride4.shape[2:]
        near = (self.narrow[0].get_parameter("weight").flatten(1) @ stride4.flatten(2)).reshape(-1, height, width)
        lines: list[Tensor] = []
        down: list[Tensor] = []
        for conv, map_, stride in zip(self.narrow[1:], (stride8, stride16), STRIDES[1:], strict=True):
            narrowed = conv(map_) if lines else conv(map_) + self.shift
            factor, (rows, columns) = stride // STRIDE, map_.shape[2:]
            across = _enlarging(width, columns, factor).T
            lines.append((narrowed.reshape(-1, columns) @ across).reshape(COLUMNS, -1, width))
            down.append(_enlarging(height, rows, factor))
        return (functional.relu(near + torch.cat(down, dim=1) @ torch.cat(lines, dim=1))[None],)


def _enlarging(count: int, size: int, factor: int) -> Tensor:
    """What each cell of an enlarged line has of the line's, bilinear, (count, size)."""
    places = ((torch.arange(count) + 0.5) / factor - 0.5).clamp(min=0).minimum(torch.as_tensor(size - 1.0))
    return functional.relu(1 - (places[:, None] - torch.arange(size)).abs())


def in_blocks(net: StepNet) -> StepNet:
    """A copy for graphs.

    Convolutions of planes side by side take whole blocks of 8, the last ones with weight 0: ONNX Runtime's fast
    convolutions are for whole blocks of a vector alone (NCHWc).
    """
    copied = copy.deepcopy(net).requires_grad_(False)
    decoder = copied.decoder
    for name in ("fine", "middle"):
        conv: nn.Conv2d = getattr(decoder, name)
        wide = nn.Conv2d(conv.in_channels + -conv.in_channels % 8, conv.out_channels, 3, padding=1)
        with torch.no_grad():
            wide.weight.zero_()[:, : conv.in_channels] = conv.weight
            wide.bias.copy_(conv.bias)  # type: ignore[union-attr,arg-type]
        setattr(decoder, name, wide.requires_grad_(False))
    decoder.__class__ = _Halved
    decoder.up2, decoder.near, decoder.pixels, decoder.last = _halved(decoder)
    return copied


class _Halved(Decoder):
    """A decoder that does what it does at the finest cells at half of them, four times the channels."""

    near: nn.Conv2d
    pixels: nn.Conv2d
    last: nn.Conv2d

    def at_the_edge(self, fine: Tensor, image: Tensor) -> Tensor:
        """See ``Decoder``."""
        edge = functional.relu(self.near(self.up2(fine)) + self.pixels(image))
        return functional.pixel_shuffle(self.last(edge), 4)


@torch.no_grad()
def _halved(decoder: Decoder) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    """Convolutions of ``_Halved``: ``up2`` filled up to 16 channels, ``near``, ``pixels``, ``last``.

    To double bilinearly and to convolve is to convolve with other weights for each of 2 x 2 fine cells. Those weights,
    those of the image, and those of 4 x 4 cells of the answer:
    """
    up2, edge, sharp = decoder.up2, decoder.edge, decoder.sharp
    entering, leaving = up2.out_channels, edge.out_channels
    wide = nn.Conv2d(up2.in_channels, entering + -entering % 16, 1)
    for new, old in zip(wide.parameters(), up2.parameters(), strict=True):
        new.zero_()[:entering] = old
    near = nn.Conv2d(wide.out_channels, 4 * leaving, 3, padding=1)
    pixels = nn.Conv2d(3, 4 * leaving, 4, stride=2, padding=1)
    last = nn.Conv2d(4 * leaving, 16, 4, stride=2, padding=1)
    for conv in (near, pixels, last):
        for part in conv.parameters():
            part.zero_()
    doubled = torch.tensor(_DOUBLED)
    weight = torch.einsum("amt,bns,oits->aboimn", doubled, doubled, edge.weight[:, :entering])
    near.weight[:, :entering] = weight.flatten(0, 2)
    near.bias.copy_(edge.bias.repeat(4))  # type: ignore[union-attr]
    for k in range(4):
        y, x = divmod(k, 2)
        pixels.weight[k * leaving : (k + 1) * leaving, :, y : y + 3, x : x + 3] = edge.weight[:, entering:] / 127.5
    for k in range(16):
        y, x = divmod(k, 4)
        for down in range(3):
            for right in range(3):
                (above, i), (left, j) = divmod(y + down + 1, 2), divmod(x + right + 1, 2)
                at = (2 * i + j) * leaving
                last.weight[k, at : at + leaving, above, left] = sharp.weight[0, :, down, right]
    last.bias.copy_(sharp.bias.repeat(16))  # type: ignore[union-attr]
    return tuple(conv.requires_grad_(False) for conv in (wide, near, pixels, last))  # type: ignore[return-value]


def fusable(graph: bytes, batch: str) -> bytes:
    """The decoder's graph so that ONNX Runtime makes sums of two convolutions inside the second one.

    It does so in its fast format only where the operation is called Sum, and where it knows that both have the same
    batch: what K planes (K, C, ., .) are computed from is lost on its way.
    """
    import onnx

    model = onnx.load_from_string(graph)
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Add" and all(name in made and made[name].op_type == "Conv" for name in node.input):
            node.op_type = "Sum"
    inferred: Any = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.value_info:
        axes = value.type.tensor_type.shape.dim
        if len(axes) == 4 and axes[1].dim_value and not axes[0].dim_value and axes[0].dim_param != batch:
            axes[0].dim_param = batch
            for axis in axes[1:]:
                if axis.dim_param.startswith("unk"):
                    axis.Clear()
            model.graph.value_info.add().CopyFrom(value)
    return bytes(model.SerializeToString())
