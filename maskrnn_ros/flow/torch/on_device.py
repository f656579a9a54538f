# SPDX-License-Identifier: Apache-2.0
"""Images on the device of a flow network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from maskrnn_ros.types import UInt8Array

T = TypeVar("T")


class OnDevice(Generic[T]):
    """Brings images to a device; the newest stays there, for as a rule it is the previous one of the next pair.

    Args:
        device: Where to.
        describe: What is kept of an image, uint8 (1, 3, H, W) on the device.
    """

    def __init__(self, device: torch.device, describe: Callable[[Tensor], T]) -> None:
        self._device = device
        self._describe = describe
        self._newest: tuple[UInt8Array, T] | None = None

    def pair(self, current: UInt8Array, previous: UInt8Array) -> tuple[T, T]:
        """What is kept of both."""
        known = self._newest
        before = known[1] if known is not None and known[0] is previous else self._up(previous)
        now = self._up(current)
        self._newest = current, now
        return now, before

    def _up(self, image: UInt8Array) -> T:
        return self._describe(torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None])
