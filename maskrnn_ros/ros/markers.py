# SPDX-License-Identifier: Apache-2.0
"""Outlines and names of the instances as markers in the plane of the image, for RViz2."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from maskrnn_ros.overlay import colour
from maskrnn_ros.ros.image_plane import FRAME, to_plane
from maskrnn_ros.types import Track, Tracks

_ABOVE_M = 0.05
"""How far the lines lie before the image, which is in the same frame at z = 0: RViz2 tells 0.004 apart there."""
_LINE_M = 0.003
_TEXT_M = 0.025
_TOLERANCE_PX = 1.0
"""How far a line may leave the outline: messages with many points are slow to make."""


def text_scale(height_m: float) -> Any:
    """The scale of a text marker of that height; x is the width of a space, which RViz2 makes 0.6 m else."""
    return Vector3(x=0.3 * height_m, z=height_m)


def marker_array(tracks: Tracks, stamp: Any) -> Any:
    """A MarkerArray: for every instance that is seen its outline and its id, name and state.

    It begins with DELETEALL, so that it says all there is: one that was lost on its way leaves nothing behind.
    """
    header = Header(stamp=stamp, frame_id=FRAME)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for track in tracks.tracks:
        if track.box is not None:
            markers += [_outline(track, header, tracks.size), _text(track, header, tracks.size)]
    return MarkerArray(markers=markers)


def _outline(track: Track, header: Any, size: tuple[int, int]) -> Any:
    assert track.box is not None
    marker = _marker(track, header, "outline", Marker.LINE_LIST)
    marker.scale.x = _LINE_M
    mask = np.ascontiguousarray(track.mask).view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        line = cv2.approxPolyDP(contour, _TOLERANCE_PX, True)[:, 0].astype(np.float64)
        # OpenCV's points are pixels by their number, whose centres are half a pixel further
        x, y = to_plane(line[:, 0] + track.box.x0 + 0.5, line[:, 1] + track.box.y0 + 0.5, size)
        corners = [Point(x=a, y=b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        for begin, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            marker.points += [begin, end]
    return marker


def _text(track: Track, header: Any, size: tuple[int, int]) -> Any:
    assert track.box is not None
    marker = _marker(track, header, "label", Marker.TEXT_VIEW_FACING)
    marker.text = f"{track.instance_id} {track.name}".strip()
    marker.scale = text_scale(_TEXT_M)
    x, y = to_plane((track.box.x0 + track.box.x1) / 2, float(track.box.y0), size)
    marker.pose.position.x, marker.pose.position.y = x, y + _TEXT_M / 2
    return marker


def _marker(track: Track, header: Any, namespace: str, kind: int) -> Any:
    marker = Marker(header=header, ns=namespace, id=track.instance_id, type=kind, action=Marker.ADD)
    marker.pose.position.z = _ABOVE_M
    marker.pose.orientation.w = 1.0
    marker.color.r, marker.color.g, marker.color.b = (part / 255 for part in colour(track.instance_id))
    marker.color.a = 1.0
    return marker
