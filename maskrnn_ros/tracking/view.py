# SPDX-License-Identifier: Apache-2.0
"""A frame on its way from the frame before: what its instances share, and how the network looks at one of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import NetworkConfig
from maskrnn_ros.model.backbone import cells_of
from maskrnn_ros.model.engine import Network
from maskrnn_ros.model.network import (
    CONTEXT,
    ROI_ENLARGE,
    STRIDE,
    FrameCode,
    Hidden,
    apply_deltas,
    crops_with,
    paste,
    planes_in,
    region_of,
    scale_boxes,
    warp_hidden,
)
from maskrnn_ros.tracking.crew import Crew
from maskrnn_ros.tracking.gate import box_of
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import Box


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """One instance, ready to be looked at.

    Args:
        box: float32, (1, 4), x0 y0 x1 y1: of its carried mask, pixels.
        crop: float32, (1, 4): what is looked at.
        planes: float32, (1, 3, rows, columns): see ``network.PLANES``, in ``cells``.
        cells: Which cells of stride 4; they hold the crop.
        hidden: Its hidden state where it is now; None is zero.
    """

    box: Tensor
    crop: Tensor
    planes: Tensor
    cells: Box
    hidden: Tensor | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sight:
    """What the network says of one instance.

    Args:
        added: float32, (1, CROP, CROP): log-odds that it adds to those of the other parts, in the crop.
        crop: float32, (1, 4), x0 y0 x1 y1, pixels.
        corners: float32, (1, 4): the box that it predicts, pixels; None where it was not asked.
        presence: Probability that the instance is visible, 0..1, likewise.
        hidden: Its hidden state for the next frame; None where the config has none.
    """

    added: Tensor
    crop: Tensor
    corners: Tensor | None
    presence: float | None
    hidden: Hidden | None

    def within(self, box: Box) -> Tensor:
        """The log-odds at the pixels of a box; minus infinity outside the crop."""
        crop = self.crop - self.crop.new_tensor([[box.x0, box.y0, box.x0, box.y0]])
        return paste(self.added, crop, (box.height, box.width), outside=-torch.inf)[0]


class View:
    """A frame and its way from the frame before; what its instances share is computed when the first one asks.

    Args:
        frame: The frame.
        flow: Backward flow to the frame before, float32, (2, h, w), pixels.
        network: The network, frozen; None without one. The frame needs a trunk then.
        config: What of the network is on.
    """

    def __init__(self, frame: PreparedFrame, flow: Tensor, network: Network | None, config: NetworkConfig) -> None:
        self.frame = frame
        self.flow = flow
        self._network = network
        self._config = config

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the working image."""
        return self.frame.image.shape[1], self.frame.image.shape[2]

    @property
    def has_network(self) -> bool:
        """Whether there is a network to look with."""
        return self._network is not None

    def share(self, crew: Crew, with_descriptors: bool) -> None:
        """Compute what the instances share now, and not when the first one asks."""
        _ = self.maps
        described = (self._share_descriptors,) if with_descriptors else ()
        crew.call(self._share_code, self._share_motion, *described)

    def _share_code(self) -> None:
        if self._network is not None:
            _ = self.code, self.weights

    def _share_motion(self) -> None:
        _ = self._origin, self._reach

    def _share_descriptors(self) -> None:
        _ = self.frame.descriptors

    @functools.cached_property
    def maps(self) -> list[Tensor]:
        """Features at strides 4, 8, 16, float32 (1, C, j, i)."""
        return [map_[None].float() for map_ in self.frame.features.maps]

    @functools.cached_property
    def coarse_flow(self) -> Tensor:
        """The flow at the cells of stride 4, float32 (1, 2, h4, w4), still in pixels."""
        return torch.stack([cells_of(part, STRIDE) for part in self.flow])[None]

    @functools.cached_property
    def code(self) -> FrameCode:
        """What all instances share. The way to the next frame is not known yet: its magnitude is zero."""
        assert self._network is not None
        back = torch.hypot(*self.coarse_flow[0])
        magnitudes = torch.stack([back, torch.zeros_like(back)])
        if not self._config.flow_stream:
            magnitudes = torch.zeros_like(magnitudes)
        return self._network.encode(self.frame.image[None], self.maps, magnitudes[None])

    @functools.cached_property
    def weights(self) -> list[float]:
        """Weights of the other parts' log-odds, in the order of ``network.PLANES``."""
        assert self._network is not None
        weights: list[float] = self._network.weights.tolist()
        return weights

    @functools.cached_property
    def _origin(self) -> Tensor:
        """Where each pixel was, (2, h, w), (x, y) of the frame before."""
        height, width = self.size
        columns = torch.arange(width, device=self.flow.device, dtype=self.flow.dtype)
        rows = torch.arange(height, device=self.flow.device, dtype=self.flow.dtype)
        return torch.stack([columns + self.flow[0], rows[:, None] + self.flow[1]])

    @functools.cached_property
    def _reach(self) -> int:
        """The largest motion, pixels."""
        return int(self.flow.abs().amax().ceil())

    def carried(self, patch: Patch) -> Patch:
        """What the frame before knew, where it is now: ``flow.warp`` of a map that is 0 outside a box."""
        if patch.box is None:
            return Patch.nothing(self.size, self.flow.device)
        old = patch.box
        near = old.grown(self._reach + 1, self.size)
        x, y = self._origin[(slice(None), *near.slices)]
        inside = (x > old.x0 - 1) & (x < old.x1) & (y > old.y0 - 1) & (y < old.y1)
        found = box_of(inside, 1)
        if found is None:
            return Patch.nothing(self.size, self.flow.device)
        # in grid_sample's unit -1 and 1 are the outer edges of what is sampled, here the old box
        grid_x = ((x[found.slices] + 0.5) - old.x0) * (2 / old.width) - 1
        grid_y = ((y[found.slices] + 0.5) - old.y0) * (2 / old.height) - 1
        grid = torch.stack([grid_x, grid_y], dim=-1)[None]
        values = functional.grid_sample(patch.values[None, None], grid, align_corners=False)[0, 0]
        return Patch(values, found.moved(near.x0, near.y0), self.size)

    def allowed(self, patch: Patch) -> Patch:
        """Probability without what lies in the frame's ignore mask."""
        return patch.without(self.frame.unknown)

    def ready(self, box: Box, planes: Tensor, cells: Box, hidden: Hidden | None) -> Look:
        """Make an instance ready to be looked at.

        Args:
            box: Where it should be, pixels; what is around it is looked at, too (``network.CONTEXT``).
            planes: See ``network.PLANES``, float32, (3, rows, columns).
            cells: Which cells of stride 4 they are of; what of the crop lies in the image must lie in them.
            hidden: Its hidden state of the frame before.
        """
        priors = torch.tensor([[box.x0, box.y0, box.x1, box.y1]], dtype=torch.float32, device=self.flow.device)
        crops = scale_boxes(priors, CONTEXT)
        state = None
        if hidden is not None and self._config.hidden:
            state = warp_hidden(hidden, crops, self.coarse_flow, torch.zeros_like(priors[:, 0], dtype=torch.int64))
        return Look(box=priors, crop=crops, planes=planes[None], cells=cells, hidden=state)

    @torch.no_grad()
    def look(self, looks: Sequence[Look]) -> list[Sight]:
        """Look at instances.

        In a batch the numbers of one may depend on how many others there are; on a CPU, where a batch is not faster,
        each is looked at alone.
        """
        return self._look(looks) if looks else []

    def _look(self, looks: Sequence[Look]) -> list[Sight]:
        assert self._network is not None
        seen, moved = self._crops(looks)
        hidden = None
        if any(one.hidden is not None for one in looks):
            zeros = next(torch.zeros_like(one.hidden) for one in looks if one.hidden is not None)
            hidden = torch.cat([zeros if one.hidden is None else one.hidden for one in looks])
        added, state = self._network.streams(seen, moved, hidden)
        located = self._located(looks) if self._config.localization else [(None, None)] * len(looks)
        return [
            Sight(
                added=added[k : k + 1],
                crop=one.crop,
                corners=corners,
                presence=presence,
                hidden=Hidden(state[k : k + 1], one.crop) if self._config.hidden else None,
            )
            for k, (one, (corners, presence)) in enumerate(zip(looks, located, strict=True))
        ]

    def _crops(self, looks: Sequence[Look]) -> tuple[Tensor, Tensor]:
        first = torch.zeros(len(looks), dtype=torch.int64, device=self.flow.device)
        own = [planes_in(one.planes, first[:1], _in_cells(one.crop, one.cells)) for one in looks]  # each its own size
        return crops_with(self.code, first, torch.cat([one.crop for one in looks]), torch.cat(own))

    def _located(self, looks: Sequence[Look]) -> list[tuple[Tensor, float]]:
        assert self._network is not None
        first = torch.zeros(1, dtype=torch.int64, device=self.flow.device)
        regions = []
        for one in looks:
            grown = scale_boxes(one.box, ROI_ENLARGE)
            regions.append(region_of(self.code, first, grown, one.planes, first, _in_cells(grown, one.cells)))
        deltas, presence = self._network.localization(torch.cat(regions))
        corners = apply_deltas(torch.cat([one.box for one in looks]), deltas)
        return [(corners[k : k + 1], there) for k, there in enumerate(presence.sigmoid().tolist())]


def _in_cells(boxes: Tensor, cells: Box) -> Tensor:
    """Boxes (K, 4) in the pixels of a part of the frame."""
    return boxes - boxes.new_tensor([[cells.x0, cells.y0, cells.x0, cells.y0]]) * STRIDE
