# SPDX-License-Identifier: Apache-2.0
"""Which engine runs the networks: what a config names, or with ``auto`` the fastest that can be had.

Neither ONNX Runtime nor torch is imported before it is taken. On a CPU ``auto`` takes ONNX Runtime where it and the
graphs of these weights are at hand, in int8 if it can, and torch is not needed at all; else, and on a GPU, torch.
"""

from __future__ import annotations

import importlib.util
import logging
import platform
from pathlib import Path

from maskrnn_ros.config import Config
from maskrnn_ros.expected import TORCH_HINT
from maskrnn_ros.model.digests import DamagedError
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.files import network_file, trunk_file

_LOG = logging.getLogger(__name__)

_OF_TORCH = (("precision", "float16"), ("compile", "default"), ("compile", "reduce-overhead"))
"""Settings that only torch knows."""


def load_engine(config: Config) -> Engine:
    """The networks that the config names on the engine that it names.

    Where ``auto`` cannot have what it would take, a warning is logged that says why. What is damaged is passed over by
    ``auto`` alone.

    Raises:
        RuntimeError: Weights or graphs cannot be read, what was asked for is not there, or the engine does not know
            the precision or ``compile``.
    """
    weights, trunk = network_file(config.network.weights), trunk_file(config.trunk.weights)
    if _wants_torch(config):
        return _in_torch(config, trunk, weights)
    try:
        return _in_onnxruntime(config, trunk, weights)
    except (ImportError, RuntimeError) as error:
        if config.engine == "auto" and config.precision != "int8" and has_torch():
            _LOG.warning("engine torch: %s", error)
            return _in_torch(config, trunk, weights)
        raise RuntimeError(f"engine onnxruntime: {error}") from error


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    try:
        return importlib.util.find_spec("torch") is not None
    except ValueError:  # blocked
        return False


def sees_cuda(name: str) -> bool:
    """Whether a device by that name is, or with ``auto`` can be, a GPU; only then torch is asked."""
    if name != "auto":
        return name.startswith("cuda")
    if not has_torch() or not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Whether there may be a GPU: torch, which takes seconds to import, is not asked where there is no driver."""
    return any(
        Path(place).exists() for place in ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg")
    )


def _wants_torch(config: Config) -> bool:
    """Whether torch is asked for, be it by what only torch can do.

    Raises:
        RuntimeError: What is asked for does not go together.
    """
    only_torch = [f"{name} {value}" for name, value in _OF_TORCH if getattr(config, name) == value]
    if config.engine == "onnxruntime" and only_torch:
        raise RuntimeError(f"{only_torch[0]} needs engine torch, got onnxruntime")
    wants = config.engine == "torch" or bool(only_torch)
    if wants and config.precision == "int8":
        raise RuntimeError(f"precision int8 needs engine onnxruntime, got {only_torch[0] if only_torch else 'torch'}")
    return wants or (config.engine == "auto" and config.precision != "int8" and sees_cuda(config.device))


def _in_torch(config: Config, trunk: Path, weights: Path) -> Engine:
    if not has_torch():
        raise RuntimeError(f"engine torch: torch is not installed: {TORCH_HINT}")
    try:
        from maskrnn_ros.model.torch.engine import TorchEngine
    except ImportError as error:  # torchvision, or what they need themselves
        raise RuntimeError(f"engine torch: {' '.join(str(error).split())}: {TORCH_HINT}") from error
    return TorchEngine(config, trunk, weights)


def _in_onnxruntime(config: Config, trunk: Path, weights: Path) -> Engine:
    """In int8 where that is asked for, or else is to be had on a CPU."""
    from maskrnn_ros.model.onnx_engine import OnnxEngine, device_of

    device = device_of(config.device)
    if config.precision != "auto":
        return OnnxEngine(device, config.threads, trunk, weights, config.precision)
    if device == "cpu" and adds_8_bit_products():
        try:
            return OnnxEngine(device, config.threads, trunk, weights, "int8")
        except DamagedError as error:
            if config.engine == "onnxruntime":
                raise
            _LOG.warning("precision float32: %s", error)
        except RuntimeError as error:  # no such graphs, or those of older weights
            _LOG.warning("precision float32: %s", error)
    return OnnxEngine(device, config.threads, trunk, weights, "float32")


def adds_8_bit_products() -> bool:
    """Whether the processor has instructions for int8: x86 only with VNNI; others saturate and gain little."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
