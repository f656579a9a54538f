# SPDX-License-Identifier: Apache-2.0
"""What does a second of online fine-tuning buy?

For some pairs of views and steps: how long a head is adapted on the first frame of a clip, by one thread, and J and F
of the tracker that uses it. Prints a table; with --plot FILE a curve, too.

    python tools/measure_adaptation.py --root DAVIS --sequences A,B --plot adaptation.png
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure

from maskrnn_ros.config import Config, deterministic, with_values
from maskrnn_ros.evaluation.readers import davis_clip
from maskrnn_ros.evaluation.run import Task, evaluate_clip
from maskrnn_ros.parameter_file import load
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, Seed

SETTINGS = ((1, 0), (5, 0), (10, 0), (20, 0), (40, 0), (10, 20), (20, 20), (20, 40), (40, 40), (40, 120), (40, 200))
"""(views, steps); no steps leave the head as it was fitted."""


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set in the layout of DAVIS")
    parser.add_argument("--sequences", required=True, metavar="A,B,...")
    parser.add_argument("--config", type=Path, help="settings of the tracker; default: two streams, finetune")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    heads = with_values(Config(), network__weights="streams", adaptation__method="finetune")
    base = load(args.config) if args.config else heads
    names = args.sequences.split(",")
    rows = []
    print(f"{'views':>6}{'steps':>6}{'seconds':>9}{'J':>8}{'F':>8}")
    for views, steps in SETTINGS:
        config = deterministic(with_values(base, adaptation__views=views, adaptation__steps=steps, threads=1))
        seconds = float(np.mean([seeding_s(config, args.root, name) for name in names]))
        task = Task(convention="davis2016", preset="default", config=config)
        scored = [evaluate_clip(davis_clip(args.root, name), task).objects[0] for name in names]
        j, f = (float(np.mean([np.mean(getattr(one, key)) for one in scored])) for key in ("j", "f"))
        rows.append((seconds, (j + f) / 2, f"{views} / {steps}"))
        print(f"{views:6d}{steps:6d}{seconds:9.2f}{j:8.3f}{f:8.3f}", flush=True)
    if args.plot:
        draw(rows, args.plot)


def seeding_s(config: Config, root: Path, name: str) -> float:
    """Seconds that the head of the first frame's object takes, beyond what the frame takes without one."""
    clip = davis_clip(root, name)
    frame = Frame(stamp_ns=1, image=clip.image(0))
    seed = Seed(stamp_ns=1, labels=(clip.truth(0) != 0).astype(np.int32))

    def once(config: Config) -> float:
        tracker = build_tracker(config)
        tracker.seed(seed, frame)  # what is set up at first
        begin = time.perf_counter()
        tracker.seed(dataclasses.replace(seed, stamp_ns=2), dataclasses.replace(frame, stamp_ns=2))
        return time.perf_counter() - begin

    return once(config) - once(with_values(config, adaptation__method="none"))


def draw(rows: list[tuple[float, float, str]], file: Path) -> None:
    """J&F against seconds, every setting by name."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter([row[0] for row in rows], [row[1] for row in rows])
    for seconds, score, text in rows:
        axes.annotate(text, (seconds, score), xytext=(2, 5), textcoords="offset points", fontsize=8, rotation=45)
    axes.margins(0.12)
    axes.set(xlabel="seconds of adaptation, one thread", ylabel="mean of J and F", title="views / steps")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
