# SPDX-License-Identifier: Apache-2.0
"""The scaling plot: ms against objects and against pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from maskrnn_ros.benchmark.measure import Run
from maskrnn_ros.benchmark.slopes import megapixels

_COLOURS = ("#1f5fa8", "#d1610c", "#2c8a4b", "#8c3f9e", "#8a6d1f", "#b3263a", "#3a8f9b", "#555f6b")


def plot_scaling(runs: Sequence[Run], file: Path) -> None:
    """Draw the p50 of all runs, and p95 as a faint bar above: one line per size, one per number of objects."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sizes = list(dict.fromkeys((run.width, run.height) for run in runs))
    counts = list(dict.fromkeys(run.objects for run in runs))
    for index, (width, height) in enumerate(sizes):
        same = sorted((r for r in runs if (r.width, r.height) == (width, height)), key=lambda r: r.objects)
        _line(left, index, [run.objects for run in same], same, f"{width}x{height}")
    for index, objects in enumerate(counts):
        same = sorted((r for r in runs if r.objects == objects), key=megapixels)
        _line(right, index, [megapixels(run) for run in same], same, f"{objects}")
    left.set(xlabel="objects", ylabel="ms per frame (p50, bar to p95)", xticks=sorted(counts))
    right.set(xlabel="megapixels of the image")
    left.legend(title="image", fontsize=9)
    right.legend(title="objects", fontsize=9)
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        axis.grid(color="#e3e6ea", lw=0.8)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(file, dpi=120)


def _line(axis: Any, index: int, x: Sequence[float], runs: Sequence[Run], label: str) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    p50, p95 = [run.ms_p50 for run in runs], [run.ms_p95 for run in runs]
    axis.plot(x, p50, "o-", color=colour, lw=1.8, ms=5, label=label)
    axis.vlines(x, p50, p95, color=colour, lw=1.2, alpha=0.4)
