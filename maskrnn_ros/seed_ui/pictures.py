# SPDX-License-Identifier: Apache-2.0
"""What the page is sent: pictures as JPEG, masks as run lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from maskrnn_ros.masks import MaskEncoding, decode, encode
from maskrnn_ros.overlay import colour, draw_box, overlay_labels
from maskrnn_ros.types import BoolArray, Box, LabelArray, UInt8Array

_QUALITY = 80
_QUALITY_FULL = 92


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """The instances of one image.

    Args:
        labels: Ids, int32 (H, W); all 0 where the tracker sends no masks.
        titles: By id, for the picture.
        boxes: By id, of those that are seen.
    """

    labels: LabelArray
    titles: dict[int, str]
    boxes: dict[int, Box]

    def without(self, instance_id: int) -> Scene:
        """All but one."""
        boxes = {i: box for i, box in self.boxes.items() if i != instance_id}
        labels: LabelArray = np.where(self.labels == instance_id, 0, self.labels).astype(np.int32)
        return Scene(labels=labels, titles=self.titles, boxes=boxes)


def picture(image: UInt8Array, scene: Scene | None, width: int = 0) -> bytes:
    """A JPEG.

    Args:
        image: RGB, uint8 (H, W, 3).
        scene: Masks, boxes and names to draw over it.
        width: Largest width, pixels; 0: that of the image, at a better quality.
    """
    scale = min(1.0, width / image.shape[1]) if width else 1.0
    if scale < 1.0:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if scene is not None:
        image = _drawn(image, scene, scale)
    quality = _QUALITY if width else _QUALITY_FULL
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"OpenCV cannot write a JPEG of shape {image.shape}")
    return bytes(data.tobytes())


def _drawn(image: UInt8Array, scene: Scene, scale: float) -> UInt8Array:
    height, width = image.shape[:2]
    labels = scene.labels
    if labels.shape != (height, width):
        labels = np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), np.int32)
    canvas = overlay_labels(image, labels)
    for instance_id, box in scene.boxes.items():
        edges = (round(box.x0 * scale), round(box.y0 * scale), round(box.x1 * scale), round(box.y1 * scale))
        draw_box(canvas, edges, scene.titles.get(instance_id, str(instance_id)), colour(instance_id))
    return canvas


def runs_of(mask: BoolArray) -> list[int]:
    """Run lengths of bool (H, W), row by row, zeros first: ``MaskEncoding.RLE`` as numbers."""
    runs: list[int] = np.frombuffer(encode(mask, None, MaskEncoding.RLE), "<u4").tolist()
    return runs


def mask_of(runs: Sequence[int], height: int, width: int) -> BoolArray:
    """The mask of run lengths, bool (height, width).

    Raises:
        ValueError: They are no run lengths, or do not sum to height * width.
    """
    whole = isinstance(runs, list) and all(type(run) is int and 0 <= run <= height * width for run in runs)
    if not whole or len(runs) > height * width + 1:
        raise ValueError(f"runs must be numbers of 0..{height * width} pixels")
    return decode(np.asarray(runs, "<u4").tobytes(), height, width, MaskEncoding.RLE)
