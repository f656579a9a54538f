# SPDX-License-Identifier: Apache-2.0
"""The images of a bag as files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
from tqdm import tqdm

from maskrnn_ros.bags.options import ToFramesOptions
from maskrnn_ros.bags.read import BagReader
from maskrnn_ros.disk import write_bytes, write_text

STAMPS = "stamps.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturesReport:
    """What was written.

    Args:
        frames: Number of images.
        width: Of the first image, pixels.
        height: Of the first image, pixels.
        out: The folder.
    """

    frames: int
    width: int
    height: int
    out: Path


def to_frames(
    bag: Path | str,
    out: Path | str,
    image_topic: str = ToFramesOptions.image_topic,
    *,
    every: int = ToFramesOptions.every,
    mono16_bits: str = "auto",
    progress: bool = False,
) -> PicturesReport:
    """Write the images of a bag as ``out``/00000.png and so on (RGB, lossless), and their stamps as ``stamps.csv``.

    Args:
        bag: Folder of the bag, or a .mcap or .db3 file.
        out: Folder to write; it must be empty or not exist yet.
        image_topic: Topic of the images, raw or compressed.
        every: Keep every n-th image.
        mono16_bits: How images of 16 bits are read, see ``BitDepth``.
        progress: Show a progress bar.

    Raises:
        ValueError: No such topic or no image on it, ``every`` below 1, or a folder that is not empty.
        OSError: A file cannot be written.
    """
    out = Path(out)
    if every < 1:
        raise ValueError(f"every must be >= 1, got {every}")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give another folder")
    with BagReader(bag) as reader:
        wanted = range(0, reader.find_images(image_topic).count, every)
        if not wanted:
            raise ValueError(f"{bag} has no images on {image_topic}")
        out.mkdir(parents=True, exist_ok=True)
        stamps, sizes = ["file,stamp_ns"], []
        frames = reader.frames(image_topic, wanted, mono16_bits)
        for number, frame in enumerate(tqdm(frames, total=len(wanted), unit="frame", disable=not progress)):
            name = f"{number:05d}.png"
            write_bytes(out / name, cv2.imencode(".png", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))[1].tobytes())
            stamps.append(f"{name},{frame.stamp_ns}")
            sizes.append(frame.image.shape[:2])
    write_text(out / STAMPS, "\n".join(stamps) + "\n")
    return PicturesReport(frames=len(sizes), width=sizes[0][1], height=sizes[0][0], out=out)
