# SPDX-License-Identifier: Apache-2.0
"""The stream through the real node in two ways, by turns: what something costs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maskrnn_ros.benchmark.soak import Plan, run_soak
from maskrnn_ros.benchmark.soak_report import summary
from maskrnn_ros.config import Config

TURNS = 2

_FIGURES = ("sent", "masks", "dropped_share", "step_ms_p50", "cpu_ms_per_mask", "age_ms")


def by_turns(
    plan: Plan, ways: Mapping[str, Callable[[], contextlib.AbstractContextManager[Config]]], turns: int = TURNS
) -> list[dict[str, Any]]:
    """Run the node in each way, one after the other, some times.

    Args:
        plan: What each run does.
        ways: By name, what is there during a run and the settings of the node.
        turns: How many runs of each.

    Returns:
        For JSON: for each run its ``way`` and figures of its ``summary``.
    """
    rows = []
    for way, present in [*ways.items()] * turns:
        with present() as config:
            found = summary(run_soak(config, plan))
        rows.append({"way": way, **{name: found[name] for name in _FIGURES}})
    return rows


def turns_rows(head: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As lines; ``head`` says what the ways are of."""
    width = max(len(head), *(len(row["way"]) for row in rows))
    lines = [f"{head:>{width}}    sent   masks   dropped  age p50 ms  age p95 ms  step p50 ms  computed ms a mask"]
    for row in rows:
        p50, p95 = row["age_ms"] or (float("nan"), float("nan"))
        lines.append(
            f"{row['way']:>{width}}  {row['sent']:6d}  {row['masks']:6d}  {row['dropped_share']:8.1%}"
            f"  {p50:10.0f}  {p95:10.0f}  {row['step_ms_p50'] or 0:11.1f}  {row['cpu_ms_per_mask']:18.1f}"
        )
    return lines
