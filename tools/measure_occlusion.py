# SPDX-License-Identifier: Apache-2.0
"""What is reported of an object that goes behind a wall for some frames and comes back?

The object of the first frame of a clip, cut out by its annotation and brought to a seventh of the image's width, moves
over that frame at constant speed; a wall of grey noise hides it. Prints how many frames late the object was reported
OCCLUDED and found again; with --verbose, by frame, the share that can be seen, the state and J. Of several clips also
precision and recall of OCCLUDED or LOST over their frames; those on which less than half of the object, but something
of it, can be seen are left out.

    python tools/measure_occlusion.py --root DAVIS --sequence blackswan,dog

With --follow clips are followed as they are, all objects of their first frames: what can be seen of each is known from
its annotations, against its median area, or from visibility/, where tools/render_training_scenes.py wrote one. Where
there are masks of the robot, Robot/NAME, it also prints how many of its pixels the masks of all objects claim, in
percent of the pixels of the objects.

    python tools/measure_occlusion.py --root DATA/rendered --follow --sequence held_000,held_001

With --stills N in place of --sequence the objects come from N held-out stills below --root (docs/training.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config, from_flat
from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.parameter_file import parse_setting
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.training.sources import IGNORE, allowed, still_files
from maskrnn_ros.training.split import read_split
from maskrnn_ros.types import Box, Frame, InstanceState, Seed

Array = npt.NDArray[Any]

UNSEEN = (InstanceState.OCCLUDED.name, InstanceState.LOST.name)


class World:
    """An object that moves to the right over a background, behind a wall and out again.

    Args:
        image: Where the object is cut out, RGB, uint8 (H, W, 3).
        mask: The object, bool (H, W).
        hidden: Frames on which nothing of it can be seen.
    """

    def __init__(self, image: Array, mask: Array, hidden: int) -> None:
        box = Box.of_mask(mask)
        assert box is not None
        self.size = image.shape[:2]
        width = self.size[1] // 7
        height = max(1, min(self.size[0] - 2, round(box.height * width / box.width)))
        self.patch = cv2.resize(image[box.slices], (width, height), interpolation=cv2.INTER_AREA)
        self.shape = cv2.resize(mask[box.slices].astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        holes = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8))
        self.background = cv2.inpaint(image, holes, 5, cv2.INPAINT_TELEA)
        self.step = max(1, self.size[1] // 170)
        self.start = self.step * 3
        wall = self.start + width + self.step * 12
        self.wall = wall, wall + width + self.step * hidden
        self.frames = (self.wall[1] - self.start + width) // self.step + 12
        noise = np.random.default_rng(0).normal(0, 12, (*self.size, 3))
        self.wall_texture = np.clip(cv2.GaussianBlur(noise, (0, 0), 1.0) * 3 + 120, 0, 255).astype(np.uint8)

    def frame(self, number: int) -> tuple[Array, Array]:
        """Picture, and what can be seen of the object, bool (H, W)."""
        picture, seen = self.background.copy(), np.zeros(self.size, bool)
        x, y = self.start + number * self.step, (self.size[0] - self.shape.shape[0]) // 2
        stop = min(self.size[1], x + self.shape.shape[1])
        if stop > max(0, x):
            inner = slice(max(0, -x), stop - x)
            rows, columns = slice(y, y + self.shape.shape[0]), slice(max(0, x), stop)
            seen[rows, columns] = self.shape[:, inner]
            picture[rows, columns][self.shape[:, inner]] = self.patch[:, inner][self.shape[:, inner]]
        picture[:, self.wall[0] : self.wall[1]] = self.wall_texture[:, self.wall[0] : self.wall[1]]
        seen[:, self.wall[0] : self.wall[1]] = False
        return picture, seen


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and Annotations/")
    objects = parser.add_mutually_exclusive_group(required=True)
    objects.add_argument("--sequence", metavar="A,B", help="clips whose first frames are used")
    objects.add_argument("--stills", type=int, metavar="N", help="use this many held-out stills")
    parser.add_argument("--follow", action="store_true", help="follow the clips themselves")
    parser.add_argument("--ignore", action="store_true", help="with --follow: masks of the robot are ignore masks")
    parser.add_argument("--hidden", type=int, default=20, help="frames on which nothing can be seen")
    parser.add_argument("--verbose", action="store_true", help="a line per frame")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    if args.follow and args.stills:
        parser.error("--follow needs --sequence")
    if args.ignore and not args.follow:
        parser.error("--ignore needs --follow")
    config = from_flat(dict(map(parse_setting, args.set)))
    reports, claimed = {}, []
    if args.follow:
        for name in args.sequence.split(","):
            found, arm = _follow(args.root, name, config, args.verbose, args.ignore)
            claimed += arm
            for thing, report in found.items():
                reports[f"{name}/{thing}"] = report
                print(name, thing, {k: v for k, v in report.items() if k != "frames"}, flush=True)
    else:
        for name, image, mask in _stills(args.root, args.stills) if args.stills else _first(args.root, args.sequence):
            reports[name] = _run(World(image, mask, args.hidden), config, args.verbose)
            print(name, {k: v for k, v in reports[name].items() if k != "frames"}, flush=True)
    total = _total(list(reports.values())) | _of_robot(claimed)
    seen = [[row["j"] for row in report["frames"][1:] if row["share"] > 0] for report in reports.values()]
    total["j_mean"] = float(np.mean([np.mean(rows) for rows in seen if rows]))
    print(total)
    if args.json:
        args.json.write_text(json.dumps({**total, "clips": reports}, indent=2) + "\n")


def _first(root: Path, names: str) -> Iterator[tuple[str, Array, Array]]:
    """Name, first frame and object of clips."""
    for name in names.split(","):
        sequence = davis_sequence(root, name)
        mask = read_labels(sequence.annotations[sequence.frames[0].stem]) != 0
        yield name, read_frame(sequence.frames[0]), mask


def _stills(root: Path, count: int) -> Iterator[tuple[str, Array, Array]]:
    """The same of stills that no training saw, evenly from all sets; of each its largest object."""
    files = allowed([file for file in still_files(root) if not file.source.endswith("cutouts")], read_split(), True)
    for number in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int):
        still = files[number].read()
        sizes = np.bincount(still.labels[still.labels != IGNORE].ravel(), minlength=2)
        mask = still.labels == 1 + int(sizes[1:].argmax())
        yield f"{still.source}/{files[number].image.stem}", still.image, mask


def _of_robot(claimed: list[tuple[int, int]]) -> dict[str, Any]:
    """What masks claim of a robot, from its pixels that are claimed and those of the objects on each frame."""
    if not claimed:
        return {}
    on_robot, objects = np.array(claimed).T
    return {
        "robot_claimed_percent": float(100 * on_robot.sum() / objects.sum()),
        "robot_claimed_most_px": int(on_robot.max()),
    }


def _total(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Precision and recall of being unseen, and how many frames after half of it is visible an object is found."""
    rows = [row for report in reports for row in report["frames"] if row["share"] == 0 or row["share"] >= 0.5]
    said = [row for row in rows if row["state"] in UNSEEN]
    right = sum(row["share"] == 0 for row in said)
    hidden = sum(row["share"] == 0 for row in rows)
    back = [report for report in reports if report["half_visible_again"] is not None]
    late = [r["found_again"] - r["half_visible_again"] for r in back if r["found_again"] is not None]
    return {
        "precision": right / len(said) if said else None,
        "recall": right / hidden if hidden else None,
        "hidden_frames": hidden,
        "never_found_again": sum(report["found_again"] is None for report in back),
        "frames_late_p50": float(np.percentile(late, 50)) if late else None,
        "frames_late_p95": float(np.percentile(late, 95)) if late else None,
    }


def _run(world: World, config: Config, verbose: bool) -> dict[str, Any]:
    tracker = build_tracker(config)
    rows: list[dict[str, Any]] = []
    for number in range(world.frames):
        picture, seen = world.frame(number)
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=picture)
        if number == 0:
            tracks = tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=seen.astype(np.int32)), frame)
        else:
            tracks = tracker.step(frame)
        share = float(seen.sum() / world.shape.sum())
        state = tracks.tracks[0].state.name
        rows.append({"frame": number, "share": share, "state": state, "j": jaccard(tracks.labels == 1, seen)})
        if verbose:
            print(f"{number:4}  seen {share:5.2f}  {state:8}  J {rows[-1]['j']:.3f}")
    return _summary(rows)


def _shares(root: Path, name: str, truth: list[Array]) -> dict[int, list[float]]:
    """What can be seen of each object of the first frame, by id and frame, 0..1."""
    ids = [int(i) for i in np.unique(truth[0]) if 0 < i < 255]
    file = root / "visibility" / f"{name}.json"
    if file.is_file():
        seen = {
            thing["id"]: [px / max(1, all_) for px, all_ in zip(thing["seen_px"], thing["alone_px"], strict=True)]
            for thing in json.loads(file.read_text())["things"]
        }
        return {i: seen[i] for i in ids}
    areas = {i: np.array([(labels == i).sum() for labels in truth], float) for i in ids}
    return {i: np.minimum(1, area / np.median(area[area > 0])).tolist() for i, area in areas.items()}


def _follow(
    root: Path, name: str, config: Config, verbose: bool, ignores: bool
) -> tuple[dict[int, dict[str, Any]], list[tuple[int, int]]]:
    """Reports of the objects of a clip, by id; of each frame the pixels of the robot in masks, and those of objects."""
    sequence = davis_sequence(root, name)
    truth = [read_labels(sequence.annotations[path.stem]) for path in sequence.frames]
    shares = _shares(root, name, truth)
    first = np.where(np.isin(truth[0], list(shares)), truth[0], 0).astype(np.int32)
    tracker = build_tracker(config)
    rows: dict[int, list[dict[str, Any]]] = {i: [] for i in shares}
    claimed = []
    for number, path in enumerate(sequence.frames):
        file = root / "Robot" / name / f"{path.stem}.png"
        robot = read_labels(file, is_known=True) != 0 if file.is_file() else None
        if ignores and robot is None:
            raise SystemExit(f"--ignore: expected a mask of the robot, {file}, found none")
        ignored = robot if ignores else None
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=read_frame(path), ignored=ignored)
        if number == 0:
            tracks = tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=first), frame)
        else:
            tracks = tracker.step(frame)
        if number and robot is not None:
            on_robot = robot & (tracks.labels != 0)
            claimed.append((int(on_robot.sum()), int(np.isin(truth[number], list(shares)).sum())))
        for track in tracks.tracks:
            i = track.instance_id
            j = jaccard(tracks.labels == i, truth[number] == i)
            rows[i].append({"frame": number, "share": shares[i][number], "state": track.state.name, "j": j})
            if verbose:
                print(f"{number:4}  {i}  seen {shares[i][number]:5.2f}  {track.state.name:8}  J {j:.3f}")
    return {i: _summary(found) for i, found in rows.items()}, claimed


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    hidden = [row["frame"] for row in rows if row["share"] == 0]
    after = rows[hidden[-1] :] if hidden else []
    back = next((row["frame"] for row in after if row["share"] >= 0.5), None)
    said = [row["frame"] for row in rows if row["state"] in UNSEEN]
    found = [row["frame"] for row in after[1:] if row["state"] == InstanceState.TRACKING.name]
    last = [row["j"] for row in rows if back is not None and row["frame"] > back + 5 and row["share"] > 0.9]
    return {
        "hidden_frames": len(hidden),
        "hidden_from": hidden[0] if hidden else None,
        "reported_unseen_from": said[0] if said else None,
        "falsely_seen_while_hidden": sum(rows[n]["state"] not in UNSEEN for n in hidden),
        "falsely_unseen": sum(rows[n]["share"] >= 0.5 for n in said),
        "first_visible_again": hidden[-1] + 1 if back is not None else None,
        "half_visible_again": back,
        "found_again": found[0] if found else None,
        "j_mean_after_return": float(np.mean(last)) if last else None,
        "frames": rows,
    }


if __name__ == "__main__":
    main()
