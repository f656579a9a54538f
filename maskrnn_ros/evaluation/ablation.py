# SPDX-License-Identifier: Apache-2.0
"""What each part of the method gives: the rows of the paper's ablation, one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskrnn_ros.datasets.clips import Clip
from maskrnn_ros.disk import write_text
from maskrnn_ros.evaluation.pages import render
from maskrnn_ros.evaluation.presets import ABLATION, AblationRow, ablation_configs, ablation_rows
from maskrnn_ros.evaluation.results import Evaluation, Figure, notes, show, write_csv
from maskrnn_ros.evaluation.run import STATE, Task, evaluate, prepare_out

MARKED = "switched"
"""What the measured rows are marked as: parts are switched by config values, nothing is trained for a row."""

_COLUMNS = {"jf_mean": "J&F", "j_mean": "J", "f_mean": "F", "t_mean": "T"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row of the table.

    Args:
        row: What it is.
        result: Its scores; None where nothing was measured.
        reason: Why it was not measured, or not on all sequences; empty where it was.
    """

    row: AblationRow
    result: Evaluation | None
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """It was measured on all sequences, so that it can be compared."""
        return self.result is not None and not self.result.missing

    @property
    def remark(self) -> str:
        """What stands beside its figures."""
        return self.reason or self.row.note


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """Scores of all rows.

    Args:
        rows: In the order of the table.
    """

    rows: tuple[RowResult, ...]

    @property
    def last(self) -> Evaluation | None:
        """Scores of the last row that was measured."""
        return next((found.result for found in reversed(self.rows) if found.result is not None), None)

    def gains(self) -> list[float | None]:
        """For each row its J&F less that of the last measured row before; None where one of the two is not whole."""
        gains: list[float | None] = []
        before: float | None = None
        for found in self.rows:
            now = _jf(found)
            gains.append(None if now is None or before is None else now - before)
            before = now if now is not None else before
        return gains

    def to_json(self) -> dict[str, Any]:
        """The figures of the last measured row, and the table.

        Raises:
            ValueError: Nothing was measured.
        """
        if self.last is None:
            raise ValueError("expected a measured row, found none")
        rows = [
            {
                "row": found.row.name,
                "marked": MARKED if found.result is not None else None,
                "summary": found.result.summary() if found.result is not None else None,
                "reason": found.reason or None,
            }
            for found in self.rows
        ]
        return {**self.last.to_json(), "ablation": rows}


def ablate(
    clips: Sequence[Clip],
    task: Task,
    workers: int,
    write_row: Callable[[Evaluation, Task], None],
    rows: Sequence[AblationRow] = ABLATION,
) -> Ablation:
    """Track and score all rows that can be; what is done already below ``task.out`` is taken from there.

    Ctrl-C ends it early: rows that are not whole then say so.

    Args:
        clips: The sequences.
        task: How; its config is that which the rows change, each row gets a folder in ``task.out``, see ``prepare``.
        workers: Sequences at a time.
        write_row: Called with every row that was measured, and its task, if there is a ``task.out``.
        rows: The rows.

    Raises:
        ValueError: See ``run.evaluate_clip``.
    """
    found: list[RowResult] = []
    is_interrupted = False
    for row, own in zip(ablation_rows(task.config, rows), _tasks(task, rows), strict=True):
        if own is None:
            found.append(RowResult(row=row, result=None, reason=f"needs {row.missing}"))
            continue
        result = None if is_interrupted else evaluate(clips, own, workers)
        is_interrupted = result is None or bool(result.missing)
        if result is None or not result.clips:
            found.append(RowResult(row=row, result=None, reason="interrupted"))
            continue
        if own.out is not None:
            write_row(result, own)
        missing = f"interrupted: missing are {', '.join(result.missing)}" if result.missing else ""
        found.append(RowResult(row=row, result=result, reason=missing))
    return Ablation(rows=tuple(found))


def prepare(task: Task, *, force: bool, resume: bool, rows: Sequence[AblationRow] = ABLATION) -> None:
    """Make the folders of all rows in ``task.out``, or see what is in them.

    Raises:
        ValueError: It holds other things, and neither ``force`` nor ``resume`` says what to do with them.
    """
    out = task.out
    if out is None:
        return
    tasks = [own for own in _tasks(task, rows) if own is not None and own.out is not None]
    is_begun = any(own.out is not None and (own.out / STATE).is_dir() for own in tasks)
    if out.exists() and any(out.iterdir()) and not force and not (resume and is_begun):
        raise ValueError(f"{out} is not empty; give another folder, --force, or --resume an ablation begun there")
    for own in tasks:
        prepare_out(own, force=force, resume=resume)


def table(found: Ablation) -> str:
    """The table as text, for people, the convention with it."""
    width = max(len(row.row.name) for row in found.rows)
    lines = [f"{'ablation':{width}}  " + " ".join(f"{name:>6}" for name in (*_COLUMNS.values(), "gain"))]
    for row, gain in zip(found.rows, found.gains(), strict=True):
        cells = " ".join(f"{cell:>6}" for cell in _cells(row, gain))
        lines.append(f"{row.row.name:{width}}  {cells}  {row.remark}".rstrip())
    return "\n".join([*lines, *_notes(found)])


def write_files(out: Path, found: Ablation) -> list[Path]:
    """Write ``ablation.csv`` and ``report.html``, the page that leads to those of the rows; returns their paths."""
    rows: list[dict[str, Figure]] = []
    blank = dict.fromkeys(found.last.summary()) if found.last is not None else {}
    for row, gain in zip(found.rows, found.gains(), strict=True):
        figures = row.result.summary() if row.result is not None else blank
        marked = MARKED if row.result is not None else None
        rows.append({"row": row.row.name, "marked": marked, **figures, "gain": gain, "reason": row.reason})
    paths = [out / "ablation.csv", out / "report.html"]
    write_csv(paths[0], rows)
    page = render(
        "ablation",
        title="Ablation",
        notes=_notes(found),
        head=("row", *_COLUMNS.values(), "gain", ""),
        rows=_page_rows(found),
        objects=_objects(found),
    )
    write_text(paths[1], page)
    return paths


def interruption(found: Ablation, task: Task) -> str:
    """What is missing after Ctrl-C, one line; empty where all is done."""
    part = [row for row in found.rows if row.row.missing is None]
    missing = [row.row.name for row in part if not row.is_whole]
    if not missing:
        return ""
    hint = "; --resume goes on" if task.out is not None else ""
    done = len(part) - len(missing)
    return f"interrupted: {done} of {len(part)} rows are done, missing are {', '.join(missing)}{hint}"


def _tasks(task: Task, rows: Sequence[AblationRow]) -> list[Task | None]:
    """For each row its task; None where a part is missing."""
    return [
        None
        if config is None
        else dataclasses.replace(task, row=row.name, config=config, out=task.out / row.slug if task.out else None)
        for row, config in zip(rows, ablation_configs(task.config, rows), strict=True)
    ]


def _jf(found: RowResult) -> float | None:
    value = found.result.summary()["jf_mean"] if found.result is not None and found.is_whole else None
    return value if isinstance(value, float) else None


def _cells(found: RowResult, gain: float | None) -> list[str]:
    summary = found.result.summary() if found.result is not None else dict.fromkeys(_COLUMNS)
    return [*(show(summary[key]) for key in _COLUMNS), "-" if gain is None else f"{gain:+.3f}"]


def _notes(found: Ablation) -> list[str]:
    """As of one row, but for its speed, which differs; and what the rows are marked as."""
    lines = []
    if found.last is not None:
        untimed = tuple(dataclasses.replace(clip, step_s=None) for clip in found.last.clips)
        lines = notes(dataclasses.replace(found.last, clips=untimed))
    return [*lines, f"measured rows are {MARKED}: parts of the one tracker, nothing is trained for a row"]


def _page_rows(found: Ablation) -> list[dict[str, Any]]:
    return [
        {
            "name": row.row.name,
            "link": f"{row.row.slug}/report.html" if row.result is not None else "",
            "cells": _cells(row, gain),
            "remark": row.remark,
        }
        for row, gain in zip(found.rows, found.gains(), strict=True)
    ]


def _objects(found: Ablation) -> dict[str, Any]:
    """J of every object, a column for each measured row: where a part helps, and where it does harm."""
    results = [(row.row.name, row.result) for row in found.rows if row.result is not None]
    by_row = [{(o.sequence, o.instance_id): o.figures()["j_mean"] for o in result.objects} for _, result in results]
    keys = dict.fromkeys(key for figures in by_row for key in figures)
    return {
        "head": ("object", *(name for name, _ in results)),
        "rows": [
            [f"{sequence} {number}", *(show(figures.get((sequence, number))) for figures in by_row)]
            for sequence, number in keys
        ],
    }
