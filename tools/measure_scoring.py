# SPDX-License-Identifier: Apache-2.0
r"""How long J and F take for a frame and an object, on one core, beside the public evaluator on the same PNGs.

Joins scored sequences to one of the frames asked for. With --official, a checkout of
github.com/davisvideochallenge/davis2017-evaluation (it needs scikit-image and scipy), both run by turns in one
process, and the scores are compared; else ours runs alone. Prints medians over the repeats.

    maskrnn evaluate --root DAVIS --annotations ANNOTATIONS --convention davis2017 --out OUT
    python tools/measure_scoring.py --root DAVIS --annotations ANNOTATIONS --predictions OUT \
        --sequences bmx-trees,horsejump-high --official davis2017-evaluation
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.datasets.clips import objects_of
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import Evaluator

NAME = "joined"


def main() -> None:
    """Parse, join, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and the annotations")
    parser.add_argument("--annotations", default="Annotations", metavar="DIR", help="folder in ROOT")
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="<sequence>/<stem>.png")
    parser.add_argument("--sequences", required=True, metavar="A,B", help="of one size and one number of objects")
    parser.add_argument("--official", type=Path, metavar="DIR", help="checkout of the public evaluator")
    parser.add_argument("--frames", type=int, default=100, help="frames to score")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        pairs = _join(args, Path(folder))
        report = _measure(Path(folder), pairs, args.official, args.repeats)
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _join(args: argparse.Namespace, folder: Path) -> list[tuple[Path, Path]]:
    """Lay out one sequence of links as the public evaluator wants it; returns its predictions and truths, in order."""
    clips = find_clips(args.root, annotations=args.annotations, names=args.sequences.split(","))
    found = [
        (args.predictions / clip.name / f"{clip.stem(t)}.png", clip.truths[t][0])
        for clip in clips
        for t in range(len(clip))
    ]
    found = found[: args.frames + 2]  # the first and the last are not scored
    if len(found) < args.frames + 2:
        raise SystemExit(f"expected {args.frames + 2} frames in the sequences, found {len(found)}")
    places = [folder / "predictions" / NAME, *(folder / kind / "480p" / NAME for kind in ("Annotations", "JPEGImages"))]
    for place in (*places, folder / "ImageSets" / "2017"):
        place.mkdir(parents=True)
    (folder / "ImageSets" / "2017" / "val.txt").write_text(f"{NAME}\n")
    for t, pair in enumerate(found):
        for place, path in zip(places, pair, strict=False):
            (place / f"{t:05d}.png").symlink_to(path.resolve())
        (places[2] / f"{t:05d}.jpg").touch()  # it counts them, and reads none
    return [(places[0] / f"{t:05d}.png", places[1] / f"{t:05d}.png") for t in range(len(found))]


def _measure(folder: Path, pairs: list[tuple[Path, Path]], official: Path | None, repeats: int) -> dict[str, Any]:
    labels = [(read_labels(prediction), read_labels(truth)) for prediction, truth in pairs]
    ids = objects_of(labels[0][1], "davis2017")

    def ours_reading() -> npt.NDArray[np.float64]:
        return _ours(ids, [(read_labels(prediction), read_labels(truth)) for prediction, truth in pairs])

    runs: dict[str, Callable[[], Any]] = {"ours": lambda: _ours(ids, labels), "ours_with_reading": ours_reading}
    if official is not None:
        runs |= _official(folder, official)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    scores: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            scores[name] = run()
            taken[name].append(time.perf_counter() - begin)
    units = (len(pairs) - 2) * len(ids)
    ms = {name: 1e3 * statistics.median(seconds) / units for name, seconds in taken.items()}
    height, width = labels[0][0].shape
    report = {"frames": len(pairs) - 2, "objects": len(ids), "size": f"{width}x{height}", "ms_per_frame_and_object": ms}
    if official is not None:
        report["times_faster"] = ms["official"] / ms["ours"]
        report["times_faster_with_reading"] = ms["official_with_reading"] / ms["ours_with_reading"]
        report["largest_difference"] = float(np.abs(scores["ours"] - scores["official"]).max())
    return report


def _ours(ids: tuple[int, ...], labels: list[tuple[Any, Any]]) -> npt.NDArray[np.float64]:
    """J and F of each object and frame, (2, objects, frames)."""
    evaluator = Evaluator(ids, "davis2017")
    for prediction, truth in labels:
        evaluator.add(prediction, truth)
    found = evaluator.scores().values()
    return np.array([[scores.jaccard for scores in found], [scores.boundary_f for scores in found]])


def _official(folder: Path, official: Path) -> dict[str, Callable[[], Any]]:
    """The public evaluator from masks in memory, one array for each object, and as a whole."""
    if not (official / "davis2017" / "evaluation.py").is_file():
        raise SystemExit(f"expected a checkout of davis2017-evaluation in {official}, found no davis2017/evaluation.py")
    sys.path.insert(0, str(official))
    from davis2017.evaluation import DAVISEvaluation
    from davis2017.results import Results

    whole = DAVISEvaluation(str(folder), "semi-supervised", "val")
    truth, _, stems = whole.dataset.get_all_masks(NAME, True)
    truth, predicted = truth[:, 1:-1], Results(str(folder / "predictions")).read_masks(NAME, stems[1:-1])

    def with_reading() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            whole.evaluate(str(folder / "predictions"))

    def without() -> npt.NDArray[np.float64]:
        return np.array(whole._evaluate_semisupervised(truth, predicted, None, ("J", "F")))

    return {"official": without, "official_with_reading": with_reading}


if __name__ == "__main__":
    main()
