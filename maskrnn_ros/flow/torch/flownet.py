# SPDX-License-Identifier: Apache-2.0
"""A small flow network after FlowNet (Dosovitskiy et al., ICCV 2015), trained here on synthetic motion.

As there: a contracting part, up-convolutions with skip connections, a flow at every scale. Small and trained in minutes
on a CPU, it does not learn to compare from nothing: the two images meet in a correlation, as in the paper's FlowNetC,
and once more, warped, at the finest scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.flow.estimator import check_images
from maskrnn_ros.flow.torch.on_device import OnDevice
from maskrnn_ros.model.files import FLOWNET
from maskrnn_ros.model.torch.compiled import Compiled
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.types import UInt8Array

STRIDES = (64, 32, 16, 8, 4)
"""Pixels of the image in a cell of each flow, from the coarsest to the finest."""

UNIT = 20.0
"""Pixels that a 1 inside the network stands for."""

_REACH, _FINE_REACH = 6, 3
"""Cells in each direction that are compared: 48 pixels, then 12 about the flow that is known so far."""

_WINDOW, _FINE_WINDOW = 5, 3
"""Side of the square, in cells, over which similarity is averaged: one cell alone looks like many others."""

_SHARP = 30.0
"""How decided the choice of the most similar cell is before training."""


class FlowNet(nn.Module):
    """The network: two images to a flow at each of ``STRIDES``."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_conv(3, 24, stride=2), _conv(24, 24))
        self.coarse = nn.Sequential(_conv(24, 48, stride=2), _conv(48, 48))
        self.fine_key, self.coarse_key = nn.Conv2d(24, 24, 1), nn.Conv2d(48, 48, 1)
        self.sharpness = nn.Parameter(torch.ones(2))
        self.joined = nn.Sequential(_conv((2 * _REACH + 1) ** 2 + 2 + 48, 80, size=1), _conv(80, 64))
        widths = (64, 96, 128, 128)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b, stride=2), _conv(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(_up(a, 48) for a in (128, 48, 48, 48))
        skips = (128, 96, 64)
        self.mix = nn.ModuleList(_conv(48 + skip + 2, 48) for skip in skips)
        fine = 48 + 24 + 2 + (2 * _FINE_REACH + 1) ** 2 + 2
        self.mix.append(nn.Sequential(_conv(fine, 48, size=1), _conv(48, 48), _conv(48, 32)))
        self.flows = nn.ModuleList(nn.Conv2d(width, 2, 3, padding=1) for width in (128, 48, 48, 48, 32))

    def forward(self, current: Tensor, previous: Tensor) -> list[Tensor]:
        """Backward flow of pairs, at each of ``STRIDES``.

        Args:
            current: Images, RGB, uint8 or float in 0..255, (B, 3, H, W), sides that are multiples of 64.
            previous: Likewise.

        Returns:
            float32, (B, 2, H / stride, W / stride) each, in pixels of the images.
        """
        both = functional.avg_pool2d(torch.cat([current, previous]).float() / 64 - 2, 2)
        fine = self.fine(both)
        coarse = self.coarse(fine)
        coarse_keys = self.coarse_key(coarse).chunk(2)
        costs, guess = _compare(coarse_keys[0], coarse_keys[1], _REACH, _WINDOW, self.sharpness[0])
        maps = [self.joined(torch.cat([costs, guess * 8 / UNIT, coarse.chunk(2)[0]], dim=1))]
        for down in self.down:
            maps.append(down(maps[-1]))
        known = maps.pop()
        flow = self.flows[0](known)
        found = [flow]
        keys, skip = self.fine_key(fine).chunk(2), fine.chunk(2)[0]
        for level, (up, mix, head) in enumerate(zip(self.up, self.mix, self.flows[1:], strict=True)):
            flow = functional.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
            if maps:
                parts = [up(known), maps.pop(), flow]
            else:
                # where it came from is looked up, not learnt: no gradient through the place
                moved = _warp(keys[1], flow.detach() * UNIT / STRIDES[level + 1])
                costs, guess = _compare(keys[0], moved, _FINE_REACH, _FINE_WINDOW, self.sharpness[1])
                parts = [up(known), skip, flow, costs, guess * 4 / UNIT]
            known = mix(torch.cat(parts, dim=1))
            flow = flow + head(known)
            found.append(flow)
        return [value * UNIT for value in found]


class FlowNetFlow:
    """Flow by the small network, on any device; a ``FlowEstimator``.

    Args:
        weights: File of the network's weights.
        device: Where it computes.

    Raises:
        RuntimeError: The file is missing or is none, or holds other names or shapes than the network.
    """

    def __init__(self, weights: Path | str = FLOWNET, device: torch.device | str = "cpu") -> None:
        net = FlowNet()
        load_into(net, weights)
        device = torch.device(device)
        self._images = OnDevice(device, _as_it_is)
        self._net = net.to(device).eval().requires_grad_(False)
        self._estimate = Compiled(self._net, self._estimated, is_traced=False)

    @torch.no_grad()
    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        (flow,) = self._estimate(*self._images.pair(current, previous))
        found: npt.NDArray[np.float32] = flow[0].cpu().numpy()
        return found

    def _estimated(self, current: Tensor, previous: Tensor) -> tuple[Tensor]:
        return (estimate(self._net, current, previous),)


def _as_it_is(image: Tensor) -> Tensor:
    return image


def estimate(net: FlowNet, current: Tensor, previous: Tensor) -> Tensor:
    """Flow at every pixel of images of any size.

    Args:
        net: The network.
        current: Images, RGB, uint8 (B, 3, H, W).
        previous: Likewise.

    Returns:
        float32 (B, 2, H, W), pixels.
    """
    height, width = current.shape[-2:]
    pad = (0, -width % STRIDES[0], 0, -height % STRIDES[0])
    # replicate: an edge towards black would be followed as if it were one of the scene
    both = [functional.pad(image.float(), pad, mode="replicate") for image in (current, previous)]
    flow = net(*both)[-1]
    flow = functional.interpolate(flow, scale_factor=float(STRIDES[-1]), mode="bilinear", align_corners=False)
    return flow[..., :height, :width].contiguous()


def _conv(ins: int, outs: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(ins, outs, size, stride, size // 2), nn.LeakyReLU(0.1, inplace=True))


def _up(ins: int, outs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(ins, outs, 4, 2, 1), nn.LeakyReLU(0.1, inplace=True))


def _compare(current: Tensor, previous: Tensor, reach: int, window: int, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """How similar each place is to those about it before, (B, K * K, h, w), and where it was, (B, 2, h, w), cells."""
    one, other = (functional.normalize(maps - maps.mean((2, 3), keepdim=True), dim=1) for maps in (current, previous))
    costs = functional.avg_pool2d(correlate(one, other, reach), window, 1, window // 2)
    steps = torch.arange(-reach, reach + 1, device=costs.device, dtype=costs.dtype)
    share = (_SHARP * sharpness * costs).softmax(dim=1)
    share = share.reshape(-1, len(steps), len(steps), *costs.shape[2:])  # (B, dy, dx, h, w)
    dx = torch.einsum("byxhw,x->bhw", share, steps)
    dy = torch.einsum("byxhw,y->bhw", share, steps)
    return costs, torch.stack([dx, dy], dim=1)


def correlate(one: Tensor, other: Tensor, reach: int) -> Tensor:
    """Products of each cell with those about it in the other map (FlowNetC's correlation layer).

        out[b, (dy + reach) K + dx + reach, v, u] = sum_c one[b, c, v, u] other[b, c, v + dy, u + dx],  K = 2 reach + 1

    0 outside.

    Args:
        one: float (B, C, h, w).
        other: Same shape.
        reach: Cells in each direction.

    Returns:
        (B, K * K, h, w).
    """
    batch, _, height, width = one.shape
    count, wide = 2 * reach + 1, width + 2 * reach
    rows = functional.pad(other, (reach,) * 4).unfold(2, height, 1)  # (B, C, dy, wide, h)
    products = one.permute(0, 2, 3, 1)[:, None] @ rows.permute(0, 2, 4, 1, 3)  # (B, dy, h, w, wide)
    # row u holds what it needs from column u on: with one more a row, read as rows of that length, it begins at 0
    band = functional.pad(products.flatten(3), (0, width))
    band = band.reshape(batch, count, height, width, wide + 1)[..., :count]
    return band.permute(0, 1, 4, 2, 3).reshape(batch, count * count, height, width)


def _warp(maps: Tensor, flow: Tensor) -> Tensor:
    """As ``flow.warp``, of a batch; at the border the nearest."""
    height, width = maps.shape[-2:]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
