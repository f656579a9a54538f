# SPDX-License-Identifier: Apache-2.0
"""The flow backends: those of the package by name, others as ``package.module:factory``.

Each is imported where it is asked for. What makes one takes the settings and a device, cpu, cuda or cuda:N, and gives a
``FlowEstimator``; a backend of one's own is one such function in a module of one's own.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from maskrnn_ros.config import Config
from maskrnn_ros.expected import TORCH_HINT
from maskrnn_ros.factory import made_by
from maskrnn_ros.flow.estimator import FlowEstimator
from maskrnn_ros.quality import resolved
from maskrnn_ros.sections import FlowConfig

Factory = Callable[[FlowConfig, str], FlowEstimator]


def _dis(config: FlowConfig, device: str) -> FlowEstimator:
    from maskrnn_ros.flow.dis import DisFlow

    return DisFlow(config.preset)


def _epicflow(config: FlowConfig, device: str) -> FlowEstimator:
    from maskrnn_ros.flow.epicflow import EpicFlow

    return EpicFlow(config.preset)


def _flownet(config: FlowConfig, device: str) -> FlowEstimator:
    _needs_torch("flownet")
    from maskrnn_ros.flow.torch.flownet import FlowNetFlow
    from maskrnn_ros.model.files import FLOWNET

    return FlowNetFlow(FLOWNET if config.weights == "shipped" else config.weights, device)


def _raft(config: FlowConfig, device: str) -> FlowEstimator:
    _needs_torch("raft")
    from maskrnn_ros.flow.torch.raft import RaftFlow

    return RaftFlow(config.weights, device, config.raft, config.iterations)


BACKENDS: dict[str, Factory] = {
    "dis": _dis,
    "flownet": _flownet,
    "raft": _raft,
    "epicflow": _epicflow,
}
"""What makes those of the package."""


def build_flow(config: FlowConfig, device: str = "cpu") -> FlowEstimator:
    """The estimator that the config names.

    Raises:
        RuntimeError: In one line, why it cannot be had: its weights cannot be read, a package is missing, or what one's
            own factory says.
    """
    if config.preset == "auto":  # no level of quality is at hand: the preset of the default one
        config = dataclasses.replace(config, preset=resolved(Config()).flow.preset)
    name = chosen(config, device)
    return BACKENDS[name](config, device) if name in BACKENDS else _own(name, config, device)


def _own(name: str, config: FlowConfig, device: str) -> FlowEstimator:
    """The estimator of a factory of one's own; of its module anything may come, and each is said in one line."""
    try:
        found: FlowEstimator = made_by(name, config, device)
    except ValueError as error:
        raise RuntimeError(f"flow.backend {name}: {error}") from error
    if not callable(found):
        raise RuntimeError(f"flow.backend {name}: expected a FlowEstimator, got {type(found).__name__}")
    return found


def chosen(config: FlowConfig, device: str) -> str:
    """The backend's name; ``auto`` is resolved by the device: dis on the CPU, else flownet.

    >>> chosen(FlowConfig(backend="auto"), "cpu")
    'dis'
    """
    if config.backend != "auto":
        return config.backend
    return "dis" if device == "cpu" else "flownet"


def _needs_torch(backend: str) -> None:
    for package in ("torch", "torchvision"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise RuntimeError(
                f"flow.backend {backend} needs {package}, which is not installed: {TORCH_HINT}"
            ) from error
