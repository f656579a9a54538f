# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the decoder, the encoder of the target model and the hidden state, on windows of frames.

Several objects per window compete in the loss (soft aggregation with a background, as in FRTM and STM); short windows
first, longer ones later, with back-propagation through all of their frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.evaluation.metrics import jaccard
from maskrnn_ros.model.step import STRIDE, StepNet
from maskrnn_ros.model.weights import load_step
from maskrnn_ros.tracking.tracker import choose_device
from maskrnn_ros.training import losses
from maskrnn_ros.training.rollout import Dropout, Look, rollout
from maskrnn_ros.training.runs import RunOptions, Schedule, descend, train_steps
from maskrnn_ros.training.sources import IGNORE, Video, read_videos
from maskrnn_ros.training.split import read_split
from maskrnn_ros.training.windows import SIZE, Frozen, Observer, WindowOptions, Windows, batches

WEIGHTS = "step.safetensors"

LENGTHS = ((0.55, 3), (0.9, 5), (1.0, 8))
"""Until which share of the steps windows have how many frames: the recurrence learns once the single step is good."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions(RunOptions):
    """How to train it; a step sees windows.

    Args:
        trunk: Weights of the trunk: shipped, or a file.
        init: Weights to begin with; None: random ones.
        lengths: See ``LENGTHS``.
    """

    trunk: str = "shipped"
    init: Path | None = None
    batch: int = 4
    lengths: tuple[tuple[float, int], ...] = LENGTHS

    def settings(self) -> dict[str, str]:
        """See ``RunOptions``."""
        return {**super().settings(), "trunk": Path(self.trunk).name, "lengths": str(self.lengths)}


def train_decoder(options: DecoderOptions) -> Path:
    """Train, validate, write; returns the file of the weights.

    Raises:
        ValueError: The data cannot be read, or the checkpoint does not fit.
    """
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    net = (StepNet() if options.init is None else load_step(options.init)).to(device).requires_grad_(True).train()
    frozen = Frozen(options.trunk, device) if computes_features(device) else None
    source = WindowOptions(
        data=options.data, terms=options.terms, trunk=options.trunk, seed=options.seed, has_features=frozen is None
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=1e-4)
    held_out = read_videos(options.data, read_split(), SIZE, held_out=True)
    observer = Observer(options.trunk)
    windows: Iterator[Windows] | None = None
    schedule = Schedule(options.steps, options.minutes, options.validate_every)

    def take(step: int) -> dict[str, float]:
        nonlocal windows
        if windows is None:
            windows = batches(source, options.batch, step, schedule, options.lengths, options.processes)
        window = next(windows).to(device)
        window = window if frozen is None else frozen.fill(window)
        if step == 0 and options.init is None:
            net.matcher.standardise(window.stride8.flatten(0, 1).float(), window.stride16.flatten(0, 1).float())
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        parts = loss_of(net, rollout(net, window, Dropout(), random))
        norm = descend(optimizer, parts["loss"], 1)
        return {**{key: float(value.detach()) for key, value in parts.items()}, "norm": float(norm)}

    return train_steps(
        options,
        net,
        optimizer,
        take,
        WEIGHTS,
        validate=lambda: validate(net, observer, held_out),
        schedule=schedule,
    )


def computes_features(device: torch.device) -> bool:
    """Whether the device that trains has room for the trunk; a CPU that draws windows is as busy as one that trains."""
    return device.type != "cpu"


def loss_of(net: StepNet, looks: Iterator[Look]) -> dict[str, Tensor]:
    """Losses of a window, mean over its frames and objects, by part and in all."""
    sums: dict[str, Tensor] = {}
    count = 0
    for look in looks:
        for name, value in _parts(look).items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
        count += 1
    means = {name: value / count for name, value in sums.items()}
    loss = means["mask"] + 0.5 * means["merged"] + 0.1 * means["box"] + 0.2 * means["presence"]
    return {"loss": loss, **means}


def _parts(look: Look) -> dict[str, Tensor]:
    log_odds, truth, known = look.output.log_odds, look.truth, look.known
    sure = torch.where(known > 0.5, log_odds, -losses.SURE)
    wanted = truth * (known > 0.5)
    mask = losses.edge_cross_entropy(log_odds, truth, known) + losses.dice(sure, wanted)
    return {
        "mask": mask.mean(),
        "merged": losses.merged_cross_entropy(look.pasted, look.shares, look.unknown, look.which),
        "box": losses.box(look.output.deltas, look.targets, look.present).mean(),
        "presence": losses.presence(look.output.presence, look.present).mean(),
    }


@torch.no_grad()
def validate(net: StepNet, observer: Observer, videos: Sequence[Video], most: int = 40) -> dict[str, float]:
    """J of the held out clips, followed from their first frames on, at the pixels of the training size; by clip.

    Without the tracker's memory of the lost, its merge at full size and its refinement: for curves, not for tables.

    Args:
        net: The network.
        observer: Of frames.
        videos: Clips; those that are not continuous are passed over.
        most: Frames of each that are looked at.
    """
    net.eval()
    scores = {}
    for video in videos:
        if video.is_continuous:
            scores[video.name] = float(np.mean(_followed(net, observer, video, most)))
    net.train()
    return scores


def _followed(net: StepNet, observer: Observer, video: Video, most: int) -> list[float]:
    counts = np.bincount(video.labels[0].ravel(), minlength=256)
    ids = [i for i in range(1, IGNORE) if counts[i] >= 100]
    images = torch.from_numpy(video.images[:most]).permute(0, 3, 1, 2).contiguous()
    images = torch.cat([images[:1], images])
    columns, stride8, stride16 = observer.features(images)
    zero = torch.zeros(2, *columns.shape[-2:])
    flows = [zero, zero, *(observer.flow(images[k], images[k - 1]) for k in range(2, len(images)))]
    labels = torch.from_numpy(np.concatenate([video.labels[:1], video.labels[:most]]))
    window = Windows(
        images=images[None],
        columns=columns[None],
        stride8=stride8[None],
        stride16=stride16[None],
        flow=torch.stack(flows)[None].half(),
        labels=labels[None],
        which=torch.zeros(len(ids), dtype=torch.int64),
        ids=torch.tensor(ids),
        first=torch.stack([labels[1] == i for i in ids]).to(torch.uint8),
    ).to(next(net.parameters()).device)
    scores = []
    looks = rollout(net, window, None, torch.Generator())
    for number, look in enumerate(looks, start=2):
        if number == len(images) - 1:
            break  # as in DAVIS, the last frame is not scored
        log_odds = functional.interpolate(look.pasted[:, None], scale_factor=STRIDE, mode="bilinear")[:, 0]
        there = (look.output.presence > 0).float()[:, None, None]
        odds = torch.cat([torch.zeros_like(log_odds[:1]), log_odds * there - 8 * (1 - there)])
        merged = odds.argmax(dim=0).cpu().numpy()
        truth = labels[number].numpy()
        scores += [jaccard(merged == k + 1, truth == i) for k, i in enumerate(ids)]
    return scores
