# SPDX-License-Identifier: Apache-2.0
"""Clips for the training, each in one file with everything that the frozen parts say of it.

The trunk, the flow, the matching and the heads adapted on a seed do not change while the network learns, so they are
computed once; what is left of a training step takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from maskrnn_ros.disk import regular_file

SUFFIX = ".safetensors"
MANIFEST = "manifest.json"

_BY_FRAME = ("images", "stride4", "stride8", "stride16", "back", "ahead", "truth")
_BY_SEED = ("matching", "head")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainingClip:
    """One clip of T frames at the training size (h, w), and S seeds in it.

    A clip that was loaded is mapped into memory: only what is used of it is read, so take a ``window`` before anything
    else. Cells are those of ``model.backbone``.

    Args:
        name: Name of the clip.
        images: RGB, uint8, (T, 3, h, w).
        stride4: Features, float16, (T, 24, h4, w4), h4 = ceil(h / 4).
        stride8: Likewise, (T, 40, h8, w8).
        stride16: Likewise, (T, 112, h16, w16).
        back: Flow t -> t-1 at the cells of stride 4, (dx, dy) in pixels of the images, float16, (T, 2, h4, w4); zeros
            on the first frame of the clip.
        ahead: Length of the flow t -> t+1, likewise, float16, (T, h4, w4); zeros on the last frame of the clip.
        truth: Ids 1..n, 0 background, uint8, (T, h, w).
        seeds: (id, frame) of each seed; the frame is counted in the whole clip.
        matching: What the matching with each seed says, log-odds / LOG_ODDS, float16, (S, T, h4, w4); zeros before the
            frame of the seed.
        head: What the head adapted on each seed says, likewise.
        start: Frame of the whole clip that is the first one here.
    """

    name: str
    images: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    back: Tensor
    ahead: Tensor
    truth: Tensor
    seeds: tuple[tuple[int, int], ...]
    matching: Tensor
    head: Tensor
    start: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def window(self, start: int, stop: int) -> TrainingClip:
        """Frames start .. stop - 1 of those here, without reading the others.

        Raises:
            ValueError: There are no such frames.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"{self.name}: expected a window in frames 0..{len(self)}, got {start}..{stop}")
        frames = {name: getattr(self, name)[start:stop] for name in _BY_FRAME}
        planes = {name: getattr(self, name)[:, start:stop] for name in _BY_SEED}
        return dataclasses.replace(self, **frames, **planes, start=self.start + start)

    def save(self, path: Path) -> None:
        """Write the file; it is there whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        tensors = {name: getattr(self, name).contiguous() for name in (*_BY_FRAME, *_BY_SEED)}
        known = {"name": self.name, "seeds": json.dumps(self.seeds), "start": str(self.start)}
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        save_file(tensors, part, metadata=known)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> TrainingClip:
        """Map the file into memory.

        Raises:
            ValueError: It cannot be read or is no such clip.
        """
        try:
            with safe_open(regular_file(path), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in (*_BY_FRAME, *_BY_SEED)}
                known = file.metadata()
            seeds = tuple((int(instance_id), int(frame)) for instance_id, frame in json.loads(known["seeds"]))
            return TrainingClip(name=known["name"], seeds=seeds, start=int(known["start"]), **tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a clip of `maskrnn train prepare`: {error!r}") from error


class Job(Protocol):
    """Makes one clip; it goes to another process, so it holds paths and settings rather than pictures."""

    @property
    def name(self) -> str:
        """Name of the clip and of its file."""
        ...

    def make(self) -> TrainingClip:
        """The clip; each time the same.

        Raises:
            ValueError: A file that it needs cannot be read.
        """
        ...


def build_cache(jobs: Sequence[Job], out: Path, settings: Mapping[str, Any], processes: int = 1) -> int:
    """Make the clips that are not there yet.

    Args:
        jobs: The clips, in the order in which they are made.
        out: Folder for the files and the manifest.
        settings: What the clips depend on, for JSON, by section. They go into the manifest of the folder; sections of
            earlier calls stay in it.
        processes: How many work at a time, each with one thread.

    Returns:
        How many clips were made.

    Raises:
        ValueError: The clips of the folder were made with other settings, or two jobs have one name.
        OSError: A file cannot be written.
    """
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected one clip of every name, found {twice[0]!r} twice")
    out.mkdir(parents=True, exist_ok=True)
    _agree(out / MANIFEST, json.loads(json.dumps(settings)))
    missing = [job for job in jobs if not (out / f"{job.name}{SUFFIX}").exists()]
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="prepare", unit="clip", mininterval=5) as bar,
    ):
        waiting = [pool.submit(_make, job, out) for job in missing]
        try:
            for done in as_completed(waiting):
                done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what is begun is finished, nothing else
            raise
    return len(missing)


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _make(job: Job, out: Path) -> None:
    job.make().save(out / f"{job.name}{SUFFIX}")


def _agree(path: Path, settings: Mapping[str, Any]) -> None:
    """Write new sections of settings into the manifest; known ones must be as they are there."""
    known = read_manifest(path.parent) if path.exists() else {}
    for section, values in settings.items():
        before = known.get(section, values)
        if before != values:
            raise ValueError(f"{path}: {_difference(section, before, values)}; prepare into another folder")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps({**known, **settings}, indent=2) + "\n")
    part.replace(path)


def _difference(where: str, found: Any, expected: Any) -> str:
    """The first of all values that differ, in a few words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        return _difference(f"{where}.{keys[0]}", found.get(keys[0]), expected.get(keys[0]))
    return f"expected {where} {expected!r}, found clips made with {found!r}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Settings that the clips of a folder were made with, by section.

    Raises:
        ValueError: There is no manifest, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the manifest of `maskrnn train prepare`: {error}") from error
    if not isinstance(known, dict):
        raise ValueError(f"{path}: expected sections of settings, found {type(known).__name__}")
    return known


def clip_paths(folder: Path) -> list[Path]:
    """Files of the clips in a folder, by name.

    Raises:
        ValueError: There are none.
    """
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not paths:
        raise ValueError(f"expected clips of `maskrnn train prepare` in {folder}, found none")
    return paths
