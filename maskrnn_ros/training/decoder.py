# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the decoder, the encoder of the target model and the hidden state, on windows of frames.

Several objects per window compete in the loss (soft aggregation with a background, as in FRTM and STM); short windows
first, longer ones later, with back-propagation through all of their frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.model.torch.engine import choose_device
from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.trunk import TrainedTrunk
from maskrnn_ros.model.torch.weights import load_step
from maskrnn_ros.training import losses
from maskrnn_ros.training.options import DecoderOptions
from maskrnn_ros.training.rollout import Dropout, Look, rollout
from maskrnn_ros.training.runs import Schedule, descend, train_steps
from maskrnn_ros.training.sources import IGNORE, DrawOptions, Video, read_videos
from maskrnn_ros.training.split import read_split
from maskrnn_ros.training.windows import SIZE, Observer, Windows, batches, filled, learning_trunk

WEIGHTS, TRUNK = "step.safetensors", "trunk.safetensors"

_COLUMNS_RATE = 4.0
"""Learning rate of what makes columns of features over that of the trunk, which has less to learn."""


def train_decoder(options: DecoderOptions) -> Path:
    """Train, validate, write; returns the file of the weights.

    Raises:
        ValueError: The data cannot be read, or the checkpoint does not fit.
    """
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    net = (StepNet() if options.init is None else load_step(options.init)).to(device).requires_grad_(True).train()
    trunk = learning_trunk(options.trunk, device) if options.trunk_rate or computes_features(device) else None
    learner, optimizer = _learning(net, trunk, options)
    source = DrawOptions(
        data=options.data, terms=options.terms, trunk=options.trunk, seed=options.seed, has_features=trunk is None
    )
    held_out = read_videos(options.data, read_split(), SIZE, held_out=True)
    observer = Observer(options.trunk, trunk is None)
    windows: Iterator[Windows] | None = None
    schedule = Schedule(options.steps, options.minutes, options.validate_every)

    def take(step: int) -> dict[str, float]:
        nonlocal windows
        if windows is None:
            windows = batches(source, options.batch, step, schedule, options.lengths, options.processes)
        window = next(windows).to(device)
        window = window if trunk is None else filled(window, trunk)
        if step == 0 and options.init is None:
            with torch.no_grad():
                net.matcher.standardise(window.stride8.flatten(0, 1).float(), window.stride16.flatten(0, 1).float())
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        parts = loss_of(net, rollout(net, window, Dropout(), random))
        norm = descend(optimizer, parts["loss"], 1)
        return {**{key: float(value.detach()) for key, value in parts.items()}, "norm": float(norm)}

    return train_steps(
        options,
        learner,
        optimizer,
        take,
        WEIGHTS,
        net=net,
        beside={TRUNK: trunk} if trunk is not None and options.trunk_rate else None,
        validate=lambda: validate(net, observer, held_out, trunk),
        schedule=schedule,
    )


def _learning(
    net: StepNet, trunk: TrainedTrunk | None, options: DecoderOptions
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """All that learns, and what makes it learn."""
    groups = [{"params": list(net.parameters()), "lr": options.rate}]
    if trunk is None or not options.trunk_rate:
        return net, torch.optim.AdamW(groups, weight_decay=1e-4)
    head = trunk.start.head
    for values, factor in ((trunk.net.parameters(), 1.0), ((*head.narrow.parameters(), head.bias), _COLUMNS_RATE)):
        groups.append({"params": [value.requires_grad_(True) for value in values], "lr": factor * options.trunk_rate})
    return nn.ModuleDict({"step": net, "trunk": trunk}), torch.optim.AdamW(groups, weight_decay=1e-4)


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
    """The losses of one frame, by part."""
    log_odds, truth, known = look.output.log_odds, look.truth, look.known
    sure = torch.where(known > 0.5, log_odds, -losses.SURE)
    wanted = truth * (known > 0.5)
    mask = losses.edge_cross_entropy(log_odds, truth, known) + losses.dice(sure, wanted)
    return {
        "mask": mask.mean(),
        "merged": losses.merged_cross_entropy(look.pasted, look.shares, look.unknown, look.groups),
        "box": losses.box(look.output.deltas, look.targets, look.present).mean(),
        "presence": losses.presence(look.output.presence, look.present).mean(),
    }


@torch.no_grad()
def validate(
    net: StepNet, observer: Observer, videos: Sequence[Video], trunk: TrainedTrunk | None = None, most: int = 40
) -> dict[str, float]:
    """J of the held out clips, followed from their first frames on, at the pixels of the training size; by clip.

    Without the tracker's memory of the lost, its merge at full size and its refinement: for curves, not for tables.

    Args:
        net: The network.
        observer: Of frames.
        videos: Clips; those that are not continuous are passed over.
        trunk: Computes the features where the network learns; None: the observer does.
        most: Frames of each that are looked at.
    """
    net.eval()
    scores = {}
    for video in videos:
        if video.is_continuous:
            scores[video.name] = float(np.mean(_followed(net, observer, video, most, trunk)))
    net.train()
    return scores


def _followed(net: StepNet, observer: Observer, video: Video, most: int, trunk: TrainedTrunk | None) -> list[float]:
    """J by frame and object of a clip, followed from the first frame on; the last frame is not scored."""
    counts = np.bincount(video.labels[0].ravel(), minlength=256)
    ids = [i for i in range(1, IGNORE) if counts[i] >= 100]
    frames = np.concatenate([video.images[:1], video.images[:most]])
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    nothing = torch.zeros(len(images), 0)
    columns, stride8, stride16 = observer.features(images) if trunk is None else (nothing, nothing, nothing)
    zero = torch.zeros(2, *(side // STRIDE for side in images.shape[-2:]))
    flows = [zero, zero, *(observer.flow(frames[k], frames[k - 1]) for k in range(2, len(images)))]
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
    window = window if trunk is None else filled(window, trunk)
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
