# SPDX-License-Identifier: Apache-2.0
"""Scores of a run: by frame and object, summed up, and as tables and files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrnn_ros.disk import write_text
from maskrnn_ros.metrics.davis import Convention, statistics
from maskrnn_ros.metrics.temporal import UNSTEADY

Figure = float | int | str | None

SLACK_NAMES = {"slack0": "slack 0", "slack1": "slack 1"}
"""Figures in time by their key, for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectResult:
    """Scores of one object of one sequence.

    Args:
        sequence: Its sequence.
        instance_id: Its id in it.
        j: J of each scored frame.
        f: F of each scored frame.
        t: T of each scored frame and the one before, davis2016 only; None where there is no outline.
        id_switches: See ``identity.Identity``.
        absent: Likewise.
        claimed: Likewise.
    """

    sequence: str
    instance_id: int
    j: tuple[float, ...]
    f: tuple[float, ...]
    t: tuple[float | None, ...]
    id_switches: int
    absent: int
    claimed: int

    def figures(self) -> dict[str, Figure]:
        """One row of the table; fractions 0..1."""
        j, f = statistics(self.j), statistics(self.f)
        return {
            "sequence": self.sequence,
            "id": self.instance_id,
            "jf_mean": (j.mean + f.mean) / 2,
            **{f"j_{key}": value for key, value in dataclasses.asdict(j).items()},
            **{f"f_{key}": value for key, value in dataclasses.asdict(f).items()},
            "t_mean": mean(self.t),
            "id_switches": self.id_switches,
            "absent_false_rate": self.claimed / self.absent if self.absent else None,
            "frames": len(self.j),
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> ObjectResult:
        """The inverse of ``dataclasses.asdict`` and JSON."""
        return ObjectResult(**{**values, **{key: tuple(values[key]) for key in ("j", "f", "t")}})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamingResult:
    """Scores of one sequence that was played in time; slack is that of ``streaming.SLACKS``.

    Args:
        slack0: By id: every frame with the newest masks that were out when it came.
        slack1: By id: likewise when the next one came.
        dropped: Frames without masks of their own.
        frames: Frames played.
        ages_ms: For each frame with masks: from its arrival until they were out, ms.
        fps: Frames per second.
    """

    slack0: tuple[ObjectResult, ...]
    slack1: tuple[ObjectResult, ...]
    dropped: int
    frames: int
    ages_ms: tuple[float, ...]
    fps: float

    @staticmethod
    def from_json(values: dict[str, Any]) -> StreamingResult:
        """The inverse of ``dataclasses.asdict`` and JSON."""
        slacks = {key: tuple(map(ObjectResult.from_json, values[key])) for key in SLACK_NAMES}
        return StreamingResult(**{**values, **slacks, "ages_ms": tuple(values["ages_ms"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineResult:
    """Scores of the node on one sequence: each frame with its own masks, the last ones before where it has none.

    Args:
        objects: By id.
        played: Frames played, the seed's included.
        processed: Those of them with masks of their own.
        rate: Speed of the player, 1 = as recorded.
        ages_ms: For each frame with masks: from its arrival until they were out, ms.
        fps: Frames with masks per second, from the first image to the last masks; None where there are none.
    """

    objects: tuple[ObjectResult, ...]
    played: int
    processed: int
    rate: float
    ages_ms: tuple[float, ...]
    fps: float | None

    def figures(self, without_t: Sequence[str] = ()) -> dict[str, Figure]:
        """The figures for machines: those of a summary, and how it went; fractions 0..1."""
        p50, p95 = np.percentile(self.ages_ms, (50, 95)).tolist() if self.ages_ms else (None, None)
        return {
            **summarise(self.objects, without_t),
            "frames": len(self.objects[0].j),
            "objects": len(self.objects),
            "fps": self.fps,
            "rate": self.rate,
            "played": self.played,
            "processed": self.processed,
            "drop_share": 1 - self.processed / self.played,
            "age_ms_p50": p50,
            "age_ms_p95": p95,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipResult:
    """Scores of one sequence.

    Args:
        sequence: Its name.
        objects: By id.
        frames: Frames scored.
        step_s: Time inside the tracker for all frames but the seed, seconds; None where nothing was tracked.
        streaming: Scores of a second pass, in time; None where there was none.
        online: Scores of the node, which played in time; None where there was none.
    """

    sequence: str
    objects: tuple[ObjectResult, ...]
    frames: int
    step_s: float | None
    streaming: StreamingResult | None = None
    online: OnlineResult | None = None

    @staticmethod
    def from_json(values: dict[str, Any]) -> ClipResult:
        """The inverse of ``dataclasses.asdict`` and JSON."""
        objects, played = tuple(map(ObjectResult.from_json, values["objects"])), values.get("streaming")
        streaming = StreamingResult.from_json(played) if played else None
        return ClipResult(**{**values, "objects": objects, "streaming": streaming})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of all sequences of one row.

    Args:
        convention: How it was scored.
        title: The row: the preset and what it is marked as.
        clips: What is done, in the order asked for.
        missing: Sequences that are not, after Ctrl-C.
        labels: What the values of the label images mean, a line for each thought.
    """

    convention: Convention
    title: str
    clips: tuple[ClipResult, ...]
    missing: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def objects(self) -> tuple[ObjectResult, ...]:
        """All objects."""
        return tuple(found for clip in self.clips for found in clip.objects)

    @property
    def without_t(self) -> tuple[str, ...]:
        """Sequences that the mean of T leaves out as the published tables do."""
        is_2016 = self.convention == "davis2016"
        return tuple(clip.sequence for clip in self.clips if is_2016 and clip.sequence in UNSTEADY)

    def summary(self) -> dict[str, Figure]:
        """Means over objects (in davis2016 there is one for each sequence); switches are summed up."""
        frames, spent = sum(clip.frames for clip in self.clips), [clip.step_s for clip in self.clips]
        seconds = sum(s for s in spent if s is not None) if spent and None not in spent else 0.0
        return {
            **summarise(self.objects, self.without_t),
            "frames": frames,
            "objects": len(self.objects),
            "fps": frames / seconds if seconds else None,
        }

    def streaming(self) -> dict[str, Any] | None:
        """The figures of playing in time, see ``streaming_figures``; None where it was not asked for."""
        return streaming_figures([clip.streaming for clip in self.clips], self.without_t)

    def online(self) -> dict[str, Figure] | None:
        """The figures of the node on a bag; None where it was not asked for."""
        played = [clip.online for clip in self.clips if clip.online]
        return played[0].figures(self.without_t) if played else None  # a bag is one sequence

    def rows(self) -> list[dict[str, Figure]]:
        """A row for each object; J and F in time are further columns, where there are any."""
        found = []
        for clip in self.clips:
            rows = [scores.figures() for scores in clip.objects]
            for key in SLACK_NAMES if clip.streaming else ():
                for row, scores in zip(rows, getattr(clip.streaming, key), strict=True):
                    figures = scores.figures()
                    row |= {f"j_{key}": figures["j_mean"], f"f_{key}": figures["f_mean"]}
            found += rows
        return found

    def sequence_j_mean(self) -> float | None:
        """J as a mean over sequences, the other figure that is given for SegTrack v2."""
        return mean([mean([found.figures()["j_mean"] for found in clip.objects]) for clip in self.clips])

    def to_json(self) -> dict[str, Any]:
        """The figures for machines."""
        return {
            "convention": self.convention,
            "labels": list(self.labels),
            "summary": self.summary(),
            "objects": self.rows(),
            "streaming": self.streaming(),
            "online": self.online(),
        }


def summarise(objects: Sequence[ObjectResult], without_t: Sequence[str] = ()) -> dict[str, Figure]:
    """Means over objects, switches summed up.

    Args:
        objects: The objects.
        without_t: Sequences that the mean of T leaves out.
    """
    rows, absent = [found.figures() for found in objects], sum(found.absent for found in objects)
    measures = ("jf_mean", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
    return {
        **{key: mean(row[key] for row in rows) for key in measures},
        "t_mean": mean(row["t_mean"] for row in rows if row["sequence"] not in without_t),
        "id_switches": sum(found.id_switches for found in objects),
        "absent_false_rate": sum(found.claimed for found in objects) / absent if absent else None,
    }


def streaming_figures(
    results: Sequence[StreamingResult | None], without_t: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Figures over all clips that were played in time; None where there are none, or not all were.

    Returns:
        "fps" (None where clips differ), "slack0" and "slack1" as of ``summarise``, "drop_share" (0..1), "age_ms_p50"
        and "age_ms_p95" (None where no frame got masks).
    """
    played = [result for result in results if result is not None]
    if not played or len(played) < len(results):
        return None
    rates, ages = {result.fps for result in played}, [age for result in played for age in result.ages_ms]
    p50, p95 = np.percentile(ages, (50, 95)).tolist() if ages else (None, None)
    return {
        "fps": rates.pop() if len(rates) == 1 else None,
        "slack0": summarise([found for result in played for found in result.slack0], without_t),
        "slack1": summarise([found for result in played for found in result.slack1], without_t),
        "drop_share": sum(result.dropped for result in played) / sum(result.frames for result in played),
        "age_ms_p50": p50,
        "age_ms_p95": p95,
    }


def flattened(figures: dict[str, Any] | None) -> dict[str, Figure]:
    """The same in one level, for a row of a table: "slack0_j_mean", "streaming_fps"; nothing for None."""
    row: dict[str, Figure] = {}
    for key, value in (figures or {}).items():
        row |= {f"{key}_{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return {"streaming_fps" if key == "fps" else key: value for key, value in row.items()}


def mean(values: Iterable[Any]) -> float | None:
    """Mean of those that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(result: Evaluation) -> str:
    """The scores as text, for people, the convention with them."""
    columns = ("jf_mean", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay", "t_mean")
    width = max(
        [
            *map(len, ("sequence", *SLACK_NAMES.values())),
            *(len(f"{found.sequence} {found.instance_id}") for found in result.objects),
        ]
    )
    names = ("J&F", "J", "recall", "decay", "F", "recall", "decay", "T")
    lines = [f"{'sequence':{width}}  " + " ".join(f"{name:>6}" for name in names) + "  switches  absent"]
    rows = [found.figures() for found in result.objects]
    single = all(len(clip.objects) == 1 for clip in result.clips)
    streaming = result.streaming() or {}
    means = {"mean": result.summary(), **{n: streaming[key] for key, n in SLACK_NAMES.items() if key in streaming}}
    means |= {"online": online} if (online := result.online()) is not None else {}
    for row in [*rows, *({"sequence": name, "id": "", **row} for name, row in means.items())]:
        name = f"{row['sequence']}" if single else f"{row['sequence']} {row['id']}"
        figures = " ".join(f"{show(row[key]):>6}" for key in columns)
        lines.append(f"{name:{width}}  {figures}  {row['id_switches']:>8}  {show(row['absent_false_rate']):>6}")
    return "\n".join([result.title, *lines, *notes(result)])


def notes(result: Evaluation) -> list[str]:
    """What one must know to compare the figures: the convention first."""
    scored = "all frames but the seed" if result.convention == "segtrack2" else "first and last frame not scored"
    lines = [f"convention {result.convention}: {scored}", *result.labels]
    if result.convention == "segtrack2":
        lines.append(f"J is the IoU: mean over objects above, {show(result.sequence_j_mean())} over sequences")
    if result.without_t:
        lines.append(f"T: mean without {', '.join(result.without_t)}, as in the tables of DAVIS-2016")
    fps = result.summary()["fps"]
    if fps is not None:
        lines.append(f"{fps:.1f} scored frames per second inside the tracker")
    streaming = result.streaming()
    if streaming is not None:
        lines.append(streaming_note(streaming))
    online = result.online()
    if online is not None:
        lines.append(
            f"online: at rate {online['rate']:g} the node gave {online['processed']} of {online['played']} frames "
            "masks of their own; the last ones are held for the others"
        )
    return lines


def streaming_note(figures: dict[str, Any]) -> str:
    """One line on how a clip was played and how it went, from ``streaming_figures``."""
    rate = f"{figures['fps']:g} fps" if figures["fps"] else "the rates of the clips"
    ages = "no masks"
    if figures["age_ms_p50"] is not None:
        ages = f"masks out after {figures['age_ms_p50']:.0f} ms (p50), {figures['age_ms_p95']:.0f} ms (p95)"
    return (
        f"played at {rate}: {100 * figures['drop_share']:.1f} % of the frames dropped, {ages}; slack 0 scores what is "
        "out when a frame comes, slack 1 when the next one does"
    )


def show(value: Figure) -> str:
    """A figure with three decimals; "-" where there is none."""
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def write_csv(path: Path, rows: Sequence[dict[str, Figure]]) -> None:
    """Write rows that share their keys; what there is not is an empty field."""
    with io.StringIO(newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, file.getvalue())


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all: a file that is there is complete."""
    write_text(path, json.dumps(values, indent=2) + "\n")
