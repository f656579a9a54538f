# SPDX-License-Identifier: Apache-2.0
"""The server's side of interactive markers, which the Python package ``interactive_markers`` would give.

That package is not among the Python wheels of ROS, and one image as a marker needs little of it. What RViz2's client
expects was read from interactive_markers 2.5.4 (``src/interactive_marker_client.cpp``; 2.3.2, of Humble, is alike):

* ``get_interactive_markers`` gives all markers and the number of the latest update; the client drops older updates.
* ``update`` carries what changed; its number is one more than the last one's, else the client starts over.
* No KEEP_ALIVE: the client ignores it with a warning. It knows by the service whether the server lives.
* Both topics are reliable and volatile, depth 100. The C++ server hears feedback with depth 1; a click is several
  messages at once, of which none may be lost, hence 100 here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from visualization_msgs.msg import InteractiveMarkerFeedback, InteractiveMarkerUpdate
from visualization_msgs.srv import GetInteractiveMarkers

from maskrnn_ros.ros.qos import reliable

_DEPTH = 100


class MarkerServer:
    """Serves interactive markers to RViz2's InteractiveMarkers display.

    Args:
        node: The rclpy node.
        prefix: Of its topics and its service, ending in a slash; without that slash it is the display's property
            "Interactive Markers Namespace".
        on_feedback: Called with the InteractiveMarkerFeedback that is about one of them.
    """

    def __init__(self, node: Any, prefix: str, on_feedback: Callable[[Any], None]) -> None:
        self.sequence_number = 0
        self._markers: dict[str, Any] = {}
        self._on_feedback = on_feedback
        self._update = node.create_publisher(InteractiveMarkerUpdate, f"{prefix}update", reliable(_DEPTH))
        node.create_subscription(InteractiveMarkerFeedback, f"{prefix}feedback", self._take, reliable(_DEPTH))
        node.create_service(GetInteractiveMarkers, f"{prefix}get_interactive_markers", self._answer)

    def show(self, marker: Any) -> None:
        """Put an InteractiveMarker in the place of the one with its name; RViz2 loads its texture anew each time."""
        if self._markers.get(marker.name) == marker:
            return
        self._markers[marker.name] = marker
        self._publish(markers=[marker])

    def erase(self, name: str) -> None:
        """Take one away, if it is there."""
        if self._markers.pop(name, None) is not None:
            self._publish(erases=[name])

    def _publish(self, **what: Any) -> None:
        self.sequence_number += 1
        kind = InteractiveMarkerUpdate.UPDATE
        self._update.publish(InteractiveMarkerUpdate(seq_num=self.sequence_number, type=kind, **what))

    def _answer(self, request: Any, response: Any) -> Any:
        response.sequence_number = self.sequence_number
        response.markers = list(self._markers.values())
        return response

    def _take(self, feedback: Any) -> None:
        if feedback.marker_name in self._markers:
            self._on_feedback(feedback)
