# SPDX-License-Identifier: Apache-2.0
"""What the prompt network learns from: views of pictures with an object, and what is said of it at first.

A view is what ``prompts.learned`` would look at: wide for a first click, close for a second look, about a box or about
the mask before. Further clicks, on what the network gets wrong, come in the training step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.model.files import trunk_file
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.prompts.clicks import jittered, next_click
from maskrnn_ros.prompts.view import View
from maskrnn_ros.training.frozen_trunk import FrozenTrunk
from maskrnn_ros.training.layers import Scenes, chances
from maskrnn_ros.training.perturbation import light, perturb_mask
from maskrnn_ros.training.sources import IGNORE, DrawOptions, Material
from maskrnn_ros.types import BoolArray, Box, UInt8Array

SIZE = (256, 448)
"""(h, w) of scenes of layers and of the frames of clips, pixels."""

LAYERED = 0.35
"""How often a picture is a scene of layers; else it is a still, or a frame of a clip."""

BOXED, FIRST = 0.3, 0.4
"""How often there is a box; how often a click is looked at for the first time, in a wide view. Else there is a mask
before: what a first look gave, or what is to be corrected."""

_LEAST = 100
"""Pixels of an object."""

_MOST_OFF = 0.1
"""By how much of its size a box of ``Draws.draw_boxed`` is off at most: some boxes are exact."""

_TRIES = 200
_MOST_CLICKS = 4


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """B views.

    Args:
        images: RGB, uint8, (B, 3, SIDE, SIDE).
        planes: What is said of the object, float32, (B, PLANES, SIDE, SIDE).
        truth: uint8, (B, SIDE, SIDE), 0 or 1.
        known: Likewise: 0 where nobody knows.
        maps: Features of the trunk, float16, at strides 4, 8, 16; none where they are computed later.
    """

    images: Tensor
    planes: Tensor
    truth: Tensor
    known: Tensor
    maps: tuple[Tensor, ...]

    def to(self, device: torch.device) -> Samples:
        """The same on a device."""
        one = (getattr(self, name).to(device) for name in ("images", "planes", "truth", "known"))
        images, planes, truth, known = one
        maps = tuple(map_.to(device) for map_ in self.maps)
        return Samples(images=images, planes=planes, truth=truth, known=known, maps=maps)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Said:
    """A picture with an object and what is said of it, before it is looked at.

    Args:
        image: RGB, uint8, (H, W, 3).
        mask: bool, (H, W): the object.
        known: Likewise: False where nobody knows.
        prompt: What is said.
    """

    image: UInt8Array
    mask: BoolArray
    known: BoolArray
    prompt: Prompt

    def seen(self, view: View, before: np.ndarray | None) -> Samples:
        """As it is seen in a view with a mask before, float32 (H, W), without features."""
        truth = view.cut(self.mask.astype(np.float32), cv2.BORDER_CONSTANT) >= 0.5
        unknown = view.cut((~self.known).astype(np.float32), cv2.BORDER_CONSTANT) >= 0.5
        return Samples(
            images=torch.from_numpy(view.cut(self.image).transpose(2, 0, 1).copy())[None],
            planes=torch.from_numpy(view.planes(self.prompt, before))[None],
            truth=torch.from_numpy(truth.astype(np.uint8))[None],
            known=torch.from_numpy((~unknown).astype(np.uint8))[None],
            maps=(),
        )


def join(parts: Sequence[Samples]) -> Samples:
    """Several as one."""
    names = ("images", "planes", "truth", "known")
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    maps = tuple(torch.cat(maps) for maps in zip(*(part.maps for part in parts), strict=True))
    return Samples(**whole, maps=maps)


class Draws:
    """Draws views by number; any can be drawn again.

    Args:
        options: What from.
        material: What was read there already.

    Raises:
        ValueError: The data cannot be read.
        RuntimeError: The trunk cannot be read.
    """

    def __init__(self, options: DrawOptions, material: Material | None = None) -> None:
        material = material or options.material(SIZE)
        self._scenes = Scenes(material.stills, SIZE)
        self._stills = [still for still in material.stills if not still.source.endswith("cutouts")]
        self._chances = chances(self._stills)
        self._seed = options.seed
        self._trunk = FrozenTrunk(trunk_file(options.trunk)) if options.has_features else None

    def draw(self, number: int) -> Samples:
        """One view.

        Raises:
            ValueError: Hardly any picture shows an object.
        """
        random = np.random.default_rng((self._seed, number))
        return self._sample(*self._object(random), random)

    def draw_boxed(self, number: int) -> Said:
        """One object with a box, and clicks at times; its number is that of no view.

        Raises:
            ValueError: Hardly any picture shows an object.
        """
        random = np.random.default_rng((self._seed, number, 1))
        image, labels, which = self._object(random)
        mask = labels == which
        box = Box.of_mask(mask)
        assert box is not None  # it has pixels
        drawn = jittered(box, (labels.shape[0], labels.shape[1]), random, random.uniform(0, _MOST_OFF))
        points = _clicks(mask, labels, random, max(0, int(random.integers(-2, 3))))
        return Said(image=image, mask=mask, known=labels != IGNORE, prompt=Prompt(box=drawn, points=points))

    def _object(self, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array, int]:
        """A picture, its labels and one id of them."""
        for _ in range(_TRIES):
            image, labels = self._picture(random)
            counts = np.bincount(labels.ravel(), minlength=256)[:IGNORE]
            ids = [i for i in range(1, IGNORE) if counts[i] >= _LEAST]
            if ids:
                return image, labels, int(random.choice(ids))
        raise ValueError(f"expected a picture with an object of {_LEAST} pixels, found none in {_TRIES} tries")

    def _picture(self, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        """RGB and labels, mirrored and in other light at random."""
        if random.random() < LAYERED or not self._stills:
            clip = self._scenes.draw(random, [0.0])
            return clip.images[0], clip.labels[0]
        still = self._stills[random.choice(len(self._stills), p=self._chances)].read()
        image, labels = still.image, still.labels
        if random.random() < 0.5:
            image, labels = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
        if random.random() < 0.6:
            image = _relit(image, random)
        return image, labels

    @torch.no_grad()
    def _sample(self, image: UInt8Array, labels: UInt8Array, which: int, random: np.random.Generator) -> Samples:
        """One object with something said of it, in the view where that would be looked at."""
        mask, size = labels == which, labels.shape
        view, prompt, before = _said(mask, labels, (size[0], size[1]), random)
        whole = Said(image=image, mask=mask, known=labels != IGNORE, prompt=prompt)
        sample = whole.seen(view, before)
        if self._trunk is None:
            return sample
        return dataclasses.replace(sample, maps=tuple(map_[None].half() for map_ in self._trunk(sample.images[0])[0]))


def _said(
    mask: BoolArray, labels: UInt8Array, size: tuple[int, int], random: np.random.Generator
) -> tuple[View, Prompt, np.ndarray | None]:
    """Where is looked, what is said, and the mask before."""
    box = Box.of_mask(mask)
    assert box is not None  # it has pixels
    kind = random.random()
    if kind < BOXED:
        drawn = jittered(box, size, random)
        points = _clicks(mask, labels, random, int(random.integers(0, 3)))
        return View.of_box(drawn, size), Prompt(box=drawn, points=points), None
    if kind < BOXED + FIRST:
        return _wide(box, size, random), Prompt(points=_clicks(mask, labels, random, _count(random))), None
    former = perturb_mask(mask, random)
    around = Box.of_mask(former)
    assert around is not None  # of an object that is there something is left
    points = _clicks(mask, labels, random, _count(random))
    if random.random() < 0.5:  # a correction: the click is on what is wrong
        point = next_click(mask, former, labels != IGNORE, random=random)
        points = points if point is None else (point,) if random.random() < 0.5 else (*points, point)
    for point in points:
        if point.on_object:
            around = around.union(Box(int(point.x), int(point.y), int(point.x) + 1, int(point.y) + 1))
    prompt = Prompt(points=points, mask=former)
    return View.of_box(around, size, random.uniform(1.3, 1.8)), prompt, _soft(former, random)


def _count(random: np.random.Generator) -> int:
    """One click mostly."""
    return 1 if random.random() < 0.6 else int(random.integers(2, _MOST_CLICKS + 1))


def _wide(box: Box, size: tuple[int, int], random: np.random.Generator) -> View:
    """A part of the picture with the object somewhere in it, or all of it."""
    if random.random() < 0.4:
        return View.whole(size)
    low, high = 1.2 * max(box.width, box.height), float(max(size))
    side = math.exp(random.uniform(math.log(min(low, high)), math.log(high)))
    room = max(0.0, side - max(box.width, box.height)) / 2
    shift = random.uniform(-room, room, 2)
    return View.around(((box.x0 + box.x1) / 2 + shift[0], (box.y0 + box.y1) / 2 + shift[1]), side, size)


def _clicks(mask: BoolArray, labels: UInt8Array, random: np.random.Generator, count: int) -> tuple[Point, ...]:
    """The first one well inside the object; others anywhere on it, near it, or on another object."""
    points = list[Point]()
    for number in range(count):
        if number == 0:
            inner = next_click(mask, np.zeros_like(mask), random=random)
            assert inner is not None
            points.append(inner)
            continue
        other = (labels > 0) & (labels < IGNORE) & ~mask
        reach = max(3, round(0.3 * math.sqrt(np.count_nonzero(mask))))
        kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        near = (cv2.dilate(mask.astype(np.uint8), kernel) > 0) & ~mask & (labels != IGNORE)
        where = [mask, near, other][int(random.choice(3, p=[0.45, 0.35, 0.2]))]
        flat = np.flatnonzero(where)
        if flat.size:
            row, column = divmod(int(flat[random.integers(flat.size)]), mask.shape[1])
            points.append(Point(x=column + 0.5, y=row + 0.5, on_object=bool(mask[row, column])))
    return tuple(points)


def _soft(mask: BoolArray, random: np.random.Generator) -> np.ndarray:
    """A mask as a coarser look gives it, float32 (H, W), 0..1."""
    factor = random.uniform(1.0, 4.0)
    size = max(1, round(mask.shape[1] / factor)), max(1, round(mask.shape[0] / factor))
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(mask, np.float32) if random.random() < 0.3 else np.asarray(soft, np.float32)


def _relit(image: UInt8Array, random: np.random.Generator) -> UInt8Array:
    """In other light."""
    lit = cv2.LUT(image, light(random, 0.25, (0.75, 1.2)))
    return np.asarray(cv2.GaussianBlur(lit, (0, 0), random.uniform(0.5, 1.5)) if random.random() < 0.15 else lit)


@dataclasses.dataclass(frozen=True)
class Steps:
    """Makes what draws the views of a step by its number; of a share of the steps objects with boxes instead.

    Those are looked at at the last view of a box, and what is found before it depends on the network.
    """

    options: DrawOptions
    batch: int
    material: Material
    fine: float = 0.0

    def __call__(self) -> Callable[[int], Samples | tuple[Said, ...]]:
        """The views of a step."""
        draws = Draws(self.options, self.material)

        def draw(step: int) -> Samples | tuple[Said, ...]:
            numbers = range(step * self.batch, (step + 1) * self.batch)
            if self.fine and np.random.default_rng((self.options.seed, step, 2)).random() < self.fine:
                return tuple(draws.draw_boxed(number) for number in numbers[: -(-self.batch // 2)])
            return join([draws.draw(number) for number in numbers])

        return draw
