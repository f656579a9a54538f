# SPDX-License-Identifier: Apache-2.0
"""What ``maskrnn track`` and ``maskrnn seed`` are asked for."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from maskrnn_ros.arguments import THRESHOLD, config_flag, flag
from maskrnn_ros.config import Config
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.types import Box


def _numbers(count: int, form: str) -> Any:
    """Reads so many finite numbers between commas."""

    def read(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count or not all(math.isfinite(value) for value in found):
            raise argparse.ArgumentTypeError(f"expected {form}, pixels, got {text!r}")
        return found

    return read


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkOptions:
    """How an object is marked: by a mask, whose flag each command names itself, or by points and a box."""

    point: tuple[tuple[float, ...], ...] = flag(
        (),
        help="instead of a mask: a pixel on the object; may be repeated",
        metavar="X,Y",
        read=_numbers(2, "X,Y"),
        many="append",
    )
    box: tuple[float, ...] | None = flag(
        None,
        help="instead of a mask: a box around the object, in pixels; can be combined with --point",
        metavar="X0,Y0,X1,Y1",
        read=_numbers(4, "X0,Y0,X1,Y1"),
    )
    threshold: int | None = flag(None, help=THRESHOLD, metavar="N")

    def _mark(self, name: str, mask: Path | None) -> Path | Prompt:
        """The prompt made of --point and --box, or the mask.

        Raises:
            ValueError: Both are given, or neither, or a threshold without a mask.
        """
        is_prompt = bool(self.point) or self.box is not None
        if is_prompt == (mask is not None):
            raise ValueError(f"expected {name}, or --point and --box, got {'both' if is_prompt else 'neither'}")
        if mask is not None:
            return mask
        if self.threshold is not None:
            raise ValueError(f"--threshold is for {name}, got --point or --box")
        box = None if self.box is None else Box(*(round(value) for value in self.box))
        return Prompt(box=box, points=tuple(Point(x=x, y=y) for x, y in self.point))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackOptions(MarkOptions):
    """Arguments of ``maskrnn track``."""

    frames: Path = flag(help="folder of images, in the order of their names, or a video", metavar="DIR|VIDEO")
    seed_mask: Path | None = flag(None, help="label image of the first frame, value = id", metavar="PNG")
    out: Path = flag(help="folder for indexed PNGs and overlay.mp4", metavar="DIR")
    config: Config = config_flag()
    fps: float | None = flag(None, help="frames per second; default: of the video, 24 for a folder")
    overwrite: bool = flag(False, help="replace existing results in DIR")
    ignore_masks: Path | None = flag(
        None, help="ignore masks, DIR/<frame's stem>.png for any frames: nonzero = cannot be an object", metavar="DIR"
    )
    allow_gaps: bool = flag(False, help="accept a damaged video; masks keep the numbers of their frames")
    json: Path | None = flag(None, help="write the results as JSON", metavar="FILE")

    def marked(self) -> Path | Prompt:
        """The mask or the prompt, see ``_mark``."""
        return self._mark("--seed-mask", self.seed_mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOptions(MarkOptions):
    """Arguments of ``maskrnn seed``."""

    mask: Path | None = flag(
        None, help="label image, value = id; a mask of only 255 adds a new instance", metavar="PNG"
    )
    id: int = flag(0, help="with --point and --box: the instance to correct; 0 = a new instance", metavar="N")
    topic: str = flag("/tracker/seed_mask", help="seed topic of the tracker")
    service: str = flag("/tracker/add_instances", help="service of the tracker for points and boxes")
    result_topic: str = flag("/tracker/seed_result", help="result topic of the tracker")
    stamp: int = flag(0, help="stamp of the image, ns; 0 = the next image", metavar="NS")
    timeout: float = flag(10.0, help="longest wait, seconds", metavar="S")

    def marked(self) -> Path | Prompt:
        """The mask or the prompt, see ``_mark``."""
        return self._mark("--mask", self.mask)
