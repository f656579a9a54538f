# SPDX-License-Identifier: Apache-2.0
"""One self-contained page that answers where and why it failed: tables, curves, overlays."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from maskrnn_ros.disk import write_text
from maskrnn_ros.evaluation.metrics import Convention, scored_frames
from maskrnn_ros.evaluation.plots import age_histogram, curves
from maskrnn_ros.evaluation.readers import Clip
from maskrnn_ros.evaluation.results import SLACK_NAMES, ClipResult, Evaluation, Figure, StreamingResult, notes, show
from maskrnn_ros.evaluation.run import Task, predictions_of
from maskrnn_ros.overlay import overlay_labels
from maskrnn_ros.types import LabelArray, UInt8Array

_TIMES = 4
"""Pictures at fixed times: so many, spread evenly over the clip."""

_WORST = 4
"""Pictures of the worst frames, at least an eighth of the clip apart."""

_WIDTH = 400

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.45 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 72rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
p { margin: .3rem 0; } .note { color: #4a535d; }
.warn { background: #fff3cd; padding: .5rem .75rem; border-radius: .4rem; }
.big { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; }
.big div { background: #f3f5f7; border-radius: .5rem; padding: .5rem .9rem; flex: 1 0 5.5rem; }
.big b { display: block; font-size: 1.5rem; } .big span { color: #4a535d; font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e2e6ea; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody tr:last-child { font-weight: 600; } .plain tbody tr:last-child { font-weight: inherit; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem; }
figure { margin: 0; } figcaption { font-size: .8rem; color: #4a535d; }
img { max-width: 100%; height: auto; display: block; border-radius: .25rem; }
summary { cursor: pointer; padding: .3rem 0; }
details table td { text-align: left; }
@media (min-width: 48rem) { .sheet { grid-template-columns: repeat(4, 1fr); } }
</style></head><body>
<h1>$title</h1>
$head
$streaming
<h2>Objects</h2>
<p class="note">Worst first.</p>
<div class="scroll">$objects</div>
$clips
<h2>Settings</h2>
<details><summary>Versions and all settings</summary><div class="scroll">$settings</div></details>
</body></html>
""")

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
    page = _PAGE.substitute(
        title=html.escape(f"Evaluation: {(task.row or task.preset) if task.predictions is None else 'predictions'}"),
        head=_head(result),
        streaming=_streaming(result),
        objects=_objects(result),
        clips="\n".join(sections),
        settings=_table(("", ""), [(key, show(value)) for key, value in {**versions, **task.settings()}.items()]),
    )
    write_text(path, page)


def _head(result: Evaluation) -> str:
    summary = result.summary()
    lines = [f'<p class="note">{html.escape(line)}</p>' for line in (result.title, *notes(result))]
    if result.missing:
        lines.insert(0, f'<p class="warn">Interrupted. Missing: {html.escape(", ".join(result.missing))}</p>')
    names = {"jf_mean": "J&F", "j_mean": "J", "f_mean": "F", "t_mean": "T (less is steadier)"}
    names |= {"id_switches": "switched ids, frames", "absent_false_rate": "claimed while absent"}
    boxes = [f"<div><b>{show(summary[key])}</b><span>{html.escape(name)}</span></div>" for key, name in names.items()]
    return f'{"".join(lines)}<div class="big">{"".join(boxes)}</div>'


def _streaming(result: Evaluation) -> str:
    """The figures in time beside the offline ones, and how old the masks were; nothing where none was asked for."""
    figures = result.streaming()
    if figures is None:
        return ""
    columns = {key: name for key, name in _COLUMNS.items() if key != "frames"}
    rows = {"offline": result.summary(), **{name: figures[key] for key, name in SLACK_NAMES.items()}}
    rows |= {"online": online} if (online := result.online()) is not None else {}
    cells = [[name, *(show(row[key]) for key in columns)] for name, row in rows.items()]
    table = _table(("", *columns.values()), cells)
    played = [clip.streaming for clip in result.clips if clip.streaming is not None]
    return f'<h2>In time</h2><div class="scroll plain">{table}</div>{_ages(played, figures["fps"])}'


def _ages(played: Sequence[StreamingResult], fps: float | None) -> str:
    """Histogram of the ages of all masks."""
    ages = [age for result in played for age in result.ages_ms]
    if not ages:
        return ""
    picture = age_histogram(ages, 1e3 / fps if fps else None)
    return f'<img alt="Histogram of the age of the masks, ms" src="{picture}">'


def _objects(result: Evaluation) -> str:
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
    return _table(("object", *columns.values()), [*cells, ["mean", *(show(summary[key]) for key in columns)]])


def _table(head: Iterable[Figure], rows: Iterable[Iterable[Figure]]) -> str:
    def line(tag: str, cells: Iterable[Figure]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"


def _section(found: ClipResult, clip: Clip, task: Task) -> str:
    j = _over_objects([scores.j for scores in found.objects])
    f = _over_objects([scores.f for scores in found.objects])
    numbers = list(scored_frames(range(len(clip)), task.convention))
    fixed = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, _TIMES).round().astype(int))]
    worst = [numbers[i] for i in worst_frames(j.tolist(), _WORST)]
    masks = predictions_of(clip, task)

    def sheet(chosen: Sequence[int]) -> str:
        tiles = []
        for number in chosen:
            values = f"frame {number}: J {j[number - numbers[0]]:.2f} F {f[number - numbers[0]]:.2f}"
            tile = _jpeg(picture(clip, number, masks.ids(number), task.convention))
            tiles.append(f'<figure><img alt="{values}" src="{tile}"><figcaption>{values}</figcaption></figure>')
        return f'<div class="sheet">{"".join(tiles)}</div>'

    name = html.escape(found.sequence)
    return (
        f'<h2>{name}</h2><p class="note">J {j.mean():.3f}, F {f.mean():.3f}, {len(clip)} frames. '
        "Tinted: the prediction; white line: the ground truth.</p>"
        f'<img alt="J and F of {name} over time" src="{curves(found.objects, numbers[-1])}">'
        f"<h3>Worst frames</h3>{sheet(worst)}<h3>Over time</h3>{sheet(fixed)}"
    )


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
