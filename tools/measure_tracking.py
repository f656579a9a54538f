# SPDX-License-Identifier: Apache-2.0
"""How well does the tracker follow, and how long does a frame take? J and F per clip and object, ms per frame.

Every clip is tracked with the first annotation as seed, adaptation blocking unless --set says otherwise; first and
last frame are not scored.

    python tools/measure_tracking.py --root DAVIS --sequences bmx-trees dog --set refinement.enabled=false
    python tools/measure_tracking.py --root DAVIS --annotations Annotations_instances --convention davis2017

With --copies N the seed of a clip becomes N instances (its object N times over), to see what instances cost.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maskrnn_ros.config import Config, from_flat
from maskrnn_ros.evaluation.metrics import Convention, Evaluator
from maskrnn_ros.files import DavisSequence, binary_as_instance, davis_sequence, read_frame, read_labels
from maskrnn_ros.parameter_file import parse_setting
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.tracker import set_threads
from maskrnn_ros.types import Frame, LabelArray, Seed


def main() -> None:
    """Parse, measure, print."""
    args = _arguments()
    settings = {"adaptation.mode": "blocking", **dict(map(parse_setting, args.set))}
    config = from_flat(settings)
    set_threads(config.threads)
    clips = {clip: _measure(clip, config, args) for clip in _sequences(args)}
    report = {"settings": settings, "clips": clips, **_mean(clips, args.convention)}
    print(_line("mean", report), flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and the annotations")
    parser.add_argument("--annotations", default="Annotations", help="folder of the annotations in ROOT")
    parser.add_argument("--convention", choices=("davis2016", "davis2017"), default="davis2016")
    parser.add_argument("--sequences", nargs="*", default=[], help="clips; default all of ROOT")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings, e.g. matching.radius=8")
    parser.add_argument("--copies", type=int, default=1, help="instances per object of the seed")
    parser.add_argument("--frames", type=int, default=0, help="only so many frames of each clip; 0 = all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    return parser.parse_args()


def _sequences(args: argparse.Namespace) -> list[str]:
    if args.sequences:
        return list(args.sequences)
    folder = args.root / args.annotations
    folder = next((folder / name for name in ("480p", "1080p") if (folder / name).is_dir()), folder)
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _measure(clip: str, config: Config, args: argparse.Namespace) -> dict[str, Any]:
    sequence = davis_sequence(args.root, clip, args.annotations)
    tracker = build_tracker(config)
    evaluator: Evaluator | None = None
    spent_ms: list[float] = []
    for number, (frame, truth) in enumerate(_frames(sequence, args.frames)):
        begin = time.perf_counter()
        if number == 0:
            tracks = tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=_copied(truth, args.copies)), frame)
        else:
            tracks = tracker.step(frame)
        spent_ms.append((time.perf_counter() - begin) * 1e3)
        if evaluator is None:
            ids = (1,) if args.convention == "davis2016" else tuple(range(1, int(truth.max()) + 1))
            evaluator = Evaluator(ids, args.convention)
        evaluator.add(tracks.labels, truth)
    assert evaluator is not None
    result = _result(evaluator, spent_ms, tracker)
    print(_line(clip, result), flush=True)
    return result


def _frames(sequence: DavisSequence, limit: int) -> Iterator[tuple[Frame, LabelArray]]:
    for number, path in enumerate(sequence.frames[: limit or None], start=1):
        truth = binary_as_instance(read_labels(sequence.annotations[path.stem]))
        yield Frame(stamp_ns=round(number * 1e9 / 24), image=read_frame(path)), truth


def _copied(labels: LabelArray, copies: int) -> LabelArray:
    """Cut every object into so many instances, by columns in turn."""
    if copies == 1:
        return labels
    covered = np.flatnonzero(labels.any(axis=0))
    columns = np.clip(
        (np.arange(labels.shape[1]) - covered[0]) * copies // (covered[-1] + 1 - covered[0]), 0, copies - 1
    )
    return np.where(labels > 0, (labels - 1) * copies + 1 + columns, 0).astype(np.int32)


def _result(evaluator: Evaluator, spent_ms: list[float], tracker: Tracker) -> dict[str, Any]:
    scores = evaluator.scores()
    return {
        "j": {i: score.jaccard_statistics.mean for i, score in scores.items()},
        "f": {i: score.boundary_f_statistics.mean for i, score in scores.items()},
        "j_mean": float(np.mean([score.jaccard_statistics.mean for score in scores.values()])),
        "f_mean": float(np.mean([score.boundary_f_statistics.mean for score in scores.values()])),
        "instances": len(tracker.states),
        "frames": len(spent_ms),
        "seed_ms": spent_ms[0],
        "ms_p50": float(np.median(spent_ms[1:])),
        "ms_p95": float(np.percentile(spent_ms[1:], 95)),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _mean(clips: dict[str, dict[str, Any]], convention: Convention) -> dict[str, Any]:
    """Mean over sequences in davis2016, over objects in davis2017."""
    each = {k: [v for clip in clips.values() for v in clip[k].values()] for k in ("j", "f")}
    over = ("j_mean", "f_mean", "instances", "frames", "seed_ms", "ms_p50", "ms_p95", "peak_rss_mb")
    mean = {key: float(np.mean([clip[key] for clip in clips.values()])) for key in over}
    if convention == "davis2017":
        mean |= {"j_mean": float(np.mean(each["j"])), "f_mean": float(np.mean(each["f"]))}
    return mean


def _line(name: str, result: dict[str, Any]) -> str:
    objects = "  ".join(f"{i}: {j:.3f}" for i, j in result.get("j", {}).items())
    return (
        f"{name:20} J {result['j_mean']:.3f}  F {result['f_mean']:.3f}  {result['ms_p50']:6.1f} ms (p95 "
        f"{result['ms_p95']:6.1f}, seed {result['seed_ms']:6.0f})  {objects if len(result.get('j', {})) > 1 else ''}"
    )


if __name__ == "__main__":
    main()
