# SPDX-License-Identifier: Apache-2.0
"""What every flow backend does, and how one is chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from maskrnn_ros.config import FlowConfig
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.flow.flownet import FlowNetFlow


class FlowEstimator(Protocol):
    """Computes backward flow: what is at p now was at ``p + flow[:, v, u]`` before."""

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        """Flow from ``current`` back to ``previous``.

        Args:
            current: Image of frame t, RGB, uint8 (3, H, W).
            previous: Image of frame t-1, same shape and device.

        Returns:
            float32 (2, H, W), (dx, dy) in pixels of these images, on the device of the estimator.

        Raises:
            ValueError: The two images differ in shape.
        """
        ...


def build_flow(config: FlowConfig, device: torch.device) -> FlowEstimator:
    """The estimator that the config names; its flow comes on ``device``.

    Raises:
        RuntimeError: Its weights cannot be read.
    """
    backends: dict[str, Callable[[], FlowEstimator]] = {
        "dis": lambda: DisFlow(config.preset, device),
        "flownet": lambda: FlowNetFlow(device=device),
    }
    return backends[config.backend]()
