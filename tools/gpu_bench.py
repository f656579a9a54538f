# SPDX-License-Identifier: Apache-2.0
"""What the checks of ``gpu_check.py`` share: how much is done, where, and a clip followed beside the CPU."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrnn_ros.config import Config, from_flat, settings
from maskrnn_ros.datasets.clips import FileClip, default_convention
from maskrnn_ros.datasets.readers import davis_clip, folder_names
from maskrnn_ros.evaluation.scoring import ClipScorer, seeds_of
from maskrnn_ros.metrics.davis import Convention, jaccard
from maskrnn_ros.model.torch.weights import save_weights
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, LabelArray, Seed

Row = dict[str, Any]
Case = tuple[str, Callable[[], Row]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is done.

    Args:
        frames: Of a clip.
        sizes: (w, h) of the images whose times are taken, pixels.
        more: Likewise, where time is left.
        objects: How many, likewise.
        steps: Frames whose times are taken.
        flow_sizes: (w, h) of the pairs of images.
        tuning: Iterations of the paper profile's fine-tuning.
        training: Steps of its training.
        paper: (h, w) of its images.
        tolerance: J&F may differ so much from the CPU's.
        values: Settings beside those that a check sets; unknown ones are left out.
    """

    frames: int = 48
    sizes: tuple[tuple[int, int], ...] = ((854, 480), (1920, 1080))
    more: tuple[tuple[int, int], ...] = ((1280, 720),)
    objects: tuple[int, ...] = (1, 4, 16, 64)
    steps: int = 20
    flow_sizes: tuple[tuple[int, int], ...] = ((512, 288), (854, 480))
    tuning: int = 200
    training: int = 5
    paper: tuple[int, int] = (480, 854)
    tolerance: float = 0.003
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


FULL = Extent()
QUICK = Extent(
    frames=10,
    sizes=((160, 96),),
    more=((96, 64),),
    objects=(1, 2),
    steps=2,
    flow_sizes=((160, 128),),
    tuning=2,
    training=1,
    paper=(64, 96),
    tolerance=0.05,
    values={"working_size": 128, "threads": 1},
)


class Skipped(Exception):
    """What cannot be checked here, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and on what checks run.

    Args:
        device: cpu, cuda or cuda:N.
        extent: How much.
        root: Clips in the layout of DAVIS, already short.
        raft: Weights of RAFT-small; None: random ones, for times alone.
        work: Folder that all checks share.
    """

    device: str
    extent: Extent
    root: Path
    raft: Path | None
    work: Path

    @property
    def clips(self) -> list[FileClip]:
        """All clips."""
        return [davis_clip(self.root, name) for name in folder_names(self.root, "Annotations")]

    def config(self, **changes: Any) -> Config:
        """Settings for the device; a dot in a name is written as two underscores, an unknown name is left out."""
        wanted = {"device": self.device, "engine": "torch", **self.extent.values}
        wanted |= {name.replace("__", "."): value for name, value in changes.items()}
        known = {name for name, _, _ in settings()}
        return from_flat({name: value for name, value in wanted.items() if name in known})

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def forget_memory(self) -> None:
        """Begin anew with the peak of the memory."""
        if self.device.startswith("cuda"):
            torch.cuda.init()  # before that there is nothing to begin with
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> Row:
        """Most memory of the device in use since, MB (10^6 bytes); nothing on a CPU."""
        return (
            {"memory MB": torch.cuda.max_memory_allocated(self.device) / 1e6} if self.device.startswith("cuda") else {}
        )

    def raft_weights(self, size: str) -> str:
        """A file with weights of RAFT: those of the pack, or random ones."""
        if size == "small" and self.raft is not None:
            return str(self.raft)
        from torchvision.models.optical_flow import raft_large, raft_small

        file = self.work / f"random_raft_{size}.safetensors"
        if not file.exists():
            torch.manual_seed(0)
            save_weights((raft_small if size == "small" else raft_large)(), file)
        return str(file)


class Beyond(ValueError):
    """A result that is not what it should be; its figures are kept."""

    def __init__(self, row: Row, text: str) -> None:
        super().__init__(text)
        self.row = row


def _convention(clip: FileClip) -> Convention:
    return default_convention(frozenset(np.unique(clip.truth(0)).tolist()), "davis")


def seeded(clip: FileClip, frame: Frame) -> Seed:
    """The seed of a clip's first frame."""
    return Seed(stamp_ns=frame.stamp_ns, labels=seeds_of(clip, _convention(clip))[0].labels)


def follow(bench: Bench, clip: FileClip, config: Config) -> tuple[Row, list[LabelArray]]:
    """Follow the objects of a clip: J, F, times; and the labels of every frame."""
    convention = _convention(clip)
    tracker, scorer = build_tracker(config), ClipScorer(clip, convention)
    bench.forget_memory()
    found, ms = [], []
    for number in range(len(clip)):
        frame = Frame(stamp_ns=clip.stamp_ns(number), image=clip.image(number))
        begin = time.perf_counter()
        tracks = tracker.step(frame) if number else tracker.seed(seeded(clip, frame), frame)
        ms.append((time.perf_counter() - begin) * 1e3)
        scorer.add(tracks.labels)
        found.append(tracks.labels)
    objects = scorer.objects()
    j, f = (float(np.mean([np.mean(getattr(one, name)) for one in objects])) for name in ("j", "f"))
    steps = ms[min(4, len(ms) // 2) :]
    times = {"seed ms": ms[0], "first step ms": ms[1], "ms": float(np.median(steps))}
    return {"J": j, "F": f, "J&F": (j + f) / 2, **times, **bench.memory()}, found


_OWN = ("device", "precision", "compile", "engine")
"""Settings of the one that is compared, and not of what it is compared with."""


_ON_A_CPU: Row = {"device": "cpu", "engine": "onnxruntime", "precision": "float32"}

SAME_FLOW: Row = {"flow__backend": "flownet"}
"""``auto`` is another one on a CPU."""


def reference(bench: Bench, clip: FileClip, changes: Row) -> tuple[float, np.ndarray]:
    """J&F and labels of what runs on a CPU, onnxruntime in float32, computed once for the same settings."""
    same = {name: value for name, value in changes.items() if name not in _OWN}
    file = bench.work / "-".join(["cpu", clip.name, *(str(value) for value in same.values())])
    file = file.with_name(f"{file.name}.npz")
    if not file.exists():
        row, labels = follow(bench, clip, bench.config(**same, **_ON_A_CPU))
        part = file.with_name(f"{os.getpid()}-{file.name}")  # checks beside this one may ask for it, too
        np.savez_compressed(part, score=row["J&F"], labels=np.stack(labels).astype(np.uint8))
        part.replace(file)
    known = np.load(file)
    return float(known["score"]), known["labels"]


def compared(bench: Bench, clip: FileClip, **changes: Any) -> Row:
    """A clip followed with some settings, beside the CPU; with the same flow, unless that is one of them.

    Raises:
        ValueError: J&F is too far from the CPU's.
    """
    changes = {**SAME_FLOW, **changes}
    score, expected = reference(bench, clip, changes)
    row, labels = follow(bench, clip, bench.config(**changes))
    ids = [i for i in np.unique(expected[0]).tolist() if i]
    overlaps = [jaccard(one == i, other == i) for one, other in zip(labels, expected, strict=True) for i in ids]
    row |= {"J&F - CPU": row["J&F"] - score, "IoU": float(np.mean(overlaps)), "least IoU": min(overlaps)}
    if abs(row["J&F - CPU"]) > bench.extent.tolerance:
        raise Beyond(row, f"J&F is {row['J&F - CPU']:+.4f} from the CPU's, allowed {bench.extent.tolerance:g}")
    return row


def run_command(*arguments: object) -> float:
    """Seconds of a command of ``maskrnn``.

    Raises:
        RuntimeError: It ended with another status than 0.
    """
    from maskrnn_ros.cli import main as maskrnn

    begin = time.perf_counter()
    status = maskrnn([str(argument) for argument in arguments])
    if status:
        raise RuntimeError(f"maskrnn {arguments[0]} ended with {status}")
    return time.perf_counter() - begin
