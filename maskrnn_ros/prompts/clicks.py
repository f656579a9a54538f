# SPDX-License-Identifier: Apache-2.0
"""A person who clicks, simulated: in the middle of the object, then in the middle of the largest error, and so on.

The protocol of the literature on interactive segmentation (Xu et al., CVPR 2016; RITM, Sofiiuk et al., ICIP 2022), and
its measure NoC@85: the number of clicks until the IoU is 0.85, ``MOST_CLICKS`` where it never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.prompts import Point, Prompt, PromptBackend, UnsureError
from maskrnn_ros.types import BoolArray, Box, UInt8Array

MOST_CLICKS = 10
TARGET = 0.85
"""IoU that clicks are counted to."""


def next_click(
    truth: BoolArray,
    mask: BoolArray,
    known: BoolArray | None = None,
    before: Sequence[Point] = (),
    random: np.random.Generator | None = None,
) -> Point | None:
    """The click that mends the worst of a mask; of an empty one, the click in the middle of the object.

    Args:
        truth: bool, (H, W).
        mask: Likewise: what was found.
        known: Likewise: False where nobody knows; None: all is known.
        before: Clicks that were made; their pixels are not clicked again.
        random: Click anywhere in the inner half of the largest error, as people do; None: in its middle.

    Returns:
        The middle of a pixel; None where nothing is wrong, or all that is was clicked.
    """
    wrong = truth != mask if known is None else (truth != mask) & known
    depths = [_depth(wrong & of) for of in (truth, ~truth)]
    for point in before:
        for depth in depths:
            depth[int(point.y), int(point.x)] = 0
    on_object = depths[0].max() >= depths[1].max()
    depth = depths[0 if on_object else 1]
    deepest = float(depth.max())
    if deepest <= 0:
        return None
    if random is None:
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        places = np.argwhere(depth >= 0.5 * deepest)
        row, column = places[random.integers(len(places))]
    return Point(x=int(column) + 0.5, y=int(row) + 0.5, on_object=bool(on_object))


def jittered(box: Box, size: tuple[int, int], random: np.random.Generator, share: float = 0.1) -> Box:
    """A box as it is drawn by hand: each edge off by up to a share of the box's size, inside the image (H, W)."""
    off = random.uniform(-share, share, 4) * (box.width, box.height, box.width, box.height)
    x0, y0, x1, y1 = np.rint(np.add((box.x0, box.y0, box.x1, box.y1), off)).astype(int).tolist()
    x0, y0 = min(max(0, x0), size[1] - 1), min(max(0, y0), size[0] - 1)
    return Box(x0, y0, max(x0 + 1, min(size[1], x1)), max(y0 + 1, min(size[0], y1)))


def click_through(
    backend: PromptBackend, image: UInt8Array, truth: BoolArray, known: BoolArray | None = None, most: int = MOST_CLICKS
) -> Iterator[float]:
    """IoU after each click on an object, ``most`` of them; what is unknown counts for nothing.

    Args:
        backend: What makes the masks.
        image: RGB, uint8 (H, W, 3).
        truth: bool, (H, W), at least one pixel.
        known: Likewise: False where nobody knows; None: all is known.
        most: Clicks.
    """
    mask, points = np.zeros_like(truth), list[Point]()
    for _ in range(most):
        point = next_click(truth, mask, known, points)
        if point is not None:  # else nothing is left to be mended
            points.append(point)
            mask = cut(backend, image, Prompt(points=tuple(points)))
        yield iou(mask, truth, known)


def cut(backend: PromptBackend, image: UInt8Array, prompt: Prompt) -> BoolArray:
    """A backend's mask, be it sure of it or not."""
    try:
        return backend(image, prompt)
    except UnsureError as unsure:
        return unsure.mask


def iou(mask: BoolArray, truth: BoolArray, known: BoolArray | None = None) -> float:
    """Intersection over union where the truth is known."""
    return jaccard(mask, truth) if known is None else jaccard(mask & known, truth & known)


def clicks_needed(ious: Sequence[float], target: float = TARGET) -> int:
    """Clicks until the IoU is reached; as many as were made where it never is.

    >>> clicks_needed([0.5, 0.9, 0.8]), clicks_needed([0.5, 0.6])
    (2, 2)
    """
    return next((count for count, value in enumerate(ious, start=1) if value >= target), len(ious))


def _depth(mask: BoolArray) -> np.ndarray:
    """Distance of each pixel of a mask from what is not in it or beyond the image, float32 (H, W); 0 outside."""
    return np.array(cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1])
