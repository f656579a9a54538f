# SPDX-License-Identifier: Apache-2.0
"""Through a few frames with the network: what the tracker does, for many objects at once and with gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.network import (
    CONTEXT,
    LOG_ODDS,
    STRIDE,
    FastNet,
    FrameCode,
    Output,
    apply_deltas,
    crop,
    deltas_of,
    paste,
    scale_boxes,
    warp_hidden,
)

FLOOR = 0.02
"""How near to 0 and 1 a prior may come, as in the tracker."""

_VISIBLE = 8.0
"""Pixels of an object that is there."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Window:
    """B objects through T frames, each in a clip of its own; all at one size.

    Args:
        images: RGB, uint8, (B, T, 3, h, w).
        maps: Features of strides 4, 8, 16, float16, (B, T, C, ., .).
        back: Flow t -> t-1, pixels, float32, (B, T, 2, h4, w4); that of the first frame says nothing.
        ahead: Length of the flow t -> t+1, pixels, float32, (B, T, h4, w4).
        truth: float32, (B, T, h, w), 0 or 1.
        first: Mask that is carried from the first frame, float32, (B, h4, w4), 0..1.
        matching: float32, (B, T, h4, w4), see ``network.PLANES``.
        head: Likewise.
        given: Masks in the place of the warped ones, likewise, 0..1: stage 1, whose frames have nothing before them.
    """

    images: Tensor
    maps: tuple[Tensor, Tensor, Tensor]
    back: Tensor
    ahead: Tensor
    truth: Tensor
    first: Tensor
    matching: Tensor
    head: Tensor
    given: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
    """Chances that a part is off in a whole window, so that presets are settings that the network has seen."""

    prior: float = 0.05
    matching: float = 0.25
    head: float = 0.25
    flow: float = 0.2
    ahead: float = 0.7
    hidden: float = 0.2
    teacher: float = 0.0
    jitter: float = 0.06


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """One frame of an unrolled window.

    Args:
        number: Of the frame in the window, from 1.
        output: Of the network.
        boxes: Crops, (B, 4), pixels.
        truth: In the crops, float32, (B, CROP, CROP).
        targets: Deltas of the true box, (B, 4).
        present: float32, (B,): 1 where the object is visible.
        probability: float32, (B, h4, w4): what is carried on.
    """

    number: int
    output: Output
    boxes: Tensor
    truth: Tensor
    targets: Tensor
    present: Tensor
    probability: Tensor


def unroll(net: FastNet, window: Window, dropout: Dropout | None, randoms: Sequence[torch.Generator]) -> Iterator[Look]:
    """Carry the first mask through the window, frame by frame.

    Args:
        net: The network.
        window: B objects, T frames.
        dropout: What is off at times, in training; None in validation: nothing, and the network's own presence and box
            decide as in the tracker.
        randoms: Random numbers of the dropout, of each object its own: then they do not depend on who else is there.
    """
    count, frames = window.images.shape[:2]
    device = window.images.device
    which = torch.arange(count, device=device)
    kept = _Kept(dropout, randoms, device)
    size4 = (window.back.shape[-2], window.back.shape[-1])
    probability, hidden = window.first, None
    last = boxes_of(window.first, _whole(size4, device).expand(count, 4))
    for number in range(1, frames):
        frame = _encode(net, window, number, kept)
        back = window.back[:, number]
        prior = warp(probability, back) if window.given is None else window.given[:, number]
        truth = window.truth[:, number]
        present = (truth.sum(dim=(1, 2)) >= _VISIBLE).float()
        true_boxes = boxes_of(truth, last, 1.0)
        candidates = _candidates(window, number, last) if dropout is None else true_boxes
        priors = boxes_of(prior, candidates)
        last = priors.detach()
        boxes = scale_boxes(kept.shaken(last), CONTEXT)
        planes = torch.stack(
            [
                kept.prior * torch.logit(prior, eps=FLOOR) / LOG_ODDS * _there(prior),
                kept.matching * window.matching[:, number],
                kept.head * window.head[:, number],
            ],
            dim=1,
        )
        state = None if hidden is None else kept.hidden[..., None] * warp_hidden(hidden, boxes, back, which)
        output = net(frame, which, boxes, last, planes, state)
        hidden = output.hidden
        probability = paste(output.log_odds, boxes / STRIDE, size4).sigmoid()
        if dropout is None:
            probability = _gated(probability, apply_deltas(last, output.deltas), output.presence)
        else:
            probability = kept.taught(probability * present[:, None, None], truth, size4)
        index = torch.cat([which[:, None].float(), boxes], dim=1)
        yield Look(
            number=number,
            output=output,
            boxes=boxes,
            truth=crop(truth[:, None], index, output.log_odds.shape[-1], 1.0)[:, 0],
            targets=deltas_of(true_boxes, last),
            present=present,
            probability=probability,
        )


class _Kept:
    """What is on in a window, (B, 1, 1) each, 0 or 1."""

    def __init__(self, dropout: Dropout | None, randoms: Sequence[torch.Generator], device: torch.device) -> None:
        self._dropout, self._randoms, self._device = dropout, randoms, device
        off = dropout or Dropout(prior=0, matching=0, head=0, flow=0, ahead=1, hidden=0)
        self.prior, self.matching, self.head = (self._draw(off.prior), self._draw(off.matching), self._draw(off.head))
        self.flow, self.ahead, self.hidden = (self._draw(off.flow), self._draw(off.ahead), self._draw(off.hidden))

    def _draw(self, chance: float) -> Tensor:
        drawn = torch.cat([torch.rand(1, generator=random) for random in self._randoms]) >= chance
        return drawn.float()[:, None, None].to(self._device)

    def shaken(self, boxes: Tensor) -> Tensor:
        """Boxes moved and scaled a little: the tracker's are not those of the truth."""
        if self._dropout is None:
            return boxes
        side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        noise = torch.stack([torch.randn(4, generator=random) for random in self._randoms]).to(boxes.device)
        return boxes + self._dropout.jitter * noise * side

    def taught(self, probability: Tensor, truth: Tensor, size: tuple[int, int]) -> Tensor:
        """The truth in the place of some of the network's own masks: a teacher who fades out."""
        if self._dropout is None or not self._dropout.teacher:
            return probability
        own = self._draw(self._dropout.teacher)
        return own * probability + (1 - own) * shares_of(truth, size)


def _encode(net: FastNet, window: Window, number: int, kept: _Kept) -> FrameCode:
    back = torch.linalg.vector_norm(window.back[:, number], dim=1)
    magnitudes = torch.stack([back * kept.flow, window.ahead[:, number] * kept.flow * kept.ahead], dim=1)
    return net.encode(window.images[:, number], [map_[:, number] for map_ in window.maps], magnitudes)


def _there(prior: Tensor) -> Tensor:
    """(B, 1, 1): 1 where there is a warped mask; a lost object's prior says nothing."""
    return (prior.amax(dim=(1, 2), keepdim=True) >= 0.5).float()


def _candidates(window: Window, number: int, last: Tensor) -> Tensor:
    """Where to look for lost objects: the box of what matching and head say together."""
    said = (0.25 * window.matching[:, number] + window.head[:, number]) * LOG_ODDS
    return boxes_of(said.sigmoid(), last)


def _gated(probability: Tensor, boxes: Tensor, presence: Tensor) -> Tensor:
    """The box gate, a quarter larger than the box (MaskRNN), and nothing where the object is not there."""
    corners = (scale_boxes(boxes, 1.25) / STRIDE)[:, :, None, None]
    x = torch.arange(probability.shape[2], device=boxes.device) + 0.5
    y = (torch.arange(probability.shape[1], device=boxes.device) + 0.5)[:, None]
    inside = (x >= corners[:, 0]) & (x < corners[:, 2]) & (y >= corners[:, 1]) & (y < corners[:, 3])
    return probability * inside * (presence > 0).float()[:, None, None]


def warp(probability: Tensor, back: Tensor) -> Tensor:
    """``flow.warp`` for B maps (B, h4, w4) at the stride of the code; back in pixels, (B, 2, h4, w4)."""
    height, width = probability.shape[1:]
    x = torch.arange(width, device=back.device) + 0.5 + back[:, 0] / STRIDE
    y = (torch.arange(height, device=back.device) + 0.5)[:, None] + back[:, 1] / STRIDE
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], dim=-1)
    return functional.grid_sample(probability[:, None], grid, align_corners=False)[:, 0]


def shares_of(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of each cell that masks (B, h, w) cover, (B, h4, w4)."""
    return functional.interpolate(truth[:, None], size=size, mode="area")[:, 0]


@torch.no_grad()
def boxes_of(masks: Tensor, otherwise: Tensor, stride: float = STRIDE) -> Tensor:
    """Boxes (B, 4) of what is 0.5 or more in maps (B, a, b), pixels; ``otherwise`` where there is nothing."""
    inside = masks >= 0.5  # at once for all: a loop would wait for a GPU at every object
    corners = [*_ends(inside.any(dim=1)), *_ends(inside.any(dim=2))]  # x0, x1, y0, y1
    found = torch.stack([corners[k] for k in (0, 2, 1, 3)], dim=1).float() * stride
    return torch.where(inside.flatten(1).any(dim=1)[:, None], found, otherwise)


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """First, and last and 1, of what is set in lines bool (B, n), int64 (B,) each."""
    return line.int().argmax(dim=1), line.shape[1] - line.flip(1).int().argmax(dim=1)


def _whole(size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.tensor([0.0, 0.0, size[1] * STRIDE, size[0] * STRIDE], device=device)
