# SPDX-License-Identifier: Apache-2.0
"""Boxes and points to masks, by GrabCut: no learned segmenter, it goes by the colours of this one image.

``PromptBackend`` is all that a better segmenter has to be; ``build_prompts`` gives the one that the config names.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import cv2
import numpy as np

from maskrnn_ros.types import BoolArray, Box, UInt8Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A pixel position that is on the object or beside it.

    Args:
        x: Pixels, the first pixel's centre is at 0.5.
        y: Likewise.
        on_object: False: not on it.
    """

    x: float
    y: float
    on_object: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is said of one object: a box around it, points, or both.

    Raises:
        ValueError: Neither a box nor a point on the object.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if self.box is None and not any(point.on_object for point in self.points):
            raise ValueError("a prompt needs a box or a point on the object, got neither")

    def __str__(self) -> str:
        box = f"box ({self.box.x0}, {self.box.y0}, {self.box.x1}, {self.box.y1})" if self.box is not None else ""
        points = ", ".join(f"({point.x:g}, {point.y:g})" for point in self.points if point.on_object)
        return " with ".join(part for part in (box, f"point {points}" if points else "") if part)

    def scaled(self, across: float, down: float) -> Prompt:
        """The same for an image whose width and height are those multiples; a box keeps at least a pixel."""
        points = tuple(dataclasses.replace(point, x=point.x * across, y=point.y * down) for point in self.points)
        if self.box is None:
            return Prompt(points=points)
        x0, y0 = math.floor(self.box.x0 * across), math.floor(self.box.y0 * down)
        box = Box(x0, y0, max(x0 + 1, math.ceil(self.box.x1 * across)), max(y0 + 1, math.ceil(self.box.y1 * down)))
        return Prompt(box=box, points=points)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Refuse what lies outside an image of (H, W).

        Raises:
            ValueError: A point lies outside it, or the box wholly.
        """
        height, width = size
        for point in self.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise ValueError(f"points must lie inside the {width}x{height} image, got ({point.x:g}, {point.y:g})")
        if self.box is not None:
            _inside(self.box, height, width)


class PromptBackend(Protocol):
    """Makes a mask of a prompt."""

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """The object's mask, bool (H, W); perhaps empty.

        Args:
            image: RGB, uint8 (H, W, 3).
            prompt: What is said of the object.

        Raises:
            ValueError: The prompt lies outside the image.
        """
        ...


class GrabCut:
    """Graph cut with colour models (Rother et al., GrabCut, SIGGRAPH 2004), in a window around the prompt."""

    _LONGEST = 320
    """Longer side of the window that the cut runs on, pixels; the mask is brought to the image's size afterwards."""
    _ITERATIONS = 4

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """See ``PromptBackend``."""
        height, width = image.shape[:2]
        prompt.check_inside((height, width))
        box = _inside(prompt.box, height, width) if prompt.box is not None else None
        window = _window(box, prompt.points, height, width)
        crop = image[window.slices]
        scale = min(1.0, self._LONGEST / max(crop.shape[:2]))
        size = (max(2, round(crop.shape[1] * scale)), max(2, round(crop.shape[0] * scale)))
        small = np.ascontiguousarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA))
        trimap = _trimap(box, prompt.points, window, size, scale)
        if (trimap == cv2.GC_BGD).any() or (trimap == cv2.GC_PR_BGD).any():
            cv2.setRNGSeed(0)  # its colour models start at random
            cv2.grabCut(
                small, trimap, None, np.zeros((1, 65)), np.zeros((1, 65)), self._ITERATIONS, cv2.GC_INIT_WITH_MASK
            )
        found = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.float32)
        mask = np.zeros((height, width), np.bool_)
        mask[window.slices] = cv2.resize(found, (crop.shape[1], crop.shape[0]), interpolation=cv2.INTER_LINEAR) >= 0.5
        return mask


def build_prompts(name: str) -> PromptBackend:
    """The backend of a name: "grabcut".

    Raises:
        ValueError: There is none of that name.
    """
    if name != "grabcut":
        raise ValueError(f"prompt backend must be grabcut, got {name!r}")
    return GrabCut()


def _inside(box: Box, height: int, width: int) -> Box:
    x0, y0, x1, y1 = max(0, box.x0), max(0, box.y0), min(width, box.x1), min(height, box.y1)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"box must overlap the {width}x{height} image, got {box}")
    return Box(x0, y0, x1, y1)


def _window(box: Box | None, points: tuple[Point, ...], height: int, width: int) -> Box:
    """What the colours of object and background are learnt from."""
    xs = [point.x for point in points] + ([box.x0, box.x1] if box else [])
    ys = [point.y for point in points] + ([box.y0, box.y1] if box else [])
    # a point says nothing of the object's size: a third of the image is looked at
    margin = 0.5 * max(max(xs) - min(xs), max(ys) - min(ys)) if box else max(height, width) / 6
    margin = max(margin, 8.0)
    x0, y0 = max(0, int(min(xs) - margin)), max(0, int(min(ys) - margin))
    return Box(x0, y0, min(width, int(max(xs) + margin) + 1), min(height, int(max(ys) + margin) + 1))


def _trimap(box: Box | None, points: tuple[Point, ...], window: Box, size: tuple[int, int], scale: float) -> UInt8Array:
    """GrabCut's labels of the window: sure where a point is and outside the box, else to be found out."""
    width, height = size
    trimap = np.full((height, width), cv2.GC_PR_BGD if box is None else cv2.GC_BGD, np.uint8)
    if box is not None:
        rows = slice(int((box.y0 - window.y0) * scale), max(1, round((box.y1 - window.y0) * scale)))
        columns = slice(int((box.x0 - window.x0) * scale), max(1, round((box.x1 - window.x0) * scale)))
        trimap[rows, columns] = cv2.GC_PR_FGD
    radius = max(2, round(0.015 * max(size)))
    for point in points:
        centre = (int((point.x - window.x0) * scale), int((point.y - window.y0) * scale))
        if box is None and point.on_object:
            cv2.circle(trimap, centre, 4 * radius, cv2.GC_PR_FGD, -1)
    for point in points:
        centre = (int((point.x - window.x0) * scale), int((point.y - window.y0) * scale))
        cv2.circle(trimap, centre, radius, cv2.GC_FGD if point.on_object else cv2.GC_BGD, -1)
    return trimap
