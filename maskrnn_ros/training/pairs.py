# SPDX-License-Identifier: Apache-2.0
"""Pairs of images whose flow is known exactly: objects of real images move over real images.

Nothing is ever shifted twice: each layer knows for every pixel p of the current frame where on the previous one it was,
g(p), by a formula. Both frames are drawn from the source image, the previous at A(q), the current at A(g(p)), so the
flow g(p) - p is exact where the layer is seen, also of what was hidden or outside before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.training.perturbation import smooth_field
from maskrnn_ros.training.stills import Still, Unsuitable, read_still
from maskrnn_ros.types import BoolArray, Box, UInt8Array

MOST = 45.0
"""Pixels by which a layer's middle moves at most."""

_CAMERA, _OWN = (0.3, 18.0), (0.8, 24.0)
"""Smallest and largest typical motion, pixels, of the background, and of an object against it."""

_MOST_OBJECTS = 4
_BAR = 0.25
"""How often an object is cut out as a bar or an ellipse, of any image: poles, and things nobody has a mask of."""

_TRIES = 100


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Pair:
    """Two frames and what moved how.

    Args:
        current: RGB, uint8, (h, w, 3).
        previous: Likewise.
        flow: Backward: what is at p now was at p + flow[v, u] before; float32, (h, w, 2), (dx, dy) in pixels.
        hidden: What was not seen before: behind something or outside; bool, (h, w).
    """

    current: UInt8Array
    previous: UInt8Array
    flow: np.ndarray
    hidden: BoolArray


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """Where the pixels of the current frame were: ``turn`` p + field(p), p in pixel indices.

    Args:
        turn: Projective, (3, 3).
        field: Deformation, pixels, (h, w, 2).
    """

    turn: np.ndarray
    field: np.ndarray

    def before(self) -> np.ndarray:
        """Places (x, y) on the previous frame, float64 (h, w, 2)."""
        return np.asarray(_projected(self.turn, _places(self.field.shape[:2])) + self.field)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """An image and how it moves.

    Args:
        image: RGB, uint8, (H, W, 3).
        alpha: Where it is seen, float32 (H, W); None everywhere.
        change: From the previous frame to the image, affine (2, 3).
        motion: From the current frame to the previous one.
    """

    image: UInt8Array
    alpha: np.ndarray | None
    change: np.ndarray
    motion: Motion


class Sources:
    """Images with masks of objects, read when drawn.

    Args:
        paths: (image, mask) of each; masks binary or ids.
        size: (h, w) of the frames to make, pixels.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, paths: Sequence[tuple[Path, Path]], size: tuple[int, int]) -> None:
        if not paths:
            raise ValueError("expected images to make pairs of, found none")
        self._paths, self._size = tuple(paths), size

    def still(self, random: np.random.Generator) -> Still:
        """Any image that shows an object.

        Raises:
            ValueError: Hardly any does, or a file cannot be read.
        """
        for _ in range(_TRIES):
            try:
                return read_still(*self._paths[random.integers(len(self._paths))])
            except Unsuitable:
                continue
        raise ValueError(f"expected images that show an object, found none in {_TRIES} tries")

    def draw(self, random: np.random.Generator) -> Pair:
        """A pair; the same random numbers make the same one."""
        scene, other = self.still(random), self.still(random)
        camera = _typical(_CAMERA, random)
        middle = np.array([self._size[1] / 2, self._size[0] / 2])
        turn = _turn(middle, camera, random, projective=True)
        field = smooth_field(self._size, float(random.uniform(40, 120)), random) * min(3.0, 0.15 * camera)
        layers = [Layer(scene.image, None, _cover(scene.image, self._size, random), Motion(turn, field))]
        for _ in range(random.integers(1, _MOST_OBJECTS + 1)):
            layers.append(self._object(scene if random.random() < 0.3 else other, turn, random))
        return compose(layers)

    def _object(self, still: Still, camera: np.ndarray, random: np.random.Generator) -> Layer:
        """An object of a still, or a bar of its colours, somewhere in the frame, with a motion of its own."""
        if random.random() < _BAR:
            mask = _shape(still.image.shape[:2], random)
        else:
            mask = still.masks[random.integers(min(3, len(still.masks)))]
        change, centre = _put(mask, self._size, random)
        own = _typical(_OWN, random)
        turn = _bounded(_turn(centre, own, random) @ camera, centre)
        field = smooth_field(self._size, float(random.uniform(15, 60)), random) * min(3.0, 0.2 * own)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
        return Layer(still.image, soft, change, Motion(turn, field))


def compose(layers: Sequence[Layer]) -> Pair:
    """Draw layers, the background first, on both frames; all fields have the size of the frames."""
    size = layers[0].motion.field.shape[:2]
    places = _places(size)
    frames = [np.zeros((*size, 3), np.float32) for _ in range(2)]
    owners = [np.zeros(size, np.int32) for _ in range(2)]
    flow, reached = np.zeros((*size, 2)), np.zeros((*size, 2))
    for number, layer in enumerate(layers):
        before = layer.motion.before()
        for frame, owner, where in zip(frames, owners, (before, places), strict=True):
            at = cv2.transform(where, layer.change).astype(np.float32)
            alpha = np.ones(size, np.float32) if layer.alpha is None else _sample(layer.alpha, at, cv2.BORDER_CONSTANT)
            box = Box.of_mask(alpha)
            if box is None:
                continue
            part = box.slices
            picture = _sample(layer.image, at[part], cv2.BORDER_REFLECT_101)
            frame[part] += alpha[part][..., None] * (picture - frame[part])
            owner[part][alpha[part] >= 0.5] = number
        mine = owners[0] == number
        flow[mine], reached[mine] = (before - places)[mine], before[mine]
    current, previous = (np.rint(frame).astype(np.uint8) for frame in frames)
    was = cv2.remap(
        owners[1].astype(np.float32), reached.astype(np.float32), None, cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT, borderValue=-1,
    )  # fmt: skip
    return Pair(current=current, previous=previous, flow=flow.astype(np.float32), hidden=was != owners[0])


def roughen(pair: Pair, random: np.random.Generator) -> Pair:
    """The same pair, mirrored, its colours changed, the two frames differently lit, noisy and blurred."""
    current, previous, flow, hidden = pair.current, pair.previous, pair.flow, pair.hidden
    for axis, chance in ((1, 0.5), (0, 0.3)):
        if random.random() < chance:
            current, previous, flow, hidden = (np.flip(a, axis) for a in (current, previous, flow, hidden))
            flow = flow * np.array((-1, 1) if axis else (1, -1), np.float32)
    gain = random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
    gamma, shift = random.uniform(0.7, 1.4), random.uniform(-15, 15)
    noise, blur = random.uniform(0, 5), max(0.0, random.uniform(-1.5, 1.2))
    frames = []
    for image in (current, previous):
        light = random.uniform(0.93, 1.07)
        value = 255 * (np.arange(256) / 255) ** gamma * light
        table = np.clip(np.rint(value[:, None] * gain + shift), 0, 255).astype(np.uint8)
        changed = cv2.LUT(np.ascontiguousarray(image), table[None])
        if blur > 0.2:
            changed = cv2.GaussianBlur(changed, (0, 0), blur)
        grain = random.standard_normal(image.shape, np.float32) * noise
        frames.append(np.clip(np.rint(changed + grain), 0, 255).astype(np.uint8))
    return Pair(current=frames[0], previous=frames[1], flow=np.ascontiguousarray(flow), hidden=hidden)


def _places(size: Sequence[int]) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([columns, rows], axis=-1).astype(np.float64)


def _projected(turn: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.perspectiveTransform(points.reshape(-1, 1, 2), turn)).reshape(points.shape)


def _sample(picture: np.ndarray, at: np.ndarray, border: int) -> np.ndarray:
    return np.asarray(cv2.remap(picture, at, None, cv2.INTER_LINEAR, borderMode=border), np.float32)


def _typical(span: tuple[float, float], random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(*np.log(span))))


def _turn(centre: np.ndarray, pixels: float, random: np.random.Generator, *, projective: bool = False) -> np.ndarray:
    """Random motion of about so many pixels, (3, 3): shift, rotation, zoom, shear, perspective about a centre."""
    strength = min(1.0, pixels / 6)
    matrix = np.eye(3)
    angle = np.deg2rad(random.normal(0, 2.5)) * strength
    zoom = np.exp(random.normal(0, 0.03) * strength)
    matrix[:2, :2] = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:2, :2] += random.normal(0, 0.012, (2, 2)) * strength
    if projective:
        matrix[2, :2] = random.normal(0, 6e-5, 2) * strength
    matrix[:2, 2] = random.normal(0, pixels, 2) * (1.0, 0.7)
    there = np.eye(3)
    there[:2, 2] = centre
    return _bounded(np.asarray(there @ matrix @ np.linalg.inv(there)), centre)


def _bounded(turn: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The same motion, with a shift so that its centre moves by ``MOST`` at most."""
    shift = _projected(turn, centre) - centre
    length = float(np.hypot(*shift))
    back = np.eye(3)
    back[:2, 2] = shift * (min(1.0, MOST / max(length, 1e-9)) - 1)
    return np.asarray(back @ turn)


def _cover(image: UInt8Array, size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """From the frame to a part of the image, (2, 3): 0.6 to 1.1 pixels of the image a pixel, so that it stays sharp."""
    rows, columns = image.shape[:2]
    scale = float(min(random.uniform(0.6, 1.1), rows / size[0], columns / size[1]))
    corner = random.uniform(0, 1, 2) * (columns - scale * size[1], rows - scale * size[0])
    return np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])


def _put(mask: BoolArray, size: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """From the frame to an image whose object comes somewhere in the frame, (2, 3); its middle in the frame, (x, y)."""
    rows, columns = np.nonzero(mask)
    length = max(np.ptp(rows), np.ptp(columns)) + 1
    scale = length / (random.uniform(0.2, 1.0) * size[0])
    centre = random.uniform(0.05, 0.95, 2) * size[::-1]
    angle = random.normal(0, 0.2)
    mirror = random.choice((-1, 1))
    turn = scale * np.array([[np.cos(angle) * mirror, -np.sin(angle) * mirror], [np.sin(angle), np.cos(angle)]])
    at = np.array([columns.mean(), rows.mean()])
    return np.column_stack([turn, at - turn @ centre]), centre


def _shape(size: tuple[int, int], random: np.random.Generator) -> BoolArray:
    """A bar or an ellipse in an image, bool (H, W)."""
    drawn = np.zeros(size, np.uint8)
    centre = (size[1] / 2, size[0] / 2)
    is_bar = random.random() < 0.5
    long = size[0] * random.uniform(0.5, 0.9)
    short = long * random.uniform(0.06, 0.3) if is_bar else long * random.uniform(0.4, 1.0)
    box = (centre, (short, long), float(random.uniform(0, 180)))
    if is_bar:
        cv2.fillPoly(drawn, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 1)
    else:
        cv2.ellipse(drawn, box, 1, -1)
    return drawn > 0
