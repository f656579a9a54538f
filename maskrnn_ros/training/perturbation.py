# SPDX-License-Identifier: Apache-2.0
"""A mask as a tracker might have had it on the frame before: the truth, made wrong.

MaskTrack (Perazzi et al., CVPR 2017) and MaskRNN train on single frames whose previous mask is the truth, deformed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from maskrnn_ros.types import BoolArray, Box, UInt8Array

_SHIFT, _SCALE, _ROTATE, _ELASTIC, _GROW = 0.08, 1.15, 10.0, 0.12, 0.06
"""Largest shift, as a share of the box; factor; degrees; elastic move and growth, as shares of the root of the area."""

_OFTEN, _SELDOM, _RARE = 0.3, 0.15, 0.05
"""How often there are holes or wrong pieces, a part is missing, another object is in it."""


def perturb_mask(
    truth: np.ndarray, random: np.random.Generator, others: Sequence[np.ndarray] = (), strength: float = 1.0
) -> BoolArray:
    """Shift, scale, turn and deform a mask, grow or shrink it, tear holes, add wrong pieces or another object.

    Args:
        truth: bool or 0 / not 0, (h, w).
        random: Random numbers.
        others: Masks of other objects, likewise, of which one may get in.
        strength: Factor on all of that; 0 changes nothing. Each mask gets a random part of it: of 1 a quarter
            comes out with an IoU above 0.8 and a quarter below 0.55 (DAVIS).

    Returns:
        bool, (h, w). An empty mask stays empty, except for another object; from a mask with pixels at least one is
        left.
    """
    mask = truth.astype(np.uint8, copy=False) != 0
    box = Box.of_mask(mask)
    strength *= random.random()
    wrong = mask if box is None or strength == 0 else _deformed(mask, box, random, strength)
    if box is not None and strength > 0:
        wrong = _patched(wrong, box, random, strength)
    present = [other != 0 for other in others if other.any()]
    if present and random.random() < _RARE * strength:
        wrong = wrong | present[random.integers(len(present))]
    return mask if box is not None and not wrong.any() else wrong


def _deformed(mask: BoolArray, box: Box, random: np.random.Generator, strength: float) -> BoolArray:
    """Moved as a whole and elastically, then dilated or eroded."""
    length = float(np.sqrt(np.count_nonzero(mask)))  # of a thin object less than its box says
    centre = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    angle = random.uniform(-1, 1) * _ROTATE * strength
    scale = float(np.exp(random.uniform(-1, 1) * np.log(_SCALE) * strength))
    change = cv2.getRotationMatrix2D(centre, angle, scale)
    change[:, 2] += random.uniform(-1, 1, 2) * _SHIFT * strength * (box.width, box.height)
    field = smooth_field(mask.shape, max(4.0, length / 4), random) * (_ELASTIC * strength * length * random.random())
    moved = remap(mask.astype(np.float32), change, field)
    radius = round(random.uniform(-1, 1) * _GROW * strength * length)
    if radius:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(radius) + 1,) * 2)
        moved = cv2.dilate(moved, disk) if radius > 0 else cv2.erode(moved, disk)
    return np.asarray(moved >= 0.5)


def _patched(mask: BoolArray, box: Box, random: np.random.Generator, strength: float) -> BoolArray:
    """With holes inside, wrong pieces in and around the object, or a side of it missing."""
    out = mask.astype(np.uint8)
    for value in (0, 1):
        if random.random() < _OFTEN * strength:
            for _ in range(random.integers(1, 4)):
                _ellipse(out, box, value, random)
    if random.random() < _SELDOM * strength:
        angle, cut = random.uniform(0, 2 * np.pi), random.uniform(0.0, 0.4)
        rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
        x = (columns - (box.x0 + box.x1) / 2) / box.width
        y = (rows - (box.y0 + box.y1) / 2) / box.height
        out[x * np.cos(angle) + y * np.sin(angle) > cut] = 0
    return np.asarray(out != 0)


def _ellipse(out: np.ndarray, box: Box, value: int, random: np.random.Generator) -> None:
    """Set an ellipse of up to a quarter of the object's size, in its box or up to half of its size beside it."""
    half = np.maximum(1, random.uniform(0.04, 0.13, 2) * (box.width, box.height)).astype(int)
    reach = 0.5 if value == 0 else 1.0
    offset = random.uniform(-reach, reach, 2) * (box.width, box.height)
    centre = (np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2 + offset).astype(int)
    cv2.ellipse(out, centre.tolist(), half.tolist(), float(random.uniform(0, 180)), 0, 360, value, -1)


def smooth_field(size: Sequence[int], smoothness: float, random: np.random.Generator) -> np.ndarray:
    """Random displacements (h, w, 2) of which the largest is 1 long, smooth over about ``smoothness`` pixels."""
    step = max(1, int(smoothness / 2))  # a smooth field needs no noise at every pixel
    coarse = random.normal(size=(-(-size[0] // step) + 2, -(-size[1] // step) + 2, 2)).astype(np.float32)
    field = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), smoothness / step), (size[1], size[0]))
    return np.asarray(field / max(float(np.hypot(field[..., 0], field[..., 1]).max()), 1e-6))


def remap(
    picture: np.ndarray,
    change: np.ndarray,
    field: np.ndarray,
    border: int = cv2.BORDER_CONSTANT,
) -> np.ndarray:
    """What is at p in the picture comes to ``change`` p, and what is drawn at q lies field[q] beside that.

    Args:
        picture: uint8 or float32, (H, W) or (H, W, 3).
        change: Affine, (2, 3), from the picture to the result, (x, y) of pixel indices.
        field: Displacements (dx, dy), pixels of the result, float, (h, w, 2).
        border: What is outside the picture, see OpenCV; by default 0.

    Returns:
        The result (h, w) or (h, w, 3), same dtype.
    """
    inverse = cv2.invertAffineTransform(change)
    rows, columns = np.mgrid[: field.shape[0], : field.shape[1]]
    points = np.stack([columns, rows], axis=-1) + field
    where = (points @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)
    return np.asarray(cv2.remap(picture, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=border))


def light(random: np.random.Generator, gamma: float, gains: tuple[float, float]) -> UInt8Array:
    """Other light, for ``cv2.LUT``: uint8 (1, 256, 3).

    Args:
        random: Random numbers.
        gamma: Standard deviation of its log.
        gains: Least and largest factor of a channel.
    """
    table = np.linspace(0, 1, 256)[:, None] ** math.exp(random.normal(0, gamma)) * random.uniform(*gains, 3)
    return np.clip(table * 255, 0, 255).astype(np.uint8)[None]
