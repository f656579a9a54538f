# SPDX-License-Identifier: Apache-2.0
"""Trackers of the synthetic world on the engines, for their tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
import world

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.digests import sealed
from maskrnn_ros.model.engine import Models, load_models
from maskrnn_ros.model.weights import STREAMS, TRUNK
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.types import Tracks

CPU = torch.device("cpu")
SHAPES = (
    world.Shape(1, 12, 12, 36, 40, 2, 0),
    world.Shape(2, 76, 40, 32, 44, -1, 1),
    world.Shape(3, 60, 4, 28, 30, 1, 0),
)
HEADS = with_values(
    world.unrefined(Config()),
    adaptation__method="finetune",
    adaptation__mode="blocking",
    adaptation__steps=4,
    adaptation__views=4,
    network__enabled=True,
    network__weights="streams",
)
"""The two-stream network with all parts as they ship, and heads that are adapted at once and quickly."""


def models(**changes: Value) -> Models:
    """The shipped networks, or those that are named."""
    return load_models(with_values(HEADS, **changes), CPU)


def tracker(found: Models, together: bool | None = None, threads: int | None = None) -> Tracker:
    """With the true flow."""
    threads = found.threads if threads is None else threads
    flow = world.ExactFlow(SHAPES)
    return Tracker(HEADS, flow, CPU, found.trunk, found.network, threads=threads, together=together)


def run(tracker: Tracker, frames: int = 6) -> list[Tracks]:
    """What it makes of all objects, from frame 1 on."""
    tracker.seed(world.seed(0, shapes=SHAPES), world.frame(0, SHAPES))
    return [tracker.step(world.frame(number, SHAPES)) for number in range(1, frames)]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks."""
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def least_overlap(one: list[Tracks], other: list[Tracks]) -> float:
    """The smallest IoU of the same object in two runs."""
    ids = [shape.instance_id for shape in SHAPES]
    return min(overlap(a.labels == i, b.labels == i) for a, b in zip(one, other, strict=True) for i in ids)


@dataclasses.dataclass(frozen=True)
class Copies:
    """Copies of the shipped weights and of all their graphs."""

    trunk: Path
    network: Path

    @property
    def settings(self) -> dict[str, Value]:
        """That name them."""
        return {"trunk__weights": str(self.trunk), "network__weights": str(self.network)}


def copied(folder: Path, graphs: str = "*.onnx") -> Copies:
    """Copy the shipped weights, and those graphs that a pattern names, as ``maskrnn export`` writes them."""
    for file in (TRUNK, STREAMS):
        (folder / file.name).write_bytes(file.read_bytes())
    for file in TRUNK.parent.glob(graphs):
        (folder / file.name).write_bytes(sealed(file.read_bytes()))
    return Copies(folder / TRUNK.name, folder / STREAMS.name)
