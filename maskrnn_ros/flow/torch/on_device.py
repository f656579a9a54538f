# SPDX-License-Identifier: Apache-2.0
"""Images on the device of a flow network."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrnn_ros.types import UInt8Array


class OnDevice:
    """Brings images to a device; the newest stays there, for as a rule it is the previous one of the next pair.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._newest: tuple[UInt8Array, Tensor] | None = None

    def pair(self, current: UInt8Array, previous: UInt8Array) -> tuple[Tensor, Tensor]:
        """Both, uint8, (1, 3, H, W)."""
        known = self._newest
        before = known[1] if known is not None and known[0] is previous else self._up(previous)
        now = self._up(current)
        self._newest = current, now
        return now, before

    def _up(self, image: UInt8Array) -> Tensor:
        return torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None]
