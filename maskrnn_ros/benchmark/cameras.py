# SPDX-License-Identifier: Apache-2.0
"""How many images per second several trackers on one machine process, with and without cores of their own.

Starts a tracker for each camera, as cameras.launch.py does: a process and a namespace each. Another process per camera
publishes the demo clip forth and back and marks all of its objects on the first image.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from maskrnn_ros import parameter_file
from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.benchmark.by_flow import ByFlow
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.datasets.davis import CLIP_NAME, CLIP_ROOT, davis_sequence
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.image_messages import fill_image, ns_to_stamp
from maskrnn_ros.labels import read_labels
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.ros.node_process import Listener, child_process, node_command, use_large_segments
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_subscribers

WARMUP_S = 5.0
_TIMEOUT_S = 120.0
_PLAYER = "maskrnn_ros.benchmark.cameras"


@dataclass
class Camera:
    """What came from one tracker."""

    namespace: str
    by_flow: ByFlow = field(init=False)
    masks: list[tuple[int, bytes]] = field(default_factory=list)
    """Time of reception, ns, and the message."""
    seeds: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.by_flow = ByFlow(f"{self.namespace}/tracker")

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        self.by_flow.subscribe(node)
        tracker = f"{self.namespace}/tracker"
        node.create_subscription(InstanceMaskArray, f"{tracker}/instances", self._on_masks, reliable(100), raw=True)
        node.create_subscription(SeedResult, f"{tracker}/seed_result", self.seeds.append, reliable(10))

    def _on_masks(self, data: bytes) -> None:
        self.masks.append((time.time_ns(), data))

    def is_seeded(self) -> bool:
        """Whether its objects are followed.

        Raises:
            RuntimeError: The seed was rejected.
        """
        for result in self.seeds:
            if result.status == SeedResult.STATUS_REJECTED:
                raise RuntimeError(
                    f"{self.namespace}: expected the seed to be applied, it was rejected: {result.reason}"
                )
        return any(result.status == SeedResult.STATUS_APPLIED for result in self.seeds)

    def figures(self, sent_ns: list[int], begin_ns: int, end_ns: int) -> dict[str, float]:
        """Of the images that were sent in the given time."""
        sent = [stamp for stamp in sent_ns if begin_ns <= stamp < end_ns]
        answers = [(at, cdr_stamp(data), data) for at, data in self.masks]
        answers = [answer for answer in answers if begin_ns <= answer[1] < end_ns]
        if not sent or not answers:
            raise RuntimeError(f"{self.namespace}: expected images and masks, got {len(sent)} and {len(answers)}")
        ages = [(at - stamp) / 1e6 for at, stamp, _ in answers]
        messages = [deserialize_message(data, InstanceMaskArray) for _, _, data in answers]
        states = [instance.state for message in messages for instance in message.instances]
        seconds = (end_ns - begin_ns) / 1e9
        return {
            "sent_hz": len(sent) / seconds,
            "masks_hz": len(answers) / seconds,
            "dropped": 1 - len(answers) / len(sent),
            "propagated": self.by_flow.share(begin_ns, end_ns),
            "age_ms_p50": float(np.percentile(ages, 50)),
            "age_ms_p95": float(np.percentile(ages, 95)),
            "objects": len(states) / len(messages),
            "tracked": states.count(InstanceMask.STATE_TRACKING) / max(1, len(states)),
            "kib": float(np.mean([len(data) for _, _, data in answers])) / 1024,
        }


@dataclass(frozen=True, kw_only=True)
class Load:
    """What each camera does.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        rate: Images a second.
        seconds: Counted time of a run, after ``WARMUP_S``.
    """

    width: int
    height: int
    rate: float
    seconds: float


def measure_cameras(
    config: Config, cameras: int, load: Load, *, threads: Sequence[int], cpus: str
) -> list[dict[str, Any]]:
    """A row for each camera of each run: with each number of threads, without and, if given, with cores of their own.

    Args:
        config: Settings of the trackers; ``threads`` is replaced.
        cameras: How many.
        load: What each does.
        threads: Of a tracker; a run for each.
        cpus: Cores of each tracker as taskset lists them, separated by semicolons; empty: not pinned.

    Raises:
        ValueError: ``cpus`` does not name cores for every camera.
        RuntimeError: taskset is not installed, a node fails, or a seed is rejected.
    """
    pinnings = [[""] * cameras]
    if cpus:
        pinnings.append(cpus.split(";"))
        if len(pinnings[1]) != cameras:
            raise ValueError(f"--cpus: expected cores for each of {cameras} cameras, separated by ;, got {cpus!r}")
        if not shutil.which("taskset"):
            raise RuntimeError("--cpus needs the command taskset (package util-linux), found none")
    use_large_segments()
    rows = []
    for pinning in pinnings:
        for number in threads:
            found = _measure(with_values(config, threads=number), load, pinning)
            rows += [
                {"cpus": pinning[place], "threads": number, "camera": place, **row} for place, row in enumerate(found)
            ]
    return rows


def _measure(config: Config, load: Load, cpus: Sequence[str]) -> list[dict[str, float]]:
    """Run trackers and players once; figures by camera."""
    cameras = [Camera(f"/maskrnn_benchmark_{os.getpid()}/camera{number}") for number in range(len(cpus))]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = scratch / "node.yaml"
        parameter_file.write(settings, to_flat(config))
        commands = [
            node_command(camera.namespace, "--params-file", str(settings), "--log-level", "warn") for camera in cameras
        ]
        pinned = [
            ["taskset", "--cpu-list", cores, *command] if cores else command
            for cores, command in zip(cpus, commands, strict=True)
        ]
        processes = [stack.enter_context(child_process(command)) for command in pinned]
        nodes = [
            stack.enter_context(Listener(process, f"{camera.namespace}/tracker", camera.subscribe))
            for process, camera in zip(processes, cameras, strict=True)
        ]
        logs = [scratch / f"sent{number}" for number in range(len(cameras))]
        with contextlib.ExitStack() as players:
            for camera, log in zip(cameras, logs, strict=True):
                command = [sys.executable, "-m", _PLAYER, camera.namespace]
                command += [str(load.width), str(load.height), str(load.rate)]
                players.enter_context(child_process(command, stdout=players.enter_context(log.open("w"))))
            for node, camera in zip(nodes, cameras, strict=True):
                if not node.wait_until(camera.is_seeded, _TIMEOUT_S):
                    raise RuntimeError(f"{camera.namespace}: the seed was not applied within {_TIMEOUT_S:g} s")
            begin_ns = time.time_ns() + round(WARMUP_S * 1e9)
            end_ns = begin_ns + round(load.seconds * 1e9)
            for node in nodes:
                node.wait_until(lambda: time.time_ns() > end_ns + 1e9, float("inf"))  # masks of the last ones come
        sent = [[int(line) for line in log.read_text().split()] for log in logs]
    return [camera.figures(stamps, begin_ns, end_ns) for camera, stamps in zip(cameras, sent, strict=True)]


def cameras_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The figures as a table."""
    table = [
        "   cores  threads  camera  sent, Hz  masks, Hz   dropped   by flow  age p50 ms  age p95 ms  "
        "objects  tracked     KiB"
    ]
    for row in rows:
        table.append(
            f"{row['cpus'] or 'any':>8}  {row['threads']:7d}  {row['camera']:6d}  {row['sent_hz']:8.1f}  "
            f"{row['masks_hz']:9.1f}  {row['dropped']:8.1%}  {row['propagated']:8.1%}  {row['age_ms_p50']:10.0f}  "
            f"{row['age_ms_p95']:10.0f}  {row['objects']:7.1f}  {row['tracked']:7.2f}  {row['kib']:6.1f}"
        )
    return table


def play(namespace: str, width: int, height: int, rate: float) -> None:
    """Publish the clip forth and back until SIGINT, and print the stamp of every image."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    clip = davis_sequence(CLIP_ROOT, CLIP_NAME, "Annotations")
    size = (width, height)
    images = [cv2.resize(read_frame(path), size, interpolation=cv2.INTER_AREA) for path in clip.frames]
    labels = read_labels(clip.annotations[clip.frames[0].stem]).astype(np.uint16)
    turn = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    seed = _message(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), "mono16")
    messages = [_message(image, "rgb8") for image in images]
    with client_node("player") as (node, executor):
        images_out = node.create_publisher(Image, f"{namespace}/image", reliable(2))
        seeds_out = node.create_publisher(Image, f"{namespace}/tracker/seed_mask", reliable(1))
        wait_for_subscribers(executor, (images_out, seeds_out), _TIMEOUT_S)
        begin = time.monotonic()
        for number in range(10**9):
            message = messages[turn[number % len(turn)]]
            stamp_ns = time.time_ns()
            ns_to_stamp(stamp_ns, message.header.stamp)
            if number == 0:
                ns_to_stamp(stamp_ns, seed.header.stamp)
                seeds_out.publish(seed)
            images_out.publish(message)
            print(stamp_ns, flush=True)
            spin_until(executor, stop.is_set, begin + (number + 1) / rate - time.monotonic())
            if stop.is_set():
                return


def _message(pixels: Any, encoding: str) -> Any:
    message = Image()
    fill_image(message, pixels, encoding)
    message.header.frame_id = "camera"
    return message


if __name__ == "__main__":
    play(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
