# SPDX-License-Identifier: Apache-2.0
"""The trunk that all instances share: EfficientNet-Lite0 up to stride 16, once per frame.

EfficientNet (Tan and Le, ICML 2019) in its Lite form: ReLU6 instead of swish, no squeeze-and-excitation. Batch
normalisation is folded into the convolutions when weights are converted (``model.torch.weights``), so nothing here has
statistics that could move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import COLUMNS, STRIDES
from maskrnn_ros.model.torch.compiled import Compiled
from maskrnn_ros.model.torch.head import HeadStart

_MEAN, _STD = 127.0, 128.0
"""Pixels enter as (value - 127) / 128, as in the training of the weights."""

_STEM = 32
# (kernel, stride, expansion, channels out) of each block; those of stride 32 are left out.
_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
)
_TAPS = (2, 4, 10)
"""Blocks whose outputs are the features: the last ones of their strides."""


def cells_of(map_: Tensor, stride: int) -> Tensor:
    """Mean of a map (h, w) over the cells of a stride, (ceil(h / stride), ceil(w / stride)).

    Cells that reach over the border count the pixels that there are.
    """
    down, right = -map_.shape[0] % stride, -map_.shape[1] % stride
    padded = (
        functional.pad(map_[None, None], (0, right, 0, down), mode="replicate") if down or right else map_[None, None]
    )
    return functional.avg_pool2d(padded, stride)[0, 0]


class Block(nn.Module):
    """Inverted residual block: widen by 1x1, filter each channel, narrow by 1x1."""

    def __init__(self, entering: int, kernel: int, stride: int, expansion: int, leaving: int) -> None:
        super().__init__()
        wide = entering * expansion
        self.expand = nn.Conv2d(entering, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, leaving, 1)
        self.residual = stride == 1 and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, entering, h, w) to (N, leaving, ceil(h / stride), ceil(w / stride))."""
        wide = functional.relu6(self.expand(x), inplace=True) if self.expand is not None else x
        y: Tensor = self.project(functional.relu6(_convolve_same(self.depthwise, wide), inplace=True))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its last five blocks and its classifier: 692,688 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2)
        blocks, entering = [], _STEM
        for kernel, stride, expansion, leaving in _BLOCKS:
            blocks.append(Block(entering, kernel, stride, expansion, leaving))
            entering = leaving
        self.blocks = nn.ModuleList(blocks)
        # a GPU that trains has hundreds of frames in a batch here; the tracker's own call is ``FrameFeatures``
        self._compiled = Compiled(self, self.forward, is_captured=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of a batch.

        Args:
            images: RGB, uint8 or float in 0..255, (N, 3, h, w).

        Returns:
            Float, (N, CHANNELS[k], ceil(h / STRIDES[k]), ceil(w / STRIDES[k])) for k = 0, 1, 2.
        """
        height, width = images.shape[-2:]
        return [
            map_[..., : -(-height // stride), : -(-width // stride)]
            for map_, stride in zip(self.aligned(_whole_cells(images)), STRIDES, strict=True)
        ]

    def aligned(self, images: Tensor) -> list[Tensor]:
        """The same of images whose sides are multiples of 16."""
        x = (images.to(self.stem.weight.dtype) - _MEAN) / _STD
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on one CPU core and on an H100
        x = functional.relu6(_convolve_same(self.stem, x), inplace=True)
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _TAPS:
                features.append(x)
        return features

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """``forward``, compiled or traced where it is frozen."""
        return list(self._compiled(images))


class TrainedTrunk(nn.Module):
    """The trunk as it ships: EfficientNet-Lite0 and the layer that makes columns of its features, both trained.

    They were trained so that what is fitted on one frame is right on others (``training.trunk``).

    Args:
        channels: Of the columns.
    """

    def __init__(self, channels: int = COLUMNS) -> None:
        super().__init__()
        self.net = Lite0()
        self.start = HeadStart(channels)


def _whole_cells(images: Tensor) -> Tensor:
    """Repeat the last row and column until both sides are multiples of 16: then cells of all strides are aligned."""
    down, right = -images.shape[-2] % STRIDES[-1], -images.shape[-1] % STRIDES[-1]
    if not down and not right:
        return images
    return functional.pad(images.float(), (0, right, 0, down), mode="replicate")


def _convolve_same(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve with the zero padding that the weights were trained with, TensorFlow's "SAME".

    For even sizes and stride 2 it has one more zero at the bottom and at the right than at the top and at the left.
    """
    pads: list[int] = []
    for size, kernel, stride in zip(x.shape[:-3:-1], convolution.kernel_size, convolution.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    if pads[0] == pads[1] and pads[2] == pads[3]:
        padding = (pads[2], pads[0])
        return functional.conv2d(
            x, convolution.weight, convolution.bias, convolution.stride, padding, groups=convolution.groups
        )
    moved: Tensor = convolution(functional.pad(x, pads))
    return moved
