# SPDX-License-Identifier: Apache-2.0
"""Write the held out clips of layers, in the layout of DAVIS: several objects, twins, things in front.

    python tools/make_layered_clips.py --data DATA --out OUT
    maskrnn evaluate --root OUT --convention davis2017 --preset default

They are made of the stills that `maskrnn_ros/training/split.json` holds out, so that no training has seen them. The
same arguments give the same clips. DATA: see docs/training.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.labels import write_labels
from maskrnn_ros.training.layers import Clip, Scenes
from maskrnn_ros.training.sources import IGNORE, allowed, still_files
from maskrnn_ros.training.split import read_split

SIZE = (288, 512)
FRAMES = 24
LEAST = 500
"""Pixels that an object must have on the first frame; a clip has two of them or more."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the clips")
    parser.add_argument("--clips", type=int, default=14, help="how many; default 14")
    parser.add_argument("--seed", type=int, default=900, help="of the random numbers; default 900")
    args = parser.parse_args()
    scenes = Scenes(allowed(still_files(args.data), read_split(), held_out=True), SIZE)
    number, seed = 0, args.seed
    while number < args.clips:
        clip = scenes.draw(np.random.default_rng(seed), [float(time) for time in range(FRAMES)])
        seed += 1
        counts = np.bincount(clip.labels[0].ravel(), minlength=IGNORE + 1)[:IGNORE]
        ids = [i for i in range(1, IGNORE) if counts[i] >= LEAST]
        if len(ids) >= 2:
            write(clip, ids, args.out, f"lay{number:02d}")
            number += 1


def write(clip: Clip, ids: list[int], out: Path, name: str) -> None:
    """A clip whose objects are numbered anew; who is not seeded is background."""
    images, masks = out / "JPEGImages" / name, out / "Annotations" / name
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (image, labels) in enumerate(zip(clip.images, clip.labels, strict=True)):
        renamed = np.select([labels == i for i in ids], range(1, len(ids) + 1)).astype(np.int32)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(images / f"{number:05d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
        write_labels(masks / f"{number:05d}.png", renamed)


if __name__ == "__main__":
    main()
