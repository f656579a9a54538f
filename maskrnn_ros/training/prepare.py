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

from maskrnn_ros.config import AdaptationConfig, Config, with_values
from maskrnn_ros.evaluation.readers import davis_clip, folder_names
from maskrnn_ros.flow import FlowEstimator, build_flow
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.model.weights import load_trunk
from maskrnn_ros.training.cache import Job, TrainingClip, build_cache
from maskrnn_ros.training.clips import SIZE, Pictures, Unsuitable, observe, read_pictures
from maskrnn_ros.training.stills import moving_still, read_still, still_paths
from maskrnn_ros.training.synthesis import copy_paste

_CONFIG = with_values(Config(), flow__preset="medium", adaptation__method="finetune")
"""The flow is computed once and held: the most exact is worth its time, and the shipped weights were trained on it."""

_PASTED_FRAMES = 24
_PASTED_HEADS = dataclasses.replace(Config().adaptation, steps=0, views=8)
_STILL_HEADS = dataclasses.replace(Config().adaptation, steps=0, views=2)
"""Heads of what is made up are fitted and not trained: there are many, and they may be worse."""

_TWINS = 0.25
"""How often a pasted object is a mirrored twin of the one that is there."""

_STILL_FRAMES = 4
_TRIES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is prepared.

    Args:
        out: Folder for the clips.
        davis: Root of a data set in the layout of DAVIS; None for none.
        held_out: Its clips that are kept for validation: nothing else is made from them.
        pasted: How many clips of two objects are made from the others.
        stills: Folders of still images, each with ``images`` and ``masks``.
        moving: How many clips are made from them.
        trunk: Weights of the trunk, see ``config.TrunkConfig``.
        seed: Of all random numbers.
        processes: How many work at a time.
    """

    out: Path
    davis: Path | None = None
    held_out: tuple[str, ...] = ()
    pasted: int = 60
    stills: tuple[Path, ...] = ()
    moving: int = 500
    trunk: str = "streams"
    seed: int = 0
    processes: int = 2


def prepare(preparation: Preparation) -> int:
    """Make all clips that are not there yet; returns how many were made.

    Raises:
        ValueError: Something of the data cannot be read, or the folder holds clips made with other settings.
    """
    jobs: list[Job] = []
    trunk, seed = preparation.trunk, preparation.seed
    parts = _config_of_parts(_CONFIG)
    settings: dict[str, Any] = {"all": {"size": list(SIZE), "seed": seed, "trunk": trunk, **parts}}
    if preparation.davis is not None:
        names = _davis_names(preparation.davis, preparation.held_out)
        jobs += [DavisJob(root=preparation.davis, clip=name, trunk=trunk) for name in names]
        settings["davis"] = {"held_out": sorted(preparation.held_out)}
        bases = tuple(name for name in names if name not in preparation.held_out)
        pasted = range(preparation.pasted if bases else 0)
        jobs += [PasteJob(root=preparation.davis, clips=bases, number=k, trunk=trunk, seed=seed) for k in pasted]
        settings["pasted"] = {"frames": _PASTED_FRAMES, "twins": _TWINS, **_changes(_PASTED_HEADS)}
    if preparation.stills:
        for folder in preparation.stills:
            still_paths(folder)  # refuse at once what the last job would
        moving = range(preparation.moving)
        jobs += [StillJob(folders=preparation.stills, number=k, trunk=trunk, seed=seed) for k in moving]
        settings["stills"] = {
            "folders": [folder.name for folder in preparation.stills],
            "frames": _STILL_FRAMES,
            **_changes(_STILL_HEADS),
        }
    if not jobs:
        raise ValueError("expected clips or stills to prepare, got none")
    return build_cache(jobs, preparation.out, settings, preparation.processes)


def _config_of_parts(config: Config) -> dict[str, Any]:
    parts = ("flow", "matching", "adaptation", "gate", "prior")
    return {part: dataclasses.asdict(getattr(config, part)) for part in parts}


def _changes(heads: AdaptationConfig) -> dict[str, Any]:
    return {"steps": heads.steps, "views": heads.views}


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
        trunk: Weights of the trunk.
    """

    root: Path
    clip: str
    trunk: str

    @property
    def name(self) -> str:
        """See ``Job``."""
        return f"davis_{self.clip}"

    def make(self) -> TrainingClip:
        """See ``Job``."""
        pictures = read_pictures(davis_clip(self.root, self.clip), self.name)
        return _observed(pictures, self.trunk, Config().adaptation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PasteJob:
    """A clip through which the object of another moves; see ``cache.Job``.

    Args:
        root: Folder of the data set.
        clips: Names of the clips to choose two from.
        number: Which clip of its kind it is.
        trunk: Weights of the trunk.
        seed: Of the random numbers.
    """

    root: Path
    clips: tuple[str, ...]
    number: int
    trunk: str
    seed: int

    @property
    def name(self) -> str:
        """See ``Job``."""
        return f"paste_{self.number:04d}"

    def make(self) -> TrainingClip:
        """See ``Job``; two clips that cannot be combined give way to two others."""
        random = random_of(self.seed, self.name)
        for left in reversed(range(_TRIES)):
            base = str(random.choice(self.clips))
            donor = base if random.random() < _TWINS else str(random.choice(self.clips))
            below = self._read(base)
            above = below if donor == base else self._read(donor)
            try:
                pictures = copy_paste(self.name, below, above, random, _PASTED_FRAMES)
            except Unsuitable:
                if not left:
                    raise
            else:
                break
        return _observed(pictures, self.trunk, _PASTED_HEADS)

    def _read(self, clip: str) -> Pictures:
        return read_pictures(davis_clip(self.root, clip), clip)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StillJob:
    """A short clip made from still images; see ``cache.Job``.

    Args:
        folders: Where they are, see ``stills.still_paths``. A folder with four times as many is used twice as often.
        number: Which clip of its kind it is.
        trunk: Weights of the trunk.
        seed: Of the random numbers.
    """

    folders: tuple[Path, ...]
    number: int
    trunk: str
    seed: int

    @property
    def name(self) -> str:
        """See ``Job``."""
        return f"still_{self.number:04d}"

    def make(self) -> TrainingClip:
        """See ``Job``; stills without a large object give way to others."""
        random = random_of(self.seed, self.name)
        known = [_stills(folder) for folder in self.folders]
        shares = np.sqrt([len(paths) for paths in known])
        for left in reversed(range(_TRIES)):
            places = [known[k] for k in random.choice(len(known), 2, p=shares / shares.sum())]
            try:
                still, other = (read_still(*paths[random.integers(len(paths))]) for paths in places)
                pictures = moving_still(self.name, still, other, SIZE, random, _STILL_FRAMES)
            except Unsuitable:
                if not left:
                    raise
            else:
                break
        return _observed(pictures, self.trunk, _STILL_HEADS)


_stills = functools.cache(still_paths)


def random_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one clip: they depend on no other clip, nor on the order in which clips are made."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _observed(pictures: Pictures, trunk: str, heads: AdaptationConfig) -> TrainingClip:
    return observe(pictures, *_parts(trunk), _CONFIG, heads)


@functools.cache
def _parts(trunk: str) -> tuple[Trunk, FlowEstimator]:
    """The frozen parts, once in a process."""
    if trunk == "imagenet":
        raise ValueError("expected a trained trunk, whose heads can be fitted, got imagenet")
    return load_trunk(trunk), build_flow(_CONFIG.flow, torch.device("cpu"))
