# SPDX-License-Identifier: Apache-2.0
"""One picture of what an evaluation found: the best clips and the worst, each a row of frames at fixed times.

Tinted: the masks; white line: the ground truth. The frames are those of the data set, so its licence goes with the
picture. With --drawing there is no frame in it: white is found, orange is missed, blue is wrong.

    maskrnn evaluate --root DAVIS --out OUT
    python tools/make_gallery.py --root DAVIS --results OUT                       # OUT/gallery.jpg
    python tools/make_gallery.py --root DAVIS --results OUT --sequences bmx-trees,blackswan --out FILE.jpg
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.datasets.clips import Clip, objects_of
from maskrnn_ros.datasets.readers import READERS, find_clips
from maskrnn_ros.evaluation.report import picture
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import Convention, jaccard, mask_of, scored_frames
from maskrnn_ros.overlay import contact_sheet, write_text
from maskrnn_ros.types import LabelArray, UInt8Array

BEST, WORST = 4, 2
TIMES = 4
STRIP = 22
"""Height of the line above a row, pixels."""


def main() -> int:
    """Parse, choose, draw, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and the annotations")
    parser.add_argument("--reader", choices=READERS, default="davis", help="layout of the data set")
    parser.add_argument("--annotations", metavar="DIR", help="folder in ROOT, as in the evaluation")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="--out of maskrnn evaluate")
    parser.add_argument("--sequences", metavar="A,B", default="", help="default: the four best and the two worst by J")
    parser.add_argument("--width", type=int, default=300, help="of a frame, pixels")
    parser.add_argument("--drawing", action="store_true", help="masks only, without the frames")
    parser.add_argument("--quality", type=int, default=80, help="of the JPEG file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default gallery.jpg in the results")
    parser.add_argument("--force", action="store_true", help="write over FILE")
    args = parser.parse_args()
    out = args.out or args.results / "gallery.jpg"
    try:
        if out.exists() and not args.force:
            raise ValueError(f"{out} exists already; give another file or --force")
        scores = by_sequence(args.results)
        names = [name for name in args.sequences.split(",") if name] or chosen(scores)
        unknown = [name for name in names if name not in scores]
        if unknown:
            raise ValueError(f"expected sequences of the results, {', '.join(scores)}; found {unknown[0]!r}")
        convention = _convention(args.results)
        clips = find_clips(args.root, args.reader, args.annotations, names)
        rows = [_row(clip, scores[clip.name], args.results, convention, args.width, args.drawing) for clip in clips]
    except (ValueError, OSError) as error:
        print(f"make_gallery: {error}", file=sys.stderr)
        return 2
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, args.quality]
    )
    out.write_bytes(data.tobytes())
    print(f"{out}: {len(rows)} rows, {data.size} bytes")
    return 0


def by_sequence(results: Path) -> dict[str, float]:
    """J of every sequence, the mean over its objects, best first.

    Raises:
        ValueError: The folder holds no table of scores.
    """
    file = results / "per_object.csv"
    if not file.is_file():
        raise ValueError(f"expected the results of maskrnn evaluate --out, found no {file}")
    found: dict[str, list[float]] = {}
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            found.setdefault(line["sequence"], []).append(float(line["j_mean"]))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def chosen(scores: dict[str, float]) -> list[str]:
    """The four best and the two worst, best first; all where there are no more.

    >>> chosen(dict.fromkeys("abcdefgh", 0.5))
    ['a', 'b', 'c', 'd', 'g', 'h']
    """
    names = list(scores)
    return names if len(names) <= BEST + WORST else names[:BEST] + names[-WORST:]


def _convention(results: Path) -> Convention:
    with (results / "summary.csv").open(newline="") as lines:
        convention: Convention = next(csv.DictReader(lines))["convention"]
    return convention


def _row(clip: Clip, j_mean: float, results: Path, convention: Convention, width: int, is_drawing: bool) -> UInt8Array:
    ids = objects_of(clip.truth(0), convention)
    numbers: Sequence[int] = scored_frames(range(len(clip)), convention)
    places = np.unique(np.linspace(0, len(numbers) - 1, TIMES).round().astype(int))
    tiles = []
    for number in (numbers[i] for i in places):
        path = results / clip.name / f"{clip.stem(number)}.png"
        labels, truth = read_labels(path), clip.truth(number)
        js = [jaccard(mask_of(labels, i, convention), mask_of(truth, i, convention)) for i in ids]
        tile = drawing(labels, truth, ids, convention) if is_drawing else picture(clip, number, labels, convention)
        tiles.append((f"frame {number}: J {np.mean(js):.2f}", tile))
    sheet = contact_sheet(tiles, columns=TIMES, width=width)
    strip = np.zeros((STRIP, sheet.shape[1], 3), np.uint8)
    objects = f", {len(ids)} objects" if len(ids) > 1 else ""
    write_text(strip, f"{clip.name}: J {j_mean:.3f} ({convention}{objects})", (4, 15))
    return np.concatenate([strip, sheet])


def drawing(labels: LabelArray, truth: LabelArray, ids: Sequence[int], convention: Convention) -> UInt8Array:
    """What is found (white), missed (orange) and wrong (blue) of labels (H, W), RGB, uint8 (H, W, 3).

    The colours are told apart by people who do not see red or green, too.
    """
    canvas = np.full((*truth.shape, 3), 48, np.uint8)
    for i in ids:
        found, true = mask_of(labels, i, convention), mask_of(truth, i, convention)
        canvas[found & true], canvas[true & ~found] = (245, 245, 245), (240, 150, 40)
        canvas[found & ~true & (truth == 0)] = (60, 130, 240)
    return canvas


if __name__ == "__main__":
    sys.exit(main())
