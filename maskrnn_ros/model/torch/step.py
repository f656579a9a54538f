# SPDX-License-Identifier: Apache-2.0
"""What happens to K objects between two frames, on their crops: the network.

MaskRNN (Hu, Huang, Schwing, NIPS 2017) looks at every object with an appearance stream, a flow stream and a
localization net, each given the warped mask, and carries the mask on. Here the trunk runs once per frame; what is an
object's own is one decoder on a crop around it:

    target model   columns of the frame (F = 48 rectified features and 1, stride 4) times coefficients W (F + 1, C) that
                   are fitted in closed form to the seed and to trusted later frames (``memory``): C target channels, of
                   which the first is the object's score, the others whatever ``Encoder`` learned to ask for. As in LWL
                   (Bhat et al., ECCV 2020), with sums of a ridge regression in place of its samples.
    matching       what each cell looks like among the cells of the seed and of the newest trusted frame: the object,
                   the others, or nothing that is known (attention with labels for values, as in STM, Oh et al., ICCV
                   2019)
    flow stream    |flow| t -> t-1, and how well the flow of each cell fits the object's own affine motion and that of
                   its surroundings, beside the warped mask
    appearance     target channels, features of strides 4, 8, 16, warped mask, warped masks of the others; a U of 64, 32
    stream         and 16 cells, back up to 128, the image itself entering at the end for the edge
    hidden state   convolutional GRU at 32 cells, carried along the flow
    localization   box deltas (Fast R-CNN) and presence, from the deepest level

Everything but the trunk is one module on tensors with a batch axis of objects.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import (
    CHANNELS,
    COLUMNS,
    CROP,
    HIDDEN,
    LOG_ODDS,
    MATCHED,
    TARGET,
)
from maskrnn_ros.model.torch.crops import double, half
from maskrnn_ros.model.torch.matching import Keys, Matcher, quarter_log_odds
from maskrnn_ros.model.torch.motion import motion_planes
from maskrnn_ros.model.torch.sight import Seen

_CODE4, _CODE8, _CODE16, _MOTION = 16, 32, 48, 16
_WIDE, _DEEP, _LOCAL = 48, 64, 64


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """What the decoder says of K objects.

    Args:
        log_odds: float32, (K, FINE, FINE), in the crops.
        deltas: float32, (K, 4), of the box against that of the warped mask.
        presence: float32, (K,), log-odds that the object is visible.
        hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2).
        code: Descriptors, float32, (K, CODES, CROP / 2, CROP / 2), of length 1: what `Matcher.keys` takes.
        matched: What the matching said, float32, (K, 2 * 3, CROP / 2, CROP / 2), see ``Matcher.match``: with the seed,
            then with the newest trusted frame.
    """

    log_odds: Tensor
    deltas: Tensor
    presence: Tensor
    hidden: Tensor
    code: Tensor
    matched: Tensor


class Encoder(nn.Module):
    """What the target model is asked for: C channels from a mask in a crop, the first of them -1..1, the mask itself.

    Its inputs are the mask, the others' masks, and where a cell lies in the object's box.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(4, 16)
        self.last = _conv(16, TARGET - 1)
        self.far = nn.Parameter(torch.zeros(TARGET - 1))

    def forward(self, share: Tensor, others: Tensor) -> Tensor:
        """float32 (K, 1, n, n) each, 0..1, to (K, TARGET, n, n)."""
        where = _within(share)
        found = self.last(functional.relu(self.first(torch.cat([share, others, where], dim=1))))
        return torch.cat([2 * share - 1, found.tanh()], dim=1)

    def beyond(self) -> Tensor:
        """What is asked for far from the object, (TARGET,)."""
        return torch.cat([-torch.ones_like(self.far[:1]), self.far.tanh()])


class Decoder(nn.Module):
    """From crops to masks; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.code4 = nn.Conv2d(COLUMNS, _CODE4, 1)
        self.code8 = nn.Conv2d(CHANNELS[1], _CODE8, 1)
        self.code16 = nn.Conv2d(CHANNELS[2], _CODE16, 1)
        self.motion = nn.Sequential(_conv(4, _MOTION), nn.ReLU(), _conv(_MOTION, _MOTION), nn.ReLU())
        # down
        self.fine = _conv(_CODE4 + TARGET + 2, 24)
        self.down8 = _conv(24, 32, stride=2)
        self.middle = _conv(32 + _CODE8 + _MOTION + HIDDEN + 2 * MATCHED, _WIDE)
        self.down16 = _conv(_WIDE, _DEEP, stride=2)
        self.deep = _conv(_DEEP + _CODE16, _DEEP)
        self.block = nn.ModuleList([_conv(_DEEP, _DEEP, dilation=2), _conv(_DEEP, _DEEP)])
        # up
        self.up8 = nn.Conv2d(_DEEP, _WIDE, 1)
        self.merge8 = _conv(_WIDE, _WIDE)
        self.gates = _conv(_WIDE + HIDDEN, 2 * HIDDEN)
        self.candidate = _conv(_WIDE + HIDDEN, HIDDEN)
        self.up4 = nn.Conv2d(_WIDE + HIDDEN, 24, 1)
        self.merge4 = _conv(24, 24)
        self.coarse = nn.Conv2d(24, 1, 1)
        self.up2 = nn.Conv2d(24, 12, 1)
        self.edge = _conv(12 + 3, 12)
        self.sharp = _conv(12, 1)
        # localization
        located = nn.Linear(_LOCAL, 5)
        self.localize = nn.Sequential(
            nn.AvgPool2d(CROP // 16), nn.Flatten(), nn.Linear(_DEEP * 16, _LOCAL), nn.ReLU(), located
        )
        for last in (self.coarse, self.sharp, located):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        # as the parts of the two-stream network are weighed without it: scale of the heads' start, 0.25 of log-odds
        self.told = nn.Parameter(torch.tensor([5.0, 1.0, 1.0, 0.0]))

    def forward(self, seen: Seen, target: Tensor, code: Tensor, matched: Tensor) -> Output:
        """Look at K objects.

        Args:
            seen: Their crops.
            target: Target channels, float32, (K, TARGET, CROP, CROP).
            code: Descriptors of their cells.
            matched: What the matching with the seed and with the newest trusted frame says, float32,
                (K, 2 * 3, CROP / 2, CROP / 2).
        """
        known = quarter_log_odds(seen.prior)
        there = (seen.prior.amax(dim=(2, 3), keepdim=True) >= 0.5).to(known.dtype)
        known = known * there  # of an object that was not there before nothing is known
        moved = self.motion(torch.cat([motion_planes(seen.flow, seen.prior), half(seen.prior * there)], dim=1))
        near = [self.code4(seen.columns), target, known, seen.others]
        fine = functional.relu(self.fine(_side_by_side(near, self.fine)))
        coarse = functional.relu(self.down8(fine))
        middle = [coarse, functional.relu(self.code8(seen.stride8)), moved, seen.hidden, matched]
        wide = functional.relu(self.middle(_side_by_side(middle, self.middle)))
        deep = functional.relu(self.down16(wide))
        deep = functional.relu(self.deep(torch.cat([deep, functional.relu(self.code16(seen.stride16))], dim=1)))
        deep = deep + self.block[1](functional.relu(self.block[0](deep)))
        located = self.localize(deep)
        wide = functional.relu(self.merge8(wide + double(self.up8(deep))))
        hidden = self._remember(wide, seen.hidden)
        up4 = double(self.up4(torch.cat([wide, hidden], dim=1)))
        fine = functional.relu(self.merge4(functional.relu(fine + up4)))
        found = self.told[2] * matched[:, :1] + self.told[3] * matched[:, MATCHED : MATCHED + 1]
        rough = self.coarse(fine) + self.told[0] * target[:, :1] + self.told[1] * known + double(found)
        log_odds = (double(rough) + self.at_the_edge(fine, seen.image))[:, 0]
        return Output(log_odds.clamp(-LOG_ODDS, LOG_ODDS), located[:, :4], located[:, 4], hidden, code, matched)

    def at_the_edge(self, fine: Tensor, image: Tensor) -> Tensor:
        """What the image itself says, (K, 1, FINE, FINE), from (K, 24, CROP, CROP) and (K, 3, FINE, FINE).

        Beyond the crop all is 0, before it is doubled: so that both steps together are one convolution.
        """
        near = double(functional.pad(self.up2(fine), (1, 1, 1, 1)))[..., 1:-1, 1:-1]
        framed = torch.cat([near, functional.pad(image, (1, 1, 1, 1))], dim=1)
        found: Tensor = self.sharp(functional.relu(functional.conv2d(framed, self.edge.weight, self.edge.bias)))
        return found

    def _remember(self, wide: Tensor, hidden: Tensor) -> Tensor:
        """Convolutional GRU (Ballas et al., ICLR 2016)."""
        gates = self.gates(torch.cat([wide, hidden], dim=1)).sigmoid()
        update, reset = gates[:, :HIDDEN], gates[:, HIDDEN:]
        candidate = self.candidate(torch.cat([wide, reset * hidden], dim=1)).tanh()
        kept: Tensor = (1 - update) * hidden + update * candidate
        return kept


class StepNet(nn.Module):
    """Decoder, encoder, matching, and what the memory learned of itself: all beside the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()
        self.encoder = Encoder()
        self.matcher = Matcher()
        self.ridge = nn.Parameter(torch.tensor(-6.0))
        """Log of the ridge over the mean square of the columns."""

    def look(self, seen: Seen, coefficients: Tensor, seed: Keys, recent: Keys) -> Output:
        """Look at K objects.

        Args:
            seen: Their crops.
            coefficients: Of their target models, float32, (K, COLUMNS + 1, TARGET).
            seed: Cells of their seeds.
            recent: Cells of the newest frame that could be trusted.
        """
        code = self.matcher.describe(seen.stride8, seen.stride16)
        matched = self.matcher.match(code, seed, recent)
        found: Output = self.decoder(seen, target_channels(seen.columns, coefficients), code, matched)
        return found


def target_channels(columns: Tensor, coefficients: Tensor) -> Tensor:
    """(K, COLUMNS, a, b) times (K, COLUMNS + 1, TARGET): (K, TARGET, a, b)."""
    height, width = (int(side) for side in columns.shape[2:])  # numbers, for the tracer
    cells = columns.reshape(-1, COLUMNS, height * width)
    said = coefficients[:, :-1].transpose(1, 2) @ cells + coefficients[:, -1:].transpose(1, 2)
    return said.reshape(-1, TARGET, height, width)


def _within(share: Tensor) -> Tensor:
    """Where each cell lies from the middle of a mask, in its extent, (K, 2, n, n), cut at 2."""
    count = int(share.shape[-1])  # a number, for the tracer
    steps = ((torch.arange(count, device=share.device, dtype=share.dtype) + 0.5) / count)[:, None]
    one = torch.ones_like(steps)
    # products, not sums: ONNX Runtime sums in another order where there is only one object
    lines = share[:, 0].transpose(1, 2) @ one, share[:, 0] @ one  # along x and y, (K, n, 1)
    planes = []
    for axis, line in zip((3, 2), lines, strict=True):
        profile = line.transpose(1, 2)  # (K, 1, n)
        mass = (profile @ one).clamp(min=1e-3)
        away = steps.T - profile @ steps / mass  # (K, 1, n)
        spread = ((profile * away.square()) @ one / mass).clamp(min=1e-4).sqrt()
        offset = (away / (2 * spread)).clamp(-2, 2)
        wide = offset[:, :, None] if axis == 3 else offset[..., None]
        planes.append(wide.expand(-1, 1, count, count))
    return torch.cat(planes, dim=1)


def _side_by_side(planes: list[Tensor], conv: nn.Conv2d) -> Tensor:
    """Planes as one, filled up with some of the first to what a convolution takes, see ``for_graphs.in_blocks``."""
    missing = conv.in_channels - sum(int(part.shape[1]) for part in planes)  # numbers, for the tracer
    return torch.cat([*planes, planes[0][:, :missing]] if missing else planes, dim=1)


def _conv(entering: int, leaving: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, stride, padding=dilation, dilation=dilation)
