# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: masks over the image, and contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np

from maskrnn_ros.labels import davis_palette
from maskrnn_ros.types import InstanceState, LabelArray, Tracks, UInt8Array

_PALETTE = davis_palette()
_OPACITY = 0.5
_PLAIN = 640
"""Longer side of pictures, pixels, from which on lines and text grow with them: a window shows all as large."""
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def colour(instance_id: int) -> tuple[int, int, int]:
    """RGB colour of an instance: the DAVIS palette's, the same in every picture; it repeats after 255 ids."""
    red, green, blue = _PALETTE[(instance_id - 1) % 255 + 1].tolist()
    return red, green, blue


def drawn_scale(picture: UInt8Array) -> float:
    """How much larger than on a small picture text and lines are drawn on one of (H, W, 3)."""
    longest: int = max(picture.shape[:2])
    return max(1.0, longest / _PLAIN)


def overlay_labels(image: UInt8Array, labels: LabelArray) -> UInt8Array:
    """Tint the instances of (H, W) labels over a copy of the RGB image (H, W, 3) and outline them."""
    canvas = image.copy()
    stroke = round(drawn_scale(canvas))
    for instance_id in np.unique(labels[labels != 0]).tolist():
        mask = (labels == instance_id).view(np.uint8)
        where = mask.astype(bool)
        tint = np.asarray(colour(instance_id), np.float32)
        canvas[where] = (canvas[where] * (1 - _OPACITY) + tint * _OPACITY).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, contours, -1, colour(instance_id), stroke)
    return canvas


def overlay_tracks(image: UInt8Array, tracks: Tracks) -> UInt8Array:
    """Masks, boxes, ids and states over a copy of the RGB image (H, W, 3)."""
    canvas = overlay_labels(image, tracks.labels)
    hidden: list[str] = []
    for track in tracks.tracks:
        title = f"{track.instance_id} {track.name}".strip()
        if track.state in (InstanceState.OCCLUDED, InstanceState.LOST):
            hidden.append(f"{title} {track.state.name}")
        if track.box is not None:
            box = track.box
            draw_box(canvas, (box.x0, box.y0, box.x1, box.y1), title, colour(track.instance_id))
    scale = drawn_scale(canvas)
    for line, text in enumerate(hidden):
        write_text(canvas, text, (round(4 * scale), round((14 + 16 * line) * scale)), scale)
    return canvas


def draw_box(canvas: UInt8Array, edges: tuple[int, int, int, int], title: str, tone: tuple[int, int, int]) -> None:
    """Draw a box on (H, W, 3) in an RGB colour, with the title above it or, at the upper edge, in it.

    Args:
        canvas: Drawn on.
        edges: Left, upper, right and lower edge; the last two are outside, as in ``Box``.
        title: Its text.
        tone: The colour.
    """
    x0, y0, x1, y1 = edges
    scale = drawn_scale(canvas)
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), tone, round(scale))
    write_text(canvas, title, (x0, max(round(12 * scale), y0 - round(3 * scale))), scale)


def write_text(canvas: UInt8Array, text: str, origin: tuple[int, int], scale: float = 1.0) -> None:
    """White text with a black rim on (H, W, 3), its lower left corner at (x, y); at scale 1 a line takes 16 pixels."""
    for tone, thickness in ((0, 3), (255, 1)):
        strokes = max(1, round(thickness * scale))
        cv2.putText(canvas, text, origin, _FONT, _FONT_SCALE * scale, (tone,) * 3, strokes, cv2.LINE_AA)


def folded(text: str, width: int, scale: float = 1.0) -> list[str]:
    """The lines of a text that ``write_text`` brings into that many pixels; an empty text has none."""
    if not text:
        return []
    (extent, _), _ = cv2.getTextSize(text, _FONT, _FONT_SCALE * scale, max(1, round(3 * scale)))
    # letters are not equally wide: a line of narrow ones may be longer
    columns = max(1, int(0.9 * width * len(text) / max(1, extent)))
    return textwrap.wrap(text, columns, break_on_hyphens=False)


def contact_sheet(pictures: Sequence[tuple[str, UInt8Array]], columns: int = 3, width: int = 426) -> UInt8Array:
    """Titled RGB pictures of one size in rows, each scaled to ``width`` pixels.

    Raises:
        ValueError: There are no pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture, got none")
    tiles = []
    for title, picture in pictures:
        height = round(picture.shape[0] * width / picture.shape[1])
        tile = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        write_text(tile, title, (4, height - 6))
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)
