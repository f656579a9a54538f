# SPDX-License-Identifier: Apache-2.0
"""Clips made of layers: objects cut out of stills move over a background that moves, too.

What clips with one object each cannot teach is in them: several objects that hide each other, twins side by side,
things in front that nobody follows (poles, arms, other objects), objects that leave and come back, parts that look
unlike the rest and move with it, other light, blur. Time is continuous: any instants of a scene can be drawn, so that a
clip may be a pair of far apart frames as well as a seed and the frames of a second later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.training.perturbation import smooth_field
from maskrnn_ros.training.sources import IGNORE, Still, StillFile
from maskrnn_ros.training.sprites import Sprite, cut, emptied, limb, objects_of, relit, shrunk, two_toned
from maskrnn_ros.types import Box, UInt8Array

Floats = npt.NDArray[np.float32]

OWN_SCENE, GUEST, TWIN, TWO_TONED, OCCLUDED, LEAVING = 0.4, 0.35, 0.25, 0.15, 0.5, 0.12
"""How often objects stay in their own picture; further ones join in; one is there twice; a part gets another look;
something passes in front; an object moves so far that it may leave."""

MOST_OBJECTS = 4
_SIZES = 0.12, 0.8
"""Longer side of a pasted object over the height of the frame."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """Some frames and whose each pixel is.

    Args:
        images: RGB, uint8, (T, h, w, 3).
        labels: uint8, (T, h, w): 0 background, 1..N, 255 = ``IGNORE``.
    """

    images: UInt8Array
    labels: UInt8Array


class _Motion:
    """Swings about a place: shift, turn, growth, and how far it is bent, each a sine of its own period."""

    def __init__(self, random: np.random.Generator, shift: float, turn: float, growth: float, bend: float) -> None:
        self._size = np.array([shift, shift * 0.6, turn, growth, bend]) * np.abs(random.normal(0, 0.7, 5))
        self._period = random.uniform(18, 90, 5)
        self._phase = random.uniform(0, 2 * math.pi, 5)

    def at(self, time: float) -> npt.NDArray[np.float64]:
        """(dx, dy, degrees, log scale, bend) at an instant, frames."""
        swing = np.sin(2 * math.pi * time / self._period + self._phase)
        return np.asarray(self._size * swing)

    def about(self, centre: Sequence[float] | npt.NDArray[np.float64], time: float) -> npt.NDArray[np.float64]:
        """The affine change at an instant about a centre, (3, 3)."""
        dx, dy, turn, growth, _ = self.at(time)
        change = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), float(turn), math.exp(growth))
        change[:, 2] += dx, dy
        return _square(change)


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """A sprite, its place in the frame at rest (3, 3), its motion, and its id; 0 is followed by nobody."""

    sprite: Sprite
    place: npt.NDArray[np.float64]
    motion: _Motion
    value: int
    field: Floats | None = None
    follows: _Layer | None = None
    path: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def change(self, time: float) -> npt.NDArray[np.float64]:
        """From the sprite to the frame without the camera, (3, 3)."""
        centre = (self.place @ [*self.sprite.centre, 1.0])[:2]
        change = self.motion.about(centre, time) @ self.place
        if self.follows is not None:  # it passes what it follows at an instant
            target = self.follows.change(time) @ [*self.follows.sprite.centre, 1.0]
            when, vx, vy = self.path
            wanted = target[:2] + np.array([vx, vy]) * (time - when)
            change[:2, 2] += wanted - (change @ [*self.sprite.centre, 1.0])[:2]
        return change


class Scenes:
    """Draws scenes.

    Args:
        stills: What they are made of.
        size: (h, w) of the frames, pixels.
    """

    def __init__(self, stills: Sequence[Still | StillFile], size: tuple[int, int]) -> None:
        self._size = size
        self._scenes = [still for still in stills if not still.source.endswith("cutouts")]
        self._weights = chances(stills)
        self._stills = list(stills)
        self._noise = np.random.default_rng(0).normal(0, 1, (size[0] + 64, size[1] + 64, 3)).astype(np.float32)

    def draw(self, random: np.random.Generator, times: Sequence[float]) -> Clip:
        """A scene at some instants, frames; ids are those of objects that were put there, seen or not."""
        background, layers, ignore = self._compose(random, times)
        camera = _Motion(random, 24.0 if random.random() < 0.7 else 2.0, 4.0, 0.05, 0.0)
        shape = (len(times), *self._size)
        images, labels = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        middle = self._size[1] / 2, self._size[0] / 2
        look = _Look(random, self._noise)
        for number, time in enumerate(times):
            view = camera.about(middle, time)
            image, place = background
            canvas = _warped(image, view @ place, self._size, cv2.BORDER_REFLECT_101).astype(np.float32)
            if ignore is not None:
                labels[number][_warped(ignore, view @ place, self._size) >= 0.5] = IGNORE
            for layer in layers:
                _lay(canvas, labels[number], layer, view, time)
            images[number] = look.of(canvas, time)
        return Clip(images=images, labels=labels)

    def draw_over(self, clip: Clip, random: np.random.Generator, times: Sequence[float]) -> Clip:
        """A clip with one or two things pasted over it, with ids after its own or with none; changed in place."""
        value = int(np.max(clip.labels, initial=0, where=clip.labels < IGNORE))
        layers = []
        for _ in range(int(random.integers(1, 3))):
            if random.random() < 0.35:
                sprite = limb(self._size, self._scene(random).image, random)
                place = _shift(*(random.uniform(-0.5, 0.5, 2) * self._size[::-1]))
                motion = _Motion(random, self._size[1] * 0.4, 10.0, 0.05, 0.0)
                layers.append(_Layer(sprite, place, motion, 0))
                continue
            still = self._pick(random)
            ids = objects_of(still)
            if ids:
                value += 1
                sprite = cut(still, int(random.choice(ids)))[0]
                layers.append(self._pasted(random, sprite, value if random.random() < 0.8 else 0))
        for number, time in enumerate(times):
            canvas = clip.images[number].astype(np.float32)
            for layer in layers:
                _lay(canvas, clip.labels[number], layer, np.eye(3), time)
            clip.images[number] = np.clip(canvas, 0, 255).astype(np.uint8)
        return clip

    def _pick(self, random: np.random.Generator) -> Still:
        """A still, by ``chances``."""
        return self._stills[random.choice(len(self._stills), p=self._weights)].read()

    def _scene(self, random: np.random.Generator) -> Still:
        """A still that has a background."""
        return self._scenes[random.integers(len(self._scenes))].read()

    def _compose(
        self, random: np.random.Generator, times: Sequence[float]
    ) -> tuple[tuple[UInt8Array, npt.NDArray[np.float64]], list[_Layer], Floats | None]:
        """Background and its place, layers from back to front, what of the background is unknown."""
        still = self._pick(random)
        chosen = objects_of(still)
        layers: list[_Layer] = []
        ignore = None
        if still.alpha is None and chosen and random.random() < OWN_SCENE:
            place = _cover(still.image.shape, self._size, random)
            background = emptied(still.image, np.isin(still.labels, chosen)), place
            if (still.labels == IGNORE).any():
                ignore = (still.labels == IGNORE).astype(np.float32)
            for i in chosen[:MOST_OBJECTS]:
                sprite, corner = cut(still, i)
                layers.append(self._layer(random, sprite, place @ _shift(*corner), len(layers) + 1))
        else:
            scene = self._scene(random)
            hidden = (scene.labels > 0) & (scene.labels < IGNORE)
            image = emptied(scene.image, hidden) if hidden.mean() < 0.4 and random.random() < 0.5 else scene.image
            background = image, _cover(scene.image.shape, self._size, random)
            wanted = chosen[: int(random.integers(1, MOST_OBJECTS + 1))]
            for i in wanted:
                layers.append(self._pasted(random, cut(still, i)[0], len(layers) + 1))
        while len(layers) < MOST_OBJECTS and (not layers or random.random() < GUEST):
            guest = self._pick(random)
            ids = objects_of(guest)
            if ids:
                sprite = relit(cut(guest, int(random.choice(ids)))[0], random)
                layers.insert(int(random.integers(len(layers) + 1)), self._pasted(random, sprite, len(layers) + 1))
        if random.random() < TWIN:
            self._add_twin(random, layers)
        if random.random() < OCCLUDED:
            for _ in range(random.integers(1, 3)):
                self._add_occluder(random, layers, times)
        return background, layers, ignore

    def _layer(self, random: np.random.Generator, sprite: Sprite, place: npt.NDArray[np.float64], value: int) -> _Layer:
        """A sprite at a place, with a motion and a bend drawn for it."""
        if random.random() < TWO_TONED:
            sprite = two_toned(sprite, random)
        far = random.random() < LEAVING
        shift = self._size[1] * 0.6 if far else random.choice([4.0, 20.0, 60.0], p=[0.25, 0.45, 0.3])
        motion = _Motion(random, float(shift), 14.0, 0.14, 0.06)
        field = None
        if random.random() < 0.6:
            side = max(sprite.alpha.shape)
            field = smooth_field(sprite.alpha.shape, max(4.0, side * random.uniform(0.15, 0.4)), random)
            field = (field * side).astype(np.float32)
        return _Layer(sprite, place, motion, value, field)

    def _pasted(self, random: np.random.Generator, sprite: Sprite, value: int) -> _Layer:
        """Anywhere in the frame, at a size of its own."""
        side = math.exp(random.uniform(*np.log(_SIZES))) * self._size[0]
        factor = side / max(sprite.alpha.shape)
        sprite, factor = shrunk(sprite, factor)
        mirrored = factor * random.choice((-1, 1))
        to = random.uniform(0.15, 0.85, 2) * self._size[::-1]
        place = np.diag([mirrored, factor, 1.0])
        place[:2, 2] = to - place[:2, :2] @ sprite.centre
        return self._layer(random, sprite, place, value)

    def _add_twin(self, random: np.random.Generator, layers: list[_Layer]) -> None:
        """The same thing once more, beside the first, mirrored or in other light; followed or not."""
        first = layers[random.integers(len(layers))]
        sprite = first.sprite
        if random.random() < 0.5:
            sprite = Sprite(np.ascontiguousarray(sprite.image[:, ::-1]), np.ascontiguousarray(sprite.alpha[:, ::-1]))
        if random.random() < 0.5:
            sprite = relit(sprite, random)
        place = first.place.copy()
        scale = abs(place[0, 0])
        away = random.choice((-1, 1)) * random.uniform(0.7, 1.4) * sprite.alpha.shape[1] * scale
        place[:2, 2] += away, random.uniform(-0.3, 0.3) * sprite.alpha.shape[0] * scale
        value = len(layers) + 1 if len(layers) < MOST_OBJECTS + 1 and random.random() < 0.7 else 0
        twin = self._layer(random, sprite, place, value)
        layers.insert(int(random.integers(len(layers) + 1)), twin)

    def _add_occluder(self, random: np.random.Generator, layers: list[_Layer], times: Sequence[float]) -> None:
        """Something that nobody follows passes in front of one of the objects while the clip lasts."""
        followed = [layer for layer in layers if layer.value]
        target = followed[random.integers(len(followed))]
        if random.random() < 0.5:
            sprite = limb(self._size, self._scene(random).image, random)
            place = np.eye(3)
        else:
            ids, still = [], self._pick(random)
            for _ in range(8):
                ids = objects_of(still)
                if ids:
                    break
                still = self._pick(random)
            if not ids:
                return
            sprite = relit(cut(still, int(random.choice(ids)))[0], random)
            factor = random.uniform(0.25, 0.9) * self._size[0] / max(sprite.alpha.shape)
            sprite, factor = shrunk(sprite, factor)
            place = np.diag([factor, factor, 1.0])
        angle, speed = random.uniform(0, 2 * math.pi), math.exp(random.uniform(math.log(3), math.log(25)))
        later = times[len(times) // 3 :]
        when = float(random.uniform(later[0], later[-1] + 0.01))
        motion = _Motion(random, 5.0, 8.0, 0.05, 0.03)
        path = when, speed * math.cos(angle), speed * math.sin(angle)
        layers.append(_Layer(sprite, place, motion, 0, follows=target, path=path))


class _Look:
    """Light that drifts, blur, noise: of a whole clip."""

    def __init__(self, random: np.random.Generator, noise: Floats) -> None:
        self._light = _Motion(random, 0.0, 0.0, 0.18 if random.random() < 0.4 else 0.03, 0.25)
        self._grain = noise * float(random.choice([0.0, 2.0, 6.0], p=[0.4, 0.4, 0.2]))
        self._blur = float(random.uniform(0.5, 1.6)) if random.random() < 0.2 else 0.0
        self._streak = random.uniform(0, math.pi) if random.random() < 0.15 else None
        self._random = random

    def of(self, canvas: Floats, time: float) -> UInt8Array:
        """The image of float32 (h, w, 3), 0..255."""
        _, _, _, gain, _ = self._light.at(time)
        image = canvas * math.exp(gain)
        if self._blur:
            image = cv2.GaussianBlur(image, (0, 0), self._blur)
        elif self._streak is not None:
            image = cv2.filter2D(image, -1, _streak(int(self._random.integers(3, 10)), self._streak))
        height, width = image.shape[:2]
        top, left = self._random.integers(0, 64, 2)
        image = image + self._grain[top : top + height, left : left + width]
        return np.asarray(np.clip(image, 0, 255), np.uint8)


def _lay(canvas: Floats, labels: UInt8Array, layer: _Layer, view: npt.NDArray[np.float64], time: float) -> None:
    """Paint a layer into its part of the frame, and its id where it covers half or more of a pixel."""
    change = view @ layer.change(time)
    height, width = layer.sprite.alpha.shape
    corners = change[:2] @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    bend = layer.motion.at(time)[4] if layer.field is not None else 0.0
    margin = abs(bend) * max(height, width) * math.hypot(*change[:2, 0]) + 1
    x0, y0 = np.floor(corners.min(axis=1) - margin).astype(int)
    x1, y1 = np.ceil(corners.max(axis=1) + margin).astype(int)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, labels.shape[1]), min(y1, labels.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    box = Box(int(x0), int(y0), int(x1), int(y1))
    size = box.y1 - box.y0, box.x1 - box.x0
    local = _shift(-box.x0, -box.y0) @ change
    if layer.field is None or abs(bend) < 1e-3:
        picture = _warped(layer.sprite.image, local, size, cv2.BORDER_REPLICATE)
        alpha = _warped(layer.sprite.alpha, local, size)
    else:
        inverse = np.linalg.inv(local)
        rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
        x = (inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]).astype(np.float32)
        y = (inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]).astype(np.float32)
        moved = cv2.remap(layer.field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * np.float32(bend)
        x, y = x + moved[..., 0], y + moved[..., 1]
        picture = cv2.remap(layer.sprite.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(layer.sprite.alpha, x, y, cv2.INTER_LINEAR)
    part = canvas[box.slices]
    part += (picture - part) * alpha[..., None]
    labels[box.slices][alpha >= 0.5] = layer.value


def chances(stills: Sequence[Still | StillFile]) -> npt.NDArray[np.float64]:
    """Chances: a set counts by the root of its size, so that large ones of one kind do not drown the others."""
    counts: dict[str, int] = {}
    for still in stills:
        counts[still.source] = counts.get(still.source, 0) + 1
    weights = np.array([counts[still.source] ** -0.5 for still in stills])
    return np.asarray(weights / weights.sum())


def _cover(shape: Sequence[int], size: tuple[int, int], random: np.random.Generator) -> npt.NDArray[np.float64]:
    """How a picture (H, W) covers a frame (h, w) and somewhat more, mirrored at random, (3, 3)."""
    scale = max(size[0] / shape[0], size[1] / shape[1]) * random.uniform(1.0, 1.3)
    spare = np.array([shape[1] * scale - size[1], shape[0] * scale - size[0]])
    corner = -spare * random.uniform(0, 1, 2)
    place = np.diag([scale, scale, 1.0])
    place[:2, 2] = corner
    if random.random() < 0.5:
        place = np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]]) @ place
    return place


def _shift(x: float, y: float) -> npt.NDArray[np.float64]:
    """The affine change that moves by (x, y), (3, 3)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _square(change: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """An affine change (2, 3) as (3, 3)."""
    return np.vstack([change, (0.0, 0.0, 1.0)])


def _warped(
    picture: npt.NDArray[np.generic],
    change: npt.NDArray[np.float64],
    size: tuple[int, int],
    border: int = cv2.BORDER_CONSTANT,
) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.warpAffine(picture, change[:2], size[::-1], borderMode=border))


def _streak(length: int, angle: float) -> Floats:
    """A line of a kernel that sums to 1: blur by motion."""
    kernel = np.zeros((length, length), np.float32)
    half = (length - 1) / 2
    step = np.array([math.cos(angle), math.sin(angle)]) * half
    ends = [tuple(int(round(v)) for v in (half + sign * step)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1)
    return kernel / max(float(kernel.sum()), 1.0)
