# SPDX-License-Identifier: Apache-2.0
"""Reference matching: what in a frame looks like the object where it is known, and what like the rest.

Label propagation by feature similarity (Vondrick et al., ECCV 2018, and its successors): every cell of the frame
takes the mean label of the reference cells that are most similar to it. References are the frames of the seeds and
a few recent ones. Cells are those of stride 8.

Cost with the defaults, of one instance: while it is seen, only cells of its search window are compared, with the cells
of its seeds, far from it every second one; n cells with m of a seed are n m 152 multiplications. Where it is lost, only
cells are compared that its head may know. Memory: the cells of a seed that are compared, 156 bytes each; descriptors of
whole frames are shared by all instances of a frame.

Descriptors are integers of 7 bits. Their products and sums are exact in whatever order they are summed, in float32 as
in integers: all engines, devices and batches find the same similarities. The error of rounding, 0.003 of a similarity,
is far below the temperature.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import MatchingConfig
from maskrnn_ros.model.backbone import Features, pixels_of
from maskrnn_ros.model.similarity import Nearest, nearest
from maskrnn_ros.types import Box

STRIDE = 8
"""Pixels of the working image per cell."""

UNIT = 126
"""What a 1 is in the integers of a descriptor; components beyond a half are cut."""

_DEVIATION_FLOOR = 1e-3

_NEAR = 4
"""Cells about an instance that are all compared: what touches it is what it must be told from."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A frame on which it is known, or believed, where the instance is.

    Args:
        descriptors: int8, (C, j, i): those of the frame, shared with whoever else uses them.
        share: float32, (j, i): share of each cell that the instance covers, 0..1.
        every: Far from the instance only each so manieth cell is compared, in rows and in columns: there are more of
            the background than it takes to know it.
        ignored: float32, (j, i): share of each cell that is neither instance nor background (an ignore mask); cells
            of which it is more than half are not compared, unless the instance reaches into them. None: nothing.
    """

    descriptors: Tensor
    share: Tensor
    every: int = 1
    ignored: Tensor | None = None

    @functools.cached_property
    def unknown(self) -> Tensor | None:
        """The cells that are never compared, bool (j, i); None: none."""
        return None if self.ignored is None else (self.ignored > 0.5) & (self.share == 0)

    @functools.cached_property
    def keys(self) -> tuple[Tensor, Tensor]:
        """The cells that are compared: descriptors, int8 (C, m), and shares, float32 (m,)."""
        kept = torch.zeros_like(self.share, dtype=torch.bool)
        kept[:: self.every, :: self.every] = True
        near = functional.max_pool2d(self.share[None], 2 * _NEAR + 1, 1, _NEAR)[0] > 0
        which = kept | near
        if self.unknown is not None:
            which &= ~self.unknown
        which = which.flatten().nonzero()[:, 0]
        return self.descriptors.flatten(1)[:, which].contiguous(), self.share.flatten()[which]


def describe(features: Features) -> Tensor:
    """Descriptors whose dot product is a similarity.

    Stride 8 beside stride 16 brought to stride 8; each channel is centred and scaled over the frame (what all cells
    share says nothing), then each of the two is brought to length 1 and the whole, too.

    Returns:
        int8, (C, j, i), of length UNIT over C.
    """
    lengths = describe_batch(features.stride8[None].float(), features.stride16[None].float())[0]
    return whole_numbers(lengths)


def whole_numbers(descriptors: Tensor) -> Tensor:
    """Descriptors of length 1 as they are held: int8 of 7 bits, so that no sum of two products overflows 16 bits."""
    return (descriptors * UNIT).round_().clamp_(-UNIT // 2, UNIT // 2).to(torch.int8)


def describe_batch(fine: Tensor, coarse: Tensor) -> Tensor:
    """The same of N frames: (N, C8, j, i) and (N, C16, ., .) to float32 (N, C8 + C16, j, i), with gradients."""
    enlarged = pixels_of(coarse, 2, (fine.shape[-2], fine.shape[-1]))
    both = [_of_length(_standardised(map_), math.sqrt(0.5)) for map_ in (fine, enlarged)]
    return torch.cat(both, dim=1)  # of length 1


def _standardised(map_: Tensor) -> Tensor:
    centred = map_ - map_.mean(dim=(2, 3), keepdim=True)
    deviation = (centred * centred).mean(dim=(2, 3), keepdim=True).sqrt()
    return centred / (deviation + _DEVIATION_FLOOR)


def _of_length(map_: Tensor, length: float) -> Tensor:
    return map_ * (length / (map_ * map_).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt())


def match(
    descriptors: Tensor,
    references: tuple[Reference, ...],
    window: Box | None,
    config: MatchingConfig,
    nearest: Nearest = nearest,
) -> Tensor:
    """Probability that a cell belongs to the instance.

        p[q] = sum_k softmax_k(s(q, r_k) / temperature) share[r_k],   r_1 .. r_K the K cells most similar to q

    over all cells r of all references; with a window only over those at most ``radius`` rows and columns from q.

    Args:
        descriptors: Those of the frame, int8, (C, j, i).
        references: At least one, of the same size.
        window: Cells to look at; None looks at all, and from each at all.
        config: Number of matches, radius, temperature.
        nearest: Compares, where no radius limits what with.

    Returns:
        float32, of the window's height and width, or (j, i) without one.
    """
    size = (descriptors.shape[1], descriptors.shape[2])
    target = window or Box(0, 0, size[1], size[0])
    queries = descriptors[(slice(None), *target.slices)].flatten(1)
    if window is None or config.radius >= max(size):
        keys = torch.cat([reference.keys[0] for reference in references], dim=1)
        share = torch.cat([reference.keys[1] for reference in references])
        best, where = nearest(queries, keys, config.top_k)
    else:
        best, where, share = _nearest_within(queries, references, target, size, config)
    weights = (best * (1 / (UNIT * UNIT * config.temperature))).softmax(dim=1)
    return (weights * share[where]).sum(dim=1).reshape(target.height, target.width)


def _nearest_within(
    queries: Tensor, references: tuple[Reference, ...], target: Box, size: tuple[int, int], config: MatchingConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The best cells that are not too far, as ``Nearest``, and the shares of all that were compared."""
    source = target.grown(config.radius, size)
    far = _far(target, source, config.radius, queries.device)
    similarities, shares = [], []
    for reference in references:
        keys = reference.descriptors[(slice(None), *source.slices)].flatten(1).float()
        out = far if reference.unknown is None else far | reference.unknown[source.slices].flatten()
        similarities.append((queries.float().T @ keys).masked_fill_(out, -UNIT * UNIT))
        shares.append(reference.share[source.slices].flatten())
    similarity = torch.cat(similarities, dim=1)
    best, where = similarity.topk(min(config.top_k, similarity.shape[1]), dim=1)
    return best, where, torch.cat(shares)


def _far(target: Box, source: Box, radius: int, device: torch.device) -> Tensor:
    """Which pairs of cells lie too far apart, bool (cells of target, cells of source)."""

    def apart(start: int, stop: int, other_start: int, other_stop: int) -> Tensor:
        one, other = torch.arange(start, stop, device=device), torch.arange(other_start, other_stop, device=device)
        return (one[:, None] - other[None]).abs() > radius

    rows = apart(target.y0, target.y1, source.y0, source.y1)
    columns = apart(target.x0, target.x1, source.x0, source.x1)
    far = rows[:, None, :, None] | columns[None, :, None, :]
    return far.reshape(target.height * target.width, source.height * source.width)
