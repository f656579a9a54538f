# SPDX-License-Identifier: Apache-2.0
"""RAFT flow by torchvision (Teed and Deng: RAFT, Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_large, raft_small

from maskrnn_ros.flow.estimator import check_images
from maskrnn_ros.flow.torch.on_device import OnDevice
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.types import UInt8Array

_NETWORKS = {"small": raft_small, "large": raft_large}
_DOWNLOADS = {"small": Raft_Small_Weights.DEFAULT, "large": Raft_Large_Weights.DEFAULT}
_STRIDE = 8
_MIN_SIDE = 128
"""Below this the coarsest level of RAFT's correlations has no cell left."""


class RaftFlow:
    """RAFT on any device; a ``FlowEstimator``.

    Args:
        weights: The path of a .safetensors file in torchvision's names, or ``torchvision`` for its own weights, which
            it downloads once (``TORCH_HOME`` says where to).
        device: Where the network runs.
        size: small (1.0 million parameters) or large (5.3 million).
        iterations: Updates of the flow; fewer are faster and less exact.

    Raises:
        RuntimeError: In one line, why there are no weights.
    """

    def __init__(
        self, weights: str, device: torch.device | str = "cpu", size: str = "small", iterations: int = 12
    ) -> None:
        if weights == "shipped":
            raise RuntimeError(
                "flow.backend raft: no weights of it are shipped; "
                "flow.weights must be a .safetensors file or torchvision"
            )
        network: nn.Module = _NETWORKS[size]()
        if weights == "torchvision":
            _download_into(network, size)
        else:
            load_into(network, Path(weights))
        self._device = torch.device(device)
        self._images = OnDevice(self._device)
        self._network = network.to(self._device).eval().requires_grad_(False)
        self._iterations = iterations

    @torch.no_grad()
    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        height, width = current.shape[:2]
        left, right = _padding(width)
        top, bottom = _padding(height)
        pair = torch.cat(self._images.pair(current, previous)).float() / 127.5 - 1
        pair = functional.pad(pair, (left, right, top, bottom), mode="replicate")
        flow: Tensor = self._network(pair[:1], pair[1:], num_flow_updates=self._iterations)[-1][0]
        found: npt.NDArray[np.float32] = flow[:, top : top + height, left : left + width].cpu().numpy()
        return np.ascontiguousarray(found)


def _padding(length: int) -> tuple[int, int]:
    """Pixels before and after a side of an image that make it one that RAFT takes."""
    missing = max(_MIN_SIDE, -(-length // _STRIDE) * _STRIDE) - length
    return missing // 2, missing - missing // 2


def _download_into(network: nn.Module, size: str) -> None:
    choice = _DOWNLOADS[size]
    try:
        # only tensors are read, nothing that a file says is run
        state = choice.get_state_dict(progress=False, check_hash=True, weights_only=True)
        network.load_state_dict(state)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"flow.weights torchvision: {choice.url} cannot be had: {' '.join(str(error).split())}"
        ) from error
