# SPDX-License-Identifier: Apache-2.0
"""Sequences on disk in the layout of DAVIS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from maskrnn_ros.datasets.frames import frame_paths
from maskrnn_ros.disk import check_plain_name

CLIP_ROOT, CLIP_NAME = Path(__file__).parent.parent / "data" / "tabletop", "tabletop"
"""The demo clip, a data set of one sequence."""

RESOLUTIONS = ("", "480p", "1080p", "Full-Resolution")
"""Folders that DAVIS may put between ``JPEGImages`` (or ``Annotations``) and the sequence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DavisSequence:
    """Files of one sequence in the layout of DAVIS.

    Args:
        name: Name of the sequence.
        frames: Its frames, in order.
        annotations: Its label images by the stem of their frame; not every frame need have one.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: Mapping[str, Path]


def davis_sequence(root: Path | str, sequence: str, annotations: str = "Annotations") -> DavisSequence:
    """Find the frames and annotations of a sequence below ``JPEGImages`` and the annotations folder.

    Both may hold the sequence itself, or a folder ``480p``, ``1080p`` or ``Full-Resolution`` that holds it.

    Args:
        root: Folder of the data set.
        sequence: Name of the sequence, e.g. "bmx-trees".
        annotations: Folder of the label images, e.g. "Annotations_instances".

    Raises:
        ValueError: A folder is absent or empty, or an annotation has no frame.
    """
    frames = frame_paths(_sequence_folder(Path(root), "JPEGImages", sequence))
    labels = {path.stem: path for path in frame_paths(_sequence_folder(Path(root), annotations, sequence))}
    stray = sorted(labels.keys() - {path.stem for path in frames})
    if stray:
        found = f"{frames[0]} .. {frames[-1].name}"
        raise ValueError(f"{labels[stray[0]]}: expected a frame of that name, found {found}")
    return DavisSequence(name=sequence, frames=frames, annotations=labels)


def _sequence_folder(root: Path, kind: str, sequence: str) -> Path:
    check_plain_name(sequence, "sequence")
    candidates = [root / kind / resolution / sequence for resolution in RESOLUTIONS]
    for folder in candidates:
        if sequence and folder.is_dir():
            return folder
    parents = [root / kind / resolution for resolution in reversed(RESOLUTIONS)]
    parent = next((folder for folder in parents if folder.is_dir()), None)
    names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent else []
    found = f"in {parent}: {', '.join(names) or 'nothing'}" if parent else f"no folder {root / kind}"
    expected = " or ".join(map(str, candidates))
    raise ValueError(f"expected the sequence {sequence!r} at {expected}, found {found}")
