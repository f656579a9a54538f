# SPDX-License-Identifier: Apache-2.0
"""What masks by flow are worth (``while_busy: propagate``): mean J where the networks look at every n-th image.

    python tools/measure_propagation.py --root DAVIS --sequences A,B [--every 2,3] [--config YAML]

Each look is known n images later, as on a machine whose networks take n periods of the camera. Of the images that come
until the next one is known the masks by flow are scored, and the last mask as it was; beside them the looks themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.datasets.clips import FileClip, frame_of
from maskrnn_ros.datasets.readers import davis_clip
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.parameter_file import load
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ahead import Ahead, Look
from maskrnn_ros.types import LabelArray, Seed


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set in the layout of DAVIS")
    parser.add_argument("--sequences", required=True, metavar="NAME,...")
    parser.add_argument("--every", default="2,3", metavar="N,...", help="images from a look to the next one")
    parser.add_argument("--config", type=Path, metavar="YAML", help="ROS parameter file")
    args = parser.parse_args()
    config = load(args.config) if args.config else Config()
    print("every  by flow  last mask  looks")
    for every in map(int, args.every.split(",")):
        rows = [measured(davis_clip(args.root, name), every, config) for name in args.sequences.split(",")]
        flow, last, looks = np.mean(rows, axis=0)
        print(f"{every:5}  {flow:7.3f}  {last:9.3f}  {looks:5.3f}", flush=True)


def measured(clip: FileClip, every: int, config: Config) -> tuple[float, float, float]:
    """Mean J of a clip: by flow, of the last mask as it was, of the looks."""
    tracker, ahead = build_tracker(config), Ahead(config)
    truth = [clip.truth(number) for number in range(len(clip))]
    ids = [int(i) for i in np.unique(truth[0]) if i]
    looks: dict[int, Look | None] = {}
    masks: dict[int, LabelArray] = {}
    scores: dict[str, list[float]] = {"flow": [], "last": [], "looks": []}
    for number in range(len(clip)):
        frame = frame_of(clip, number)
        if number % every == 0:
            seed = Seed(stamp_ns=frame.stamp_ns, labels=truth[0]) if number == 0 else None
            masks[number] = (tracker.step(frame) if seed is None else tracker.seed(seed, frame)).labels
            looks[number] = Look.of(tracker)
        known = (number - every) // every * every
        look = looks.get(known)
        if look is None or number == len(clip) - 1:
            continue
        scores["flow"].append(mean_j(ahead.tracks(frame, look).labels, truth[number], ids))
        scores["last"].append(mean_j(masks[known], truth[number], ids))
        if number in masks:
            scores["looks"].append(mean_j(masks[number], truth[number], ids))
    flow, last, seen = (float(np.mean(scores[name])) for name in ("flow", "last", "looks"))
    return flow, last, seen


def mean_j(found: LabelArray, truth: LabelArray, ids: Sequence[int]) -> float:
    """Mean over the objects."""
    return float(np.mean([jaccard(found == i, truth == i) for i in ids]))


if __name__ == "__main__":
    main()
