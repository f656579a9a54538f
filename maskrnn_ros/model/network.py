# SPDX-License-Identifier: Apache-2.0
"""The network of the ``fast`` profile: two streams and a localization net per object, on what a frame's objects share.

MaskRNN (Hu, Huang, Schwing, NIPS 2017) runs two VGG-16 streams on the whole frame for every object. Here the trunk
runs once per frame (``backbone``), and each object's warped mask enters late, in light heads on a crop around it:

    features, strides 4, 8, 16     -- encode -->  code           once per frame
    |flow| back and forth          -- encode -->  flow code      once per frame
    per object, 64 x 64 cells of its crop:
      RGB, code, planes, hidden state  -- appearance stream --> a   (4 channels in the paper: RGB and warped mask)
      flow code, warped mask           -- flow stream       --> f   (3 channels: two magnitudes and warped mask)
      log-odds = a + f + weights . planes                           the linear fusion of both streams
      code and planes, 7 x 7           -- localization net  --> box deltas, presence

``planes`` is what is known of the object in every cell: the warped mask, the matching with its seed, and its own head
that was fine-tuned online. A part that is off has a plane of zeros, and was so at times in training; hence presets are
settings that the network has seen.

The last convolutions of both streams start at zero, and the weights of the planes at those that the parts have without
a network: before training it says exactly what they say together, and what it learns comes on top.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from maskrnn_ros.model.backbone import CHANNELS, STRIDES
from maskrnn_ros.model.compiled import Compiled

CROP = 64
"""Cells of a crop, in each direction."""

CONTEXT = 1.6
"""Width and height of a crop over those of the box of the warped mask."""

PLANES = ("prior", "matching", "head")
"""Log-odds / LOG_ODDS in every cell: -1 is surely not the object, 0 says nothing, 1 surely is."""

LOG_ODDS = 8.0
STRIDE = STRIDES[0]
CODE, FLOW_CODE, HIDDEN = 32, 8, 16
"""Channels of the code, of the flow's code and of the hidden state."""

_WIDE, _MOTION = 48, 16
_PLANE_WEIGHTS = (0.25, 0.25, 1.0)
ROI_ENLARGE = 1.25
"""Width and height of what the localization net sees over those of the box of the warped mask."""

_ROI = 7
_LOCALIZATION = 128


@dataclasses.dataclass(frozen=True, eq=False)
class FrameCode:
    """What all objects of a frame share, N frames at a time.

    Args:
        image: float32, (N, 3, h, w), RGB in -1..1.
        code: float32, (N, CODE, h4, w4).
        flow: float32, (N, FLOW_CODE, h4, w4).
    """

    image: Tensor
    code: Tensor
    flow: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Hidden:
    """Hidden states of K objects.

    Args:
        state: float32, (K, HIDDEN, CROP / 2, CROP / 2).
        boxes: float32, (K, 4), x0 y0 x1 y1 of the crops that they belong to, pixels of their working image.
    """

    state: Tensor
    boxes: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """What the network says of K objects.

    Args:
        log_odds: float32, (K, CROP, CROP), in the crops.
        added: Likewise: the part of them that the streams add to the planes.
        deltas: float32, (K, 4), of the box against that of the warped mask (Fast R-CNN: dx, dy, log dw, log dh).
        presence: float32, (K,), log-odds that the object is visible.
        hidden: For the next frame.
    """

    log_odds: Tensor
    added: Tensor
    deltas: Tensor
    presence: Tensor
    hidden: Hidden


class FastNet(nn.Module):
    """The network; see the module."""

    def __init__(self) -> None:
        super().__init__()
        # once per frame
        self.narrow = nn.ModuleList(nn.Conv2d(channels, CODE, 1, bias=k == 0) for k, channels in enumerate(CHANNELS))
        self.flow = nn.Sequential(_conv(2, FLOW_CODE), nn.ReLU(), _conv(FLOW_CODE, FLOW_CODE), nn.ReLU())
        # appearance stream
        entering = 3 + CODE + len(PLANES)
        self.fine = _conv(entering, CODE)
        self.down = _conv(CODE, _WIDE, stride=2)
        self.gates = _conv(_WIDE + HIDDEN, 2 * HIDDEN)
        self.candidate = _conv(_WIDE + HIDDEN, HIDDEN)
        self.wide = _conv(_WIDE + HIDDEN, _WIDE, dilation=2)
        self.up = nn.Conv2d(_WIDE, CODE, 1)
        self.merge = _conv(CODE, CODE)
        self.appearance = nn.Conv2d(CODE, 1, 1)
        # flow stream
        self.motion = nn.Sequential(_conv(FLOW_CODE + 1, _MOTION), nn.ReLU(), _conv(_MOTION, _MOTION), nn.ReLU())
        self.moving = nn.Conv2d(_MOTION, 1, 1)
        # fusion and localization
        self.weights = nn.Parameter(torch.tensor(_PLANE_WEIGHTS))
        self.localize = nn.Sequential(
            nn.Flatten(), nn.Linear((CODE + len(PLANES)) * _ROI * _ROI, _LOCALIZATION), nn.ReLU()
        )
        self.located = nn.Linear(_LOCALIZATION, 5)
        for last in (self.appearance, self.moving, self.located):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self._encode = Compiled(self, self.encoded)
        self._streams = Compiled(self, self.streamed)

    def compile_with(self, mode: str) -> None:
        """How it is compiled from now on, see ``compiled.MODES``; not the localization net, which is tiny."""
        self._encode.mode = self._streams.mode = mode

    @property
    def _kind(self) -> torch.dtype:
        """What its convolutions compute in; what goes in and comes out is float32 all the same."""
        return self.up.weight.dtype

    def encode(self, images: Tensor, maps: list[Tensor], magnitudes: Tensor) -> FrameCode:
        """What the objects of N frames share.

        Args:
            images: RGB, uint8, (N, 3, h, w).
            maps: Features of strides 4, 8, 16, (N, CHANNELS[k], ., .).
            magnitudes: Length of the flow t -> t-1 and t -> t+1 in pixels, float32, (N, 2, h4, w4); zeros where one
                is not known.
        """
        code, flow = self._encode(*(value.to(self._kind) for value in (*maps, magnitudes)))
        return FrameCode(scaled(images), code.float(), flow.float())

    def encoded(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Code and flow code, from the features and the magnitudes."""
        *maps, magnitudes = inputs
        size = maps[0].shape[-2:]
        code = self.narrow[0](maps[0])
        for narrow, map_, stride in zip(self.narrow[1:], maps[1:], STRIDES[1:], strict=True):
            enlarged = functional.interpolate(narrow(map_), scale_factor=stride // STRIDE, mode="bilinear")
            code = code + enlarged[..., : size[0], : size[1]]
        return functional.relu(code), self.flow(torch.log1p(magnitudes))

    def forward(
        self, frame: FrameCode, which: Tensor, boxes: Tensor, priors: Tensor, planes: Tensor, hidden: Tensor | None
    ) -> Output:
        """Look at K objects.

        Args:
            frame: N frames.
            which: int64, (K,): the frame of each object.
            boxes: float32, (K, 4): crops, x0 y0 x1 y1 in pixels of the working image; may reach over its border.
            priors: float32, (K, 4): boxes of the warped masks, likewise; what the deltas are relative to.
            planes: float32, (K, 3, h4, w4), see ``PLANES``.
            hidden: float32, (K, HIDDEN, CROP / 2, CROP / 2), already warped; None is zero.
        """
        own = torch.arange(len(boxes), device=boxes.device)
        seen, moved = crops_of(frame, which, boxes, planes, own, boxes)
        added, state = self.streams(seen, moved, hidden)
        told = LOG_ODDS * (seen[:, -len(PLANES) :] * self.weights[:, None, None]).sum(dim=1)
        grown = scale_boxes(priors, ROI_ENLARGE)
        deltas, presence = self.localization(region_of(frame, which, grown, planes, own, grown))
        return Output(added + told, added, deltas, presence, Hidden(state, boxes))

    def streams(self, seen: Tensor, moved: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams on K crops, see ``crops_of``.

        Returns:
            Log-odds that they add to the planes, float32 (K, CROP, CROP); hidden state (K, HIDDEN, CROP / 2, CROP / 2).
        """
        if hidden is None:
            hidden = seen.new_zeros(len(seen), HIDDEN, CROP // 2, CROP // 2)
        added, state = self._streams(*(value.to(self._kind) for value in (seen, moved, hidden)))
        return added.float(), state.float()

    def streamed(self, seen: Tensor, moved: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """What ``streams`` returns."""
        fine = functional.relu(self.fine(seen))  # (K, 32, 64, 64)
        coarse = functional.relu(self.down(fine))  # (K, 48, 32, 32)
        state = self._remember(coarse, hidden)  # (K, 16, 32, 32)
        wide = functional.relu(self.wide(torch.cat([coarse, state], dim=1)))  # (K, 48, 32, 32)
        both = fine + functional.interpolate(self.up(wide), scale_factor=2, mode="bilinear")
        appearance = self.appearance(functional.relu(self.merge(both)))  # (K, 1, 64, 64)
        motion = self.moving(self.motion(moved))  # (K, 1, 64, 64)
        return (appearance + motion)[:, 0], state

    def localization(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """The localization net on K regions, see ``region_of``: deltas (K, 4) and log-odds of the presence (K,)."""
        located = self.located(self.localize(region.to(self._kind))).float()
        return located[:, :4], located[:, 4]

    def _remember(self, coarse: Tensor, hidden: Tensor) -> Tensor:
        """Convolutional GRU (Ballas et al., ICLR 2016)."""
        update, reset = self.gates(torch.cat([coarse, hidden], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([coarse, reset * hidden], dim=1)).tanh()
        kept: Tensor = (1 - update) * hidden + update * candidate
        return kept


def scaled(images: Tensor) -> Tensor:
    """Images of 0..255 as the streams see them, float32 in -1..1."""
    return images.float().mul_(1 / 127.5).sub_(1)


def crops_of(
    frame: FrameCode, which: Tensor, boxes: Tensor, planes: Tensor, own: Tensor, own_boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """What the streams see of K objects.

    Args:
        frame: N frames.
        which: int64, (K,): the frame of each object.
        boxes: float32, (K, 4): crops, pixels.
        planes: float32, (M, 3, ., .), see ``PLANES``: of whole frames, or of parts of them that hold the crops.
        own: int64, (K,): the planes of each object.
        own_boxes: The crops in the pixels of the planes.

    Returns:
        (K, 3 + CODE + 3, CROP, CROP): image, code and planes; (K, FLOW_CODE + 1, CROP, CROP): flow and warped mask.
    """
    return crops_with(frame, which, boxes, planes_in(planes, own, own_boxes))


def planes_in(planes: Tensor, own: Tensor, own_boxes: Tensor) -> Tensor:
    """The planes in crops, (K, 3, CROP, CROP), arguments as for ``crops_of``."""
    return crop(planes, _rois(own, own_boxes), CROP, 1 / STRIDE)


def crops_with(frame: FrameCode, which: Tensor, boxes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The same where the planes are cut out already, ``known``."""
    rois = _rois(which, boxes)
    seen = torch.cat([crop(frame.image, rois, CROP, 1.0), crop(frame.code, rois, CROP, 1 / STRIDE), known], dim=1)
    return seen, torch.cat([crop(frame.flow, rois, CROP, 1 / STRIDE), known[:, :1]], dim=1)


def region_of(frame: FrameCode, which: Tensor, boxes: Tensor, planes: Tensor, own: Tensor, own_boxes: Tensor) -> Tensor:
    """What the localization net sees: code and planes in boxes, arguments as for ``crops_of``: (K, CODE + 3, 7, 7)."""
    known = crop(planes, _rois(own, own_boxes), _ROI, 1 / STRIDE)
    return torch.cat([crop(frame.code, _rois(which, boxes), _ROI, 1 / STRIDE), known], dim=1)


def _rois(which: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat([which[:, None].to(boxes.dtype), boxes], dim=1)


def _conv(entering: int, leaving: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, stride, padding=dilation, dilation=dilation)


def crop(maps: Tensor, rois: Tensor, cells: int, scale: float) -> Tensor:
    """RoIAlign (He et al., ICCV 2017), pixel areas aligned: (N, C, ., .) and K rois to (K, C, cells, cells)."""
    found: Tensor = roi_align(maps, rois, cells, scale, sampling_ratio=1 if cells >= CROP else 2, aligned=True)
    return found


def scale_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (K, 4) enlarged about their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def deltas_of(boxes: Tensor, priors: Tensor) -> Tensor:
    """Fast R-CNN's box regression targets (Girshick, ICCV 2015): (K, 4) of boxes against priors."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    old_centre, old_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    return torch.cat([(centre - old_centre) / old_size, (size / old_size).log()], dim=1)


def apply_deltas(priors: Tensor, deltas: Tensor) -> Tensor:
    """The inverse of ``deltas_of``; a side changes at most fourfold."""
    old_centre, old_size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    centre = old_centre + deltas[:, :2] * old_size
    half = old_size * deltas[:, 2:].clamp(-1.4, 1.4).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def cell_centres(boxes: Tensor, cells: int) -> Tensor:
    """Centres of a crop's cells, (K, cells, cells, 2), (x, y) in pixels."""
    steps = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    x, y = ((boxes[:, k, None] + steps * (boxes[:, k + 2] - boxes[:, k])[:, None]) for k in (0, 1))
    return torch.stack([x[:, None, :].expand(-1, cells, -1), y[:, :, None].expand(-1, -1, cells)], dim=-1)


def sample_crop(maps: Tensor, boxes: Tensor, points: Tensor, padding: str = "zeros") -> Tensor:
    """Maps in crops (K, C, n, n) of boxes (K, 4), at points (K, a, b, 2) in pixels: (K, C, a, b), bilinear.

    Outside the crop: 0, or with ``border`` its nearest cell.
    """
    grid = (points - boxes[:, None, None, :2]) / (boxes[:, 2:] - boxes[:, :2])[:, None, None] * 2 - 1
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def warp_hidden(hidden: Hidden, boxes: Tensor, flow: Tensor, which: Tensor) -> Tensor:
    """Hidden states where their objects are now: what is at p in the new crop was at p + flow(p) in the old.

    Args:
        hidden: Of the frame before.
        boxes: float32, (K, 4), the new crops, pixels.
        flow: float32, (N, 2, h4, w4), backward flow of the frames, pixels.
        which: int64, (K,), the frame of each object.

    Returns:
        float32, (K, HIDDEN, CROP / 2, CROP / 2); 0 for what was outside the old crop.
    """
    cells = CROP // 2
    rois = torch.cat([which[:, None].to(boxes.dtype), boxes], dim=1)
    moved = roi_align(flow, rois, cells, 1 / STRIDE, sampling_ratio=1, aligned=True).permute(0, 2, 3, 1)
    return sample_crop(hidden.state, hidden.boxes, cell_centres(boxes, cells) + moved)


def paste(log_odds: Tensor, boxes: Tensor, size: tuple[int, int], outside: float = -LOG_ODDS) -> Tensor:
    """Log-odds of crops (K, n, n) in whole images, float32 (K, h, w); ``outside`` where a crop is not."""
    height, width = size
    steps_x = (torch.arange(width, device=boxes.device) + 0.5).expand(height, width)
    steps_y = (torch.arange(height, device=boxes.device) + 0.5)[:, None].expand(height, width)
    points = torch.stack([steps_x, steps_y], dim=-1).expand(len(boxes), -1, -1, -1)
    found = sample_crop(log_odds[:, None], boxes, points, "border")[:, 0]
    x, y = points[..., 0], points[..., 1]
    corners = boxes[:, None, None]
    inside = (x >= corners[..., 0]) & (x < corners[..., 2]) & (y >= corners[..., 1]) & (y < corners[..., 3])
    return torch.where(inside, found, outside)
