# SPDX-License-Identifier: Apache-2.0
"""A synthetic world with exact masks and exact flow: textured shapes that move over a textured background."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.types import Frame, Seed

HEIGHT, WIDTH = 96, 128
PERIOD_NS = 40_000_000
START_NS = 1_000_000_000

WARP_ONLY = with_values(Config(), network__enabled=False, adaptation__method="none", refinement__enabled=False)
"""The tracker without networks: what it does follows from the flow alone."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A textured rectangle: where it is on frame 0 and how it moves, in whole pixels."""

    instance_id: int
    x: int
    y: int
    width: int
    height: int
    dx: int
    dy: int


TWO = (Shape(1, 20, 20, 24, 20, 2, 0), Shape(2, 80, 50, 20, 28, -1, 1))


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise that flow can follow, uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)


def stamp_ns(number: int) -> int:
    """Stamp of a frame."""
    return START_NS + number * PERIOD_NS


def labels(number: int, shapes: tuple[Shape, ...] = TWO) -> np.ndarray:
    """Exact ids of a frame, int32 (HEIGHT, WIDTH); later shapes lie over earlier ones."""
    out = np.zeros((HEIGHT, WIDTH), np.int32)
    for s in shapes:
        x, y = s.x + s.dx * number, s.y + s.dy * number
        out[max(0, y) : max(0, y + s.height), max(0, x) : max(0, x + s.width)] = s.instance_id
    return out


def image(number: int, shapes: tuple[Shape, ...] = TWO) -> np.ndarray:
    """The picture of a frame, RGB uint8 (HEIGHT, WIDTH, 3)."""
    out = texture(0, HEIGHT, WIDTH)
    for s in shapes:
        patch = texture(s.instance_id, s.height, s.width)
        x, y = s.x + s.dx * number, s.y + s.dy * number
        top, left = max(0, -y), max(0, -x)
        target = out[max(0, y) : max(0, y + s.height), max(0, x) : max(0, x + s.width)]
        target[...] = patch[top : top + target.shape[0], left : left + target.shape[1]]
    return out


def frame(number: int, shapes: tuple[Shape, ...] = TWO) -> Frame:
    """A frame of the world."""
    return Frame(stamp_ns=stamp_ns(number), image=image(number, shapes))


def seed(number: int, *ids: int, shapes: tuple[Shape, ...] = TWO) -> Seed:
    """A seed of some ids (default all) on a frame."""
    exact = labels(number, shapes)
    if ids:
        exact = np.where(np.isin(exact, ids), exact, 0).astype(np.int32)
    return Seed(stamp_ns=stamp_ns(number), labels=exact)


class ExactFlow:
    """The true backward flow between any two frames; it knows a frame by its picture.

    Background that was hidden before has no origin: its flow points far outside.
    """

    def __init__(self, shapes: tuple[Shape, ...] = TWO, frames: int = 400) -> None:
        self._shapes = {s.instance_id: s for s in shapes}
        self._all = shapes
        self._frames = frames
        self._numbers: dict[bytes, int] = {}

    def _number(self, picture: np.ndarray) -> int:
        key = picture.tobytes()
        while key not in self._numbers:
            number = len(self._numbers)
            assert number < self._frames, "not a picture of this world"
            self._numbers[image(number, self._all).tobytes()] = number
        return self._numbers[key]

    def __call__(self, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        now, before = self._number(current), self._number(previous)
        ids, earlier = labels(now, self._all), labels(before, self._all)
        flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
        flow[:, (ids == 0) & (earlier != 0)] = 1e4
        for i, s in self._shapes.items():
            flow[:, ids == i] = np.array([[-s.dx], [-s.dy]]) * (now - before)
        return flow


def unrefined(config: Config) -> Config:
    """Masks exactly as the flow makes them."""
    return with_values(config, refinement__enabled=False)


def exact_tracker(config: Config, shapes: tuple[Shape, ...] = TWO) -> Tracker:
    """A tracker that is given the true flow."""
    return Tracker(unrefined(config), ExactFlow(shapes))


def exact_or_still_tracker(config: Config) -> Tracker:
    """The same for the node, which warms a tracker up with pictures that are none of the world."""
    exact = ExactFlow()

    def flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        known = current.shape[:2] == (HEIGHT, WIDTH)
        return exact(current, previous) if known else np.zeros((2, *current.shape[:2]), np.float32)

    return Tracker(unrefined(config), flow)
