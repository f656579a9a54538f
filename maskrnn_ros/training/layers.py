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

from maskrnn_ros.training.perturbation import light, smooth_field
from maskrnn_ros.training.sources import IGNORE, Still, StillFile
from maskrnn_ros.types import Box, UInt8Array

Floats = npt.NDArray[np.float32]

OWN_SCENE, GUEST, TWIN, TWO_TONED, OCCLUDED, LEAVING = 0.4, 0.35, 0.25, 0.15, 0.5, 0.12
"""How often objects stay in their own picture; further ones join in; one is there twice; a part gets another look;
something passes in front; an object moves so far that it may leave."""

MOST_OBJECTS = 4
_LEAST = 400
"""Pixels of a still that an object must have."""

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


@dataclasses.dataclass(frozen=True, eq=False)
class _Sprite:
    """A cut-out: colours uint8 (H, W, 3) and alpha float32 (H, W), 0..1."""

    image: UInt8Array
    alpha: Floats

    @property
    def centre(self) -> tuple[float, float]:
        return self.alpha.shape[1] / 2, self.alpha.shape[0] / 2


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

    sprite: _Sprite
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
                sprite = _limb(self._size, self._scene(random).image, random)
                place = _shift(*(random.uniform(-0.5, 0.5, 2) * self._size[::-1]))
                motion = _Motion(random, self._size[1] * 0.4, 10.0, 0.05, 0.0)
                layers.append(_Layer(sprite, place, motion, 0))
                continue
            still = self._pick(random)
            ids = _objects(still)
            if ids:
                value += 1
                sprite = _cut(still, int(random.choice(ids)))[0]
                layers.append(self._pasted(random, sprite, value if random.random() < 0.8 else 0))
        for number, time in enumerate(times):
            canvas = clip.images[number].astype(np.float32)
            for layer in layers:
                _lay(canvas, clip.labels[number], layer, np.eye(3), time)
            clip.images[number] = np.clip(canvas, 0, 255).astype(np.uint8)
        return clip

    def _pick(self, random: np.random.Generator) -> Still:
        return self._stills[random.choice(len(self._stills), p=self._weights)].read()

    def _scene(self, random: np.random.Generator) -> Still:
        return self._scenes[random.integers(len(self._scenes))].read()

    def _compose(
        self, random: np.random.Generator, times: Sequence[float]
    ) -> tuple[tuple[UInt8Array, npt.NDArray[np.float64]], list[_Layer], Floats | None]:
        """Background and its place, layers from back to front, what of the background is unknown."""
        still = self._pick(random)
        chosen = _objects(still)
        layers: list[_Layer] = []
        ignore = None
        if still.alpha is None and chosen and random.random() < OWN_SCENE:
            place = _cover(still.image.shape, self._size, random)
            background = _emptied(still.image, np.isin(still.labels, chosen)), place
            if (still.labels == IGNORE).any():
                ignore = (still.labels == IGNORE).astype(np.float32)
            for i in chosen[:MOST_OBJECTS]:
                sprite, corner = _cut(still, i)
                layers.append(self._layer(random, sprite, place @ _shift(*corner), len(layers) + 1))
        else:
            scene = self._scene(random)
            hidden = (scene.labels > 0) & (scene.labels < IGNORE)
            image = _emptied(scene.image, hidden) if hidden.mean() < 0.4 and random.random() < 0.5 else scene.image
            background = image, _cover(scene.image.shape, self._size, random)
            wanted = chosen[: int(random.integers(1, MOST_OBJECTS + 1))]
            for i in wanted:
                layers.append(self._pasted(random, _cut(still, i)[0], len(layers) + 1))
        while len(layers) < MOST_OBJECTS and (not layers or random.random() < GUEST):
            guest = self._pick(random)
            ids = _objects(guest)
            if ids:
                sprite = _relit(_cut(guest, int(random.choice(ids)))[0], random)
                layers.insert(int(random.integers(len(layers) + 1)), self._pasted(random, sprite, len(layers) + 1))
        if random.random() < TWIN:
            self._add_twin(random, layers)
        if random.random() < OCCLUDED:
            for _ in range(random.integers(1, 3)):
                self._add_occluder(random, layers, times)
        return background, layers, ignore

    def _layer(
        self, random: np.random.Generator, sprite: _Sprite, place: npt.NDArray[np.float64], value: int
    ) -> _Layer:
        if random.random() < TWO_TONED:
            sprite = _two_toned(sprite, random)
        far = random.random() < LEAVING
        shift = self._size[1] * 0.6 if far else random.choice([4.0, 20.0, 60.0], p=[0.25, 0.45, 0.3])
        motion = _Motion(random, float(shift), 14.0, 0.14, 0.06)
        field = None
        if random.random() < 0.6:
            side = max(sprite.alpha.shape)
            field = smooth_field(sprite.alpha.shape, max(4.0, side * random.uniform(0.15, 0.4)), random)
            field = (field * side).astype(np.float32)
        return _Layer(sprite, place, motion, value, field)

    def _pasted(self, random: np.random.Generator, sprite: _Sprite, value: int) -> _Layer:
        """Anywhere in the frame, at a size of its own."""
        side = math.exp(random.uniform(*np.log(_SIZES))) * self._size[0]
        factor = side / max(sprite.alpha.shape)
        sprite, factor = _shrunk(sprite, factor)
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
            sprite = _Sprite(np.ascontiguousarray(sprite.image[:, ::-1]), np.ascontiguousarray(sprite.alpha[:, ::-1]))
        if random.random() < 0.5:
            sprite = _relit(sprite, random)
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
            sprite = _limb(self._size, self._scene(random).image, random)
            place = np.eye(3)
        else:
            ids, still = [], self._pick(random)
            for _ in range(8):
                ids = _objects(still)
                if ids:
                    break
                still = self._pick(random)
            if not ids:
                return
            sprite = _relit(_cut(still, int(random.choice(ids)))[0], random)
            factor = random.uniform(0.25, 0.9) * self._size[0] / max(sprite.alpha.shape)
            sprite, factor = _shrunk(sprite, factor)
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


def _objects(still: Still) -> list[int]:
    """Ids that are large enough, the largest first."""
    counts = np.bincount(still.labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return [int(i) for i in np.argsort(-counts) if i and counts[i] >= _LEAST]


def _cut(still: Still, i: int) -> tuple[_Sprite, tuple[int, int]]:
    """An object, and its corner (x, y) in the still."""
    mask = still.labels == i
    box = Box.of_mask(mask)
    assert box is not None  # it has pixels
    box = box.grown(2, (mask.shape[0], mask.shape[1]))
    if still.alpha is not None:
        alpha = still.alpha[box.slices].astype(np.float32) / 255
    else:
        alpha = cv2.GaussianBlur(mask[box.slices].astype(np.float32), (0, 0), 0.6)
    return _Sprite(np.ascontiguousarray(still.image[box.slices]), np.asarray(alpha)), (box.x0, box.y0)


def _shrunk(sprite: _Sprite, factor: float) -> tuple[_Sprite, float]:
    """The same for a smaller factor without aliasing: shrunk by areas first, and the factor that is left."""
    if factor > 0.6:
        return sprite, factor
    size = max(2, round(sprite.alpha.shape[1] * factor)), max(2, round(sprite.alpha.shape[0] * factor))
    small = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (sprite.image, sprite.alpha)]
    return _Sprite(np.asarray(small[0]), np.asarray(small[1])), 1.0


def _relit(sprite: _Sprite, random: np.random.Generator) -> _Sprite:
    """In other light or colours."""
    image = cv2.LUT(sprite.image, light(random, 0.25, (0.7, 1.15)))
    if random.random() < 0.3:
        image = image[..., random.permutation(3)]
    return _Sprite(np.ascontiguousarray(image), sprite.alpha)


def _two_toned(sprite: _Sprite, random: np.random.Generator) -> _Sprite:
    """One side of it with another look: what belongs together need not look alike."""
    height, width = sprite.alpha.shape
    rows, columns = np.mgrid[:height, :width]
    angle = random.uniform(0, 2 * math.pi)
    side = (columns / width - 0.5) * math.cos(angle) + (rows / height - 0.5) * math.sin(angle)
    colour = random.uniform(0, 255, 3)
    keep = random.uniform(0.1, 0.6)
    other = sprite.image * keep + colour * (1 - keep)
    image = np.where((side > random.uniform(-0.15, 0.3))[..., None], other, sprite.image)
    return _Sprite(image.astype(np.uint8), sprite.alpha)


def _limb(size: tuple[int, int], texture: UInt8Array, random: np.random.Generator) -> _Sprite:
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
    return _Sprite(np.clip(image, 0, 255).astype(np.uint8), np.asarray(canvas / 255, np.float32))


def _emptied(image: UInt8Array, mask: npt.NDArray[np.bool_]) -> UInt8Array:
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
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _square(change: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
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
