# SPDX-License-Identifier: Apache-2.0
"""Sequences with ground truth on disk: the layouts of DAVIS and of SegTrack v2."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from maskrnn_ros.datasets.clips import FileClip
from maskrnn_ros.datasets.davis import RESOLUTIONS, davis_sequence
from maskrnn_ros.datasets.frames import frame_paths
from maskrnn_ros.datasets.ignore_folder import IgnoreFolder
from maskrnn_ros.disk import check_plain_name

READERS = ("davis", "segtrack")


def find_clips(
    root: Path,
    reader: str = "davis",
    annotations: str | None = None,
    names: Sequence[str] = (),
    split: str = "",
    *,
    mono16_bits: str = "auto",
    threshold: int | None = None,
    ignore_masks: Path | None = None,
) -> list[FileClip]:
    """The sequences asked for: those named, else those of the split, else all below the annotations.

    Args:
        root: Folder of the data set.
        reader: "davis" or "segtrack".
        annotations: Folder of the ground truth in it; default ``Annotations``, for SegTrack v2 ``GroundTruth``.
        names: Names of sequences.
        split: File of ``ImageSets``, e.g. "val".
        mono16_bits: See ``FileClip``.
        threshold: Likewise.
        ignore_masks: Folder with a folder of ignore masks for every sequence, by the frames' stems.

    Raises:
        ValueError: A folder, a file or a frame's ground truth is missing, or an ignore mask belongs to no frame.
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
    clips = [read(root, name, annotations) for name in chosen]
    clips = [dataclasses.replace(clip, mono16_bits=mono16_bits, threshold=threshold) for clip in clips]
    return clips if ignore_masks is None else [_with_ignored(clip, ignore_masks / clip.name) for clip in clips]


def _with_ignored(clip: FileClip, folder: Path) -> FileClip:
    ignores = IgnoreFolder.of(folder, {path.stem for path in clip.frames})
    return dataclasses.replace(clip, ignores=ignores)


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
