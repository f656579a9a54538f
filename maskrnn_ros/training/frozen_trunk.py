# SPDX-License-Identifier: Apache-2.0
"""The trunk while it does not learn, for processes that draw what a training sees."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.model.onnx_engine import OnnxTrunk
from maskrnn_ros.model.torch.frame_step import Columns
from maskrnn_ros.model.torch.weights import load_trunk


class FrozenTrunk:
    """With ONNX Runtime, which is faster on one core, where it and the graph beside the weights are there.

    Args:
        weights: A file.

    Raises:
        RuntimeError: It cannot be read.
    """

    def __init__(self, weights: Path) -> None:
        trunk = load_trunk(weights)
        self._net, self._columns = trunk.net, Columns(trunk)
        self._graph: OnnxTrunk | None = None
        with contextlib.suppress(ImportError, RuntimeError):
            self._graph = OnnxTrunk(weights)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of strides 4, 8, 16 and columns of an image, uint8 (3, h, w): float32, (C, ., .) each."""
        if self._graph is not None:
            maps, columns = self._graph(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
            return [torch.from_numpy(map_[0]) for map_ in maps], torch.from_numpy(columns[0])
        found = self._net.maps(image[None])
        return [map_[0] for map_ in found], self._columns(*found)[0][0]
