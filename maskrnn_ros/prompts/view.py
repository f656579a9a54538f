# SPDX-License-Identifier: Apache-2.0
"""What the prompt network is shown: a square part of the image, the view, at ``SIDE`` pixels, and what is said in it.

That is drawn over the view: disks at the points (RITM, Sofiiuk et al., ICIP 2022), the box, the mask before. No torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.prompts import Prompt
from maskrnn_ros.types import Box

Floats = npt.NDArray[np.float32]

SIDE = 256
"""Pixels of a view in each direction."""

FINE = 384
"""Likewise of a fine one."""

PLANES = 4
POSITIVE, NEGATIVE, BOX, BEFORE = range(PLANES)
"""Planes of what is said: points on the object, points beside it, the box, the mask before, each 0..1."""

CONTEXT = 1.5
"""Side of a view over the longer side of what it is about."""

_SMALLEST = 32
"""Shortest side of a view, pixels of the image."""

_RADIUS = 4
"""Of a point's disk, pixels of the view."""


@dataclasses.dataclass(frozen=True)
class View:
    """A square part of an image, which may reach over its edges: columns x0 to x0 + side - 1, rows likewise.

    It is looked at with P pixels in each direction: SIDE, of a fine one FINE.
    """

    x0: int
    y0: int
    side: int
    is_fine: bool = False

    @property
    def pixels(self) -> int:
        """P."""
        return FINE if self.is_fine else SIDE

    @staticmethod
    def whole(size: tuple[int, int]) -> View:
        """All of an image (H, W)."""
        side = max(size)
        return View((size[1] - side) // 2, (size[0] - side) // 2, side)

    @staticmethod
    def around(centre: tuple[float, float], side: float, size: tuple[int, int]) -> View:
        """About a place (x, y), moved into the image (H, W) as far as it goes, never larger than ``whole``."""
        length = min(max(size), max(_SMALLEST, round(side)))
        x0, y0 = (
            (extent - length) // 2 if extent < length else min(max(0, round(middle - length / 2)), extent - length)
            for middle, extent in zip(centre, size[::-1], strict=True)
        )
        return View(x0, y0, length)

    @staticmethod
    def of_box(box: Box, size: tuple[int, int], context: float = CONTEXT) -> View:
        """About a box."""
        centre = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        return View.around(centre, context * max(box.width, box.height), size)

    def finer(self) -> View:
        """The same part with more pixels."""
        return dataclasses.replace(self, is_fine=True)

    def cut(self, picture: npt.NDArray[Any], border: int = cv2.BORDER_REPLICATE) -> npt.NDArray[Any]:
        """The part at P x P, of (H, W) or (H, W, 3), uint8 or float32; beyond the edges see OpenCV."""
        height, width = picture.shape[:2]
        x0, y0, x1, y1 = self._inside((height, width))
        part = picture[y0:y1, x0:x1]
        beyond = (y0 - self.y0, self.y0 + self.side - y1, x0 - self.x0, self.x0 + self.side - x1)
        if any(beyond):
            part = cv2.copyMakeBorder(part, *beyond, border)
        kind = cv2.INTER_AREA if self.side > self.pixels else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (self.pixels, self.pixels), interpolation=kind))

    def paste(self, found: Floats, size: tuple[int, int], beyond: float) -> Floats:
        """What was found in it, float32 (P, P), in the image (H, W); elsewhere ``beyond``."""
        x0, y0, x1, y1 = self._inside(size)
        kind = cv2.INTER_AREA if self.side < self.pixels else cv2.INTER_LINEAR
        large = cv2.resize(found, (self.side, self.side), interpolation=kind)
        whole = np.full(size, beyond, np.float32)
        whole[y0:y1, x0:x1] = large[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0]
        return whole

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place of the image in pixels of the view."""
        scale = self.pixels / self.side
        return (x - self.x0) * scale, (y - self.y0) * scale

    def planes(self, prompt: Prompt, before: Floats | None = None) -> Floats:
        """What is said of the object, float32 (PLANES, P, P).

        Args:
            prompt: Its box and points.
            before: Mask before, float32 (H, W), 0..1; None: there is none.
        """
        planes = np.zeros((PLANES, self.pixels, self.pixels), np.float32)
        for point in prompt.points:
            draw_point(planes, *self.at(point.x, point.y), point.on_object)
        if prompt.box is not None:
            low, high = self.at(prompt.box.x0, prompt.box.y0), self.at(prompt.box.x1, prompt.box.y1)
            (left, top), (right, bottom) = ((round(x), round(y)) for x, y in (low, high))
            planes[BOX, max(0, top) : max(0, bottom, top + 1), max(0, left) : max(0, right, left + 1)] = 1
        if before is not None:
            planes[BEFORE] = self.cut(before, cv2.BORDER_CONSTANT)
        return planes

    def _inside(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        return (
            max(0, self.x0),
            max(0, self.y0),
            min(size[1], self.x0 + self.side),
            min(size[0], self.y0 + self.side),
        )


def draw_point(planes: Floats, x: float, y: float, on_object: bool) -> None:
    """Draw the disk of a point at a place of the view on ``planes`` (PLANES, P, P), in place."""
    cv2.circle(planes[POSITIVE if on_object else NEGATIVE], (int(x), int(y)), _RADIUS, 1.0, -1)
