# SPDX-License-Identifier: Apache-2.0
"""How long a training is, by steps or by the clock; what its steps see, drawn ahead."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_bench import write_data

from maskrnn_ros import cli
from maskrnn_ros.training import flow, runs, windows
from maskrnn_ros.training.ahead import drawn
from maskrnn_ros.training.runs import CHECKPOINT, Schedule, load_checkpoint, rate_factor, train_steps
from maskrnn_ros.training.sources import DrawOptions
from maskrnn_ros.training.windows import Draws, filled, join, learning_trunk


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass(frozen=True)
class Options:
    out: Path
    steps: int = 4
    validate_every: int = 2
    resume: bool = False

    def settings(self) -> dict[str, str]:
        return {"of": "a test"}


def train(options: Options, minutes: float | None, clock: Clock, seconds: float) -> list[float]:
    """Train a line by steps that take so many seconds; returns the learning rates."""
    learner, rates = torch.nn.Linear(1, 1), list[float]()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1.0)

    def take(step: int) -> dict[str, float]:
        clock.now += seconds
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        learner(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        return {"loss": float(step)}

    schedule = Schedule(options.steps, minutes, options.validate_every, clock=clock)
    train_steps(options, learner, optimizer, take, "weights.safetensors", schedule=schedule)
    return rates


def steps_of_log(options: Options) -> list[int]:
    with (options.out / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_without_a_time_the_steps_decide(tmp_path: Path) -> None:
    options = Options(tmp_path)
    assert train(options, None, Clock(), 1000.0) == [rate_factor(step, 4) for step in range(4)]
    assert steps_of_log(options) == [2, 4]


def test_with_a_time_the_clock_decides_and_the_rate_follows_it(tmp_path: Path) -> None:
    options = Options(tmp_path)
    rates = train(options, 10.0, Clock(), 30.0)
    assert len(rates) == 20, "600 s of steps of 30 s, whatever options.steps says"
    assert rates[10] == pytest.approx(rate_factor(5000, 10_000)) and rates[1:] == sorted(rates[1:], reverse=True)
    assert steps_of_log(options) == [4, 8, 12, 16, 20], "every two minutes"


def test_a_resumed_training_has_the_rest_of_its_time(tmp_path: Path) -> None:
    options = Options(tmp_path)
    train(options, 4.0, Clock(), 30.0)
    learner = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(learner.parameters())
    step, spent_s = load_checkpoint(tmp_path / CHECKPOINT, learner, optimizer, options.settings())
    assert (step, spent_s) == (8, 240.0)
    again = dataclasses.replace(options, resume=True)
    assert len(train(again, 10.0, Clock(), 30.0)) == 12
    (tmp_path / "weights.safetensors").unlink()
    assert train(again, 10.0, Clock(), 30.0) == [], "its time is up"
    weights = load_file(tmp_path / "weights.safetensors")
    assert torch.equal(weights["weight"], load_file(tmp_path / CHECKPOINT)["net.weight"]), "a checkpoint gives weights"


def test_a_slow_step_ends_the_training_with_a_checkpoint(tmp_path: Path) -> None:
    options = Options(tmp_path)
    assert len(train(options, 1.0, Clock(), 500.0)) == 1
    assert steps_of_log(options) == [1] and (tmp_path / "weights.safetensors").exists()


def test_processes_that_a_training_does_not_share_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="this training takes 1 process, got 2 of torchrun"):
        train(Options(tmp_path / "out"), None, Clock(), 1.0)
    assert not (tmp_path / "out").exists(), "each would write over what the other wrote"


def squares() -> Callable[[int], tuple[int, torch.Tensor]]:
    return lambda key: (key, torch.tensor(key * key))


@pytest.mark.parametrize("processes", [0, 2])
def test_what_is_drawn_ahead_comes_in_the_order_of_its_keys(processes: int) -> None:
    keys = iter(range(3, 9))
    found = drawn(squares, keys, processes)
    assert [(int(key), int(value)) for key, value in found] == [(k, k * k) for k in range(3, 9)]


def test_features_of_a_whole_step_are_those_of_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "SIZE", (96, 128))
    options = DrawOptions(data=write_data(tmp_path, size=2))
    whole = join([Draws(options).draw(number, 1) for number in (0, 1)])
    bare = Draws(dataclasses.replace(options, has_features=False))
    without = join([bare.draw(number, 1) for number in (0, 1)])
    assert not without.columns.numel() and torch.equal(without.flow, whole.flow)
    found = filled(without, learning_trunk("shipped", torch.device("cpu")))
    for field in dataclasses.fields(whole):
        one, other = getattr(whole, field.name), getattr(found, field.name)
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


def test_threads_of_a_training_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(runs, "set_threads", given.append)
    monkeypatch.setattr(flow, "train_flow", lambda options: options.out)
    for words in ([], ["--threads", "3"]):
        assert cli.main(["train", "flow", "--out", "O", *words]) == 0
    assert given == [0, 3, 3]
