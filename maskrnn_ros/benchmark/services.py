# SPDX-License-Identifier: Apache-2.0
"""How soon the services answer while the tracker is busy.

The node runs in a process of its own with a tracker whose every step is made longer; this one feeds it images and calls
the services in turn.
"""

from __future__ import annotations

import os
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
from maskrnn_ros.image_messages import fill_image, ns_to_stamp
from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.ros.node_process import child_process, use_large_segments
from maskrnn_ros.ros.qos import client_node, reliable, spin_until
from maskrnn_ros.srv import AddInstances, RemoveInstances
from maskrnn_ros.tracker_node.node import TrackerNode
from maskrnn_ros.tracking import Tracker, build_tracker

CALLS = 100
STEP_MS = 200.0
RATE_HZ = 30.0
_NODE = "maskrnn_ros.benchmark.services"
_START_TIMEOUT_S = 180.0
_ANSWER_TIMEOUT_S = 60.0
_STATUS_PERIOD_S = 0.1


def run_slow_node(namespace: str, step_ms: float) -> None:
    """The node, every step of its tracker made longer."""

    def build(config: Config) -> Tracker:
        tracker = build_tracker(config)
        advance = tracker.advance

        def slow(frame: Any, images: int = 1) -> None:
            advance(frame, images)
            time.sleep(step_ms / 1e3)

        tracker.advance = slow  # type: ignore[method-assign]
        return tracker

    arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-p", f"status_period:={_STATUS_PERIOD_S}"]
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
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


def measure_services(calls: int = CALLS, step_ms: float = STEP_MS, rate: float = RATE_HZ) -> dict[str, Any]:
    """Start a slow node, feed it images of 854x480 and call its services.

    Args:
        calls: Of each service.
        step_ms: How long a step of the tracker sleeps.
        rate: Images a second.

    Returns:
        For JSON: the node's counts and ``step_ms_p50``, and for each service its calls in ms.

    Raises:
        RuntimeError: The node does not start, or a call gets no answer or fails.
    """
    use_large_segments()
    namespace = f"/maskrnn_benchmark_{os.getpid()}"  # others may run beside it
    with child_process([sys.executable, "-m", _NODE, namespace, str(step_ms)]):
        return _measure(namespace, calls, rate)


def _measure(namespace: str, calls: int, rate: float) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 256, (480, 854, 3), dtype=np.uint8)
    mask = np.zeros((480, 854), np.uint8)
    mask[100:300, 200:400] = 255
    spent: dict[str, list[float]] = {"add_instances": [], "remove_instances": [], "enable": []}
    with client_node("measure_services") as (node, executor):
        statuses: list[Any] = []
        node.create_subscription(TrackerStatus, f"{namespace}/tracker/status", statuses.append, reliable(10))
        images = node.create_publisher(Image, f"{namespace}/image", reliable(2))
        message = Image()
        fill_image(message, image, "rgb8")

        def feed() -> None:
            ns_to_stamp(time.time_ns(), message.header.stamp)
            images.publish(message)

        kinds = {"add_instances": AddInstances, "remove_instances": RemoveInstances, "enable": SetBool}
        clients = {name: node.create_client(kind, f"{namespace}/tracker/{name}") for name, kind in kinds.items()}
        if not spin_until(executor, lambda: bool(statuses) and images.get_subscription_count() > 0, _START_TIMEOUT_S):
            raise RuntimeError(f"the node did not start within {_START_TIMEOUT_S:g} s")
        node.create_timer(1 / rate, feed)
        for number in range(calls):
            mask[0, 0] = number % 2 * 255  # another content, else it is the same seed again
            add = AddInstances.Request(prompts=[mask_prompt(mask != 0)])
            ids = _call(executor, clients["add_instances"], add, spent["add_instances"]).ids
            _call(executor, clients["enable"], SetBool.Request(data=True), spent["enable"])
            _call(executor, clients["remove_instances"], RemoveInstances.Request(ids=ids), spent["remove_instances"])
            heard = len(statuses)

            def is_idle(heard: int = heard) -> bool:
                newest = statuses[-1]
                return len(statuses) > heard + 1 and not newest.requests_waiting and not newest.seeds_waiting

            # a seed takes longer than a call: without a pause more would wait than the node lets in
            if not spin_until(executor, is_idle, _ANSWER_TIMEOUT_S):
                raise RuntimeError(f"the node did not carry out its requests within {_ANSWER_TIMEOUT_S:g} s")
        last = statuses[-1]
        counts = {name: getattr(last, name) for name in ("received", "processed", "dropped", "step_ms_p50")}
    return {**counts, "services": spent}


def services_rows(found: dict[str, Any]) -> list[str]:
    """The times as a table."""
    rows = [
        f"services while the tracker is busy: {found['received']} images received, {found['processed']} processed, "
        f"{found['dropped']} dropped, {found['step_ms_p50']:.0f} ms a step (p50)"
    ]
    for name, spent in found["services"].items():
        p50, p95 = np.percentile(spent, (50, 95))
        rows.append(
            f"{name:>17}: p50 {p50:5.1f} ms, p95 {p95:5.1f} ms, at most {max(spent):5.1f} ms ({len(spent)} calls)"
        )
    return rows


def _call(executor: SingleThreadedExecutor, client: Any, request: Any, spent: list[float]) -> Any:
    """Call and note the time."""
    begin = time.perf_counter()
    future = client.call_async(request)
    if not spin_until(executor, future.done, _ANSWER_TIMEOUT_S):
        raise RuntimeError(f"no answer from {client.srv_name} within {_ANSWER_TIMEOUT_S:g} s")
    spent.append((time.perf_counter() - begin) * 1e3)
    if not future.result().success:
        raise RuntimeError(f"{client.srv_name}: {future.result().message}")
    return future.result()


if __name__ == "__main__":
    run_slow_node(sys.argv[1], float(sys.argv[2]))
