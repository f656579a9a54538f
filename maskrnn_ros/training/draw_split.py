# SPDX-License-Identifier: Apache-2.0
"""How ``split.json`` was drawn; once, before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrnn_ros.training.sources import IGNORE, StillFile, still_files
from maskrnn_ros.training.split import Split, picture_hash

CLIPS = ("bmx-bumps", "breakdance-flare", "dog-agility", "kite-walk", "scooter-gray")
"""The clips that every choice was made by so far; figures stay comparable."""

MOTION = ("cars5", "marple5", "marple10", "people2", "tennis")

COUNTS = {
    "ecssd": 200,
    "pennfudan": 50,
    "coco_mini": 60,
    "coco_persons_multi": 20,
    "feral_cats": 20,
    "taco_part": 8,
    "vosvs_multi": 15,
    "bottles_waste": 10,
    "mandarina": 5,
}
"""Stills to hold out of each set; but for the first two only such with several objects."""

_SINGLE_WILL_DO = ("ecssd", "pennfudan")
_LEAST = 400
"""Pixels of an object that counts."""


def draw_split(data: Path, seed: int = 0) -> Split:
    """Draw what is held out of all that lies below ``data``, see ``sources``.

    Raises:
        ValueError: A set has too few stills.
    """
    random = np.random.default_rng(seed)
    files = still_files(data)
    stills = {}
    for source, count in COUNTS.items():
        own = [file for file in files if file.source == source]
        chosen = [file for file in random.permutation(np.array(own, object)) if _will_do(file)][:count]
        if len(chosen) < count:
            raise ValueError(f"{source}: expected {count} stills to hold out, found {len(chosen)}")
        stills[source] = tuple(sorted(picture_hash(file.read().image).tobytes().hex() for file in chosen))
    return Split(clips=CLIPS, motion=MOTION, stills=stills)


def _will_do(file: StillFile) -> bool:
    counts = np.bincount(file.read().labels.ravel(), minlength=IGNORE + 1)[1:IGNORE]
    return int((counts >= _LEAST).sum()) >= (1 if file.source in _SINGLE_WILL_DO else 2)
