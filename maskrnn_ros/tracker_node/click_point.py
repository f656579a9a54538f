# SPDX-License-Identifier: Apache-2.0
"""Points of the world that were clicked, to pixels of the camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.time import Time

from maskrnn_ros.ros.optional import optional

Vector = npt.NDArray[np.float64]
_DISTORTIONS = ("", "plumb_bob", "rational_polynomial", "equidistant")


def project(point: Vector, info: Any, size: tuple[int, int]) -> tuple[float, float]:
    """Where the camera sees a point: (x, y) in pixels, the first pixel's centre at 0.5.

    Args:
        point: (x, y, z) in the camera's optical frame, metres: z forward, x right, y down.
        info: sensor_msgs/CameraInfo of the image, with K and D: those of the image as the camera gives it.
        size: (H, W) of the image.

    Raises:
        ValueError: The point is not in front of the camera, or the camera's matrix or distortion is missing, unknown
            or of another image size.
    """
    if (info.height, info.width) != size:
        raise ValueError(f"camera_info must be of {size[1]}x{size[0]} pixels, got {info.width}x{info.height}")
    matrix = np.asarray(info.k, np.float64).reshape(3, 3)
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ValueError("camera_info must hold a calibrated k, got focal lengths of 0")
    if info.distortion_model not in _DISTORTIONS:
        known = ", ".join(_DISTORTIONS[1:])
        raise ValueError(f"distortion_model must be one of {known}, got {info.distortion_model!r}")
    if not np.isfinite(point).all() or point[2] <= 0:
        raise ValueError(f"a point must be in front of the camera (z > 0), got {_text(point)}")
    distortion = np.asarray(info.d, np.float64)
    still = np.zeros(3)
    if info.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(point[None, None], still, still, matrix, distortion)
    else:
        pixels, _ = cv2.projectPoints(point[None, None], still, still, matrix, distortion if distortion.size else None)
    x, y = pixels.ravel().tolist()
    return x + 0.5, y + 0.5  # calibration has the first pixel's centre at 0


class Frames:
    """The transforms between frames, as far as tf2_ros is installed; they are listened to while it lives.

    Args:
        node: An rclpy node that is spun.
    """

    def __init__(self, node: Any) -> None:
        self._tf2 = optional("tf2_ros")
        if self._tf2 is not None:
            self._buffer = self._tf2.Buffer()
            self._listener = self._tf2.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Listen no more."""
        if self._tf2 is not None:
            self._listener.unregister()

    def transformed(self, point: Vector, source: str, target: str) -> Vector:
        """A point of frame ``source`` in frame ``target``, by the newest transform that is known.

        Raises:
            ValueError: There is no tf2_ros, or no such transform.
        """
        if self._tf2 is None:
            raise ValueError(f"a point in frame {source!r} needs tf2_ros, which is not installed; expected {target!r}")
        try:
            transform = self._buffer.lookup_transform(target, source, Time()).transform
        except self._tf2.TransformException as error:
            raise ValueError(f"no transform from {source!r} to {target!r}: {' '.join(str(error).split())}") from error
        q, t = transform.rotation, transform.translation
        moved: Vector = rotated(point, (q.x, q.y, q.z, q.w)) + np.array([t.x, t.y, t.z])
        return moved


def rotated(point: Vector, quaternion: tuple[float, float, float, float]) -> Vector:
    """The point turned by a unit quaternion (x, y, z, w)."""
    axis, w = np.array(quaternion[:3]), quaternion[3]
    turned: Vector = point + 2 * np.cross(axis, np.cross(axis, point) + w * point)
    return turned


def _text(point: Vector) -> str:
    return "(" + ", ".join(f"{value:g}" for value in point) + ")"
