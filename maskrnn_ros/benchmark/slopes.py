# SPDX-License-Identifier: Apache-2.0
"""How ms per frame grow: straight lines through the runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from maskrnn_ros.benchmark.measure import Run


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
