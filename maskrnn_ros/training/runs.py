# SPDX-License-Identifier: Apache-2.0
"""What both kinds of training share: processes, checkpoints, the log."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"


def rate_factor(step: int, steps: int) -> float:
    """Of the peak learning rate: rises over a hundredth of the steps, then falls as a cosine to 1 %."""
    rise = max(1, steps // 100)
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def average_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Over all processes."""
    for parameter in parameters:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        parameter.grad /= world


def join() -> tuple[int, int]:
    """Rank and number of processes; joins the others of ``torchrun``."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def save_checkpoint(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, step: int, settings: Mapping[str, str]
) -> None:
    """Write all that a training goes on from."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for number, values in state.items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
    known = {"step": str(step), "settings": json.dumps(dict(settings))}
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, known)
    part.replace(path)


def load_checkpoint(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, str]) -> int:
    """Read it back; returns the step to go on with.

    Raises:
        ValueError: It was made with other settings.
    """
    with safe_open(path, "pt") as file:
        known = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before, now = json.loads(known["settings"]), dict(settings)
    other = [key for key in now if before.get(key) != now[key]]
    if other:
        raise ValueError(f"{path}: --resume expected {other[0]} = {before.get(other[0])}, found {now[other[0]]}")
    net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(known["step"])


class Log:
    """Losses and validation, as CSV and as a plot; ``metric`` names what the validation gives."""

    def __init__(self, path: Path, begin: int, rank: int, metric: str = "J") -> None:
        self._metric, self._column = metric, metric.lower()
        self._path, self._rank, self._sums = path, rank, list[dict[str, float]]()
        self._begin_s = time.monotonic()
        self._rows: list[dict[str, str]] = []
        if begin and path.exists():
            with path.open(newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["step"]) <= begin]

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._sums.clear()

    def add(self, figures: dict[str, float]) -> None:
        self._sums.append(figures)

    def write(self, step: int, scores: dict[str, float]) -> str:
        keys = list(self._sums[-1])
        means = {key: f"{np.mean([figures[key] for figures in self._sums]):.5f}" for key in keys}
        clips = {name: f"{value:.4f}" for name, value in scores.items()}
        mean = f"{np.mean(list(scores.values())):.4f}" if scores else ""
        seconds = f"{time.monotonic() - self._begin_s:.0f}"
        self._rows.append({"step": str(step), "seconds": seconds, **means, self._column: mean, **clips})
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self._rows[-1]))
            writer.writeheader()
            writer.writerows(self._rows)
        self._sums.clear()
        return f"loss {means['loss']} {self._metric} {mean}"

    def plot(self, path: Path) -> None:
        figure = Figure(figsize=(6, 4.5), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        steps = [int(row["step"]) for row in self._rows]
        axes[0].plot(steps, [float(row["loss"]) for row in self._rows])
        axes[0].set(ylabel="loss")
        axes[1].plot(steps, [float(row[self._column] or "nan") for row in self._rows])
        axes[1].set(ylabel=f"{self._metric}, held out clips", xlabel="step")
        figure.savefig(path, dpi=100)
