# SPDX-License-Identifier: Apache-2.0
"""How well boxes and clicks become masks: intersection over union with the true masks of a data set.

    python tools/measure_prompts.py --root ROOT [--images 100]

ROOT holds images/ and masks/ of the same stems, or JPEGImages/ and Annotations/ as DAVIS has them, of which the first
frame of every sequence is taken. Every object is prompted by its box, by a box whose edges are off by up to a tenth of
its size, by a click on its most inner pixel, and by one on a pixel of it at random.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from maskrnn_ros.files import binary_as_instance, read_frame, read_labels
from maskrnn_ros.prompts import Point, Prompt, PromptBackend, build_prompts
from maskrnn_ros.types import BoolArray, Box, UInt8Array

_MIN_PIXELS = 100
_OFF = 0.1


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--annotations", default="Annotations", metavar="DIR", help="folder in ROOT (DAVIS)")
    parser.add_argument("--images", type=int, default=100, help="at most so many, evenly over the set")
    parser.add_argument("--backend", default="grabcut")
    args = parser.parse_args()
    pairs = list(find_pairs(args.root, args.annotations))
    step = max(1, -(-len(pairs) // args.images))
    report(measure(pairs[::step], build_prompts(args.backend)), len(pairs[::step]))


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


def measure(pairs: list[tuple[Path, Path]], backend: PromptBackend) -> dict[str, list[float]]:
    """IoU of every object by kind of prompt."""
    found: dict[str, list[float]] = {}
    random = np.random.default_rng(0)
    for image_path, mask_path in pairs:
        image, labels = read_frame(image_path), binary_as_instance(read_labels(mask_path))
        for instance_id in np.unique(labels[labels != 0]).tolist():
            truth = labels == instance_id
            if np.count_nonzero(truth) < _MIN_PIXELS:
                continue
            for kind, prompt in prompts_of(truth, random).items():
                found.setdefault(kind, []).append(score(backend, image, prompt, truth))
    return found


def prompts_of(truth: BoolArray, random: np.random.Generator) -> dict[str, Prompt]:
    """The prompts of one object."""
    box = Box.of_mask(truth)
    assert box is not None
    height, width = truth.shape
    padded = np.pad(truth.astype(np.uint8), 1)
    deepest = np.unravel_index(int(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1].argmax()), truth.shape)
    rows, columns = np.nonzero(truth)
    any_one = int(random.integers(len(rows)))
    off = random.uniform(-_OFF, _OFF, 4) * (box.width, box.height, box.width, box.height)
    x0, y0, x1, y1 = np.rint(np.add((box.x0, box.y0, box.x1, box.y1), off)).astype(int).tolist()
    return {
        "box": Prompt(box=box),
        "box, edges off by up to 10 %": Prompt(box=Box(max(0, x0), max(0, y0), min(width, x1), min(height, y1))),
        "click in the middle": Prompt(points=(Point(x=int(deepest[1]) + 0.5, y=int(deepest[0]) + 0.5),)),
        "click anywhere": Prompt(points=(Point(x=int(columns[any_one]) + 0.5, y=int(rows[any_one]) + 0.5),)),
    }


def score(backend: PromptBackend, image: UInt8Array, prompt: Prompt, truth: BoolArray) -> float:
    """IoU of the backend's mask."""
    mask = backend(image, prompt)
    return float(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))


def report(found: dict[str, list[float]], images: int) -> None:
    """Print the table."""
    print(f"{images} images, {len(next(iter(found.values()), []))} objects; IoU")
    print(f"{'prompt':32} median   mean    p25")
    for kind, values in found.items():
        print(f"{kind:32} {np.median(values):6.3f} {np.mean(values):6.3f} {np.percentile(values, 25):6.3f}")


if __name__ == "__main__":
    main()
