# SPDX-License-Identifier: Apache-2.0
"""A table with a ball and a box on it, cast by rays: depth and masks that are exact, from geometry that is known."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np

from maskrnn_ros.locator.camera import Camera

WIDTH, HEIGHT = 320, 180
FOCAL = 375.0
AXIS = (163.0, 87.0)
"""Where the optical axis meets the image; pixel (c, r) covers [c, c+1) x [r, r+1)."""
BALL_CENTRE, BALL_RADIUS = np.array([-0.09, 0.03, 0.95]), 0.045
BOX_CENTRE, BOX_HALF = np.array([0.10, -0.01, 1.05]), np.array([0.05, 0.06, 0.03])
BOX_TURN = 0.5
"""Of the box about the camera's y axis, rad."""
TABLE_NORMAL, TABLE_OFFSET = np.array([0.0, -0.8, -0.6]), -0.72
"""Points p with normal . p = offset; seen from above at a slant."""
BALL, BOX = 1, 2


@dataclasses.dataclass(frozen=True)
class View:
    """Depth float32 (H, W), metres; labels int32 (H, W): 0 is the table."""

    depth: np.ndarray
    labels: np.ndarray


def camera_info(width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL, axis=AXIS) -> SimpleNamespace:
    """What a CameraInfo of this camera says: there the centre of the first pixel is (0, 0)."""
    cx, cy = axis[0] - 0.5, axis[1] - 0.5
    return SimpleNamespace(
        width=width,
        height=height,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
        d=[0.0] * 5,
        distortion_model="plumb_bob",
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
    )


def camera() -> Camera:
    """The same for the functions."""
    return Camera(width=WIDTH, height=HEIGHT, fx=FOCAL, fy=FOCAL, cx=AXIS[0] - 0.5, cy=AXIS[1] - 0.5)


def cast(samples: int = 1) -> View:
    """The scene through samples x samples rays a pixel; one ray goes through its centre."""
    columns = (np.arange(WIDTH * samples) + 0.5) / samples
    rows = (np.arange(HEIGHT * samples) + 0.5) / samples
    x, y = np.meshgrid((columns - AXIS[0]) / FOCAL, (rows - AXIS[1]) / FOCAL)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)  # z = 1: the length along a ray is the depth
    depths = np.stack([_table(rays), _ball(rays), _box(rays)])
    labels = depths.argmin(axis=0).astype(np.int32)
    return View(depths.min(axis=0).astype(np.float32), labels)


def surface(label: int, samples: int = 8) -> np.ndarray:
    """Points (N, 3) of what can be seen of a thing, on a grid much finer than the pixels'."""
    view = cast(samples)
    rows, columns = np.nonzero(view.labels == label)
    z = view.depth[rows, columns].astype(float)
    x = ((columns + 0.5) / samples - AXIS[0]) / FOCAL * z
    y = ((rows + 0.5) / samples - AXIS[1]) / FOCAL * z
    return np.stack([x, y, z], axis=1)


def _table(rays: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        depth = TABLE_OFFSET / (rays @ TABLE_NORMAL)
    return np.where(depth > 0, np.minimum(depth, 3.0), 3.0)  # a wall behind


def _ball(rays: np.ndarray) -> np.ndarray:
    a, b = (rays**2).sum(-1), rays @ BALL_CENTRE
    root = b**2 - a * (BALL_CENTRE @ BALL_CENTRE - BALL_RADIUS**2)
    return np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def _box(rays: np.ndarray) -> np.ndarray:
    """Slabs, in the axes of the box."""
    cos, sin = np.cos(BOX_TURN), np.sin(BOX_TURN)
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (-BOX_HALF + turn.T @ BOX_CENTRE) / (rays @ turn)
        second = (BOX_HALF + turn.T @ BOX_CENTRE) / (rays @ turn)
    near, far = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.where((near < far) & (near > 0), near, np.inf)
