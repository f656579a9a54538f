# SPDX-License-Identifier: Apache-2.0
"""All that the networks do for K objects between two frames, as modules on plain tensors: what graphs are made of.

    columns   features of a frame               -> what the target models are linear in, once per frame
    step      frame, flow, K objects            -> where they are looked for, and what the decoder says of those crops;
                                                   as graphs these are two
    learn     K crops, their masks              -> sums and keys of the frame, for the memories of the objects
    begin     frame, masks of K objects         -> sums and keys of their seeds

In torch a frame costs one call of the trunk, one of ``columns`` and one of ``step``, and on frames that enter a memory
one of ``learn``, whatever the number of objects; for graphs see ``onnx_engine``. ``engine`` says what goes in and out.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import CHANNELS, COLUMNS, STRIDE, STRIDES
from maskrnn_ros.model.torch.crops import scaled
from maskrnn_ros.model.torch.matching import Keys
from maskrnn_ros.model.torch.sight import Carried, Seen, Shared, crops_around, place, see
from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.target import seed_keys, seed_sums, sums_of
from maskrnn_ros.model.torch.trunk import TrainedTrunk

_THIN = 0.1
"""Share of a cell from which a warped mask may be somewhere: a thin object fills none, and is looked for where it was,
not searched for. It is for such objects alone: J / F of the five held out clips stay the same; of the decoder before,
those of layers are 0.884 / 0.943 without it and 0.884 / 0.944 with it."""


class Columns(nn.Module):
    """From features, float32 (1, C, ., .) of strides 4, 8, 16, to columns, float32 (1, COLUMNS, h4, w4).

    It is ``Head.hidden`` with the standardisation of the features inside the convolutions.
    """

    def __init__(self, trunk: TrainedTrunk) -> None:
        super().__init__()
        head = trunk.start.head
        self.narrow = nn.ModuleList()
        shift = head.bias
        for entering, narrow in zip(CHANNELS, head.narrow, strict=True):
            mean, deviation = getattr(head, f"mean{entering}"), getattr(head, f"deviation{entering}")
            weight = narrow.weight / deviation
            shift = shift - (weight * mean).sum(dim=(1, 2, 3))
            conv = nn.Conv2d(entering, COLUMNS, 1, bias=False, device=weight.device)
            conv.weight.data.copy_(weight)
            self.narrow.append(conv)
        self.shift = nn.Parameter(shift.detach().clone()[:, None, None])
        self.requires_grad_(False)

    def forward(self, stride4: Tensor, stride8: Tensor, stride16: Tensor) -> tuple[Tensor]:
        """See the class."""
        found: Tensor = self.narrow[0](stride4) + self.shift
        height, width = stride4.shape[2:]
        for conv, map_, stride in zip(self.narrow[1:], (stride8, stride16), STRIDES[1:], strict=True):
            narrowed = functional.interpolate(conv(map_), scale_factor=stride // STRIDE, mode="bilinear")
            found = found + narrowed[..., :height, :width]
        return (functional.relu(found),)


class FrameFeatures(nn.Module):
    """From an image, RGB, uint8 (1, 3, h, w), to ``engine.Features``: strides 8 and 16, columns; float32.

    Args:
        trunk: Its weights; they become the module's own.
        is_half: Whether the trunk computes in float16.
    """

    def __init__(self, trunk: TrainedTrunk, is_half: bool = False) -> None:
        super().__init__()
        self.columns = Columns(trunk)
        self.trunk = trunk.net
        if is_half:
            self.trunk.half().to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        stride4, stride8, stride16 = (map_.float() for map_ in self.trunk(image))
        (columns,) = self.columns(stride4, stride8, stride16)
        return stride8, stride16, columns


class FrameStep(nn.Module):
    """K objects on the next frame; inputs are those of both parts, outputs are ``engine.STEP_OUTPUTS``.

    Args:
        net: The network.
    """

    def __init__(self, net: StepNet) -> None:
        super().__init__()
        self.net = net

    def place(
        self,
        flow: Tensor,
        ignored: Tensor,
        beside: Tensor,
        switches: Tensor,
        probability: Tensor,
        boxes: Tensor,
        sought: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See ``engine.PLACE_INPUTS``."""
        warps, has_prior = switches[0], switches[1]
        which = torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        free = has_prior * (ignored < 0.5).to(flow.dtype)  # (1, h4, w4)
        return places_of(place(probability, boxes, flow * warps, which) * free, beside * free, boxes, sought)

    def see(
        self,
        image: Tensor,
        columns: Tensor,
        stride8: Tensor,
        stride16: Tensor,
        flow: Tensor,
        switches: Tensor,
        crops: Tensor,
        others: Tensor,
        carried: Carried,
    ) -> Seen:
        """What there is in the crops of a frame: see ``LOOK_INPUTS``, but for image and columns, which are whole.

        Those are uint8 (1, 3, h, w) and float32 (1, COLUMNS, h4, w4).
        """
        warps, has_prior, has_flow, recurs = switches[0], switches[1], switches[2], switches[3]
        which = torch.zeros_like(crops[:, 0], dtype=torch.int64)
        shared = Shared(scaled(image), columns, stride8, stride16, flow)
        seen = see(shared, which, crops, carried, others, warps=warps)
        return dataclasses.replace(
            seen, prior=seen.prior * has_prior, flow=seen.flow * has_flow, hidden=seen.hidden * recurs
        )

    def look(self, stride8: Tensor, stride16: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See ``engine.LOOK_INPUTS``: as a graph does it, with crops of the image and of columns that are given."""
        flow, switches, crops, others, image, columns, probability, boxes, hidden, *known = inputs
        height, width = flow.shape[2:]
        blank = image.new_zeros(1, 3, height * STRIDE, width * STRIDE), columns.new_zeros(1, COLUMNS, height, width)
        carried = Carried(probability, boxes, hidden)
        seen = self.see(*blank, stride8, stride16, flow, switches, crops, others, carried)
        image, columns = scaled(image.permute(0, 3, 1, 2)), columns.permute(0, 3, 1, 2)
        return answers_of(self.net, dataclasses.replace(seen, image=image, columns=columns), *known)

    def forward(
        self,
        image: Tensor,
        columns: Tensor,
        stride8: Tensor,
        stride16: Tensor,
        flow: Tensor,
        ignored: Tensor,
        beside: Tensor,
        switches: Tensor,
        sought: Tensor,
        probability: Tensor,
        boxes: Tensor,
        hidden: Tensor,
        *known: Tensor,
    ) -> tuple[Tensor, ...]:
        """Both parts, of an image, uint8 (1, 3, h, w), and columns (1, COLUMNS, h4, w4)."""
        around, crops, looked, others = self.place(flow, ignored, beside, switches, probability, boxes, sought)
        maps, carried = (image, columns, stride8, stride16), Carried(probability, boxes, hidden)
        seen = self.see(*maps, flow, switches, crops, others, carried)
        return (around, crops, looked, *answers_of(self.net, seen, *known), seen.columns.permute(0, 2, 3, 1))


def places_of(prior4: Tensor, beside: Tensor, boxes: Tensor, sought: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``engine.PLACE_OUTPUTS`` by warped masks (K, h4, w4) and what lies beside them (1, h4, w4)."""
    found = _boxes_of(prior4)
    around = torch.where(found.isnan(), sought, found)
    looked = (~around[:, 0].isnan()).to(prior4.dtype)
    around = torch.where(around.isnan(), boxes, around)
    return around, crops_around(around), looked, torch.maximum(_most_of_others(prior4), beside)


def answers_of(net: StepNet, seen: Seen, coefficients: Tensor, *keys: Tensor) -> tuple[Tensor, ...]:
    """``engine.LOOK_OUTPUTS`` by crops; keys are those of seeds and those of the newest frame."""
    found = net.look(seen, coefficients, Keys(*keys[:2]), Keys(*keys[2:]))
    return found.log_odds, found.deltas, found.presence, found.hidden, found.code, found.matched


class Learn(nn.Module):
    """What a frame says of K objects; inputs and outputs are ``engine.LEARN_INPUTS`` and ``engine.SUMS``."""

    def __init__(self, net: StepNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, columns: Tensor, code: Tensor, share: Tensor, rivals: Tensor, known: Tensor
    ) -> tuple[Tensor, ...]:
        """See ``engine``."""
        sums = sums_of(self.net, columns.permute(0, 3, 1, 2), share, rivals, known)
        half = functional.avg_pool2d(torch.cat([share, rivals], dim=1), 2)
        keys = self.net.matcher.keys(code, half[:, :1], half[:, 1:])
        return sums.square, sums.target, keys.code, keys.values


class Begin(nn.Module):
    """What a seed says of K objects; inputs and outputs are ``engine.BEGIN_INPUTS`` and ``engine.SUMS``."""

    def __init__(self, net: StepNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        columns: Tensor,
        stride8: Tensor,
        stride16: Tensor,
        boxes: Tensor,
        share: Tensor,
        others: Tensor,
        known: Tensor,
    ) -> tuple[Tensor, ...]:
        """See ``engine``."""
        which = torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        sums = seed_sums(self.net, columns, which, boxes, share, others, known)
        keys = seed_keys(self.net, stride8, stride16, which, boxes, share, others)
        return sums.square, sums.target, keys.code, keys.values


def _boxes_of(priors: Tensor) -> Tensor:
    """Boxes, float32 (K, 4), pixels, of the likely cells of warped masks (K, h4, w4); NaN: there are none."""
    least = (0.5 * priors.amax(dim=(1, 2), keepdim=True)).clamp(_THIN, 0.5)
    inside = (priors >= least).to(priors.dtype)
    edges = []
    for axis in (1, 2):  # x, then y
        line = inside.amax(dim=axis)
        steps = torch.arange(line.shape[1], device=line.device, dtype=line.dtype)
        first = torch.where(line > 0, steps, line.shape[1]).amin(dim=1)
        last = ((steps + 1) * line).amax(dim=1)
        edges.append((first, last))
    (x0, x1), (y0, y1) = edges
    boxes = torch.stack([x0, y0, x1, y1], dim=1) * STRIDE
    return torch.where((x1 > 0)[:, None], boxes, torch.nan)


def _most_of_others(maps: Tensor) -> Tensor:
    """At every place the most of what the other maps have there, 0..1, (K, a, b).

    That is the most of all, or where only one has that, for this one the second most.
    """
    most = maps.amax(dim=0, keepdim=True)
    is_most = maps == most
    second = torch.where(is_most, 0.0, maps).amax(dim=0, keepdim=True)
    second = torch.where(is_most.to(maps.dtype).sum(dim=0, keepdim=True) > 1.5, most, second)
    return torch.where(is_most, second, most)
