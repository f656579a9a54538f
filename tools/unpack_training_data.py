# SPDX-License-Identifier: Apache-2.0
"""Unpack what ``pack_training_data.py`` packed, into the layout of ``--data``, on all cores.

    python tools/unpack_training_data.py train_pack.tar DIR

It needs OpenCV with FFmpeg, as its wheels have, and Pillow. In the tar are ``index.json.xz``, and of each group of
pictures a video (``.mkv``), a stack of the masks of 0 and 1 (``.tif``), and all other masks one after another
(``.webp``). The index has for each group its pictures in order: set, folder of the picture, folder of the mask, name
without suffix, height, width, and the bytes of its own mask; 0 where it is in the stack. Videos and stacks have larger
frames than their pictures, whose place is at the top left.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from maskrnn_ros.labels import davis_palette  # noqa: E402

INDEX = "index.json.xz"

Picture = tuple[str, str, str, str, int, int, int]


def main() -> int:
    """Unpack and say how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, metavar="PACK", help="tar of pack_training_data.py")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder that gets the sets")
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            count = unpack(args.pack, Path(folder), args.out)
        except (OSError, ValueError, KeyError, tarfile.TarError, lzma.LZMAError) as error:
            print(f"unpack_training_data: {args.pack}: {error}", file=sys.stderr)
            return 2
    print(f"{args.out}: {count} pictures in {time.monotonic() - begin:.1f} s")
    return 0


def unpack(pack: Path, folder: Path, out: Path) -> int:
    """Unpack by way of a folder; returns the number of pictures."""
    with tarfile.open(pack) as tar:
        tar.extractall(folder, filter="data")
    groups = [entry["pictures"] for entry in json.loads(lzma.decompress((folder / INDEX).read_bytes()))]
    for place in {out / name for group in groups for picture in group for name in picture[1:3]}:
        place.mkdir(parents=True, exist_ok=True)
    largest_first = sorted(range(len(groups)), key=lambda k: -len(groups[k]))
    with ProcessPoolExecutor(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) as pool:
        jobs = [pool.submit(unpack_group, folder / str(k), groups[k], out) for k in largest_first]
        return sum(job.result() for job in jobs)


def unpack_group(base: Path, pictures: list[Picture], out: Path) -> int:
    """Write pictures as BMP, which reads quickly, and masks as PNG; returns the number.

    Raises:
        ValueError: The video has more frames or fewer.
    """
    cv2.setNumThreads(1)
    masks = masks_of(base, pictures)
    count = 0
    for count, frame in enumerate(frames_of(base.with_suffix(".mkv")), start=1):
        if count > len(pictures):
            break
        kind, images, labels, stem, height, width, _ = pictures[count - 1]
        cv2.imwrite(str(out / images / f"{stem}.bmp"), frame[:height, :width])
        drawn = Image.fromarray(next(masks)[:height, :width])
        if not kind.endswith("cutouts"):
            drawn.putpalette(davis_palette().tobytes())
        drawn.save(out / labels / f"{stem}.png", compress_level=1)
    if count != len(pictures):
        raise ValueError(f"{base.name}.mkv: expected {len(pictures)} frames, found {count}")
    return count


def masks_of(base: Path, pictures: list[Picture]) -> Iterator[np.ndarray]:
    """Masks in order, uint8, at least as large as their pictures."""
    stacked = sum(picture[-1] == 0 for picture in pictures)
    stack = np.zeros((0, 1), np.uint8)
    if stacked:
        with Image.open(base.with_suffix(".tif")) as image:
            stack = np.asarray(image).astype(np.uint8)
    parts = iter(stack.reshape(stacked, -1, stack.shape[1]) if stacked else ())
    others = io.BytesIO(base.with_suffix(".webp").read_bytes() if stacked < len(pictures) else b"")
    for *_, size in pictures:
        if not size:
            yield next(parts)
            continue
        with Image.open(io.BytesIO(others.read(size))) as image:
            yield np.asarray(image.convert("RGB"))[..., 0].copy()


def frames_of(video: Path) -> Iterator[np.ndarray]:
    """Frames of a video, BGR."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield frame
    finally:
        capture.release()


if __name__ == "__main__":
    sys.exit(main())
