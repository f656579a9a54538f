# SPDX-License-Identifier: Apache-2.0
"""Trackers of the synthetic world and of the shipped clip on the engines, for their tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import world

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import read_labels
from maskrnn_ros.model.digests import sealed
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.files import DECODER, TRUNK
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.types import Frame, Seed, Tracks

CLIP = Path(__file__).resolve().parent.parent / "maskrnn_ros" / "data" / "tabletop"
SHAPES = (
    world.Shape(1, 12, 12, 36, 40, 2, 0),
    world.Shape(2, 76, 40, 32, 44, -1, 1),
    world.Shape(3, 60, 4, 28, 30, 1, 0),
)
PLAIN = with_values(world.unrefined(Config()), device="cpu", threads=1)
"""As the package comes, without what has nothing to do with engines."""


def engine(**changes: Value) -> Engine:
    """The shipped networks, or those that are named."""
    return load_engine(with_values(PLAIN, **changes))


def tracker(found: Engine, threads: int = 1) -> Tracker:
    """With the true flow."""
    return Tracker(PLAIN, world.ExactFlow(SHAPES), found, threads=threads)


def run(tracker: Tracker, frames: int = 6) -> list[Tracks]:
    """What it makes of all objects, from frame 1 on."""
    tracker.seed(world.seed(0, shapes=SHAPES), world.frame(0, SHAPES))
    return [tracker.step(world.frame(number, SHAPES)) for number in range(1, frames)]


def clip_run(frames: int = 5, **changes: Value) -> list[np.ndarray]:
    """Labels of the frames of the shipped clip after the first, small."""
    own = build_tracker(with_values(PLAIN, working_size=320, flow__preset="ultrafast", **changes))
    files = davis_sequence(CLIP, "tabletop")
    images = [read_frame(path) for path in files.frames[:frames]]
    labels = read_labels(files.annotations[files.frames[0].stem])
    own.seed(Seed(stamp_ns=1, labels=labels), Frame(stamp_ns=1, image=images[0]))
    steps = enumerate(images[1:], 2)
    return [own.step(Frame(stamp_ns=number * world.PERIOD_NS, image=image)).labels for number, image in steps]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks."""
    return np.count_nonzero(one & other) / max(1, np.count_nonzero(one | other))


def least_overlap(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The smallest IoU of the same object in two runs."""
    ids = [i for i in np.unique(one[0]).tolist() if i]
    assert len(ids) > 1
    return min(overlap(a == i, b == i) for a, b in zip(one, other, strict=True) for i in ids)


@dataclasses.dataclass(frozen=True)
class Copies:
    """Copies of the shipped weights and of all their graphs."""

    trunk: Path
    network: Path

    @property
    def settings(self) -> MappingProxyType[str, Value]:
        """That name them."""
        return MappingProxyType({"trunk__weights": str(self.trunk), "network__weights": str(self.network)})


def copied(folder: Path, graphs: str = "*.onnx") -> Copies:
    """Copy the shipped weights, and those graphs that a pattern names, as ``maskrnn export`` writes them."""
    for file in (TRUNK, DECODER):
        (folder / file.name).write_bytes(file.read_bytes())
    for file in TRUNK.parent.glob(graphs):
        (folder / file.name).write_bytes(sealed(file.read_bytes()))
    return Copies(folder / TRUNK.name, folder / DECODER.name)
