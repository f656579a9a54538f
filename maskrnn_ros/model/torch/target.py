# SPDX-License-Identifier: Apache-2.0
"""The target model of each object: what its cells have in common, in closed form, from the seed on.

Ridge regression from the columns of a frame to target channels needs two sums, columns times columns and columns times
targets. They are all that is kept (Bhat et al., ECCV 2020, keep samples and descend): a trusted frame is added to those
of the recent frames, which fade; the seed keeps its share for ever, so that nothing drifts away from it.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.shapes import COLUMNS, CROP, SEED_SHARE, STRIDE, STRIDES
from maskrnn_ros.model.torch.crops import crop
from maskrnn_ros.model.torch.matching import Keys, Matcher
from maskrnn_ros.model.torch.sight import crops_around
from maskrnn_ros.model.torch.step import Encoder


class Net(Protocol):
    """What the memory needs of a ``StepNet``, whatever runs its decoder."""

    @property
    def encoder(self) -> Encoder:
        """Says what the target channels are asked for."""
        ...

    @property
    def matcher(self) -> Matcher:
        """Describes cells."""
        ...

    @property
    def ridge(self) -> Tensor:
        """Log of the ridge over the mean square of the columns."""
        ...


_FAR = 0.25
"""Weight of what lies beyond the seed's crop; object and background of the crop share the rest."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Of K regressions.

    Args:
        square: float32, (K, COLUMNS + 1, COLUMNS + 1).
        target: float32, (K, COLUMNS + 1, TARGET).
    """

    square: Tensor
    target: Tensor

    def __getitem__(self, which: Tensor) -> Sums:
        return Sums(self.square[which], self.target[which])

    def blend(self, other: Sums, share: Tensor | float) -> Sums:
        """(1 - share) of these and share of the others; a share may be (K,)."""
        weight = share[:, None, None] if isinstance(share, Tensor) else share
        return Sums(
            self.square + weight * (other.square - self.square), self.target + weight * (other.target - self.target)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """What is known of K objects: from their seeds, and from recent frames.

    Args:
        seed: Of the target models.
        recent: Likewise.
        seed_keys: Cells that are matched.
        newest_keys: Those of the newest frame that could be trusted; of the seed until there is one.
    """

    seed: Sums
    recent: Sums
    seed_keys: Keys
    newest_keys: Keys

    def __getitem__(self, which: Tensor) -> Memory:
        return Memory(self.seed[which], self.recent[which], self.seed_keys[which], self.newest_keys[which])


def sums_of(net: Net, columns: Tensor, share: Tensor, others: Tensor, known: Tensor | None = None) -> Sums:
    """Sums of K crops; object and background count the same, and of the background the other objects half.

    Args:
        net: Its encoder says what the target channels are asked for.
        columns: float32, (K, COLUMNS, n, n).
        share: Of the object, float32, (K, 1, n, n), 0..1.
        others: Of the other objects, likewise.
        known: Weight of each cell, likewise; None: 1.
    """
    own, near = share.flatten(1), (others * (1 - share)).flatten(1)
    rest = (1 - share.flatten(1) - near).clamp(min=0)
    there = (near.amax(dim=1, keepdim=True) > 0.5).to(own.dtype)
    weight = torch.zeros_like(own)
    for part, half in ((own, 0.5), (rest, 0.5 - 0.25 * there), (near, 0.25 * there)):
        part = part if known is None else part * known.flatten(1)
        weight = weight + part * (half / part.sum(dim=1, keepdim=True).clamp(min=1))
    return _summed(columns.flatten(2), weight, net.encoder(share, others).flatten(2))


def seed_sums(
    net: Net, columns: Tensor, which: Tensor, boxes: Tensor, share: Tensor, others: Tensor, known: Tensor
) -> Sums:
    """From the frames that K objects were marked on.

    Args:
        net: See ``sums_of``.
        columns: float32, (N, COLUMNS, h4, w4): of the frames.
        which: int64, (K,): the frame of each object.
        boxes: float32, (K, 4): boxes of the masks, pixels.
        share: float32, (K, h4, w4), 0..1.
        others: Of the other objects, likewise.
        known: Weight of each cell, likewise.
    """
    crops = crops_around(boxes)
    inside = _inside(crops, share, others, known)
    around = crop(columns, _rois(which, crops), CROP, 1 / STRIDE)
    near = sums_of(net, around, inside[:, :1], inside[:, 1:2], inside[:, 2:])
    far = _outside(crops, (columns.shape[2], columns.shape[3])) * known * (1 - share)
    weight = far[:, ::2, ::2].flatten(1)
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    asked = net.encoder.beyond()[None, :, None].expand(crops.shape[0], -1, weight.shape[1])
    beyond = _summed(columns[which][:, :, ::2, ::2].flatten(2), weight, asked)
    return near.blend(beyond, _FAR)


def seed_keys(
    net: Net, stride8: Tensor, stride16: Tensor, which: Tensor, boxes: Tensor, share: Tensor, others: Tensor
) -> Keys:
    """Cells of the frames that K objects were marked on; features are (N, C, ., .), for the rest see ``seed_sums``."""
    crops = crops_around(boxes)
    rois = _rois(which, crops)
    code = net.matcher.describe(
        crop(stride8, rois, CROP // 2, 1 / STRIDES[1]), crop(stride16, rois, CROP // 4, 1 / STRIDES[2])
    )
    inside = functional.avg_pool2d(_inside(crops, share, others), 2)
    return net.matcher.keys(code, inside[:, :1], inside[:, 1:])


def _rois(which: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat([which[:, None].to(boxes.dtype), boxes], dim=1)


def _inside(crops: Tensor, *planes: Tensor) -> Tensor:
    """Planes (K, h4, w4) each of its own crop, (K, number of planes, CROP, CROP)."""
    own = torch.arange(crops.shape[0], device=crops.device)
    return crop(torch.stack(planes, dim=1), _rois(own, crops), CROP, 1 / STRIDE)


def remember(memory: Memory, sums: Sums, keys: Keys, rate: Tensor) -> Memory:
    """The same with a new frame in it; its weight among the recent ones is float32, (K,): 0 leaves it out."""
    newest = memory.newest_keys.replaced(keys, rate > 0)
    return Memory(memory.seed, memory.recent.blend(sums, rate), memory.seed_keys, newest)


def coefficients(net: Net, memory: Memory) -> Tensor:
    """Coefficients of K target models, float32, (K, COLUMNS + 1, TARGET)."""
    sums = memory.recent.blend(memory.seed, SEED_SHARE)
    size = sums.square.diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = (net.ridge.exp() * size + 1e-6)[:, None, None] * torch.eye(COLUMNS + 1, device=size.device)
    solved: Tensor = torch.linalg.solve(sums.square + ridge, sums.target)
    return solved


def _summed(columns: Tensor, weight: Tensor, asked: Tensor) -> Sums:
    """Columns (K, COLUMNS, m), weight (K, m), asked (K, TARGET, m)."""
    full = torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1)
    weighed = full * weight[:, None]
    return Sums(weighed @ full.transpose(1, 2), weighed @ asked.transpose(1, 2))


def _outside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """1 in the cells that lie outside boxes (K, 4) in pixels, (K, h4, w4)."""
    x = (torch.arange(size[1], device=boxes.device) + 0.5) * STRIDE
    y = ((torch.arange(size[0], device=boxes.device) + 0.5) * STRIDE)[:, None]
    corners = boxes[:, :, None, None]
    inside = (x >= corners[:, 0]) & (x < corners[:, 2]) & (y >= corners[:, 1]) & (y < corners[:, 3])
    return (~inside).float()
