# SPDX-License-Identifier: Apache-2.0
"""The network of MaskRNN to the letter (Hu, Huang, Schwing, NIPS 2017): the ``paper`` profile.

    RGB, warped mask          -- appearance stream (VGG-16) --> a
    two magnitudes of flow,
    warped mask               -- flow stream (VGG-16) --------> m
    log-odds = linear combination of a and m
    conv5_3 of the appearance stream in the box of the warped mask -- RoI pooling, FC --> box

One such net works for each object, on the whole image. Of the paper: the trunks (conv1_1 .. conv5_3 of VGG-16 with
pool1 .. pool4), the channels of both inputs (Sec. 3.3 and Fig. 2 disagree on the flow stream's; Fig. 2 is followed, but
for its squares), the four side outputs, the bilinear enlargement, the linear combinations, the RoI pooling of 7x7 and
two fully connected layers, the box gate. Our choice, the paper's values not being known: 16 channels per side output
(OSVOS's number), 4096 units and no dropout in the fully connected layers, log(1 + magnitude in pixels), how the first
layers take other inputs than RGB (``start_from_vgg16``), all other first weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_pool

from maskrnn_ros.paper.vgg import BLOCKS, MEAN, NUMBERS, STD

SIDE_CHANNELS = 16
CELLS = 7
"""Of the RoI pooling."""

_STRIDE = 16
"""Pixels per cell of conv5_3."""


@dataclasses.dataclass(frozen=True, eq=False)
class PaperOutput:
    """What the network says of B objects.

    Args:
        log_odds: float32, (B, H, W): of being the object.
        deltas: float32, (B, 4): Fast R-CNN's, of the box against that of the prior; None where it was not asked for.
    """

    log_odds: Tensor
    deltas: Tensor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperParts:
    """Which parts of the network are on: what makes it MaskRNN, MaskTrack or OSVOS.

    Args:
        flow_stream: Without it, the appearance stream's map alone is the answer.
        localization: Predict a box.
        average: Average the maps of both streams, instead of combining them as learned (MaskTrack).
    """

    flow_stream: bool = True
    localization: bool = True
    average: bool = False


class Stream(nn.Module):
    """VGG-16 up to conv5_3, and its hypercolumn narrowed to one channel.

    Args:
        entering: Channels of its input.
    """

    def __init__(self, entering: int) -> None:
        super().__init__()
        blocks = []
        for block in BLOCKS:
            layers = list[nn.Module]()
            for leaving in block:
                layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU(inplace=True)]
                entering = leaving
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.side = nn.ModuleList(nn.Conv2d(block[-1], SIDE_CHANNELS, 3, padding=1) for block in BLOCKS[1:])
        self.last = nn.Conv2d(SIDE_CHANNELS * len(self.side), 1, 1)

    def convolutions(self) -> list[nn.Conv2d]:
        """conv1_1 .. conv5_3."""
        return [layer for block in self.blocks for layer in block if isinstance(layer, nn.Conv2d)]  # type: ignore[attr-defined]

    def trunk(self, images: Tensor) -> list[Tensor]:
        """Outputs of conv2_2, conv3_3, conv4_3 and conv5_3, before the pooling, (B, C, H / 2^k, W / 2^k)."""
        found = list[Tensor]()
        for number, block in enumerate(self.blocks):
            images = block(functional.max_pool2d(images, 2) if number else images)
            found.append(images)
        return found[1:]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One map (B, 1, H, W) from (B, C, H, W), and conv5_3, (B, 512, H / 16, W / 16), rounded down."""
        outputs = self.trunk(images)
        size = (images.shape[2], images.shape[3])
        sides = [
            functional.interpolate(side(output), size=size, mode="bilinear", align_corners=False)
            for side, output in zip(self.side, outputs, strict=True)
        ]
        return self.last(torch.cat(sides, dim=1)), outputs[-1]


class Localization(nn.Module):
    """RoI pooling of conv5_3 and fully connected layers: Fast R-CNN's box regression (Girshick, ICCV 2015)."""

    def __init__(self) -> None:
        super().__init__()
        entering = BLOCKS[-1][-1] * CELLS * CELLS
        self.layers = nn.Sequential(
            nn.Linear(entering, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)
        )
        self.deltas = nn.Linear(4096, 4)

    def forward(self, conv5_3: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (B, 4) of boxes (B, 4), one in each image, pixels."""
        rois = torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes), boxes], dim=1)
        # in float32: under autocast the map is bfloat16, in which a place in an image is known to four pixels
        pooled = roi_pool(conv5_3.float(), rois.float(), CELLS, 1 / _STRIDE)
        found: Tensor = self.deltas(self.layers(pooled.flatten(1)))
        return found


class PaperNet(nn.Module):
    """Both streams, their fusion, and the localization net."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.appearance = Stream(4)
        self.motion = Stream(3)
        self.fusion = nn.Conv2d(2, 1, 1)
        self.localization = Localization()
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(STD)[:, None, None], persistent=False)
        self._reset()

    def _reset(self) -> None:
        """First weights of what ImageNet knows nothing of: the streams count the same, a box stays where it is."""
        with torch.no_grad():
            for stream in (self.appearance, self.motion):
                for layer in stream.convolutions():
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
                for layer in (*stream.side, stream.last):
                    nn.init.xavier_normal_(layer.weight)
                    nn.init.zeros_(layer.bias)
            self.fusion.weight.fill_(0.5)
            nn.init.zeros_(self.fusion.bias)  # type: ignore[arg-type]
            nn.init.normal_(self.localization.deltas.weight, std=1e-3)
            nn.init.zeros_(self.localization.deltas.bias)

    def forward(
        self, images: Tensor, priors: Tensor, magnitudes: Tensor, boxes: Tensor | None, parts: PaperParts | None = None
    ) -> PaperOutput:
        """Look at B objects, each in a frame of its own.

        Args:
            images: RGB, uint8, (B, 3, H, W).
            priors: The mask of the frame before, warped, float32, (B, H, W), 0..1.
            magnitudes: Length of the flow t -> t-1 and t -> t+1, pixels, float32, (B, 2, H, W).
            boxes: Those of the priors, float32, (B, 4), pixels; may be None without localization.
            parts: Which are on; by default all.
        """
        parts = parts or PaperParts()
        mask = priors[:, None] - 0.5  # about 0, as the other channels are
        pictures = (images.float() - self.mean) / self.deviation
        own, conv5_3 = self.appearance(torch.cat([pictures, mask], dim=1))
        if parts.flow_stream:
            moved, _ = self.motion(torch.cat([torch.log1p(magnitudes), mask], dim=1))
            own = (own + moved) / 2 if parts.average else self.fusion(torch.cat([own, moved], dim=1))
        deltas = self.localization(conv5_3, boxes).float() if parts.localization and boxes is not None else None
        return PaperOutput(own[:, 0].float(), deltas)

    def groups(self, rate: float, new: float) -> list[dict[str, object]]:
        """Parameters with learning rates: ``rate`` for the convolutions of VGG-16, ``rate * new`` for other ones.

        The fully connected layers, of which each output has up to 25088 inputs, take ``rate``, too.
        """
        old = [layer for stream in (self.appearance, self.motion) for layer in stream.convolutions()]
        modules: Sequence[nn.Module] = (*old, self.localization)
        slow = [parameter for module in modules for parameter in module.parameters()]
        known = {id(parameter) for parameter in slow}
        fast = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": slow, "lr": rate}, {"params": fast, "lr": rate * new}]


@torch.no_grad()
def start_from_vgg16(net: PaperNet, weights: Mapping[str, Tensor]) -> None:
    """Put ImageNet's weights into both streams, and into the fully connected layers where they are there.

    In conv1_1, the mask and both magnitudes get the mean of the weights of red, green and blue, as if they were
    brightness. That is our choice: from zeros, the mask would count for nothing after thousands of steps of 1e-5.

    Args:
        net: Changed.
        weights: See ``load_vgg16``.
    """
    for stream in (net.appearance, net.motion):
        for number, layer in zip(NUMBERS, stream.convolutions(), strict=True):
            weight = weights[f"features.{number}.weight"]
            if number == 0:
                grey = weight.mean(dim=1, keepdim=True)
                weight = torch.cat([weight, grey], dim=1) if stream is net.appearance else grey.expand(-1, 3, -1, -1)
            layer.weight.copy_(weight)
            layer.bias.copy_(weights[f"features.{number}.bias"])  # type: ignore[union-attr]
    for number, name in ((0, "classifier.0"), (2, "classifier.3")):
        if f"{name}.weight" in weights:
            kinds = {kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")}
            net.localization.layers[number].load_state_dict(kinds)
