# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn evaluate`` does with its arguments."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from maskrnn_ros import __version__
from maskrnn_ros.config import Config
from maskrnn_ros.evaluation import ablation
from maskrnn_ros.evaluation.metrics import Convention, scored_frames
from maskrnn_ros.evaluation.presets import PRESETS, apply_preset, check_network
from maskrnn_ros.evaluation.readers import Clip, default_convention, find_clips, objects_of
from maskrnn_ros.evaluation.report import write_report
from maskrnn_ros.evaluation.results import Evaluation, table, write_csv, write_json
from maskrnn_ros.evaluation.run import Task, evaluate, prediction_paths, prepare_out

_PACKAGES = ("torch", "numpy", "opencv-python-headless")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments of the command; see its help.

    Raises:
        ValueError: Some of them do not go together.
    """

    root: Path
    reader: str = "davis"
    annotations: str | None = None
    sequences: tuple[str, ...] = ()
    split: str = ""
    preset: str | None = None
    profile: str = "fast"
    lookahead: int = 0
    ablate: bool = False
    config: Config = dataclasses.field(default_factory=Config)
    predictions: Path | None = None
    convention: Convention | None = None
    workers: int = 1
    out: Path | None = None
    json: Path | None = None
    force: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers must be >= 1, got {self.workers}")
        if self.predictions is not None and self.preset is not None:
            raise ValueError("--predictions scores what is there; it does not go with --preset")
        if self.ablate and (self.predictions is not None or self.preset is not None):
            other = "--predictions" if self.predictions is not None else "--preset"
            raise ValueError(f"--ablate tracks every row of its table; it does not go with {other}")
        check_network(self.profile, self.lookahead)
        if self.sequences and self.split:
            raise ValueError("give --sequences or --split, not both")
        if self.resume and (self.force or self.out is None):
            raise ValueError("--resume goes on in the folder --out, and does not go with --force")
        if self.json is not None and self.json.exists() and not (self.force or self.resume):
            raise ValueError(f"{self.json} is there already; give another file or --force")


def run(options: Options) -> int:
    """Check, track, score, tell; returns the exit status, 130 after Ctrl-C.

    Raises:
        ValueError: Something is wrong with the data or the arguments; nothing was overwritten then.
    """
    preset = options.preset or "default"
    config = options.config if options.ablate else apply_preset(preset, options.config)
    clips = find_clips(options.root, options.reader, options.annotations, options.sequences, options.split)
    task = Task(
        convention=_check(clips, options),
        preset=preset,
        config=config,
        source=f"{options.root.resolve()} {options.annotations or ''} {options.reader}",
        predictions=options.predictions,
        out=options.out,
    )
    for clip in clips:
        objects_of(clip.truth(0), task.convention)
        scored_frames(range(len(clip)), task.convention)
        if task.predictions is not None:
            prediction_paths(clip, task)
    if options.ablate:
        return _ablate(clips, task, options)
    prepare_out(task, force=options.force, resume=options.resume)
    result = evaluate(clips, task, options.workers)
    if result.clips:
        print(table(result))
        _write(result, clips, task, options)
    return _end(result, options)


def _ablate(clips: Sequence[Clip], task: Task, options: Options) -> int:
    def write_row(result: Evaluation, own: Task) -> None:
        _write(result, clips, own, dataclasses.replace(options, out=own.out, json=None))

    ablation.prepare(task, force=options.force, resume=options.resume)
    found = ablation.ablate(clips, task, options.workers, write_row)
    if found.last is not None:
        print(ablation.table(found))
        if options.json is not None:
            write_json(options.json, found.to_json())
        if options.out is not None:
            print(*ablation.write_files(options.out, found), sep="\n")
    missing = ablation.interruption(found, task)
    if missing:
        print(missing, file=sys.stderr)
    return 130 if missing else 0


def _check(clips: Sequence[Clip], options: Options) -> Convention:
    values = frozenset[int]().union(*(clip.check() for clip in clips))
    return options.convention or default_convention(values, options.reader)


def _write(result: Evaluation, clips: Sequence[Clip], task: Task, options: Options) -> None:
    if options.json is not None:
        write_json(options.json, result.to_json())
    out = options.out
    if out is None:
        return
    kind = ablation.MARKED if task.row else "predictions" if task.predictions is not None else PRESETS[task.preset].kind
    row = {
        "preset": (task.row or task.preset) if task.predictions is None else "-",
        "marked": kind,
        "convention": task.convention,
    }
    write_csv(out / "summary.csv", [{**row, **result.summary()}])
    write_csv(out / "per_object.csv", [found.figures() for found in result.objects])
    write_report(out / "report.html", result, clips, task, _versions())
    print(out / "report.html")


def _end(result: Evaluation, options: Options) -> int:
    if not result.missing:
        return 0
    done, total = len(result.clips), len(result.clips) + len(result.missing)
    hint = "; --resume goes on" if options.out is not None else ""
    missing = ", ".join(result.missing)
    print(f"interrupted: {done} of {total} sequences are done, missing are {missing}{hint}", file=sys.stderr)
    return 130


def _versions() -> dict[str, str]:
    found = {"maskrnn_ros": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # OpenCV has several names
            continue
    return found
