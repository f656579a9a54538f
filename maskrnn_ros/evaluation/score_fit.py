# SPDX-License-Identifier: Apache-2.0
"""``maskrnn train score``: how far the score of a mask can be trusted, and the constants that make it an estimate of J.

Compares the score of every mask with its J: expected calibration error (ECE, ten bins) and mean absolute error, of the
score and of the mean probability inside the mask, and what a threshold on the score leaves. The image of the seed and
images without a mask are left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.datasets.readers import folder_names
from maskrnn_ros.disk import write_text
from maskrnn_ros.evaluation.options import ScoreOptions
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.score import calibrated, expected_iou
from maskrnn_ros.types import Frame, Seed, Track

Array = npt.NDArray[np.float64]

BINS = 10
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_PERIOD_NS = 41_666_667


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One mask: what its quality is estimated from, and J."""

    clip: str
    frame: int
    mean: float
    expected: float
    j: float

    @property
    def score(self) -> float:
        """As the tracker says it."""
        return float(calibrated(self.expected))


def run(options: ScoreOptions) -> None:
    """Track the clips, or read what was kept, and print.

    Raises:
        ValueError: A clip, a setting or a file is wrong.
    """
    rows = _measured(options)
    if options.fit:
        print_fit(rows)
    print_table(rows)
    if options.plot:
        draw(rows, options.plot)


def _measured(options: ScoreOptions) -> list[Measured]:
    if options.keep and options.keep.exists():
        return [Measured(**row) for row in json.loads(options.keep.read_text())]
    set_threads(1)
    config = with_values(options.config, threads=1)
    names = options.sequences or folder_names(options.root, options.annotations or "Annotations")
    rows = [row for name in names for row in measure(options.root, name, options.annotations, config)]
    if options.keep:
        write_text(options.keep, json.dumps([dataclasses.asdict(row) for row in rows]) + "\n")
    return rows


def measure(root: Path, name: str, annotations: str | None, config: Config) -> list[Measured]:
    """Track a clip, and compare every mask with the truth."""
    sequence = davis_sequence(root, name, annotations or "Annotations")
    tracker = build_tracker(config)
    rows = []
    for number, path in enumerate(sequence.frames):
        labels = read_labels(sequence.annotations[path.stem])
        truth = labels if annotations else (labels != 0).astype(np.int32)
        frame = Frame(stamp_ns=(number + 1) * _PERIOD_NS, image=read_frame(path))
        if number == 0:
            tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=truth), frame)
            continue
        tracks = tracker.step(frame)
        for track in tracks.tracks:
            if track.box is not None:
                i = track.instance_id
                rows.append(compare(name, number, track, jaccard(tracks.labels == i, truth == i)))
    return rows


def compare(clip: str, frame: int, track: Track, j: float) -> Measured:
    """Mean probability, expected IoU and J of a mask."""
    mean = float(track.probability[track.mask].mean())
    expected = expected_iou(track.probability, track.mask)
    return Measured(clip=clip, frame=frame, mean=mean, expected=expected, j=j)


def column(rows: Sequence[Measured], name: str) -> Array:
    """One field of all rows."""
    return np.array([getattr(row, name) for row in rows])


def calibration_error(estimates: Array, truths: Array) -> float:
    """Mean over the frames of the difference between estimate and truth, both averaged over a bin of estimates.

    >>> round(calibration_error(np.array([0.95, 0.95, 0.15]), np.array([0.7, 0.8, 0.15])), 3)
    0.133
    """
    bins = np.minimum((estimates * BINS).astype(int), BINS - 1)
    parts = [bins == i for i in range(BINS)]
    return float(sum(abs((estimates[part] - truths[part]).sum()) for part in parts)) / len(truths)


def fit(expected: Array, truths: Array, weights: Array) -> tuple[float, float]:
    """Offset and slope of a logistic curve over log-odds, by Newton's method on the weighted cross entropy."""
    odds = np.log(expected / (1 - expected))
    design = np.stack([np.ones_like(odds), odds], axis=1)
    constants = np.array([0.0, 1.0])
    for _ in range(100):
        found = 1 / (1 + np.exp(-design @ constants))
        gradient = design.T @ (weights * (found - truths))
        curvature = (design * (weights * found * (1 - found))[:, None]).T @ design
        constants = constants - np.linalg.solve(curvature, gradient)
    return float(constants[0]), float(constants[1])


def print_fit(rows: Sequence[Measured]) -> None:
    """The constants, and for every clip how well those of the other clips fit it."""
    clips = sorted({row.clip for row in rows})
    for clip in clips:
        others, held = [row for row in rows if row.clip != clip], [row for row in rows if row.clip == clip]
        if others:
            offset, slope = fit_rows(others)
            odds = np.log(column(held, "expected") / (1 - column(held, "expected")))
            error = np.abs(1 / (1 + np.exp(-offset - slope * odds)) - column(held, "j")).mean()
            print(f"without {clip}: {offset:.2f}, {slope:.2f}; on {clip} mean absolute error {error:.3f}")
    offset, slope = fit_rows(rows)
    print(f"OFFSET, SLOPE = {offset:.2f}, {slope:.2f}")


def fit_rows(rows: Sequence[Measured]) -> tuple[float, float]:
    """Every clip counts the same, however long it is."""
    counts = {clip: sum(row.clip == clip for row in rows) for clip in {row.clip for row in rows}}
    weights = np.array([1 / counts[row.clip] for row in rows])
    return fit(column(rows, "expected"), column(rows, "j"), weights)


def print_table(rows: Sequence[Measured]) -> None:
    """Errors by clip and over all, then what thresholds leave."""
    print(f"\n{'clip':24}{'masks':>7}{'J':>7}{'mean p':>8}{'score':>7}{'error: mean p':>15}{'score':>7}")
    for clip in sorted({row.clip for row in rows}):
        print_line(clip, [row for row in rows if row.clip == clip])
    print_line("all", rows)
    truths = column(rows, "j")
    before, after = (calibration_error(column(rows, name), truths) for name in ("mean", "score"))
    print(f"ECE {before:.3f} by mean p, {after:.3f} by score")
    print(f"\n{'score >=':>8}{'masks':>8}{'J mean':>8}{'J < 0.5':>9}")
    for threshold in THRESHOLDS:
        kept = truths[column(rows, "score") >= threshold]
        if kept.size:
            print(f"{threshold:8.1f}{kept.size / truths.size:8.0%}{kept.mean():8.3f}{(kept < 0.5).mean():9.1%}")


def print_line(name: str, rows: Sequence[Measured]) -> None:
    """One line of the table."""
    j, mean, score = (column(rows, field) for field in ("j", "mean", "score"))
    errors = f"{np.abs(mean - j).mean():15.3f}{np.abs(score - j).mean():7.3f}"
    print(f"{name:24}{len(rows):7}{j.mean():7.3f}{mean.mean():8.3f}{score.mean():7.3f}{errors}")


def draw(rows: Sequence[Measured], file: Path) -> None:
    """J over the estimate, by mask and as means of bins, before and after."""
    plot = Figure(figsize=(9, 4.4), layout="constrained")
    truths = column(rows, "j")
    for axis, (field, title) in zip(
        plot.subplots(1, 2, sharey=True),
        (("mean", "mean probability inside the mask"), ("score", "score")),
        strict=True,
    ):
        estimates = column(rows, field)
        for clip in sorted({row.clip for row in rows}):
            chosen = np.array([row.clip == clip for row in rows])
            axis.scatter(estimates[chosen], truths[chosen], s=9, alpha=0.55, linewidths=0, label=clip)
        axis.plot([0, 1], [0, 1], color="#1b1f24", lw=1, ls="--")
        draw_bins(axis, estimates, truths)
        error = calibration_error(estimates, truths)
        axis.set(xlabel=title, xlim=(0, 1), ylim=(0, 1), title=f"ECE {error:.3f}", aspect="equal")
        axis.grid(alpha=0.3)
    plot.axes[0].set_ylabel("J of the mask (IoU with the truth)")
    handles = plot.axes[0].get_legend_handles_labels()
    plot.legend(*handles, loc="outside right upper", fontsize=8, markerscale=2, title="rings: means of bins")
    plot.savefig(file, dpi=110)


def draw_bins(axis: Any, estimates: Array, truths: Array) -> None:
    """Means of the bins that hold something, larger where they hold more."""
    bins = np.minimum((estimates * BINS).astype(int), BINS - 1)
    present = [bins == i for i in np.unique(bins)]
    x, y = ([values[part].mean() for part in present] for values in (estimates, truths))
    sizes = [20 + 400 * part.mean() for part in present]
    axis.scatter(x, y, s=sizes, facecolors="none", edgecolors="#1b1f24", linewidths=1.4)
