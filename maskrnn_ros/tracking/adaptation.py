# SPDX-License-Identifier: Apache-2.0
"""Online adaptation: a small head per instance, trained on its seed and augmentations of it.

MaskRNN fine-tunes its networks on the first frame and its augmentations (resize, rotate, crop, flip), 200 iterations
at 1e-5, decayed, without the recurrence. Here the trunk stays as it is and a head is fitted in closed form to its
features of those views, which are computed once, and trained from there; with ImageNet's trunk, from nothing. The loss
is the class-balanced cross entropy of the paper.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import AdaptationConfig
from maskrnn_ros.model.backbone import Features, cells_of
from maskrnn_ros.model.head import STRIDE, Head
from maskrnn_ros.model.matching import STRIDE as MATCHING_STRIDE
from maskrnn_ros.model.matching import Reference
from maskrnn_ros.model.trunk import Trunk

_WEIGHT_DECAY = 1e-3

_PLANES = 128
"""Most channels of an image in OpenCV 5; in OpenCV 4 they are 512."""

_NICE = 19
"""Of the thread in the background: the lowest priority."""


@dataclasses.dataclass(frozen=True, eq=False)
class SeedView:
    """A frame on which the instance was marked, at the working size.

    Args:
        stamp_ns: Stamp of the image, ns.
        image: RGB, uint8, (3, h, w).
        share: float32, (h, w): share of each pixel that the instance covers, 0..1.
        descriptors: int8, (C, j, i), see ``matching.describe``.
        others: Likewise share, of the other instances that were marked with it; None where it was alone. What looks
            like it and touches it is the hardest part of the background, and counts half of it.
        origin: The view as it was marked, where this one is another size of it: sizes are made from that one alone.
        ignored: Likewise share, of what is neither instance nor background: nothing is learned there. None: nothing.
    """

    stamp_ns: int
    image: Tensor
    share: Tensor
    descriptors: Tensor
    others: Tensor | None = None
    origin: SeedView | None = None
    ignored: Tensor | None = None

    @functools.cached_property
    def reference(self) -> Reference:
        """The frame as the matching compares others with it."""
        ignored = None if self.ignored is None else cells_of(self.ignored, MATCHING_STRIDE)
        return Reference(self.descriptors, cells_of(self.share, MATCHING_STRIDE), every=2, ignored=ignored)


class Cancelled(Exception):
    """Training was stopped because nobody wants its result any more."""


class Stop(Protocol):
    """What says that a training is not wanted any more, asked before every view and every step."""

    def is_set(self) -> bool:
        """Whether to stop."""


def augment(
    image: np.ndarray, share: np.ndarray, config: AdaptationConfig, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Another view of a seed: resized, rotated, mirrored about the instance, shifted, in other light, partly hidden.

    What comes from outside the image is its mirror image.

    Args:
        image: RGB, uint8, (h, w, 3).
        share: float32, (h, w) or (h, w, C), 0..1; the first of C is that of the instance.
        config: How much of each.
        random: Random numbers.

    Returns:
        Both after the change, same shapes and dtypes.
    """
    height, width = share.shape[:2]
    rows, columns = np.nonzero((share if share.ndim == 2 else share[..., 0]) >= 0.5)
    centre = (float(columns.mean()), float(rows.mean())) if rows.size else (width / 2, height / 2)
    scale = np.exp(random.uniform(-1, 1) * np.log(config.resize))
    angle = random.uniform(-1, 1) * config.rotate
    is_mirrored = random.random() < 0.5 and config.flip
    move = random.uniform(-1, 1, 2) * config.shift * (width, height)
    gamma = np.exp(random.uniform(-1, 1) * np.log(config.lighting))
    contrast = 1 + random.uniform(-1, 1) * (config.lighting - 1) / 2
    change = cv2.getRotationMatrix2D(centre, angle, scale)
    if is_mirrored:
        change = change @ np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]])
    change[:, 2] += move
    values = np.clip(((np.arange(256) / 255) ** gamma - 0.5) * contrast + 0.5, 0, 1)
    table = np.round(values * 255).astype(np.uint8)
    warped, mask = _warped(image, change), _warped(share, change)
    picture = table[warped]
    if random.random() < config.cover:
        _cover(picture, mask, centre + move, random)
    return picture, mask


def _warped(planes: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Any number of planes (h, w) or (h, w, C), moved; OpenCV takes an array of more than ``_PLANES`` for no image."""
    size = planes.shape[1::-1]
    parts = [planes] if planes.ndim == 2 else np.array_split(planes, -(-planes.shape[2] // _PLANES), axis=2)
    moved = [cv2.warpAffine(part, change, size, borderMode=cv2.BORDER_REFLECT_101) for part in parts]
    return np.asarray(moved[0] if len(moved) == 1 else np.concatenate(moved, axis=2))


def _cover(image: np.ndarray, share: np.ndarray, centre: np.ndarray, random: np.random.Generator) -> None:
    """Hide a part of a view, near the instance, behind a rectangle of one colour: such a thing is not the instance."""
    height, width = share.shape[:2]
    sides = np.maximum(1, random.uniform(0.15, 0.5, 2) * (width, height)).astype(int)
    corner = (centre + random.uniform(-0.2, 0.2, 2) * (width, height) - sides / 2).astype(int)
    x, y = np.clip(corner, 0, (width - 1, height - 1))
    rectangle = slice(y, y + sides[1]), slice(x, x + sides[0])
    image[rectangle] = random.integers(0, 256, 3)
    share[rectangle] = 0.0


def adapt(seeds: tuple[SeedView, ...], trunk: Trunk, config: AdaptationConfig, stop: Stop | None = None) -> Head:
    """Train the head of one instance; the trunk is not changed. The same arguments give the same head, bit by bit.

    Args:
        seeds: At least one; the newest is seen as it is, further views are augmentations of all in turn.
        trunk: Computes the features.
        config: Steps, rate, views and so on.
        stop: Ends the training early.

    Returns:
        The head, frozen.

    Raises:
        Cancelled: ``stop`` was set.
    """
    random = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    maps, truth, others, known = _views(seeds, trunk, config, random, stop)
    device = truth.device
    weight = _balance(truth, others, known)
    with torch.enable_grad():
        head: Head
        if trunk.start is not None:
            head = trunk.start.fit(maps, truth, others, known).requires_grad_(True)
        else:
            head = Head(config.channels, generator).to(device)
            head.standardise(maps)
        optimizer = _AdamW(list(head.parameters()))
        for step in range(config.steps):
            _check(stop)
            chosen = torch.tensor(
                random.choice(len(truth), min(config.batch, len(truth)), replace=False), device=device
            )
            log_odds = head([map_[chosen] for map_ in maps])
            loss = functional.binary_cross_entropy_with_logits(log_odds, truth[chosen], weight=weight[chosen])
            gradients = torch.autograd.grad(loss, optimizer.parameters)
            optimizer.step(gradients, config.rate * (1 - config.decay * step / config.steps))
    return head.eval().requires_grad_(False)


class _AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) with its usual constants.

    torch's own imports its compiler at the first step: two seconds that an object waits for its head.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], rate: float) -> None:
        self._steps += 1
        first_scale, second_scale = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        for parameter, gradient, first, second in zip(
            self.parameters, gradients, self._first, self._second, strict=True
        ):
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient * gradient, 0.001)
            parameter.mul_(1 - rate * _WEIGHT_DECAY)
            parameter.addcdiv_(first, (second / second_scale).sqrt_().add_(1e-8), value=-rate / first_scale)


def _views(
    seeds: tuple[SeedView, ...],
    trunk: Trunk,
    config: AdaptationConfig,
    random: np.random.Generator,
    stop: Stop | None,
) -> tuple[list[Tensor], Tensor, Tensor | None, Tensor | None]:
    """What heads are fitted to.

    Returns:
        Features (N, C, j, i) of each stride; at the head's stride (N, j, i) shares of the instance, of the others (None
        where there are none) and of what is not ignored (None where nothing is).
    """
    features: list[Features] = []
    truth: list[Tensor] = []
    near: list[Tensor] = []
    known: list[Tensor] = []
    for number in range(max(config.views, len(seeds))):
        _check(stop)
        seed = seeds[-1 - number % len(seeds)]
        image = seed.image
        shares = torch.stack([_or_zero(part, seed.share) for part in (seed.share, seed.others, seed.ignored)], dim=2)
        if number >= len(seeds):
            changed, masks = augment(image.permute(1, 2, 0).cpu().numpy(), shares.cpu().numpy(), config, random)
            image = torch.from_numpy(changed).permute(2, 0, 1).to(image.device)
            shares = torch.from_numpy(masks).to(shares.device)
        features.append(trunk.features(image))
        truth.append(cells_of(shares[..., 0], STRIDE))
        near.append(cells_of(shares[..., 1], STRIDE))
        known.append(1 - cells_of(shares[..., 2], STRIDE))
    maps = [torch.stack([one.maps[k] for one in features]).float() for k in range(3)]
    is_alone = all(seed.others is None for seed in seeds)
    sees_all = all(seed.ignored is None for seed in seeds)
    return maps, torch.stack(truth), None if is_alone else torch.stack(near), None if sees_all else torch.stack(known)


def _or_zero(share: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if share is None else share


def _balance(truth: Tensor, others: Tensor | None, known: Tensor | None = None) -> Tensor:
    """Weights of mean 1 by which instance and background count the same: MaskRNN's class-balanced cross entropy.

    Other instances count half of the background; what is not known does not count.
    """
    if known is not None:
        counted = known >= 0.5
        weight = torch.zeros_like(truth)
        weight[counted] = _balance(truth[counted], None if others is None else others[counted])
        return weight / weight.mean().clamp(min=1e-6)
    share = truth.mean().clamp(1e-4, 1 - 1e-4)
    weight = torch.where(truth >= 0.5, (1 - share) / share, 1.0)
    if others is not None:
        near, far = (others >= 0.5) & (truth < 0.5), (others < 0.5) & (truth < 0.5)
        both = (near.sum() + far.sum()) / 2
        weight = torch.where(near, both / near.sum().clamp(min=1), weight)
        weight = torch.where(far, both / far.sum().clamp(min=1), weight)
    return weight / weight.mean()


def _check(stop: Stop | None) -> None:
    if stop is not None and stop.is_set():
        raise Cancelled


@dataclasses.dataclass(frozen=True, eq=False)
class _Stop:
    """Stops one training, by itself or with all others.

    Args:
        all_: Set where no training is wanted any more.
        progress: Called whenever the training asks.
        this: Set where this one is not wanted any more.
    """

    all_: threading.Event
    progress: Callable[[], None] = lambda: None
    this: threading.Event = dataclasses.field(default_factory=threading.Event)

    def is_set(self) -> bool:
        self.progress()
        return self.all_.is_set() or self.this.is_set()


class Adapter:
    """Trains heads at once or in a thread; with the method ``recursive`` it fits them in closed form, at once.

    Args:
        config: How; ``method`` must not be ``none``.
        trunk: Computes the features; it is shared between threads and never changed.
    """

    def __init__(self, config: AdaptationConfig, trunk: Trunk) -> None:
        is_trained = config.method == "finetune"
        # closed form: the seeds as they are, no random view of them, and no step from there
        self._config = config if is_trained else dataclasses.replace(config, steps=0, views=1)
        self._trunk = trunk
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._stops: weakref.WeakKeyDictionary[Future[Head], _Stop] = weakref.WeakKeyDictionary()
        if is_trained and config.mode == "background":
            self._trunk = trunk.aside()
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="adaptation", initializer=_give_way)
            self._finalizer = weakref.finalize(self, _end, self._pool, self._stop)

    def start(self, seeds: tuple[SeedView, ...], progress: Callable[[], None] = lambda: None) -> Head | Future[Head]:
        """The head, or the promise of it.

        Args:
            seeds: See ``adapt``.
            progress: Called now and then while the head is trained at once.

        Raises:
            Cancelled: The head was to be trained at once and the adapter was closed meanwhile.
        """
        if self._pool is None:
            return adapt(seeds, self._trunk, self._config, _Stop(self._stop, progress))
        stop = _Stop(self._stop)
        promise = self._pool.submit(adapt, seeds, self._trunk, self._config, stop)
        self._stops[promise] = stop
        return promise

    def cancel(self, promise: Future[Head]) -> None:
        """Nobody wants that head any more: what is trained ends at its next step, what waits never begins."""
        if not promise.cancel() and promise in self._stops:
            self._stops[promise].this.set()

    def close(self) -> None:
        """Cancel all that is trained; Python would wait for what is in the background at the end of the process."""
        self._stop.set()
        if self._pool is not None:
            self._finalizer()


def _give_way() -> None:
    """Take only what the stream leaves of the cores, where a thread can be told so: Linux."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _end(pool: ThreadPoolExecutor, stop: threading.Event) -> None:
    stop.set()
    pool.shutdown(wait=False, cancel_futures=True)
