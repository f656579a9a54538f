# SPDX-License-Identifier: Apache-2.0
"""From pictures and their truth to what the network is given of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.config import AdaptationConfig, Config
from maskrnn_ros.evaluation.readers import Clip
from maskrnn_ros.flow import FlowEstimator
from maskrnn_ros.labels import VOID
from maskrnn_ros.model.backbone import Features, cells_of, pixels_of
from maskrnn_ros.model.matching import STRIDE as MATCHING_STRIDE
from maskrnn_ros.model.matching import Reference, describe, match
from maskrnn_ros.model.network import LOG_ODDS, STRIDE
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.tracking.adaptation import SeedView, adapt
from maskrnn_ros.tracking.evidence import log_odds
from maskrnn_ros.tracking.gate import enlarge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.training.cache import TrainingClip
from maskrnn_ros.types import Box, LabelArray, UInt8Array

SIZE = (252, 448)
"""(h, w) of all clips, pixels: the working image of a 16:9 video."""

_MIN_SEED = 300
"""Pixels that an object must have where it is seeded in the middle of a clip."""

_GROWN = 2
"""Cells by which the window of the matching is larger than the gate of the true mask: a real gate is not exact."""


class Unsuitable(ValueError):
    """There is nothing to follow in a clip or an image, or not as it is wanted."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """A clip at the training size before anything is computed of it.

    Args:
        name: Name of the clip.
        images: RGB, uint8, (T, h, w, 3).
        truth: Ids 1..n, 0 background, uint8, (T, h, w).
        seeds: (id, frame) of each seed.
    """

    name: str
    images: UInt8Array
    truth: UInt8Array
    seeds: tuple[tuple[int, int], ...]


def read_pictures(clip: Clip, name: str, size: tuple[int, int] = SIZE) -> Pictures:
    """A clip of files at the training size, with seeds of every object at its start, a third and two thirds.

    Args:
        clip: Frames with ground truth.
        name: What to call it.
        size: (h, w), pixels.

    Raises:
        ValueError: A file cannot be read, or an id is above 254.
        Unsuitable: No object can be seeded.
    """
    images, truth = [], []
    for number in range(len(clip)):
        labels = clip.truth(number)
        if labels.max() >= VOID:
            raise ValueError(f"{clip.place(number)}: expected ids up to {VOID - 1}, found {labels.max()}")
        images.append(fit_image(clip.image(number), size))
        truth.append(fit_labels(labels, size))
    stacked = np.stack(truth)
    seeds = seeds_of(stacked, sorted({0, len(clip) // 3, 2 * len(clip) // 3}))
    if not seeds:
        raise ValueError(
            f"{clip.place(0)}: expected an object of {_MIN_SEED} pixels at {size[1]}x{size[0]}, found none"
        )
    return Pictures(name=name, images=np.stack(images), truth=stacked, seeds=seeds)


def seeds_of(truth: UInt8Array, frames: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(id, frame) of the objects that are large enough to be seeded on these frames; truth (T, h, w)."""
    counts = {frame: np.bincount(truth[frame].ravel(), minlength=VOID) for frame in frames}
    return tuple((i, frame) for i in range(1, VOID) for frame in frames if counts[frame][i] >= _MIN_SEED)


def fit_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """The largest middle part of an image that has the shape of ``size``, at that size, RGB uint8 (h, w, 3)."""
    return np.asarray(_resize(_middle(image, size), size), np.uint8)


def fit_labels(labels: LabelArray, size: tuple[int, int]) -> UInt8Array:
    """The same for ids: each pixel gets the id that covers the most of it."""
    part = _middle(labels, size)
    ids = np.flatnonzero(np.bincount(part.ravel()))
    shares = np.stack([_resize((part == i).astype(np.float32), size) for i in ids])
    return np.asarray(ids[shares.argmax(axis=0)], np.uint8)


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    way = cv2.INTER_AREA if size[0] < picture.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=way))


def _middle(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


@torch.no_grad()
def observe(
    pictures: Pictures,
    trunk: Trunk,
    flow: FlowEstimator,
    config: Config,
    heads: AdaptationConfig,
) -> TrainingClip:
    """Compute all that the frozen parts say of a clip.

    Args:
        pictures: The clip.
        trunk: Computes the features.
        flow: Computes the flow in both directions.
        config: Settings of the matching, of the gate and of the prior's floor, as at run time.
        heads: How the heads of the seeds are fitted and trained.
    """
    images = torch.from_numpy(pictures.images).permute(0, 3, 1, 2).contiguous()
    features = [trunk.features(image) for image in images]
    back, ahead = _flows(images, flow)
    descriptors = [describe(found) for found in features]
    matching, head = [], []
    for instance_id, frame in pictures.seeds:
        masks = pictures.truth == instance_id
        matching.append(matching_planes(descriptors, masks, frame, config))
        share = torch.from_numpy(masks[frame].astype(np.float32))
        seed = SeedView(frame, images[frame], share, descriptors[frame])
        head.append(torch.zeros_like(ahead))
        head[-1][frame:] = _head_planes(seed, features[frame:], trunk, heads)
    return TrainingClip(
        name=pictures.name,
        images=images,
        stride4=torch.stack([found.stride4 for found in features]),
        stride8=torch.stack([found.stride8 for found in features]),
        stride16=torch.stack([found.stride16 for found in features]),
        back=back,
        ahead=ahead,
        truth=torch.from_numpy(pictures.truth),
        seeds=pictures.seeds,
        matching=torch.stack(matching),
        head=torch.stack(head),
    )


def _flows(images: Tensor, flow: FlowEstimator) -> tuple[Tensor, Tensor]:
    """Flow back (T, 2, h4, w4) and length of the flow ahead (T, h4, w4), pixels, float16."""

    def cells(current: Tensor, other: Tensor) -> Tensor:
        return torch.stack([cells_of(part, STRIDE) for part in flow(current, other)])

    pairs = list(zip(images[:-1], images[1:], strict=True))
    none = torch.zeros(2, math.ceil(images.shape[2] / STRIDE), math.ceil(images.shape[3] / STRIDE))
    back = torch.stack([none, *(cells(after, before) for before, after in pairs)])
    ahead = torch.stack([*(cells(before, after) for before, after in pairs), none])
    return back.half(), ahead.norm(dim=1).half()


def _head_planes(seed: SeedView, features: Sequence[Features], trunk: Trunk, config: AdaptationConfig) -> Tensor:
    """What the head of a seed says of frames, log-odds / LOG_ODDS, float16 (T, h4, w4)."""
    head = adapt((seed,), trunk, config)
    planes = [head([map_[None].float() for map_ in found.maps])[0] for found in features]
    return (torch.stack(planes).clamp(-LOG_ODDS, LOG_ODDS) / LOG_ODDS).half()


def matching_planes(descriptors: Sequence[Tensor], masks: np.ndarray, seeded: int, config: Config) -> Tensor:
    """What the matching with the seed says of an object, under the conditions that it has in the tracker.

    An object that was there a frame ago is looked for around its place, one that was not everywhere. Recent frames are
    left out, as they are in the tracker with a network: their masks would have to be the network's own, and nearly true
    ones teach it to believe them.

    Args:
        descriptors: Of each frame, (C, h8, w8).
        masks: The true mask on each frame, bool, (T, h, w).
        seeded: Frame of the seed.
        config: ``matching``, ``gate`` and the prior's floor.

    Returns:
        Log-odds / LOG_ODDS, float16, (T, h4, w4), zeros before the seed.
    """
    size = (masks.shape[1], masks.shape[2])
    cells = math.ceil(size[0] / STRIDE), math.ceil(size[1] / STRIDE)
    planes = torch.zeros(len(masks), *cells, dtype=torch.float16)
    seed = Reference(descriptors[seeded], _share(masks[seeded]))
    for number in range(seeded, len(masks)):
        before = masks[max(seeded, number - 1)]
        window = _window(masks[number] if masks[number].any() else before, config) if before.any() else None
        found = match(descriptors[number], (seed,), window, config.matching)
        if window is not None:
            found = Patch(found, window, (descriptors[number].shape[1], descriptors[number].shape[2])).full
        said = pixels_of(log_odds(found, config.prior.floor), MATCHING_STRIDE // STRIDE, cells) / LOG_ODDS
        planes[number] = said.half()
    return planes


def _share(mask: np.ndarray) -> Tensor:
    return cells_of(torch.from_numpy(mask.astype(np.float32)), MATCHING_STRIDE)


def _window(mask: np.ndarray, config: Config) -> Box:
    """Cells of the matching around a mask that has a pixel."""
    box = Box.of_mask(mask)
    assert box is not None
    size = (mask.shape[0], mask.shape[1])
    gate = enlarge(box, config.gate.enlarge, size)
    last = math.ceil(size[1] / MATCHING_STRIDE), math.ceil(size[0] / MATCHING_STRIDE)
    return Box(
        max(0, gate.x0 // MATCHING_STRIDE - _GROWN),
        max(0, gate.y0 // MATCHING_STRIDE - _GROWN),
        min(last[0], math.ceil(gate.x1 / MATCHING_STRIDE) + _GROWN),
        min(last[1], math.ceil(gate.y1 / MATCHING_STRIDE) + _GROWN),
    )
