# SPDX-License-Identifier: Apache-2.0
"""A sequence with ground truth, whatever it is read from, and which of its objects are scored by which convention."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskrnn_ros.datasets.frames import FolderFrames, check_size
from maskrnn_ros.datasets.ignore_folder import IgnoreFolder
from maskrnn_ros.labels import VOID, LabelFiles, LabelRule, read_mask, values_of
from maskrnn_ros.metrics.davis import Convention
from maskrnn_ros.types import BoolArray, Frame, LabelArray, UInt8Array


class Clip(Protocol):
    """One sequence with ground truth: files, or a bag. Frames are numbered from 0, that of the first seed."""

    @property
    def name(self) -> str:
        """Name of the sequence."""
        ...

    def __len__(self) -> int:
        """How many frames it has."""
        ...

    def stem(self, number: int) -> str:
        """Name of the frame, for the file of its mask."""
        ...

    def place(self, number: int) -> str:
        """Where the frame comes from, for people."""
        ...

    def stamp_ns(self, number: int) -> int:
        """Stamp of the frame, ns."""
        ...

    def image(self, number: int) -> UInt8Array:
        """The frame, RGB, uint8 (H, W, 3).

        Raises:
            ValueError: There is no such image.
        """
        ...

    def ignored(self, number: int) -> BoolArray | None:
        """Where on the frame surely is no object, bool (H, W); None: not known, nowhere.

        Raises:
            ValueError: There is no such mask, or it is of another size.
        """
        ...

    def truth(self, number: int) -> LabelArray:
        """Ground truth of the frame, ids by ``rule``, int32 (H, W).

        Raises:
            ValueError: There is no such image.
        """
        ...

    @property
    def rule(self) -> LabelRule:
        """What the values of its ground truth mean."""
        ...

    @property
    def starts(self) -> Mapping[int, int]:
        """For each object that is to be followed the number of the frame on which it is marked."""
        ...

    def seed(self, number: int) -> LabelArray:
        """The objects that are marked on this frame, ids, int32 (H, W)."""
        ...

    def check(self) -> frozenset[int]:
        """Read all ground truth; returns every value in it as it was found.

        Raises:
            ValueError: Something cannot be read, or not all has the size of the first frame.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileClip:
    """Files of one sequence, see ``Clip``; it begins on the first frame whose annotation marks an object.

    Args:
        name: Name of the sequence.
        frames: All of its frames, in order.
        truths: For each frame one label image, or one binary mask for each object (``are_masks``).
        are_masks: The truths are masks: not 0 (grey: 128 or more) is the object, and the first object has id 1.
        mono16_bits: How images of 16 bits are read.
        threshold: For truths that are soft masks of one object, see ``labels.read_labels``.
        ignores: Ignore masks of some of the frames.
    """

    name: str
    frames: tuple[Path, ...]
    truths: tuple[tuple[Path, ...], ...]
    are_masks: bool = False
    mono16_bits: str = "auto"
    threshold: int | None = None
    ignores: IgnoreFolder | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: not the source, which holds a lock."""
        return {key: value for key, value in self.__dict__.items() if key != "source"}

    @functools.cached_property
    def source(self) -> FolderFrames:
        """All of its frames."""
        return FolderFrames(self.frames, mono16_bits=self.mono16_bits, begin=self.begin)

    @functools.cached_property
    def _labels(self) -> LabelFiles:
        return LabelFiles([paths[0] for paths in self.truths], self.threshold)

    @functools.cached_property
    def _all_starts(self) -> Mapping[int, int]:
        """Likewise by the place of the frame among all."""
        if not self.are_masks:
            return self._labels.starts
        starts: dict[int, int] = {}
        for place in range(len(self.truths)):
            for instance_id in values_of(self._merged_masks(place)):
                starts.setdefault(instance_id, place)
        return {i: starts[i] for i in sorted(starts) if i}

    @functools.cached_property
    def begin(self) -> int:
        """Place of the first annotation that marks an object; 0 where none does."""
        return min(self._all_starts.values(), default=0)

    @property
    def rule(self) -> LabelRule:
        """See ``Clip``."""
        return LabelRule.of(self._all_starts) if self.are_masks else self._labels.rule

    @property
    def starts(self) -> Mapping[int, int]:
        """See ``Clip``: where the annotations show an object first."""
        return {i: place - self.begin for i, place in self._all_starts.items()}

    def __len__(self) -> int:
        """See ``Clip``."""
        return len(self.frames) - self.begin

    def stem(self, number: int) -> str:
        """See ``Clip``."""
        return self.source.stem(self.begin + number)

    def place(self, number: int) -> str:
        """See ``Clip``."""
        return self.source.place(self.begin + number)

    def stamp_ns(self, number: int) -> int:
        """See ``Clip``."""
        return self.source.stamp_ns(self.begin + number)

    def image(self, number: int) -> UInt8Array:
        """See ``Clip``."""
        return self.source.image(self.begin + number)

    def ignored(self, number: int) -> BoolArray | None:
        """See ``Clip``."""
        return None if self.ignores is None else self.ignores.mask(self.stem(number))

    def truth(self, number: int) -> LabelArray:
        """See ``Clip``; where masks overlap the first object wins.

        Raises:
            ValueError: A file is no such image, or masks differ in size.
        """
        place = self.begin + number
        labels = self._merged_masks(place) if self.are_masks else self._labels.ids(place)
        assert labels is not None  # every frame has one
        return labels

    def seed(self, number: int) -> LabelArray:
        """See ``Clip``."""
        new = [i for i, start in self.starts.items() if start == number]
        labels = self.truth(number)
        return np.where(np.isin(labels, new), labels, 0).astype(np.int32)

    def _merged_masks(self, place: int) -> LabelArray:
        """The masks of a frame, one object each, as one label image: 1, 2, ...; the first one keeps a pixel."""
        labels: LabelArray | None = None
        for instance_id, path in enumerate(self.truths[place], start=1):
            mask = read_mask(path)
            if labels is None:
                labels = np.zeros(mask.shape, np.int32)
            check_size(path, mask.shape, self.truths[place][0], labels.shape)
            labels[mask & (labels == 0)] = instance_id
        assert labels is not None
        return labels

    def check(self) -> frozenset[int]:
        """See ``Clip``."""
        size = self.source.check()
        if self.ignores is not None:
            self.ignores.check(size)
        for number in range(len(self)):
            check_size(self.truths[self.begin + number][0], self.truth(number).shape, self.frames[0], size)
        is_binary = self.are_masks or self.rule.threshold is not None
        return frozenset((0, *self._all_starts)) if is_binary else self._labels.values


def frame_of(clip: Clip, number: int) -> Frame:
    """A frame with its ignore mask, as a follower takes it.

    Raises:
        ValueError: See ``Clip``.
    """
    return Frame(stamp_ns=clip.stamp_ns(number), image=clip.image(number), ignored=clip.ignored(number))


def default_convention(values: frozenset[int], reader: str) -> Convention:
    """davis2016 where no annotation holds an id other than 0, 1 or 255, else davis2017; segtrack2 for its reader."""
    if reader == "segtrack":
        return "segtrack2"
    return "davis2016" if values <= {0, 1, VOID} else "davis2017"


def objects_of(first_truth: LabelArray, convention: Convention) -> tuple[int, ...]:
    """The objects of the first annotation, by the ids that occur in it; in davis2016 all are the one object.

    Args:
        first_truth: Ids, int32 (H, W), see ``Clip.truth``.
        convention: How it is scored.

    Raises:
        ValueError: There is no object.
    """
    ids = tuple(i for i in values_of(first_truth) if i)
    if not ids:
        raise ValueError(f"expected an object in the first annotation ({convention}, 0 = background), found none")
    return (1,) if convention == "davis2016" else ids


def scored_objects(clip: Clip, convention: Convention) -> dict[int, int]:
    """The ids that are scored, ascending, with the number of the frame on which each is marked.

    Official scores of DAVIS are over the objects of the first frame: what begins later is followed and not scored.
    segtrack2 scores it from its mark on, where that is not the last frame.

    Raises:
        ValueError: There is no object in the first annotation.
    """
    first = dict.fromkeys(objects_of(clip.truth(0), convention), 0)
    if convention != "segtrack2":
        return first
    later = {i: start for i, start in clip.starts.items() if 0 < start < len(clip) - 1}
    return dict(sorted({**later, **first}.items()))


def label_notes(clips: Sequence[Clip], convention: Convention) -> list[str]:
    """What the values of the ground truth mean, and which objects begin later: a line for each thought."""
    by_rule: dict[str, list[str]] = {}
    lines = []
    for clip in clips:
        by_rule.setdefault(clip.rule.text, []).append(clip.name)
        if isinstance(clip, FileClip) and clip.begin:
            lines.append(f"{clip.name}: begins at {clip.stem(0)}, the first annotation that marks an object")
        scored = scored_objects(clip, convention)
        for instance_id, start in clip.starts.items() if convention != "davis2016" else ():
            if start:
                is_scored = instance_id in scored
                what = "scored from there" if is_scored else f"not scored, {convention} takes those of the first frame"
                lines.append(f"{clip.name}: object {instance_id} begins at {clip.stem(start)}: followed, {what}")
    rules = [f"labels: {text}" for text in by_rule]
    if len(by_rule) > 1:
        rules = [f"labels: {text} ({', '.join(names)})" for text, names in by_rule.items()]
    return [*rules, *lines]
