# SPDX-License-Identifier: Apache-2.0
"""What a benchmark looks at: textured objects that go round before a textured background, drawn at any size."""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import LabelArray, UInt8Array

FRAMES = 48
"""Images of one round; after the last comes the first again, without a jump."""

_HEIGHT = 0.25
"""Of an object, as a share of the image's height, as long as it leaves room for the others."""
_OF_CELL = 0.62
"""Largest diameter of an object as a share of the shorter side of its cell: the rest is room to move."""
_ORBIT = 0.05
"""Largest radius of an orbit as a share of the image's height: three pixels from image to image at 480p."""
_SWAY = 0.01
"""How far the background moves, as a share of the image's height: a camera that is not quite still."""
_TILT = math.radians(8.0)
_MIN_DIAMETER_PX = 12.0
_EDGE_PX = 2.0
"""Kept free on all sides of a cell: edges are soft, and never touch."""

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
    """An object: what it looks like, and the ellipse that it goes round.

    Args:
        instance_id: Its id, from 1.
        centre: Of the orbit, (x, y), pixels.
        radius: Of the circle that holds the object at any angle, pixels.
        orbit: Half axes of the orbit, (x, y), pixels.
        phase: Where on the orbit it starts, radians.
        turn: 1 or -1: which way round.
        lobes: Bulges of its outline.
        axis: Width of its outline as a share of its height.
        hue: Of its first colour, 0..1; the second lies opposite.
        pattern: 0 stripes, 1 squares, 2 spots.
    """

    instance_id: int
    centre: tuple[float, float]
    radius: float
    orbit: tuple[float, float]
    phase: float
    turn: int
    lobes: int
    axis: float
    hue: float
    pattern: int

    def place(self, number: int) -> tuple[float, float, float]:
        """Where it is on an image: (x, y) of its centre, pixels, and its angle, radians."""
        time = 2 * math.pi * (number % FRAMES) / FRAMES
        along = self.phase + self.turn * time
        x = self.centre[0] + self.orbit[0] * math.cos(along)
        y = self.centre[1] + self.orbit[1] * math.sin(along)
        return x, y, _TILT * math.sin(time + self.phase)


class Scene:
    """A closed motion of ``FRAMES`` images in which all objects are wholly visible and never touch.

    The same arguments give the same images. Each object has a cell of a grid to itself, and a colour, a pattern and
    an outline of its own; it is 1/4 of the image's height high where there is room, 1/6 or more with 16 objects in a
    wide image.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many.
        seed: Of all that is drawn by lot.

    Raises:
        ValueError: The objects would be too small to be followed.
    """

    def __init__(self, width: int, height: int, objects: int, seed: int = 0) -> None:
        self.width, self.height, self.objects, self.seed = width, height, objects, seed
        self.bodies = _bodies(width, height, objects, np.random.default_rng(seed))

    @property
    def object_height(self) -> float:
        """Height of an object, as a share of the image's."""
        return 2 * self.bodies[0].radius / self.height

    def image(self, number: int) -> UInt8Array:
        """An image, RGB, uint8 (H, W, 3)."""
        image = self._behind(number)
        for body in self.bodies:
            rows, columns, u, v = _local(body, number)
            alpha = _alpha(body, u, v)[..., None]
            region = image[rows, columns]
            region += alpha * (_texture(body, u, v) - region)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def images(self) -> UInt8Array:
        """All images of a round, uint8 (FRAMES, H, W, 3)."""
        images = np.empty((FRAMES, self.height, self.width, 3), np.uint8)
        for number in range(FRAMES):
            images[number] = self.image(number)
        return images

    def labels(self, number: int) -> LabelArray:
        """The exact ids on an image, int32 (H, W), 0 = background."""
        labels = np.zeros((self.height, self.width), np.int32)
        for body in self.bodies:
            rows, columns, u, v = _local(body, number)
            labels[rows, columns][_alpha(body, u, v) >= 0.5] = body.instance_id
        return labels

    def _behind(self, number: int) -> FloatArray:
        time = 2 * math.pi * (number % FRAMES) / FRAMES
        sway = _SWAY * self.height
        x, y = sway * (1 + math.cos(time)), sway * (1 + math.sin(time))
        shift = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
        size = self.width, self.height
        return np.asarray(cv2.warpAffine(self._background, shift, size, borderMode=cv2.BORDER_REFLECT), np.float32)

    @functools.cached_property
    def _background(self) -> FloatArray:
        """Noise of several sizes in dull colours, float32, a little larger than the image."""
        rng = np.random.default_rng((self.seed, 1))
        margin = 1 + math.ceil(2 * _SWAY * self.height)
        size = self.width + margin, self.height + margin
        picture = np.full((size[1], size[0], 3), (112, 104, 94), np.float32)
        for cells, contrast in ((4, 30), (12, 22), (40, 16), (120, 12)):
            coarse = rng.normal(0, contrast, (cells, cells * 2, 1)) + rng.normal(0, contrast / 4, (cells, cells * 2, 3))
            picture += cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        return np.clip(picture, 0, 255)


def _bodies(width: int, height: int, objects: int, rng: np.random.Generator) -> tuple[Body, ...]:
    columns = math.ceil(math.sqrt(objects * width / height))
    rows = math.ceil(objects / columns)
    cell = width / columns, height / rows
    diameter = min(_HEIGHT * height, _OF_CELL * min(cell))
    if diameter < _MIN_DIAMETER_PX:
        raise ValueError(
            f"{objects} objects do not fit into {width}x{height}: expected {_MIN_DIAMETER_PX:g} pixels or more for "
            f"each, there are {diameter:.1f}"
        )
    used = np.sort(rng.permutation(columns * rows)[:objects])
    hue = rng.random()
    bodies = []
    for index, (row, column) in enumerate(zip(*divmod(used, columns), strict=True)):
        room = [max(0.0, (side - diameter) / 2 - _EDGE_PX) for side in cell]
        orbit = [min(0.8 * free, _ORBIT * height) * rng.uniform(0.7, 1.0) for free in room]
        jitter = [rng.uniform(-1, 1) * (free - radius) for free, radius in zip(room, orbit, strict=True)]
        bodies.append(
            Body(
                instance_id=index + 1,
                centre=((column + 0.5) * cell[0] + jitter[0], (row + 0.5) * cell[1] + jitter[1]),
                radius=diameter / 2,
                orbit=(orbit[0], orbit[1]),
                phase=rng.uniform(0, 2 * math.pi),
                turn=1 if rng.random() < 0.5 else -1,
                lobes=int(rng.integers(2, 6)),
                axis=rng.uniform(0.7, 1.0),
                hue=(hue + 0.618034 * index) % 1.0,  # the golden ratio: neighbours are far apart
                pattern=index % 3,
            )
        )
    return tuple(bodies)


def _local(body: Body, number: int) -> tuple[slice, slice, FloatArray, FloatArray]:
    """The rows and columns around an object, and its own coordinates there; its circle has radius 1 in them."""
    x, y, angle = body.place(number)
    reach = body.radius + 1
    rows = slice(max(0, math.floor(y - reach)), math.ceil(y + reach))
    columns = slice(max(0, math.floor(x - reach)), math.ceil(x + reach))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y)) / np.float32(body.radius)
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)) / np.float32(body.radius)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return rows, columns, cos * dx + sin * dy, cos * dy - sin * dx


def _alpha(body: Body, u: FloatArray, v: FloatArray) -> FloatArray:
    """How much of a pixel the object covers, 0..1."""
    u = u / np.float32(body.axis)
    outline = 0.92 + 0.08 * np.cos(body.lobes * np.arctan2(v, u) + body.phase)
    inside = (outline - np.hypot(u, v)) * body.radius + 0.5
    return np.clip(inside, 0, 1).astype(np.float32)


def _texture(body: Body, u: FloatArray, v: FloatArray) -> FloatArray:
    """Colour of an object at its own coordinates, float32 (..., 3): a pattern, darker to the rim."""
    waves = np.sin(9 * u + 4 * v), np.sin(9 * v - 3 * u)
    pattern = (waves[0], waves[0] * waves[1], np.cos(7 * u) + np.cos(8 * v) - 0.6)[body.pattern]
    grain = 0.12 * np.sin(23 * u + 5 * np.sin(11 * v)) + 0.1 * np.sin(31 * v + 4 * np.sin(13 * u))
    share = (0.5 + 0.5 * np.tanh(4 * pattern))[..., None]
    colour = share * _rgb(body.hue, 0.75, 225) + (1 - share) * _rgb(body.hue + 0.45, 0.55, 130)
    light = (1.05 + grain - 0.3 * (u * u + v * v))[..., None]
    return np.asarray(colour * light, np.float32)


def _rgb(hue: float, saturation: float, value: float) -> FloatArray:
    pixel = np.array([[[360 * (hue % 1.0), saturation, value / 255]]], np.float32)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255, np.float32)
