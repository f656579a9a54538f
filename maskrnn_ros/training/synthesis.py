# SPDX-License-Identifier: Apache-2.0
"""Clips of several objects, by copy and paste: an object of one clip moves through another.

They hide each other, hide behind a screen and come back, and are at times the same object twice: what clips with one
object each cannot teach.
"""

from __future__ import annotations

import cv2
import numpy as np

from maskrnn_ros.training.clips import Pictures, Unsuitable, seeds_of
from maskrnn_ros.types import Box, UInt8Array

_KINDS, _SHARES = ("wander", "cross", "screen"), (0.4, 0.3, 0.3)
"""The second object moves anywhere; it passes the first; one of both goes behind a screen."""

_BEHIND = 0.4
"""How often the second object lies behind the first."""

_SCALE = 0.5, 1.2
_HIDDEN = 5, 15
"""Fewest and most frames for which one is hidden, inclusive."""

_EDGE = 0.7
"""Blur of the masks that are pasted, pixels: cameras know no hard edges."""

_TRIES = 20


def copy_paste(name: str, base: Pictures, donor: Pictures, random: np.random.Generator, frames: int = 24) -> Pictures:
    """Let the main object of one clip move through another.

    Args:
        name: Name of the new clip.
        base: The clip that is moved through; its objects keep their ids.
        donor: The clip of the other object, which gets the next id; the base itself makes a mirrored twin.
        random: Random numbers.
        frames: Most frames; as a rule it is so many.

    Returns:
        A clip that begins, with a seed of both objects, where both can be seen; at least half of the frames.

    Raises:
        ValueError: The clips differ in size.
        Unsuitable: Both objects can never be seen long enough.
    """
    if base.images.shape[1:] != donor.images.shape[1:]:
        raise ValueError(f"clips must share their size, got {base.images.shape[1:]} and {donor.images.shape[1:]}")
    frames = min(frames, len(base.images), len(donor.images))
    main, new = _main_id(base), int(base.truth.max()) + 1
    for _ in range(_TRIES):
        images, truth = _composed(base, donor, frames, random)
        for start in range(frames - frames // 2 + 1):
            seeds = seeds_of(truth[start:], [0])
            if {main, new} <= {i for i, _ in seeds}:
                return Pictures(name=name, images=images[start:], truth=truth[start:], seeds=seeds)
    raise Unsuitable(
        f"{name}: expected {base.name} and {donor.name} to show their objects together, found no such part"
    )


def lay_over(image: UInt8Array, truth: UInt8Array, picture: np.ndarray, alpha: np.ndarray, value: int) -> None:
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


def _main_id(pictures: Pictures) -> int:
    return int(np.bincount(pictures.truth.ravel())[1:].argmax()) + 1


def _composed(
    base: Pictures, donor: Pictures, frames: int, random: np.random.Generator
) -> tuple[UInt8Array, UInt8Array]:
    """Images and truth of one try."""
    start = int(random.integers(len(base.images) - frames + 1))
    other = start if donor is base else int(random.integers(len(donor.images) - frames + 1))
    images, truth = base.images[start : start + frames].copy(), base.truth[start : start + frames].copy()
    pictures = donor.images[other : other + frames]
    first = truth == _main_id(base)
    second = donor.truth[other : other + frames] == _main_id(donor)
    new = int(base.truth.max()) + 1
    if not first.any() or not second.any():
        return images, truth
    kind = str(random.choice(_KINDS, p=_SHARES))
    is_behind = random.random() < _BEHIND
    scale = _scale(first, second, kind, is_behind, random)
    size = (truth.shape[1], truth.shape[2])
    places = _passing(first, random) if kind == "cross" else _wandering(frames, size, random)
    is_mirrored = donor is base or random.random() < 0.5
    moves = _moves(second, places, scale, is_mirrored)
    for number in range(frames):
        picture, alpha = _moved(pictures[number], second[number], moves[number])
        if is_behind:
            alpha = alpha * (1 - _soft(first[number]))
        lay_over(images[number], truth[number], picture, alpha, new)
    if kind == "screen":
        hidden = first if random.random() < 0.5 else truth == new
        _hide(images, truth, hidden, pictures[0], second[0], random)
    return images, truth


def _scale(first: np.ndarray, second: np.ndarray, kind: str, is_behind: bool, random: np.random.Generator) -> float:
    """Factor on the second object; where they pass, that which lies behind is the smaller one, as a rule."""
    scale = float(np.exp(random.uniform(*np.log(_SCALE))))
    if kind == "cross":
        ratio = random.uniform(0.15, 0.5) if is_behind else random.uniform(2.0, 5.0)
        scale = float(np.sqrt(ratio * _area(first) / _area(second)))
    boxes = [box for mask in second if (box := Box.of_mask(mask)) is not None]
    height, width = second.shape[1:]
    most = min(0.8 * height / max(box.height for box in boxes), 0.6 * width / max(box.width for box in boxes))
    return float(min(scale, most))


def _area(masks: np.ndarray) -> float:
    """Mean area while there is one, pixels."""
    areas = np.count_nonzero(masks, axis=(1, 2))
    return float(areas[areas > 0].mean())


def _wandering(frames: int, size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """A smooth path of some pixels a frame, (T, 2), (x, y) in pixels."""
    extent = np.array(size[::-1], float)
    stops = max(2, frames // 8 + 1)
    walk = random.uniform(0.15, 0.85, 2) + np.cumsum(random.normal(0, 0.12, (stops, 2)), axis=0)
    walk = np.clip(walk, 0.1, 0.9) * extent
    return _smooth(
        np.stack([np.interp(np.linspace(0, stops - 1, frames), range(stops), walk[:, k]) for k in (0, 1)], 1)
    )


def _passing(first: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A path from one side of the first object to its other, that stays on it for a while, (T, 2)."""
    frames = len(first)
    stay = min(int(random.integers(_HIDDEN[0], _HIDDEN[1] + 1)), max(0, frames - 8))
    begin = int(random.integers(frames // 4, max(frames // 4, frames - stay - 3) + 1))
    height, width = first.shape[1:]
    direction = random.choice((-1, 1)) * np.array([1.0, random.uniform(-0.3, 0.3)])
    way = np.interp(range(frames), (0, begin, begin + stay, max(frames - 1, begin + stay + 1)), (1, 0, 0, -1))
    return _smooth(_centres(first) + way[:, None] * direction * random.uniform(0.35, 0.6) * width)


def _smooth(path: np.ndarray) -> np.ndarray:
    return np.asarray(
        cv2.GaussianBlur(path.astype(np.float64), (1, 0), 1e-3, sigmaY=1.0, borderType=cv2.BORDER_REPLICATE)
    )


def _centres(masks: np.ndarray) -> np.ndarray:
    """Mean place of each mask, (T, 2), (x, y); where there is none, between those before and after."""
    areas = np.count_nonzero(masks, axis=(1, 2))
    there = np.flatnonzero(areas)
    rows, columns = np.mgrid[: masks.shape[1], : masks.shape[2]]
    found = [((masks * axis).sum(axis=(1, 2))[there] / areas[there]) for axis in (columns, rows)]
    return np.stack([np.interp(range(len(masks)), there, axis) for axis in found], axis=1)


def _moves(masks: np.ndarray, places: np.ndarray, scale: float, is_mirrored: bool) -> np.ndarray:
    """Affine changes that bring the centre of each mask to its place, (T, 2, 3)."""
    change = np.diag([-scale if is_mirrored else scale, scale])
    centres = _centres(masks)
    return np.stack([np.column_stack([change, to - change @ at]) for to, at in zip(places, centres, strict=True)])


def _moved(image: UInt8Array, mask: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = (mask.shape[1], mask.shape[0])
    picture = cv2.warpAffine(image, change, size, borderMode=cv2.BORDER_REFLECT_101)
    # softened at its new size: enlarged, a soft edge would show a fringe of the other background
    return np.asarray(picture), _soft(cv2.warpAffine(mask.astype(np.float32), change, size))


def _soft(mask: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _EDGE))


def _hide(
    images: UInt8Array,
    truth: UInt8Array,
    masks: np.ndarray,
    texture_of: UInt8Array,
    object_of: np.ndarray,
    random: np.random.Generator,
) -> None:
    """Let a screen pass that hides an object wholly for some frames, if the clip is long and the object not too large.

    Args:
        images: (T, h, w, 3); changed.
        truth: (T, h, w); changed.
        masks: The object, bool, (T, h, w).
        texture_of: An image that the screen is made of, (h, w, 3).
        object_of: What it must not show, bool, (h, w).
        random: Random numbers.
    """
    frames, height, width = masks.shape
    stay = int(random.integers(_HIDDEN[0], _HIDDEN[1] + 1))
    latest = frames - stay - 2
    if latest < 5:
        return
    begin = int(random.integers(5, latest + 1))
    boxes = [box for mask in masks[begin : begin + stay] if (box := Box.of_mask(mask)) is not None]
    if not boxes or max(box.width for box in boxes) > 0.6 * width:
        return
    half = np.array([max(box.width for box in boxes), max(box.height for box in boxes)]) / 2 + 3
    if random.random() < 0.5:
        half[1] = height  # a pole or a tree, and no car
    # the middle of the box, not of the mask: only then half of the largest box is enough
    middles = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    known = np.linspace(begin, begin + stay - 1, len(boxes))
    numbers = np.arange(frames)
    middle = np.stack([np.interp(numbers, known, middles[:, k]) for k in (0, 1)], axis=1)
    away = np.maximum(0, begin - numbers) - np.maximum(0, numbers - (begin + stay - 1))
    middle[:, 0] += random.choice((-1, 1)) * random.uniform(0.3, 0.6) * 2 * half[0] * away
    screen = _screen(texture_of, object_of, random)
    for number in range(frames):
        x0, y0 = np.floor(middle[number] - half).astype(int)
        x1, y1 = np.ceil(middle[number] + half).astype(int)
        alpha = np.zeros((height, width), np.float32)
        alpha[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 1.0
        here = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]])  # its texture moves along
        shifted = cv2.warpAffine(screen, here, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        lay_over(images[number], truth[number], shifted, alpha, 0)


def _screen(image: UInt8Array, mask: np.ndarray, random: np.random.Generator) -> UInt8Array:
    """A piece of the background, enlarged to the whole image; its mean colour where no piece is free of the object."""
    height, width = mask.shape
    rows, columns = height // 6, width // 6
    for _ in range(_TRIES):
        top, left = int(random.integers(height - rows)), int(random.integers(width - columns))
        if not mask[top : top + rows, left : left + columns].any():
            piece = image[top : top + rows, left : left + columns]
            return np.asarray(cv2.resize(piece, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    free = image[~mask] if not mask.all() else image.reshape(-1, 3)
    return np.broadcast_to(free.mean(axis=0).astype(np.uint8), image.shape).copy()
