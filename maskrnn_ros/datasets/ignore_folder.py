# SPDX-License-Identifier: Apache-2.0
"""Ignore masks in a folder: a picture named like its frame, nonzero where no object can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from maskrnn_ros.datasets.frames import FRAME_SUFFIXES, check_size
from maskrnn_ros.labels import read_soft_mask
from maskrnn_ros.types import BoolArray

_LOSSLESS = (".png", ".bmp")
"""A JPEG has values other than 0 along every edge."""


@dataclasses.dataclass(frozen=True)
class IgnoreFolder:
    """The ignore masks of a video.

    Args:
        paths: By the frame's stem; frames that have none are normal.
    """

    paths: Mapping[str, Path]

    @staticmethod
    def of(folder: Path, stems: Collection[str]) -> IgnoreFolder:
        """Those of a folder, for the frames of these names.

        Raises:
            ValueError: No such folder, no mask in it, one that belongs to no frame, two of one frame, or a JPEG.
        """
        if not folder.is_dir():
            raise ValueError(f"expected a folder of ignore masks, found no folder {folder}")
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES and p.name[0] != ".")
        if not found:
            raise ValueError(f"expected ignore masks ({', '.join(_LOSSLESS)}) in {folder}, found none")
        paths: dict[str, Path] = {}
        for path in found:
            if path.suffix.lower() not in _LOSSLESS:
                raise ValueError(f"{path}: expected an ignore mask as {' or '.join(_LOSSLESS)}, which keep 0 as 0")
            if path.stem not in stems:
                known = sorted(stems)
                raise ValueError(f"{path}: expected a frame of that name, found {known[0]} .. {known[-1]}")
            if paths.setdefault(path.stem, path) is not path:
                raise ValueError(f"{folder}: expected one mask of a frame, found {paths[path.stem].name}, {path.name}")
        return IgnoreFolder(paths)

    def mask(self, stem: str, size: tuple[int, int] | None = None) -> BoolArray | None:
        """That of a frame, bool (H, W), of this size where it is given; None where the frame has none.

        Raises:
            ValueError: It is no grey image, or of another size.
        """
        path = self.paths.get(stem)
        if path is None:
            return None
        pixels = read_soft_mask(path)
        if size is not None:
            check_size(path, (pixels.shape[0], pixels.shape[1]), "the frame", size)
        mask: BoolArray = pixels != 0
        return mask

    def check(self, size: tuple[int, int]) -> None:
        """Read them all.

        Raises:
            ValueError: See ``mask``.
        """
        for stem in self.paths:
            self.mask(stem, size)
