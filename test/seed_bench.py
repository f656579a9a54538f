# SPDX-License-Identifier: Apache-2.0
"""The real seeding tool in this process, and RViz2's part of the play over real topics and services."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import ros_env  # sets the environment that rclpy reads

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

import rclpy  # noqa: E402
from geometry_msgs.msg import Point, PointStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rviz_scene import RvizScene  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from visualization_msgs.msg import InteractiveMarkerFeedback, InteractiveMarkerUpdate, MarkerArray  # noqa: E402
from visualization_msgs.srv import GetInteractiveMarkers  # noqa: E402

from maskrnn_ros.image_messages import fill_image, ns_to_stamp  # noqa: E402
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult, TrackerStatus  # noqa: E402
from maskrnn_ros.ros.qos import client_node, reliable, spin_until  # noqa: E402
from maskrnn_ros.rviz_tool.node import SeedTool  # noqa: E402
from maskrnn_ros.srv import AddInstances, RemoveInstances  # noqa: E402

TOOL = "/rviz_seed_tool"
TIMEOUT_S = 60.0


class SeedBench:
    """Use it in a ``with`` statement.

    Args:
        subscribe: Makes further publishers, subscriptions and services of the client's node before the tool starts.
        joins: Whether the tool comes into the domain of what is there already.
        parameters: Overrides of the tool's.
    """

    def __init__(
        self, subscribe: Callable[[Any], None] | None = None, *, joins: bool = False, **parameters: Any
    ) -> None:
        self._subscribe = subscribe
        self._joins = joins
        named = {"prompts.backend": "grabcut", **parameters}  # which goes by the colours of these plain pictures
        self._overrides = [Parameter(name, value=value) for name, value in named.items()]
        self._compressed = bool(parameters.get("compressed", False))
        self.scene = RvizScene()
        self.updates: list[Any] = []
        self.arrays: list[Any] = []
        self.pictures: list[Any] = []
        self.masks: list[Any] = []
        self._callers: dict[str, Any] = {}

    def __enter__(self) -> SeedBench:
        if not self._joins:
            ros_env.leave_domain()
        self._client = client_node("rviz")
        self.client, self.executor = self._client.__enter__()
        if self._subscribe is not None:
            self._subscribe(self.client)
        kind, topic = (CompressedImage, "/image/compressed") if self._compressed else (Image, "/image")
        self.images = self.client.create_publisher(kind, topic, reliable(20))
        # as interactive_markers 2.5.4 and rqt_image_view ask for it
        self.client.create_subscription(InteractiveMarkerUpdate, f"{TOOL}/seed/update", self._take_update, 100)
        self.feedback = self.client.create_publisher(InteractiveMarkerFeedback, f"{TOOL}/seed/feedback", 100)
        self.clicks = self.client.create_publisher(Point, "/click", 1000)
        self.points = self.client.create_publisher(PointStamped, "/clicked_point", 5)
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.client.create_subscription(MarkerArray, f"{TOOL}/markers", self._take_array, latched)
        self.client.create_subscription(Image, f"{TOOL}/image", self.pictures.append, reliable(5))
        self.client.create_subscription(Image, f"{TOOL}/seed_mask", self.masks.append, reliable(5))
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = SeedTool(context=self._context, parameter_overrides=self._overrides)
        self._spinner = SingleThreadedExecutor(context=self._context)
        self._spinner.add_node(self.node)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        for publisher in (self.images, self.feedback, self.clicks, self.points):
            self.wait(publisher.get_subscription_count)
        self.wait(self.node._view.server._update.get_subscription_count)
        self.wait(self.node._masks.get_subscription_count)
        self.refresh()
        return self

    def _take_update(self, update: Any) -> None:
        self.updates.append(update)
        self.scene.take_update(update)

    def _take_array(self, array: Any) -> None:
        self.arrays.append(array)
        self.scene.take_array(array)

    def _spin(self) -> None:
        while not self._stopped.is_set():
            self._spinner.spin_once(timeout_sec=0.05)

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._spinner.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._client.__exit__(None, None, None)

    def wait(self, is_done: Callable[[], Any]) -> None:
        """Spin the client until a condition holds."""
        assert spin_until(self.executor, lambda: bool(is_done()), TIMEOUT_S), f"waited in vain; text: {self.text}"

    def image(self, pixels: np.ndarray, stamp_ns: int, frame_id: str = "camera") -> Any:
        """Publish an RGB image, and wait until the tool has it."""
        message = Image()
        fill_image(message, pixels, "rgb8")
        self.stamped(message, stamp_ns, frame_id)
        return message

    def stamped(self, message: Any, stamp_ns: int, frame_id: str = "camera") -> None:
        """Publish an image message with that stamp, and wait until the tool has it."""
        ns_to_stamp(stamp_ns, message.header.stamp)
        message.header.frame_id = frame_id
        self.images.publish(message)
        self.wait(lambda: self.node._newest is not None and self.node._newest.header == message.header)

    def served(self) -> Any:
        """The interactive markers that the service gives, by name, and their number."""
        response = self.call(GetInteractiveMarkers, "seed/get_interactive_markers", GetInteractiveMarkers.Request())
        return {marker.name: marker for marker in response.markers}, response.sequence_number

    def refresh(self) -> None:
        """Let RViz2 have what the service gives: what a test sees then is of one moment, whatever is under way."""
        self.scene.take_all(
            self.call(GetInteractiveMarkers, "seed/get_interactive_markers", GetInteractiveMarkers.Request())
        )

    @property
    def frozen(self) -> Any:
        """The InteractiveMarker of the image, as RViz2 has it."""
        return self.scene.interactive["image"]

    @property
    def button(self) -> Any:
        """Likewise the one beside it that sends, which has the whole menu."""
        return self.scene.interactive["add"]

    @property
    def control(self) -> str:
        """The name of the controls of the freeze that RViz2 shows."""
        return self.frozen.controls[0].name

    def press(self, x: float, y: float, *, to: tuple[float, float] | None = None, valid: bool = True) -> bool:
        """Press the left button on the point (x, y) of the plane, and let it go there, or elsewhere.

        Returns:
            Whether anything interactive lies there: else RViz2 moves the view.
        """
        self.refresh()
        name, control = self.scene.focus(x, y) or ("", "")
        if name:
            self.mouse(name, control, (x, y), to or (x, y), valid)
        return bool(name)

    def mouse(
        self, name: str, control: str, down: tuple[float, float], up: tuple[float, float], valid: bool = True
    ) -> None:
        """All that RViz2 sends for it, in its order: what had the focus at first gets the rest."""
        kind = InteractiveMarkerFeedback
        released = (kind.BUTTON_CLICK, kind.POSE_UPDATE, kind.MOUSE_UP)
        events = [(kind.POSE_UPDATE, down), (kind.MOUSE_DOWN, down), *((event, up) for event in released)]
        for event, (x, y) in events:
            message = kind(client_id="/rviz", marker_name=name, control_name=control, event_type=event)
            message.header.frame_id = "maskrnn_image"
            message.mouse_point_valid = valid
            message.mouse_point.x, message.mouse_point.y, message.mouse_point.z = x, y, 123.0
            self.feedback.publish(message)

    def publish_point(self, x: float, y: float) -> bool:
        """Use *Publish Point* on a point of the plane; whether anything lies there."""
        self.refresh()
        message = self.scene.published_point(x, y, self.client.get_clock().now().to_msg())
        if message is not None:
            self.points.publish(message)
        return message is not None

    def click_add(self) -> bool:
        """Click into the middle of the button that sends."""
        return self.click_button("add")

    def click_button(self, name: str) -> bool:
        """Click into the middle of a button beside the picture; whether anything lies there."""
        self.refresh()
        face = self.scene.interactive[name].controls[0].markers[0]
        corners = [(p.x, p.y) for p in face.points]
        return self.press(*(sum(values) / len(values) for values in zip(*corners, strict=True)))

    def draw(self) -> None:
        """Choose *Draw*, unless it is chosen."""
        if not self.node._draws:
            self.choose("Draw")
            self.wait(lambda: self.node._draws)

    def corners(self, *vertices: tuple[float, float], width: int) -> None:
        """Click corners, pixel positions, after *Draw*; wait until all are taken."""
        self.draw()
        self.refresh()
        before = len(self.vertices)
        for column, row in vertices:
            self.press(column / width, -row / width)
        self.wait(lambda: len(self.vertices) == before + len(vertices))

    def choose(self, *titles: str, on: str = "add") -> None:
        """Choose the entry with that path of titles of the menu of an interactive marker."""
        self.refresh()
        entries = self.scene.interactive[on].menu_entries
        parent = 0
        for title in titles:
            (parent,) = (entry.id for entry in entries if (entry.parent_id, entry.title) == (parent, title))
        message = InteractiveMarkerFeedback(marker_name=on, control_name=self.control, menu_entry_id=parent)
        message.event_type = InteractiveMarkerFeedback.MENU_SELECT
        self.feedback.publish(message)

    def trigger(self, name: str) -> Any:
        """Call one of the tool's Trigger services."""
        return self.call(Trigger, name, Trigger.Request())

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the tool and return its response."""
        if name not in self._callers:
            self._callers[name] = self.client.create_client(kind, f"{TOOL}/{name}")
        self.wait(self._callers[name].service_is_ready)
        future = self._callers[name].call_async(request)
        self.wait(future.done)
        return future.result()

    def shown(self, namespace: str) -> list[Any]:
        """The markers of a namespace that RViz2 shows."""
        return self.scene.shown(namespace)

    @property
    def vertices(self) -> list[Any]:
        """The points of the vertices shown."""
        return [point for marker in self.shown("vertices") for point in marker.points]

    @property
    def text(self) -> list[str]:
        """The text shown over the picture, topmost line first."""
        return self._lines("text")

    @property
    def status(self) -> list[str]:
        """Likewise under it."""
        return self._lines("status")

    def _lines(self, namespace: str) -> list[str]:
        shown = sorted(self.shown(namespace), key=lambda marker: -marker.pose.position.y)
        return [" ".join(marker.text.splitlines()) for marker in shown]


class FakeTracker:
    """The tracker's services, and what they were asked."""

    def __init__(self) -> None:
        self.added: list = []
        self.removed: list = []
        self.resets = 0
        self.refuse = ""
        self.run_id = "a run"

    def subscribe(self, node) -> None:
        self.answer = self._add
        node.create_service(AddInstances, "/tracker/add_instances", lambda *both: self.answer(*both))
        node.create_service(RemoveInstances, "/tracker/remove_instances", self._remove)
        node.create_service(Trigger, "/tracker/reset", self._reset)
        self.instances = node.create_publisher(InstanceMaskArray, "/tracker/instances", reliable(10))
        self.results = node.create_publisher(SeedResult, "/tracker/seed_result", reliable(10))
        self.status = node.create_publisher(TrackerStatus, "/tracker/status", reliable(10))

    def live(self, bench, **names) -> None:
        live = [InstanceMask(id=int(i[1:]), label=name, state=2) for i, name in names.items()]
        gone = InstanceMask(id=99, state=InstanceMask.STATE_REMOVED)
        bench.wait(self.instances.get_subscription_count)
        self.instances.publish(InstanceMaskArray(run_id=self.run_id, instances=[*live, gone]))
        bench.wait(lambda: bench.node._tracker.instances.keys() == {instance.id for instance in live})

    def result(self, request, status, reason="", ids=(7,)) -> None:
        self.results.publish(
            SeedResult(token=request.token, status=status, reason=reason, ids=list(ids), run_id=self.run_id)
        )

    def _add(self, request, response):
        self.added.append(request)
        response.success, response.message, response.ids = not self.refuse, self.refuse, [7]
        return response

    def _remove(self, request, response):
        self.removed.append(list(request.ids))
        response.success, response.message = not self.refuse, self.refuse
        return response

    def _reset(self, request, response):
        self.resets += 1
        response.success = True
        return response


@contextlib.contextmanager
def connected(tracker: FakeTracker) -> Iterator[SeedBench]:
    """A tool and a tracker that see each other."""
    with SeedBench(tracker.subscribe) as bench:
        bench.wait(lambda: bench.node._tracker.is_connected)
        bench.wait(tracker.results.get_subscription_count)
        yield bench
