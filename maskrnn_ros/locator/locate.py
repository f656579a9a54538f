# SPDX-License-Identifier: Apache-2.0
"""Where an instance is in space: its mask, a depth image and a camera to points and their statistics. No ROS."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.locator.camera import DISTORTION, Camera, FloatArray
from maskrnn_ros.sections import time_jump_images, time_jump_s
from maskrnn_ros.setting import Checked, setting
from maskrnn_ros.types import BoolArray

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocatorConfig(Checked):
    """The settings of the node ``locator``; all take effect at its start."""

    sync: str = setting(
        "exact",
        "exact: masks, depth and camera_info must have the same stamp; approximate: stamps may differ by up to slop.",
        choices=("exact", "approximate"),
    )
    slop: float = setting(0.02, "With approximate: maximum difference of stamps, seconds.", low=1e-6, high=10.0)
    queue_size: int = setting(
        30,
        "Messages of each topic that wait for their counterparts: at least the delay of the masks times "
        "the rate of the depth images.",
        low=1,
        high=10000,
    )
    time_jump_s: float = time_jump_s()
    time_jump_images: int = time_jump_images()
    reliability: str = setting(
        "auto",
        "QoS reliability of the subscriptions. auto: reliable if all publishers are, else best effort.",
        choices=("auto", "reliable", "best_effort"),
    )
    depth_unit: float = setting(0.001, "Meters per unit of 16UC1 depth; 32FC1 is in meters.", low=1e-6, high=1.0)
    depth_min: float = setting(0.05, "Smaller depths count as missing, meters.", low=1e-3, high=1000.0)
    depth_max: float = setting(20.0, "Larger depths count as missing, meters.", low=1e-3, high=1000.0)
    erosion: int = setting(
        1,
        "Width of the border of the mask that is ignored, pixels: depth there mixes with the background.",
        low=0,
        high=100,
    )
    outlier_deviations: float = setting(
        4.0,
        "Points further from the median depth than this many robust standard deviations (1.4826 times the "
        "median absolute deviation) are dropped; 0 keeps all.",
        low=0.0,
        high=1000.0,
    )
    outlier_floor: float = setting(
        0.02, "Points nearer to the median depth than this are always kept, meters.", low=0.0, high=10.0
    )
    extent_percentile: float = setting(
        0.5, "The extent runs from this percentile of the points to 100 minus it, per axis.", low=0.0, high=49.0
    )
    min_points: int = setting(10, "Minimum number of points for a position.", low=2, high=1000000)
    distortion: str = setting(
        "refuse",
        "If camera_info has distortion. refuse: refuse it; rectified: the images are rectified, use P; "
        "undistort: they are raw, use K and D.",
        choices=DISTORTION,
    )
    same_frame: bool = setting(
        True, "Refuse depth whose frame_id differs from that of the masks: it is not registered to the image."
    )
    status_period: float = setting(1.0, "Period of /diagnostics, seconds.", low=0.05, high=60.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_min >= self.depth_max:
            raise ValueError(f"depth_min must be < depth_max, got {self.depth_min:g} and {self.depth_max:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """What the depth under a mask says; metres, in the camera's optical frame, of the visible surface.

    Args:
        area: Pixels in the mask.
        depth_pixels: Of those, away from the border and with a valid depth.
        points: float64 (N, 3), those of them that are kept.
        depth: Median z; NaN, like all below, without a position.
        centroid: float64 (3,), mean of the points.
        extent: float64 (2, 3): smallest and largest corner of the axis-aligned box, without the outermost percentiles.
        covariance: float64 (3, 3), of the points, m^2.
        reason: Why there is no position; empty where there is one.
    """

    area: int
    depth_pixels: int
    points: FloatArray
    depth: float
    centroid: FloatArray
    extent: FloatArray
    covariance: FloatArray
    reason: str = ""

    @property
    def inlier_share(self) -> float:
        """Share of the depth pixels that are kept; NaN where there are none."""
        return len(self.points) / self.depth_pixels if self.depth_pixels else float("nan")


def locate(
    mask: BoolArray, x: int, y: int, depth: npt.NDArray[np.float32], camera: Camera, config: LocatorConfig
) -> Position:
    """Position of the instance under a mask.

    Args:
        mask: bool (h, w), the crop.
        x: First column of the crop in the image.
        y: First row of the crop in the image.
        depth: float32 (H, W), metres along the optical axis; 0, NaN and infinite: missing.
        camera: Of the depth image.
        config: Limits.

    Raises:
        ValueError: Depth and camera are not of one size, or the crop does not lie inside.
    """
    height, width = depth.shape
    if (camera.height, camera.width) != (height, width):
        raise ValueError(f"depth must have the camera's size {camera.width} x {camera.height}, got {width} x {height}")
    rows, columns = mask.shape
    if x < 0 or y < 0 or x + columns > width or y + rows > height:
        raise ValueError(f"crop {columns} x {rows} at ({x}, {y}) must lie inside {width} x {height}")
    area = int(np.count_nonzero(mask))
    if not area:
        return unlocated("the mask is empty")
    inner = eroded(mask, config.erosion, at_border=(y == 0, y + rows == height, x == 0, x + columns == width))
    under = depth[y : y + rows, x : x + columns]
    valid = inner & (under >= config.depth_min) & (under <= config.depth_max)  # NaN compares false
    v, u = np.nonzero(valid)
    z = under[v, u].astype(np.float64)
    kept = inliers(z, config.outlier_deviations, config.outlier_floor)
    count = int(np.count_nonzero(kept))
    if count < config.min_points:
        inside = int(np.count_nonzero(inner))
        reason = f"{count} points, expected at least {config.min_points}: of {area} pixels {inside} lie away from the "
        return unlocated(f"{reason}border, {len(z)} of them have depth", area=area, depth_pixels=len(z))
    points = camera.points(u[kept] + x, v[kept] + y, z[kept])
    low = config.extent_percentile
    return Position(
        area=area,
        depth_pixels=len(z),
        points=points,
        depth=float(np.median(points[:, 2])),
        centroid=points.mean(axis=0),
        extent=np.percentile(points, [low, 100 - low], axis=0),
        covariance=np.cov(points, rowvar=False),
    )


def unlocated(reason: str, area: int = 0, depth_pixels: int = 0) -> Position:
    """No position, and why."""
    return Position(
        area=area,
        depth_pixels=depth_pixels,
        points=np.zeros((0, 3)),
        depth=float("nan"),
        centroid=np.full(3, np.nan),
        extent=np.full((2, 3), np.nan),
        covariance=np.full((3, 3), np.nan),
        reason=reason,
    )


def eroded(mask: BoolArray, radius: int, at_border: tuple[bool, bool, bool, bool]) -> BoolArray:
    """The pixels of a crop whose neighbours up to ``radius`` rows and columns away are all in the mask.

    Outside the image there is nothing that depth could mix with, so its border does not erode.

    Args:
        mask: bool (h, w).
        radius: Pixels; 0 keeps the mask.
        at_border: Whether the crop's top, bottom, left and right side is the image's.
    """
    if not radius:
        return mask
    top, bottom, left, right = (0 if edge else radius for edge in at_border)
    padded = cv2.copyMakeBorder(mask.view(np.uint8), top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    # OpenCV's own border lets a pixel live, as wanted at the border of the image
    small = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=radius)
    return np.ascontiguousarray(small[top : top + mask.shape[0], left : left + mask.shape[1]]).view(np.bool_)


def inliers(depth: FloatArray, deviations: float, floor: float) -> BoolArray:
    """Which depths (N,) are near their median, in robust standard deviations or in metres.

    The floor keeps a flat surface whole: most of its quantized depths are equal, and their deviation is 0.
    """
    if not deviations or not depth.size:
        return np.ones(depth.shape, np.bool_)
    away = np.abs(depth - np.median(depth))
    near: BoolArray = away <= max(deviations * _MAD_TO_SIGMA * float(np.median(away)), floor)
    return near
