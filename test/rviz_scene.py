# SPDX-License-Identifier: Apache-2.0
"""What RViz2 makes of markers, as seen in rviz2 14.1.5: what is there, what takes a click, how wide a text is.

What it sends back was read from its sources, too (interactive_marker_control, interaction_tool, point_tool).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from geometry_msgs.msg import PointStamped
from visualization_msgs.msg import Marker

DEPTH_RESOLUTION = 0.004
"""Things that are closer in z than this are not told apart."""
DEFAULT_SPACE = 0.6
"""Width of a space where scale.x does not say it."""
FIXED_FRAME = "maskrnn_image"
COARSE_Z = -0.0014
"""z of what *Publish Point* gives on a picture at z = 0."""


class RvizScene:
    """The displays InteractiveMarkers and MarkerArray."""

    def __init__(self) -> None:
        self.number = 0
        self.textures: list[str] = []  # every one it was sent: it keeps the memory of all
        self.interactive: dict[str, Any] = {}
        self.markers: dict[tuple[str, int], Any] = {}

    def take_update(self, update: Any) -> None:
        if update.seq_num <= self.number:  # the service was ahead of it
            return
        self.number = update.seq_num
        self.interactive.update({marker.name: marker for marker in update.markers})
        self._load(update.markers)
        for name in update.erases:
            self.interactive.pop(name, None)

    def take_all(self, response: Any) -> None:
        """Of the service get_interactive_markers."""
        self.number = response.sequence_number
        self.interactive = {marker.name: marker for marker in response.markers}
        self._load(response.markers)

    def _load(self, markers: Iterable[Any]) -> None:
        drawn = [marker for interactive in markers for control in interactive.controls for marker in control.markers]
        self.textures += [marker.texture_resource for marker in drawn if marker.texture_resource]

    def take_array(self, array: Any) -> None:
        for marker in array.markers:
            if marker.action == Marker.DELETEALL:  # in its namespace; in all where it names none
                self.markers = {key: old for key, old in self.markers.items() if marker.ns and key[0] != marker.ns}
            elif marker.action == Marker.DELETE:
                self.markers.pop((marker.ns, marker.id), None)
            else:
                self.markers[marker.ns, marker.id] = marker

    def shown(self, namespace: str) -> list[Any]:
        """The markers of a namespace, whatever display they are in."""
        return [marker for _, _, marker in self._all() if marker.ns == namespace]

    def published_point(self, x: float, y: float, now: Any) -> PointStamped | None:
        """What *Publish Point* gives there: in the fixed frame, with the time of the click; None where nothing lies."""
        if self.focus(x, y) is None:
            return None
        message = PointStamped()
        message.header.frame_id, message.header.stamp = FIXED_FRAME, now
        message.point.x, message.point.y, message.point.z = x, y, COARSE_Z
        return message

    def focus(self, x: float, y: float) -> tuple[str, str] | None:
        """The interactive marker and its control that get a click there; empty names where a mere marker takes it."""
        hit = [(z, name, control) for name, control, marker in self._all() for z in _heights(marker, x, y)]
        if not hit:
            return None
        return max(hit)[1:]

    def _all(self) -> Iterator[tuple[str, str, Any]]:
        for interactive in self.interactive.values():
            for control in interactive.controls:
                for marker in control.markers:
                    yield interactive.name, control.name, marker
        for marker in self.markers.values():
            yield "", "", marker


def text_width(marker: Any) -> float:
    """Of the longest line, in RViz2's font."""
    space = marker.scale.x or DEFAULT_SPACE
    return max(
        sum(space if c == " " else _letter(c) * marker.scale.z for c in line) for line in marker.text.splitlines()
    )


def _letter(character: str) -> float:
    """Its width as a share of the height that is asked for, of Liberation Sans."""
    if character in "fijlrtI.,:;'|!()[]/-":
        return 0.28
    return 0.72 if character in "mwMW" else 0.49


def _heights(marker: Any, x: float, y: float) -> list[float]:
    """z of what of the marker lies under the point."""
    lift = marker.pose.position.z
    points = [(p.x, p.y, p.z + lift) for p in marker.points]
    near = marker.scale.x / 2
    if marker.type == Marker.TEXT_VIEW_FACING:
        at, lines = marker.pose.position, len(marker.text.splitlines())
        within = abs(x - at.x) <= text_width(marker) / 2 and abs(y - at.y) <= lines * marker.scale.z / 2
        return [at.z] if within else []
    if marker.type == Marker.TRIANGLE_LIST:  # the corners of an upright rectangle
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        return [points[0][2]] if min(xs) <= x <= max(xs) and min(ys) <= y <= max(ys) else []
    if marker.type == Marker.SPHERE_LIST:
        return [p[2] for p in points if math.dist(p[:2], (x, y)) <= near]
    if marker.type == Marker.LINE_LIST:
        pairs = zip(points[::2], points[1::2], strict=True)
        return [a[2] for a, b in pairs if _distance((x, y), a, b) <= near]
    return []


def _distance(point: tuple[float, float], a: tuple[float, ...], b: tuple[float, ...]) -> float:
    along = (b[0] - a[0], b[1] - a[1])
    length = math.hypot(*along) or 1.0
    share = ((point[0] - a[0]) * along[0] + (point[1] - a[1]) * along[1]) / length**2
    share = min(max(share, 0.0), 1.0)
    return math.dist(point, (a[0] + share * along[0], a[1] + share * along[1]))
