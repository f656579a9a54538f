# SPDX-License-Identifier: Apache-2.0
"""The camera of the latency measurement: a process that publishes the benchmark's scene, at one rate after another.

It says on stdout, one line of JSON for each rate, which stamps it gave. A stamp is the wall clock at the moment in
which its image is published.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.benchmark.scene import FRAMES, Scene
from maskrnn_ros.image_messages import fill_image, label_image_data, ns_to_stamp
from maskrnn_ros.msg import InstanceMaskArray, SeedResult
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_answers, wait_for_subscribers

IMAGE_DEPTH = 5
_START_TIMEOUT_S = 60.0
_SEED_TIMEOUT_S = 600.0
"""The heads are adapted before the first masks come: seconds for each object, on a busy machine minutes."""
_WARM_UP_S = 1.0
_PAUSE_S = 0.5
"""Between two rates: what is on its way arrives, so that no rate is charged with the one before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Burst:
    """What was published at one rate.

    Args:
        hz: Images a second.
        stamps: Of all images, ns.
        late_ms_p95: How late they were published by their clock, ms.
        publish_ms_p50: What rclpy takes to publish one, ms.
    """

    hz: float
    stamps: tuple[int, ...]
    late_ms_p95: float
    publish_ms_p50: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--scene", type=int, nargs=3, required=True, metavar=("WIDTH", "HEIGHT", "OBJECTS"))
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args(arguments)
    scene = Scene(*args.scene)
    with client_node("maskrnn_benchmark_camera") as (node, executor):
        camera = Camera(scene, node, executor, args.namespace)
        camera.seed()
        camera.play(args.rates[0], _WARM_UP_S)
        for hz in args.rates:
            time.sleep(_PAUSE_S)
            print(json.dumps(dataclasses.asdict(camera.play(hz, args.seconds))), flush=True)
        time.sleep(_PAUSE_S)  # what is not delivered dies with the node
    return 0


class Camera:
    """Publishes a scene to a tracker.

    Args:
        scene: What it sees.
        node: Its rclpy node.
        executor: Spins it.
        namespace: Of the tracker.
        marked: How many of the scene's objects ``seed`` marks; None: all.
    """

    def __init__(self, scene: Scene, node: Any, executor: Any, namespace: str, marked: int | None = None) -> None:
        self._scene, self._node, self._executor = scene, node, executor
        self._marked = scene.objects if marked is None else marked
        self._tracker = f"{namespace}/tracker"
        self._images = node.create_publisher(Image, f"{namespace}/image", reliable(IMAGE_DEPTH))
        self._seeds = node.create_publisher(Image, f"{self._tracker}/seed_mask", reliable(1))
        self._messages = [_message(scene.image(number)) for number in range(FRAMES)]  # before any clock runs
        self.number = 0
        """Of the next image; the scene's is this modulo ``FRAMES``."""

    def seed(self) -> None:
        """Publish the seed and its image, wait for the masks of that image.

        Raises:
            TimeoutError: The node takes nothing, or does not answer.
            RuntimeError: It rejects the seed.
        """
        results: list[Any] = []
        answers: list[int] = []
        topics = f"{self._tracker}/seed_result", f"{self._tracker}/instances"

        def on_instances(data: bytes) -> None:
            answers.append(cdr_stamp(data))

        waiting = (
            self._node.create_subscription(SeedResult, topics[0], results.append, reliable(10)),
            self._node.create_subscription(InstanceMaskArray, topics[1], on_instances, reliable(10), raw=True),
        )
        wait_for_subscribers(self._executor, [self._images, self._seeds], _START_TIMEOUT_S)
        wait_for_answers(self._node, self._executor, topics, self._tracker, _START_TIMEOUT_S)
        stamp_ns = time.time_ns()
        labels = self._scene.labels(0)
        labels[labels > self._marked] = 0
        self._seeds.publish(_message(label_image_data(labels, "mono16"), "mono16", stamp_ns))
        # the seed waits for its image: the other way round a late seed would have to catch up
        if not spin_until(self._executor, lambda: bool(results), _START_TIMEOUT_S):
            raise TimeoutError(f"no answer on {topics[0]} to the seed; waited {_START_TIMEOUT_S:g} s")
        self.publish(stamp_ns)

        def is_over() -> bool:
            return stamp_ns in answers or results[-1].status == SeedResult.STATUS_REJECTED

        if not spin_until(self._executor, is_over, _SEED_TIMEOUT_S):
            raise TimeoutError(f"no masks of the seeded image; waited {_SEED_TIMEOUT_S:g} s")
        if results[-1].status == SeedResult.STATUS_REJECTED:
            raise RuntimeError(f"expected the seed to be applied, it was rejected: {results[-1].reason}")
        for subscription in waiting:  # from now on this process only publishes
            self._node.destroy_subscription(subscription)

    def play(self, hz: float, seconds: float) -> Burst:
        """Publish at a rate for some seconds."""
        stamps, late_ms, publish_ms = [], [], []
        begin = time.monotonic()
        for index in range(max(1, round(hz * seconds))):
            due = begin + index / hz
            time.sleep(max(0.0, due - time.monotonic()))
            stamps.append(time.time_ns())
            start = time.monotonic()
            late_ms.append((start - due) * 1e3)
            self.publish(stamps[-1])
            publish_ms.append((time.monotonic() - start) * 1e3)
        return Burst(
            hz=hz,
            stamps=tuple(stamps),
            late_ms_p95=float(np.percentile(late_ms, 95)),
            publish_ms_p50=float(np.median(publish_ms)),
        )

    def publish(self, stamp_ns: int) -> None:
        """Publish the next image."""
        message = self._messages[self.number % FRAMES]
        ns_to_stamp(stamp_ns, message.header.stamp)
        self._images.publish(message)
        self.number += 1


def _message(pixels: Any, encoding: str = "rgb8", stamp_ns: int = 0) -> Any:
    message = Image()
    fill_image(message, pixels, encoding)
    ns_to_stamp(stamp_ns, message.header.stamp)
    message.header.frame_id = "camera"
    return message


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, TimeoutError) as error:
        print(f"camera: {error}", file=sys.stderr)
        sys.exit(1)
