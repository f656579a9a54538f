# SPDX-License-Identifier: Apache-2.0
"""What the seeding tool publishes for RViz2 and rqt_image_view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from maskrnn_ros.image_messages import fill_image
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.rviz_tool.drawing import Drawing
from maskrnn_ros.rviz_tool.frozen import Frozen
from maskrnn_ros.rviz_tool.marker_server import MarkerServer
from maskrnn_ros.rviz_tool.markers import (
    DRAWING,
    button_marker,
    drawing_marker,
    image_marker,
    newest_marker,
    painted,
    text_markers,
)

INTERFACES = (
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
        text="The frozen image, the drawing and the buttons, for RViz2's InteractiveMarkers display.",
    ),
    Interface(
        name="~/markers",
        type="visualization_msgs/MarkerArray",
        kind="publishes",
        text="What to do, the answers, how the stream is and what became of the last seed; latched, and repeated every "
        "second.",
    ),
    Interface(
        name="~/image",
        type="sensor_msgs/Image",
        kind="publishes",
        text="The frozen image with the drawing, rgb8, for rqt_image_view; repeated every second.",
    ),
    Interface(
        name="~/seed/get_interactive_markers",
        type="visualization_msgs/GetInteractiveMarkers",
        kind="serves",
        text="The frozen image, the drawing and the buttons, for RViz2.",
    ),
)


class SeedView:
    """Shows the frozen image, the drawing over it, the buttons beside it and the text around it.

    Args:
        node: The rclpy node.
        on_feedback: Called with the InteractiveMarkerFeedback that is about one of them.
    """

    def __init__(self, node: Any, on_feedback: Callable[[Any], None]) -> None:
        self.server = MarkerServer(node, "~/seed/", on_feedback)
        self._markers = node.create_publisher(MarkerArray, "~/markers", reliable(1, is_latched=True))
        self._picture = node.create_publisher(Image, "~/image", 1)

    def show(self, frozen: Frozen | None, drawing: Drawing | None, instances: Mapping[int, str]) -> None:
        """Show all but the text; what did not change is not sent.

        Args:
            frozen: The image; None before the first.
            drawing: What is drawn on it, likewise.
            instances: Titles of the live instances by id, for the menu.
        """
        self.server.show(image_marker(frozen))
        self.server.show(button_marker(drawing, frozen, instances))
        self.server.show(newest_marker(frozen))
        if frozen is None or drawing is None or drawing.is_empty:
            self.server.erase(DRAWING)
        else:
            self.server.show(drawing_marker(drawing, frozen, instances))

    def say(
        self,
        frozen: Frozen | None,
        drawing: Drawing | None,
        above: tuple[str, ...],
        below: tuple[str, ...],
        on_picture: tuple[str, ...],
    ) -> None:
        """Show the text, and the picture for viewers of images as far as there are any.

        Args:
            frozen: The image; None before the first.
            drawing: What is drawn on it, likewise.
            above: Lines over it, topmost first; empty ones are left out.
            below: Lines under it, likewise.
            on_picture: Lines on the picture of viewers of images: few, for they cover it.
        """
        self._markers.publish(text_markers(above, below, frozen))
        if frozen is None or drawing is None or not self._picture.get_subscription_count():
            return
        message = Image(header=frozen.header)
        fill_image(message, painted(drawing, on_picture), "rgb8")
        self._picture.publish(message)
