# SPDX-License-Identifier: Apache-2.0
"""What both stages of the ``paper`` profile's training are asked for: flags of ``maskrnn train``. Needs no torch."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Literal

from maskrnn_ros.arguments import flag, names, with_default
from maskrnn_ros.training.options import StageOptions

BOX_WEIGHT = 0.2
"""Of the box loss beside that of the mask; our choice."""

NEW = 100.0
"""Learning rate of what begins at random (side outputs, 1x1, fusion) over that of VGG-16; our choice."""


def profile_read(text: str) -> str:
    """Refuses the profile that is no longer trained so.

    Raises:
        argparse.ArgumentTypeError: It is ``fast``.
    """
    if text == "fast":
        raise argparse.ArgumentTypeError("the fast profile's network is gone: `maskrnn train decoder` took its place")
    return text


def size_made(text: str) -> tuple[int, int]:
    """(h, w) of WxH, pixels.

    Raises:
        ValueError: It is none.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size takes WxH, e.g. 854x480, got {text!r}")
    return int(height), int(width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperOptions(StageOptions):
    """How to train; there is no validation but ``maskrnn evaluate``.

    Args:
        length: Frames that are looked at in a window: 1 is stage 1, 7 the paper's stage 2.
        size: (h, w) of all pictures, pixels.
        batch: The gradients of its windows are summed one by one, so memory does not grow with it.
        rate: Adam's, of VGG-16 and the fully connected layers; 1e-5 is the paper's.
        new: Factor on it for side outputs, 1x1 convolutions and fusion, which begin at random.
        detach: Cut the gradient from frame to frame: no back-propagation through time.

    Raises:
        ValueError: A value is out of its range.
    """

    profile: Literal["paper"] = flag("paper", help="whose networks", read=profile_read)
    root: Path | None = flag(None, help="data set in the layout of DAVIS", metavar="ROOT")
    held_out: tuple[str, ...] = flag((), help="its clips that are left alone", metavar="A,B,...", read=names)
    stills: tuple[Path, ...] = flag((), help="folders of still images: DIR/images, DIR/masks", metavar="DIR", many="+")
    init: str = flag("torchvision", help="weights to begin with: a file, or `torchvision`", metavar="FILE")
    batch: int = flag(4, help="windows in a step")
    rate: float = with_default(StageOptions, "rate", 1e-5)
    validate_every: int = with_default(StageOptions, "validate_every", 500)
    box_weight: float = flag(BOX_WEIGHT, help="weight of the box loss; 0 switches it off")
    size: tuple[int, int] = flag("854x480", help="of the pictures, pixels", metavar="WxH", read=str, made=size_made)
    device: str = flag("auto", help="auto, cpu, cuda or cuda:N")
    autocast: bool = flag(False, help="compute in bfloat16 where torch deems it safe")
    channels_last: bool = flag(False, help="memory format of the convolutions")
    length: int = 1
    new: float = NEW
    detach: bool = False

    def __post_init__(self) -> None:
        if self.init == "shipped":
            raise ValueError("--init takes a file or torchvision: no weights of the paper's networks ship")
        if min(self.steps, self.length, self.batch, self.validate_every) < 1:
            raise ValueError(
                "steps, length, batch and validate_every must be >= 1, got "
                f"{self.steps}, {self.length}, {self.batch} and {self.validate_every}"
            )
        if min(self.size) < 32:
            raise ValueError(f"size must be >= 32 both ways, as four poolings need, got {self.size}")
        super().__post_init__()

    def settings(self) -> dict[str, str]:
        """What decides the result, the steps among it."""
        where = ("out", "root", "stills", "init", "device", "threads")
        how = ("profile", "resume", "validate_every", "autocast", "channels_last")
        return {key: str(value) for key, value in dataclasses.asdict(self).items() if key not in where + how}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StillOptions(PaperOptions):
    """Stage 1."""

    steps: int = with_default(PaperOptions, "steps", 1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentOptions(PaperOptions):
    """Stage 2."""

    steps: int = with_default(PaperOptions, "steps", 4000)
    length: int = 7
