# SPDX-License-Identifier: Apache-2.0
"""Windows for the training of the decoder: a seed, the frame before, and some frames after it, with all that is frozen.

Trunk and flow do not learn with the decoder; what they say is computed where a window is drawn, in another process.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.flow import FlowEstimator, build_flow
from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.model.torch.trunk import TrainedTrunk
from maskrnn_ros.model.torch.weights import load_trunk, trunk_file
from maskrnn_ros.sections import FlowConfig
from maskrnn_ros.training.ahead import drawn
from maskrnn_ros.training.frozen_trunk import FrozenTrunk
from maskrnn_ros.training.layers import Clip, Scenes
from maskrnn_ros.training.perturbation import light, perturb_mask
from maskrnn_ros.training.runs import Schedule
from maskrnn_ros.training.sources import IGNORE, DrawOptions, Material, Video
from maskrnn_ros.types import UInt8Array

SIZE = (256, 448)
"""(h, w) of all frames, pixels."""

LAYERED, RENDERED = 0.42, 0.13
"""How often a window is a scene of layers, a rendered one; else it is of a clip."""

FROM_SEED = 0.4
"""How often the window begins on the frame of the seed."""

_MOST_APART = 40
"""Frames between seed and window."""

_LEAST = 150
"""Pixels that an object must have where it is marked."""

_TRIES = 200
_MOST_OBJECTS = 3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """B windows of T + 2 frames: the seed's, the one before, and T that are looked at; K objects in all.

    Args:
        images: RGB, uint8, (B, T + 2, 3, h, w).
        columns: float16, (B, T + 2, COLUMNS, h4, w4), see ``step.Shared``.
        stride8: float16, (B, T + 2, 40, h8, w8).
        stride16: float16, (B, T + 2, 112, h16, w16).
        flow: Backward flow, pixels, float16, (B, T + 2, 2, h4, w4); zeros on the first two.
        labels: uint8, (B, T + 2, h, w), 255 = ``IGNORE``.
        which: int64, (K,): the window of each object.
        ids: int64, (K,): its id there.
        first: Mask on the frame before, as a tracker might have it, uint8, (K, h, w), 0 or 1.
    """

    images: Tensor
    columns: Tensor
    stride8: Tensor
    stride16: Tensor
    flow: Tensor
    labels: Tensor
    which: Tensor
    ids: Tensor
    first: Tensor

    def to(self, device: torch.device) -> Windows:
        """The same on a device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        return Windows(**moved)


def join(parts: Sequence[Windows]) -> Windows:
    """Several of the same length as one."""
    whole = {
        field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Windows)
    }
    begins = np.cumsum([0, *(len(part.images) for part in parts)])
    whole["which"] = torch.cat([part.which + int(begin) for part, begin in zip(parts, begins, strict=False)])
    return Windows(**whole)


class Draws:
    """Draws windows by number; any can be drawn again.

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
        self._videos = {
            source: [video for video in material.videos if video.is_continuous and video.source == source]
            for source in ("davis2016_train_288p", "rendered")
        }
        self._observer = Observer(options.trunk, options.has_features)
        self._seed = options.seed

    def draw(self, number: int, length: int) -> Windows:
        """One window of so many frames that are looked at.

        Raises:
            ValueError: Hardly any window shows an object.
        """
        random = np.random.default_rng((self._seed, number))
        for _ in range(_TRIES):
            clip = self._clip(random, length)
            counts = [np.bincount(clip.labels[k].ravel(), minlength=256)[:IGNORE] for k in (0, 1)]
            ids = [i for i in range(1, IGNORE) if counts[0][i] >= _LEAST and counts[1][i] >= _LEAST]
            if ids:
                chosen = sorted(random.permutation(ids)[:_MOST_OBJECTS].tolist())
                return self._observer.observe(clip, chosen, random)
        raise ValueError(f"expected a window with an object of {_LEAST} pixels, found none in {_TRIES} tries")

    def _clip(self, random: np.random.Generator, length: int) -> Clip:
        """A seed frame and ``length`` + 1 frames after it, of a scene or a video."""
        kind = random.random()
        apart = 0 if random.random() < FROM_SEED else int(random.integers(1, _MOST_APART))
        step = int(random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
        times = np.array([0, *(apart + step * np.arange(length + 1))])
        source = "rendered" if kind < LAYERED + RENDERED and self._videos["rendered"] else "davis2016_train_288p"
        videos = self._videos[source]
        if kind < LAYERED or not videos:
            return self._scenes.draw(random, times.astype(float).tolist())
        return self._of_video(videos[random.integers(len(videos))], times, random)

    def _of_video(self, video: Video, times: np.ndarray, random: np.random.Generator) -> Clip:
        """Frames of a clip, forwards or backwards, zoomed and mirrored at random, at times with layers over it."""
        span = len(video.images) - 1
        if times[-1] > span:  # as much of the way as there is
            room = max(0, span - int(times[-1] - times[1]))
            times = np.array([0, *(min(int(times[1]), room) + times[1:] - times[1])])
        times = np.minimum(times, span)
        chosen = int(random.integers(span - times[-1] + 1)) + times
        if random.random() < 0.3:
            chosen = span - chosen
        images, labels = video.images[chosen], video.labels[chosen]
        if random.random() < 0.5:
            images, labels = images[:, :, ::-1], labels[:, :, ::-1]
        zoom = random.random()
        if zoom < 0.5:
            images, labels = _zoomed(images, labels, random)
        elif zoom < 0.65:
            images, labels = _shrunk(images, labels, random)
        if random.random() < 0.5:
            images = _relit(images, random)
        clip = Clip(images=np.ascontiguousarray(images), labels=np.ascontiguousarray(labels))
        return self._scenes.draw_over(clip, random, times.astype(float).tolist()) if random.random() < 0.4 else clip


def _zoomed(images: UInt8Array, labels: UInt8Array, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
    """A part of all frames that holds a pixel of an object of the first one, enlarged."""
    factor = random.uniform(1.0, 1.8)
    height, width = labels.shape[1:]
    rows, columns = round(height / factor), round(width / factor)
    places = np.argwhere((labels[0] > 0) & (labels[0] < IGNORE))
    place = places[random.integers(len(places))] if len(places) else np.array([height / 2, width / 2])
    top = int(np.clip(place[0] - random.uniform(0.3, 0.7) * rows, 0, height - rows))
    left = int(np.clip(place[1] - random.uniform(0.3, 0.7) * columns, 0, width - columns))
    part = slice(top, top + rows), slice(left, left + columns)
    grown = [cv2.resize(image[part], (width, height)) for image in images]
    marked = [cv2.resize(label[part], (width, height), interpolation=cv2.INTER_NEAREST) for label in labels]
    return np.stack(grown), np.stack(marked)


def _shrunk(images: UInt8Array, labels: UInt8Array, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
    """All frames smaller, for small objects, in a frame of their own reflection, of which nobody knows whose it is."""
    height, width = labels.shape[1:]
    factor = random.uniform(0.5, 1.0)
    rows, columns = round(factor * height), round(factor * width)
    top, left = (int(random.integers(0, room + 1)) for room in (height - rows, width - columns))
    sides = top, height - rows - top, left, width - columns - left
    small = [cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA) for image in images]
    marked = [cv2.resize(label, (columns, rows), interpolation=cv2.INTER_NEAREST) for label in labels]
    framed = [cv2.copyMakeBorder(image, *sides, cv2.BORDER_REFLECT_101) for image in small]
    known = [cv2.copyMakeBorder(label, *sides, cv2.BORDER_CONSTANT, value=IGNORE) for label in marked]
    return np.stack(framed), np.stack(known)


def _relit(images: UInt8Array, random: np.random.Generator) -> UInt8Array:
    """In other light, the same on all frames."""
    table = light(random, 0.2, (0.8, 1.15))
    return np.stack([cv2.LUT(np.ascontiguousarray(image), table) for image in images])


class Observer:
    """Computes what trunk and flow say of frames; with ONNX Runtime, which is faster on one core, where it is there.

    Args:
        trunk: Weights of the trunk: shipped, or a file; its graph (``maskrnn export``) lies beside it, if there is one.
        has_features: Whether windows get them here.
    """

    def __init__(self, trunk: str, has_features: bool = True) -> None:
        self._trunk = FrozenTrunk(trunk_file(trunk))
        self._has_features = has_features
        self._flow: FlowEstimator = build_flow(FlowConfig())

    @torch.no_grad()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns, stride 8 and stride 16 of images uint8 (N, 3, h, w), float16."""
        parts = []
        for image in images:
            maps, columns = self._trunk(image)
            parts.append([map_.half() for map_ in (columns, *maps[1:])])
        columns, stride8, stride16 = (torch.stack(part) for part in zip(*parts, strict=True))
        return columns, stride8, stride16

    def flow(self, current: UInt8Array, previous: UInt8Array) -> Tensor:
        """Backward flow between two images uint8 (h, w, 3) at the cells of stride 4, float32 (2, h4, w4), pixels."""
        return functional.avg_pool2d(torch.from_numpy(self._flow(current, previous)), STRIDE)

    def observe(self, clip: Clip, ids: Sequence[int], random: np.random.Generator) -> Windows:
        """Everything about a window."""
        images = torch.from_numpy(clip.images).permute(0, 3, 1, 2).contiguous()
        is_same = bool((images[0] == images[1]).all())  # the window begins on the seed's frame
        if self._has_features:
            found = self.features(images[1:] if is_same else images)
            columns, stride8, stride16 = (torch.cat([map_[:1], map_]) if is_same else map_ for map_ in found)
        else:
            columns, stride8, stride16 = (torch.zeros(len(images), 0) for _ in range(3))
        zero = torch.zeros(2, *(side // STRIDE for side in images.shape[-2:]))
        flows = [zero, zero, *(self.flow(clip.images[k], clip.images[k - 1]) for k in range(2, len(images)))]
        # what an area of unknown owner hides is not followed
        masks = [clip.labels[1] == i for i in ids]
        first = [perturb_mask(mask, random, [m for m in masks if m is not mask]) for mask in masks]
        return Windows(
            images=images[None],
            columns=columns[None],
            stride8=stride8[None],
            stride16=stride16[None],
            flow=torch.stack(flows)[None].half(),
            labels=torch.from_numpy(clip.labels)[None],
            which=torch.zeros(len(ids), dtype=torch.int64),
            ids=torch.tensor(list(ids)),
            first=torch.from_numpy(np.stack(first).astype(np.uint8)),
        )


def learning_trunk(trunk: str, device: torch.device) -> TrainedTrunk:
    """The trunk on the device that trains, all of it frozen; for its name see ``Observer``."""
    return load_trunk(trunk_file(trunk), device)


def filled(windows: Windows, trunk: TrainedTrunk) -> Windows:
    """The same with columns, stride 8 and stride 16, of all frames in one go, on the device that they are on.

    They are rounded as the tracker's are where the trunk is frozen; float32 where it learns, for its gradients.
    """
    learns = trunk.net.stem.weight.requires_grad
    images = windows.images.flatten(0, 1)
    is_half = learns and images.is_cuda  # a CPU is slower with it
    with torch.set_grad_enabled(learns), torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
        maps = [map_.float() if learns else map_.half().float() for map_ in trunk.net(images)]
    with torch.set_grad_enabled(learns):
        columns = functional.relu(trunk.start.head.hidden(maps))
    kinds = torch.float32 if learns else torch.float16
    columns, stride8, stride16 = (
        map_.to(kinds).unflatten(0, windows.images.shape[:2]) for map_ in (columns, *maps[1:])
    )
    return dataclasses.replace(windows, columns=columns, stride8=stride8, stride16=stride16)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Makes what draws the windows of a step, by its number and their length."""

    options: DrawOptions
    batch: int
    material: Material

    def __call__(self) -> Callable[[tuple[int, int]], Windows]:
        draws = Draws(self.options, self.material)

        def draw(key: tuple[int, int]) -> Windows:
            step, length = key
            return join([draws.draw(step * self.batch + k, length) for k in range(self.batch)])

        return draw


def batches(
    options: DrawOptions,
    batch: int,
    begin: int,
    schedule: Schedule,
    lengths: tuple[tuple[float, int], ...],
    processes: int = 1,
) -> Iterator[Windows]:
    """The windows of each step from ``begin`` on, drawn ahead in other processes.

    Args:
        options: What from.
        batch: Windows in a step.
        begin: First step.
        schedule: Says how far a step is.
        lengths: Until which share of the training windows are how long.
        processes: That draw.
    """

    def keys() -> Iterator[tuple[int, int]]:
        for step in itertools.count(begin):
            share = schedule.share(step)
            if share >= 1 and schedule.minutes is None:  # a time may be up between two looks at the clock
                return
            yield step, next((length for until, length in lengths if share < until), lengths[-1][1])

    return drawn(_Steps(options, batch, options.material(SIZE)), keys(), processes)
