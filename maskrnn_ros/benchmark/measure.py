# SPDX-License-Identifier: Apache-2.0
"""One run: the tracker on a scene, in a process of its own, in its steady state."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from maskrnn_ros.benchmark.scene import FRAMES, Scene
from maskrnn_ros.config import Config
from maskrnn_ros.masks import MaskEncoding
from maskrnn_ros.runtime import cores, set_threads
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.stages import STAGES
from maskrnn_ros.types import Frame, InstanceState, LabelArray, Seed, Tracks, UInt8Array

T = TypeVar("T")

PERIOD_NS = 41_666_667
"""Between two stamps: 24 images a second, however fast they are processed."""

_WARM_UP = 10
"""Images after the seeded one that are not counted: caches fill, and what is set up lazily is."""
_MIN_FRAMES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What one run measured. Times are per frame, in ms of wall time.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many were followed.
        engine: What computed.
        ms_p50: From the image array to label map, masks and boxes; without the stage ``messages``.
        ms_p95: The same.
        fps: Frames per second of that, from the mean.
        rss_mb: Resident memory of the process at the end without the images of the scene, MB (10^6 bytes).
        stages: Median by stage; ``messages``: the InstanceMaskArray as the node makes it, None without ROS.
        stages_p95: The same, 95th percentile.
        frames: How many were counted.
        not_tracking: On how many of them not every instance was in state TRACKING.
        iou: Of the masks with the exact ones, mean over objects, on the last frame.
        seed_s: Time of the seed, with the target models of the objects, seconds.
        object_height: Of an object, as a share of the image's height.
        covered: Share of the image that the objects cover.
        threads: That share the work on an image.
    """

    width: int
    height: int
    objects: int
    engine: str
    ms_p50: float
    ms_p95: float
    fps: float
    rss_mb: float
    stages: dict[str, float | None]
    stages_p95: dict[str, float | None]
    frames: int
    not_tracking: int
    iou: float
    seed_s: float
    object_height: float
    covered: float
    threads: int


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process, so that its memory is its own; what it raises is raised here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure(config: Config, width: int, height: int, objects: int, seconds: float) -> Run:
    """Follow all objects of a scene for some seconds.

    Args:
        config: Settings.
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many.
        seconds: Time in the tracker that is measured; at least 5 frames are.
    """
    set_threads(config.threads)
    scene = Scene(width, height, objects)
    images = scene.images()
    tracker = build_tracker(config)
    begin = time.perf_counter()
    tracker.seed(Seed(stamp_ns=PERIOD_NS, labels=scene.labels(0)), Frame(stamp_ns=PERIOD_NS, image=images[0]))
    seed_s = time.perf_counter() - begin
    clock = _Clock(tracker, images, objects, _message_maker(config))
    for _ in range(_WARM_UP):
        clock.frame()
    clock.forget()
    while len(clock.ms) < _MIN_FRAMES or sum(clock.ms) < seconds * 1e3:
        tracks = clock.frame()
    rss = rss_mb() - images.nbytes / 1e6
    p50, p95 = np.percentile(clock.ms, (50, 95)).tolist()
    truth = scene.labels(clock.number)
    return Run(
        width=width,
        height=height,
        objects=objects,
        engine=tracker.engine,
        ms_p50=p50,
        ms_p95=p95,
        fps=1e3 / float(np.mean(clock.ms)),
        rss_mb=rss,
        stages=clock.stages(50),
        stages_p95=clock.stages(95),
        frames=len(clock.ms),
        not_tracking=clock.not_tracking,
        iou=mean_iou(tracks.labels, truth, objects),
        seed_s=seed_s,
        object_height=scene.object_height,
        covered=float(np.mean(truth > 0)),
        threads=config.threads or len(cores()),
    )


class _Clock:
    """Steps a tracker through the images, round and round, and notes what each step takes."""

    def __init__(
        self, tracker: Tracker, images: UInt8Array, objects: int, message: Callable[[Tracks], object] | None
    ) -> None:
        self._tracker, self._images, self._objects, self._message = tracker, images, objects, message
        self.number = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew with the figures."""
        self.ms: list[float] = []
        self.not_tracking = 0
        self._stages: dict[str, list[float]] = {name: [] for name in (*STAGES, "messages")}

    def frame(self) -> Tracks:
        """One step."""
        self.number += 1
        frame = Frame(stamp_ns=(self.number + 1) * PERIOD_NS, image=self._images[self.number % FRAMES])
        self._tracker.stages.take()
        begin = time.perf_counter()
        tracks = self._tracker.step(frame)
        self.ms.append((time.perf_counter() - begin) * 1e3)
        for name, spent in self._tracker.stages.take().items():
            self._stages[name].append(spent)
        if self._message is not None:
            begin = time.perf_counter()
            self._message(tracks)
            self._stages["messages"].append((time.perf_counter() - begin) * 1e3)
        self.not_tracking += not all_tracking(tracks, self._objects)
        return tracks

    def stages(self, percentile: float) -> dict[str, float | None]:
        """A percentile of ms by stage; None for what was not measured."""
        return {name: float(np.percentile(ms, percentile)) if ms else None for name, ms in self._stages.items()}


def all_tracking(tracks: Tracks, objects: int) -> bool:
    """Whether there are this many instances, all in state TRACKING."""
    return len(tracks.tracks) == objects and all(t.state == InstanceState.TRACKING for t in tracks.tracks)


def mean_iou(labels: LabelArray, truth: LabelArray, objects: int) -> float:
    """IoU of the masks of two label maps, mean over the ids from 1 to ``objects``."""
    each = []
    for i in range(1, objects + 1):
        found, real = labels == i, truth == i
        each.append(int(np.count_nonzero(found & real)) / max(1, int(np.count_nonzero(found | real))))
    return float(np.mean(each))


def rss_mb() -> float:
    """Resident memory of this process by Linux's /proc, MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _message_maker(config: Config) -> Callable[[Tracks], object] | None:
    """What makes an InstanceMaskArray of tracks; None where ROS is not installed."""
    try:
        from std_msgs.msg import Header

        from maskrnn_ros.ros.messages import instance_mask_array
    except ImportError:
        return None
    header, encoding = Header(), MaskEncoding[config.mask_encoding.upper()]

    def message(tracks: Tracks) -> object:
        return instance_mask_array(
            tracks, header, run_id="", session=1, frame_index=0, frames_skipped=0, encoding=encoding
        )

    return message
