# SPDX-License-Identifier: Apache-2.0
"""The flow backends by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskrnn_ros.config import FlowConfig
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.flow.epicflow import EpicFlow
from maskrnn_ros.flow.estimator import FlowEstimator
from maskrnn_ros.flow.raft import RaftFlow

BACKENDS: dict[str, Callable[[FlowConfig, torch.device], FlowEstimator]] = {
    "dis": lambda config, device: DisFlow(config.preset, device),
    "raft": lambda config, device: RaftFlow(config.weights, device, config.raft, config.iterations),
    "epicflow": lambda config, device: EpicFlow(config.preset, device),
}
"""What makes the estimator of a name from its settings; its flow comes on the device."""


def build_flow(config: FlowConfig, device: torch.device) -> FlowEstimator:
    """The estimator that the config names; its flow comes on ``device``.

    Raises:
        RuntimeError: In one line, why it cannot be had: its weights cannot be read, a package is missing.
    """
    return BACKENDS[chosen(config, device)](config, device)


def chosen(config: FlowConfig, device: torch.device) -> str:
    """The backend's name; ``auto`` is resolved by the device: on the CPU dis, else raft where it is given weights.

    >>> chosen(FlowConfig(backend="auto"), torch.device("cpu"))
    'dis'
    """
    if config.backend != "auto":
        return config.backend
    return "raft" if device.type != "cpu" and config.weights != "shipped" else "dis"
