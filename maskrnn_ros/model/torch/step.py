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

import copy
import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import (
    CHANNELS,
    CODES,
    COLUMNS,
    CONTEXT,
    CROP,
    FINE,
    HIDDEN,
    LOG_ODDS,
    MATCHED,
    SMALLEST,
    STRIDE,
    STRIDES,
    TARGET,
)
from maskrnn_ros.model.torch.crops import cell_centres, crop, sample_crop, scale_boxes

FLOOR = 0.02
"""How near to 0 and 1 a warped mask may come before its log-odds are taken."""

_CODE4, _CODE8, _CODE16, _MOTION = 16, 32, 48, 16
_WIDE, _DEEP, _LOCAL = 48, 64, 64


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """What all objects of a frame share, N frames at a time.

    Args:
        image: float32, (N, 3, h, w), RGB in -1..1.
        columns: float32, (N, COLUMNS, h4, w4): what the target model is linear in, but for the 1.
        stride8: float32, (N, 40, h8, w8).
        stride16: float32, (N, 112, h16, w16).
        flow: float32, (N, 2, h4, w4): backward flow to the frame before, pixels.
    """

    image: Tensor
    columns: Tensor
    stride8: Tensor
    stride16: Tensor
    flow: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """What K objects take with them from a frame to the next.

    Args:
        probability: float32, (K, 1, FINE, FINE): in the crops, gated, before the merge.
        boxes: float32, (K, 4), x0 y0 x1 y1: the crops, pixels of the working image.
        hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2).
    """

    probability: Tensor
    boxes: Tensor
    hidden: Tensor

    def __getitem__(self, which: Tensor) -> Carried:
        return Carried(self.probability[which], self.boxes[which], self.hidden[which])


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """The crops of K objects on a frame, ready for the decoder.

    Args:
        image: float32, (K, 3, FINE, FINE).
        columns: float32, (K, COLUMNS, CROP, CROP).
        stride8: float32, (K, 40, CROP / 2, CROP / 2).
        stride16: float32, (K, 112, CROP / 4, CROP / 4).
        prior: float32, (K, 1, CROP, CROP): the warped mask, 0..1.
        others: Likewise: the most of the warped masks of all other objects.
        flow: float32, (K, 2, CROP / 2, CROP / 2), pixels.
        hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2), warped.
    """

    image: Tensor
    columns: Tensor
    stride8: Tensor
    stride16: Tensor
    prior: Tensor
    others: Tensor
    flow: Tensor
    hidden: Tensor


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


@dataclasses.dataclass(frozen=True, eq=False)
class Keys:
    """Cells that K objects are known by.

    Args:
        code: float32, (K, CODES, KEYS).
        values: float32, (K, 2, KEYS): share of the object and of the others, 0..1; all 0: nothing is known.
    """

    code: Tensor
    values: Tensor

    def __getitem__(self, which: Tensor) -> Keys:
        return Keys(self.code[which], self.values[which])

    def replaced(self, others: Keys, where: Tensor) -> Keys:
        """Those of the others where bool (K,) says so."""
        chosen = where[:, None, None]
        return Keys(torch.where(chosen, others.code, self.code), torch.where(chosen, others.values, self.values))


class Matcher(nn.Module):
    """Compares cells of stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(CHANNELS[1], CODES, 1)
        self.coarse = nn.Conv2d(CHANNELS[2], CODES, 1)
        self.sharpness = nn.Parameter(torch.tensor(3.7))
        """Log of what similarities are multiplied by."""

    @torch.no_grad()
    def standardise(self, stride8: Tensor, stride16: Tensor) -> None:
        """Begin with the principal components of standardised features (N, C, ., .): they keep most of similarity."""
        both = [_double(stride16), stride8]
        cells = torch.cat([map_.transpose(0, 1).flatten(1) for map_ in both]).double()  # (C16 + C8, cells)
        mean, deviation = cells.mean(dim=1, keepdim=True), cells.std(dim=1, keepdim=True) + 1e-3
        parts = torch.tensor([CHANNELS[2]] * CHANNELS[2] + [CHANNELS[1]] * CHANNELS[1], device=cells.device)
        scale = deviation * parts[:, None].sqrt()  # both strides count the same
        spread = (cells - mean) / scale
        main = torch.linalg.eigh(spread @ spread.T).eigenvectors[:, -CODES:].T  # (CODES, C16 + C8)
        weight = main / scale.T
        shift = -(weight @ mean)[:, 0]
        self.coarse.weight.copy_(weight[:, : CHANNELS[2], None, None])
        self.fine.weight.copy_(weight[:, CHANNELS[2] :, None, None])
        self.fine.bias.copy_(shift)  # type: ignore[union-attr]
        self.coarse.bias.zero_()  # type: ignore[union-attr]

    def describe(self, stride8: Tensor, stride16: Tensor) -> Tensor:
        """Descriptors of length 1, float32 (K, CODES, n, n), of features at strides 8 and 16."""
        raw: Tensor = self.fine(stride8) + _double(self.coarse(stride16))
        return raw / raw.square().sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()

    def keys(self, code: Tensor, share: Tensor, others: Tensor) -> Keys:
        """What K objects are known by, from descriptors and shares, float32 (K, 1, n, n), of the same cells."""
        values = torch.cat([share, others], dim=1)
        return Keys(_chessboard(code), _chessboard(values))

    def match(self, code: Tensor, keys: Keys) -> Tensor:
        """Log-odds / 4 of the object, share of the others, similarity of what is most similar, (K, 3, n, n)."""
        count = code.shape[-1]
        sharp = self.sharpness.exp()  # enters with the cells: products are more than both
        similar = (sharp * code).flatten(2).transpose(1, 2) @ keys.code  # (K, n n, KEYS)
        said = similar.softmax(dim=-1) @ keys.values.transpose(1, 2)
        own = torch.logit(said[..., :1], eps=FLOOR) / 4
        planes = torch.cat([own, said[..., 1:], similar.amax(dim=-1, keepdim=True) / sharp], dim=-1)
        there = (keys.values[:, :1].amax(dim=-1, keepdim=True) > 0).to(code.dtype)
        found: Tensor = (planes * there).transpose(1, 2).reshape(-1, MATCHED, count, count)
        return found


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
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(_DEEP * 16, _LOCAL), nn.ReLU(), located
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
        known = torch.logit(seen.prior, eps=FLOOR) / 4
        there = (seen.prior.amax(dim=(2, 3), keepdim=True) >= 0.5).to(known.dtype)
        known = known * there  # of an object that was not there before nothing is known
        moved = self.motion(torch.cat([motion_planes(seen.flow, seen.prior), _half(seen.prior * there)], dim=1))
        near = [self.code4(seen.columns), target, known, seen.others]
        fine = functional.relu(self.fine(_side_by_side(near, self.fine)))
        coarse = functional.relu(self.down8(fine))
        middle = [coarse, functional.relu(self.code8(seen.stride8)), moved, seen.hidden, matched]
        wide = functional.relu(self.middle(_side_by_side(middle, self.middle)))
        deep = functional.relu(self.down16(wide))
        deep = functional.relu(self.deep(torch.cat([deep, functional.relu(self.code16(seen.stride16))], dim=1)))
        deep = deep + self.block[1](functional.relu(self.block[0](deep)))
        located = self.localize(deep)
        wide = functional.relu(self.merge8(wide + _double(self.up8(deep))))
        hidden = self._remember(wide, seen.hidden)
        up4 = _double(self.up4(torch.cat([wide, hidden], dim=1)))
        fine = functional.relu(self.merge4(functional.relu(fine + up4)))
        found = self.told[2] * matched[:, :1] + self.told[3] * matched[:, MATCHED : MATCHED + 1]
        rough = self.coarse(fine) + self.told[0] * target[:, :1] + self.told[1] * known + _double(found)
        edge = functional.relu(self.edge(_side_by_side([_double(self.up2(fine)), seen.image], self.edge)))
        log_odds = (_double(rough) + self.sharp(edge))[:, 0]
        return Output(log_odds.clamp(-LOG_ODDS, LOG_ODDS), located[:, :4], located[:, 4], hidden, code, matched)

    def _remember(self, wide: Tensor, hidden: Tensor) -> Tensor:
        """Convolutional GRU (Ballas et al., ICLR 2016)."""
        update, reset = self.gates(torch.cat([wide, hidden], dim=1)).sigmoid().chunk(2, dim=1)
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
        matched = torch.cat([self.matcher.match(code, keys) for keys in (seed, recent)], dim=1)
        found: Output = self.decoder(seen, target_channels(seen.columns, coefficients), code, matched)
        return found


def target_channels(columns: Tensor, coefficients: Tensor) -> Tensor:
    """(K, COLUMNS, a, b) times (K, COLUMNS + 1, TARGET): (K, TARGET, a, b)."""
    said = coefficients[:, :-1].transpose(1, 2) @ columns.flatten(2) + coefficients[:, -1, :, None]
    return said.reshape(*said.shape[:2], *columns.shape[2:])


def place(carried: Carried, flow: Tensor, which: Tensor) -> Tensor:
    """The masks of the frame before, where they are now, (K, h4, w4), 0..1.

    Args:
        carried: Of the frame before.
        flow: Backward flow, float32, (N, 2, h4, w4), pixels.
        which: int64, (K,), the frame of each object.
    """
    points = _points(flow)
    return sample_crop(carried.probability, carried.boxes, points if len(flow) == 1 else points[which])[:, 0]


def crops_around(priors: Tensor) -> Tensor:
    """Crops (K, 4) around boxes of warped masks (K, 4), pixels: squares, so that nothing is seen distorted."""
    centre = (priors[:, :2] + priors[:, 2:]) / 2
    side = ((priors[:, 2:] - priors[:, :2]).amax(dim=1, keepdim=True) * CONTEXT).clamp(min=SMALLEST)
    return torch.cat([centre - side / 2, centre + side / 2], dim=1)


def see(
    shared: Shared,
    which: Tensor,
    boxes: Tensor,
    carried: Carried,
    others: Tensor,
    recurs: Tensor | None = None,
    warps: Tensor | None = None,
) -> Seen:
    """Cut out what the decoder looks at.

    Args:
        shared: N frames.
        which: int64, (K,): the frame of each object.
        boxes: float32, (K, 4): crops, pixels.
        carried: Of the frame before.
        others: Most of the warped masks of the other objects, float32, (K, h4, w4).
        recurs: float32, (K,): 0 where the hidden state is off; None: 1.
        warps: float32, (): 0 where what is carried stays where it was; None: 1.
    """
    rois = torch.cat([which[:, None].to(boxes.dtype), boxes], dim=1)
    own = torch.cat([torch.arange(boxes.shape[0], device=boxes.device)[:, None].to(boxes.dtype), boxes], dim=1)
    flow = crop(shared.flow, rois, CROP, 1 / STRIDE)
    half = functional.avg_pool2d(flow, 2)
    fine, coarse = (part if warps is None else part * warps for part in (flow, half))
    points = cell_centres(boxes, CROP) + fine.permute(0, 2, 3, 1)
    coarse = cell_centres(boxes, CROP // 2) + coarse.permute(0, 2, 3, 1)
    hidden = sample_crop(carried.hidden, carried.boxes, coarse)
    return Seen(
        image=crop(shared.image, rois, FINE, 1.0),
        columns=crop(shared.columns, rois, CROP, 1 / STRIDE),
        stride8=crop(shared.stride8, rois, CROP // 2, 1 / STRIDES[1]),
        stride16=crop(shared.stride16, rois, CROP // 4, 1 / STRIDES[2]),
        prior=sample_crop(functional.avg_pool2d(carried.probability, 2), carried.boxes, points),
        others=crop(others[:, None], own, CROP, 1 / STRIDE),
        flow=half,
        hidden=hidden if recurs is None else hidden * recurs[:, None, None, None],
    )


def motion_planes(flow: Tensor, prior: Tensor) -> Tensor:
    """Flow as three planes, (K, 3, n, n): its length, and its distance from the object's and its surroundings' motion.

    Lengths are log(1 + pixels). Both motions are affine, fitted by weighted least squares to the flow under the warped
    mask and around it, twice, the second time without what did not fit.

    Args:
        flow: float32, (K, 2, n, n), pixels.
        prior: float32, (K, 1, 2n, 2n), 0..1.
    """
    share = _half(prior)
    lengths = [torch.log1p(flow.square().sum(dim=1, keepdim=True).clamp(min=1e-6).sqrt())]
    for weight in (share, (1 - share).square()):
        off = _misfit(flow, weight)
        off = _misfit(flow, weight / (1 + off.square()))
        lengths.append(torch.log1p(off))
    return torch.cat(lengths, dim=1)


def _misfit(flow: Tensor, weight: Tensor) -> Tensor:
    """Distance of a flow from the affine motion that fits it best, (K, 1, n, n), pixels."""
    count = flow.shape[-1]
    steps = (torch.arange(count, device=flow.device, dtype=flow.dtype) + 0.5) * (2 / count) - 1
    ones = torch.ones(count, count, device=flow.device, dtype=flow.dtype)
    basis = torch.stack([ones, ones * steps, ones * steps[:, None]]).flatten(1)  # (3, n n)
    weighed = weight.flatten(1)[:, None] * basis  # (K, 3, n n)
    square = weighed @ basis.T  # (K, 3, 3)
    square = square + torch.eye(3, device=flow.device, dtype=flow.dtype) * 1e-2
    target = weighed @ flow.flatten(2).transpose(1, 2)  # (K, 3, 2)
    fitted = (_inverse3(square) @ target).transpose(1, 2) @ basis  # (K, 2, n n)
    off = (flow.flatten(2) - fitted).square().sum(dim=1).clamp(min=1e-6).sqrt()
    return off.reshape(-1, 1, count, count)


def _inverse3(matrix: Tensor) -> Tensor:
    """Of symmetric (K, 3, 3), by cofactors: graphs know no solve."""
    a, b, c = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2]
    d, e, f = matrix[:, 1, 1], matrix[:, 1, 2], matrix[:, 2, 2]
    rows = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    determinant = a * rows[0] + b * rows[1] + c * rows[2]
    cofactors = torch.stack([rows[k] for k in (0, 1, 2, 1, 3, 4, 2, 4, 5)], dim=1).reshape(-1, 3, 3)
    return cofactors / determinant[:, None, None]


def _points(flow: Tensor) -> Tensor:
    """Where each cell was, (N, h4, w4, 2), (x, y) in pixels of the frame before."""
    height, width = flow.shape[-2:]
    x = (torch.arange(width, device=flow.device, dtype=flow.dtype) + 0.5) * STRIDE + flow[:, 0]
    y = (torch.arange(height, device=flow.device, dtype=flow.dtype) + 0.5)[:, None] * STRIDE + flow[:, 1]
    return torch.stack([x, y], dim=-1)


def _within(share: Tensor) -> Tensor:
    """Where each cell lies from the middle of a mask, in its extent, (K, 2, n, n), cut at 2."""
    count = share.shape[-1]
    steps = (torch.arange(count, device=share.device, dtype=share.dtype) + 0.5) / count
    mass = share.sum(dim=(1, 2, 3)).clamp(min=1e-3)[:, None]
    planes = []
    for axis in (3, 2):
        profile = share.sum(dim=(1, 5 - axis))  # along this axis
        mean = (profile * steps).sum(dim=1, keepdim=True) / mass
        spread = ((profile * (steps - mean).square()).sum(dim=1, keepdim=True) / mass).clamp(min=1e-4).sqrt()
        offset = ((steps - mean) / (2 * spread)).clamp(-2, 2)
        planes.append(
            offset[:, None, None, :].expand(-1, 1, count, -1)
            if axis == 3
            else offset[:, None, :, None].expand(-1, 1, -1, count)
        )
    return torch.cat(planes, dim=1)


def _chessboard(planes: Tensor) -> Tensor:
    """Every second cell of (K, C, n, n), (K, C, n n / 2)."""
    even, odd = planes[:, :, ::2, ::2], planes[:, :, 1::2, 1::2]
    return torch.cat([even.flatten(2), odd.flatten(2)], dim=2)


def _half(planes: Tensor) -> Tensor:
    return functional.avg_pool2d(planes, 2)


def _double(planes: Tensor) -> Tensor:
    return functional.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)


def in_blocks(net: StepNet) -> StepNet:
    """A copy whose convolutions of planes side by side take whole blocks of 8, the last ones with weight 0.

    ONNX Runtime's fast convolutions are for whole blocks of a vector alone (NCHWc).
    """
    copied = copy.deepcopy(net)
    decoder = copied.decoder
    for name in ("fine", "middle", "edge"):
        conv: nn.Conv2d = getattr(decoder, name)
        wide = _conv(conv.in_channels + -conv.in_channels % 8, conv.out_channels)
        with torch.no_grad():
            wide.weight.zero_()[:, : conv.in_channels] = conv.weight
            wide.bias.copy_(conv.bias)  # type: ignore[union-attr,arg-type]
        setattr(decoder, name, wide.requires_grad_(False))
    return copied


def _side_by_side(planes: list[Tensor], conv: nn.Conv2d) -> Tensor:
    """Planes as one, filled up with some of them to what a convolution takes, see ``in_blocks``."""
    whole = torch.cat(planes, dim=1)
    missing = conv.in_channels - sum(part.shape[1] for part in planes)
    return torch.cat([*planes, whole[:, :missing]], dim=1) if missing else whole


def _conv(entering: int, leaving: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, stride, padding=dilation, dilation=dilation)


__all__ = [
    "Carried",
    "Decoder",
    "Encoder",
    "Keys",
    "Matcher",
    "Output",
    "Seen",
    "Shared",
    "StepNet",
    "crops_around",
    "motion_planes",
    "place",
    "scale_boxes",
    "see",
    "target_channels",
]
