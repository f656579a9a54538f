# SPDX-License-Identifier: Apache-2.0
"""How soon do the services answer while the tracker is busy? Prints p50, p95 and the maximum by service.

The node runs in a process of its own with a tracker whose every step sleeps for --step-ms; a client feeds it images
at --rate and calls the services in turn. In a set-up environment, with room for images in shared memory:

    FASTRTPS_DEFAULT_PROFILES_FILE=config/fastdds_localhost.xml python tools/measure_services.py
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from maskrnn_ros.config import Config
from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.ros.images import fill_image, ns_to_stamp
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.ros.node import TrackerNode
from maskrnn_ros.ros.qos import client_node, reliable, spin_until
from maskrnn_ros.srv import AddInstances, RemoveInstances
from maskrnn_ros.tracking import Tracker, build_tracker


def run_slow_node(step_ms: float) -> None:
    """The node, every step of its tracker made longer."""

    def build(config: Config) -> Tracker:
        tracker = build_tracker(config)
        advance = tracker.advance

        def slow(frame: Any) -> None:
            advance(frame)
            time.sleep(step_ms / 1e3)

        tracker.advance = slow  # type: ignore[method-assign]
        return tracker

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = TrackerNode(build)
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except KeyboardInterrupt:
        pass
    finally:
        executor.shutdown()
        node.close()
        rclpy.try_shutdown()


def measure(calls: int, rate: float) -> dict[str, list[float]]:
    """Milliseconds of each call by service."""
    image = np.random.default_rng(0).integers(0, 256, (480, 854, 3), dtype=np.uint8)
    mask = np.zeros((480, 854), np.uint8)
    mask[100:300, 200:400] = 255
    spent: dict[str, list[float]] = {"add_instances": [], "remove_instances": [], "enable": []}
    with client_node("measure_services") as (node, executor):
        statuses: list[Any] = []
        node.create_subscription(TrackerStatus, "/tracker/status", statuses.append, reliable(10))
        images = node.create_publisher(Image, "/image", reliable(2))
        message = Image()
        fill_image(message, image, "rgb8")

        def feed() -> None:
            ns_to_stamp(time.time_ns(), message.header.stamp)
            images.publish(message)

        kinds = {"add_instances": AddInstances, "remove_instances": RemoveInstances, "enable": SetBool}
        clients = {name: node.create_client(kind, f"/tracker/{name}") for name, kind in kinds.items()}
        if not spin_until(executor, lambda: bool(statuses) and images.get_subscription_count() > 0, 60.0):
            raise SystemExit("the node did not start")
        node.create_timer(1 / rate, feed)
        for number in range(calls):
            mask[0, 0] = number % 2 * 255  # another content, else it is the same seed again
            add = AddInstances.Request(prompts=[mask_prompt(mask != 0)])
            ids = call(executor, clients["add_instances"], add, spent["add_instances"]).ids
            call(executor, clients["enable"], SetBool.Request(data=True), spent["enable"])
            call(executor, clients["remove_instances"], RemoveInstances.Request(ids=ids), spent["remove_instances"])
            spin_until(executor, lambda: False, 0.05)
        last = statuses[-1]
        print(f"images: {last.received} received, {last.processed} processed, {last.dropped} dropped")
        print(f"a step took {last.step_ms_p50:.0f} ms (p50)")
    return spent


def call(executor: SingleThreadedExecutor, client: Any, request: Any, spent: list[float]) -> Any:
    """Call and note the time."""
    begin = time.perf_counter()
    future = client.call_async(request)
    if not spin_until(executor, future.done, 30.0):
        raise SystemExit(f"no answer from {client.srv_name}")
    spent.append((time.perf_counter() - begin) * 1e3)
    assert future.result().success, future.result().message
    return future.result()


def main() -> None:
    """Parse, start the node, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--step-ms", type=float, default=200.0, help="how long a step of the tracker sleeps")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--calls", type=int, default=100, help="calls of each service")
    parser.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.node:
        run_slow_node(args.step_ms)
        return
    node = subprocess.Popen([sys.executable, __file__, "--node", "--step-ms", str(args.step_ms)])
    try:
        for name, spent in measure(args.calls, args.rate).items():
            p50, p95 = np.percentile(spent, (50, 95))
            print(f"{name:17s} p50 {p50:5.1f} ms   p95 {p95:5.1f} ms   max {max(spent):5.1f} ms   ({len(spent)} calls)")
    finally:
        node.send_signal(signal.SIGINT)
        node.wait()


if __name__ == "__main__":
    main()
