# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn bag`` is asked for; the functions behind it have their defaults from here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from maskrnn_ros.arguments import THRESHOLD, flag
from maskrnn_ros.bags.topics import IGNORE_TOPIC, IMAGE_TOPIC, SEED_TOPIC, TRUTH_TOPIC


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromDavisOptions:
    """Arguments of ``maskrnn bag from-davis``."""

    root: Path = flag(help="data set: folder with JPEGImages/ and the annotations")
    sequence: str = flag(help="name of the sequence")
    out: Path = flag(help="folder of the new bag", metavar="BAG")
    annotations: str = flag("Annotations", help="folder of the annotations in ROOT", metavar="DIR")
    fps: float = flag(24.0, help="frames per second")
    compressed: bool = flag(False, help="write CompressedImage with the JPEG files unchanged")
    storage: Literal["mcap", "sqlite3"] = flag("mcap", help="format of the bag")
    image_topic: str = flag(IMAGE_TOPIC, help="topic of the images")
    truth_topic: str = flag(TRUTH_TOPIC, help="topic of the ground truth")
    seed_topic: str = flag(SEED_TOPIC, help="topic of the seed")
    overwrite: bool = flag(False, help="replace BAG")
    threshold: int | None = flag(None, help=THRESHOLD, metavar="N")
    json: Path | None = flag(None, help="write the results as JSON", metavar="FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToFramesOptions:
    """Arguments of ``maskrnn bag to-frames``."""

    bag: Path = flag(help="folder of the bag, or a .mcap or .db3 file", metavar="BAG", positional=True)
    out: Path = flag(help="new folder for 00000.png, ...", metavar="DIR")
    image_topic: str = flag(IMAGE_TOPIC, help="topic of the images, raw or compressed")
    every: int = flag(1, help="keep every N-th image", metavar="N")
    json: Path | None = flag(None, help="write the results as JSON", metavar="FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """Arguments of ``maskrnn bag play``."""

    bag: Path = flag(help="folder of the bag, or a .mcap or .db3 file", metavar="BAG", positional=True)
    rate: float = flag(1.0, help="playback speed, 1 = as recorded")
    lockstep: bool = flag(False, help="wait for the masks of each image before the next one")
    tracker: str = flag("/tracker", help="name of the tracker node, for --lockstep")
    remap: tuple[str, ...] = flag((), help="publish under other topic names", metavar="FROM:=TO", many="*")
    image_topic: str = flag(IMAGE_TOPIC, help="topic of the images in the bag")
    seed_topic: str = flag(SEED_TOPIC, help="topic of the seeds in the bag")
    ignore_topic: str = flag(IGNORE_TOPIC, help="topic of the ignore masks in the bag")
    topics: tuple[str, ...] | None = flag(
        None,
        help="topics to play with the images, none for the images alone; default all",
        metavar="TOPIC",
        many="*",
    )
    subscribers: int = flag(1, help="wait for this many subscribers of the images", metavar="N")
    loops: int = flag(1, help="number of repetitions; 0 = until Ctrl-C")
    clock: bool = flag(False, help="publish /clock, for nodes with use_sim_time")
    timeout: float = flag(60.0, help="longest wait for an answer, seconds", metavar="S")
    json: Path | None = flag(None, help="write the results as JSON", metavar="FILE")

    def __post_init__(self) -> None:
        wrong = [rule for rule in self.remap if rule.count(":=") != 1]
        if wrong:
            raise ValueError(f"--remap takes FROM:=TO, got {wrong[0]!r}")

    def renamed(self) -> dict[str, str]:
        """Other names to publish under, by the name in the bag."""
        return dict(rule.split(":=") for rule in self.remap)
