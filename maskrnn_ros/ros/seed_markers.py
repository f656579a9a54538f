# SPDX-License-Identifier: Apache-2.0
"""What the seeding tool shows in RViz2: the frozen image as a textured marker, and the drawing over it."""

from __future__ import annotations

import array
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import (
    InteractiveMarker,
    InteractiveMarkerControl,
    Marker,
    MarkerArray,
    UVCoordinate,
)

from maskrnn_ros.drawing import Drawing
from maskrnn_ros.overlay import overlay_labels, write_text
from maskrnn_ros.ros.image_plane import FRAME, to_plane
from maskrnn_ros.ros.markers import text_scale
from maskrnn_ros.ros.seed_menu import menu
from maskrnn_ros.types import BoolArray, UInt8Array

NAME = "image"
"""Of the interactive marker of the frozen image."""
DRAWING = "drawing"
"""Of that of the drawing over it."""
_QUALITY = 95
_LAYER = 0.02
"""Distance in z between what lies over each other: RViz2 tells 0.004 apart, and seen from the side all is in place."""
_TEXT = 0.03
_COLUMNS = 64
"""Characters of that height that are about as long as the image is wide."""
_YELLOW = ColorRGBA(r=1.0, g=0.9, b=0.0, a=1.0)
_PAINT = (255, 230, 0)
_GREEN = ColorRGBA(r=0.2, g=1.0, b=0.3, a=1.0)
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
_GREY = ColorRGBA(r=0.3, g=0.3, b=0.3, a=1.0)
_EMPTY = (3, 4)
"""Rows and columns of the grey quad before the first image: its menu is there already."""


def jpeg(image: UInt8Array) -> Any:
    """A JPEG file of an RGB image, as array.array: what messages take without a look at every byte.

    It is for the eyes, the mask is cut from the image itself; a PNG would be five times the size, which is sent anew
    whenever the menu changes.
    """
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f"cannot encode an image of {image.shape[1]}x{image.shape[0]} as JPEG")
    return array.array("B", data.tobytes())


def control_name(header: Any) -> str:
    """Of all controls over a frozen image: what RViz2 sends back tells which image it showed.

    Args:
        header: Of the image; None before the first.
    """
    return NAME if header is None else f"{NAME} {header.stamp.sec}.{header.stamp.nanosec:09d}"


def image_marker(
    size: tuple[int, int] | None, texture: Any, header: Any, instances: Mapping[int, str]
) -> InteractiveMarker:
    """The InteractiveMarker of the frozen image, with its menu.

    Args:
        size: Rows and columns; None before the first image.
        texture: From ``jpeg``; not looked at where there is no size.
        header: Of the frozen image.
        instances: Titles of the live instances by id, for the menu.
    """
    return _interactive(NAME, header, instances, [_quad(size, texture, header)])


def drawing_marker(drawing: Drawing, header: Any, instances: Mapping[int, str]) -> InteractiveMarker:
    """The InteractiveMarker of the drawing: mask outline, lines and vertices.

    It has the menu of the image: RViz2 gives a click to what lies uppermost under the mouse, and a mere marker would
    swallow it.

    Args:
        drawing: What is drawn.
        header: Of the frozen image.
        instances: Titles of the live instances by id, for the menu.
    """
    return _interactive(DRAWING, header, instances, _drawn(drawing))


def _interactive(name: str, header: Any, instances: Mapping[int, str], markers: list[Marker]) -> InteractiveMarker:
    marker = InteractiveMarker(name=name, scale=1.0, menu_entries=menu(instances))
    # The stamp stays 0: rviz (14.3.1, interactive_marker.cpp) then gives mouse points in this very frame, whatever
    # its fixed frame is. The description stays empty, for it would be written over the image.
    marker.header.frame_id = FRAME
    marker.pose.orientation.w = 1.0
    control = InteractiveMarkerControl(
        name=control_name(header),
        interaction_mode=InteractiveMarkerControl.BUTTON,  # a click is one BUTTON_CLICK, and moves nothing
        always_visible=True,  # with the other tools of RViz2, too
        markers=markers,
    )
    control.orientation.w = 1.0
    marker.controls = [control]
    return marker


def _quad(size: tuple[int, int] | None, texture: Any, header: Any) -> Marker:
    """Two triangles, counter-clockwise seen from above: rviz lights the side that their normal points to."""
    rows, columns = size or _EMPTY
    corners = [(0, 0), (0, rows), (columns, rows), (0, 0), (columns, rows), (columns, 0)]
    # no frame_id: it lies in that of the interactive marker
    quad = Marker(type=Marker.TRIANGLE_LIST, action=Marker.ADD, color=_WHITE if size else _GREY)
    quad.scale.x = quad.scale.y = quad.scale.z = 1.0
    quad.pose.orientation.w = 1.0
    quad.points = [_point(c, r, columns, 0) for c, r in corners]
    if size is not None:
        stamp = header.stamp
        # "embedded://" takes the texture of the message (rviz 14.3.1, triangle_list_marker.cpp). OGRE looks up its
        # codec by the format, which thus must be the bare name.
        quad.texture_resource = f"embedded://frozen_{stamp.sec}_{stamp.nanosec:09d}"
        quad.texture.header = header
        quad.texture.format = "jpeg"
        quad.texture.data = texture
        # v = 0 is the top row of the picture: OGRE's codec stores it first (OgreFreeImageCodec.cpp, "invert image"),
        # and the row stored first is at v = 0, as where rviz's map (swatch.cpp) puts its first row.
        quad.uv_coordinates = [UVCoordinate(u=c / columns, v=r / rows) for c, r in corners]
    return quad


def _drawn(drawing: Drawing) -> list[Marker]:
    width = drawing.image.shape[1]
    markers = []
    if drawing.mask is not None:
        outline = [_point(c, r, width, 1) for c, r in outline_segments(drawing.mask).reshape(-1, 2).tolist()]
        markers.append(_lines("mask", Marker.LINE_LIST, outline, 0.003, _GREEN))
    if len(drawing.vertices) > 1:
        # pieces, for a strip gets thin at its corners
        pairs = zip(drawing.vertices[:-1], drawing.vertices[1:], strict=True)
        path = [_point(c, r, width, 2) for pair in pairs for c, r in pair]
        markers.append(_lines("line", Marker.LINE_LIST, path, 0.002, _YELLOW))
    if drawing.vertices:
        dots = [_point(c, r, width, 3) for c, r in drawing.vertices]
        markers.append(_lines("vertices", Marker.SPHERE_LIST, dots, 0.008, _YELLOW))
    return markers


def text_markers(lines: Sequence[str]) -> MarkerArray:
    """The MarkerArray of the text above the image.

    Args:
        lines: The text, topmost line first.
    """
    markers = [Marker(action=Marker.DELETEALL)]  # RViz2 deletes all there is only where no namespace is named
    top = 0.5 * _TEXT
    for number, line in enumerate(reversed([line for line in lines if line])):
        folded = textwrap.wrap(line, _COLUMNS)
        height = _TEXT * len(folded)
        text = Marker(ns="text", id=number, type=Marker.TEXT_VIEW_FACING, color=_WHITE, text="\n".join(folded))
        text.scale = text_scale(_TEXT)
        text.pose.position.x, text.pose.position.y, text.pose.position.z = 0.5, top + 0.5 * height, _LAYER
        top += height + 0.3 * _TEXT
        markers.append(text)
    for marker in markers:
        marker.header.frame_id = FRAME
        marker.pose.orientation.w = 1.0
    return MarkerArray(markers=markers)


def painted(drawing: Drawing, lines: Sequence[str]) -> UInt8Array:
    """The image with the drawing and text on it, RGB, uint8 (H, W, 3), for viewers of images."""
    mask = drawing.mask
    canvas = drawing.image.copy() if mask is None else overlay_labels(drawing.image, mask.astype(np.int32))
    corners = np.array(drawing.vertices, np.float64).reshape(-1, 2).astype(np.int32)
    cv2.polylines(canvas, [corners], False, _PAINT, 1)
    for x, y in corners.tolist():
        cv2.circle(canvas, (x, y), 3, _PAINT, -1)
    for number, line in enumerate(lines):
        write_text(canvas, line, (4, 14 + 16 * number))
    return canvas


def outline_segments(mask: BoolArray) -> npt.NDArray[np.int64]:
    """The edges between marked and unmarked pixels, (N, 2 ends, 2) as pixel positions x, y.

    A run of edges in one line is one segment.

    >>> outline_segments(np.array([[False, True, True]])).tolist()
    [[[1, 0], [3, 0]], [[1, 1], [3, 1]], [[1, 0], [1, 1]], [[3, 0], [3, 1]]]
    """
    level = _runs(np.pad(mask, 1))
    upright = _runs(np.pad(mask.T, 1))[..., ::-1]
    return np.concatenate([level, upright])


def _runs(padded: BoolArray) -> npt.NDArray[np.int64]:
    """Horizontal edges of a mask with a margin of 1, as segments."""
    edges = np.pad(padded[1:, 1:-1] != padded[:-1, 1:-1], ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(edges, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return np.stack([np.stack([starts, rows], -1), np.stack([ends, rows], -1)], 1)


def _lines(namespace: str, kind: int, points: list[Point], size: float, color: ColorRGBA) -> Marker:
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD, color=color, points=points)
    marker.scale.x = marker.scale.y = marker.scale.z = size  # of lines only x counts: their width
    marker.pose.orientation.w = 1.0
    return marker


def _point(column: float, row: float, width: int, layer: int) -> Point:
    x, y = to_plane(float(column), float(row), width)
    return Point(x=x, y=y, z=_LAYER * layer)
