# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn evaluate`` does with its arguments."""

from __future__ import annotations

import dataclasses
import math
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from maskrnn_ros import __version__
from maskrnn_ros.bags.topics import IMAGE_TOPIC, TRUTH_TOPIC
from maskrnn_ros.config import Config
from maskrnn_ros.datasets.readers import FPS, Clip, default_convention, find_clips, label_notes, objects_of
from maskrnn_ros.evaluation import ablation
from maskrnn_ros.evaluation.online.score import score_online, write_online
from maskrnn_ros.evaluation.presets import (
    ABLATION,
    PAPER_PRESETS,
    TUNED,
    apply_preset,
    check_network,
    preset_of,
)
from maskrnn_ros.evaluation.report import write_report
from maskrnn_ros.evaluation.results import ClipResult, Evaluation, flattened, table, write_csv, write_json
from maskrnn_ros.evaluation.run import Task, evaluate, predictions_of, prepare_out
from maskrnn_ros.evaluation.scoring import seeds_of
from maskrnn_ros.limits import check_fps
from maskrnn_ros.metrics.davis import Convention, scored_frames
from maskrnn_ros.paper.settings import check_paper
from maskrnn_ros.timeline import TimeRule

if TYPE_CHECKING:
    from maskrnn_ros.evaluation.bag_clip import BagClip

_PACKAGES = ("onnxruntime", "numpy", "opencv-python-headless")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments of the command; see its help.

    Raises:
        ValueError: Some of them do not go together.
    """

    root: Path | None = None
    bag: Path | None = None
    image_topic: str | None = None
    truth_topic: str | None = None
    seed_topic: str | None = None
    ignore_topic: str | None = None
    ignore_masks: Path | None = None
    online: bool = False
    rate: float | None = None
    player: str | None = None
    reader: str = "davis"
    annotations: str | None = None
    sequences: tuple[str, ...] = ()
    split: str = ""
    preset: str | None = None
    profile: str = "fast"
    lookahead: int = 0
    ablate: bool = False
    tuned: bool = False
    config: Config = dataclasses.field(default_factory=Config)
    predictions: Path | None = None
    threshold: int | None = None
    convention: Convention | None = None
    streaming: bool = False
    fps: float | None = None
    workers: int = 1
    out: Path | None = None
    json: Path | None = None
    force: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        self._check_source()
        if self.workers < 1:
            raise ValueError(f"--workers must be >= 1, got {self.workers}")
        if self.predictions is not None and self.preset is not None:
            raise ValueError("--predictions scores existing masks; it cannot be combined with --preset")
        self._check_streaming()
        self._check_ablation()
        self._check_ignored()
        check_network(self.profile, self.lookahead)
        self._check_profile()
        if self.sequences and self.split:
            raise ValueError("give --sequences or --split, not both")
        if self.resume and (self.force or self.out is None):
            raise ValueError("--resume needs --out, and cannot be combined with --force")
        if self.json is not None and self.json.exists() and not (self.force or self.resume):
            raise ValueError(f"{self.json} exists already; give another file or --force")

    def _check_source(self) -> None:
        if (self.root is None) == (self.bag is None):
            raise ValueError(f"expected --root or --bag, found {'neither' if self.root is None else 'both'}")
        of_tree = {
            "--annotations": self.annotations is not None,
            "--sequences": bool(self.sequences),
            "--split": bool(self.split),
            "--reader": self.reader != "davis",
            "--workers": self.workers > 1,
            "--ignore-masks": self.ignore_masks is not None,
        }
        of_bag = {
            "--image-topic": self.image_topic is not None,
            "--truth-topic": self.truth_topic is not None,
            "--seed-topic": self.seed_topic is not None,
            "--ignore-topic": self.ignore_topic is not None,
            "--online": self.online,
        }
        of_online = {"--rate": self.rate is not None, "--player": self.player is not None}
        for name in (name for name, is_given in (of_tree if self.bag else of_bag).items() if is_given):
            raise ValueError(f"{name} is for --root; a bag is one sequence" if self.bag else f"{name} needs --bag")
        for name in (name for name, is_given in of_online.items() if is_given and not self.online):
            raise ValueError(f"{name} needs --online")
        self._check_online()

    def _check_online(self) -> None:
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"--rate must be > 0 and finite, got {self.rate:g}")
        if self.online and self.streaming:
            raise ValueError("--online already scores the node in real time; leave out --streaming")
        if self.online and self.predictions is not None:
            raise ValueError("--online runs the node; it cannot be combined with --predictions")
        if self.online and preset_of(self.preset or "default").follower != "tracker":
            raise ValueError(f"--online runs the node, and the preset {self.preset!r} is not the tracker")

    def _check_streaming(self) -> None:
        if self.fps is not None:
            check_fps(self.fps, "--fps")
        if self.fps is not None and not self.streaming:
            raise ValueError("--fps needs --streaming")
        if self.streaming and self.predictions is not None:
            raise ValueError("--streaming times a tracker; it cannot be combined with --predictions")
        if self.streaming and self.workers > 1:
            raise ValueError(f"--streaming needs --workers 1, got {self.workers}: parallel runs slow each other down")

    def _check_ablation(self) -> None:
        others = {
            "--predictions": self.predictions is not None,
            "--preset": self.preset is not None,
            "--streaming": self.streaming,
            "--online": self.online,
        }
        if self.tuned and not self.ablate:
            raise ValueError("--tuned needs --ablate")
        for name in (name for name, is_given in others.items() if self.ablate and is_given):
            raise ValueError(f"--ablate tracks every row of its table offline; it cannot be combined with {name}")

    def _check_ignored(self) -> None:
        if self.ignore_masks is None and self.ignore_topic is None:
            return
        name = "--ignore-masks" if self.ignore_masks is not None else "--ignore-topic"
        if self.profile == "paper" or preset_of(self.preset or "default").follower != "tracker":
            raise ValueError(f"{name} is for the tracker, and the preset {self.preset!r} is not the tracker")
        if self.predictions is not None:
            raise ValueError(f"{name} is for tracking; it cannot be combined with --predictions")

    def _check_profile(self) -> None:
        if self.profile != "paper":
            return
        if self.preset not in PAPER_PRESETS:
            raise ValueError(f"--profile paper needs --preset {', '.join(PAPER_PRESETS)}, got {self.preset or 'none'}")
        others = {"--streaming": self.streaming, "--online": self.online, "--predictions": self.predictions is not None}
        for name in (name for name, is_given in others.items() if is_given):
            raise ValueError(
                f"--profile paper does not run in the node or in real time; it cannot be combined with {name}"
            )
        check_paper(self.config)


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
