# SPDX-License-Identifier: Apache-2.0
"""The flow backends by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from maskrnn_ros.config import Config, FlowConfig
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.flow.epicflow import EpicFlow
from maskrnn_ros.flow.estimator import FlowEstimator
from maskrnn_ros.flow.flownet import FLOWNET, FlowNetFlow
from maskrnn_ros.flow.raft import RaftFlow
from maskrnn_ros.quality import at_level

BACKENDS: dict[str, Callable[[FlowConfig, torch.device], FlowEstimator]] = {
    "dis": lambda config, device: DisFlow(config.preset, device),
    "flownet": lambda config, device: FlowNetFlow(FLOWNET if config.weights == "shipped" else config.weights, device),
    "raft": lambda config, device: RaftFlow(config.weights, device, config.raft, config.iterations),
    "epicflow": lambda config, device: EpicFlow(config.preset, device),
}
"""What makes the estimator of a name from its settings; its flow comes on the device."""


def build_flow(config: FlowConfig, device: torch.device) -> FlowEstimator:
    """The estimator that the config names; its flow comes on ``device``.

    Raises:
        RuntimeError: In one line, why it cannot be had: its weights cannot be read, a package is missing.
    """
    if config.preset == "auto":  # no level of quality is at hand: the preset of the default one
        config = dataclasses.replace(config, preset=at_level(Config(), Config().quality).flow.preset)
    return BACKENDS[chosen(config, device)](config, device)


def chosen(config: FlowConfig, device: torch.device) -> str:
    """The backend's name; ``auto`` is resolved by the device: dis on the CPU, else flownet.

    >>> chosen(FlowConfig(backend="auto"), torch.device("cpu"))
    'dis'
    """
    if config.backend != "auto":
        return config.backend
    return "dis" if device.type == "cpu" else "flownet"
