# SPDX-License-Identifier: Apache-2.0
"""Boxes and time of this tracker beside OpenCV's CSRT, a box tracker, on the same frames in one process.

    pip install opencv-contrib-python-headless      # in an environment of its own: it takes the place of opencv-python
    python tools/compare_csrt.py --root DAVIS --sequences dog-agility,kite-walk [--width 854] [--json FILE]

Every object of the first frame is given: to CSRT as its box, to this tracker as its mask. Prints by clip the mean IoU
of the boxes with those of the annotations (0 where nothing is reported; frames without the object are left out), the
share of frames with an IoU above 0.5, and the median ms of a frame, all objects together. Both get one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.config import from_flat
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.disk import write_text
from maskrnn_ros.labels import binary_as_instance, read_labels
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Box, Frame, LabelArray, Seed, UInt8Array

Boxes = dict[int, Box]


class Csrt:
    """One CSRT for each object.

    Args:
        image: The first frame, RGB, uint8 (H, W, 3).
        boxes: The objects on it.
    """

    def __init__(self, image: UInt8Array, boxes: Boxes) -> None:
        self._trackers = {}
        for number, box in boxes.items():
            self._trackers[number] = cv2.TrackerCSRT_create()
            self._trackers[number].init(_bgr(image), (box.x0, box.y0, box.width, box.height))

    def __call__(self, image: UInt8Array, stamp_ns: int) -> Boxes:
        """The boxes of the objects that it says it has."""
        found, bgr = dict[int, Box](), _bgr(image)
        for number, tracker in self._trackers.items():
            is_there, (x, y, width, height) = tracker.update(bgr)
            if is_there:
                found[number] = Box(round(x), round(y), round(x + width), round(y + height))
        return found


class Ours:
    """This tracker with its default settings and one thread.

    Args:
        image: The first frame, RGB, uint8 (H, W, 3).
        labels: The objects on it.
    """

    def __init__(self, image: UInt8Array, labels: LabelArray) -> None:
        self._tracker = build_tracker(from_flat({"device": "cpu", "threads": 1}))
        self._tracker.seed(Seed(stamp_ns=1, labels=labels), Frame(stamp_ns=1, image=image))

    def __call__(self, image: UInt8Array, stamp_ns: int) -> Boxes:
        """The boxes of the masks."""
        return boxes_of(self._tracker.step(Frame(stamp_ns=stamp_ns, image=image)).labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder in the layout of DAVIS")
    parser.add_argument("--sequences", required=True, help="names, separated by commas")
    parser.add_argument("--width", type=int, default=0, help="bring the frames to this width; 0: as they are")
    parser.add_argument("--frames", type=int, default=10_000, help="of each clip at most so many")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    if not hasattr(cv2, "TrackerCSRT_create"):
        raise SystemExit("this OpenCV has no TrackerCSRT: pip install opencv-contrib-python-headless")
    cv2.setNumThreads(1)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'clip':20}{'objects':>8}{'':>8}{'IoU':>7}{'> 0.5':>7}{'ms':>8}")
    for name in args.sequences.split(","):
        figures[name] = compare(args.root, name, args.width, args.frames)
        for who, row in figures[name].items():
            print(
                f"{name:20}{row['objects']:8.0f}{who:>8}{row['iou']:7.3f}{row['above']:7.2f}{row['ms']:8.1f}",
                flush=True,
            )
    for who in ("csrt", "ours"):
        means = {key: float(np.mean([row[who][key] for row in figures.values()])) for key in ("iou", "above", "ms")}
        print(f"{'mean':28}{who:>8}{means['iou']:7.3f}{means['above']:7.2f}{means['ms']:8.1f}")
    if args.json is not None:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


def compare(root: Path, name: str, width: int, most: int) -> dict[str, dict[str, float]]:
    """Figures of both on a clip."""
    sequence = davis_sequence(root, name)
    frames = [
        (_to_width(read_frame(frame), width), _to_width(_labels(sequence.annotations[frame.stem]), width))
        for frame in sequence.frames[:most]
    ]
    image, labels = frames[0]
    seen = boxes_of(labels)
    followers: dict[str, Callable[[UInt8Array, int], Boxes]] = {"csrt": Csrt(image, seen), "ours": Ours(image, labels)}
    ious: dict[str, list[float]] = {who: [] for who in followers}
    spent: dict[str, list[float]] = {who: [] for who in followers}
    for number, (image, labels) in enumerate(frames[1:], 1):
        true = boxes_of(labels)
        for who, follow in followers.items():
            begin = time.perf_counter()
            found = follow(image, number * 10**9 // 24)
            spent[who].append(1e3 * (time.perf_counter() - begin))
            ious[who] += [found[i].iou(true[i]) if i in found else 0.0 for i in seen if i in true]
    return {
        who: {
            "objects": len(seen),
            "iou": float(np.mean(ious[who])),
            "above": float(np.mean(np.array(ious[who]) > 0.5)),
            "ms": float(np.median(spent[who])),
        }
        for who in followers
    }


def boxes_of(labels: LabelArray) -> Boxes:
    """The box of every object of a label image."""
    boxes = {int(number): Box.of_mask(labels == number) for number in np.unique(labels) if 0 < number < 255}
    return {number: box for number, box in boxes.items() if box is not None}


def _labels(file: Path) -> LabelArray:
    return binary_as_instance(read_labels(file))


def _to_width(picture: UInt8Array, width: int) -> UInt8Array:
    if not width or picture.shape[1] == width:
        return picture
    size = (width, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR if picture.ndim == 3 else cv2.INTER_NEAREST)
    )


def _bgr(image: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
