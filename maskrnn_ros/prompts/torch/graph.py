# SPDX-License-Identifier: Apache-2.0
"""Weights and graph of the prompt network (``prompt_net``).

    prompts.onnx   uint8 views, what is said, features of strides 4, 8, 16   -> log-odds, IoU

The number of views and their pixels are free.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskrnn_ros.model.shapes import CHANNELS, STRIDES
from maskrnn_ros.model.torch.graphs import Exported, needs, placed, traced, written
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.prompts.learned import TRUNK_DIGEST
from maskrnn_ros.prompts.torch.net import PromptNet
from maskrnn_ros.prompts.view import FINE, PLANES, SIDE

INPUTS = ("image", "planes", *(f"stride{stride}" for stride in STRIDES))
OUTPUTS = ("log_odds", "confidence")

_SAMPLES = 3


def load_prompts(path: Path | str, device: torch.device | str = "cpu") -> PromptNet:
    """The prompt network with its weights, frozen.

    Raises:
        RuntimeError: The file is missing or is none, or holds other names or shapes.
    """
    net = PromptNet()
    load_into(net, path)
    return net.to(device).eval().requires_grad_(False)


def export_prompts(weights: Path, out: Path | None = None) -> Exported:
    """Make the graph of weights and compare it with torch on random inputs.

    Args:
        weights: A file that ``maskrnn train prompts`` wrote.
        out: Folder for the graph; None: beside the weights.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        RuntimeError: The weights cannot be read, or do not say with which trunk they learned.
        OSError: The file cannot be written.
    """
    needs("onnx", "onnxruntime")
    net = load_prompts(weights)
    trunk = _metadata(weights).get(TRUNK_DIGEST)
    if trunk is None:
        raise RuntimeError(f"weights {weights} do not say with which trunk they learned ({TRUNK_DIGEST})")
    graph = traced(net.forward, net, _views(2, SIDE), list(INPUTS), list(OUTPUTS), _free())
    file = placed(weights.with_suffix(".onnx"), out)
    return written(
        graph,
        file,
        weights,
        net.forward,
        [_views(k + 1, (SIDE, FINE)[k % 2]) for k in range(_SAMPLES)],
        {TRUNK_DIGEST: trunk},
    )


def _metadata(weights: Path) -> dict[str, str]:
    try:
        with safe_open(str(weights), "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise RuntimeError(f"weights {weights} cannot be read: {' '.join(str(error).split())}") from error


def _free() -> dict[str, dict[int, str]]:
    """The names of the sizes of inputs and outputs that are free."""
    full = {0: "views", 2: "rows", 3: "columns"}
    strides = {f"stride{stride}": {0: "views", 2: f"rows{stride}", 3: f"columns{stride}"} for stride in STRIDES}
    return {
        "image": full,
        "planes": full,
        **strides,
        "log_odds": {0: "views", 1: "rows", 2: "columns"},
        "confidence": {0: "views"},
    }


def _views(count: int, side: int) -> tuple[Tensor, ...]:
    maps = (
        torch.randn(count, channels, side // stride, side // stride)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    )
    planes = (torch.rand(count, PLANES, side, side) > 0.9).float()
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8), planes, *maps
