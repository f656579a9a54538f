# SPDX-License-Identifier: Apache-2.0
"""The real node in this process, and a client that talks to it over real topics and services."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ros_env  # sets the environment that rclpy reads, hence first

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

import rclpy  # noqa: E402
import world  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from maskrnn_ros.image_messages import fill_image, labels_from_image, ns_to_stamp, stamp_to_ns  # noqa: E402
from maskrnn_ros.msg import InstanceMaskArray, SeedResult, TrackerStatus  # noqa: E402
from maskrnn_ros.ros.guard import GuardedExecutor  # noqa: E402
from maskrnn_ros.ros.qos import client_node, reliable, spin_until  # noqa: E402
from maskrnn_ros.tracker_node.node import TrackerNode  # noqa: E402
from maskrnn_ros.tracking import Tracker, build_tracker  # noqa: E402

TIMEOUT_S = 60.0
QUICK = {"refinement.enabled": True, "working_size": 224}
"""All parts of the tracker, at a size that takes little time."""


class Gate:
    """A build function whose trackers wait in every flow until they are let through."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.is_open = False

    def build(self, config: Any) -> Tracker:
        exact = world.ExactFlow()

        def flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
            if not self.is_open:
                self.entered.release()
                assert self.permits.acquire(timeout=TIMEOUT_S), "nobody let the tracker through"
            # what warms the tracker up is no picture of the world
            is_warming_up = current.shape[0] == 64
            return np.zeros((2, *current.shape[:2]), np.float32) if is_warming_up else exact(current, previous)

        return Tracker(world.unrefined(config), flow)

    def open(self) -> None:
        self.is_open = True
        self.permits.release(1000)


class NodeBench:
    """Use it in a ``with`` statement.

    Args:
        build: Makes trackers.
        image_qos: QoS of the client's image publisher.
        matched: Wait until the node takes images from it.
        joins: Whether the node comes into the domain of what is there already.
        parameters: Overrides, two underscores for a dot.
    """

    def __init__(
        self,
        build: Callable[..., Tracker] = build_tracker,
        image_qos: Any = None,
        matched: bool = True,
        joins: bool = False,
        **parameters: Any,
    ) -> None:
        self._build = build
        self._matched = matched
        self._joins = joins
        self._image_qos = image_qos or reliable(20)
        names = {"status_period": 0.05, "refinement__enabled": False, **parameters}  # exact masks stay exact
        self._overrides = [Parameter(name.replace("__", "."), value=value) for name, value in names.items()]
        self.compressed = bool(parameters.get("compressed", False))
        self.instances: list[Any] = []
        self.label_images: list[Any] = []
        self.results: list[Any] = []
        self._clients: dict[str, Any] = {}
        self.statuses: list[Any] = []
        self.diagnostics: list[Any] = []

    def __enter__(self) -> NodeBench:
        # Nodes of earlier tests may still be in the graph, half gone: beside them no service may ever seem ready.
        if not self._joins:
            ros_env.leave_domain()
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = TrackerNode(self._build, context=self._context, parameter_overrides=self._overrides)
        self._spinner = GuardedExecutor(self.node.fault, context=self._context)
        self._spinner.add_node(self.node)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._client = client_node("bench")
        self.client, self.executor = self._client.__enter__()
        subscribe = self.client.create_subscription
        subscribe(InstanceMaskArray, "/tracker/instances", self.instances.append, reliable(500))
        subscribe(Image, "/tracker/label_image", self.label_images.append, reliable(500))
        subscribe(SeedResult, "/tracker/seed_result", self.results.append, reliable(500))
        subscribe(TrackerStatus, "/tracker/status", self.statuses.append, reliable(5000))
        subscribe(DiagnosticArray, "/diagnostics", self.diagnostics.append, reliable(500))
        kind, topic = (CompressedImage, "/image/compressed") if self.compressed else (Image, "/image")
        self.images = self.client.create_publisher(kind, topic, self._image_qos)
        self.seeds = self.client.create_publisher(Image, "/tracker/seed_mask", reliable(20))
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self._thread.start()
        self.wait(lambda: self.statuses and self.diagnostics)
        self.wait(lambda: self.images.get_subscription_count() or not self._matched)
        self.wait(self.seeds.get_subscription_count)
        for topic in ("/tracker/label_image", "/tracker/instances", "/tracker/seed_result"):
            self.wait(lambda topic=topic: self.listeners(topic))  # type: ignore[misc]
        return self

    def wait_for_images(self) -> None:
        """Until the node takes images again: each side has found the other, and nothing that is published is lost."""
        self.wait(lambda: self.images.get_subscription_count() == 1)
        topic = "/image/compressed" if self.compressed else "/image"

        def is_heard() -> bool:
            mine = [one for one in self.node.subscriptions if one.topic_name == topic]
            return all(one.get_publisher_count() for one in mine if hasattr(one, "get_publisher_count"))

        self.wait(is_heard)

    def listeners(self, topic: str) -> int:
        """Subscriptions to a topic that the node publishes."""
        publisher = next(publisher for publisher in self.node.publishers if publisher.topic_name == topic)
        return int(publisher.get_subscription_count())

    def _spin(self) -> None:
        while not self._stopped.is_set():
            self._spinner.spin_once(timeout_sec=0.05)

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._spinner.shutdown()
        self.node.close()
        rclpy.shutdown(context=self._context)
        self._client.__exit__(None, None, None)

    def wait(self, is_done: Callable[[], Any]) -> None:
        """Spin the client until a condition holds."""
        assert spin_until(self.executor, lambda: bool(is_done()), TIMEOUT_S), "waited in vain"

    def publish_image(self, number: int, frame_id: str = "camera") -> Any:
        """Publish a frame of the world; returns the message."""
        return self.publish(self.images, world.image(number), "rgb8", world.stamp_ns(number), frame_id)

    def publish_seed(self, labels: np.ndarray, stamp_ns: int) -> None:
        """Publish a label map as a seed."""
        self.publish(self.seeds, labels.astype(np.uint16), "mono16", stamp_ns)

    def publish(
        self, publisher: Any, pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = "camera"
    ) -> Any:
        """Publish an image message and return it."""
        message = Image()
        fill_image(message, pixels, encoding)
        ns_to_stamp(stamp_ns, message.header.stamp)
        message.header.frame_id = frame_id
        publisher.publish(message)
        return message

    def image(self, number: int) -> Any:
        """Publish a frame and wait for its masks."""
        self.publish_image(number)
        stamp = world.stamp_ns(number)
        self.wait(lambda: self.instances and stamp_to_ns(self.instances[-1].header.stamp) == stamp)
        self.wait(lambda: self.label_images and stamp_to_ns(self.label_images[-1].header.stamp) == stamp)
        return self.instances[-1]

    def seed(self, labels: np.ndarray, stamp_ns: int) -> Any:
        """Publish a seed and wait for its first result."""
        before = len(self.results)
        self.publish_seed(labels, stamp_ns)
        self.wait(lambda: len(self.results) > before)
        return self.results[-1]

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return its response; clients stay, for some tests ask again and again."""
        if name not in self._clients:
            self._clients[name] = self.client.create_client(kind, f"/tracker/{name}")
        client = self._clients[name]
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    @property
    def labels(self) -> np.ndarray:
        """The newest label image."""
        return labels_from_image(self.label_images[-1])

    def counts(self) -> Any:
        """A status that is written after this call."""
        before = len(self.statuses)
        self.wait(lambda: len(self.statuses) > before + 1)
        return self.statuses[-1]
