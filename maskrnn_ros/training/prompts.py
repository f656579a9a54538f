# SPDX-License-Identifier: Apache-2.0
"""The prompt network: boxes and clicks to masks, with clicks that follow on what it gets wrong.

As in RITM (Sofiiuk et al., ICIP 2022), a step looks at its views some times without a gradient first; each time every
view gets a click in the middle of its largest error and the mask that was found as the one before. The trunk is frozen.

A step may see the last view of a box instead, which has more pixels, with what the network finds before it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.torch.engine import choose_device
from maskrnn_ros.model.torch.trunk import Lite0
from maskrnn_ros.model.torch.weights import load_trunk, trunk_file
from maskrnn_ros.prompts import Prompt
from maskrnn_ros.prompts.clicks import click_through, clicks_needed, cut, iou, next_click
from maskrnn_ros.prompts.learned import LearnedPrompts, Look, before_last
from maskrnn_ros.prompts.torch.graph import load_prompts
from maskrnn_ros.prompts.torch.net import PromptNet, TorchLook
from maskrnn_ros.prompts.view import BEFORE, draw_point
from maskrnn_ros.training import losses
from maskrnn_ros.training.ahead import drawn
from maskrnn_ros.training.options import PromptOptions
from maskrnn_ros.training.prompt_samples import SIZE, Said, Samples, Steps, join
from maskrnn_ros.training.runs import Schedule, descend, train_steps
from maskrnn_ros.training.sources import IGNORE, DrawOptions, Still, StillFile, allowed, read_videos, still_files
from maskrnn_ros.training.split import read_split
from maskrnn_ros.types import Box

WEIGHTS = "prompts.safetensors"

FURTHER = (0.4, 0.35, 0.25)
"""How often a step has no, one, two looks before the one that is learned from."""

CLICKS = 6
"""Clicks on a held out object at most."""

NOC = "noc85"
"""Column of the clicks until the IoU is 0.85, ``CLICKS`` where it never is."""

_SHOWN = (1, 2, 3)
_LEAST = 100


def train_prompts(options: PromptOptions) -> Path:
    """Train, validate, write; returns the file of the weights.

    Raises:
        ValueError: The data cannot be read, or the checkpoint does not fit.
        RuntimeError: Weights cannot be read.
    """
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    net = (PromptNet() if options.init is None else load_prompts(options.init)).to(device)
    net.requires_grad_(True).train()
    trunk = load_trunk(trunk_file(options.trunk), device)
    # a CPU that draws views is as busy as one that trains
    source = DrawOptions(
        data=options.data,
        terms=options.terms,
        trunk=options.trunk,
        seed=options.seed,
        has_features=device.type == "cpu",
    )
    held_out = held_out_stills(options.data, options.validate_on)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-4)
    look = TorchLook(net, trunk)
    batches: Iterator[Samples | tuple[Said, ...]] | None = None

    def take(step: int) -> dict[str, float]:
        nonlocal batches
        if batches is None:
            steps = Steps(source, options.batch, source.material(SIZE), options.fine)
            batches = drawn(steps, itertools.count(step), options.processes)
        random = np.random.default_rng((options.seed, step, 1))
        samples, further = _begun(next(batches), look, random)
        samples = with_maps(samples.to(device), trunk.net)
        if step == 0 and options.init is None:
            net.standardise(*samples.maps[1:])
        parts = loss_of(net, samples, further, random)
        norm = descend(optimizer, parts["loss"], 1)
        return {**{key: float(value.detach()) for key, value in parts.items()}, "norm": float(norm)}

    return train_steps(
        options,
        net,
        optimizer,
        take,
        WEIGHTS,
        validate=lambda: validate(net, look, held_out),
        metric="IoU",
        schedule=Schedule(options.steps, options.minutes, options.validate_every),
        apart=(NOC,),
    )


def _begun(found: Samples | tuple[Said, ...], look: Look, random: np.random.Generator) -> tuple[Samples, int]:
    """The views of a step, and the looks before the one that is learned from: none before the last one at a box."""
    if isinstance(found, Samples):
        return found, int(random.choice(len(FURTHER), p=FURTHER))
    return last_looks(found, look), 0


def last_looks(objects: Sequence[Said], look: Look) -> Samples:
    """What is seen at the last look at boxes, as ``LearnedPrompts`` has it; mirrored pictures are drawn like others."""
    parts = []
    for one in objects:
        assert one.prompt.box is not None  # it is what they have
        view, before, _ = before_last(look, one.image, one.prompt, one.prompt.box)
        parts.append(one.seen(view, before))
    return join(parts)


@torch.no_grad()
def with_maps(samples: Samples, trunk: Lite0) -> Samples:
    """The same with what the trunk says of the views, where that was not computed before."""
    if samples.maps:
        return dataclasses.replace(samples, maps=tuple(map_.float() for map_ in samples.maps))
    return dataclasses.replace(samples, maps=tuple(map_.half().float() for map_ in trunk(samples.images)))


def loss_of(net: PromptNet, samples: Samples, further: int, random: np.random.Generator) -> dict[str, Tensor]:
    """Losses of a step's views: of the masks, of the IoU that is foretold, and their sum, beside the IoU itself.

    Args:
        net: The network.
        samples: Views with their features.
        further: Looks before the one that is learned from, each with a further click.
        random: Where it is.
    """
    planes = samples.planes.clone()
    for _ in range(further):
        with torch.no_grad():
            log_odds, _ = net(samples.images, planes, *samples.maps)
        planes = clicked(planes, log_odds, samples, random)
    log_odds, confidence = net(samples.images, planes, *samples.maps)
    truth, known = samples.truth.float(), samples.known.float()
    sure = torch.where(known > 0, log_odds, -losses.SURE)
    mask = (losses.edge_cross_entropy(log_odds, truth, known) + losses.dice(sure, truth * known)).mean()
    reached = _ious(log_odds > 0, truth > 0, known > 0)
    judged = functional.binary_cross_entropy(confidence, reached)
    return {"loss": mask + 0.2 * judged, "mask": mask, "judged": judged, "reached": reached.mean()}


def clicked(planes: Tensor, log_odds: Tensor, samples: Samples, random: np.random.Generator) -> Tensor:
    """Each view with a click on its largest error, and with what was found as the mask before."""
    planes[:, BEFORE] = log_odds.sigmoid()
    drawn_on = planes.cpu().numpy()
    found, truth, known = (one.cpu().numpy() for one in (log_odds > 0, samples.truth > 0, samples.known > 0))
    for number in range(len(drawn_on)):
        point = next_click(truth[number], found[number], known[number], random=random)
        if point is not None:
            draw_point(drawn_on[number], point.x, point.y, point.on_object)
    return torch.from_numpy(drawn_on).to(planes.device)


def _ious(found: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """IoU of each view where the truth is known, (B,); 1 where both are empty."""
    both = (found & truth & known).sum(dim=(1, 2)).float()
    either = ((found | truth) & known).sum(dim=(1, 2)).float()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def held_out_stills(data: Path, most: int) -> list[Still]:
    """Pictures that no training sees, at most so many: stills and frames of clips, of each set alike.

    Raises:
        ValueError: A file cannot be read.
    """
    split = read_split()
    sets: dict[str, list[Still | StillFile]] = {}
    for file in allowed(still_files(data), split, held_out=True):
        if not file.source.endswith("cutouts"):
            sets.setdefault(file.source, []).append(file)
    for video in read_videos(data, split, SIZE, held_out=True):
        sets.setdefault(video.source, []).extend(video.stills(max(1, len(video.images) // 3)))
    share = -(-most // max(1, len(sets)))
    chosen = [one for members in sets.values() for one in members[:: max(1, -(-len(members) // share))]]
    return [one.read() for one in chosen[:most]]


def validate(net: PromptNet, look: TorchLook, stills: Sequence[Still]) -> dict[str, float]:
    """Mean IoU on held out pictures after some clicks and for a box, and the clicks until it is 0.85.

    Args:
        net: The network, which ``look`` looks with.
        look: See ``LearnedPrompts``.
        stills: Pictures; of each the largest object counts.
    """
    net.eval()
    backend = LearnedPrompts(look)
    found: dict[str, list[float]] = {}
    for still in stills:
        counts = np.bincount(still.labels.ravel(), minlength=256)[:IGNORE]
        counts[0] = 0
        if counts.max() < _LEAST:
            continue
        truth, known = still.labels == counts.argmax(), still.labels != IGNORE
        ious = list(click_through(backend, still.image, truth, known, CLICKS))
        box = Box.of_mask(truth)
        assert box is not None  # it has pixels
        scores = {f"click{count}": ious[count - 1] for count in _SHOWN}
        scores["box"] = iou(cut(backend, still.image, Prompt(box=box)), truth, known)
        for name, value in {**scores, NOC: float(clicks_needed(ious))}.items():
            found.setdefault(name, []).append(value)
    net.train()
    return {name: float(np.mean(values)) for name, values in found.items()}
