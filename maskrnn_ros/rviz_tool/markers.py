# SPDX-License-Identifier: Apache-2.0
"""What the seeding tool shows in RViz2: the frozen image as a textured marker, and the drawing over it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

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

from maskrnn_ros.overlay import drawn_scale, folded, overlay_labels, write_text
from maskrnn_ros.ros.image_plane import FRAME, to_plane, unit
from maskrnn_ros.ros.markers import text_scale
from maskrnn_ros.rviz_tool.drawing import Drawing
from maskrnn_ros.rviz_tool.frozen import Frozen
from maskrnn_ros.rviz_tool.menu import menu
from maskrnn_ros.types import BoolArray, UInt8Array

NAME = "image"
"""Of the interactive marker of the frozen image."""
DRAWING = "drawing"
"""Of that of the drawing over it."""
BUTTON = "add"
"""Of the button beside the picture that sends the drawing."""
NEWEST = "newest"
"""Of the one under it, which freezes another image."""
_LAYER = 0.008
"""Distance in z between what lies over each other: RViz2 tells 0.004 apart, and seen from the side all is in place."""
_TEXT = 0.03
_COLUMNS = 80
"""Characters of that height that are about as long as the image is wide."""
_YELLOW = ColorRGBA(r=1.0, g=0.9, b=0.0, a=1.0)
_PAINT, _PAINT_ON, _PAINT_OFF = (255, 230, 0), (50, 255, 75), (255, 50, 50)
_GREEN = ColorRGBA(r=0.2, g=1.0, b=0.3, a=1.0)
_RED = ColorRGBA(r=1.0, g=0.2, b=0.2, a=1.0)
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
_GREY = ColorRGBA(r=0.3, g=0.3, b=0.3, a=1.0)
_BLACK = ColorRGBA(a=1.0)
_DOT = 0.008
_GAP = 0.02
"""Between the picture and what lies beside it."""
_BUTTON = (0.12, 0.07)
"""Width and height of a button."""
_NEWEST_Y = -0.12
"""Upper edge of the lower button: a hand that means the other one does not hit it, for it clears the drawing."""
_EMPTY = (3, 4)
"""Rows and columns of the grey quad before the first image: its menu is there already."""


def control_name(frozen: Frozen | None) -> str:
    """Of all controls of a freeze: what RViz2 sends back tells which picture it showed."""
    return NAME if frozen is None else f"{NAME} {frozen.name}"


def image_marker(frozen: Frozen | None) -> InteractiveMarker:
    """The InteractiveMarker of the frozen image, a grey one before the first.

    Its menu has nothing about instances: RViz2 loads the picture anew, and keeps the old one, whenever anything of the
    marker changes (see ``frozen``), and instances come and go.
    """
    return _interactive(NAME, frozen, None, [_quad(frozen)])


def drawing_marker(drawing: Drawing, frozen: Frozen, instances: Mapping[int, str]) -> InteractiveMarker:
    """The InteractiveMarker of the drawing: mask outline, lines and vertices.

    It has a menu, too: RViz2 gives a click to what lies uppermost under the mouse, and a mere marker would swallow it.

    Args:
        drawing: What is drawn.
        frozen: What it is drawn on.
        instances: Titles of the live instances by id, for the menu.
    """
    return _interactive(DRAWING, frozen, instances, _drawn(drawing, frozen.size))


def button_marker(drawing: Drawing | None, frozen: Frozen | None, instances: Mapping[int, str]) -> InteractiveMarker:
    """The InteractiveMarker beside the picture: a click on it sends the drawing; it has the whole menu.

    Args:
        drawing: What is drawn; green where there is something to send.
        frozen: What it is drawn on.
        instances: Titles of the live instances by id, for the menu.
    """
    ready = drawing is not None and (drawing.mask is not None or len(drawing.vertices) >= 3)
    return _button(BUTTON, 0.0, ready, frozen, instances)


def newest_marker(frozen: Frozen | None) -> InteractiveMarker:
    """The InteractiveMarker under that button: a click on it freezes the newest image. Its menu is the picture's."""
    return _button(NEWEST, _NEWEST_Y, False, frozen, None)


def _button(
    name: str, upper: float, is_ready: bool, frozen: Frozen | None, instances: Mapping[int, str] | None
) -> InteractiveMarker:
    left = _extent(frozen)[0] + _GAP
    face = Marker(ns="face", type=Marker.TRIANGLE_LIST, action=Marker.ADD, color=_GREEN if is_ready else _GREY)
    face.scale.x = face.scale.y = face.scale.z = 1.0
    width, height = _BUTTON
    face.points = [Point(x=left + c * width, y=upper - r * height) for c, r in _corners(1, 1)]
    title = Marker(ns="title", type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, color=_BLACK if is_ready else _WHITE)
    title.text, title.scale = name, text_scale(_TEXT)
    title.pose.position.x, title.pose.position.y, title.pose.position.z = left + width / 2, upper - height / 2, _LAYER
    for marker in (face, title):
        marker.pose.orientation.w = 1.0
    return _interactive(name, frozen, instances, [face, title])


def _interactive(
    name: str, frozen: Frozen | None, instances: Mapping[int, str] | None, markers: list[Marker]
) -> InteractiveMarker:
    marker = InteractiveMarker(name=name, scale=1.0, menu_entries=menu(instances))
    # The stamp stays 0: rviz (14.3.1, interactive_marker.cpp) then gives mouse points in this very frame, whatever
    # its fixed frame is. The description stays empty, for it would be written over the image.
    marker.header.frame_id = FRAME
    marker.pose.orientation.w = 1.0
    control = InteractiveMarkerControl(
        name=control_name(frozen),
        interaction_mode=InteractiveMarkerControl.BUTTON,  # a click is one BUTTON_CLICK, and moves nothing
        always_visible=True,  # with the other tools of RViz2, too
        markers=markers,
    )
    control.orientation.w = 1.0
    marker.controls = [control]
    return marker


def _extent(frozen: Frozen | None) -> tuple[float, float]:
    """Width and height of the picture, metres."""
    rows, columns = _EMPTY if frozen is None else frozen.size
    x, y = to_plane(float(columns), float(rows), (rows, columns))
    return x, -y


def _corners(columns: float, rows: float) -> list[tuple[float, float]]:
    """Two triangles, counter-clockwise seen from above: rviz lights the side that their normal points to."""
    return [(0, 0), (0, rows), (columns, rows), (0, 0), (columns, rows), (columns, 0)]


def _quad(frozen: Frozen | None) -> Marker:
    # no frame_id: it lies in that of the interactive marker
    quad = Marker(type=Marker.TRIANGLE_LIST, action=Marker.ADD, color=_GREY if frozen is None else _WHITE)
    quad.scale.x = quad.scale.y = quad.scale.z = 1.0
    quad.pose.orientation.w = 1.0
    quad.points = [Point(x=x, y=-y) for x, y in _corners(*_extent(frozen))]
    if frozen is not None:
        # "embedded://" takes the texture of the message (rviz 14.3.1, triangle_list_marker.cpp). OGRE looks up its
        # codec by the format, which thus must be the bare name.
        quad.texture_resource = f"embedded://frozen_{frozen.name}"
        quad.texture.header = frozen.header
        quad.texture.format = "jpeg"
        quad.texture.data = frozen.texture
        # v = 0 is the top row of the picture: OGRE's codec stores it first (OgreFreeImageCodec.cpp, "invert image"),
        # and the row stored first is at v = 0, as where rviz's map (swatch.cpp) puts its first row.
        quad.uv_coordinates = [UVCoordinate(u=float(c), v=float(r)) for c, r in _corners(1, 1)]
    return quad


def _drawn(drawing: Drawing, size: tuple[int, int]) -> list[Marker]:
    markers = []
    if drawing.mask is not None:
        outline = [_point(c, r, size, 1) for c, r in outline_segments(drawing.mask).reshape(-1, 2).tolist()]
        markers.append(_lines("mask", Marker.LINE_LIST, outline, 0.003, _GREEN))
    if len(drawing.vertices) > 1:
        # pieces, for a strip gets thin at its corners
        pairs = zip(drawing.vertices[:-1], drawing.vertices[1:], strict=True)
        path = [_point(c, r, size, 2) for pair in pairs for c, r in pair]
        markers.append(_lines("line", Marker.LINE_LIST, path, 0.002, _YELLOW))
    if drawing.vertices:
        dots = [_point(c, r, size, 3) for c, r in drawing.vertices]
        markers.append(_lines("vertices", Marker.SPHERE_LIST, dots, _DOT, _YELLOW))
        if drawing.reach:  # where a click closes the polygon
            markers.append(_lines("first", Marker.SPHERE_LIST, dots[:1], 2 * drawing.reach / unit(size), _GREEN))
    for namespace, on_object, color in (("on", True, _GREEN), ("off", False, _RED)):
        dots = [_point(p.x, p.y, size, 3) for p in drawing.points if p.on_object == on_object]
        if dots:
            markers.append(_lines(namespace, Marker.SPHERE_LIST, dots, _DOT, color))
    return markers


def text_markers(above: Sequence[str], below: Sequence[str], frozen: Frozen | None) -> MarkerArray:
    """The MarkerArray of the text around the picture.

    It says all there is: a line that is not there any more is deleted by its number, and not all lines by DELETEALL, so
    that saying the same again, for who has lost it, changes nothing in RViz2.

    Args:
        above: Lines over the picture, topmost first; empty ones are left out.
        below: Lines under it, likewise.
        frozen: The picture.
    """
    markers = []
    edge = 0.5 * _TEXT
    for number, line in enumerate(reversed(_folded(above))):
        height = _TEXT * len(line)
        markers.append(_text("text", number, line, edge + 0.5 * height))
        edge += height + 0.3 * _TEXT
    edge = -_extent(frozen)[1] - 0.5 * _TEXT
    for number, line in enumerate(_folded(below)):
        height = _TEXT * len(line)
        markers.append(_text("status", number, line, edge - 0.5 * height))
        edge -= height + 0.3 * _TEXT
    there = {(marker.ns, marker.id) for marker in markers}
    markers += [
        Marker(ns=ns, id=number, action=Marker.DELETE)
        for ns, lines in (("text", above), ("status", below))
        for number in range(len(lines))
        if (ns, number) not in there
    ]
    for marker in markers:
        marker.header.frame_id = FRAME
        marker.pose.orientation.w = 1.0
    return MarkerArray(markers=markers)


def _folded(lines: Sequence[str]) -> list[list[str]]:
    return [textwrap.wrap(line, _COLUMNS, break_on_hyphens=False) for line in lines if line]


def _text(namespace: str, number: int, lines: list[str], y: float) -> Marker:
    text = Marker(ns=namespace, id=number, type=Marker.TEXT_VIEW_FACING, color=_WHITE, text="\n".join(lines))
    text.scale = text_scale(_TEXT)
    text.pose.position.x, text.pose.position.y, text.pose.position.z = 0.5, y, _LAYER
    return text


def painted(drawing: Drawing, lines: Sequence[str]) -> UInt8Array:
    """The image with the drawing and text on it, RGB, uint8 (H, W, 3), for viewers of images."""
    mask = drawing.mask
    canvas = drawing.image.copy() if mask is None else overlay_labels(drawing.image, mask.astype(np.int32))
    scale = drawn_scale(canvas)
    radius, stroke = round(3 * scale), round(scale)
    corners = np.array(drawing.vertices, np.float64).reshape(-1, 2).astype(np.int32)
    cv2.polylines(canvas, [corners], False, _PAINT, stroke)
    for x, y in corners.tolist():
        cv2.circle(canvas, (x, y), radius, _PAINT, -1)
    for point in drawing.points:
        cv2.circle(canvas, (int(point.x), int(point.y)), radius, _PAINT_ON if point.on_object else _PAINT_OFF, -1)
    rows = [row for line in lines for row in folded(line, canvas.shape[1] - round(8 * scale), scale)]
    room = max(1, round(canvas.shape[0] / 3 / (16 * scale)))  # text must not hide a small picture
    for number, row in enumerate(rows[:room]):
        write_text(canvas, row, (round(4 * scale), round((14 + 16 * number) * scale)), scale)
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


def _point(column: float, row: float, size: tuple[int, int], layer: int) -> Point:
    x, y = to_plane(float(column), float(row), size)
    return Point(x=x, y=y, z=_LAYER * layer)
