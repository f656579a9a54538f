# SPDX-License-Identifier: Apache-2.0
"""How exact is each flow backend, and how long does it take? Endpoint error by magnitude, ms per frame.

The truth is made: the first image of every clip moves as a background, and the object of another clip moves before
it. Each pair has a random motion (shift, rotation, zoom); pixels whose origin is hidden or outside count apart.
Backends that are not at hand (no weights, no cv2.ximgproc) are named and left out.

    python tools/measure_flow.py --root DAVIS --weights raft_small.safetensors
    python tools/measure_flow.py --root DAVIS --backends raft --weights torchvision --device cuda
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.datasets.motion import MovingPair, affine, endpoint_error, moving_pair
from maskrnn_ros.flow import BACKENDS, FlowEstimator, build_flow
from maskrnn_ros.labels import read_labels
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.sections import FlowConfig

BINS = {"below 5": (0.0, 5.0), "5 to 20": (5.0, 20.0), "above 20": (20.0, np.inf)}
SIZES = {"448x256": (448, 256), "854x480": (854, 480)}


def main() -> None:
    """Parse, measure, print a table."""
    args = _arguments()
    set_threads(args.threads)
    pairs = list(_pairs(args))
    rows = {}
    for name in args.backends:
        try:
            estimator = build_flow(_config(name, args), args.device)
        except RuntimeError as error:
            print(f"{name} is left out: {error}")
            continue
        rows[name] = {**_errors(estimator, pairs), **_times(estimator, pairs[0], args)}
        print(name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    _print_table(rows, args)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="data set: holds JPEGImages/ and Annotations/")
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS), help="default all")
    parser.add_argument("--weights", default="shipped", help="of the networks: FILE.safetensors or torchvision")
    parser.add_argument("--raft", choices=("small", "large"), default="small")
    parser.add_argument("--iterations", type=int, default=FlowConfig().iterations, help="of raft")
    parser.add_argument("--preset", default=FlowConfig().preset, help="of dis and epicflow")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=16, help="pairs of images for the error, at 448x256")
    parser.add_argument("--repeats", type=int, default=5, help="frames for the time; the quickest counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    return parser.parse_args()


def _config(name: str, args: argparse.Namespace) -> FlowConfig:
    weights = args.weights if name == "raft" else "shipped"
    return FlowConfig(backend=name, preset=args.preset, weights=weights, raft=args.raft, iterations=args.iterations)


def _pairs(args: argparse.Namespace) -> Iterator[MovingPair]:
    random = np.random.default_rng(0)
    folder = args.root / "Annotations"
    folder = next((folder / name for name in ("480p", "1080p") if (folder / name).is_dir()), folder)
    clips = sorted(path.name for path in folder.iterdir() if path.is_dir())
    width, height = SIZES["448x256"]
    for number in range(args.pairs):
        background, _ = _picture(args.root, clips[number % len(clips)], (width, height))
        thing, mask = _picture(args.root, clips[(number + 1 + number // len(clips)) % len(clips)], (width, height))
        slow, quick = random.uniform(0, 12), random.uniform(0, 40)
        motion = _motion((height, width), slow, random)
        yield moving_pair(background, motion, thing, mask, _motion((height, width), quick, random))


def _picture(root: Path, clip: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    files = davis_sequence(root, clip)
    image = cv2.resize(read_frame(files.frames[0]), size, interpolation=cv2.INTER_AREA)
    labels = read_labels(files.annotations[files.frames[0].stem])
    return image, cv2.resize((labels != 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def _motion(size: tuple[int, int], length: float, random: np.random.Generator) -> np.ndarray:
    angle = random.uniform(0, 2 * np.pi)
    shift = (length * np.cos(angle), length * np.sin(angle))
    return affine(size, shift, degrees=random.normal(0, 2.0), zoom=float(np.exp(random.normal(0, 0.02))))


def _errors(estimator: FlowEstimator, pairs: list[MovingPair]) -> dict[str, float]:
    found: dict[str, list[np.ndarray]] = {"all seen": [], **{name: [] for name in BINS}, "hidden or outside": []}
    for pair in pairs:
        error = endpoint_error(estimator(pair.current, pair.previous), pair)
        length = np.linalg.norm(pair.flow, axis=0)
        found["all seen"].append(error[pair.visible])
        found["hidden or outside"].append(error[~pair.visible])
        for name, (low, high) in BINS.items():
            found[name].append(error[pair.visible & (low <= length) & (length < high)])
    return {name: float(np.concatenate(errors).mean()) for name, errors in found.items()}


def _times(estimator: FlowEstimator, pair: MovingPair, args: argparse.Namespace) -> dict[str, float]:
    """The quickest of some frames, ms; images and flow are on the CPU, wherever it is computed."""
    times = {}
    for name, size in SIZES.items():
        current, previous = (np.asarray(cv2.resize(image, size), np.uint8) for image in (pair.current, pair.previous))
        spent = []
        for _ in range(args.repeats + 1):  # the first one warms up
            begin = time.perf_counter()
            estimator(current, previous.copy())  # another image each time: all remember the newest
            spent.append(time.perf_counter() - begin)
        times[f"ms {name}"] = 1e3 * min(spent[1:])
    return times


def _print_table(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    if not rows:
        return
    columns = list(next(iter(rows.values())))
    print(f"\n{args.pairs} pairs, {args.device}, {args.threads} thread(s)\n\n| backend | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        cells = (f"{row[key]:.0f}" if key.startswith("ms") else f"{row[key]:.2f}" for key in columns)
        print(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
