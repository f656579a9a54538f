# SPDX-License-Identifier: Apache-2.0
"""What layered scenes are made of: objects cut out of stills, other looks, limbs, pictures without their objects."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.training.perturbation import light
from maskrnn_ros.training.sources import IGNORE, Still
from maskrnn_ros.types import Box, UInt8Array

Floats = npt.NDArray[np.float32]

_LEAST = 400
"""Pixels of a still that an object must have."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sprite:
    """A cut-out: colours uint8 (H, W, 3) and alpha float32 (H, W), 0..1."""

    image: UInt8Array
    alpha: Floats

    @property
    def centre(self) -> tuple[float, float]:
        return self.alpha.shape[1] / 2, self.alpha.shape[0] / 2


def objects_of(still: Still) -> list[int]:
    """Ids that are large enough, the largest first."""
    counts = np.bincount(still.labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return [int(i) for i in np.argsort(-counts) if i and counts[i] >= _LEAST]


def cut(still: Still, i: int) -> tuple[Sprite, tuple[int, int]]:
    """An object, and its corner (x, y) in the still."""
    mask = still.labels == i
    box = Box.of_mask(mask)
    assert box is not None  # it has pixels
    box = box.grown(2, (mask.shape[0], mask.shape[1]))
    if still.alpha is not None:
        alpha = still.alpha[box.slices].astype(np.float32) / 255
    else:
        alpha = cv2.GaussianBlur(mask[box.slices].astype(np.float32), (0, 0), 0.6)
    return Sprite(np.ascontiguousarray(still.image[box.slices]), np.asarray(alpha)), (box.x0, box.y0)


def shrunk(sprite: Sprite, factor: float) -> tuple[Sprite, float]:
    """The same for a smaller factor without aliasing: shrunk by areas first, and the factor that is left."""
    if factor > 0.6:
        return sprite, factor
    size = max(2, round(sprite.alpha.shape[1] * factor)), max(2, round(sprite.alpha.shape[0] * factor))
    small = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (sprite.image, sprite.alpha)]
    return Sprite(np.asarray(small[0]), np.asarray(small[1])), 1.0


def relit(sprite: Sprite, random: np.random.Generator) -> Sprite:
    """In other light or colours."""
    image = cv2.LUT(sprite.image, light(random, 0.25, (0.7, 1.15)))
    if random.random() < 0.3:
        image = image[..., random.permutation(3)]
    return Sprite(np.ascontiguousarray(image), sprite.alpha)


def two_toned(sprite: Sprite, random: np.random.Generator) -> Sprite:
    """One side of it with another look: what belongs together need not look alike."""
    height, width = sprite.alpha.shape
    rows, columns = np.mgrid[:height, :width]
    angle = random.uniform(0, 2 * math.pi)
    side = (columns / width - 0.5) * math.cos(angle) + (rows / height - 0.5) * math.sin(angle)
    colour = random.uniform(0, 255, 3)
    keep = random.uniform(0.1, 0.6)
    other = sprite.image * keep + colour * (1 - keep)
    image = np.where((side > random.uniform(-0.15, 0.3))[..., None], other, sprite.image)
    return Sprite(image.astype(np.uint8), sprite.alpha)


def limb(size: tuple[int, int], texture: UInt8Array, random: np.random.Generator) -> Sprite:
    """An arm, a pole, a hand with fingers: thick lines that lead out of the frame, shaded across."""
    height, width = size
    canvas = np.zeros((2 * height, 2 * height), np.uint8)
    centre = np.array([height, height], float)
    thick = int(random.uniform(0.05, 0.22) * height)
    direction = random.uniform(0, 2 * math.pi)
    elbow = centre + np.array([math.cos(direction), math.sin(direction)]) * height * random.uniform(0.3, 0.7)
    bend = direction + random.normal(0, 0.5)
    end = elbow + np.array([math.cos(bend), math.sin(bend)]) * 2 * height
    points = [tuple(int(v) for v in point) for point in (centre, elbow, end)]
    cv2.line(canvas, points[0], points[1], 255, thick, cv2.LINE_AA)
    cv2.line(canvas, points[1], points[2], 255, int(thick * random.uniform(1.0, 1.5)), cv2.LINE_AA)
    for _ in range(int(random.integers(0, 5))):  # fingers, a gripper
        finger = direction + math.pi + random.normal(0, 0.7)
        tip = centre + np.array([math.cos(finger), math.sin(finger)]) * thick * random.uniform(0.8, 2.0)
        ends = points[0], (int(tip[0]), int(tip[1]))
        cv2.line(canvas, *ends, 255, max(2, int(thick * random.uniform(0.2, 0.4))), cv2.LINE_AA)
    colour = random.choice(np.array([[224, 172, 140], [141, 85, 60], [90, 90, 95], [235, 235, 235], [240, 130, 30]]))
    look = cv2.resize(texture, canvas.shape[::-1]).astype(np.float32)
    mix = random.uniform(0.0, 0.5)
    depth = cv2.distanceTransform((canvas > 127).astype(np.uint8), cv2.DIST_L2, 3) / max(1, thick / 2)
    shade = 0.55 + 0.45 * np.clip(depth, 0, 1)
    image = (look * mix + (colour * random.uniform(0.5, 1.05)) * (1 - mix)) * shade[..., None]
    return Sprite(np.clip(image, 0, 255).astype(np.uint8), np.asarray(canvas / 255, np.float32))


def emptied(image: UInt8Array, mask: npt.NDArray[np.bool_]) -> UInt8Array:
    """The picture without its objects: the hole is filled at an eighth of the size, which is quick and good enough."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    if not hole.any():
        return image
    size = max(8, image.shape[1] // 8), max(8, image.shape[0] // 8)
    small_hole = (cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    if small_hole.all():
        return image
    small = cv2.inpaint(cv2.resize(image, size, interpolation=cv2.INTER_AREA), small_hole, 2, cv2.INPAINT_TELEA)
    filled = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 2)[..., None]
    return np.asarray(image * (1 - soft) + filled * soft, np.uint8)
