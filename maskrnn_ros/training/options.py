# SPDX-License-Identifier: Apache-2.0
"""What the trainings are asked for: the flags of ``maskrnn train``. Needs no torch."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from maskrnn_ros.arguments import flag, names, with_default
from maskrnn_ros.model.digests import digest_of
from maskrnn_ros.model.files import DECODER, FLOWNET, PROMPTS, trunk_file
from maskrnn_ros.prompts.learned import TRUNK_DIGEST

LENGTHS = ((0.55, 3), (0.9, 5), (1.0, 8))
"""Until which share of the steps windows have how many frames: the recurrence learns once the single step is good."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageOptions:
    """What every training is asked for.

    Raises:
        ValueError: A value is out of its range.
    """

    out: Path = flag(help="folder for checkpoint, weights, log and curves", metavar="DIR")
    steps: int = flag(2000, help="steps in all")
    batch: int = flag(8, help="what a step sees at once")
    rate: float = flag(1e-3, help="peak learning rate")
    validate_every: int = flag(200, help="steps between two validations", metavar="N")
    threads: int = flag(0, help="of one process; 0 leaves torch's default")
    seed: int = flag(0, help="of the random numbers")
    resume: bool = flag(False, help="go on from the checkpoint in OUT")

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be in 0..1, got {self.rate:g}")

    def settings(self) -> dict[str, str]:
        """What decides the result but the steps: a training may be resumed to end earlier or later than it was to."""
        return {name: str(getattr(self, name)) for name in ("batch", "rate", "seed")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(StageOptions):
    """What is the same for every training on ``sources``; what ``split`` holds out is left out."""

    data: Path = flag(help="folder of the sets, see docs/training.md", metavar="DIR")
    terms: Literal["research", "permissive"] = flag("research", help="which of them may be used")
    minutes: float | None = flag(
        None, help="time in all, in place of --steps; what was spent before --resume counts", metavar="M"
    )
    processes: int = flag(1, help="that draw what a step sees ahead, with a thread each; 0: none")
    device: str = flag("cpu", help="where it learns: cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.validate_every < 1:
            raise ValueError(
                f"steps, batch and validate_every must be >= 1, got {self.steps}, {self.batch}, {self.validate_every}"
            )
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"minutes must be > 0 and finite, got {self.minutes:g}")
        super().__post_init__()

    def settings(self) -> dict[str, str]:
        """See ``StageOptions``."""
        return {"terms": self.terms, **super().settings()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkOptions(RunOptions):
    """How to train the trunk; under ``torchrun`` ``processes`` are those of each process."""

    steps: int = with_default(RunOptions, "steps", 1700)
    batch: int = flag(8, help="pairs in a step, over all processes")
    rate: float = flag(2e-4, help="peak learning rate of the trunk")
    validate_every: int = with_default(RunOptions, "validate_every", 100)
    processes: int = with_default(RunOptions, "processes", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOptions(RunOptions):
    """How to train what stands on a trunk."""

    trunk: str = flag("shipped", help="weights of the trunk: shipped or a file", metavar="FILE")


def weights_read(shipped: Path) -> Callable[[str], Path]:
    """Reads ``--init``: a file, or ``shipped``: the weights of what is trained that ship."""
    return lambda named: shipped if named == "shipped" else Path(named)


def lengths_read(text: str) -> tuple[tuple[float, int], ...]:
    """Shares of a training and lengths of windows.

    Raises:
        argparse.ArgumentTypeError: They are none, or do not reach to its end.
    """
    try:
        found = tuple((float(share), int(count)) for share, _, count in (one.partition(":") for one in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected shares and frames such as 0.5:3,1:8, got {text!r}") from None
    if sorted(found) != list(found) or found[-1][0] != 1 or min(count for _, count in found) < 1:
        raise argparse.ArgumentTypeError(f"expected rising shares up to 1 and frames >= 1, got {text!r}")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions(HeadOptions):
    """How to train the decoder; ``trunk_rate`` is the peak learning rate of the trunk, which learns with it then."""

    init: Path | None = flag(
        None,
        help="weights to begin with: a file, or `shipped`, the decoder that ships",
        metavar="FILE",
        read=weights_read(DECODER),
    )
    batch: int = flag(4, help="windows in a step")
    trunk_rate: float = flag(0.0, help="of the trunk; 0: it does not learn; wants a GPU")
    lengths: tuple[tuple[float, int], ...] = flag(
        None,
        help="until which share of the training windows have how many frames, e.g. 0.5:3,1:8",
        metavar="S:N,...",
        read=lengths_read,
        made=lambda found: LENGTHS if found is None else found,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.trunk_rate < 1:
            raise ValueError(f"trunk_rate must be in 0..1, got {self.trunk_rate:g}")

    def settings(self) -> dict[str, str]:
        """See ``StageOptions``."""
        own = {"trunk": Path(self.trunk).name, "lengths": str(self.lengths)}
        return {**super().settings(), **own, **({"trunk_rate": f"{self.trunk_rate:g}"} if self.trunk_rate else {})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions(HeadOptions):
    """How to train the prompt network."""

    init: Path | None = flag(
        None, help="weights to begin with: a file, or `shipped`", metavar="FILE", read=weights_read(PROMPTS["shipped"])
    )
    steps: int = with_default(RunOptions, "steps", 6000)
    batch: int = flag(8, help="views in a step")
    validate_every: int = with_default(RunOptions, "validate_every", 500)
    validate_on: int = flag(40, help="held out objects that a validation looks at", metavar="N")
    fine: float = flag(
        0.0, help="share of the steps that see the last, finer view of a box, half as many of them", metavar="SHARE"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fine <= 1:
            raise ValueError(f"fine must be in 0..1, got {self.fine:g}")

    def settings(self) -> dict[str, str]:
        """See ``StageOptions``; the trunk is known by what is in it."""
        own = {TRUNK_DIGEST: digest_of(trunk_file(self.trunk))}
        return {**super().settings(), **own, **({"fine": f"{self.fine:g}"} if self.fine else {})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowOptions(StageOptions):
    """How to train the flow network; ``validation_pairs`` is how many pairs are validated on."""

    davis: Path | None = flag(None, help="data set in the layout of DAVIS", metavar="ROOT")
    held_out: tuple[str, ...] = flag(
        (), help="its clips to validate on, never trained on", metavar="A,B,...", read=names
    )
    stills: tuple[Path, ...] = flag((), help="folders of still images: DIR/images, DIR/masks", metavar="DIR", many="+")
    init: Path | None = flag(
        None, help="weights to begin with: a file, or `shipped`", metavar="FILE", read=weights_read(FLOWNET)
    )
    steps: int = with_default(StageOptions, "steps", 4000)
    batch: int = flag(4, help="pairs in a step, over all processes")
    rate: float = with_default(StageOptions, "rate", 6e-4)
    validate_every: int = with_default(StageOptions, "validate_every", 250)
    validation_pairs: int = 24

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "validation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        super().__post_init__()

    def settings(self) -> dict[str, str]:
        """See ``StageOptions``."""
        own = {"held_out": str(self.held_out), "stills": str([path.name for path in self.stills])}
        return {**super().settings(), **own}
