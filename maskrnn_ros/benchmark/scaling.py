# SPDX-License-Identifier: Apache-2.0
"""How ms per frame grow with objects and with pixels: straight lines through the runs, and their plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrnn_ros.benchmark.measure import Run

_COLOURS = ("#1f5fa8", "#d1610c", "#2c8a4b", "#8c3f9e", "#8a6d1f", "#b3263a", "#3a8f9b", "#555f6b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Least squares through the p50 of runs that differ in one thing.

    Args:
        of: What the runs share, e.g. "854x480" or "4 objects".
        per: What they differ in: "object" or "megapixel".
        ms_per: Slope: ms for each further one.
        ms_at_0: Where the line begins, ms.
        largest_residual_ms: How far the farthest run is from the line, ms.
        runs: How many there are.
    """

    of: str
    per: str
    ms_per: float
    ms_at_0: float
    largest_residual_ms: float
    runs: int


def megapixels(run: Run) -> float:
    """Size of the images of a run, 10^6 pixels."""
    return run.width * run.height / 1e6


def lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """Lines of ms: against objects for each size, and against megapixels for each number of objects."""
    found = []
    for width, height in dict.fromkeys((run.width, run.height) for run in runs):
        same = [run for run in runs if (run.width, run.height) == (width, height)]
        found.append(_fit(f"{width}x{height}", "object", [(run.objects, run.ms_p50) for run in same]))
    for objects in dict.fromkeys(run.objects for run in runs):
        same = [run for run in runs if run.objects == objects]
        of = f"{objects} object{'s' * (objects > 1)}"
        found.append(_fit(of, "megapixel", [(megapixels(run), run.ms_p50) for run in same]))
    return tuple(line for line in found if line is not None)


def _fit(of: str, per: str, points: Iterable[tuple[float, float]]) -> Line | None:
    x, ms = np.array(list(points)).T
    if np.unique(x).size < 2:
        return None
    slope, start = np.polyfit(x, ms, 1).tolist()
    return Line(
        of=of,
        per=per,
        ms_per=slope,
        ms_at_0=start,
        largest_residual_ms=float(np.abs(ms - (start + slope * x)).max()),
        runs=len(x),
    )


def plot_scaling(runs: Sequence[Run], file: Path) -> None:
    """Draw the p50 of all runs, and p95 as a faint bar above: one line per size, one per number of objects."""
    from matplotlib.figure import Figure

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
