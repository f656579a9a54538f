# SPDX-License-Identifier: Apache-2.0
"""Through the frames of a window with the decoder: what the tracker does, for many objects, with gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.shapes import CROP, FINE, HIDDEN, STRIDE, TRUSTED
from maskrnn_ros.model.torch.crops import crop, deltas_of, paste, scaled
from maskrnn_ros.model.torch.matching import Keys
from maskrnn_ros.model.torch.sight import Carried, Shared, crops_around, place, see
from maskrnn_ros.model.torch.step import Output, StepNet
from maskrnn_ros.model.torch.target import Memory, coefficients, remember, seed_keys, seed_sums, sums_of
from maskrnn_ros.training.boxes import boxes_of
from maskrnn_ros.training.groups import Groups
from maskrnn_ros.training.sources import IGNORE
from maskrnn_ros.training.windows import Windows

_VISIBLE = 8.0
"""Pixels of an object that is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
    """Chances that a part is off for an object in a whole window: presets are settings that the network has seen."""

    prior: float = 0.06
    target: float = 0.1
    matching: float = 0.1
    flow: float = 0.15
    hidden: float = 0.15
    others: float = 0.1
    jitter: float = 0.07


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """One frame of a window.

    Args:
        output: Of the network.
        truth: In the crops, float32, (K, FINE, FINE), 0..1.
        known: Likewise: 0 where nobody knows.
        targets: Deltas of the true box, (K, 4).
        present: float32, (K,): 1 where the object is visible.
        pasted: Log-odds of each object in the whole frame, float32, (K, h4, w4).
        shares: Truth there, likewise.
        unknown: Likewise, of each object's frame.
        groups: The window of each object.
    """

    output: Output
    truth: Tensor
    known: Tensor
    targets: Tensor
    present: Tensor
    pasted: Tensor
    shares: Tensor
    unknown: Tensor
    groups: Groups


def rollout(net: StepNet, window: Windows, dropout: Dropout | None, random: torch.Generator) -> Iterator[Look]:
    """Carry the first masks through the window, frame by frame.

    Args:
        net: The network.
        window: B windows, K objects.
        dropout: What is off at times; None in validation: nothing.
        random: Random numbers of the dropout.
    """
    which, count, groups = window.which, len(window.which), Groups(window.which)
    kept = _Kept(dropout, count, random, window.images.device)
    size4 = (window.flow.shape[-2], window.flow.shape[-1])
    whole = window.images.new_tensor([0, 0, size4[1] * STRIDE, size4[0] * STRIDE], dtype=torch.float32)
    memory = _seeded(net, window, whole.expand(count, 4), size4)
    weights = coefficients(net, memory)
    last = boxes_of(window.first.float(), whole.expand(count, 4))
    carried = _first(window, last)
    usual = window.first.flatten(1).sum(dim=1).float()
    for number in range(2, window.images.shape[1]):
        shared = _shared(window, number)
        masks = window.labels[:, number][which] == window.ids[:, None, None]
        truth = masks.float()
        present = (truth.sum(dim=(1, 2)) >= _VISIBLE).float()
        true_boxes = boxes_of(truth, last)
        prior4 = place(carried.probability, carried.boxes, shared.flow, which) * kept.prior[:, None, None]
        last = boxes_of(prior4, true_boxes, STRIDE).detach()
        boxes = crops_around(kept.shaken(last))
        others = groups.most_of_others(prior4) * kept.others[:, None, None]
        seen = see(shared, which, boxes, carried, others, kept.hidden)
        seen = dataclasses.replace(
            seen,
            prior=seen.prior * kept.prior[:, None, None, None],
            flow=seen.flow * kept.flow[:, None, None, None],
        )
        keys = (kept.matched(one) for one in (memory.seed_keys, memory.newest_keys))
        output = net.look(seen, weights * kept.target[:, None, None], *keys)
        rois = torch.cat([torch.arange(count, device=boxes.device)[:, None].float(), boxes], dim=1)
        unknown = (window.labels[:, number][which] == IGNORE).float()
        inside = crop(torch.stack([truth, unknown], dim=1), rois, FINE, 1.0)
        pasted = paste(output.log_odds, boxes / STRIDE, size4)
        there = present if dropout is not None else (output.presence > 0).float()
        probability = output.log_odds.sigmoid()[:, None] * there[:, None, None, None]
        carried = Carried(probability, boxes, output.hidden)
        yield Look(
            output=output,
            truth=inside[:, 0],
            known=1 - inside[:, 1],
            targets=deltas_of(true_boxes, last),
            present=present,
            pasted=pasted,
            shares=functional.avg_pool2d(truth, STRIDE),
            unknown=functional.avg_pool2d(unknown, STRIDE),
            groups=groups,
        )
        with torch.no_grad():
            share = functional.avg_pool2d(probability, 2)
            trust, usual = _trust(probability[:, 0], boxes, usual, there)
            rivals = groups.most_of_others(pasted.sigmoid() * there[:, None, None])
            rivals = crop(rivals[:, None], rois, CROP, 1 / STRIDE)
            sure = ((share - 0.5).abs() * 2).clamp(min=0.1)
        own = share * (1 - rivals * (rivals > share))
        sums = sums_of(net, seen.columns, own, rivals, sure)
        half = functional.avg_pool2d(torch.cat([own, rivals], dim=1), 2)
        memory = remember(memory, sums, net.matcher.keys(output.code, half[:, :1], half[:, 1:]), trust * kept.rate)
        weights = coefficients(net, memory)


def _seeded(net: StepNet, window: Windows, otherwise: Tensor, size4: tuple[int, int]) -> Memory:
    """What the memories know after the first frames of the windows."""
    labels = window.labels[:, 0][window.which]
    masks = (labels == window.ids[:, None, None]).float()
    rest = ((labels > 0) & (labels < IGNORE)).float() - masks
    planes = torch.stack([masks, rest, (labels != IGNORE).float()], dim=1)
    share, others, known = functional.avg_pool2d(planes, STRIDE).unbind(1)
    boxes = boxes_of(masks, otherwise)
    sums = seed_sums(net, window.columns[:, 0].float(), window.which, boxes, share, others, known)
    stride8, stride16 = window.stride8[:, 0].float(), window.stride16[:, 0].float()
    keys = seed_keys(net, stride8, stride16, window.which, boxes, share, others)
    return Memory(sums, sums, keys, keys)


def _first(window: Windows, boxes: Tensor) -> Carried:
    crops = crops_around(boxes)
    rois = torch.cat([torch.arange(len(crops), device=crops.device)[:, None].float(), crops], dim=1)
    probability = crop(window.first[:, None].float(), rois, FINE, 1.0)
    return Carried(probability, crops, crops.new_zeros(len(crops), HIDDEN, CROP // 2, CROP // 2))


def _shared(window: Windows, number: int) -> Shared:
    return Shared(
        image=scaled(window.images[:, number]),
        columns=window.columns[:, number].float(),
        stride8=window.stride8[:, number].float(),
        stride16=window.stride16[:, number].float(),
        flow=window.flow[:, number].float(),
    )


def _trust(probability: Tensor, boxes: Tensor, usual: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each object may enter its memory, float32 (K,), and its usual area, pixels."""
    mask = (probability >= 0.5).float()
    cells = mask.sum(dim=(1, 2))
    area = cells * ((boxes[:, 2] - boxes[:, 0]) / FINE).square()
    mean = (probability * mask).sum(dim=(1, 2)) / cells.clamp(min=1)
    ratio = area / usual.clamp(min=1)
    trust = (mean >= TRUSTED[0]) & (ratio > TRUSTED[1]) & (ratio < TRUSTED[2]) & (there > 0)
    return trust.float(), torch.where(there > 0, usual + 0.05 * (area - usual), usual)


class _Kept:
    """What is on for each object, (K,) of 0 or 1, and its rate of learning."""

    def __init__(self, dropout: Dropout | None, count: int, random: torch.Generator, device: torch.device) -> None:
        self._dropout, self._random, self._device, self._count = dropout, random, device, count
        off = dropout or Dropout(prior=0, target=0, matching=0, flow=0, hidden=0, others=0)
        self.prior, self.target, self.flow = (self._draw(chance) for chance in (off.prior, off.target, off.flow))
        self.hidden, self.others = self._draw(off.hidden), self._draw(off.others)
        self._matching = self._draw(off.matching)
        if dropout is not None:  # nobody is left with nothing
            self.target = torch.maximum(self.target, 1 - self.prior)
        self.rate = 0.1 if dropout is None else 0.05 + 0.3 * torch.rand(count, generator=random).to(device)

    def _draw(self, chance: float) -> Tensor:
        return (torch.rand(self._count, generator=self._random) >= chance).float().to(self._device)

    def matched(self, keys: Keys) -> Keys:
        """Cells that are matched; of those for which it is off nothing is known."""
        return Keys(keys.code, keys.values * self._matching[:, None, None])

    def shaken(self, boxes: Tensor) -> Tensor:
        """Boxes moved and scaled a little: the tracker's are not those of the truth."""
        if self._dropout is None:
            return boxes
        side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        noise = torch.randn(boxes.shape, generator=self._random).to(boxes.device)
        return boxes + self._dropout.jitter * noise * side
