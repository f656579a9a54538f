# SPDX-License-Identifier: Apache-2.0
"""The checks of ``gpu_check.py``: each yields cases, and a case returns a row of figures or raises."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from gpu_bench import SAME_FLOW, Bench, Case, Row, Skipped, compared, follow, reference, run_command
from gpu_engines import check_engine
from gpu_learning import check_paper, check_training

from maskrnn_ros.benchmark.measure import all_tracking
from maskrnn_ros.benchmark.report import machine
from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.config import settings
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.flow import build_flow
from maskrnn_ros.labels import read_labels
from maskrnn_ros.sections import FlowConfig
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.stages import Stages
from maskrnn_ros.types import Frame, Seed


def check_machine(bench: Bench) -> Iterator[Case]:
    """What this is."""
    yield "machine", lambda: _machine(bench)


def _machine(bench: Bench) -> Row:
    found = {**machine(), "date": datetime.date.today().isoformat(), "device": bench.device}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with contextlib.suppress(ImportError):
        import onnxruntime

        found["onnxruntime"] = f"{onnxruntime.__version__} {' '.join(onnxruntime.get_available_providers())}"
    if bench.device.startswith("cuda"):
        card = torch.cuda.get_device_properties(bench.device)
        found |= {
            "card MB": card.total_memory / 1e6,
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
            "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
            "C compiler": shutil.which("gcc") or shutil.which("cc") or "none",
        }
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            found["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return found


def check_precision(bench: Bench) -> Iterator[Case]:
    """Masks of the device beside those of the CPU, in all precisions of torch."""
    for precision in ("float32", "float16"):
        for clip in bench.clips:
            yield f"{precision}, {clip.name}", partial(compared, bench, clip, precision=precision)


def check_cpu(bench: Bench) -> Iterator[Case]:
    """What ``precision`` compares with; it begins with the last clip while that begins with the first."""
    for clip in reversed(bench.clips):
        yield clip.name, lambda clip=clip: {"J&F": reference(bench, clip, SAME_FLOW)[0]}


_RAFT_AIMS = (4, 64)
"""Objects for which there is an aim with RAFT."""


def check_times(bench: Bench) -> Iterator[Case]:
    """Times per frame in the steady state, by objects and size; with flownet, and at the largest size with RAFT."""
    largest = bench.extent.sizes[-1]
    aims = [count for count in bench.extent.objects if count in _RAFT_AIMS] or list(bench.extent.objects)
    yield from _scenes(bench, "flownet", largest, bench.extent.objects)
    yield from _scenes(bench, "raft", largest, aims)
    for size in bench.extent.sizes[:-1]:
        yield from _scenes(bench, "flownet", size, bench.extent.objects)
    yield from _scenes(bench, "flownet", largest, aims, precision="float16")


def check_more(bench: Bench) -> Iterator[Case]:
    """What else takes time: further sizes, and RAFT-large, whose weights are random."""
    for size in bench.extent.more:
        yield from _scenes(bench, "flownet", size, bench.extent.objects)
    large = {"backend": "raft", "raft": "large", "weights": bench.raft_weights("large")}
    yield "raft, large", partial(flow_times, bench, large)


def _scenes(
    bench: Bench, backend: str, size: tuple[int, int], objects: Sequence[int], precision: str = "float32"
) -> Iterator[Case]:
    changes = {"flow__backend": backend, "precision": precision}
    if backend == "raft":
        changes["flow__weights"] = bench.raft_weights("small")
    for count in objects:
        case = f"{backend}, {count} objects, {size[0]}x{size[1]}"
        case += "" if precision == "float32" else f", {precision}"
        yield case, partial(steady, bench, (*size, count), changes)


def steady(bench: Bench, scene: tuple[int, int, int], changes: Row) -> Row:
    """Times of a scene (w, h, objects), by stage, and the memory that it takes."""
    drawn = Scene(*scene)
    images = [drawn.image(number) for number in range(6)]
    images += images[-2:0:-1]  # to and fro
    tracker = build_tracker(bench.config(**changes))
    tracker.seed(Seed(stamp_ns=1, labels=drawn.labels(0)), Frame(stamp_ns=1, image=images[0]))
    steps = _steps(tracker, images)
    for _ in range(5):
        next(steps)
    bench.wait()
    bench.forget_memory()
    ms, lost = [], 0
    for _ in range(bench.extent.steps):
        begin = time.perf_counter()
        tracks = next(steps)
        bench.wait()
        ms.append((time.perf_counter() - begin) * 1e3)
        lost += not all_tracking(tracks, scene[2])
    memory = bench.memory()
    tracker.stages, stages = Waiting(bench), list[Row]()
    for _ in range(min(5, bench.extent.steps)):
        tracker.stages.take()
        next(steps)
        stages.append(tracker.stages.take())
    by_stage = {f"{name} ms": float(np.median([one[name] for one in stages])) for name in stages[0]}
    p50, p95 = np.percentile(ms, (50, 95)).tolist()
    return {"ms": p50, "p95 ms": p95, **by_stage, **memory, "frames not TRACKING": lost}


def _steps(tracker: Tracker, images: list[np.ndarray]) -> Iterator[Any]:
    number = 0
    while True:
        number += 1
        stamp = 1 + number * 41_666_667
        yield tracker.step(Frame(stamp_ns=stamp, image=images[number % len(images)]))


class Waiting(Stages):
    """Stages that wait for the device, so that each has its own time; together they take longer than without."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """See ``Stages``."""
        self._bench.wait()
        with super().time(stage):
            yield
            self._bench.wait()


def check_copies(bench: Bench) -> Iterator[Case]:
    """What goes between host and device while a frame is worked on."""
    for objects in sorted({*bench.extent.objects[:2], bench.extent.objects[-1]}):
        yield f"{objects} objects", partial(copies, bench, objects)


def copies(bench: Bench, objects: int) -> Row:
    """Transfers of one step, by torch's profiler."""
    drawn = Scene(*bench.extent.sizes[0], objects)
    tracker = build_tracker(bench.config(flow__backend="flownet"))
    tracker.seed(Seed(stamp_ns=1, labels=drawn.labels(0)), Frame(stamp_ns=1, image=drawn.image(0)))
    steps = _steps(tracker, [drawn.image(number) for number in (0, 1, 2, 1)])
    for _ in range(3):
        next(steps)
    bench.wait()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.startswith("cuda"):
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        next(steps)
        bench.wait()
    file = bench.work / f"trace-{objects}.json"
    profile.export_chrome_trace(str(file))
    return transfers(json.loads(file.read_text()))


SMALL_BYTES = 64
"""At most so much is a number that is read, or a few of them."""


def transfers(trace: Row) -> Row:
    """Copies, kernels and waits of a trace in Chrome's format; small copies are single numbers.

    >>> transfers({"traceEvents": [{"name": "Memcpy DtoH (Device -> Pageable)", "args": {"bytes": 4}}]})["numbers down"]
    1
    """
    found: Row = {"up": 0, "down": 0, "numbers up": 0, "numbers down": 0, "up bytes": 0, "down bytes": 0}
    found |= {"kernels": 0, "kernels ms": 0.0, "waits": 0}
    for event in trace["traceEvents"]:
        name, size = event.get("name", ""), event.get("args", {}).get("bytes", 0)
        if event.get("cat") == "kernel":
            found["kernels"] += 1
            found["kernels ms"] += event.get("dur", 0.0) / 1e3
        found["waits"] += name in ("cudaStreamSynchronize", "cudaDeviceSynchronize")
        for kind, way in (("Memcpy HtoD", "up"), ("Memcpy DtoH", "down")):
            if name.startswith(kind):
                found[way if size > SMALL_BYTES else f"numbers {way}"] += 1
                found[f"{way} bytes"] += size
    return found


def check_flow(bench: Bench) -> Iterator[Case]:
    """The backends: ms for a pair of images, and J&F of the masks with those that have weights."""
    raft = {"backend": "raft"}
    backends: dict[str, Row] = {
        "dis": {"backend": "dis"},
        "flownet": {"backend": "flownet"},
        "raft, small": {**raft, "weights": bench.raft_weights("small")},
    }
    for name, values in backends.items():
        yield name, partial(flow_times, bench, values)
    for name, values in backends.items():
        if "weights" not in values or (name == "raft, small" and bench.raft is not None):
            changes = {f"flow__{key}": value for key, value in values.items()}
            for clip in bench.clips:
                yield (
                    f"{name}, {clip.name}",
                    lambda clip=clip, changes=changes: follow(bench, clip, bench.config(**changes))[0],
                )


def flow_times(bench: Bench, values: Row) -> Row:
    """Time of a pair, images and flow on the CPU as the tracker has them, by size."""
    clip = bench.clips[0]
    estimator = build_flow(FlowConfig(**values), bench.device)
    row: Row = {"weights": "random" if Path(values.get("weights", "")).name.startswith("random") else "own"}
    for size in bench.extent.flow_sizes:
        current, previous = (np.asarray(cv2.resize(clip.image(k), size), np.uint8) for k in (1, 0))
        ms = []
        for _ in range(3 + bench.extent.steps):
            begin = time.perf_counter()
            estimator(current, previous.copy())  # another image each time: all remember the newest
            bench.wait()
            ms.append((time.perf_counter() - begin) * 1e3)
        row[f"{size[0]}x{size[1]} ms"] = float(np.median(ms[3:]))
    return row


def check_commands(bench: Bench) -> Iterator[Case]:
    """``maskrnn track`` and ``maskrnn evaluate`` with the device."""
    yield "track", partial(_track, bench)
    yield "evaluate", partial(_evaluate, bench)


def _parameters(bench: Bench) -> str:
    lines = [f"    {name}: {value}" for name, value in {"device": bench.device, **bench.extent.values}.items()]
    file = bench.work / "device.yaml"
    file.write_text("\n".join(["/**:", "  ros__parameters:", *lines]) + "\n")
    return str(file)


def _track(bench: Bench) -> Row:
    clip, out = bench.clips[0], bench.work / "tracked"
    files = davis_sequence(bench.root, clip.name)
    seed = files.annotations[files.frames[0].stem]
    config = _parameters(bench)
    seconds = run_command(
        "track", "--frames", files.frames[0].parent, "--seed-mask", seed, "--out", out, "--config", config
    )
    last = read_labels(out / f"{files.frames[-1].stem}.png")
    return {"s": seconds, "objects on the last frame": len(np.unique(last)) - 1}


def _evaluate(bench: Bench) -> Row:
    out = bench.work / "evaluated"
    seconds = run_command("evaluate", "--root", bench.root, "--config", _parameters(bench), "--out", out, "--force")
    with (out / "per_object.csv").open(newline="") as file:
        j = [float(row["j_mean"]) for row in csv.DictReader(file)]
    return {"s": seconds, "objects": len(j), "J": float(np.mean(j))}


def check_onnxruntime(bench: Bench) -> Iterator[Case]:
    """``engine: onnxruntime`` with the providers that are there."""
    for provider in ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"):
        if provider.startswith("CPU") is not bench.device.startswith("cuda"):
            yield provider, partial(_with_onnxruntime, bench, provider)


def _with_onnxruntime(bench: Bench, provider: str) -> Row:
    try:
        import onnxruntime
    except ImportError as error:
        raise Skipped(f"no onnxruntime: {error}") from error
    there = onnxruntime.get_available_providers()
    if provider not in there:
        raise Skipped(f"onnxruntime {onnxruntime.__version__} has {', '.join(there)}")
    only = [provider, "CPUExecutionProvider"]
    known, onnxruntime.get_available_providers = onnxruntime.get_available_providers, lambda: only
    try:
        return compared(bench, bench.clips[0], engine="onnxruntime", precision="float32")
    finally:
        onnxruntime.get_available_providers = known


def check_compile(bench: Bench) -> Iterator[Case]:
    """``torch.compile``, and CUDA graphs; on a CPU without making code, which takes minutes there."""
    choices = next((known.choices for name, _, known in settings() if name == "compile"), ())
    for mode in ("default", "reduce-overhead"):
        for precision in ("float32", "float16"):
            if mode in choices:
                yield f"{mode}, {precision}", partial(_compiled, bench, mode, precision)


def _compiled(bench: Bench, mode: str, precision: str) -> Row:
    if bench.device.startswith("cuda"):
        if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
            raise Skipped("Triton needs a C compiler, and there is none")
        return compared(bench, bench.clips[0], compile=mode, precision=precision)
    real = torch.compile
    torch.compile = lambda function, mode: real(function, backend="eager")
    try:
        return compared(bench, bench.clips[0], compile=mode, precision=precision)
    finally:
        torch.compile = real


CHECKS: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "machine": check_machine,
    "precision": check_precision,
    "cpu": check_cpu,
    "engine": check_engine,
    "training": check_training,
    "times": check_times,
    "copies": check_copies,
    "flow": check_flow,
    "commands": check_commands,
    "more": check_more,
    "paper": check_paper,
    "onnxruntime": check_onnxruntime,
    "compile": check_compile,
}
"""By name; ``gpu_check.PHASES`` says in what order."""
