# SPDX-License-Identifier: Apache-2.0
"""One self-contained page that answers where and why it failed: tables, curves, overlays."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from maskrnn_ros.datasets.clips import Clip
from maskrnn_ros.disk import write_text
from maskrnn_ros.evaluation.pages import render
from maskrnn_ros.evaluation.plots import age_histogram, curves
from maskrnn_ros.evaluation.results import SLACK_NAMES, ClipResult, Evaluation, Figure, StreamingResult, notes, show
from maskrnn_ros.evaluation.run import Task, predictions_of
from maskrnn_ros.metrics.davis import Convention, scored_frames
from maskrnn_ros.overlay import overlay_labels
from maskrnn_ros.types import LabelArray, UInt8Array

_TIMES = 4
"""Pictures at fixed times: so many, spread evenly over the clip."""

_WORST = 4
"""Pictures of the worst frames, at least an eighth of the clip apart."""

_WIDTH = 400

_COLUMNS = {
    "jf_mean": "J&F",
    "j_mean": "J",
    "j_recall": "J recall",
    "j_decay": "J decay",
    "f_mean": "F",
    "f_recall": "F recall",
    "f_decay": "F decay",
    "t_mean": "T",
    "id_switches": "switches",
    "absent_false_rate": "absent",
    "frames": "frames",
}


def write_report(path: Path, result: Evaluation, clips: Sequence[Clip], task: Task, versions: dict[str, str]) -> None:
    """Write the page.

    Args:
        path: File to write, .html.
        result: The scores; its clips are those shown.
        clips: Files of the sequences, at least of those scored.
        task: How it was done; the masks are read from ``task.predictions`` or ``task.out``.
        versions: Versions of what ran, by name.
    """
    by_name = {clip.name: clip for clip in clips}
    worst_first = sorted(result.clips, key=lambda found: min(float(np.mean(o.j)) for o in found.objects))
    sections = [
        _section(found, by_name[found.sequence], task) for found in tqdm(worst_first, desc="report", unit="sequence")
    ]
    page = render(
        "report",
        title=f"Evaluation: {(task.row or task.preset) if task.predictions is None else 'predictions'}",
        missing=result.missing,
        notes=(result.title, *notes(result)),
        figures=_figures(result),
        in_time=_in_time(result),
        objects=_objects(result),
        clips=sections,
        settings=[(key, show(value)) for key, value in {**versions, **task.settings()}.items()],
    )
    write_text(path, page)


def _figures(result: Evaluation) -> list[tuple[str, Figure]]:
    names = {"jf_mean": "J&F", "j_mean": "J", "f_mean": "F", "t_mean": "T (less is steadier)"}
    names |= {"id_switches": "switched ids, frames", "absent_false_rate": "claimed while absent"}
    summary = result.summary()
    return [(name, show(summary[key])) for key, name in names.items()]


def _in_time(result: Evaluation) -> dict[str, Any] | None:
    """The figures in time beside the offline ones, and how old the masks were; None where none was asked for."""
    figures = result.streaming()
    if figures is None:
        return None
    columns = {key: name for key, name in _COLUMNS.items() if key != "frames"}
    rows = {"offline": result.summary(), **{name: figures[key] for key, name in SLACK_NAMES.items()}}
    rows |= {"online": online} if (online := result.online()) is not None else {}
    played = [clip.streaming for clip in result.clips if clip.streaming is not None]
    return {
        "head": ("", *columns.values()),
        "rows": [[name, *(show(row[key]) for key in columns)] for name, row in rows.items()],
        "ages": _ages(played, figures["fps"]),
    }


def _ages(played: Sequence[StreamingResult], fps: float | None) -> str:
    """Histogram of the ages of all masks, as a data URL; empty where there is none."""
    ages = [age for result in played for age in result.ages_ms]
    return age_histogram(ages, 1e3 / fps if fps else None) if ages else ""


def _objects(result: Evaluation) -> dict[str, Any]:
    single = all(len(clip.objects) == 1 for clip in result.clips)
    rows = sorted(result.rows(), key=lambda row: float(row["j_mean"] or 0))
    figures, summary = result.streaming(), result.summary()
    columns = dict(_COLUMNS)
    for key, name in SLACK_NAMES.items() if figures else ():
        columns |= {f"j_{key}": f"J {name}", f"f_{key}": f"F {name}"}
        summary |= {f"j_{key}": figures[key]["j_mean"], f"f_{key}": figures[key]["f_mean"]} if figures else {}
    cells: list[Sequence[Figure]] = [
        [row["sequence"] if single else f"{row['sequence']} {row['id']}", *(show(row[key]) for key in columns)]
        for row in rows
    ]
    mean = ["mean", *(show(summary[key]) for key in columns)]
    return {"head": ("object", *columns.values()), "rows": [*cells, mean]}


def _section(found: ClipResult, clip: Clip, task: Task) -> dict[str, Any]:
    j = _over_objects([scores.j for scores in found.objects])
    f = _over_objects([scores.f for scores in found.objects])
    numbers = list(scored_frames(range(len(clip)), task.convention))
    fixed = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, _TIMES).round().astype(int))]
    worst = [numbers[i] for i in worst_frames(j.tolist(), _WORST)]
    masks = predictions_of(clip, task)

    def tiles(chosen: Sequence[int]) -> list[dict[str, str]]:
        return [
            {
                "text": f"frame {number}: J {j[number - numbers[0]]:.2f} F {f[number - numbers[0]]:.2f}",
                "picture": _jpeg(picture(clip, number, masks.ids(number), task.convention)),
            }
            for number in chosen
        ]

    return {
        "name": found.sequence,
        "j": j.mean(),
        "f": f.mean(),
        "frames": len(clip),
        "curves": curves(found.objects, numbers[-1]),
        "worst": tiles(worst),
        "fixed": tiles(fixed),
    }


def _over_objects(series: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Mean over the objects that are scored on a frame; those that begin late lack the first values."""
    longest = max(map(len, series))
    return np.asarray(np.nanmean([[np.nan] * (longest - len(values)) + list(values) for values in series], axis=0))


def worst_frames(values: Sequence[float], count: int) -> list[int]:
    """Places of the smallest values, ascending by place, no two nearer than an eighth of the series.

    >>> worst_frames([0.9, 0.1, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.3], 2)
    [1, 15]
    """
    chosen: list[int] = []
    for place in np.argsort(values, kind="stable").tolist():
        if len(chosen) < count and all(abs(place - other) > len(values) / 8 for other in chosen):
            chosen.append(place)
    return sorted(chosen)


def picture(clip: Clip, number: int, labels: LabelArray | None, convention: Convention) -> UInt8Array:
    """A frame with the masks tinted and the ground truth outlined in white, RGB, uint8 (h, 400, 3).

    Args:
        clip: The sequence.
        number: Number of the frame.
        labels: Its masks, ids, int32 (H, W); None is a frame without.
        convention: As which objects labels count.

    Raises:
        ValueError: A file is no such image.
    """
    image, truth = clip.image(number), clip.truth(number)
    labels = np.zeros_like(truth) if labels is None else labels
    if convention == "davis2016":
        labels, truth = (labels != 0).astype(np.int32), (truth != 0).astype(np.int32)
    size = _WIDTH, max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels, truth = (cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in (labels, truth))
    canvas = overlay_labels(small, labels)
    for instance_id in np.unique(truth[truth != 0]).tolist():
        mask = (truth == instance_id).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), 1)
    return canvas


def _jpeg(image: UInt8Array) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
