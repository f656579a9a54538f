# SPDX-License-Identifier: Apache-2.0
"""Reference matching: what in a frame looks like the object where it is known, and what like the rest.

Label propagation by feature similarity (Vondrick et al., ECCV 2018, and its successors): every cell of the frame
takes the mean label of the reference cells that are most similar to it. References are the frames of the seeds and
a few recent ones. Cells are those of stride 8.

Cost with the defaults, of one instance: while it is seen, only cells of its search window are compared, with cells of
the window's surroundings; n cells with m reference cells are n m 152 multiplications per reference. Where it is lost,
all cells are compared with the seeds only. Memory: one label map per reference (4 bytes a cell); the descriptors are
shared by all instances of a frame.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import MatchingConfig
from maskrnn_ros.model.backbone import Features, pixels_of
from maskrnn_ros.types import Box

STRIDE = 8
"""Pixels of the working image per cell."""

_DEVIATION_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A frame on which it is known, or believed, where the instance is.

    Args:
        descriptors: float16, (C, j, i): those of the frame, shared with whoever else uses them.
        share: float32, (j, i): share of each cell that the instance covers, 0..1.
    """

    descriptors: Tensor
    share: Tensor


def describe(features: Features) -> Tensor:
    """Descriptors whose dot product is a similarity.

    Stride 8 beside stride 16 brought to stride 8; each channel is centred and scaled over the frame (what all cells
    share says nothing), then each of the two is brought to length 1 and the whole, too.

    Returns:
        float16, (C, j, i), of length 1 over C.
    """
    return describe_batch(features.stride8[None].float(), features.stride16[None].float())[0].half()


def describe_batch(fine: Tensor, coarse: Tensor) -> Tensor:
    """The same of N frames: (N, C8, j, i) and (N, C16, ., .) to float32 (N, C8 + C16, j, i), with gradients."""
    enlarged = pixels_of(coarse, 2, (fine.shape[-2], fine.shape[-1]))
    both = torch.cat([functional.normalize(_standardised(map_), dim=1) for map_ in (fine, enlarged)], dim=1)
    return functional.normalize(both, dim=1)


def _standardised(map_: Tensor) -> Tensor:
    mean = map_.mean(dim=(2, 3), keepdim=True)
    deviation = map_.std(dim=(2, 3), keepdim=True, correction=0)
    return (map_ - mean) / (deviation + _DEVIATION_FLOOR)


def match(descriptors: Tensor, references: tuple[Reference, ...], window: Box | None, config: MatchingConfig) -> Tensor:
    """Probability that a cell belongs to the instance.

        p[q] = sum_k softmax_k(s(q, r_k) / temperature) share[r_k],   r_1 .. r_K the K cells most similar to q

    over all cells r of all references; with a window only over those at most ``radius`` rows and columns from q.

    Args:
        descriptors: Those of the frame, (C, j, i).
        references: At least one, of the same size.
        window: Cells to look at; None looks at all, and from each at all.
        config: Number of matches, radius, temperature.

    Returns:
        float32, (j, i); 0 outside the window.
    """
    size = (descriptors.shape[1], descriptors.shape[2])
    target = window or Box(0, 0, size[1], size[0])
    source = _grown(target, config.radius, size) if window else target
    queries = descriptors[(slice(None), *target.slices)].flatten(1).float()
    everywhere = window is None or config.radius >= max(size)
    far = None if everywhere else _far(target, source, config.radius, descriptors.device)
    similarities, shares = [], []
    for reference in references:
        keys = reference.descriptors[(slice(None), *source.slices)].flatten(1).float()
        similarity = queries.T @ keys
        similarities.append(similarity if far is None else similarity.masked_fill_(far, -1.0))
        shares.append(reference.share[source.slices].flatten())
    similarity, share = torch.cat(similarities, dim=1), torch.cat(shares)
    best, where = similarity.topk(min(config.top_k, similarity.shape[1]), dim=1)
    weights = (best / config.temperature).softmax(dim=1)
    out = torch.zeros(size, device=descriptors.device)
    out[target.slices] = (weights * share[where]).sum(dim=1).reshape(target.height, target.width)
    return out


def _grown(box: Box, margin: int, size: tuple[int, int]) -> Box:
    return Box(
        max(0, box.x0 - margin), max(0, box.y0 - margin), min(size[1], box.x1 + margin), min(size[0], box.y1 + margin)
    )


def _far(target: Box, source: Box, radius: int, device: torch.device) -> Tensor:
    """Which pairs of cells lie too far apart, bool (cells of target, cells of source)."""

    def apart(start: int, stop: int, other_start: int, other_stop: int) -> Tensor:
        one, other = torch.arange(start, stop, device=device), torch.arange(other_start, other_stop, device=device)
        return (one[:, None] - other[None]).abs() > radius

    rows = apart(target.y0, target.y1, source.y0, source.y1)
    columns = apart(target.x0, target.x1, source.x0, source.x1)
    far = rows[:, None, :, None] | columns[None, :, None, :]
    return far.reshape(target.height * target.width, source.height * source.width)
