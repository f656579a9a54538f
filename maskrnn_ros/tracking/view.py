# SPDX-License-Identifier: Apache-2.0
"""A frame as the network sees it."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from maskrnn_ros.config import NetworkConfig
from maskrnn_ros.model.backbone import cells_of
from maskrnn_ros.model.network import (
    CONTEXT,
    STRIDE,
    FastNet,
    FrameCode,
    Hidden,
    apply_deltas,
    paste,
    scale_boxes,
    warp_hidden,
)
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import Box


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sight:
    """What the network says of one instance.

    Args:
        added: float32, (h, w): log-odds that it adds to those of the other parts; minus infinity outside the crop.
        corners: float32, (1, 4), x0 y0 x1 y1: the box that it predicts, pixels.
        presence: Probability that the instance is visible, 0..1.
        hidden: Its hidden state for the next frame; None where the config has none.
    """

    added: Tensor
    corners: Tensor
    presence: float
    hidden: Hidden | None


class View:
    """A frame and its way from the frame before; what its instances share is computed when the first one asks.

    Instances are looked at one by one: in a batch the numbers of one could depend on how many others there are.

    Args:
        network: The network, frozen.
        frame: The frame; it needs a trunk.
        flow: Backward flow to the frame before, float32, (2, h, w), pixels.
        config: What of the network is on.
    """

    def __init__(self, network: FastNet, frame: PreparedFrame, flow: Tensor, config: NetworkConfig) -> None:
        self._network = network
        self._frame = frame
        self._flow = flow
        self._config = config

    @functools.cached_property
    def flow(self) -> Tensor:
        """The flow at the cells of stride 4, float32 (1, 2, h4, w4), still in pixels."""
        return torch.stack([cells_of(part, STRIDE) for part in self._flow])[None]

    @functools.cached_property
    def code(self) -> FrameCode:
        """What all instances share. The way to the next frame is not known yet: its magnitude is zero."""
        back = torch.linalg.vector_norm(self.flow[0], dim=0)
        magnitudes = torch.stack([back, torch.zeros_like(back)])
        if not self._config.flow_stream:
            magnitudes = torch.zeros_like(magnitudes)
        maps = [map_[None] for map_ in self._frame.features.maps]
        return self._network.encode(self._frame.image[None], maps, magnitudes[None])

    @functools.cached_property
    def weights(self) -> list[float]:
        """Weights of the other parts' log-odds, in the order of ``network.PLANES``."""
        weights: list[float] = self._network.weights.tolist()
        return weights

    @torch.no_grad()
    def look(self, box: Box, planes: Tensor, hidden: Hidden | None) -> Sight:
        """Look at one instance.

        Args:
            box: Where it should be, pixels; what is around it is looked at, too.
            planes: See ``network.PLANES``, float32, (3, h4, w4).
            hidden: Its hidden state of the frame before.
        """
        device = self._frame.image.device
        size = (self._frame.image.shape[1], self._frame.image.shape[2])
        priors = torch.tensor([[box.x0, box.y0, box.x1, box.y1]], dtype=torch.float32, device=device)
        crops = scale_boxes(priors, CONTEXT)
        first = torch.zeros(1, dtype=torch.int64, device=device)
        state = warp_hidden(hidden, crops, self.flow, first) if hidden is not None and self._config.hidden else None
        out = self._network(self.code, first, crops, priors, planes[None], state)
        return Sight(
            added=paste(out.added, crops, size, outside=-torch.inf)[0],
            corners=apply_deltas(priors, out.deltas),
            presence=float(out.presence[0].sigmoid()),
            hidden=out.hidden if self._config.hidden else None,
        )
