# SPDX-License-Identifier: Apache-2.0
r"""What small objects lose at the working size, and what more pixels would win: J and F by size of the object.

    python tools/measure_small_objects.py --root CLIPS --around DATA/ecssd/images --frames 16 --json FILE \
        --methods 512,768,1024,window384,zoom1920

A method is a working size, zoomN: zoom.size N at working size 512, or windowN: for each object a window of N x N pixels
of the image, or of 2.2 times the object where that is more, is cut out around its true place (a mean over seven
frames) and tracked as a video of its own at working size N, with whatever else is marked in it. That is an oracle: the
best that a zoom could do.

With --around the frames are put into 1920x1080 pixels of a held-out still first, at their own size, so that objects
become small. An object counts in the class of the longer side of its box on its seed, in pixels of an image whose
longer side has 512. F is within 4 pixels of the image; J and F are without the first frame. Times are CPU time of one
thread per frame; for windows, of all windows together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config, from_flat, to_flat
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.metrics.davis import boundary_f, jaccard
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.training.split import both_hashes, read_split
from maskrnn_ros.types import Box, Frame, LabelArray, Seed, UInt8Array

CLASSES = (16, 24, 32, 48, 80, 1000)
CANVAS = 1080, 1920
TOLERANCE = 4
ROOM = 2.2
LEAST = 60  # pixels of the image that an object has on its seed


@dataclasses.dataclass
class Video:
    """All of a clip."""

    name: str
    images: list[UInt8Array]
    truths: list[LabelArray]

    @property
    def objects(self) -> list[int]:
        """Ids that are marked."""
        ids, counts = np.unique(self.truths[0], return_counts=True)
        return [int(i) for i, n in zip(ids, counts, strict=True) if 0 < i < 255 and n >= LEAST]

    @property
    def seed(self) -> LabelArray:
        """What is marked on its first frame."""
        first = self.truths[0]
        return np.where(np.isin(first, self.objects), first, 0).astype(np.int32)

    def size_class(self, i: int) -> int:
        """Longest side of the class of an object."""
        box = Box.of_mask(self.truths[0] == i)
        assert box is not None
        side = max(box.width, box.height) * 512 / max(self.truths[0].shape)
        return next(top for top in CLASSES if side < top)


def read(args: argparse.Namespace) -> Iterator[Video]:
    """The clips, one after the other."""
    stills = [] if args.around is None else held_out(args.around)
    for number, clip in enumerate(find_clips(args.root, names=args.sequences)):
        count = min(len(clip), args.frames)
        video = Video(clip.name, [clip.image(t) for t in range(count)], [clip.truth(t) for t in range(count)])
        yield video if args.around is None else inside(video, stills[number], np.random.default_rng(number))


def held_out(folder: Path) -> list[UInt8Array]:
    """Pictures of a folder that no training sees, largest first of their kind."""
    split, found = read_split(), []
    for path in sorted(folder.iterdir()):
        image = np.asarray(cv2.imread(str(path)))[..., ::-1].copy()
        if split.holds(both_hashes(image)) and image.shape[1] >= 1.2 * image.shape[0]:
            found.append(image)
        if len(found) == 40:
            break
    return found


def inside(video: Video, still: UInt8Array, random: np.random.Generator) -> Video:
    """The clip as a part of a larger picture."""
    canvas = cv2.resize(still, CANVAS[::-1], interpolation=cv2.INTER_CUBIC)
    height, width = video.images[0].shape[:2]
    y, x = (int(random.integers(0, whole - part)) for whole, part in zip(CANVAS, (height, width), strict=True))
    images, truths = [], []
    for image, truth in zip(video.images, video.truths, strict=True):
        images.append(canvas.copy())
        images[-1][y : y + height, x : x + width] = image
        truths.append(np.zeros(CANVAS, np.int32))
        truths[-1][y : y + height, x : x + width] = truth
    return Video(video.name, images, truths)


def settings(size: int, changes: Sequence[str]) -> Config:
    """Defaults on one thread, at a working size."""
    flat = {**to_flat(Config()), "threads": 1, "working_size": size}
    for change in changes:
        name, value = change.split("=")
        flat[name] = type(flat[name])(value) if not isinstance(flat[name], bool) else value == "true"
    return from_flat(flat)


def track(images: Sequence[UInt8Array], seed: LabelArray, config: Config) -> tuple[list[LabelArray], float]:
    """Labels of all frames, and CPU seconds of those after the first."""
    tracker = build_tracker(config)
    found, spent = [seed], 0.0
    for t, image in enumerate(images):
        frame = Frame(stamp_ns=(t + 1) * 41_666_667, image=np.ascontiguousarray(image))
        begin = time.process_time()
        if t == 0:
            tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=seed), frame)
            continue
        found.append(tracker.step(frame).labels)
        spent += time.process_time() - begin
    return found, spent


def windows(video: Video, i: int, least: int) -> tuple[list[tuple[int, int]], int]:
    """Corners (y, x) of a moving square around an object, and its side."""
    boxes = [Box.of_mask(truth == i) for truth in video.truths]
    known = [t for t, box in enumerate(boxes) if box is not None]
    size = video.truths[0].shape
    sides = [max(boxes[t].width, boxes[t].height) for t in known]
    side = min(max(least, round(ROOM * max(sides))), *size)
    centres = np.array([[(boxes[t].y0 + boxes[t].y1) / 2, (boxes[t].x0 + boxes[t].x1) / 2] for t in known])
    every = [np.interp(range(len(boxes)), known, centres[:, axis]) for axis in (0, 1)]
    smooth = [np.convolve(np.pad(line, 3, "edge"), np.ones(7) / 7, "valid") for line in every]
    corners = [np.clip(np.round(line - side / 2), 0, whole - side) for line, whole in zip(smooth, size, strict=True)]
    return [(int(y), int(x)) for y, x in zip(*corners, strict=True)], side


def zoomed(video: Video, i: int, size: int, changes: Sequence[str]) -> tuple[list[npt.NDArray[np.bool_]], float]:
    """Masks of one object by an oracle's window."""
    corners, side = windows(video, i, size)
    cuts = [(slice(y, y + side), slice(x, x + side)) for y, x in corners]
    parts = [image[cut] for image, cut in zip(video.images, cuts, strict=True)]
    labels, spent = track(parts, np.ascontiguousarray(video.seed[cuts[0]]), settings(size, changes))
    masks = []
    for found, cut in zip(labels, cuts, strict=True):
        masks.append(np.zeros(video.truths[0].shape, np.bool_))
        masks[-1][cut] = found == i
    return masks, spent


def scores(masks: Sequence[npt.NDArray[np.bool_]], video: Video, i: int) -> tuple[float, float]:
    """J and F of an object, means of the frames after the first."""
    j, f = [], []
    for mask, labels in zip(masks[1:], video.truths[1:], strict=True):
        truth = labels == i
        box = Box.of_mask(mask | truth)
        if box is None:
            j.append(1.0)
            f.append(1.0)
            continue
        cut = box.grown(TOLERANCE + 2, truth.shape).slices
        j.append(jaccard(mask[cut], truth[cut]))
        f.append(boundary_f(mask[cut], truth[cut], TOLERANCE))
    return float(np.mean(j)), float(np.mean(f))


def measure(video: Video, method: str, changes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each object."""
    rows, spent, per_object = [], 0.0, {}
    if method.startswith("window"):
        for i in video.objects:
            masks, seconds = zoomed(video, i, int(method[6:]), changes)
            per_object[i] = scores(masks, video, i)
            spent += seconds
    else:
        zoom = [f"zoom.size={method[4:]}"] if method.startswith("zoom") else []
        config = settings(512 if zoom else int(method), [*changes, *zoom])
        labels, spent = track(video.images, video.seed, config)
        per_object = {i: scores([found == i for found in labels], video, i) for i in video.objects}
    for i, (j, f) in per_object.items():
        ms = spent * 1000 / (len(video.images) - 1)
        rows.append({"clip": video.name, "id": i, "class": video.size_class(i), "method": method, "j": j, "f": f})
        rows[-1]["ms"] = ms
    return rows


def table(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> str:
    """J / F by class of size and method."""
    lines = [" | ".join(["px", "objects", *methods])]
    for low, top in zip((0, *CLASSES), (*CLASSES, 10**6), strict=False):
        cells = []
        for method in methods:
            own = [row for row in rows if row["class"] == top and row["method"] == method]
            if own:
                cells.append(f"{np.mean([r['j'] for r in own]):.3f} / {np.mean([r['f'] for r in own]):.3f}")
        if cells:
            lines.append(" | ".join([f"{low} to {top}", str(len(own)), *cells]))
    clips = {row["clip"] for row in rows}
    ms = [np.mean([{r["clip"]: r["ms"] for r in rows if r["method"] == m}[c] for c in clips]) for m in methods]
    return "\n".join([*lines, " | ".join(["ms", "", *(f"{value:.0f}" for value in ms)])])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="clips in the layout of DAVIS")
    parser.add_argument("--sequences", type=lambda text: text.split(","), default=(), metavar="A,B")
    parser.add_argument("--around", type=Path, metavar="DIR", help="stills that the clips are put into")
    parser.add_argument("--frames", type=int, default=24, help="of each clip; default 24")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["512", "768", "1024", "window384"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, for all methods")
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows, for machines; rows that are there stay")
    args = parser.parse_args()
    set_threads(1)
    cv2.setNumThreads(1)
    rows = json.loads(args.json.read_text()) if args.json is not None and args.json.exists() else []
    done = {(row["clip"], row["method"]) for row in rows}
    for video in read(args):
        for method in args.methods:
            if (video.name, method) not in done:
                rows += measure(video, method, args.set)
        print(video.name, flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows, args.methods))


if __name__ == "__main__":
    main()
