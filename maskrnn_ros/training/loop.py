# SPDX-License-Identifier: Apache-2.0
"""Both stages of the training: single frames with perturbed masks, then windows of video with the network's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.evaluation.metrics import jaccard
from maskrnn_ros.model.network import FastNet, paste
from maskrnn_ros.model.weights import load_into
from maskrnn_ros.training import losses
from maskrnn_ros.training.batches import Batches, window_of
from maskrnn_ros.training.cache import TrainingClip, clip_paths
from maskrnn_ros.training.runs import descend, shares_of, train_steps
from maskrnn_ros.training.unroll import Dropout, Look, Window, unroll

WEIGHTS = "network.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train.

    Args:
        cache: Folder of ``maskrnn train prepare``.
        out: Folder for checkpoint, weights, log and curves.
        steps: Steps in all.
        length: Frames in a window: 2 is stage 1 (a single frame with a perturbed prior), 7 is the paper's stage 2.
        batch: Windows in a step, over all processes.
        rate: Peak learning rate of AdamW; rises over a hundredth of the steps, then falls as a cosine to 1 %.
        loss: Name in ``losses.MASK_LOSSES``.
        box_weight: Weight of the box loss; 0 switches it off.
        presence_weight: Of the presence loss.
        teacher: Chance that the truth is carried on instead of the own mask, at the first step; fades to 0 at half.
        drop_matching: Chance that a window has no matching. The cached one was made with recent masks that are nearly
            true, which the tracker's are not: 1 where the network shall not lean on it.
        held_out: Names of clips that are validated on and never trained on.
        kinds: How often each kind of clip is drawn: DAVIS-like, pasted together, stills.
        seed: Of all random numbers.
        init: Weights to begin with.
        resume: Go on from the checkpoint in ``out``.
        validate_every: Steps between two validations.
    """

    cache: Path
    out: Path
    steps: int
    length: int = 7
    batch: int = 4
    rate: float = 1e-3
    loss: str = "balanced+dice"
    box_weight: float = 0.2
    presence_weight: float = 0.2
    teacher: float = 0.5
    drop_matching: float = 0.25
    held_out: tuple[str, ...] = ()
    kinds: tuple[float, float, float] = (0.6, 0.3, 0.1)
    seed: int = 0
    init: Path | None = None
    resume: bool = False
    validate_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.length < 2 or self.validate_every < 1:
            raise ValueError(
                "steps, batch and validate_every must be >= 1 and length >= 2, got "
                f"{self.steps}, {self.batch}, {self.validate_every} and {self.length}"
            )
        if self.loss not in losses.MASK_LOSSES:
            raise ValueError(f"loss must be one of {', '.join(losses.MASK_LOSSES)}, got {self.loss!r}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be in 0..1, got {self.rate:g}")

    def settings(self) -> dict[str, str]:
        """What decides the result."""
        left_out = ("cache", "out", "resume", "init", "validate_every")
        return {key: str(value) for key, value in dataclasses.asdict(self).items() if key not in left_out}


def train(options: TrainOptions) -> Path:
    """Train, validate, write; returns the file of the weights.

    Under ``torchrun`` each process takes its part of every step's windows and the gradients are averaged: the same
    training as in one process but for the order of sums.

    Raises:
        ValueError: The cache or the checkpoint does not fit.
        RuntimeError: The weights to begin with do not fit.
    """
    place = shares_of(options.batch)
    torch.manual_seed(options.seed)
    net = FastNet()
    trained, validated = _split(options)
    batches = Batches(trained, options.length, options.batch, options.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-4)
    if options.init is not None:
        load_into(net, options.init)

    def take(step: int) -> dict[str, float]:
        return _step(net, optimizer, batches.step(step, *place), options, step, place)

    return train_steps(
        options,
        net,
        optimizer,
        take,
        WEIGHTS,
        validate=lambda: validate(net, validated, has_matching=options.drop_matching < 1),
        place=place,
    )


def _step(
    net: FastNet,
    optimizer: torch.optim.Optimizer,
    window: Window,
    options: TrainOptions,
    step: int,
    place: tuple[int, int],
) -> dict[str, float]:
    rank, world = place
    first = (options.seed * 1_000_003 + step) * options.batch
    randoms = [torch.Generator().manual_seed(first + number) for number in range(rank, options.batch, world)]
    teacher = max(0.0, options.teacher * (1 - 2 * step / options.steps))
    parts = loss_of(
        list(unroll(net, window, Dropout(teacher=teacher, matching=options.drop_matching), randoms)), options
    )
    loss = parts["mask"] + options.box_weight * parts["box"] + options.presence_weight * parts["presence"]
    norm = descend(optimizer, loss, world)
    found = {"loss": loss, **parts, "norm": norm}
    return {key: float(value.detach()) for key, value in found.items()}


def loss_of(looks: Sequence[Look], options: TrainOptions) -> dict[str, Tensor]:
    """Means of the losses over the frames and objects of a window: of mask, box, presence."""
    mask = losses.MASK_LOSSES[options.loss]
    masks = torch.stack([mask(look.output.log_odds, look.truth) for look in looks])
    boxes = torch.stack([losses.box(look.output.deltas, look.targets, look.present) for look in looks])
    seen = torch.stack([losses.presence(look.output.presence, look.present) for look in looks])
    return {"mask": masks.mean(), "box": boxes.mean(), "presence": seen.mean()}


@torch.no_grad()
def validate(net: FastNet, paths: Sequence[Path], *, has_matching: bool = True) -> dict[str, float]:
    """J of whole clips from their first seed on, at the training size, every frame but the seed's; by clip.

    That is not the score of ``maskrnn evaluate``: the planes of matching and head are those of the cache, the masks are
    not refined and not merged.
    """
    net.eval()
    scores = {}
    for path in paths:
        clip = TrainingClip.load(path)
        window = window_of(clip, 0, range(clip.seeds[0][1], len(clip)))
        if not has_matching:
            window = dataclasses.replace(window, matching=torch.zeros_like(window.matching))
        found = []
        for look in unroll(net, window, None, [torch.Generator()]):
            size = (window.truth.shape[-2], window.truth.shape[-1])
            probability = paste(look.output.log_odds, look.boxes, size).sigmoid()[0]
            is_there = bool(look.output.presence[0] > 0)
            mask = (probability >= 0.5).numpy() & is_there
            found.append(jaccard(mask, window.truth[0, look.number].numpy() > 0.5))
        scores[clip.name] = float(np.mean(found))
    net.train()
    return scores


def _split(options: TrainOptions) -> tuple[list[tuple[list[Path], float]], list[Path]]:
    """Clips to train on, by kind, and those to validate on."""
    paths = clip_paths(options.cache)
    kept_back = {f"davis_{name}" for name in options.held_out}
    unknown = sorted(kept_back - {path.stem for path in paths})
    if unknown:
        raise ValueError(f"expected the held out clip {unknown[0]} in {options.cache}, found {len(paths)} others")
    kinds: dict[str, list[Path]] = {"davis": [], "paste": [], "still": []}
    for path in paths:
        if path.stem not in kept_back:
            kinds[path.stem.split("_")[0]].append(path)
    held_out = [path for path in paths if path.stem in kept_back]
    return list(zip(kinds.values(), options.kinds, strict=True)), held_out
