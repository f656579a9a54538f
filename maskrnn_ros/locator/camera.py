# SPDX-License-Identifier: Apache-2.0
"""The camera of a sensor_msgs/CameraInfo: from pixels with depth to points, in numpy and OpenCV.

Where the centre of a pixel is:

* our convention (``types``): pixel (column c, row r) covers [c, c+1) x [r, r+1), its centre is (c + 0.5, r + 0.5);
* CameraInfo, as OpenCV calibrates: pixel centres have INTEGER coordinates, the first one is (0, 0).

So a pixel (c, r) of ours goes into the matrices of a CameraInfo as u = c, v = r, and a renderer whose optical axis
meets the middle of an image of width W has cx = W/2 - 0.5 in its CameraInfo. Half a pixel is Z / (2 f), 0.8 mm at a
depth of 1 m and a focal length of 600 px.

Axes: x right, y down, z forward (REP 103, optical frames); depth is z in metres, not the length of the ray (REP 118).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

DISTORTION = ("refuse", "rectified", "undistort")
"""What is to be believed of the images where the CameraInfo alone does not say it, see ``camera_of``."""

_FEWEST = {"plumb_bob": 4, "rational_polynomial": 8, "equidistant": 4}
"""Coefficients of the distortion models that OpenCV knows; REP 104's names."""
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-6)
"""When the inversion of the distortion ends: OpenCV's five rounds are too few at the rim of a wide lens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera, perhaps behind a lens that distorts.

    Args:
        width: Columns of its images.
        height: Rows of its images.
        fx: Focal length in pixels of these images, along x.
        fy: Likewise, along y.
        cx: Column where the optical axis meets the image; the first pixel's CENTRE is 0.
        cy: Likewise, row.
        model: Name of the distortion model; empty: none.
        coefficients: Of the distortion.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = ""
    coefficients: tuple[float, ...] = ()

    def points(self, columns: npt.ArrayLike, rows: npt.ArrayLike, depth: npt.ArrayLike) -> FloatArray:
        """Points seen at the centres of pixels.

            X = (c - cx) / fx * Z,   Y = (r - cy) / fy * Z

        after the distortion is undone, where there is one.

        >>> Camera(width=4, height=4, fx=2.0, fy=2.0, cx=1.5, cy=1.5).points([3], [0], [2.0])
        array([[ 1.5, -1.5,  2. ]])

        Args:
            columns: (N,), whole numbers are pixel centres.
            rows: (N,).
            depth: (N,), along the optical axis, metres.

        Returns:
            float64 (N, 3), metres in the optical frame.
        """
        pixels = np.stack([np.asarray(columns, np.float64), np.asarray(rows, np.float64)], axis=1)
        z = np.asarray(depth, np.float64)
        return np.column_stack([self._rays(pixels) * z[:, None], z])

    def _rays(self, pixels: FloatArray) -> FloatArray:
        """X/Z and Y/Z of pixels (N, 2)."""
        if not self.model or not len(pixels):
            return (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        matrix = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        coefficients = np.array(self.coefficients)
        if self.model == "equidistant":
            rays = cv2.fisheye.undistortPoints(pixels[:, None], matrix, coefficients[:4], criteria=_CRITERIA)
        else:
            rays = cv2.undistortPointsIter(pixels[:, None], matrix, coefficients, None, None, _CRITERIA)
        return np.asarray(rays, np.float64).reshape(-1, 2)


def camera_of(info: Any, distortion: str = "refuse") -> Camera:
    """The camera of the images that a CameraInfo comes with.

    One CameraInfo serves the raw and the rectified image (REP 104): K and D belong to the raw one, P to the rectified
    one, and the message does not say which of them is meant. Where both mean the same (no distortion, P = K) there is
    nothing to ask. Otherwise ``distortion`` decides:

    * ``refuse``: raise;
    * ``rectified``: the images are rectified, P holds. Its fourth column (the other camera of a stereo pair) is
      left out: points are in the frame of this camera;
    * ``undistort``: the images are raw, K and D hold; every pixel used is undistorted.

    K and P are those of the full image; the ROI (in full pixels) is cut out first, then pixels are binned. The centre
    of a binned pixel is the middle of those it combines: cx' = (cx + 0.5) / binning - 0.5.

    Args:
        info: sensor_msgs/CameraInfo, of rclpy or rosbags.
        distortion: One of ``DISTORTION``.

    Raises:
        ValueError: The camera is not calibrated, the images may be distorted and nothing says whether they are, the
            distortion model is unknown, or an ROI of a rectified image.
    """
    if info.k[0] <= 0 or info.k[4] <= 0:
        raise ValueError(f"camera_info must be calibrated (K[0] and K[4] > 0), got {info.k[0]:g}, {info.k[4]:g}")
    raw = tuple(float(info.k[i]) for i in (0, 4, 2, 5))
    rectified = tuple(float(info.p[i]) for i in (0, 5, 2, 6))
    plain = _is_plain(info, raw, rectified)
    if distortion == "refuse" and not plain:
        raise ValueError(
            "camera_info must have no distortion (D = 0, P = K), or say what the images are: set distortion to "
            f"rectified (P holds) or undistort (K and D hold); got D = {_numbers(info.d)}, P[0] = {rectified[0]:g}, "
            f"K[0] = {raw[0]:g}"
        )
    use_p = distortion == "rectified" and not plain
    if use_p and rectified[0] <= 0:
        raise ValueError(f"camera_info must have P where distortion is rectified, got P[0] = {rectified[0]:g}")
    if use_p and _has_roi(info):
        raise ValueError("camera_info with an ROI is for raw images: expected none where distortion is rectified")
    bent = distortion == "undistort" and any(info.d)
    return _as_delivered(
        info,
        rectified if use_p else raw,
        _model(info) if bent else "",
        tuple(float(value) for value in info.d) if bent else (),
    )


def _is_plain(info: Any, raw: tuple[float, ...], rectified: tuple[float, ...]) -> bool:
    """Whether the raw and the rectified image are the same."""
    return not any(info.d) and (not any(rectified) or np.allclose(raw, rectified, rtol=1e-6))


def _has_roi(info: Any) -> bool:
    roi = info.roi
    whole = (roi.height, roi.width) in ((0, 0), (info.height, info.width))
    return not whole or bool(roi.x_offset or roi.y_offset)


def _model(info: Any) -> str:
    name = str(info.distortion_model)
    if name not in _FEWEST:
        raise ValueError(f"distortion_model must be one of {', '.join(_FEWEST)}, got {name!r}")
    if len(info.d) < _FEWEST[name]:
        raise ValueError(f"{name} must have at least {_FEWEST[name]} coefficients, got {len(info.d)}")
    return name


def _as_delivered(info: Any, values: tuple[float, ...], model: str, coefficients: tuple[float, ...]) -> Camera:
    """The camera after ROI and binning."""
    fx, fy, cx, cy = values
    roi = info.roi
    width, height = (roi.width, roi.height) if _has_roi(info) else (info.width, info.height)
    across, down = max(info.binning_x, 1), max(info.binning_y, 1)
    return Camera(
        width=width // across,
        height=height // down,
        fx=fx / across,
        fy=fy / down,
        cx=(cx - roi.x_offset + 0.5) / across - 0.5,
        cy=(cy - roi.y_offset + 0.5) / down - 0.5,
        model=model,
        coefficients=coefficients,
    )


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
