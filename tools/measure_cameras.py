# SPDX-License-Identifier: Apache-2.0
"""How many images per second do several trackers on one machine follow, with and without cores of their own?

Starts a tracker for each camera, as cameras.launch.py does: a process and a namespace each. Another process per camera
publishes a clip forth and back, all of its objects are marked on the first image, and after --warmup seconds it
counts. Prints a row per camera: images sent and masks received per second, images without masks, age of the masks
(from before the image is published until its masks are here), share of the objects that are tracked, size of a message.

    python tools/measure_cameras.py --threads 1 2 --cpus '0;1'
    python tools/measure_cameras.py --cameras 1 --threads 1 2 --cpus 0          # one alone, for comparison
    python tools/measure_cameras.py --root DAVIS --sequence bmx-trees --annotations Annotations_instances

Settings are as they come; --set changes them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from maskrnn_ros import parameter_file
from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.config import from_flat
from maskrnn_ros.files import binary_as_instance, davis_sequence, read_frame, read_labels
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.parameter_file import parse_setting
from maskrnn_ros.ros.demo import CLIP_NAME, CLIP_ROOT
from maskrnn_ros.ros.images import fill_image, ns_to_stamp
from maskrnn_ros.ros.node_process import Listener, child_process, node_command, use_large_segments
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_subscribers

_TIMEOUT_S = 120.0


@dataclass
class Camera:
    """What came from one tracker."""

    namespace: str
    masks: list[tuple[int, bytes]] = field(default_factory=list)
    """Time of reception, ns, and the message."""
    seeds: list[Any] = field(default_factory=list)

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
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
            "age_ms_p50": float(np.percentile(ages, 50)),
            "age_ms_p95": float(np.percentile(ages, 95)),
            "objects": len(states) / len(messages),
            "tracked": states.count(InstanceMask.STATE_TRACKING) / max(1, len(states)),
            "kib": float(np.mean([len(data) for _, _, data in answers])) / 1024,
        }


def measure(args: argparse.Namespace, threads: int, cpus: list[str]) -> list[dict[str, float]]:
    """Run trackers and players; figures by camera.

    Args:
        args: Of the command line.
        threads: Of one operation of a tracker.
        cpus: Cores of each tracker as taskset lists them; empty for any.
    """
    cameras = [Camera(f"/measure_{os.getpid()}/camera{number}") for number in range(args.cameras)]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        values = {**dict(map(parse_setting, args.set)), "threads": threads}
        from_flat(values)  # refuses what is no setting
        settings = scratch / "node.yaml"
        parameter_file.write(settings, values)
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
                command = [sys.executable, __file__, *sys.argv[1:], "--play", camera.namespace]
                players.enter_context(child_process(command, stdout=players.enter_context(log.open("w"))))
            for node, camera in zip(nodes, cameras, strict=True):
                if not node.wait_until(camera.is_seeded, _TIMEOUT_S):
                    raise TimeoutError(f"{camera.namespace}: the seed was not applied within {_TIMEOUT_S:g} s")
            begin_ns = time.time_ns() + round(args.warmup * 1e9)
            end_ns = begin_ns + round(args.seconds * 1e9)
            for node in nodes:
                node.wait_until(lambda: time.time_ns() > end_ns + 1e9, float("inf"))  # masks of the last ones come
        sent = [[int(line) for line in log.read_text().split()] for log in logs]
    return [camera.figures(stamps, begin_ns, end_ns) for camera, stamps in zip(cameras, sent, strict=True)]


def play(args: argparse.Namespace, namespace: str) -> None:
    """Publish the clip forth and back until SIGINT, and print the stamp of every image."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    clip = davis_sequence(args.root, args.sequence, args.annotations)
    images = [cv2.resize(read_frame(path), args.size, interpolation=cv2.INTER_AREA) for path in clip.frames]
    labels = binary_as_instance(read_labels(clip.annotations[clip.frames[0].stem])).astype(np.uint16)
    turn = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    seed = _message(cv2.resize(labels, args.size, interpolation=cv2.INTER_NEAREST), "mono16")
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
            spin_until(executor, stop.is_set, begin + (number + 1) / args.rate - time.monotonic())
            if stop.is_set():
                return


def _message(pixels: Any, encoding: str) -> Any:
    message = Image()
    fill_image(message, pixels, encoding)
    message.header.frame_id = "camera"
    return message


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cameras", type=int, default=2, help="how many (default 2)")
    add("--rate", type=float, default=24.0, help="images per second of each (default 24)")
    add("--size", type=_size, default=(854, 480), metavar="WxH", help="of the images (default 854x480)")
    add("--threads", type=int, nargs="+", default=[1], help="of a tracker; a run for each (default 1)")
    add("--cpus", default="", help="cores of each tracker, e.g. '0;1': each run once without and once with them")
    add("--seconds", type=float, default=10.0, help="counted time of a run (default 10)")
    add("--warmup", type=float, default=5.0, help="seconds after the seeds that are not counted (default 5)")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings, e.g. mask_encoding=rle")
    add("--root", type=Path, default=CLIP_ROOT, help="data set in the layout of DAVIS (default: the demo clip)")
    add("--sequence", default=CLIP_NAME, help="its clip")
    add("--annotations", default="Annotations", help="folder of its annotations")
    add("--json", type=Path, metavar="FILE", help="write the figures for machines")
    add("--play", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Parse, run, print."""
    args = _arguments()
    if args.play:
        play(args, args.play)
        return
    pinnings = [[""] * args.cameras]
    if args.cpus:
        pinnings.append(args.cpus.split(";"))
        if len(pinnings[1]) != args.cameras or not shutil.which("taskset"):
            raise SystemExit(
                f"--cpus: expected taskset, and cores for each of {args.cameras} cameras, got {args.cpus!r}"
            )
    use_large_segments()
    print("| cores | threads | camera | sent, Hz | masks, Hz | dropped | age p50, p95, ms | objects | tracked | KiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    runs = []
    for cpus in pinnings:
        for threads in args.threads:
            for number, row in enumerate(measure(args, threads, cpus)):
                print(
                    f"| {cpus[number] or 'any'} | {threads} | {number} | {row['sent_hz']:.1f} | {row['masks_hz']:.1f} "
                    f"| {row['dropped']:.3f} | {row['age_ms_p50']:.0f}, {row['age_ms_p95']:.0f} "
                    f"| {row['objects']:.1f} | {row['tracked']:.2f} | {row['kib']:.1f} |",
                    flush=True,
                )
                runs.append({"cpus": cpus[number], "threads": threads, "camera": number, **row})
    if args.json:
        args.json.write_text(json.dumps({"rate_hz": args.rate, "size": args.size, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
