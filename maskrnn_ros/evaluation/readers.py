# SPDX-License-Identifier: Apache-2.0
"""Sequences with ground truth on disk: the layouts of DAVIS and of SegTrack v2."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from maskrnn_ros.disk import check_plain_name
from maskrnn_ros.evaluation.metrics import VOID, Convention
from maskrnn_ros.files import RESOLUTIONS, davis_sequence, frame_paths, read_frame, read_labels
from maskrnn_ros.types import LabelArray, UInt8Array

READERS = ("davis", "segtrack")


FPS = 24.0
"""Frames per second of DAVIS and of other folders of images, which do not say."""


class Clip(Protocol):
    """One sequence with ground truth: files, or a bag. Frames are numbered from 0, the seed's."""

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

    def truth(self, number: int) -> LabelArray:
        """Ground truth of the frame as it was found, int32 (H, W).

        Raises:
            ValueError: There is no such image.
        """
        ...

    def check(self) -> frozenset[int]:
        """Read all ground truth; returns every value in it.

        Raises:
            ValueError: Something cannot be read, or not all has the size of the first frame.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileClip:
    """Files of one sequence, see ``Clip``.

    Args:
        name: Name of the sequence.
        frames: Its frames, in order.
        truths: For each frame one label image, or one binary mask for each object (``are_masks``).
        are_masks: The truths are masks: not 0 (grey: 128 or more) is the object, and the first object has id 1.
    """

    name: str
    frames: tuple[Path, ...]
    truths: tuple[tuple[Path, ...], ...]
    are_masks: bool = False

    def __len__(self) -> int:
        """See ``Clip``."""
        return len(self.frames)

    def stem(self, number: int) -> str:
        """See ``Clip``."""
        return self.frames[number].stem

    def place(self, number: int) -> str:
        """See ``Clip``."""
        return str(self.frames[number])

    def stamp_ns(self, number: int) -> int:
        """See ``Clip``."""
        return round((number + 1) * 1e9 / FPS)

    def image(self, number: int) -> UInt8Array:
        """See ``Clip``."""
        return read_frame(self.frames[number])

    def truth(self, number: int) -> LabelArray:
        """Ground truth of a frame as it is on disk, int32 (H, W); where masks overlap the first object wins.

        Raises:
            ValueError: A file is no such image, or masks differ in size.
        """
        if not self.are_masks:
            return read_labels(self.truths[number][0])
        labels: LabelArray | None = None
        for instance_id, path in enumerate(self.truths[number], start=1):
            mask = _read_mask(path)
            if labels is None:
                labels = np.zeros(mask.shape, np.int32)
            check_size(path, (mask.shape[0], mask.shape[1]), self.truths[number][0], labels.shape)
            labels[mask & (labels == 0)] = instance_id
        assert labels is not None
        return labels

    def check(self) -> frozenset[int]:
        """See ``Clip``."""
        height, width = read_frame(self.frames[0]).shape[:2]
        values: set[int] = set()
        for number in range(len(self.frames)):
            labels = self.truth(number)
            check_size(self.truths[number][0], labels.shape, self.frames[0], (height, width))
            values.update(np.flatnonzero(np.bincount(labels.ravel())).tolist())
        return frozenset(values)


def check_size(path: Path | str, found: tuple[int, ...], other: Path | str, expected: tuple[int, ...]) -> None:
    """Refuse an image of another size than it should have.

    Raises:
        ValueError: The sizes (H, W) differ.
    """
    if tuple(found) != tuple(expected):
        raise ValueError(f"{path}: expected {expected[1]}x{expected[0]} like {other}, found {found[1]}x{found[0]}")


def default_convention(values: frozenset[int], reader: str) -> Convention:
    """davis2016 where no annotation holds an id other than 0, 1 or 255, else davis2017; segtrack2 for its reader."""
    if reader == "segtrack":
        return "segtrack2"
    return "davis2016" if values <= {0, 1, VOID} else "davis2017"


def objects_of(first_truth: LabelArray, convention: Convention) -> tuple[int, ...]:
    """Ids that are scored: 1 .. n, n = the largest of the first annotation; in davis2016 the one object.

    Raises:
        ValueError: There is no object.
    """
    ids = first_truth[(first_truth != 0) & ((convention == "davis2016") | (first_truth != VOID))]
    if not ids.size:
        void = f", 0 = background, {VOID} = void" if convention == "davis2017" else ", 0 = background"
        raise ValueError(f"expected an object in the first annotation ({convention}{void}), found none")
    return (1,) if convention == "davis2016" else tuple(range(1, int(ids.max()) + 1))


def find_clips(
    root: Path, reader: str = "davis", annotations: str | None = None, names: Sequence[str] = (), split: str = ""
) -> list[FileClip]:
    """The sequences asked for: those named, else those of the split, else all below the annotations.

    Args:
        root: Folder of the data set.
        reader: "davis" or "segtrack".
        annotations: Folder of the ground truth in it; default ``Annotations``, for SegTrack v2 ``GroundTruth``.
        names: Names of sequences.
        split: File of ``ImageSets``, e.g. "val".

    Raises:
        ValueError: A folder, a file or a frame's ground truth is missing.
    """
    if reader not in READERS:
        raise ValueError(f"reader must be one of {', '.join(READERS)}, got {reader!r}")
    annotations = annotations or ("Annotations" if reader == "davis" else "GroundTruth")
    read = davis_clip if reader == "davis" else segtrack_clip
    for name in names:
        check_plain_name(name, "sequence")  # results are written under it
    chosen = list(names) or (split_names(root, split) if split else folder_names(root, annotations))
    twice = sorted({name for name in chosen if chosen.count(name) > 1})
    if twice:
        raise ValueError(f"expected every sequence once, found {twice[0]!r} twice")
    return [read(root, name, annotations) for name in chosen]


def davis_clip(root: Path, name: str, annotations: str = "Annotations") -> FileClip:
    """One sequence of DAVIS: ``JPEGImages[/480p]/<name>`` and the same below the annotations.

    Raises:
        ValueError: A folder is absent or empty, or a frame has no annotation.
    """
    found = davis_sequence(root, name, annotations)
    bare = [frame for frame in found.frames if frame.stem not in found.annotations]
    if bare:
        folder = next(iter(found.annotations.values())).parent
        raise ValueError(
            f"{folder}: expected an annotation for every frame, {len(found.frames)}, found none for {bare[0].name}"
        )
    truths = tuple((found.annotations[frame.stem],) for frame in found.frames)
    return FileClip(name=name, frames=found.frames, truths=truths)


def segtrack_clip(root: Path, name: str, annotations: str = "GroundTruth") -> FileClip:
    """One sequence of SegTrack v2: ``JPEGImages/<name>`` and ``GroundTruth/<name>[/<object>]``, masks by stem.

    Raises:
        ValueError: A folder is absent or empty, or a frame has no mask of one of the objects.
    """
    frames = frame_paths(root / "JPEGImages" / name)
    folder = root / annotations / name
    if not folder.is_dir():
        raise ValueError(f"expected masks in {folder}, found no such folder")
    objects = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: (len(path.name), path.name))
    masks = [{path.stem: path for path in frame_paths(place)} for place in objects or [folder]]
    for place, by_stem in zip(objects or [folder], masks, strict=True):
        bare = [frame for frame in frames if frame.stem not in by_stem]
        if bare:
            raise ValueError(f"{place}: expected a mask for every frame, {len(frames)}, found none for {bare[0].name}")
        stray = sorted(by_stem.keys() - {frame.stem for frame in frames})
        if stray:
            raise ValueError(f"{by_stem[stray[0]]}: expected a frame of that name, found {frames[0]} .. {frames[-1]}")
    truths = tuple(tuple(by_stem[frame.stem] for by_stem in masks) for frame in frames)
    return FileClip(name=name, frames=frames, truths=truths, are_masks=True)


def split_names(root: Path, split: str) -> list[str]:
    """Sequences of ``ImageSets/[2016|2017|480p|1080p]/<split>.txt``: one name a line, or DAVIS-2016's pairs of paths.

    Raises:
        ValueError: There is no such file, or it names nothing.
    """
    sets = root / "ImageSets"
    places = [sets, *(sets / part for part in ("2017", "2016", *RESOLUTIONS[1:]))]
    files = [place / f"{split}.txt" for place in places if (place / f"{split}.txt").is_file()]
    if not files:
        known = sorted({path.stem for path in sets.rglob("*.txt")}) if sets.is_dir() else []
        raise ValueError(f"expected the split {split!r} below {sets}, found {', '.join(known) or 'none'}")
    words = [line.split()[0] for line in files[0].read_text().splitlines() if line.strip()]
    names = [Path(word).parent.name if "/" in word else word for word in words]
    if not names:
        raise ValueError(f"{files[0]}: expected names of sequences, found none")
    return list(dict.fromkeys(names))


def folder_names(root: Path, annotations: str) -> list[str]:
    """Folders below the annotations, or below the folder of a resolution in them.

    Raises:
        ValueError: There are none.
    """
    folder = root / annotations
    if not folder.is_dir():
        raise ValueError(f"expected sequences in {folder}, found no such folder")
    inner = next((folder / part for part in RESOLUTIONS[1:] if (folder / part).is_dir()), folder)
    names = sorted(path.name for path in inner.iterdir() if path.is_dir())
    if not names:
        raise ValueError(f"expected a folder for each sequence in {inner}, found none")
    return names


def _read_mask(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Mask of a binary image, grey or colour, bool (H, W)."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise ValueError(f"{path}: expected a mask, found {data.size} bytes that are no image")
    return np.asarray(image >= 128 if image.max() > 1 else image > 0)
