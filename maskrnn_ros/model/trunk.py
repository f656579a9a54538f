# SPDX-License-Identifier: Apache-2.0
"""The trunk as it ships: trained so that heads fitted on one frame are right on others (``training.trunk``)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from maskrnn_ros.model.backbone import Features, Lite0
from maskrnn_ros.model.head import HeadStart
from maskrnn_ros.model.similarity import nearest

HEAD_CHANNELS = 48
"""Of the heads that learned with the trunk."""


class Trunk(Protocol):
    """Computes the features that all instances share."""

    @property
    def start(self) -> HeadStart | None:
        """What heads on its features begin with; None: with nothing."""
        ...

    def features(self, image: Tensor) -> Features:
        """Features of one image, RGB, uint8 (3, h, w)."""
        ...

    def nearest(self, queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Compare descriptors of features, see ``similarity.Nearest``."""
        ...

    def aside(self) -> Trunk:
        """The same for a thread beside the stream, which leaves it the other cores."""
        ...


class TrainedTrunk(nn.Module):
    """EfficientNet-Lite0 and the start of the heads, both trained.

    Args:
        channels: Of the heads.
    """

    def __init__(self, channels: int = HEAD_CHANNELS) -> None:
        super().__init__()
        self.net = Lite0()
        self.start = HeadStart(channels)

    def features(self, image: Tensor) -> Features:
        """See ``Trunk``."""
        return self.net.features(image)

    def nearest(self, queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Trunk``."""
        return nearest(queries, keys, count)

    def aside(self) -> Trunk:
        """See ``Trunk``; in torch there is nothing to change."""
        return self


def net_of(trunk: Trunk) -> Lite0:
    """The module that computes the features of a trunk in torch."""
    net = trunk.net if isinstance(trunk, TrainedTrunk) else trunk
    assert isinstance(net, Lite0)  # there is no other one
    return net
