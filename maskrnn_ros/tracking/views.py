# SPDX-License-Identifier: Apache-2.0
"""Other views of a seed: what a target model is fitted to beside the seed itself.

MaskRNN fine-tunes its networks on the first frame and its augmentations (resize, rotate, crop, flip).
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

_PLANES = 128
"""Most channels of an image in OpenCV 5; in OpenCV 4 they are 512."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """How much a view may differ from the image.

    Args:
        resize: Largest factor by which it is scaled up or down.
        rotate: Largest rotation, degrees.
        shift: Largest shift, which crops the other side, as a share of the image.
        cover: Share of the views in which a plain rectangle hides a part.
        lighting: Largest factor of gamma; contrast changes by half as much.
    """

    resize: float = 1.5
    rotate: float = 25.0
    shift: float = 0.15
    cover: float = 0.3
    lighting: float = 1.4


OF_SEEDS = Change()
"""Views that target models are fitted to."""


def augment(
    image: np.ndarray, share: np.ndarray, random: np.random.Generator, change: Change = OF_SEEDS
) -> tuple[np.ndarray, np.ndarray]:
    """Another view of a seed: resized, rotated, mirrored about the instance, shifted, in other light, partly hidden.

    What comes from outside the image is its mirror image.

    Args:
        image: RGB, uint8, (h, w, 3).
        share: float32, (h, w) or (h, w, C), 0..1; the first of C is that of the instance.
        random: Random numbers.
        change: How much of each.

    Returns:
        Both after the change, same shapes and dtypes.
    """
    height, width = share.shape[:2]
    rows, columns = np.nonzero((share if share.ndim == 2 else share[..., 0]) >= 0.5)
    centre = (float(columns.mean()), float(rows.mean())) if rows.size else (width / 2, height / 2)
    scale = np.exp(random.uniform(-1, 1) * np.log(change.resize))
    angle = random.uniform(-1, 1) * change.rotate
    is_mirrored = random.random() < 0.5
    move = random.uniform(-1, 1, 2) * change.shift * (width, height)
    gamma = np.exp(random.uniform(-1, 1) * np.log(change.lighting))
    contrast = 1 + random.uniform(-1, 1) * (change.lighting - 1) / 2
    moved = cv2.getRotationMatrix2D(centre, angle, scale)
    if is_mirrored:
        moved = moved @ np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]])
    moved[:, 2] += move
    values = np.clip(((np.arange(256) / 255) ** gamma - 0.5) * contrast + 0.5, 0, 1)
    table = np.round(values * 255).astype(np.uint8)
    warped, mask = _warped(image, moved), _warped(share, moved)
    picture = table[warped]
    if random.random() < change.cover:
        _cover(picture, mask, centre + move, random)
    return picture, mask


def _warped(planes: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Any number of planes (h, w) or (h, w, C), moved; OpenCV takes an array of more than ``_PLANES`` for no image."""
    size = planes.shape[1::-1]
    parts = [planes] if planes.ndim == 2 else np.array_split(planes, -(-planes.shape[2] // _PLANES), axis=2)
    moved = [cv2.warpAffine(part, change, size, borderMode=cv2.BORDER_REFLECT_101) for part in parts]
    return np.asarray(moved[0] if len(moved) == 1 else np.concatenate(moved, axis=2))


def _cover(image: np.ndarray, share: np.ndarray, centre: np.ndarray, random: np.random.Generator) -> None:
    """Hide a part of a view, near the instance, behind a rectangle of one colour: such a thing is not the instance."""
    height, width = share.shape[:2]
    sides = np.maximum(1, random.uniform(0.15, 0.5, 2) * (width, height)).astype(int)
    corner = (centre + random.uniform(-0.2, 0.2, 2) * (width, height) - sides / 2).astype(int)
    x, y = np.clip(corner, 0, (width - 1, height - 1))
    rectangle = slice(y, y + sides[1]), slice(x, x + sides[0])
    image[rectangle] = random.integers(0, 256, 3)
    share[rectangle] = 0.0
