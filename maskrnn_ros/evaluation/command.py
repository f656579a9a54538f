# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn evaluate`` does with its arguments."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from maskrnn_ros import __version__
from maskrnn_ros.bags.topics import IMAGE_TOPIC, TRUTH_TOPIC
from maskrnn_ros.datasets.clips import Clip, default_convention, label_notes, objects_of
from maskrnn_ros.datasets.frames import FPS
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.evaluation import ablation
from maskrnn_ros.evaluation.online.score import score_online, write_online
from maskrnn_ros.evaluation.options import Options
from maskrnn_ros.evaluation.presets import (
    ABLATION,
    TUNED,
    apply_preset,
    preset_of,
)
from maskrnn_ros.evaluation.report import write_report
from maskrnn_ros.evaluation.results import ClipResult, Evaluation, flattened, table, write_csv, write_json
from maskrnn_ros.evaluation.run import Task, evaluate, predictions_of, prepare_out
from maskrnn_ros.evaluation.scoring import seeds_of
from maskrnn_ros.metrics.davis import Convention, scored_frames
from maskrnn_ros.timeline import TimeRule

if TYPE_CHECKING:
    from maskrnn_ros.evaluation.bag_clip import BagClip

_PACKAGES = ("onnxruntime", "numpy", "opencv-python-headless")


def run(options: Options) -> int:
    """Check, track, score, tell; returns the exit status, 130 after Ctrl-C.

    Raises:
        ValueError: Something is wrong with the data or the arguments; nothing was overwritten then.
    """
    if options.bag is None:
        assert options.root is not None
        return _run(
            find_clips(
                options.root,
                options.reader,
                options.annotations,
                options.sequences,
                options.split,
                mono16_bits=options.config.mono16_bits,
                threshold=options.threshold,
                ignore_masks=options.ignore_masks,
            ),
            options,
        )
    from maskrnn_ros.evaluation.bag_clip import BagClip  # needs rosbags, which files do not

    image_topic, truth_topic = options.image_topic or IMAGE_TOPIC, options.truth_topic or TRUTH_TOPIC
    rule, bits = TimeRule.of(options.config), options.config.mono16_bits
    ignore = options.ignore_topic, options.config.ignore_mask_timeout
    with BagClip(options.bag, image_topic, truth_topic, options.seed_topic, rule, bits, *ignore) as clip:
        for line in clip.notes:
            print(line)
        return _run([clip], options, clip)


def _run(clips: Sequence[Clip], options: Options, bag: BagClip | None = None) -> int:
    preset = options.preset or "default"
    config = options.config if options.ablate else apply_preset(preset, options.config)
    task = Task(
        convention=_check(clips, options),
        preset=preset,
        profile=options.profile,
        config=config,
        source=_source(options),
        predictions=options.predictions,
        threshold=options.threshold,
        out=options.out,
        fps=_fps(options, bag) if options.streaming else None,
    )
    for clip in clips:
        objects_of(clip.truth(0), task.convention)
        scored_frames(range(len(clip)), task.convention)
    labels = label_notes(clips, task.convention)
    if task.predictions is not None:
        texts = dict.fromkeys(predictions_of(clip, task).rule.text for clip in clips)
        labels += [f"predictions: {text}" for text in texts]
    if options.ablate:
        status = _ablate(clips, task, options)
        print(*labels, sep="\n")
        return status
    play = _online(bag, task, options) if bag is not None and options.online else None
    prepare_out(task, force=options.force, resume=options.resume)
    result = dataclasses.replace(evaluate(clips, task, options.workers), labels=tuple(labels))
    failure = ""
    if play is not None and result.clips:
        try:
            result = dataclasses.replace(result, clips=(play(result.clips[0]),))
        except KeyboardInterrupt:  # the offline scores are done
            result = dataclasses.replace(result, missing=(f"{result.clips[0].sequence} online",))
        except RuntimeError as error:  # likewise
            failure = str(error)
    if result.clips:
        print(table(result))
        _write(result, clips, task, options)
    if failure:
        print(f"maskrnn evaluate: no online scores, those above are the offline ones: {failure}", file=sys.stderr)
        return 1
    return _end(result, options)


def _source(options: Options) -> str:
    if options.bag is not None:
        topics = options.image_topic, options.truth_topic, options.seed_topic, options.ignore_topic
        return " ".join([str(options.bag.resolve()), *(topic or "" for topic in topics)])
    assert options.root is not None
    ignored = "" if options.ignore_masks is None else f" without {options.ignore_masks.resolve()}"
    return f"{options.root.resolve()} {options.annotations or ''} {options.reader}{ignored}"


def _online(bag: BagClip, task: Task, options: Options) -> Callable[[ClipResult], ClipResult]:
    """Adds the scores of the node to those of the bag; what is missing for it is said before anything is done."""
    from maskrnn_ros.evaluation.online.play import check_online, run_online  # needs ROS

    player = options.player or "maskrnn"
    config = task.config
    check_online(bag, config, player)

    def play(found: ClipResult) -> ClipResult:
        seed = seeds_of(bag, task.convention)[0]
        played = run_online(bag, seed, config, rate=1.0 if options.rate is None else options.rate, player=player)
        if task.out is not None:
            write_online(bag, task.convention, played, task.out / "online" / bag.name)
        streaming, online = score_online(bag, task.convention, played)
        return dataclasses.replace(found, streaming=streaming, online=online)

    return play


def _fps(options: Options, bag: BagClip | None) -> float:
    return options.fps or (1 / bag.period_s if bag is not None and bag.period_s else FPS)


def _ablate(clips: Sequence[Clip], task: Task, options: Options) -> int:
    def write_row(result: Evaluation, own: Task) -> None:
        _write(result, clips, own, dataclasses.replace(options, out=own.out, json=None))

    rows = TUNED if options.tuned else ABLATION
    ablation.prepare(task, force=options.force, resume=options.resume, rows=rows)
    found = ablation.ablate(clips, task, options.workers, write_row, rows)
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
    tracked = ablation.MARKED if task.row else preset_of(task.preset).kind
    kind = "predictions" if task.predictions is not None and not task.row else tracked
    row = {
        "preset": (task.row or task.preset) if task.predictions is None else "-",
        "marked": kind,
        "convention": task.convention,
    }
    online = {f"online_{key}": value for key, value in (result.online() or {}).items()}
    write_csv(out / "summary.csv", [{**row, **result.summary(), **flattened(result.streaming()), **online}])
    write_csv(out / "per_object.csv", result.rows())
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
