# SPDX-License-Identifier: Apache-2.0
"""What all kinds of training share: processes, the loop over the steps, checkpoints, the log."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from maskrnn_ros.disk import regular_file
from maskrnn_ros.model.torch.weights import save_weights
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.training.options import StageOptions

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"

WRITE_S = 120.0
"""Least between two checkpoints of a training that has a time: what is cut off loses little. There are eight in all at
most: each of them validates."""


class Schedule:
    """How far a training is: by its steps, or by the clock where it has a time.

    Under ``torchrun`` the clock is that of the first process, so that all end with the same step.

    Args:
        steps: In all; not asked where there is a time.
        minutes: In all, those before a ``--resume`` included; None: the steps decide.
        validate_every: Steps between two checkpoints; with a time see ``WRITE_S``.
        world: Number of processes.
        clock: Seconds.
    """

    def __init__(
        self,
        steps: int,
        minutes: float | None = None,
        validate_every: int = 1,
        world: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps, self.minutes = steps, minutes
        self._every, self._world, self._clock = validate_every, world, clock
        self.begin(0.0)

    def begin(self, spent_s: float) -> None:
        """Start the clock; so many seconds were spent before."""
        self._begin_s = self._clock() - spent_s
        self._written_s = spent_s

    @property
    def spent_s(self) -> float:
        """Seconds in all."""
        return self._clock() - self._begin_s

    def share(self, step: int) -> float:
        """Of the training that is done before a step; 1 or more: it is over."""
        if self.minutes is None:
            return step / self.steps
        share = torch.tensor(self.spent_s / (60 * self.minutes), dtype=torch.float64)
        if self._world > 1:
            dist.broadcast(share, 0)
        return float(share)

    def rate(self, step: int, share: float) -> float:
        """Of the peak learning rate."""
        if self.minutes is None:
            return rate_factor(step, self.steps)
        return rate_factor(int(share * _FINE), _FINE)

    def writes(self, step: int, share: float) -> bool:
        """Whether there is a checkpoint before this step, of which so much is done."""
        if self.minutes is None:
            return step % self._every == 0 or step == self.steps
        spent_s = share * 60 * self.minutes
        if share < 1 and spent_s - self._written_s < max(WRITE_S, 60 * self.minutes / 8):
            return False
        self._written_s = spent_s
        return True


_FINE = 10_000
"""Parts of a time by which the learning rate follows it."""


def use_threads(number: int) -> None:
    """Threads of torch and OpenCV for one operation; 0 leaves their defaults."""
    set_threads(number)
    if number:
        torch.set_num_threads(number)


def train_steps(
    options: StageOptions,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    take: Callable[[int], dict[str, float]],
    weights: str,
    *,
    net: nn.Module | None = None,
    beside: Mapping[str, nn.Module] | None = None,
    validate: Callable[[], dict[str, float]] = dict,
    place: tuple[int, int] = (0, 1),
    metric: str = "J",
    schedule: Schedule | None = None,
    apart: Collection[str] = (),
) -> Path:
    """Take the steps that are left; validate and write now and then.

    Args:
        options: Of the training.
        learner: All that learns.
        optimizer: Its groups have their peak learning rates.
        take: Takes a step; returns its figures, ``loss`` among them.
        weights: Name of the file of the weights.
        net: The part of the learner that they are of; None: all of it.
        beside: Other parts of it whose weights are written, too, by the name of the file.
        validate: Scores of the held out clips, by clip.
        place: Rank and number of processes.
        metric: What they are.
        schedule: Says when it is over; None: that of the options' steps.
        apart: Names of scores that are no ``metric``: they are logged and not in its mean.

    Returns:
        The file of the weights.

    Raises:
        ValueError: The checkpoint does not fit, or ``torchrun`` began processes that the training does not share.
    """
    rank, world = place
    if (begun := int(os.environ.get("WORLD_SIZE", "1"))) != world:
        raise ValueError(f"this training takes {world} process, got {begun} of torchrun")
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = schedule or Schedule(options.steps, None, options.validate_every, world)
    begin, spent_s = 0, 0.0
    if options.resume and (options.out / CHECKPOINT).exists():
        begin, spent_s = load_checkpoint(options.out / CHECKPOINT, learner, optimizer, options.settings())
    options.out.mkdir(parents=True, exist_ok=True)
    schedule.begin(spent_s)
    step, share = begin, schedule.share(begin)
    if begin and share >= 1 and rank == 0:  # nothing is left to do; who has the checkpoint alone wants the weights
        _write(options, {weights: net or learner, **(beside or {})})
    total = options.steps if schedule.minutes is None else None
    bar = tqdm(total=total, initial=begin, disable=rank > 0, mininterval=5)
    with Log(options.out / LOG, begin, rank, metric, apart) as log, bar:
        while share < 1:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule.rate(step, share)
            log.add(take(step))
            bar.update()
            step, share = step + 1, schedule.share(step + 1)
            if schedule.writes(step, share):
                if rank == 0:
                    bar.set_postfix_str(log.write(step, validate()))
                    known = options.settings()
                    save_checkpoint(options.out / CHECKPOINT, learner, optimizer, step, known, schedule.spent_s)
                    _write(options, {weights: net or learner, **(beside or {})})
                    log.plot(options.out / "curves.png")
                if world > 1:
                    dist.barrier()
    return options.out / weights


def _write(options: StageOptions, nets: Mapping[str, nn.Module]) -> None:
    for name, net in nets.items():
        save_weights(net, options.out / name, options.settings())


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, world: int) -> Tensor:
    """One step down the gradient, averaged over all processes and cut at norm 1; returns its norm."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [value for group in optimizer.param_groups for value in group["params"] if value.grad is not None]
    if world > 1:
        average_gradients(parameters, world)
    norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return norm


def shares_of(batch: int) -> tuple[int, int]:
    """Rank and number of processes, which share the parts of a step.

    Raises:
        ValueError: They cannot.
    """
    rank, world = join()
    if batch % world:
        raise ValueError(f"batch must be a multiple of the {world} processes, got {batch}")
    return rank, world


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
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: Mapping[str, str],
    spent_s: float = 0.0,
) -> None:
    """Write all that a training goes on from."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for number, values in state.items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
    known = {"step": str(step), "seconds": f"{spent_s:.1f}", "settings": json.dumps(dict(settings))}
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, known)
    part.replace(path)


def load_checkpoint(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, str]
) -> tuple[int, float]:
    """Read it back; returns the step to go on with, and the seconds that were spent.

    Raises:
        ValueError: It was made with other settings.
    """
    with safe_open(regular_file(path), "pt") as file:
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
    return int(known["step"]), float(known.get("seconds", 0.0))


class Log:
    """Losses and validation, as CSV and as a plot; ``metric`` names what the validation gives but for ``apart``."""

    def __init__(self, path: Path, begin: int, rank: int, metric: str = "J", apart: Collection[str] = ()) -> None:
        self._apart = apart
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
        counted = [value for name, value in scores.items() if name not in self._apart]
        mean = f"{np.mean(counted):.4f}" if counted else ""
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
