# SPDX-License-Identifier: Apache-2.0
"""A small folder of data in the layout that ``maskrnn train trunk`` and ``maskrnn train decoder`` take."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import world
from PIL import Image

from maskrnn_ros.labels import write_labels

TRAINED, HELD_OUT = "bear", "dog-agility"
"""Names of the clips; the split knows them."""


def write_data(root: Path, frames: int = 5, size: int = 1) -> Path:
    """Two clips, six stills of a disk, three of two objects with an unknown rim, a cut-out; returns the folder."""
    for name in (TRAINED, HELD_OUT):
        for number in range(frames):
            picture = cv2.cvtColor(enlarged(world.image(number), size), cv2.COLOR_RGB2BGR)
            write_picture(root / "davis2016_train_288p/JPEGImages" / name / f"{number:05d}.png", picture)
            truth = world.labels(number)
            labels = enlarged((truth * (truth == 1)).astype(np.uint8), size)
            place = root / "davis2016_train_288p/Annotations" / name / f"{number:05d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_labels(place, labels.astype(np.int32))
    random = np.random.default_rng(3)
    for number in range(6):
        image, mask = still(random)
        write_still(root / "ecssd", number, image, mask * 255)
    for number in range(3):
        image, mask = still(random)
        labels = mask.copy()
        labels[:40] = np.where(mask[:40], 2, 0)
        labels[-4:] = 255
        write_still(root / "objects/stills/coco_mini", number, image, labels)
    image, mask = still(random)
    write_still(root / "objects/cutouts/tuxpaint_cutouts", 0, image, mask * 255)
    return root


def still(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disk on noise: RGB uint8 (80, 100, 3), mask uint8 (80, 100) of 0 and 1."""
    image = random.integers(0, 90, (80, 100, 3)).astype(np.uint8)
    mask = np.zeros((80, 100), np.uint8)
    cv2.circle(mask, (int(random.integers(35, 65)), 40), 26, 1, -1)
    image[mask > 0] = random.integers(120, 255, 3)
    return image, mask


def write_still(folder: Path, number: int, image: np.ndarray, mask: np.ndarray) -> None:
    write_picture(folder / "images" / f"{number:03d}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{number:03d}.png")


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1)


def davis(root: Path) -> Path:
    """Two clips of three frames, a and b, whose first object is large enough to be followed."""
    for name in ("a", "b"):
        for number in range(3):
            picture = cv2.cvtColor(world.image(number), cv2.COLOR_RGB2BGR)
            write_picture(root / "JPEGImages" / name / f"{number:05d}.png", picture)
            truth = world.labels(number)
            (root / "Annotations" / name).mkdir(parents=True, exist_ok=True)
            write_labels(root / "Annotations" / name / f"{number:05d}.png", truth * (truth == 1))
    return root
