# SPDX-License-Identifier: Apache-2.0
"""How large is an InstanceMaskArray on the wire? KiB per image and ms by mask_encoding, for given masks.

Folders hold label images (PNG), one per image of a clip: annotations of DAVIS, or what `maskrnn track` and
`maskrnn evaluate --out` write.

    python tools/measure_messages.py DAVIS/Annotations/480p/*
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from maskrnn_ros.datasets.frames import frame_paths
from maskrnn_ros.labels import binary_as_instance, read_labels
from maskrnn_ros.masks import MaskEncoding, decode
from maskrnn_ros.ros.messages import instance_mask_array
from maskrnn_ros.types import Box, InstanceState, LabelArray, Track, Tracks

ENCODINGS = (MaskEncoding.NONE, MaskEncoding.MONO8, MaskEncoding.BITS, MaskEncoding.RLE)


def tracks_of(labels: LabelArray) -> Tracks:
    """What a tracker would say of these masks.

    Args:
        labels: int32, (H, W), 0 = background.
    """
    tracks = []
    for instance_id in (int(i) for i in np.unique(labels) if i):
        rows, columns = np.nonzero(labels == instance_id)
        box = Box(x0=int(columns.min()), y0=int(rows.min()), x1=int(columns.max()) + 1, y1=int(rows.max()) + 1)
        mask = labels[box.y0 : box.y1, box.x0 : box.x1] == instance_id
        tracks.append(
            Track(
                instance_id=instance_id,
                name="",
                state=InstanceState.TRACKING,
                age=1,
                frames_unseen=0,
                score=1.0,
                visibility=1.0,
                box=box,
                mask=mask,
                probability=mask.astype(np.float32),
                velocity=None,
            )
        )
    return Tracks(stamp_ns=1, labels=labels, tracks=tuple(tracks))


def measure(folders: list[Path], every: int) -> None:
    """Print a row per encoding."""
    paths = [path for folder in folders for path in frame_paths(folder)[::every]]
    images = [tracks_of(binary_as_instance(read_labels(path))) for path in paths]
    instances = sum(len(tracks.tracks) for tracks in images) / len(images)
    dense = np.mean([tracks.labels.size for tracks in images]) / 1024
    print(f"{len(images)} images, {instances:.2f} instances each; a mono8 label image has {dense:.0f} KiB")
    print("| mask_encoding | KiB mean | p95 | max | encode, ms | decode, ms |\n|---|---|---|---|---|---|")
    for encoding in ENCODINGS:
        sizes, encode_s, decode_s = [], 0.0, 0.0
        for tracks in images:
            begin = time.perf_counter()
            message = instance_mask_array(
                tracks, Header(), run_id="0" * 32, session=1, frame_index=1, frames_skipped=0, encoding=encoding
            )
            encode_s += time.perf_counter() - begin
            sizes.append(len(serialize_message(message)) / 1024)
            begin = time.perf_counter()
            for instance in message.instances if encoding != MaskEncoding.NONE else ():
                decode(instance.data, instance.box.height, instance.box.width, instance.encoding)
            decode_s += time.perf_counter() - begin
        print(
            f"| {encoding.name.lower()} | {np.mean(sizes):.1f} | {np.percentile(sizes, 95):.1f} | {max(sizes):.1f} "
            f"| {encode_s / len(images) * 1e3:.2f} | {decode_s / len(images) * 1e3:.2f} |"
        )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="each holds the label images of a clip")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image (default 1)")
    args = parser.parse_args()
    measure(args.folders, args.every)


if __name__ == "__main__":
    main()
