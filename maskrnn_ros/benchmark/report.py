# SPDX-License-Identifier: Apache-2.0
"""Everything that one call of the benchmark found: for machines as JSON, for readers as tables."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maskrnn_ros import __version__
from maskrnn_ros.benchmark.calls import Calls
from maskrnn_ros.benchmark.first_mask import SeedRun
from maskrnn_ros.benchmark.measure import Run
from maskrnn_ros.benchmark.memory import MemoryRun
from maskrnn_ros.benchmark.scaling import Line, lines
from maskrnn_ros.disk import write_text
from maskrnn_ros.model.load import sees_cuda


@dataclasses.dataclass(kw_only=True)
class Report:
    """Grows while the benchmark runs; what was not asked for is None.

    Args:
        runs: One for each number of objects and size.
        calls: Calls of Python, one for each number of objects.
        ros: What ``maskrnn_ros.benchmark.latency`` measured.
        memory: Over many frames.
        cycles: Over many instances.
        seed: Time from a seed to the first mask.
        services: What ``maskrnn_ros.benchmark.services`` measured.
        cameras: What ``maskrnn_ros.benchmark.cameras`` measured.
        soak: What ``maskrnn_ros.benchmark.soak_report.as_json`` gives.
        persistence: What ``maskrnn_ros.benchmark.persistence`` measured: ``write`` and ``stream``.
        clicks: What ``maskrnn_ros.benchmark.clicks`` measured.
    """

    runs: list[Run] = dataclasses.field(default_factory=list)
    calls: list[Calls] | None = None
    ros: dict[str, Any] | None = None
    memory: MemoryRun | None = None
    cycles: MemoryRun | None = None
    seed: SeedRun | None = None
    services: dict[str, Any] | None = None
    cameras: list[dict[str, Any]] | None = None
    soak: dict[str, Any] | None = None
    persistence: dict[str, Any] | None = None
    clicks: list[dict[str, Any]] | None = None

    def write(self, file: Path | None) -> None:
        """Write what there is so far, so that Ctrl-C loses nothing."""
        if file is None:
            return
        content = {"machine": machine(), "slopes": lines_of(self.runs), **dataclasses.asdict(self)}
        write_text(file, json.dumps(content, indent=2) + "\n")


def lines_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The slopes, for JSON."""
    return [dataclasses.asdict(line) for line in lines(runs)]


def machine() -> dict[str, Any]:
    """Where this runs: figures mean nothing without it."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "torch": _version("torch"),
        "maskrnn_ros": __version__,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    if not sees_cuda("auto"):
        return None
    import torch

    return torch.cuda.get_device_name(0)


def _cpu() -> str:
    try:
        entries = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (entry.partition(":")[2].strip() for entry in entries if entry.startswith("model name"))
    return next(names, platform.machine())


_COLUMNS = (
    ("size", 9),
    ("objects", 7),
    ("engine", 11),
    ("p50 ms", 7),
    ("p95 ms", 7),
    ("frames/s", 8),
    ("RSS MB", 7),
)


def head(runs: Iterable[str]) -> str:
    """The head of the table of runs, with its stages."""
    stages = "  ".join(f"{name:>8}" for name in runs)
    return "  ".join(f"{name:>{width}}" for name, width in _COLUMNS) + "  " + stages + "  not TRACKING"


def row(run: Run) -> str:
    """A run as a row of the table."""
    cells = (
        f"{run.width}x{run.height}",
        f"{run.objects}",
        run.engine,
        f"{run.ms_p50:.1f}",
        f"{run.ms_p95:.1f}",
        f"{run.fps:.1f}",
        f"{run.rss_mb:.0f}",
    )
    start = "  ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    stages = "  ".join(f"{'-':>8}" if ms is None else f"{ms:8.1f}" for ms in run.stages.values())
    return f"{start}  {stages}  {f'{run.not_tracking} of {run.frames}':>12}"


def line_row(line: Line) -> str:
    """A slope in words."""
    return (
        f"{line.of:>10}: {line.ms_per:6.2f} ms for each further {line.per}, from {line.ms_at_0:.1f} ms at 0; the "
        f"farthest of {line.runs} runs is {line.largest_residual_ms:.1f} ms off the line"
    )


def memory_row(run: MemoryRun) -> str:
    """What memory did, in words."""
    per = "1000 frames" if run.what == "frames" else "100 cycles"
    lost = f"; not all TRACKING on {run.not_tracking} frames" if run.not_tracking else ""
    return (
        f"memory over {run.count} {run.what} ({run.width}x{run.height}, {run.objects} objects): RSS {run.first_mb:.0f} "
        f"MB at first, {run.last_mb:.0f} at last, {run.peak_mb:.0f} at most, {run.slope_mb:+.2f} MB for {per} (of it "
        f"{run.images_mb:.0f} MB images of the scene, {run.buffer_mb:.0f} MB buffer for late seeds){lost}"
    )


def ros_rows(ros: dict[str, Any]) -> list[str]:
    """The latency through topics, as a table."""
    rows = [
        f"camera to mask through topics, {ros['width']}x{ros['height']}, {ros['objects']} objects "
        f"({ros['image_bytes'] / 1e6:.2f} MB an image, {ros['message_bytes_p50'] / 1e3:.1f} kB an InstanceMaskArray)",
        "    Hz    sent  received   dropped   by flow  age p50 ms  age p95 ms  not TRACKING",
    ]
    for rate in ros["rates"]:
        ages = (rate["age_ms_p50"], rate["age_ms_p95"])
        old = "  ".join(f"{'-':>10}" if age is None else f"{age:10.1f}" for age in ages)
        rows.append(
            f"{rate['hz']:6g}  {rate['sent']:6d}  {rate['received']:8d}  {rate['dropped_share']:8.1%}  "
            f"{rate['propagated_share']:8.1%}  {old}  {rate['not_tracking']:12d}"
        )
    highest = ros["highest_hz"]
    rows.append(f"highest rate with less than 1 % dropped: {'none of these' if highest is None else f'{highest:g} Hz'}")
    return rows
