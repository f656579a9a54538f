# SPDX-License-Identifier: Apache-2.0
"""Train the small flow network on pairs of images whose flow is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.readers import folder_names
from maskrnn_ros.flow.torch.flownet import STRIDES, FlowNet, estimate
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.training.options import FlowOptions
from maskrnn_ros.training.pairs import Pair, Sources, roughen
from maskrnn_ros.training.runs import descend, shares_of, train_steps
from maskrnn_ros.training.stills import still_paths

CROP = (192, 320)
"""(h, w) of the pairs that a step sees, pixels."""

VALIDATION = (256, 448)
"""(h, w) of the pairs that are validated on."""

WEIGHTS = "flownet.safetensors"

_LEVELS = (0.25, 0.25, 0.25, 0.5, 1.0)
"""Weight of the mean endpoint error at each stride; as in FlowNet the coarse flows count less than the finest."""

_HELD_OUT_SEED = 2_000_000_011
"""So that no pair is drawn as in training, whatever its seed."""

_BOUNDS = (5.0, 20.0)
"""Between small, middle and large motion, pixels."""


def train_flow(options: FlowOptions) -> Path:
    """Train, validate, write; returns the file of the weights. Under ``torchrun`` the pairs of a step are shared.

    Raises:
        ValueError: The data cannot be read, or the checkpoint does not fit.
        RuntimeError: ``init`` holds no weights of this network.
    """
    place = rank, world = shares_of(options.batch)
    sources = Sources(_paths(options), CROP)
    held_out = held_out_pairs(options) if rank == 0 else []
    torch.manual_seed(options.seed)
    net = FlowNet()
    if options.init is not None:
        load_into(net, options.init)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-4)

    def take(step: int) -> dict[str, float]:
        parts = loss_of(net, *draw(sources, options, step, rank, world))
        descend(optimizer, parts["loss"], world)
        return {key: float(value.detach()) for key, value in parts.items()}

    return train_steps(
        options, net, optimizer, take, WEIGHTS, validate=lambda: validate(net, held_out), place=place, metric="EPE"
    )


def draw(sources: Sources, options: FlowOptions, step: int, rank: int, world: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a step: current and previous, uint8 (P, 3, h, w), and flow, float32 (P, 2, h, w)."""
    pairs = []
    for number in range(step * options.batch + rank, (step + 1) * options.batch, world):
        random = np.random.default_rng((options.seed, number))
        pairs.append(roughen(sources.draw(random), random))
    return _stack([p.current for p in pairs]), _stack([p.previous for p in pairs]), _stack([p.flow for p in pairs])


def loss_of(net: FlowNet, current: Tensor, previous: Tensor, flow: Tensor) -> dict[str, Tensor]:
    """The loss and the endpoint error of the finest flow, pixels.

    The true flow of a cell is that of the surface in its middle, not a mean over a border of motion.
    """
    return multiscale(net(current, previous), flow)


def multiscale(found: Sequence[Tensor], flow: Tensor) -> dict[str, Tensor]:
    """Weighted sum of the mean endpoint errors of all scales, and that of the finest, ``finest``.

    Args:
        found: Flow at each of ``STRIDES``, (B, 2, H / stride, W / stride), pixels of the images.
        flow: The true one, (B, 2, H, W).
    """
    errors = []
    for stride, value in zip(STRIDES, found, strict=True):
        # the four pixels about the middle of the cell
        middle = functional.avg_pool2d(flow[..., stride // 2 - 1 :, stride // 2 - 1 :], 2, stride)
        errors.append(((value - middle).square().sum(dim=1) + 1e-4).sqrt().mean())
    loss = sum((weight * error for weight, error in zip(_LEVELS, errors, strict=True)), torch.zeros(()))
    return {"loss": loss, "finest": errors[-1]}


def held_out_pairs(options: FlowOptions) -> list[Pair]:
    """The pairs of the held out clips, the same ones for every seed."""
    if not options.held_out:
        return []
    if options.davis is None:
        raise ValueError(f"held out clips need a data set, got {','.join(options.held_out)} without davis")
    sources = Sources(_frames(options.davis, options.held_out), VALIDATION)
    pairs = []
    for number in range(options.validation_pairs):
        random = np.random.default_rng((_HELD_OUT_SEED, number))
        pairs.append(roughen(sources.draw(random), random))
    return pairs


@torch.no_grad()
def validate(net: FlowNet, pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean endpoint error of all pixels of the pairs, pixels; nothing without pairs."""
    if not pairs:
        return {}
    net.eval()
    found = errors_of(lambda current, previous: estimate(net, current[None], previous[None])[0], pairs)
    net.train()
    return {"pairs": found["all"]}


def errors_of(flow: Callable[[Tensor, Tensor], Tensor], pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean endpoint error of a ``FlowEstimator``, pixels, by the length of the true motion.

    Returns:
        ``all``; ``small`` below 5 pixels, ``middle``, ``large`` above 20; ``seen`` of what was seen on both frames.
        nan where there is no such pixel.
    """
    errors, lengths, seen = [], [], []
    for pair in pairs:
        found = flow(_stack([pair.current])[0], _stack([pair.previous])[0]).cpu().numpy().transpose(1, 2, 0)
        errors.append(np.hypot(*(found - pair.flow).reshape(-1, 2).T))
        lengths.append(np.hypot(*pair.flow.reshape(-1, 2).T))
        seen.append(~pair.hidden.ravel())
    error, length = np.concatenate(errors), np.concatenate(lengths)
    kinds = {
        "all": np.ones(len(error), bool),
        "small": length < _BOUNDS[0],
        "middle": (length >= _BOUNDS[0]) & (length <= _BOUNDS[1]),
        "large": length > _BOUNDS[1],
        "seen": np.concatenate(seen),
    }
    return {name: float(error[kind].mean()) if kind.any() else float("nan") for name, kind in kinds.items()}


def _paths(options: FlowOptions) -> list[tuple[Path, Path]]:
    paths = [pair for folder in options.stills for pair in still_paths(folder)]
    if options.davis is not None:
        names = [name for name in folder_names(options.davis, "Annotations") if name not in options.held_out]
        paths += _frames(options.davis, names)
    return paths


def _frames(root: Path, names: Sequence[str]) -> list[tuple[Path, Path]]:
    """(image, mask) of every frame of clips that has a mask."""
    clips = [davis_sequence(root, name, "Annotations") for name in names]
    return [
        (path, clip.annotations[path.stem]) for clip in clips for path in clip.frames if path.stem in clip.annotations
    ]


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
