# SPDX-License-Identifier: Apache-2.0
"""Track sequences, or read what was predicted for them, and score it against the ground truth."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from maskrnn_ros import __version__
from maskrnn_ros.config import Config, to_flat
from maskrnn_ros.datasets.clips import Clip, frame_of
from maskrnn_ros.datasets.frames import check_size
from maskrnn_ros.evaluation.followers import build_follower
from maskrnn_ros.evaluation.node_paced import stream_node
from maskrnn_ros.evaluation.paced import stream_clip
from maskrnn_ros.evaluation.presets import preset_of
from maskrnn_ros.evaluation.results import ClipResult, Evaluation, StreamingResult, write_json
from maskrnn_ros.evaluation.scoring import ClipScorer, seeds_of
from maskrnn_ros.labels import LabelFiles, values_of, write_labels
from maskrnn_ros.metrics.davis import Convention, scored_frames
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.types import LabelArray

STATE = ".evaluate"
"""Folder in OUT with what is done, for ``--resume``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """How every sequence of a run is done.

    Args:
        convention: How it is scored.
        preset: Name of the row.
        profile: Which networks follow: "fast" or "paper".
        row: Name of a row of the ablation, whose values are in the config; its preset is "default".
        config: All settings, those of the preset in them.
        source: Which data set, for people and for ``--resume``.
        predictions: Folder of ``<sequence>/<stem>.png`` to score; None tracks.
        threshold: For soft masks and probability maps of one object, see ``labels.read_labels``.
        out: Folder for masks and what is done; None keeps neither.
        fps: Frames per second at which each clip is played a second time; None does not. Those masks are scored, not
            written.
    """

    convention: Convention
    preset: str
    config: Config
    profile: str = "fast"
    row: str | None = None
    source: str = ""
    predictions: Path | None = None
    threshold: int | None = None
    out: Path | None = None
    fps: float | None = None

    @property
    def title(self) -> str:
        """Name of the row and what it is marked as."""
        if self.predictions is not None:
            return f"predictions of {self.predictions}"
        if self.row is not None:
            return f"{self.row} (switched: a row of the ablation)"
        if self.profile == "paper":
            return f"{self.preset} (paper profile, switched: the paper's own networks, without look-ahead)"
        return f"{self.preset} ({preset_of(self.preset).kind}: {preset_of(self.preset).text})"

    def settings(self) -> dict[str, Any]:
        """What decides the result."""
        predictions = str(self.predictions.resolve()) if self.predictions else None
        own = {"version": __version__, "convention": self.convention, "preset": self.preset, "profile": self.profile}
        more = {"threshold": self.threshold, "streaming.fps": self.fps}
        return {**own, "source": self.source, "predictions": predictions, **more, **to_flat(self.config)}


def evaluate_clip(clip: Clip, task: Task, advance: Callable[[], object] = lambda: None) -> ClipResult:
    """Score one sequence.

    Args:
        clip: The sequence.
        task: How.
        advance: Called after every frame of each pass.

    Raises:
        ValueError: A file is no such image, or one of another size or with ids that are not the first annotation's.
    """
    scorer = ClipScorer(clip, task.convention)
    read = _tracked if task.predictions is None else _predicted
    step_s: float | None = None
    for number, (labels, seconds) in enumerate(read(clip, task)):
        scorer.add(labels)
        if seconds is not None:
            step_s = (step_s or 0.0) + (seconds if number else 0.0)
        advance()
    objects = scorer.objects()
    return ClipResult(
        sequence=clip.name,
        objects=objects,
        frames=len(objects[0].j),
        step_s=step_s,
        streaming=_streamed(clip, task, task.fps, advance) if task.fps is not None else None,
    )


def _streamed(clip: Clip, task: Task, fps: float, advance: Callable[[], object]) -> StreamingResult:
    """The clip once more, in time: as in the node, or where the node has no such preset, by a new follower."""
    name = preset_of(task.preset).follower
    if runs_in_node(name, task):
        return stream_node(clip, task.convention, task.config, fps, advance)
    return stream_clip(clip, task.convention, lambda: build_follower(name, task.config, task.profile), fps, advance)


def runs_in_node(follower: str, task: Task) -> bool:
    """Whether what follows is the node's tracker."""
    return follower == "tracker" and task.profile != "paper"


def _tracked(clip: Clip, task: Task) -> Iterator[tuple[LabelArray, float | None]]:
    """Labels of every frame, and the time that they took inside the follower, seconds; None where nothing is done."""
    set_threads(task.config.threads)
    follower = build_follower(preset_of(task.preset).follower, task.config, task.profile)
    is_timed = preset_of(task.preset).follower != "static"
    folder = task.out / clip.name if task.out else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    seeds = seeds_of(clip, task.convention)
    for number in range(len(clip)):
        frame = frame_of(clip, number)
        if not number:
            check_size(f"ground truth of {clip.place(0)}", seeds[0].size, "the image", frame.size)
        begin = time.perf_counter()
        labels = follower.seed(seeds[number], frame) if number in seeds else follower.step(frame)
        seconds = time.perf_counter() - begin - getattr(follower, "tuning_s", 0.0)
        if folder:
            write_labels(folder / f"{clip.stem(number)}.png", labels)
        yield labels, seconds if is_timed else None


def _predicted(clip: Clip, task: Task) -> Iterator[tuple[LabelArray, None]]:
    """Labels of every frame from files; frames that are not scored need none."""
    files = predictions_of(clip, task)
    known = {0, *clip.starts}
    for number, path in enumerate(files.paths):
        truth, labels = clip.truth(number), files.ids(number)
        if path is None or labels is None:
            yield np.zeros_like(truth), None
            continue
        check_size(path, labels.shape, f"the ground truth of {clip.place(number)}", truth.shape)
        extra = [] if task.convention == "davis2016" else sorted(set(values_of(labels)) - known)
        if extra:
            expected = ", ".join(map(str, sorted(known - {0})))
            raise ValueError(f"{path}: expected ids {expected} of the annotations, found {extra[0]}")
        yield labels, None


def predictions_of(clip: Clip, task: Task) -> LabelFiles:
    """The masks of a sequence from files, their values by the rule of the ground truth.

    Raises:
        ValueError: A scored frame has none, one is no label image, or it is not clear which object the masks are of.
    """
    files = LabelFiles(prediction_paths(clip, task), task.threshold)
    is_one = files.rule.meaning == "object" or files.rule.threshold is not None
    if is_one and task.convention != "davis2016" and set(clip.starts) != {1}:
        expected = ", ".join(map(str, clip.starts))
        place = files.paths[files.starts[1]] if files.starts else clip.name
        raise ValueError(
            f"{place}: expected ids {expected} of the annotations, found masks of one object without an id"
        )
    return files


def prediction_paths(clip: Clip, task: Task) -> list[Path | None]:
    """Files with the masks of a sequence, None for frames that have none and are not scored.

    Raises:
        ValueError: A scored frame has none.
    """
    folder = task.predictions or task.out
    assert folder is not None
    if not (folder / clip.name).is_dir():
        raise ValueError(f"expected predictions in {folder / clip.name}, found no such folder")
    paths = [folder / clip.name / f"{clip.stem(number)}.png" for number in range(len(clip))]
    absent = [path for path in scored_frames(paths, task.convention) if not path.is_file()]
    if absent:
        raise ValueError(f"expected a mask for every scored frame, found no {absent[0]} (and {len(absent) - 1} more)")
    return [path if path.is_file() else None for path in paths]


def prepare_out(task: Task, *, force: bool, resume: bool) -> None:
    """Make the folder of the results, or see what is in it.

    Raises:
        ValueError: It holds other things, and neither ``force`` nor ``resume`` says what to do with them.
    """
    out = task.out
    if out is None:
        return
    file = out / STATE / "settings.json"
    if task.predictions is not None and task.predictions.resolve() == out.resolve():
        raise ValueError(f"{out} holds the predictions; give another folder for the results")
    if resume and file.is_file():
        before, now = json.loads(file.read_text()), task.settings()
        other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if other:
            key = other[0]
            raise ValueError(f"{out}: --resume expected {key} = {before.get(key)!r}, found {now.get(key)!r}")
        return
    if out.exists() and any(out.iterdir()) and not force:
        raise ValueError(f"{out} is not empty; give another folder, --force, or --resume what was begun there")
    shutil.rmtree(out / STATE, ignore_errors=True)
    file.parent.mkdir(parents=True)
    write_json(file, task.settings())


def evaluate(clips: Sequence[Clip], task: Task, workers: int = 1) -> Evaluation:
    """Score sequences, several at a time if need be; what is done already in ``task.out`` is taken from there.

    Ctrl-C ends it early: the result then holds what is done and names what is missing.

    Raises:
        ValueError: See ``evaluate_clip``.
    """
    done = {clip.name: found for clip in clips if (found := _known(clip, task)) is not None}
    todo = [clip for clip in clips if clip.name not in done]
    frames = sum(len(clip) for clip in clips)
    skipped = sum(len(clip) for clip in clips if clip.name in done)
    passes = 1 if task.fps is None else 2
    with tqdm(total=passes * frames, initial=passes * skipped, desc=task.row or task.preset, unit="frame") as bar:
        try:
            for result in _serial(todo, task, bar) if workers == 1 else _parallel(todo, task, workers, bar):
                done[result.sequence] = result
                if task.out:
                    write_json(_state_file(result.sequence, task.out), dataclasses.asdict(result))
        except KeyboardInterrupt:
            bar.set_postfix_str("interrupted")
    return Evaluation(
        convention=task.convention,
        title=task.title,
        clips=tuple(done[clip.name] for clip in clips if clip.name in done),
        missing=tuple(clip.name for clip in clips if clip.name not in done),
    )


def _state_file(sequence: str, out: Path) -> Path:
    return out / STATE / f"sequence-{sequence}.json"


def _known(clip: Clip, task: Task) -> ClipResult | None:
    file = _state_file(clip.name, task.out) if task.out else None
    return ClipResult.from_json(json.loads(file.read_text())) if file is not None and file.is_file() else None


def _serial(clips: Sequence[Clip], task: Task, bar: Any) -> Iterator[ClipResult]:
    for clip in clips:
        bar.set_postfix_str(clip.name)
        yield evaluate_clip(clip, task, bar.update)


def _parallel(clips: Sequence[Clip], task: Task, workers: int, bar: Any) -> Iterator[ClipResult]:
    threads = task.config.threads or max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with context.Pool(min(workers, len(clips)) or 1, _begin_worker, (threads,)) as pool:
        frames = {clip.name: len(clip) for clip in clips}
        for result in pool.imap_unordered(_Work(task), clips):
            bar.update(frames[result.sequence])
            yield result


def _begin_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that collects
    set_threads(threads)


@dataclasses.dataclass(frozen=True)
class _Work:
    task: Task

    def __call__(self, clip: Clip) -> ClipResult:
        return evaluate_clip(clip, self.task)
