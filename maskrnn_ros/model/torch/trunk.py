# SPDX-License-Identifier: Apache-2.0
"""The trunk as it ships: trained so that what is fitted on one frame is right on others (``training.trunk``)."""

from __future__ import annotations

from torch import nn

from maskrnn_ros.model.shapes import COLUMNS
from maskrnn_ros.model.torch.backbone import Lite0
from maskrnn_ros.model.torch.head import HeadStart


class TrainedTrunk(nn.Module):
    """EfficientNet-Lite0 and the layer that makes columns of its features, both trained.

    Args:
        channels: Of the columns.
    """

    def __init__(self, channels: int = COLUMNS) -> None:
        super().__init__()
        self.net = Lite0()
        self.start = HeadStart(channels)
