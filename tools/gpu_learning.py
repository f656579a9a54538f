# SPDX-License-Identifier: Apache-2.0
"""The checks of ``gpu_check.py`` in which something learns: steps of the trainings, and the ``paper`` profile."""

from __future__ import annotations

import contextlib
import csv
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_bench import QUICK, Bench, Case, Row, run_command
from torch.optim.optimizer import register_optimizer_step_post_hook

from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.model.torch.weights import save_weights
from maskrnn_ros.training.split import read_split
from maskrnn_ros.types import Frame, Seed


def check_training(bench: Bench) -> Iterator[Case]:
    """``maskrnn train``: the decoder from nothing, on from its checkpoint, and the prompt network."""
    data, steps = training_data(bench), bench.extent.training
    out = {name: bench.work / f"trained-{name}" for name in ("decoder", "prompts")}
    yield "decoder", partial(_train, bench, data, out["decoder"], steps, "decoder")
    yield "decoder, resumed", partial(_train, bench, data, out["decoder"], steps + 2, "decoder", "--resume")
    yield "prompts", partial(_train, bench, data, out["prompts"], steps, "prompts", "--validate-on", 2)


def training_data(bench: Bench) -> Path:
    """The clips as a folder of training sets: what the split holds out under other names, and one to validate on."""
    data = bench.work / "sets"
    held_out = read_split().clips[0]
    for clip in bench.clips:
        files = davis_sequence(bench.root, clip.name)
        for name, count in ((f"own-{clip.name}", len(files.frames)), (held_out, 5)):
            for number, frame in enumerate(files.frames[:count]):
                for kind, path in (("JPEGImages", frame), ("Annotations", files.annotations[frame.stem])):
                    place = data / "davis2016_train_288p" / kind / name / path.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place)
                    still = data / "ecssd" / ("images" if kind == "JPEGImages" else "masks") / f"{clip.name}{path.name}"
                    still.parent.mkdir(parents=True, exist_ok=True)
                    if number % 8 == 0:
                        shutil.copyfile(path, still)
    return data


def _train(bench: Bench, data: Path, out: Path, steps: int, what: str, *more: object) -> Row:
    arguments = ["--data", data, "--out", out, "--steps", steps, "--validate-every", steps, "--batch", 2]
    bench.forget_memory()
    with step_ends(bench) as ends:
        seconds = run_command("train", what, *arguments, "--processes", 1, "--device", bench.device, *more)
    return {**_of_training(out, ends), "s in all": seconds, **bench.memory()}


@contextlib.contextmanager
def step_ends(bench: Bench) -> Iterator[list[float]]:
    """When the steps of all optimizers were done on the device, seconds."""
    ends: list[float] = []

    def note(*_: object) -> None:
        bench.wait()
        ends.append(time.perf_counter())

    handle = register_optimizer_step_post_hook(note)
    try:
        yield ends
    finally:
        handle.remove()


def _of_training(out: Path, ends: list[float]) -> Row:
    """Figures of a training.

    Raises:
        ValueError: Its loss is not finite.
    """
    with (out / "log.csv").open(newline="") as file:
        loss = float(list(csv.DictReader(file))[-1]["loss"])
    if not np.isfinite(loss):
        raise ValueError(f"expected a finite loss, got {loss}")
    return {"s a step": float(np.median(np.diff(ends))) if len(ends) > 1 else None, "loss": loss}


def check_paper(bench: Bench) -> Iterator[Case]:
    """The paper profile from random weights: time and memory; J is that of nothing that was trained."""
    if bench.extent is QUICK:
        _narrow()
    from maskrnn_ros.paper.network import PaperNet

    file = bench.work / "paper.safetensors"
    torch.manual_seed(0)
    save_weights(PaperNet(), file)
    yield "stage 1", partial(_train_paper, bench, file, 1)
    yield "stage 2, 7 frames", partial(_train_paper, bench, file, 7)
    yield f"{bench.extent.tuning} iterations, then frames", partial(_follow_paper, bench, file)
    file.unlink()


def _narrow() -> None:
    """Of every layer an eighth or less: in a quick run the path counts, not the figures."""
    from maskrnn_ros.paper import network as paper

    class Small(paper.Localization):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.layers = torch.nn.Sequential(torch.nn.Linear(16 * 49, 32), torch.nn.ReLU())
            self.deltas = torch.nn.Linear(32, 4)

    paper.BLOCKS = ((8, 8), (12, 12), (16, 16, 16), (16, 16, 16), (16, 16, 16))
    paper.Localization = Small


def _train_paper(bench: Bench, weights: Path, length: int) -> Row:
    from maskrnn_ros.paper.training import PaperOptions, train_paper

    bench.forget_memory()
    begin, out = time.perf_counter(), bench.work / "trained"
    is_cuda = bench.device.startswith("cuda")
    options = PaperOptions(
        out=out,
        steps=bench.extent.training,
        length=length,
        batch=1,
        root=bench.root,
        size=bench.extent.paper,
        init=str(weights),
        device=bench.device,
        autocast=is_cuda,
        channels_last=is_cuda,
    )
    with step_ends(bench) as ends:
        train_paper(options)
    row = _of_training(out, ends)
    shutil.rmtree(out)
    return {**row, "s in all": time.perf_counter() - begin, **bench.memory()}


def _follow_paper(bench: Bench, weights: Path) -> Row:
    from maskrnn_ros.paper.follower import PaperFollower

    clip = bench.clips[0]
    values = {
        "adaptation__method": "finetune",
        "adaptation__steps": bench.extent.tuning,
        "adaptation__rate": 1e-5,
        "network__weights": str(weights),
    }
    config = bench.config(working_size=max(bench.extent.paper), **values)
    bench.forget_memory()
    follower, truth = PaperFollower(config), (clip.truth(0) == 1).astype(np.int32)
    follower.seed(Seed(stamp_ns=1, labels=truth), Frame(stamp_ns=1, image=clip.image(0)))
    tuning_s, ms = 0.0, []
    for number in range(1, min(6, len(clip))):
        begin = time.perf_counter()
        labels = follower.step(Frame(stamp_ns=clip.stamp_ns(number), image=clip.image(number)))
        tuning_s += follower.tuning_s
        ms.append((time.perf_counter() - begin - follower.tuning_s) * 1e3)
    j = jaccard(labels == 1, clip.truth(number) == 1)
    return {"fine-tuning s": tuning_s, "ms": float(np.median(ms)), "J of the last": j, **bench.memory()}
