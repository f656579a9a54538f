# SPDX-License-Identifier: Apache-2.0
"""The node ``rviz_seed_tool``: freezes an image in RViz2, takes clicks on it, and sends the mask to the tracker.

It is driven by clicks and by the menu in RViz2, by the clicks of rqt_image_view, and by services. Its tests play
RViz2's part as it was seen in rviz2 14.1.5.

Callbacks work at once, GrabCut's fraction of a second included: nothing else is to be done meanwhile, and of the
images only the newest is held. What the tracker is asked is never waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from geometry_msgs.msg import Point
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import InteractiveMarkerFeedback, MarkerArray

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.drawing import Drawing
from maskrnn_ros.prompts import build_prompts
from maskrnn_ros.ros import tracker_client
from maskrnn_ros.ros.image_plane import to_pixel
from maskrnn_ros.ros.image_source import ImageSource
from maskrnn_ros.ros.images import compressed_to_rgb, fill_image, image_to_rgb
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.marker_server import MarkerServer
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.ros.run import run_node
from maskrnn_ros.ros.seed_markers import (
    DRAWING,
    control_name,
    drawing_marker,
    image_marker,
    jpeg,
    painted,
    text_markers,
)
from maskrnn_ros.ros.seed_menu import ENTRIES, Entry, chosen
from maskrnn_ros.ros.tracker_client import Sent, TrackerClient, labels_message
from maskrnn_ros.types import UInt8Array

INTERFACES: tuple[Interface, ...] = (
    Interface(
        name="image",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="The camera. With `compressed`: CompressedImage on `image/compressed`.",
    ),
    Interface(
        name="click",
        type="geometry_msgs/Point",
        kind="subscribes",
        text="Pixel positions on the frozen image, as rqt_image_view gives them on `<image topic>_mouse_left`.",
    ),
    Interface(
        name="~/seed/feedback",
        type="visualization_msgs/InteractiveMarkerFeedback",
        kind="subscribes",
        text="Clicks and menu choices in RViz2.",
    ),
    Interface(
        name="~/seed/update",
        type="visualization_msgs/InteractiveMarkerUpdate",
        kind="publishes",
        text="The frozen image and the drawing, for RViz2's InteractiveMarkers display.",
    ),
    Interface(
        name="~/markers", type="visualization_msgs/MarkerArray", kind="publishes", text="What to do, and the answers."
    ),
    Interface(
        name="~/image",
        type="sensor_msgs/Image",
        kind="publishes",
        text="The frozen image with the drawing, rgb8, for rqt_image_view; repeated every second.",
    ),
    Interface(
        name="~/seed_mask",
        type="sensor_msgs/Image",
        kind="publishes",
        text="Every mask that the tracker took, mono16, value = id, with the header of the frozen image; to record.",
    ),
    Interface(
        name="~/seed/get_interactive_markers",
        type="visualization_msgs/GetInteractiveMarkers",
        kind="serves",
        text="The frozen image and the drawing, for RViz2.",
    ),
    *(
        Interface(name=f"~/{entry.name}", type="std_srvs/Trigger", kind="serves", text=f"As the menu: {entry.text}.")
        for entry in ENTRIES
    ),
    *tracker_client.INTERFACES,
)

_PERIOD_S = 1.0


class SeedTool(Node):
    """See the module; topics, services and parameters are listed in the README.

    Args:
        arguments: Further arguments of ``rclpy.node.Node``.

    Raises:
        ValueError: A parameter is of the wrong type or has no such value.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__("rviz_seed_tool", **arguments)
        try:
            self._declare_parameters()
        except ParameterException as error:
            raise ValueError(" ".join(str(error).split())) from error
        reliability = self.get_parameter("image_reliability").value
        if reliability not in ("auto", "reliable", "best_effort"):
            raise ValueError(f"image_reliability must be one of auto, reliable, best_effort, got {reliability!r}")
        self._prompts = build_prompts(self.get_parameter("prompts.backend").value)
        self._newest: Any = None
        self._header: Any = None
        self._texture: Any = None
        self._drawing: Drawing | None = None
        self._answer = ""
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # RViz2 may come later
        self._markers = self.create_publisher(MarkerArray, "~/markers", latched)
        self._picture = self.create_publisher(Image, "~/image", 1)
        self._masks = self.create_publisher(Image, "~/seed_mask", reliable(10))
        self._tracker = TrackerClient(
            self,
            on_taken=self._on_taken,
            on_end=self._on_end,
            on_line=self._say,
            on_instances=self._show_menus,
        )
        self._server = MarkerServer(self, "~/seed/", self._on_feedback)
        compressed = bool(self.get_parameter("compressed").value)
        self._convert: Callable[[Any], UInt8Array] = partial(
            compressed_to_rgb if compressed else image_to_rgb, depth=BitDepth()
        )
        self._source = ImageSource(self, compressed=compressed, reliability=reliability, callback=self._on_image)
        self.create_subscription(Point, "click", lambda point: self._guard(lambda: self._click(point.x, point.y)), 10)
        for entry in ENTRIES:
            self.create_service(Trigger, f"~/{entry.name}", partial(self._on_trigger, entry))
        # rqt_image_view subscribes volatile: who comes late gets the picture within a second
        self.create_timer(_PERIOD_S, self._show_picture, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._show_image()
        self._show_drawing()

    def close(self) -> None:
        """End the node."""
        self.destroy_node()

    def _declare_parameters(self) -> None:
        for name, default, text in (
            ("compressed", False, "Subscribe to CompressedImage on <image>/compressed instead of Image on <image>."),
            (
                "image_reliability",
                "auto",
                "How images are asked for: auto (as offered), reliable or best_effort.",
            ),
            ("prompts.backend", "grabcut", "What cuts an object out of a box; as the tracker's."),
            # A Trigger carries no argument. A parameter can be set and read from anywhere; to step through the
            # instances by calls would ask a script to read every answer.
            ("instance_id", 0, "The instance that ~/correct_instance and ~/remove_instance are about."),
        ):
            self.declare_parameter(name, default, ParameterDescriptor(description=text))

    # --- what the menu and the services do; each returns one line or raises a ValueError ---

    def freeze(self, instance_id: int) -> str:
        """Show the newest image."""
        if self._newest is None:
            raise ValueError(f"there is no image on {self._source.topic} yet")
        image = self._convert(self._newest)
        self._header, self._texture = self._newest.header, jpeg(image)
        self._drawing = Drawing(image)
        self._show_image()
        return ""

    def close_polygon(self, instance_id: int) -> str:
        """Mark what the vertices enclose."""
        self._drawn.close_polygon()
        return ""

    def rectangle(self, instance_id: int) -> str:
        """Mark a rectangle."""
        self._drawn.rectangle()
        return ""

    def cut_out(self, instance_id: int) -> str:
        """Mark the object in a box."""
        self._drawn.cut_out(self._prompts)
        return ""

    def undo(self, instance_id: int) -> str:
        """Take back the last step."""
        self._drawn.undo()
        return ""

    def new_instance(self, instance_id: int) -> str:
        """Send the mask as a new instance."""
        return self._send(0)

    def correct_instance(self, instance_id: int) -> str:
        """Send the mask as a correction."""
        return self._send(self._live(instance_id))

    def remove_instance(self, instance_id: int) -> str:
        """Remove an instance."""
        self._tracker.remove(self._live(instance_id))
        return f"asked the tracker to remove instance {instance_id}"

    def reset(self, instance_id: int) -> str:
        """Remove all instances and clear the drawing."""
        self._tracker.reset()
        if self._drawing is not None:
            self._drawing = Drawing(self._drawing.image)
        return "asked the tracker to reset"

    @property
    def _drawn(self) -> Drawing:
        if self._drawing is None:
            raise ValueError(f"there is no image on {self._source.topic} yet")
        return self._drawing

    def _live(self, instance_id: int) -> int:
        known = sorted(self._tracker.instances)
        if instance_id not in known:
            raise ValueError(f"instance_id must be one of the live instances {known}, got {instance_id}")
        return instance_id

    def _send(self, instance_id: int) -> str:
        drawing = self._drawn
        sent = Sent(mask=drawing.finished(), header=self._header, context=drawing)
        self._tracker.send(sent, drawing.image, instance_id)
        what = f"a correction of instance {instance_id}" if instance_id else "a new instance"
        return f"sent {int(sent.mask.sum())} pixels as {what}"

    def _click(self, x: float, y: float) -> str:
        self._drawn.add(x, y)
        return ""

    # --- callbacks ---

    def _on_image(self, message: Any) -> None:
        self._newest = message
        if self._drawing is None:  # something to draw on from the start
            self._guard(lambda: self.freeze(0))

    def _on_feedback(self, feedback: Any) -> None:
        """A click is POSE_UPDATE, MOUSE_DOWN, BUTTON_CLICK, POSE_UPDATE, MOUSE_UP (rviz 14.3.1): one of them counts."""
        if feedback.event_type == InteractiveMarkerFeedback.BUTTON_CLICK:
            self._guard(lambda: self._click_in_plane(feedback))
        elif feedback.event_type == InteractiveMarkerFeedback.MENU_SELECT:
            self._guard(lambda: self._select(feedback))

    def _check_shown(self, feedback: Any) -> None:
        """RViz2 may show an earlier image than the frozen one; what is meant for that is not taken."""
        if feedback.control_name != control_name(self._header):
            raise ValueError("that was for an earlier image than the frozen one: look again, then click or choose")

    def _click_in_plane(self, feedback: Any) -> str:
        if not feedback.mouse_point_valid:
            raise ValueError("RViz2 does not know where on the image that click was: click again")
        self._check_shown(feedback)
        # z is not looked at: seen from far above, it is as coarse as RViz2's depth image
        width = self._drawn.image.shape[1]
        return self._click(*to_pixel(feedback.mouse_point.x, feedback.mouse_point.y, width))

    def _select(self, feedback: Any) -> str:
        self._check_shown(feedback)
        entry, instance_id = chosen(feedback.menu_entry_id)
        return self._do(entry, instance_id)

    def _on_trigger(self, entry: Entry, request: Any, response: Any) -> Any:
        instance_id = int(self.get_parameter("instance_id").value)
        response.success, response.message = self._guard(lambda: self._do(entry, instance_id))
        return response

    def _do(self, entry: Entry, instance_id: int) -> str:
        line: str = getattr(self, entry.name)(instance_id)
        return line

    def _guard(self, action: Callable[[], str]) -> tuple[bool, str]:
        """Do something, and show what came of it or why nothing did."""
        try:
            line = action()
        except ValueError as error:
            self._say(str(error), True)
            return False, str(error)
        self._say(line, False)
        return True, line or self._hint

    def _on_taken(self, sent: Sent, ids: tuple[int, ...]) -> None:
        self._masks.publish(labels_message(sent, ids[0]))
        drawing: Drawing = sent.context
        if self._drawing is drawing:
            self._drawing = Drawing(drawing.image)
        self._say(f"instance {ids[0]}: the tracker works on it", False)

    def _on_end(self, sent: Sent, applied: bool, line: str) -> None:
        drawing: Drawing = sent.context
        if not applied and self._drawing is not None and self._drawing.image is drawing.image:
            # so that it can be mended; unless the next one is begun
            self._drawing = drawing if self._drawing.is_empty else self._drawing
        self._say(line, not applied)

    # --- what is shown ---

    @property
    def _hint(self) -> str:
        if self._drawing is None:
            return f"waiting for images on {self._source.topic}"
        if self._drawing.vertices:
            count = len(self._drawing.vertices)
            return f"{count} corner{'s' * (count > 1)}; right-click: close polygon, rectangle, cut out"
        if self._drawing.mask is not None:
            return f"{int(self._drawing.mask.sum())} pixels marked; right-click: new or correct instance"
        return "click the corners of an object; right-click for the menu"

    def _say(self, line: str, refused: bool) -> None:
        if refused:
            self.get_logger().warning(line, throttle_duration_sec=1.0)
        elif line:
            self.get_logger().info(line)
        self._answer = line
        self._show_drawing()

    def _show_image(self) -> None:
        size = None if self._drawing is None else self._drawing.image.shape[:2]
        self._server.show(image_marker(size, self._texture, self._header, self._tracker.instances))

    def _show_menus(self) -> None:
        self._show_image()
        self._show_drawing()

    def _show_drawing(self) -> None:
        self._markers.publish(text_markers((self._answer, self._hint)))
        if self._drawing is None or self._drawing.is_empty:
            self._server.erase(DRAWING)
        else:
            self._server.show(drawing_marker(self._drawing, self._header, self._tracker.instances))
        self._show_picture()

    def _show_picture(self) -> None:
        if self._drawing is None or not self._picture.get_subscription_count():
            return
        message = Image(header=self._header)
        fill_image(message, painted(self._drawing, (self._answer, self._hint)), "rgb8")
        self._picture.publish(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit status is 1 where it could not start."""
    return run_node("rviz_seed_tool", SeedTool, arguments)
