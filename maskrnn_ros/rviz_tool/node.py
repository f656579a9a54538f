# SPDX-License-Identifier: Apache-2.0
"""The node ``rviz_seed_tool``: freezes an image in RViz2, takes clicks on it, and sends the mask to the tracker.

It is driven by clicks and by the menu in RViz2, by the clicks of rqt_image_view, and by services. Its tests play
RViz2's part as it was seen in rviz2 14.1.5.

Callbacks work at once, GrabCut's fraction of a second included: nothing else is to be done meanwhile, and of the
images only the newest is held. What the tracker is asked is never waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from geometry_msgs.msg import Point as PointMessage
from geometry_msgs.msg import PointStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.config import from_flat, settings
from maskrnn_ros.image_messages import compressed_to_rgb, image_to_rgb, stamp_to_ns
from maskrnn_ros.prompts import PromptBackend, build_prompts
from maskrnn_ros.ros import tracker_client
from maskrnn_ros.ros.image_plane import FRAME, to_pixel
from maskrnn_ros.ros.image_source import ImageSource
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.process import run_node
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.ros.tracker_client import Sent, TrackerClient, labels_message
from maskrnn_ros.rviz_tool import view as seed_view
from maskrnn_ros.rviz_tool.drawing import Drawing
from maskrnn_ros.rviz_tool.frozen import Freezer, Frozen
from maskrnn_ros.rviz_tool.gestures import Choice, Click, Drag, GestureReader, Place, Press
from maskrnn_ros.rviz_tool.hints import hint
from maskrnn_ros.rviz_tool.markers import BUTTON, control_name
from maskrnn_ros.rviz_tool.menu import ENTRIES, Entry, chosen
from maskrnn_ros.rviz_tool.stream_line import StreamLine
from maskrnn_ros.rviz_tool.view import SeedView
from maskrnn_ros.types import Box, UInt8Array

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
        name="clicked_point",
        type="geometry_msgs/PointStamped",
        kind="subscribes",
        text="RViz2's *Publish Point* on the frozen image: as a click in the mode *Click*.",
    ),
    *seed_view.INTERFACES,
    Interface(
        name="~/seed_mask",
        type="sensor_msgs/Image",
        kind="publishes",
        text="Every mask that the tracker took, mono16, value = id, with the header of the frozen image; to record.",
    ),
    *(
        Interface(name=f"~/{entry.name}", type="std_srvs/Trigger", kind="serves", text=f"As the menu: {entry.text}.")
        for entry in ENTRIES
    ),
    *tracker_client.INTERFACES,
)

_PERIOD_S = 1.0
_OLD_S = 5.0
"""A picture so much older than the newest image may show what is elsewhere by now."""
_CUTTING = "cutting the object out ..."
"""Said before the prompt backend works: nothing else moves meanwhile."""

_BACKEND = tuple(
    (name, default, known)
    for name, default, known in settings()
    if name in ("prompts.backend", "prompts.weights", "prompts.zoom", "prompts.min_confidence", "trunk.weights")
)
"""The tracker's settings that say what cuts an object out of a box."""


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
        self._prompts = self._built_prompts()
        self._newest: Any = None
        self._freezer, self._gestures, self._stream = Freezer(), GestureReader(), StreamLine()
        self._frozen: Frozen | None = None
        self._drawing: Drawing | None = None
        self._draws = False
        self._answer = ""
        self._seed = "none"
        self._view = SeedView(self, self._on_feedback)
        self._masks = self.create_publisher(Image, "~/seed_mask", reliable(10))
        self._tracker = TrackerClient(
            self,
            on_taken=self._on_taken,
            on_end=self._on_end,
            on_waits=lambda line: self._say_of_seed(line, False),
            on_line=self._say,
            on_status=lambda status: self._stream.take(status, time.monotonic()),
            on_instances=self._show,
        )
        compressed = bool(self.get_parameter("compressed").value)
        self._convert: Callable[[Any], UInt8Array] = partial(
            compressed_to_rgb if compressed else image_to_rgb, depth=BitDepth()
        )
        self._source = ImageSource(self, compressed=compressed, reliability=reliability, callback=self._on_image)
        self.create_subscription(
            PointMessage, "click", lambda point: self._guard(lambda: self._click(point.x, point.y)), 10
        )
        self.create_subscription(
            PointStamped, "clicked_point", lambda point: self._guard(lambda: self._point_at(point)), 10
        )
        for entry in ENTRIES:
            self.create_service(Trigger, f"~/{entry.name}", partial(self._on_trigger, entry))
        # rqt_image_view subscribes volatile: who comes late gets the picture within a second. And where a message of
        # text got lost on its way, the next one tells the middleware, which else finds out after seconds.
        self.create_timer(_PERIOD_S, self._show_text, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._show()

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
            *((name, default, f"As the tracker's. {known.help}") for name, default, known in _BACKEND),
            # A Trigger carries no argument. A parameter can be set and read from anywhere; to step through the
            # instances by calls would ask a script to read every answer.
            ("instance_id", 0, "The instance that ~/correct_instance and ~/remove_instance are about."),
        ):
            self.declare_parameter(name, default, ParameterDescriptor(description=text))

    def _built_prompts(self) -> PromptBackend:
        """What cuts an object out of a box.

        Raises:
            ValueError: It cannot be made.
        """
        config = from_flat({name: self.get_parameter(name).value for name, _, _ in _BACKEND})
        return build_prompts(config.prompts, config.trunk.weights)

    # --- what the menu and the services do; each returns one line or raises a ValueError ---

    def freeze(self, instance_id: int) -> str:
        """Show the newest image."""
        if self._newest is None:
            raise ValueError(f"there is no image on {self._source.topic} yet")
        self._frozen = self._freezer.freeze(self._newest.header, self._convert(self._newest))
        self._drawing = Drawing(self._frozen.image)
        return ""

    def click_mode(self, instance_id: int) -> str:
        """Take clicks for points on an object, or on what is too much of it."""
        self._draws = False
        return ""

    def draw_mode(self, instance_id: int) -> str:
        """Take clicks for corners."""
        self._draws = True
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
        self._show_text(_CUTTING)
        return self._drawn.cut_out(self._prompts)

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
        assert self._frozen is not None
        sent = Sent(mask=drawing.finished(), header=self._frozen.header, context=drawing)
        self._tracker.send(sent, drawing.image, instance_id)
        what = f"a correction of instance {instance_id}" if instance_id else "a new instance"
        self._seed = f"sent as {what}"
        return f"sent {int(sent.mask.sum())} pixels as {what}"

    def _click(self, x: float, y: float) -> str:
        if not self._draws:
            return self._point(x, y)
        self._drawn.corner(x, y)
        return ""

    def _point(self, x: float, y: float) -> str:
        drawing = self._drawn
        self._show_text(_CUTTING)
        return drawing.point(self._prompts, x, y)

    def _pixel(self, place: Place) -> Place:
        drawn = self._drawn
        return to_pixel(*place, (drawn.image.shape[0], drawn.image.shape[1]))

    def _box(self, begin: Place, end: Place) -> str:
        drawing = self._drawn
        (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(self._pixel(begin), self._pixel(end), strict=True))
        self._show_text(_CUTTING)
        return drawing.box(self._prompts, Box(math.floor(x0), math.floor(y0), math.floor(x1) + 1, math.floor(y1) + 1))

    def _point_at(self, message: Any) -> str:
        """Of *Publish Point*, which gives points in the fixed frame, with the time of the click and a coarse z."""
        if message.header.frame_id != FRAME:
            raise ValueError(f"a point must be in the frame {FRAME}, got {message.header.frame_id!r:.80}")
        return self._point(*self._pixel((message.point.x, message.point.y)))

    # --- callbacks ---

    def _on_image(self, message: Any) -> None:
        self._newest = message
        if self._drawing is None:  # something to draw on from the start
            self._guard(lambda: self.freeze(0))

    def _on_feedback(self, feedback: Any) -> None:
        try:
            gesture = self._gestures.read(feedback, control_name(self._frozen))
        except ValueError as error:
            self._say(str(error), True)
            return
        if gesture is not None:
            self._guard(lambda: self._act(gesture))

    def _act(self, gesture: Click | Drag | Press | Choice) -> str:
        match gesture:
            case Click(at):
                return self._click(*self._pixel(at))
            case Drag(begin, end):
                return self._box(begin, end)
            case Press(name):
                return self.new_instance(0) if name == BUTTON else self.freeze(0)
            case Choice(menu_entry_id):
                return self._do(*chosen(menu_entry_id))

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
        return True, line or self._hint(in_rviz=False)

    def _on_taken(self, sent: Sent, ids: tuple[int, ...]) -> None:
        self._masks.publish(labels_message(sent, ids[0]))
        drawing: Drawing = sent.context
        if self._drawing is drawing:
            self._drawing = Drawing(drawing.image)
        self._say_of_seed(f"instance {ids[0]}: the tracker works on it", False)

    def _on_end(self, sent: Sent, applied: bool, line: str) -> None:
        drawing: Drawing = sent.context
        if not applied and self._drawing is not None and self._drawing.image is drawing.image:
            # so that it can be mended; unless the next one is begun
            self._drawing = drawing if self._drawing.is_empty else self._drawing
        self._seed = "applied" if applied else line  # which stays true, whatever becomes of the instance
        self._say(line, not applied)

    # --- what is shown ---

    def _hint(self, in_rviz: bool) -> str:
        if self._drawing is None:
            return f"waiting for images on {self._source.topic}"
        return hint(self._drawing, self._draws, in_rviz=in_rviz)

    @property
    def _age(self) -> str:
        """How far the picture is behind the newest image, where that is worth a word."""
        if self._frozen is None:
            return ""
        newest, frozen = (stamp_to_ns(message.header.stamp) for message in (self._newest, self._frozen))
        seconds = (newest - frozen) / 1e9
        return f"; picture {seconds:.0f} s old" if seconds >= _OLD_S else ""

    def _say_of_seed(self, line: str, refused: bool) -> None:
        self._seed = line
        self._say(line, refused)

    def _say(self, line: str, refused: bool) -> None:
        if refused:
            self.get_logger().warning(line, throttle_duration_sec=1.0)
        elif line:
            self.get_logger().info(line)
        self._answer = line
        self._show()

    def _show(self) -> None:
        self._view.show(self._frozen, self._drawing, self._tracker.instances)
        self._show_text()

    def _show_text(self, busy: str = "") -> None:
        below = (self._stream.line(time.monotonic()) + self._age, f"last seed: {self._seed}")
        answer = busy or self._answer
        above, on_picture = ((answer, self._hint(in_rviz)) for in_rviz in (True, False))
        self._view.say(self._frozen, self._drawing, above, below, on_picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit status is 1 where it could not start."""
    return run_node("rviz_seed_tool", SeedTool, arguments)
