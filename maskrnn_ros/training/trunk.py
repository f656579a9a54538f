# SPDX-License-Identifier: Apache-2.0
"""Stage 0: the trunk and the first layer of the heads, trained so that a head fitted on one frame is right on another.

ImageNet's features know what things are; a head needs features in which one object is linearly apart from everything
beside it and stays so while it moves. As in meta-learning with a closed-form base learner (Bertinetto et al., "R2-D2",
ICLR 2019), every step fits the last layer of a head on one frame of a pair by ridge regression and asks it for the mask
on the other; the gradient goes through the solution into the trunk. The descriptors of the matching learn beside it:
each cell must find its kind on the other frame.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.model.torch.engine import choose_device
from maskrnn_ros.model.torch.trunk import TrainedTrunk, cells_of
from maskrnn_ros.model.torch.weights import load_lite0
from maskrnn_ros.tracking.views import Change, augment
from maskrnn_ros.training import losses
from maskrnn_ros.training.ahead import drawn
from maskrnn_ros.training.layers import Clip, Scenes
from maskrnn_ros.training.options import TrunkOptions
from maskrnn_ros.training.runs import Schedule, descend, shares_of, train_steps
from maskrnn_ros.training.sources import IGNORE, Video, read_material, read_videos
from maskrnn_ros.training.split import read_split

CROP = (208, 336)
"""(h, w) of the part of both frames that a step sees, pixels."""

CLIPS, CONTINUOUS, OVERLAID = 0.6, 0.8, 0.4
"""How often a pair is of a clip and not of a scene made of layers; of a continuous clip and not of a set of views or of
sparse frames; with things pasted over it. With fewer pairs of clips (0.3, and 0.35 of them continuous) J of the held
out clips of DAVIS was 0.676 after 520 steps, against 0.73 after 1,000 of a mix of two thirds of them."""

SIZE = (256, 448)
"""(h, w) of the frames that parts are cut out of, pixels."""

WEIGHTS = "trunk.safetensors"

_HEAD_RATE = 20.0
"""Learning rate of the heads' start over that of the trunk, which has less to learn."""

_MOST_APART = 40
"""Frames between the two of a pair."""

_LEAST = 150
"""Pixels of an object on both frames of a pair."""

_DEVIATION_FLOOR = 1e-3
"""Added to the deviation of a channel over a frame: one that says the same everywhere stays small."""

_TRIES = 1000
"""Draws until the data are said to hold no such object."""


class Learner(nn.Module):
    """The trunk with the start of the heads, and what only the training needs.

    Args:
        trunk: Its weights go on from these.
    """

    def __init__(self, trunk: TrainedTrunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, shares: Tensor, others: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of each frame of a pair from the other one.

        Args:
            images: RGB, uint8, (2 P, 3, h, w): first all first frames, then all second ones.
            shares: Truth, float32, (2 P, h4, w4), 0..1.
            others: Likewise, of the other objects.
            known: Likewise, 0 where nobody knows.

        Returns:
            Log-odds of the fitted heads, (2 P, h4, w4), and of the matching, (2 P, h8, w8).
        """
        start, maps = self.trunk.start, self.trunk.net(images)
        columns = start.columns(maps)
        sums = start.sums(columns, shares.flatten(1), others.flatten(1), known.flatten(1))
        other = start.solve(sums).roll(len(images) // 2, dims=0)
        scores = start.scale * (other[:, None] @ columns)[:, 0] + start.shift
        return scores.reshape(shares.shape), self._match(maps, shares)

    def _match(self, maps: Sequence[Tensor], shares: Tensor) -> Tensor:
        """Log-odds (2 P, h8, w8) of each cell by how much it looks like cells of the object on the other frame."""
        found = described(maps[1], maps[2])
        size = found.shape[-2:]
        cells = functional.interpolate(shares[:, None], size, mode="area")[:, 0].flatten(1)
        keys = found.flatten(2)
        other, known = keys.roll(len(keys) // 2, dims=0), cells.roll(len(cells) // 2, dims=0)
        similar = (self.sharpness.exp() * (keys.mT @ other)).softmax(dim=-1)
        said = (similar @ known[..., None])[..., 0]
        return torch.logit(said, eps=1e-3).reshape(-1, *size)


def described(fine: Tensor, coarse: Tensor) -> Tensor:
    """Descriptors whose dot product is a similarity: (N, C8, j, i) and (N, C16, ., .) to (N, C8 + C16, j, i), length 1.

    Stride 8 beside stride 16 brought to stride 8; each channel is centred and scaled over the frame (what all cells
    share says nothing), then each of the two is brought to one length.
    """
    enlarged = functional.interpolate(coarse, scale_factor=2, mode="bilinear")[..., : fine.shape[-2], : fine.shape[-1]]
    return torch.cat([_of_length(_standardised(map_), math.sqrt(0.5)) for map_ in (fine, enlarged)], dim=1)


def _standardised(map_: Tensor) -> Tensor:
    centred = map_ - map_.mean(dim=(2, 3), keepdim=True)
    deviation = (centred * centred).mean(dim=(2, 3), keepdim=True).sqrt()
    return centred / (deviation + _DEVIATION_FLOOR)


def _of_length(map_: Tensor, length: float) -> Tensor:
    return map_ * (length / (map_ * map_).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt())


class Pairs:
    """Draws pairs of frames by number; any can be drawn again.

    Raises:
        ValueError: The data cannot be read, or there is no clip.
    """

    def __init__(self, options: TrunkOptions) -> None:
        material = read_material(options.data, options.terms, SIZE)
        self._clips, self._scenes = material.videos, Scenes(material.stills, SIZE)
        self._seed = options.seed
        self._change = Change(resize=1.35, rotate=15.0, shift=0.08, cover=0.15)

    def draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (2, h, w, 3) and planes float32 (2, h, w, 3): an object, the other ones, what is unknown.

        Raises:
            ValueError: Hardly any two frames show an object of that size.
        """
        random = np.random.default_rng((self._seed, number))
        for _ in range(_TRIES):
            is_clip = bool(self._clips) and random.random() < CLIPS
            images, labels = self._two(random) if is_clip else self._layered(random)
            ids = [i for i in np.unique(labels) if 0 < i < IGNORE and (labels == i).sum((1, 2)).min() >= _LEAST]
            if not ids:
                continue
            own = labels == random.choice(ids)
            planes = np.stack([own, (labels > 0) & (labels < IGNORE) & ~own, labels == IGNORE], axis=-1)
            views = [self._view(images[k], planes[k].astype(np.float32), random) for k in (0, 1)]
            if all(view[1][..., 0].sum() >= _LEAST for view in views):
                return np.stack([view[0] for view in views]), np.stack([view[1] for view in views])
        raise ValueError(f"expected an object of {_LEAST} pixels on two frames, found none in {_TRIES} tries")

    def _two(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Two frames of a clip and their labels, some with things pasted over them."""
        wanted = random.random() < CONTINUOUS
        clips = [clip for clip in self._clips if clip.is_continuous is wanted] or self._clips
        clip = clips[random.integers(len(clips))]
        first = int(random.integers(len(clip.images)))
        last = int(np.clip(first + random.integers(-_MOST_APART, _MOST_APART + 1), 0, len(clip.images) - 1))
        found = Clip(images=clip.images[[first, last]], labels=clip.labels[[first, last]])
        if random.random() < OVERLAID:
            found = self._scenes.draw_over(found, random, [0.0, abs(last - first)])
        return found.images, found.labels

    def _layered(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        clip = self._scenes.draw(random, [0.0, random.uniform(1, _MOST_APART)])
        return clip.images, clip.labels

    def _view(
        self, image: np.ndarray, planes: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A part of the frame with the object; half of them are changed, so that there are more than frames."""
        if random.random() < 0.5:
            image, planes = augment(image, planes, random, self._change)
        if random.random() < 0.4:
            factor = random.uniform(1.0, 1.4)
            size = round(image.shape[1] * factor), round(image.shape[0] * factor)
            image, planes = cv2.resize(image, size), cv2.resize(planes, size)
        rows, columns = np.nonzero(planes[..., 0] >= 0.5)
        if not rows.size:
            return image[: CROP[0], : CROP[1]], planes[: CROP[0], : CROP[1]]
        at = random.integers(rows.size)
        corner = [
            int(np.clip(place - random.uniform(0.2, 0.8) * side, 0, whole - side))
            for place, side, whole in zip((rows[at], columns[at]), CROP, planes.shape[:2], strict=True)
        ]
        part = slice(corner[0], corner[0] + CROP[0]), slice(corner[1], corner[1] + CROP[1])
        return image[part], planes[part]

    def step(self, number: int, batch: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """Pairs of a step: images uint8 (2 P, 3, h, w) and planes as those of ``draw``, float32 (2 P, 3, h4, w4)."""
        drawn = [self.draw(number * batch + k) for k in range(rank, batch, world)]
        images, planes = (np.concatenate([[pair[what][k] for pair in drawn] for k in (0, 1)]) for what in (0, 1))
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return tensor, functional.avg_pool2d(torch.from_numpy(planes).permute(0, 3, 1, 2), STRIDE)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Makes what draws the pairs of a step by its number."""

    pairs: Pairs
    batch: int
    place: tuple[int, int]

    def __call__(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lambda step: self.pairs.step(step, self.batch, *self.place)


def train_trunk(options: TrunkOptions) -> Path:
    """Train, validate, write; returns the file of the weights. Under ``torchrun`` the pairs of a step are shared.

    Raises:
        ValueError: The data cannot be read, or the checkpoint does not fit.
    """
    place = rank, world = shares_of(options.batch)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    trunk = TrainedTrunk()
    trunk.net.load_state_dict(load_lite0().state_dict())
    learner = Learner(trunk)
    pairs = Pairs(options)
    held_out = read_videos(options.data, read_split(), SIZE, held_out=True) if rank == 0 else []
    with torch.no_grad():
        first = torch.cat([pairs.step(options.steps + k, options.batch, 0, 1)[0] for k in range(4)])
        trunk.start.head.standardise(trunk.net(first))
    learner.to(device)
    trunk.start.head.last.requires_grad_(False)  # fitted anew for every object
    own = {id(value) for value in trunk.net.parameters()}
    rest = [value for value in learner.parameters() if id(value) not in own and value.requires_grad]
    groups = [
        {"params": list(trunk.net.parameters()), "lr": options.rate},
        {"params": rest, "lr": options.rate * _HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)

    schedule = Schedule(options.steps, options.minutes, options.validate_every, world)
    batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def take(step: int) -> dict[str, float]:
        nonlocal batches
        if batches is None:
            batches = drawn(_Steps(pairs, options.batch, place), itertools.count(step), options.processes)
        parts = loss_of(learner, *(one.to(device) for one in next(batches)))
        descend(optimizer, parts["loss"], world)
        return {key: float(value.detach()) for key, value in parts.items()}

    return train_steps(
        options,
        learner,
        optimizer,
        take,
        WEIGHTS,
        net=trunk,
        validate=lambda: validate_trunk(trunk, held_out),
        place=place,
        schedule=schedule,
    )


def loss_of(learner: Learner, images: Tensor, planes: Tensor) -> dict[str, Tensor]:
    """Losses of a step's pairs, see ``Pairs.step``: of the fitted heads, of the matching, and their sum."""
    shares, others, unknown = planes.unbind(1)
    known = (unknown < 0.5).float()
    scores, matched = learner(images, shares, others, known)
    coarse = functional.interpolate(shares[:, None], matched.shape[-2:], mode="area")[:, 0]
    # where nobody knows, what was said is taken for the truth's: no loss and no gradient
    sure = torch.where(known > 0, scores, -losses.SURE)
    head = (losses.balanced_cross_entropy(sure, shares * known) + losses.dice(sure, shares * known)).mean()
    matching = losses.balanced_cross_entropy(matched, coarse).mean()
    return {"loss": head + 0.3 * matching, "head": head, "matching": matching}


@torch.no_grad()
def validate_trunk(trunk: TrainedTrunk, clips: Sequence[Video]) -> dict[str, float]:
    """J of the head fitted on the first frame of a clip, on ten later ones, at the cells of stride 4; by clip.

    The largest object of each clip. No time is used, so this is far below the score of the tracker.
    """
    scores, device = {}, trunk.start.ridge.device
    for clip in clips:
        instance_id = int(np.bincount(clip.labels[0].ravel(), minlength=256)[1:IGNORE].argmax()) + 1
        chosen = [0, *np.unique(np.linspace(1, len(clip.images) - 1, 10).astype(int)).tolist()]
        images = torch.from_numpy(clip.images[chosen]).permute(0, 3, 1, 2).to(device)
        masks = torch.from_numpy((clip.labels[chosen] == instance_id).astype(np.float32)).to(device)
        shares = torch.stack([cells_of(mask, STRIDE) for mask in masks])
        maps = trunk.net(images)
        head = trunk.start.fit([map_[:1] for map_ in maps], shares[:1])
        found = (head([map_[1:] for map_ in maps]) > 0).cpu().numpy()
        truth = (shares[1:] >= 0.5).cpu().numpy()
        scores[clip.name] = float(np.mean([jaccard(one, other) for one, other in zip(found, truth, strict=True)]))
    return scores
