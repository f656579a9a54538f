# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn evaluate`` and ``maskrnn train score`` are asked for: their flags, and what does not go together."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

from maskrnn_ros.arguments import THRESHOLD, config_flag, flag, names
from maskrnn_ros.config import Config
from maskrnn_ros.evaluation.presets import PAPER_PRESETS, PRESETS, preset_of
from maskrnn_ros.limits import check_fps
from maskrnn_ros.metrics.davis import Convention
from maskrnn_ros.paper.settings import check_paper


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Arguments of ``maskrnn train score``."""

    root: Path = flag(help="data set in the layout of DAVIS, one that nothing was trained on")
    sequences: tuple[str, ...] = flag((), help="clips; default all", metavar="A,B,...", read=names)
    annotations: str | None = flag(
        None, help="folder with an id for every object; default: all nonzero is one object", metavar="NAME"
    )
    config: Config = config_flag("ROS parameter file of the tracker")
    fit: bool = flag(False, help="print constants fitted to these clips")
    plot: Path | None = flag(None, help="draw J against the score", metavar="FILE.png")
    keep: Path | None = flag(None, help="save what was tracked, or read it if the file exists", metavar="FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments of ``maskrnn evaluate``.

    Raises:
        ValueError: Some of them do not go together.
    """

    root: Path | None = flag(None, help="data set: folder with JPEGImages/ and the annotations")
    bag: Path | None = flag(None, help="instead of a data set: a bag with images, ground truth and a seed")
    image_topic: str | None = flag(
        None, help="in the bag; default /camera/image_raw, raw or compressed", metavar="TOPIC"
    )
    truth_topic: str | None = flag(None, help="in the bag; default /camera/ground_truth", metavar="TOPIC")
    seed_topic: str | None = flag(
        None, help="in the bag; default /camera/seed_mask, else the first ground truth", metavar="TOPIC"
    )
    ignore_topic: str | None = flag(
        None, help="in the bag; default /camera/ignore_mask, if there is one", metavar="TOPIC"
    )
    ignore_masks: Path | None = flag(
        None, help="with --root: DIR/<sequence>/<frame's stem>.png, see track", metavar="DIR"
    )
    online: bool = flag(False, help="with --bag: also play it to the real node in real time")
    rate: float | None = flag(None, help="with --online: playback speed; default 1, as recorded", metavar="R")
    player: Literal["maskrnn", "ros2bag"] | None = flag(None, help="with --online: the player; default maskrnn")
    reader: Literal["davis", "segtrack"] = flag("davis", help="layout of the data set")
    annotations: str | None = flag(
        None, help="folder in ROOT; default Annotations, for segtrack GroundTruth", metavar="DIR"
    )
    sequences: tuple[str, ...] = flag(
        (), help="names of sequences, separated by commas; default all", metavar="A,B", read=names
    )
    split: str = flag("", help="sequences of ImageSets/NAME.txt", metavar="NAME")
    preset: str | None = flag(None, help=f"{', '.join(PRESETS)}, or package.module:factory; default: default")
    profile: Literal["fast", "paper"] = flag("fast", help="paper: the networks of the paper, see docs/paper.md")
    ablate: bool = flag(False, help="one table with the contribution of each part; tracks once per row")
    tuned: bool = flag(False, help="with --ablate: with fine-tuning, or the target model, from row 1 on")
    config: Config = config_flag()
    predictions: Path | None = flag(None, help="do not track, score DIR/<sequence>/<frame's stem>.png", metavar="DIR")
    threshold: int | None = flag(None, help=THRESHOLD, metavar="N")
    convention: Convention | None = flag(None, help="default: chosen by the ids in the annotations")
    streaming: bool = flag(False, help="also play every clip in real time and score the masks that were ready")
    fps: float | None = flag(
        None, help="with --streaming: frames per second; default 24, for a bag its own rate", metavar="F"
    )
    workers: int = flag(1, help="sequences in parallel", metavar="N")
    out: Path | None = flag(None, help="folder for masks, summary.csv, per_object.csv and report.html", metavar="DIR")
    force: bool = flag(False, help="overwrite DIR and FILE")
    resume: bool = flag(False, help="continue an interrupted evaluation in DIR")
    json: Path | None = flag(None, help="write the results as JSON", metavar="FILE")

    def __post_init__(self) -> None:
        self._check_source()
        if self.workers < 1:
            raise ValueError(f"--workers must be >= 1, got {self.workers}")
        if self.predictions is not None and self.preset is not None:
            raise ValueError("--predictions scores existing masks; it cannot be combined with --preset")
        self._check_streaming()
        self._check_ablation()
        self._check_ignored()
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
