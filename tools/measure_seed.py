# SPDX-License-Identifier: Apache-2.0
"""How soon is the first mask out after a seed, and how long do images take then?

Images of a clip, forth and back, as fast as they are taken. The seed falls on the fourth of them.

    python tools/measure_seed.py --root DAVIS --sequence dog
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.files import binary_as_instance, davis_sequence, read_frame, read_labels
from maskrnn_ros.parameter_file import load
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.tracker import warm_up
from maskrnn_ros.types import Frame, Seed

_SEEDED, _AFTER = 3, 60
"""Image of the seed, and images that are timed after it."""


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and Annotations/")
    parser.add_argument("--sequence", default="dog", help="clip")
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings of the tracker")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    report = _measure(args.root, args.sequence, load(args.config) if args.config else Config())
    print("\n".join(f"{name:24} {value:8.2f}" for name, value in report.items()))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _measure(root: Path, name: str, config: Config) -> dict[str, float]:
    clip = davis_sequence(root, name, "Annotations")
    images = [read_frame(path) for path in clip.frames]
    images += images[-2:0:-1]  # forth and back, without a jump
    labels = binary_as_instance(read_labels(clip.annotations[clip.frames[_SEEDED].stem]))
    warm_up(build_tracker(config))
    tracker = build_tracker(config)
    ms: list[float] = []
    for number in range(_SEEDED + 1 + _AFTER):
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=images[number % len(images)])
        start = time.perf_counter()
        if number == _SEEDED:
            tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=labels), frame)
        else:
            tracker.step(frame)
        ms.append((time.perf_counter() - start) * 1e3)
    tracker.close()
    after = ms[_SEEDED + 1 :]
    return {
        "seed to first mask, ms": ms[_SEEDED],
        "ms afterwards, mean": float(np.mean(after)),
        "ms afterwards, p95": float(np.percentile(after, 95)),
    }


if __name__ == "__main__":
    main()
