# SPDX-License-Identifier: Apache-2.0
"""Images of 16 bits to 8, by one scale for a session: the same for files, bags and topics.

Few cameras fill the 16 bits that their driver sends: machine vision has 10 or 12, thermal and infrared cameras 14. Read
as 16, a 12-bit image is a sixteenth as bright as it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

CHOICES = ("auto", *(str(bits) for bits in range(8, 17)))
"""What ``mono16_bits`` may be."""

_STEPS = (8, 10, 12, 14, 16)
"""Depths that ``auto`` chooses from."""

_LEAST_USE = 1 / 16
"""Share of the range between the 1st and the 99th percentile below which an image is told to have little contrast."""


class BitDepth:
    """The depth of a stream's 16-bit images, seen image by image; threads may share it.

    With ``auto`` it is the smallest of 8, 10, 12, 14 and 16 bits that holds the first image, raised when a later one
    needs more, and never lowered: an object would change its brightness with the scene.

    >>> depth = BitDepth()
    >>> depth.to_8(np.array([[0, 4095]], np.uint16)).tolist(), depth.bits
    ([[0, 255]], 12)
    >>> depth.to_8(np.array([[0, 255]], np.uint16)).tolist()
    [[0, 16]]

    Args:
        setting: "auto", or a number of bits as a word, see ``CHOICES``.
        warn: Called with one line where the depth is raised, exceeded or hardly used.

    Raises:
        ValueError: The setting is none of them.
    """

    def __init__(self, setting: str = "auto", warn: Callable[[str], object] | None = None) -> None:
        if setting not in CHOICES:
            raise ValueError(f"mono16_bits must be one of {', '.join(CHOICES)}, got {setting!r}")
        self.setting = setting
        self._fixed = 0 if setting == "auto" else int(setting)
        self._warn = warn or logging.getLogger(__name__).warning
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self.bits = self._fixed
        """The depth in use; 0 before the first 16-bit image."""

    def reset(self) -> None:
        """A new session: the next image is the first."""
        with self._lock:
            self.bits = self._fixed
            self._said.clear()

    def observe(self, pixels: npt.NDArray[Any]) -> int:
        """Look at the next image of 16 bits; returns the depth that it is to be read with."""
        highest = int(pixels.max(initial=0))
        with self._lock:
            before, self.bits = self.bits, self._fixed or max(self.bits, _needed(highest))
            if before and self.bits > before:
                self._warn(f"a value of {highest} needs {self.bits} bits: images were read as {before} (mono16_bits)")
            if highest >= 1 << self.bits:
                self._once("clipped", f"values up to {highest} do not fit mono16_bits {self.bits} and are clipped")
            elif self.bits != before or self._fixed:
                self._look(pixels)
            return self.bits

    def to_8(self, pixels: npt.NDArray[Any]) -> UInt8Array:
        """The image in 8 bits; one of 8 bits is passed on.

        Args:
            pixels: uint8 or uint16, (H, W) or (H, W, channels).
        """
        return scale_to_8(pixels, self.observe(pixels)) if pixels.dtype == np.uint16 else pixels

    def _look(self, pixels: npt.NDArray[Any]) -> None:
        if "range" in self._said:
            return
        some = pixels[::4, ::4] if min(pixels.shape[:2]) > 64 else pixels
        low, high = np.percentile(some, (1, 99)).tolist()
        if high - low < _LEAST_USE * (1 << self.bits):
            found = f"lie in {low:.0f}..{high:.0f}, {100 * (high - low) / (1 << self.bits):.1f} % of {self.bits} bits"
            cure = "stretch them in the driver, or set mono16_bits"
            self._once("range", f"values of 16-bit images {found}: little is seen; {cure}")

    def _once(self, kind: str, line: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._warn(line)


def scale_to_8(pixels: npt.NDArray[Any], bits: int) -> UInt8Array:
    """Value * 255 / (2**bits - 1), to the nearest; what is above the range is 255.

    Args:
        pixels: uint16, (H, W) or (H, W, channels).
        bits: 8 to 16.
    """
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / ((1 << bits) - 1)), np.uint8).reshape(pixels.shape)


def _needed(highest: int) -> int:
    return next(bits for bits in _STEPS if highest < 1 << bits)
