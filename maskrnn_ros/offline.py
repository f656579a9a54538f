# SPDX-License-Identifier: Apache-2.0
"""The tracker over files: frames and a seed mask in, label images and an overlay video out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from maskrnn_ros.config import Config, deterministic
from maskrnn_ros.files import (
    VideoWriter,
    binary_as_instance,
    frame_paths,
    iterate_video,
    read_frame,
    read_labels,
    write_labels,
)
from maskrnn_ros.overlay import overlay_tracks
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.tracker import set_threads
from maskrnn_ros.types import Frame, Seed, UInt8Array

OVERLAY_NAME = "overlay.mp4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackReport:
    """What ``track_files`` did.

    Args:
        frames: Frames tracked.
        ids: Instances of the seed.
        ms_per_frame: Mean time inside the tracker, milliseconds.
        final_states: State of each instance on the last frame, by id.
    """

    frames: int
    ids: tuple[int, ...]
    ms_per_frame: float
    final_states: dict[int, str]


def track_files(
    frames: Path, seed_mask: Path, out: Path, config: Config, *, fps: float | None = None, overwrite: bool = False
) -> TrackReport:
    """Track the seed, drawn on the first frame, through a folder of images or a video.

    Adaptation in the background becomes blocking: the result must not depend on the speed of the machine.

    Args:
        frames: Folder of images, in the order of their names, or a video file.
        seed_mask: Indexed or grey image: value = id, 0 = background; only 0 and 255 = one instance.
        out: Folder for one indexed PNG per frame, named as the frame, and ``overlay.mp4``.
        config: All settings.
        fps: Frames per second; default that of the video, 24 for a folder.
        overwrite: Write into a folder that holds results already.

    Raises:
        ValueError: Nothing to read, a seed of another size, results in the way.
        RuntimeError: The device asked for is not there.
        OSError: A file cannot be read or written.
    """
    if not overwrite and out.is_dir() and any(out.glob("*.png")):
        raise ValueError(f"{out} holds results already; give another folder or --overwrite")
    source, count, video_fps = _open(frames)
    fps = video_fps if fps is None else fps
    set_threads(config.threads)
    if fps <= 0:
        raise ValueError(f"fps must be > 0, got {fps:g}")
    tracker = build_tracker(deterministic(config))
    labels = binary_as_instance(read_labels(seed_mask))
    seed = IdBook().admit(Seed(stamp_ns=0, labels=labels), config).seed  # the rules of the node
    assert isinstance(seed, Seed)  # labels stay labels
    out.mkdir(parents=True, exist_ok=True)
    spent_s, number, states = 0.0, 0, {}
    with VideoWriter(out / OVERLAY_NAME, fps) as video:
        for number, (stem, image) in enumerate(tqdm(source, total=count, desc="track", unit="frame"), start=1):
            frame = Frame(stamp_ns=round(number * 1e9 / fps), image=image)
            begin = time.perf_counter()
            if number == 1:
                tracks = tracker.seed(seed, frame)
            else:
                tracks = tracker.step(frame)
            spent_s += time.perf_counter() - begin
            write_labels(out / f"{stem}.png", tracks.labels)
            video.write(overlay_tracks(image, tracks))
            states = {track.instance_id: track.status.name for track in tracks.tracks}
    if not number:
        raise ValueError(f"{frames} holds no frame")
    return TrackReport(frames=number, ids=tuple(states), ms_per_frame=1e3 * spent_s / number, final_states=states)


def _open(frames: Path) -> tuple[Iterator[tuple[str, UInt8Array]], int | None, float]:
    """Frames by stem, how many where that is known, and the frame rate."""
    if frames.is_dir():
        paths = frame_paths(frames)
        return ((path.stem, read_frame(path)) for path in paths), len(paths), 24.0
    images, fps = iterate_video(frames)
    return ((f"{number:05d}", image) for number, image in enumerate(images)), None, fps
