# SPDX-License-Identifier: Apache-2.0
"""What does an image cost while everything stands still, with and without `rest.enabled`?

The first image of a clip again and again, each with noise and JPEG of its own, to two trackers by turns. Prints the
share of objects that were not looked at, and milliseconds per image with rest off and on.

    python tools/measure_rest.py --images 80 --sigma 3
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.datasets.davis import CLIP_NAME, CLIP_ROOT, davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import read_labels
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, Seed

FIRST = 10
"""Images before anything is counted: objects come to rest."""


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=CLIP_ROOT, help="data set (default: the demo clip)")
    parser.add_argument("--sequence", default=CLIP_NAME)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--sigma", type=float, default=3.0, help="of the noise, grey levels")
    parser.add_argument("--quality", type=int, default=85, help="of the JPEG")
    args = parser.parse_args()
    sequence = davis_sequence(args.root, args.sequence)
    image, labels = read_frame(sequence.frames[0]), read_labels(sequence.annotations[sequence.frames[0].stem])
    labels = np.where(labels == 255, 0, labels).astype(np.int32)
    trackers = {on: build_tracker(with_values(Config(), threads=1, rest__enabled=on)) for on in (False, True)}
    times: dict[bool, list[float]] = {on: [] for on in trackers}
    rested = looked = 0
    random = np.random.default_rng(0)
    for number in range(args.images):
        noisy = np.clip(image + args.sigma * random.standard_normal(image.shape), 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, args.quality])[1]
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=np.asarray(cv2.imdecode(data, 1), np.uint8))
        for on, tracker in trackers.items():
            begin = time.perf_counter()
            if number == 0:
                tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=labels), frame)
            else:
                tracker.step(frame)
            if number >= FIRST:
                times[on].append((time.perf_counter() - begin) * 1e3)
        if number >= FIRST:
            rested += trackers[True].states.resting
            looked += len(trackers[True].states) - trackers[True].states.resting
    print(f"{rested / (rested + looked):.2f} of the looks saved")
    for on, name in ((False, "off"), (True, "on ")):
        one = np.array(times[on])
        print(
            f"rest {name}: p50 {np.median(one):.1f} ms, mean {one.mean():.1f} ms, p95 {np.percentile(one, 95):.1f} ms"
        )


if __name__ == "__main__":
    main()
