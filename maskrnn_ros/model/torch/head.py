# SPDX-License-Identifier: Apache-2.0
"""The columns of a frame: features of all strides in one layer at stride 4, and what is linear in them.

The trunk learned with a regression on them (``training.trunk``); the target models of the decoder are linear in them.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import CHANNELS, STRIDE, STRIDES


class Head(nn.Module):
    """Hypercolumn head: the features of all strides, narrowed by 1x1, summed at stride 4, then one 3x3.

    A 1x1 convolution may change places with bilinear resizing, so each stride is narrowed where it is and only
    ``channels`` maps are enlarged: the same result as on the concatenated features, for a quarter of the work.

    Args:
        channels: Channels at stride 4.
        generator: Random numbers of the first weights.
    """

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(entering, channels, 1, bias=False) for entering in CHANNELS)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        for entering, narrow in zip(CHANNELS, self.narrow, strict=True):
            bound = sum(CHANNELS) ** -0.5
            nn.init.uniform_(narrow.weight, -bound, bound, generator=generator)  # type: ignore[arg-type]
            self.register_buffer(f"mean{entering}", torch.zeros(1, entering, 1, 1))
            self.register_buffer(f"deviation{entering}", torch.ones(1, entering, 1, 1))
        bound = (9 * channels) ** -0.5
        nn.init.uniform_(self.last.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def standardise(self, maps: list[Tensor]) -> None:
        """Take mean and deviation of each channel from features (N, C, j, i): the scale that it works at."""
        for entering, map_ in zip(CHANNELS, maps, strict=True):
            setattr(self, f"mean{entering}", map_.mean(dim=(0, 2, 3), keepdim=True))
            setattr(self, f"deviation{entering}", map_.std(dim=(0, 2, 3), keepdim=True, correction=0) + 1e-3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Log-odds of a batch.

        Args:
            maps: Features at strides 4, 8, 16, float32, (N, C, j, i).

        Returns:
            float32, (N, j, i) of stride 4.
        """
        out: Tensor = self.last(functional.relu(self.hidden(maps)))
        return out[:, 0]

    def hidden(self, maps: list[Tensor]) -> Tensor:
        """The sum of the narrowed features at stride 4, (N, channels, j, i), before the rectifier."""
        size = (maps[0].shape[2], maps[0].shape[3])
        hidden = self.bias[:, None, None]
        for entering, stride, narrow, map_ in zip(CHANNELS, STRIDES, self.narrow, maps, strict=True):
            scaled = (map_ - getattr(self, f"mean{entering}")) / getattr(self, f"deviation{entering}")
            narrowed = narrow(scaled)
            if stride != STRIDE:
                narrowed = functional.interpolate(narrowed, scale_factor=stride // STRIDE, mode="bilinear")
            hidden = hidden + narrowed[..., : size[0], : size[1]]
        return hidden


class HeadStart(nn.Module):
    """What all heads begin with, from stage 0 of the training: their first layer, and how their last one is fitted.

    Args:
        channels: Of the heads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = Head(channels, torch.Generator().manual_seed(0))
        self.ridge = nn.Parameter(torch.tensor(math.log(1e-3)))
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def columns(self, maps: list[Tensor]) -> Tensor:
        """What the last layer is linear in, (N, C + 1, cells): the rectified first layer, and 1."""
        hidden = functional.relu(self.head.hidden(maps)).flatten(2)
        return torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)

    def sums(self, columns: Tensor, shares: Tensor, others: Tensor | None = None, known: Tensor | None = None) -> Sums:
        """What the regression to -1 and 1 needs of N frames, instance and background with the same weight.

        Args:
            columns: float32, (N, F, cells).
            shares: float32, (N, cells), 0..1.
            others: Shares of other instances, likewise; where there are some, they count half of the background.
            known: Weight of each cell, likewise; None: 1.
        """
        half = torch.full_like(shares[:, :1], 0.5)
        parts = [(shares, half), (1 - shares, half)]
        if others is not None:
            near = others * (1 - shares)
            there = (near.amax(dim=1, keepdim=True) > 0).float()
            parts[1:] = [(1 - shares - near, half - 0.25 * there), (near, 0.25 * there)]
        if known is not None:
            parts = [(part * known, share) for part, share in parts]
        weight = torch.stack([part / part.sum(dim=1, keepdim=True).clamp(min=1) * share for part, share in parts]).sum(
            0
        )
        weighed = columns * weight[:, None]
        return Sums(weighed @ columns.mT, (weighed @ (2 * shares - 1)[..., None])[..., 0])

    def solve(self, sums: Sums) -> Tensor:
        """Ridge regression: weights of the columns, float32, (N, F)."""
        size = sums.square.diagonal(dim1=1, dim2=2).mean(dim=1)
        ridge = (self.ridge.exp() * size)[:, None, None] * torch.eye(sums.square.shape[-1], device=size.device)
        solved: Tensor = torch.linalg.solve(sums.square + ridge, sums.target[..., None])[..., 0]
        return solved

    @torch.no_grad()
    def fit(
        self, maps: list[Tensor], shares: Tensor, others: Tensor | None = None, known: Tensor | None = None
    ) -> Head:
        """A head of its own for an instance.

        Args:
            maps: Features of its views at strides 4, 8, 16, float32, (N, C, j, i).
            shares: float32, (N, j, i) of stride 4, 0..1.
            others: Likewise, of other instances; see ``sums``.
            known: Weight of each cell, likewise; None: 1.
        """
        near, seen = (None if part is None else part.flatten()[None] for part in (others, known))
        columns = self.columns(maps).transpose(0, 1).flatten(1)[None]  # the cells of all views in one regression
        solved = self.solve(self.sums(columns, shares.flatten()[None], near, seen))[0]
        head = copy.deepcopy(self.head)
        head.last.weight.zero_()
        head.last.weight[0, :, 1, 1] = self.scale * solved[:-1]
        head.last.bias.copy_(self.scale * solved[-1:] + self.shift)  # type: ignore[union-attr]
        return head


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Of a regression: weighted columns times columns, float32 (N, F, F), and times -1 and 1, float32 (N, F)."""

    square: Tensor
    target: Tensor
