# SPDX-License-Identifier: Apache-2.0
"""What no training may see: held out clips by name, held out stills by the hash of their picture (``split.json``).

Sets of stills overlap: the same photograph is in two of them, cut or scaled. So a still is known by what it shows and
not by where it lies, and near-duplicates of a held out one are held out, too, whatever set they are in.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

SPLIT = Path(__file__).with_name("split.json")
"""The split that ships; every training reads it."""

_SIDE = 16
_NEAR = 24
"""Bits of 256 by which pictures of one scene differ at most; looked at: up to about 20 they are, from 30 on hardly."""

Hash = npt.NDArray[np.uint8]


def picture_hash(image: UInt8Array) -> Hash:
    """Difference hash (dHash) of 16 x 16 comparisons of neighbouring cells, in rows.

    Args:
        image: RGB, uint8, (H, W, 3).

    Returns:
        uint8, (32,): 256 bits.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1])


def both_hashes(image: UInt8Array) -> tuple[Hash, Hash]:
    """Hashes of a picture and of its mirror image: sets that were augmented hold either."""
    return picture_hash(image), picture_hash(np.ascontiguousarray(image[:, ::-1]))


@dataclasses.dataclass(frozen=True)
class Split:
    """What is held out.

    Args:
        clips: Names of clips of DAVIS-2016 train.
        motion: Names of clips of the Berkeley motion segmentation set.
        stills: Hashes of stills by the set that they were drawn from, hexadecimal.
    """

    clips: tuple[str, ...]
    motion: tuple[str, ...]
    stills: dict[str, tuple[str, ...]]

    @functools.cached_property
    def _hashes(self) -> Hash:
        rows = [np.frombuffer(bytes.fromhex(text), np.uint8) for texts in self.stills.values() for text in texts]
        return np.stack(rows) if rows else np.zeros((0, _SIDE * _SIDE // 8), np.uint8)

    def holds(self, hashes: Iterable[Hash]) -> bool:
        """Whether a picture with these hashes, or one nearly like it, is held out."""
        return any(nearest(own, self._hashes) <= _NEAR for own in hashes)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def nearest(own: Hash, others: Hash) -> int:
    """Bits in which the most similar of N hashes (N, 32) differs; 256 where there is none."""
    if not len(others):
        return _SIDE * _SIDE
    return int(np.bitwise_count(others ^ own).sum(axis=1).min())


def read_split(path: Path = SPLIT) -> Split:
    """Read the file.

    Raises:
        ValueError: It is no split.
        OSError: It cannot be read.
    """
    try:
        known = json.loads(path.read_text())
        stills = {name: tuple(texts) for name, texts in known["stills"].items()}
        return Split(clips=tuple(known["clips"]), motion=tuple(known["motion"]), stills=stills)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected clips, motion and stills that are held out: {error!r}") from error
