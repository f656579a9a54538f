# SPDX-License-Identifier: Apache-2.0
"""The node ``locator``: instance masks, depth and camera_info in, a position in space for each instance out.

A process of its own, beside the tracker's: it needs the ROS package message_filters, which a machine that has ROS from
pip alone does not have and on which the tracker has to run all the same; and its work takes nothing from the
tracker's. It imports no torch.

The callbacks pair the messages (``Pairing``); one thread computes and publishes. The newest set wins.
"""

from __future__ import annotations

import importlib
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from maskrnn_ros.config import settings
from maskrnn_ros.limits import text_line
from maskrnn_ros.locator.locate import LocatorConfig
from maskrnn_ros.locator.pairing import Pairing
from maskrnn_ros.locator.positions import locate_all, marker_array, point_cloud, position_array
from maskrnn_ros.msg import InstanceMaskArray, InstancePositionArray
from maskrnn_ros.ros import parameters
from maskrnn_ros.ros.image_source import Source
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.process import run_node
from maskrnn_ros.timeline import TimeRule

INTERFACES: tuple[Interface, ...] = (
    Interface(
        name="instances",
        type="maskrnn_ros/InstanceMaskArray",
        kind="subscribes",
        text="The tracker's masks: remap to `/tracker/instances`. Needs a `mask_encoding` other than none.",
    ),
    Interface(
        name="depth",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="Depth registered to the tracked image: 16UC1 in units of `depth_unit`, or 32FC1 in meters.",
    ),
    Interface(
        name="camera_info",
        type="sensor_msgs/CameraInfo",
        kind="subscribes",
        text="Intrinsics of that image, one message per depth image.",
    ),
    Interface(
        name="~/positions",
        type="maskrnn_ros/InstancePositionArray",
        kind="publishes",
        text="Depth, centroid, extent and covariance of each instance, with the header of its masks.",
    ),
    Interface(
        name="~/markers",
        type="visualization_msgs/MarkerArray",
        kind="publishes",
        text="A box and a label per instance for RViz2. Computed only while somebody subscribes.",
    ),
    Interface(
        name="~/points",
        type="sensor_msgs/PointCloud2",
        kind="publishes",
        text="The points of all instances, fields x, y, z and id. Computed only while somebody subscribes.",
    ),
    Interface(
        name="/diagnostics",
        type="diagnostic_msgs/DiagnosticArray",
        kind="publishes",
        text="Messages received, paired and refused, and why; every `status_period`.",
    ),
)

_DEPTH = 10
_SUSPICIOUS = 3
"""Masks in a row without depth that are worth a warning: a best effort topic may lose one."""
_KINDS = {"instances": InstanceMaskArray, "depth": Image, "camera_info": CameraInfo}


class _Worker:
    """A thread that works on the newest of what it is given."""

    def __init__(self, work: Callable[[tuple[Any, ...]], None]) -> None:
        self._work = work
        self._ready = threading.Condition()
        self._newest: tuple[Any, ...] | None = None
        self._stopped = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="locator")
        self._thread.start()

    def put(self, *messages: Any) -> None:
        """Hand over; what still waits is dropped."""
        with self._ready:
            self.dropped += self._newest is not None
            self._newest = messages
            self._ready.notify()

    def stop(self) -> None:
        """Finish what is begun."""
        with self._ready:
            self._stopped = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._newest is not None or self._stopped)
                if self._stopped:
                    return
                messages, self._newest = self._newest, None
            assert messages is not None
            self._work(messages)


class LocatorNode(Node):
    """See the module; topics and parameters are listed in the README.

    Args:
        filters: The module message_filters.
        arguments: Further arguments of ``rclpy.node.Node``.

    Raises:
        ValueError: A parameter override is of the wrong type, out of range or contradicts another.
    """

    def __init__(self, filters: Any, **arguments: Any) -> None:
        super().__init__("locator", **arguments)
        known = list(settings(LocatorConfig))
        parameters.declare_all(self, known, read_only=True)
        self._config = LocatorConfig(**{name: self.get_parameter(name).value for name, _, _ in known})
        self._lock = threading.Lock()  # of what both threads count
        self._located = self._refused = self._errors = 0
        self._last_error = ""
        self._before = (0, 0, 0)
        self._unmet = 0
        self._positions = self.create_publisher(InstancePositionArray, "~/positions", _DEPTH)
        self._markers = self.create_publisher(MarkerArray, "~/markers", _DEPTH)
        self._points = self.create_publisher(PointCloud2, "~/points", _DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", _DEPTH)
        self._worker = _Worker(self._work)
        self.pairing = Pairing(
            filters,
            tuple(_KINDS),
            self._worker.put,
            queue_size=self._config.queue_size,
            slop_s=self._config.slop if self._config.sync == "approximate" else None,
            rule=TimeRule.of(self._config),
        )
        self._sources = {name: self._source(name, kind) for name, kind in _KINDS.items()}
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused /clock must not silence the diagnostics
        self.create_timer(self._config.status_period, self._on_timer, clock=steady)
        topics = ", ".join(source.topic for source in self._sources.values())
        self.get_logger().info(f"locating by {topics}; {self._config.sync} stamps")

    def close(self) -> None:
        """End the worker and the node."""
        self._worker.stop()
        self.destroy_node()

    def _source(self, name: str, kind: Any) -> Source:
        take = partial(self._take, name)
        return Source(self, kind, name, reliability=self._config.reliability, setting="reliability", callback=take)

    def _take(self, name: str, message: Any) -> None:
        jumps = self.pairing.jumps
        try:
            for reason in self.pairing.put(name, message):
                self._refuse(f"{name}: {reason}")
        except ValueError as error:
            self._refuse(f"{name}: {error}")
        if self.pairing.jumps != jumps:
            self.get_logger().info(f"{name}: time went back; what waited for its counterpart is forgotten")

    # --- called by the worker ---

    def _work(self, messages: tuple[Any, ...]) -> None:
        try:
            self._locate(*messages)
        except ValueError as error:
            self._refuse(str(error))
        except Exception as error:  # the stream goes on
            with self._lock:
                self._errors += 1
                self._last_error = text_line(f"{type(error).__name__}: {error}")
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)

    def _locate(self, instances: Any, depth: Any, info: Any) -> None:
        positions = locate_all(instances, depth, info, self._config)
        message = position_array(instances, positions)
        self._positions.publish(message)
        if self._markers.get_subscription_count():
            self._markers.publish(marker_array(message))
        if self._points.get_subscription_count():
            self._points.publish(point_cloud(instances, positions))
        self._located += 1

    # --- called by both ---

    def _refuse(self, line: str) -> None:
        line = text_line(line)
        with self._lock:
            self._refused += 1
            self._last_error = line
        self.get_logger().warning(line, throttle_duration_sec=1.0)

    # --- diagnostics ---

    def _on_timer(self) -> None:
        level, message = self._judge()
        entry = DiagnosticStatus(level=level, message=message)
        entry.name = f"{self.get_fully_qualified_name()[1:]}: locator"
        entry.values = [KeyValue(key=key, value=str(value)) for key, value in self._values().items()]
        array = DiagnosticArray(status=[entry])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _judge(self) -> tuple[bytes, str]:
        """Level and message, by what has happened since the last time."""
        masks = self.pairing.inputs["instances"]
        now = (masks.received, masks.matched, self._refused + self._errors)
        received, matched, refused = (a - b for a, b in zip(now, self._before, strict=True))
        self._before = now
        self._unmet = 0 if matched else self._unmet + received
        absent = [source.topic for source in self._sources.values() if not source.publishers]
        if refused:
            return DiagnosticStatus.WARN, self._last_error
        if absent:
            return DiagnosticStatus.WARN, f"no publisher on {', '.join(absent)}"
        if received and self._unmet >= _SUSPICIOUS:
            line = f"none of the last {self._unmet} masks met depth and camera_info of their stamp: "
            line += self.pairing.explain("instances")
            self.get_logger().warning(line, throttle_duration_sec=5.0)
            return DiagnosticStatus.WARN, line
        return DiagnosticStatus.OK, "locating"

    def _values(self) -> dict[str, Any]:
        """Counts for the diagnosis, by name."""
        values: dict[str, Any] = {}
        for name, source in self.pairing.inputs.items():
            values[f"{name} received"] = source.received
            values[f"{name} matched"] = source.matched
            values[f"{name} unmatched"] = source.unmatched
            values[f"{name} waiting"] = len(source.waiting) + len(source.order.held)
        return values | {
            "located": self._located,
            "dropped": self._worker.dropped,
            "refused": self._refused,
            "internal errors": self._errors,
            "jumps in time": self.pairing.jumps,
            "last error": self._last_error,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit status is 1 where it could not start."""
    return run_node("locator", _make, arguments)


def _make() -> LocatorNode:
    try:
        filters = importlib.import_module("message_filters")
    except ImportError as error:
        missing = "the ROS package message_filters is missing: install ros-$ROS_DISTRO-message-filters"
        raise ValueError(missing) from error
    return LocatorNode(filters)
