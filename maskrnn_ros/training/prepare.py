# SPDX-License-Identifier: Apache-2.0
"""``maskrnn train prepare``: which clips the training gets, and from what they are made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrnn_ros.config import AdaptationConfig, Config
from maskrnn_ros.evaluation.readers import davis_clip, folder_names
from maskrnn_ros.flow import FlowEstimator, build_flow
from maskrnn_ros.model.backbone import Lite0
from maskrnn_ros.model.weights import load_lite0
from maskrnn_ros.training.cache import Job, TrainingClip, build_cache
from maskrnn_ros.training.clips import SIZE, Pictures, observe, read_pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is prepared.

    Args:
        out: Folder for the clips.
        davis: Root of a data set in the layout of DAVIS; None for none.
        held_out: Its clips that are kept for validation.
        seed: Of all random numbers.
        processes: How many work at a time.
    """

    out: Path
    davis: Path | None = None
    held_out: tuple[str, ...] = ()
    seed: int = 0
    processes: int = 2


def prepare(preparation: Preparation) -> int:
    """Make all clips that are not there yet; returns how many were made.

    Raises:
        ValueError: Something of the data cannot be read, or the folder holds clips made with other settings.
    """
    jobs: list[Job] = []
    settings: dict[str, Any] = {"all": {"size": list(SIZE), "seed": preparation.seed, **_config_of_parts(Config())}}
    if preparation.davis is not None:
        names = _davis_names(preparation.davis, preparation.held_out)
        jobs += [DavisJob(root=preparation.davis, clip=name, seed=preparation.seed) for name in names]
        settings["davis"] = {"held_out": sorted(preparation.held_out)}
    if not jobs:
        raise ValueError("expected clips or stills to prepare, got none")
    return build_cache(jobs, preparation.out, settings, preparation.processes)


def _config_of_parts(config: Config) -> dict[str, Any]:
    parts = ("flow", "matching", "adaptation", "gate", "prior")
    return {part: dataclasses.asdict(getattr(config, part)) for part in parts}


def _davis_names(root: Path, held_out: Sequence[str]) -> list[str]:
    """Names of all clips, those for training first.

    Raises:
        ValueError: One that is to be held out is not there.
    """
    names = folder_names(root, "Annotations")
    unknown = sorted(set(held_out) - set(names))
    if unknown:
        raise ValueError(f"{root}: expected the clip {unknown[0]!r} to hold out, found {', '.join(names)}")
    return sorted(names, key=lambda name: (name in held_out, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DavisJob:
    """A clip as it is; see ``cache.Job``.

    Args:
        root: Folder of the data set.
        clip: Name of the clip.
        seed: Of the random numbers.
    """

    root: Path
    clip: str
    seed: int

    @property
    def name(self) -> str:
        """See ``Job``."""
        return f"davis_{self.clip}"

    def make(self) -> TrainingClip:
        """See ``Job``."""
        pictures = read_pictures(davis_clip(self.root, self.clip), self.name)
        return _observed(pictures, Config().adaptation, random_of(self.seed, self.name))


def random_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one clip: they depend on no other clip, nor on the order in which clips are made."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _observed(pictures: Pictures, heads: AdaptationConfig | None, random: np.random.Generator) -> TrainingClip:
    trunk, flow = _parts()
    return observe(pictures, trunk, flow, Config(), heads, random)


@functools.cache
def _parts() -> tuple[Lite0, FlowEstimator]:
    """The frozen parts, once in a process."""
    return load_lite0(), build_flow(Config().flow, torch.device("cpu"))
