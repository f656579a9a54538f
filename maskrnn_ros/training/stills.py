# SPDX-License-Identifier: Apache-2.0
"""Short clips from still images: objects are cut out and move over a background that moves, too.

So single frames have a flow to learn from, and there are many more kinds of objects than in clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.datasets.frames import frame_paths, read_frame
from maskrnn_ros.labels import binary_as_instance, read_labels
from maskrnn_ros.training.perturbation import remap, smooth_field
from maskrnn_ros.types import BoolArray, Box, UInt8Array

_MIN_OBJECT = 400
"""Pixels of the still that an object must have."""

_MIN_FIRST = 300
"""Pixels that it must have on the first frame, to be followed."""

_MOST_OBJECTS = 3
_OWN_SCENE, _EMPTY_SCENE, _GUEST = 0.5, 0.5, 0.4
"""How often the objects stay in their own image, another background is emptied of its objects, a guest joins in."""

_TRIES = 20


class Unsuitable(ValueError):
    """There is nothing to follow in an image, or not as it is wanted."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Still:
    """An image and the masks of objects in it.

    Args:
        image: RGB, uint8, (H, W, 3).
        masks: bool, (H, W) each, at least one, the largest first.
    """

    image: UInt8Array
    masks: tuple[BoolArray, ...]


def still_paths(folder: Path) -> list[tuple[Path, Path]]:
    """Images below ``images`` and their masks below ``masks``, by name.

    Raises:
        ValueError: A folder is absent or empty, or an image has no mask.
    """
    masks = {path.stem: path for path in frame_paths(folder / "masks")}
    images = frame_paths(folder / "images")
    bare = [path for path in images if path.stem not in masks]
    if bare:
        raise ValueError(
            f"{folder / 'masks'}: expected a mask for every image, {len(images)}, found none for {bare[0]}"
        )
    return [(path, masks[path.stem]) for path in images]


def read_still(image: Path, mask: Path) -> Still:
    """A still with the objects that are large enough.

    Raises:
        ValueError: A file cannot be read, or the sizes differ.
        Unsuitable: There is no such object.
    """
    picture, labels = read_frame(image), binary_as_instance(read_labels(mask))
    if labels.shape != picture.shape[:2]:
        raise ValueError(f"{mask}: expected the size of {image}, {picture.shape[:2]}, found {labels.shape}")
    masks = [labels == i for i in np.flatnonzero(np.bincount(labels.ravel())) if i]
    large = sorted((found for found in masks if found.sum() >= _MIN_OBJECT), key=np.count_nonzero, reverse=True)
    if not large:
        raise Unsuitable(f"{mask}: expected an object of {_MIN_OBJECT} pixels, found none")
    return Still(image=picture, masks=tuple(large))


def moving_still(
    still: Still, other: Still, size: tuple[int, int], random: np.random.Generator, frames: int = 4
) -> tuple[UInt8Array, UInt8Array]:
    """A clip of the objects of a still, in their own scene or in that of another one.

    Args:
        still: Its objects are followed, at most three.
        other: A background, or a further object.
        size: (h, w), pixels.
        random: Random numbers.
        frames: How many there are, T.

    Returns:
        Images, RGB, uint8, (T, h, w, 3), and truth, ids 1..n, 0 background, uint8, (T, h, w); each of the ids can be
        seen on the first frame.

    Raises:
        Unsuitable: No object is large enough to be followed, wherever it is put.
    """
    for _ in range(_TRIES):
        images, truth = _drawn(_layers(still, other, size, random), size, frames, random)
        ids = 1 + np.flatnonzero(np.bincount(truth[0].ravel())[1:] >= _MIN_FIRST)
        if ids.size:
            # who is too small is nobody that is followed
            return images, np.select([truth == i for i in ids], range(1, len(ids) + 1)).astype(np.uint8)
    raise Unsuitable("expected an object of a still that is large enough to be followed, found none")


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """A picture (H, W, 3) and where it is seen, float32 (H, W); None everywhere; ``change``: to the clip, (2, 3)."""

    image: UInt8Array
    alpha: np.ndarray | None
    change: np.ndarray


def _layers(still: Still, other: Still, size: tuple[int, int], random: np.random.Generator) -> list[_Layer]:
    """The background, then the objects from back to front."""
    chosen = still.masks[:_MOST_OBJECTS]
    if random.random() < _OWN_SCENE:
        change = _cover(still.image.shape, size, random)
        layers = [_Layer(_emptied(still), None, change)]
        layers += [_Layer(still.image, mask.astype(np.float32), change) for mask in reversed(chosen)]
    else:
        scene = _emptied(other) if random.random() < _EMPTY_SCENE else other.image
        layers = [_Layer(scene, None, _cover(scene.shape, size, random))]
        layers += [_Layer(still.image, mask.astype(np.float32), _put(mask, size, random)) for mask in chosen]
    if random.random() < _GUEST and len(layers) <= _MOST_OBJECTS:
        guest = other.masks[0]
        place = int(random.integers(1, len(layers) + 1))
        layers.insert(place, _Layer(other.image, guest.astype(np.float32), _put(guest, size, random)))
    return layers


def _drawn(
    layers: Sequence[_Layer], size: tuple[int, int], frames: int, random: np.random.Generator
) -> tuple[UInt8Array, UInt8Array]:
    images, truth = np.zeros((frames, *size, 3), np.uint8), np.zeros((frames, *size), np.uint8)
    middle = np.array([size[1] / 2, size[0] / 2])
    camera = _motion(middle, frames, 4.0, random)
    everywhere = np.ones(size, np.float32)
    for value, layer in enumerate(layers):
        own = camera
        if layer.alpha is not None:
            rows, columns = np.nonzero(layer.alpha)
            centre = layer.change @ (columns.mean(), rows.mean(), 1.0)
            own = [_after(turn, move) for turn, move in zip(camera, _motion(centre, frames, 5.0, random), strict=True)]
        field = smooth_field(size, float(random.uniform(25, 80)), random) * random.uniform(0, 4.0)
        for number in range(frames):
            change, bent = _after(own[number], layer.change), field * (number / max(1, frames - 1))
            picture = remap(layer.image, change, bent, cv2.BORDER_REFLECT_101)
            alpha = everywhere if layer.alpha is None else remap(layer.alpha, change, bent)
            _lay_over(images[number], truth[number], picture, alpha, value)
    return images, truth


def _lay_over(image: UInt8Array, truth: UInt8Array, picture: np.ndarray, alpha: np.ndarray, value: int) -> None:
    """Paint a picture over an image where alpha is, and its id into the truth where it covers half or more.

    Args:
        image: RGB, uint8, (h, w, 3); changed.
        truth: uint8, (h, w); changed.
        picture: RGB, uint8, (h, w, 3).
        alpha: float32, (h, w), 0..1.
        value: Id of what is painted, 0 for a thing that nobody follows.
    """
    box = Box.of_mask(alpha)
    if box is None:
        return
    share = alpha[box.slices][..., None]
    image[box.slices] = np.rint(image[box.slices] * (1 - share) + picture[box.slices] * share).astype(np.uint8)
    truth[alpha >= 0.5] = value


def _motion(centre: np.ndarray, frames: int, pixels: float, random: np.random.Generator) -> list[np.ndarray]:
    """Smooth affine motion about a centre, from standing at frame 0: T changes (2, 3)."""
    velocity, bend = random.normal(0, pixels, 2), random.normal(0, pixels / 8, 2)
    turn, growth = random.normal(0, 1.2), random.normal(0, 0.012)
    changes = []
    for number in range(frames):
        change = cv2.getRotationMatrix2D(centre.tolist(), turn * number, float(np.exp(growth * number)))
        change[:, 2] += velocity * number + bend * number**2
        changes.append(change)
    return changes


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine change that does ``first``, then ``second``, (2, 3)."""
    return np.asarray(second @ np.vstack([first, (0, 0, 1)]))


def _cover(shape: Sequence[int], size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Change by which an image (H, W) covers all of a frame (h, w), somewhat larger and mirrored at random."""
    scale = max(size[0] / shape[0], size[1] / shape[1]) * random.uniform(1.0, 1.25)
    spare = np.array([shape[1] * scale - size[1], shape[0] * scale - size[0]])
    corner = -spare * random.uniform(0, 1, 2)
    if random.random() < 0.5:
        return np.array([[-scale, 0, corner[0] + scale * (shape[1] - 1)], [0, scale, corner[1]]])
    return np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])


def _put(mask: BoolArray, size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Change by which an object gets somewhere in the frame, a fifth to four fifths as large as that is high."""
    rows, columns = np.nonzero(mask)
    length = max(np.ptp(rows), np.ptp(columns)) + 1
    scale = random.uniform(0.2, 0.8) * size[0] / length
    mirrored = scale * random.choice((-1, 1))
    place = random.uniform(0.15, 0.85, 2) * size[::-1]
    return np.array([[mirrored, 0, place[0] - mirrored * columns.mean()], [0, scale, place[1] - scale * rows.mean()]])


def _emptied(still: Still) -> UInt8Array:
    """The image without its objects (Telea, Journal of Graphics Tools 2004)."""
    union = np.any(still.masks, axis=0).astype(np.uint8)
    hole = cv2.dilate(union, np.ones((7, 7), np.uint8))
    return np.asarray(cv2.inpaint(still.image, hole, 3, cv2.INPAINT_TELEA), np.uint8)
