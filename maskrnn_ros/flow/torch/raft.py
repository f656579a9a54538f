# SPDX-License-Identifier: Apache-2.0
"""RAFT flow by torchvision (Teed and Deng: RAFT, Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights, raft_large, raft_small
from torchvision.models.optical_flow._utils import upsample_flow

from maskrnn_ros.flow.estimator import check_images
from maskrnn_ros.flow.torch.on_device import OnDevice
from maskrnn_ros.model.torch.compiled import Compiled
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
        device = torch.device(device)
        self._raft = _Raft(network.to(device).eval().requires_grad_(False), iterations)
        self._images = OnDevice(device, self._raft.described)

    @torch.no_grad()
    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        (features, context), (features_before, _) = self._images.pair(current, previous)
        flow = self._raft.between(features, features_before, context)
        (top, bottom), (left, right) = (_padding(length) for length in current.shape[:2])
        height, width = flow.shape[1:]
        found: npt.NDArray[np.float32] = flow[:, top : height - bottom, left : width - right].cpu().numpy()
        return np.ascontiguousarray(found)


class _Raft(nn.Module):
    """``torchvision.models.optical_flow.RAFT.forward`` for a video.

    An image is encoded once, not once as the current and once as the previous one, and the last flow alone is enlarged.
    Nothing is made on the CPU on the way, so that a GPU can run it as one graph.

    Args:
        network: The network, frozen.
        iterations: Updates of the flow.
    """

    def __init__(self, network: nn.Module, iterations: int) -> None:
        super().__init__()
        self.network = network
        self._iterations = iterations
        self._describe = Compiled(self, self._described, is_traced=False)
        self._compare = Compiled(self, self._between, is_traced=False)

    def described(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features and context of an image, uint8 (1, 3, H, W): float32, (1, C, h, w) each."""
        features, context = self._describe(image)
        return features, context

    def between(self, features: Tensor, features_before: Tensor, context: Tensor) -> Tensor:
        """Flow from an image to the one before, float32 (2, 8 h, 8 w), pixels."""
        return self._compare(features, features_before, context)[0]

    def _described(self, image: Tensor) -> tuple[Tensor, Tensor]:
        (top, bottom), (left, right) = (_padding(length) for length in image.shape[2:])
        padded = functional.pad(image.float() / 127.5 - 1, (left, right, top, bottom), mode="replicate")
        net: Any = self.network
        return net.feature_encoder(padded), net.context_encoder(padded)

    def _between(self, features: Tensor, features_before: Tensor, context: Tensor) -> tuple[Tensor]:
        """The network from features on: flow between two images whose features are known."""
        net: Any = self.network
        net.corr_block.build_pyramid(features, features_before)
        size = net.update_block.hidden_state_size
        hidden, context = context[:, :size].tanh(), context[:, size:].relu()
        height, width = features.shape[2:]
        steps = (torch.arange(length, device=features.device, dtype=features.dtype) for length in (height, width))
        rows, columns = torch.meshgrid(*steps, indexing="ij")
        start = torch.stack([columns, rows])[None]
        place = start
        with features.device:  # of what index_pyramid makes
            for _ in range(self._iterations):
                similar = net.corr_block.index_pyramid(centroids_coords=place)
                hidden, change = net.update_block(hidden, context, similar, place - start)
                place = place + change
        shares = None if net.mask_predictor is None else net.mask_predictor(hidden)
        return (upsample_flow(place - start, shares)[0],)


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
