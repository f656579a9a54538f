# SPDX-License-Identifier: Apache-2.0
"""How soon is the first mask out after a seed, and what does training its head beside the stream cost the stream?

Images of a clip, forth and back, as fast as they are taken. The seed falls on the fourth of them. By the settings as
they come nothing is trained; those of config/streams.yaml train a head in the background.

    python tools/measure_beside.py --root DAVIS --sequence dog [--config config/streams.yaml]
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

_SEEDED, _AFTER, _LONGEST = 3, 60, 2000
"""Image of the seed, images that are timed after the training, and those after which it is given up."""


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
    seed_ms, training_s = 0.0, 0.0
    during: list[float] = []
    after: list[float] = []
    begin = time.perf_counter()
    for number in range(_LONGEST):
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=images[number % len(images)])
        start = time.perf_counter()
        if number == _SEEDED:
            tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=labels), frame)
            begin, seed_ms = time.perf_counter(), (time.perf_counter() - start) * 1e3
            continue
        tracker.step(frame)
        if number < _SEEDED:
            continue
        is_training = any(state.promise is not None for state in tracker.states.values())
        (during if is_training else after).append((time.perf_counter() - start) * 1e3)
        if is_training:
            training_s = time.perf_counter() - begin
        if len(after) == _AFTER:
            break
    tracker.close()
    trains = tracker.adaptation == "background"
    if len(after) < _AFTER or trains != bool(during):
        raise SystemExit(f"training must begin and end within {_LONGEST} images, got {len(during)} images beside it")
    seeded = {"seed to first mask, ms": seed_ms}
    settled = {
        "ms afterwards, mean": float(np.mean(after)),
        "ms afterwards, p95": float(np.percentile(after, 95)),
    }
    if not trains:
        return {**seeded, **settled}
    return {
        **seeded,
        "training, s": training_s,
        "ms beside it, mean": float(np.mean(during)),
        "ms beside it, p95": float(np.percentile(during, 95)),
        **settled,
        "share of the rate lost": 1 - float(np.mean(after) / np.mean(during)),
    }


if __name__ == "__main__":
    main()
