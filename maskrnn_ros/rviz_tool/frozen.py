# SPDX-License-Identifier: Apache-2.0
"""The image that the seeding tool holds still, and the picture of it that RViz2 gets."""

from __future__ import annotations

import array
import dataclasses
import itertools
import uuid
from typing import Any

import cv2

from maskrnn_ros.types import UInt8Array

_QUALITY = 95
_LONGEST = 1280
"""Longer side of the picture, pixels. RViz2 keeps the memory of every picture it was ever sent, four bytes a pixel and
a third for its smaller copies: 11 MiB at 1080p, 5 MiB at this size. Nothing is lost by it: the shipped layout shows the
picture 800 wide, a hand does not hit single pixels, and the mask is cut from, and sent with, the image itself."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Frozen:
    """One freeze.

    Args:
        name: Another one for every freeze, also of the same image, also by a tool that was started again: RViz2 names
            it in all that it sends back, which tells what picture it showed.
        header: Of the image.
        image: RGB, uint8 (H, W, 3).
        texture: The picture as a JPEG file, as array.array: what messages take without a look at every byte.
    """

    name: str
    header: Any
    image: UInt8Array
    texture: Any

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.image.shape[:2]
        return height, width


class Freezer:
    """Freezes images, each under a name of its own."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def freeze(self, header: Any, image: UInt8Array) -> Frozen:
        """Hold an image still.

        Args:
            header: Of the image.
            image: RGB, uint8 (H, W, 3).
        """
        name = f"{self._process}_{next(self._numbers)}"
        return Frozen(name=name, header=header, image=image, texture=_jpeg(image))


def _jpeg(image: UInt8Array) -> Any:
    """Bytes of a JPEG of the picture, at most ``_LONGEST`` pixels long."""
    height, width = image.shape[:2]
    scale = _LONGEST / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype, copy=False)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f"cannot encode an image of {width}x{height} as JPEG")
    return array.array("B", data.tobytes())
