# SPDX-License-Identifier: Apache-2.0
"""How well boxes and clicks become masks: intersection over union with the true masks, of several backends at once.

    python tools/measure_prompts.py --data DATA --learned prompts.safetensors [--json FILE]
    python tools/measure_prompts.py --root ROOT [--images 100]
    python tools/measure_prompts.py --data DATA --track [--json FILE]

DATA is the folder that training reads (docs/training.md); of its sets the pictures that are held out are taken. ROOT
holds images/ and masks/ of the same stems, or JPEGImages/ and Annotations/ as DAVIS has them, of which the first frame
of every sequence is taken. Every object is prompted by its box, by a box whose edges are off by up to a tenth of its
size, by a click on a pixel of it at random, and by clicks one after the other: in the middle of the object, then in the
middle of the largest error. NoC is the number of clicks until the IoU is 0.85, or all of them where it never is. All
backends get the same prompts; masks that one is unsure of count as they are. Of the learned one it is said how well its
confidence foretells the IoU.

--track follows the objects of the first frames of the held out clips through them, marked by their true masks, by a
click in the middle of each and by its box, and gives J and F of each way, as `maskrnn evaluate` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.disk import write_text
from maskrnn_ros.labels import binary_as_instance, read_labels
from maskrnn_ros.metrics.davis import Evaluator
from maskrnn_ros.prompts import Point, Prompt, PromptBackend, UnsureError, build_prompts
from maskrnn_ros.prompts.clicks import MOST_CLICKS, click_through, clicks_needed, cut, iou, jittered, next_click
from maskrnn_ros.sections import PromptsConfig
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.training.sources import IGNORE, StillFile, allowed, read_videos, still_files
from maskrnn_ros.training.split import read_split
from maskrnn_ros.types import BoolArray, Box, Frame, LabelArray, Seed, UInt8Array

T = TypeVar("T")

SETS = ("ecssd", "pennfudan", "rendered")
"""Sets of DATA that are looked at."""

SIZE = (360, 640)
"""(h, w) of rendered frames, pixels."""

WAYS = ("exact", "click", "box")
"""How objects are marked that are tracked."""

CONFIDENCE = "confidence"
_BAD = 0.5
"""IoU below which a mask is bad."""

_MIN_PIXELS = 100
_AFTER = (1, 2, 3, 5, 10)
"""Clicks after which the IoU is shown."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """RGB, uint8 (H, W, 3), and ids, int32 (H, W), 255 = unknown."""

    image: UInt8Array
    labels: LabelArray


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder of the sets that training reads: those held out")
    add("--sets", default=",".join(SETS), metavar="A,B", help="which of them")
    add("--root", type=Path, help="a folder of pictures and masks")
    add("--annotations", default="Annotations", metavar="DIR", help="folder in ROOT (DAVIS)")
    add("--images", type=int, default=100, help="of each set at most so many, evenly over it")
    add("--clicks", type=int, default=MOST_CLICKS, help="on an object at most")
    add(
        "--backend",
        action="append",
        default=[],
        help="grabcut, or package.module:factory; default grabcut, where --learned is not given",
    )
    add("--learned", type=Path, metavar="FILE", help="weights of the learned backend, beside the others")
    add("--trunk", default="shipped", metavar="FILE", help="weights of the trunk that it learned with")
    add("--zoom", default=PromptsConfig().zoom, help="where it looks, see prompts.zoom")
    add("--track", action="store_true", help="with --data: follow the objects of the held out clips instead")
    add("--frames", type=int, default=1000, help="with --track: of each clip at most so many")
    add("--json", type=Path, metavar="FILE", help="write the figures for machines")
    args = parser.parse_args()
    if (args.data is None) == (args.root is None):
        parser.error(f"expected --data or --root, got {'neither' if args.data is None else 'both'}")
    if args.track and args.data is None:
        parser.error("--track takes --data, got --root")
    cv2.setNumThreads(1)
    if args.track:
        tracked = track_clips(args.data, args.frames)
        if args.json is not None:
            write_text(args.json, json.dumps(tracked, indent=2) + "\n")
        return
    configs = {name: PromptsConfig(backend=name) for name in args.backend or ([] if args.learned else ["grabcut"])}
    if args.learned is not None:
        weights = str(args.learned)
        configs["learned"] = PromptsConfig(backend="learned", weights=weights, zoom=args.zoom, min_confidence=1.0)
    backends = {name: build_prompts(config, args.trunk) for name, config in configs.items()}
    figures = {}
    for name, pictures in _sets(args).items():
        figures[name] = measure(pictures, backends, args.clicks)
        report(name, figures[name])
    if args.json is not None:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


def _sets(args: argparse.Namespace) -> dict[str, Iterator[Picture]]:
    """Pictures by the name of their set; each is read when its turn comes."""
    if args.root is not None:
        pairs = _thinned(list(find_pairs(args.root, args.annotations)), args.images)
        return {args.root.name: _read(pairs)}
    split, sets = read_split(), dict[str, Iterator[Picture]]()
    files = still_files(args.data)
    for name in args.sets.split(","):
        if name == "rendered":
            sets[name] = _rendered(args.data, args.images)
        else:
            own = [file for file in files if file.source == name]
            if not own:
                raise ValueError(f"{args.data}: expected stills of the set {name}, found none")
            sets[name] = _stills(_thinned(allowed(own, split, held_out=True), args.images))
    return sets


def _stills(files: Iterable[StillFile]) -> Iterator[Picture]:
    for file in files:
        still = file.read()
        yield Picture(still.image, still.labels.astype(np.int32))


def _rendered(data: Path, most: int) -> Iterator[Picture]:
    """Every tenth frame of the clips whose names begin with ``held``."""
    videos = read_videos(data, read_split(), SIZE, held_out=True)
    stills = [still for video in videos if video.source == "rendered" for still in video.stills(10)]
    for still in _thinned(stills, most):
        yield Picture(still.image, still.labels.astype(np.int32))


def _read(pairs: Iterable[tuple[Path, Path]]) -> Iterator[Picture]:
    for image, mask in pairs:
        yield Picture(read_frame(image), binary_as_instance(read_labels(mask)))


def _thinned(items: list[T], most: int) -> list[T]:
    return items[:: max(1, -(-len(items) // most))]


def find_pairs(root: Path, annotations: str) -> Iterator[tuple[Path, Path]]:
    """Images and their label images, by name.

    Raises:
        ValueError: The folder is laid out in neither way.
    """
    if (root / "images").is_dir():
        images = {path.stem: path for path in (root / "images").iterdir()}
        yield from ((images[path.stem], path) for path in sorted((root / "masks").iterdir()) if path.stem in images)
    elif (root / annotations).is_dir():
        for first in sorted({min(path.parent.glob("*.png")) for path in (root / annotations).rglob("*.png")}):
            yield (root / "JPEGImages" / first.relative_to(root / annotations)).with_suffix(".jpg"), first
    else:
        raise ValueError(f"{root} must hold images/ and masks/, or JPEGImages/ and {annotations}/")


def measure(
    pictures: Iterable[Picture], backends: dict[str, PromptBackend], clicks: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by backend and prompt: median, mean and lower quartile of the IoU, objects, ms of a prompt (median)."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in backends}
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in backends}
    believed: dict[str, list[tuple[float, float]]] = {name: [] for name in backends}
    random = np.random.default_rng(0)
    for picture in pictures:
        known = picture.labels != IGNORE
        for instance_id in np.unique(picture.labels[(picture.labels > 0) & known]).tolist():
            truth = picture.labels == instance_id
            if np.count_nonzero(truth) < _MIN_PIXELS:
                continue
            prompts = prompts_of(truth, random)
            for name, given in backends.items():
                backend = Noting(given)
                for kind, prompt in prompts.items():
                    begin = time.perf_counter()
                    mask = cut(backend, picture.image, prompt)
                    spent[name].setdefault(kind, []).append(1e3 * (time.perf_counter() - begin))
                    found[name].setdefault(kind, []).append(iou(mask, truth, known))
                ious = list(click_through(backend, picture.image, truth, known, clicks))
                reached = [found[name][kind][-1] for kind in prompts] + ious
                if backend.doubts:
                    believed[name] += zip(backend.confidences, reached, strict=False)  # none where nothing was wrong
                after = {f"{count} click{'s' * (count > 1)}": ious[count - 1] for count in _AFTER if count <= clicks}
                for kind, value in {**after, "NoC@85": float(clicks_needed(ious))}.items():
                    found[name].setdefault(kind, []).append(value)
    return {
        name: {kind: _summary(values, spent[name].get(kind, [])) for kind, values in kinds.items()}
        | ({CONFIDENCE: _belief(believed[name])} if believed[name] else {})
        for name, kinds in found.items()
    }


class Noting:
    """A backend that is asked to believe in nothing, and what it says of its masks."""

    def __init__(self, backend: PromptBackend) -> None:
        self._backend = backend
        self.confidences: list[float] = []
        """Of its answers, in order; NaN where it found nothing, which has none."""
        self.doubts = False
        """It has a confidence at all: only a backend that refuses masks tells it."""

    def __call__(self, image: UInt8Array, prompt: Prompt) -> BoolArray:
        """See ``PromptBackend``."""
        try:
            mask = self._backend(image, prompt)
        except UnsureError as unsure:
            self.confidences.append(unsure.confidence)
            self.doubts = True
            raise
        self.confidences.append(1.0 if mask.any() else float("nan"))
        return mask


def _belief(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """How well confidences foretell the IoU."""
    confidence, reached = np.array([pair for pair in pairs if not np.isnan(pair[0])]).T
    unsure, bad = confidence < PromptsConfig().min_confidence, reached < _BAD
    spread = confidence.std() > 0 and reached.std() > 0
    return {
        "prompts": len(confidence),
        "correlation": float(np.corrcoef(confidence, reached)[0, 1]) if spread else 0.0,
        "error": float(np.abs(confidence - reached).mean()),
        "unsure": float(unsure.mean()),
        "bad": float(bad.mean()),
        "unsure_of_bad": float(unsure[bad].mean()) if bad.any() else 0.0,
        "bad_of_unsure": float(bad[unsure].mean()) if unsure.any() else 0.0,
    }


def prompts_of(truth: BoolArray, random: np.random.Generator) -> dict[str, Prompt]:
    """The prompts of one object that do not depend on the backend's answers."""
    box = Box.of_mask(truth)
    assert box is not None
    height, width = truth.shape
    rows, columns = np.nonzero(truth)
    any_one = int(random.integers(len(rows)))
    return {
        "box": Prompt(box=box),
        "box, edges off by up to 10 %": Prompt(box=jittered(box, (height, width), random)),
        "click anywhere": Prompt(points=(Point(x=int(columns[any_one]) + 0.5, y=int(rows[any_one]) + 0.5),)),
    }


def track_clips(data: Path, most: int) -> dict[str, dict[str, dict[str, float]]]:
    """J and F by way and clip, over the clip's objects, of the clips of DATA that are held out; printed as they come.

    Raises:
        ValueError: There is none.
    """
    folders = [data / "davis2016_train_288p/Annotations" / name for name in read_split().clips]
    folders += sorted((data / "rendered/Annotations").glob("held*"))
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        raise ValueError(f"{data}: expected held out clips in davis2016_train_288p or rendered, found none")
    backend = build_prompts(PromptsConfig(min_confidence=0.0))
    found: dict[str, dict[str, dict[str, float]]] = {way: {} for way in WAYS}
    print(f"{'clip':20}" + "".join(f"{way + ' J':>9}{'F':>7}" for way in WAYS))
    for folder in folders:
        for way in WAYS:
            found[way][folder.name] = track_clip(sorted(folder.glob("*.png"))[:most], way, backend)
        print(_line(folder.name, [found[way][folder.name] for way in WAYS]))
    for source in sorted({folder.parent.parent.name for folder in folders}):
        names = [folder.name for folder in folders if folder.parent.parent.name == source]
        means = [{key: float(np.mean([found[way][name][key] for name in names])) for key in ("J", "F")} for way in WAYS]
        print(_line(source, means))
    return found


def _line(name: str, scores: Iterable[dict[str, float]]) -> str:
    return f"{name:20}" + "".join(f"{score['J']:9.3f}{score['F']:7.3f}" for score in scores)


def track_clip(masks: Sequence[Path], way: str, backend: PromptBackend) -> dict[str, float]:
    """Mean J and F of the objects of a clip's first mask, marked in one of ``WAYS``; frames lie beside the masks."""
    tracker, evaluator = build_tracker(Config()), None
    for number, mask in enumerate(masks):
        truth = binary_as_instance(read_labels(mask))
        image = read_frame(next((mask.parents[2] / "JPEGImages" / mask.parent.name).glob(f"{mask.stem}.*")))
        frame = Frame(stamp_ns=(number + 1) * 10**9 // 24, image=image)
        if evaluator is None:
            labels = marked(image, truth, way, backend)
            if not labels.any():
                return {"J": 0.0, "F": 0.0}
            evaluator = Evaluator(tuple(np.unique(truth[truth > 0]).tolist()), "davis2017")
            tracks = tracker.seed(Seed(stamp_ns=0, labels=labels), frame)
        else:
            tracks = tracker.step(frame)
        evaluator.add(tracks.labels, truth)
    assert evaluator is not None
    scores = evaluator.scores().values()
    return {
        "J": float(np.mean([np.mean(one.jaccard) for one in scores])),
        "F": float(np.mean([np.mean(one.boundary_f) for one in scores])),
    }


def marked(image: UInt8Array, truth: LabelArray, way: str, backend: PromptBackend) -> LabelArray:
    """The seed of all objects of an image: their truth, or what the backend finds; where two overlap, the smaller."""
    if way == "exact":
        return truth
    found = {}
    for instance_id in np.unique(truth[truth > 0]).tolist():
        mine = truth == instance_id
        click, box = next_click(mine, np.zeros_like(mine)), Box.of_mask(mine)
        assert click is not None and box is not None
        found[instance_id] = cut(backend, image, Prompt(points=(click,)) if way == "click" else Prompt(box=box))
    labels = np.zeros_like(truth)
    for instance_id, mask in sorted(found.items(), key=lambda one: int(one[1].sum()), reverse=True):
        labels[mask] = instance_id
    return labels


def _summary(values: list[float], spent_ms: list[float]) -> dict[str, float]:
    summary = {
        "objects": len(values),
        "median": float(np.median(values)),
        "mean": float(np.mean(values)),
        "p25": float(np.percentile(values, 25)),
    }
    return {**summary, "ms": float(np.median(spent_ms))} if spent_ms else summary


def report(name: str, figures: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table of a set."""
    for backend, kinds in figures.items():
        print(
            f"\n{name}, {backend}: {int(next(iter(kinds.values()), {}).get('objects', 0))} objects; IoU, NoC in clicks"
        )
        print(f"{'prompt':32} median   mean    p25     ms")
        for kind, row in kinds.items():
            if kind == CONFIDENCE:
                print(f"{kind:32} " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()))
                continue
            spent = f"{row['ms']:6.1f}" if "ms" in row else ""
            print(f"{kind:32} {row['median']:6.3f} {row['mean']:6.3f} {row['p25']:6.3f} {spent}")


if __name__ == "__main__":
    main()
