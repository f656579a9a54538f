# SPDX-License-Identifier: Apache-2.0
"""Pairs of images whose flow is known exactly: an object that moves over a background that moves, too."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array

Affine = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MovingPair:
    """Two images and the flow between them.

    Args:
        current: Frame t, RGB, uint8 (H, W, 3).
        previous: Frame t-1, likewise.
        flow: What is at p in ``current`` was at ``p + flow[:, v, u]``, float32 (2, H, W), pixels.
        visible: Where that place lies inside the image and was not hidden, bool (H, W).
    """

    current: UInt8Array
    previous: UInt8Array
    flow: Map
    visible: npt.NDArray[np.bool_]


def affine(
    size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0), degrees: float = 0.0, zoom: float = 1.0
) -> Affine:
    """How a picture moves from frame t-1 to t: turned and enlarged about the centre of (H, W), then shifted.

    Args:
        size: (H, W).
        shift: (dx, dy), pixels.
        degrees: Clockwise as seen on the screen, where y points down.
        zoom: Factor.

    Returns:
        (2, 3): ``p' = A[:, :2] p + A[:, 2]`` with p = (x, y).

    >>> affine((5, 5), shift=(3, -1)).tolist()
    [[1.0, -0.0, 3.0], [0.0, 1.0, -1.0]]
    """
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    cos, sin = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, centre - turn @ centre + shift])


def moving_pair(
    background: UInt8Array,
    motion: Affine,
    thing: UInt8Array | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    thing_motion: Affine | None = None,
) -> MovingPair:
    """Move a picture, and before it a piece of another one.

    The previous image is the pictures themselves, the current one samples them where the inverse motion says, so the
    flow is exact at every pixel; the edge of the object is hard.

    Args:
        background: RGB, uint8 (H, W, 3).
        motion: Of the background, from the previous image to the current one, (2, 3); see ``affine``.
        thing: The picture that the object is cut from, like ``background``; None for no object.
        mask: Where the object is in it, and in the previous image, bool (H, W).
        thing_motion: Of the object, not of the object relative to the background.

    Raises:
        ValueError: The pictures differ in size.
    """
    current, flow = _moved(background, motion)
    previous, visible = background, _inside(flow)
    if thing is not None and mask is not None and thing_motion is not None:
        if not background.shape == thing.shape == (*mask.shape, 3):
            raise ValueError(f"expected pictures of one size, got {background.shape}, {thing.shape}, {mask.shape}")
        picture, thing_flow = _moved(thing, thing_motion)
        now = _sampled(mask.astype(np.float32), thing_flow, cv2.BORDER_CONSTANT) >= 0.5
        was_hidden = _sampled(mask.astype(np.float32), flow, cv2.BORDER_CONSTANT) > 0
        previous = np.where(mask[..., None], thing, background)
        current = np.where(now[..., None], picture, current)
        visible = np.where(now, _inside(thing_flow), visible & ~was_hidden)
        flow = np.where(now, thing_flow, flow)
    return MovingPair(current=current, previous=previous, flow=flow, visible=visible)


def endpoint_error(flow: Map, pair: MovingPair) -> Map:
    """Distance between the end points of an estimated flow and of the true one, float32 (H, W), pixels."""
    return np.asarray(np.linalg.norm(flow - pair.flow, axis=0), np.float32)


def _moved(picture: UInt8Array, motion: Affine) -> tuple[UInt8Array, Map]:
    """The picture after the motion, and the flow back to where everything was."""
    back = cv2.invertAffineTransform(motion)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float64)
    here = np.stack([columns, rows])
    was = np.einsum("ij,jvu->ivu", back[:, :2], here) + back[:, 2, None, None]
    flow = (was - here).astype(np.float32)
    return np.asarray(_sampled(picture, flow, cv2.BORDER_REFLECT_101), np.uint8), flow


def _sampled(picture: npt.NDArray[Any], flow: Map, border: int) -> npt.NDArray[Any]:
    """The picture at p + flow, bilinear."""
    columns, rows = _places(flow)
    return np.asarray(cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=border))


def _places(flow: Map) -> tuple[Map, Map]:
    rows, columns = np.mgrid[: flow.shape[1], : flow.shape[2]].astype(np.float32)
    return columns + flow[0], rows + flow[1]


def _inside(flow: Map) -> npt.NDArray[np.bool_]:
    columns, rows = _places(flow)
    height, width = flow.shape[1:]
    return np.asarray((columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1))
