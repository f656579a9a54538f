# SPDX-License-Identifier: Apache-2.0
"""Positions against geometry that is known: solids cast by rays, OpenCV's projection, brute force."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import solid_world as solids
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrnn_ros.locator.camera import Camera, camera_of
from maskrnn_ros.locator.locate import LocatorConfig, eroded, inliers, locate

EXACT = LocatorConfig(erosion=0, outlier_deviations=0.0, extent_percentile=0.0)
MM = 1e-3
LENSES = {
    "plumb_bob": (-0.28, 0.09, 0.0008, -0.0006, -0.01),
    "rational_polynomial": (0.6, -2.4, 0.0005, -0.0003, 1.4, 0.5, -2.2, 1.3),
    "equidistant": (0.02, -0.01, 0.004, -0.001),
}


def whole_mm(depth):
    return (np.round(depth * 1000) / 1000).astype(np.float32)


def located(label, depth, config, mask=None):
    mask = solids.cast().labels == label if mask is None else mask
    return locate(mask, 0, 0, depth, solids.camera(), config)


# --- camera ---


def test_points_of_a_ball_lie_on_the_ball():
    points = located(solids.BALL, solids.cast().depth, EXACT).points
    assert len(points) > 900
    away = np.abs(np.linalg.norm(points - solids.BALL_CENTRE, axis=1) - solids.BALL_RADIUS)
    assert away.max() < 0.002 * MM  # float32


def test_half_a_pixel_would_show():
    info = solids.camera_info()
    info.k[2] += 0.5  # as if the first pixel's centre were (0.5, 0.5) in a CameraInfo
    info.p[2] += 0.5
    view = solids.cast()
    points = locate(view.labels == solids.BALL, 0, 0, view.depth, camera_of(info), EXACT).points
    away = np.abs(np.linalg.norm(points - solids.BALL_CENTRE, axis=1) - solids.BALL_RADIUS)
    assert away.max() > 0.5 * MM


def test_a_camera_info_gives_its_camera():
    assert camera_of(solids.camera_info()) == solids.camera()


@pytest.mark.parametrize("model", LENSES)
def test_undistorted_points_project_onto_their_pixels(model):
    info = solids.camera_info()
    info.distortion_model, info.d = model, list(LENSES[model])
    columns, rows = (grid.ravel() for grid in np.meshgrid(np.arange(0, 320, 20), np.arange(0, 180, 20)))
    depth = np.linspace(0.4, 3.0, len(rows))
    points = camera_of(info, "undistort").points(columns, rows, depth)
    assert np.array_equal(points[:, 2], depth)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    matrix, none = np.reshape(info.k, (3, 3)), np.zeros(3)
    pixels, _ = project(points[:, None], none, none, matrix, np.array(info.d))
    pixels = pixels.reshape(-1, 2)
    assert np.abs(pixels - np.stack([columns, rows], axis=1)).max() < 1e-3
    assert np.abs(points - solids.camera().points(columns, rows, depth)).max() > 5 * MM, "the lens does something"


def test_distortion_is_refused_until_somebody_says_what_the_images_are():
    info = solids.camera_info()
    info.d = [-0.2, 0.05, 0.0, 0.0, 0.0]
    info.p[0], info.p[5], info.p[2] = 350.0, 351.0, 150.0
    info.p[3] = -35.0  # the right camera of a stereo pair
    with pytest.raises(ValueError, match="set distortion to rectified .* or undistort"):
        camera_of(info)
    rectified = camera_of(info, "rectified")
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.model) == (350.0, 351.0, 150.0, "")
    assert camera_of(info, "undistort").model == "plumb_bob"


def test_a_rectification_without_distortion_is_refused_too():
    info = solids.camera_info()
    info.p[0] = 350.0
    with pytest.raises(ValueError, match="set distortion"):
        camera_of(info)
    assert camera_of(info, "undistort") == solids.camera()


def test_a_camera_info_without_p_is_that_of_the_raw_image():
    info = solids.camera_info()
    info.p = [0.0] * 12
    assert camera_of(info) == solids.camera()
    info.d = [0.1, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"must have P .* got P\[0\] = 0"):
        camera_of(info, "rectified")


def test_binning_and_roi_look_along_the_middle_of_the_pixels_that_they_combine():
    whole, info = solids.camera(), solids.camera_info()
    info.roi = SimpleNamespace(x_offset=40, y_offset=30, width=120, height=90, do_rectify=False)
    info.binning_x, info.binning_y = 2, 3
    camera = camera_of(info)
    assert (camera.width, camera.height) == (60, 30)
    for column, row in ((0, 0), (59, 29), (7, 3)):
        combined = [(40 + 2 * column + i, 30 + 3 * row + j) for i in range(2) for j in range(3)]
        expected = whole.points(*np.transpose(combined), np.ones(6)).mean(axis=0)
        assert np.allclose(camera.points([column], [row], [1.0])[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "distortion", "message"),
    [
        ({"k": [0.0] * 9}, "refuse", "must be calibrated"),
        ({"d": [0.1] * 5, "distortion_model": "spline"}, "undistort", "distortion_model must be one of .* 'spline'"),
        ({"d": [0.1] * 5, "distortion_model": "rational_polynomial"}, "undistort", "at least 8 coefficients, got 5"),
        ({"d": [0.1], "binning": 0, "roi": (0, 0, 100, 80)}, "rectified", "ROI is for raw images"),
    ],
)
def test_a_camera_that_cannot_be_used_is_refused(change, distortion, message):
    info = solids.camera_info()
    for name, value in change.items():
        if name == "roi":
            value = SimpleNamespace(x_offset=value[0], y_offset=value[1], width=value[2], height=value[3])
        setattr(info, name, value)
    with pytest.raises(ValueError, match=message):
        camera_of(info, distortion)


# --- statistics ---


def test_a_plate_has_the_moments_of_a_rectangle():
    """Square to the axis, 40 x 20 pixels at 0.8 m: 3 mm apart, so 120 x 60 mm."""
    camera = Camera(width=100, height=80, fx=800 / 3, fy=800 / 3, cx=49.5, cy=39.5)
    mask = np.zeros((80, 100), bool)
    mask[10:30, 50:90] = True
    found = locate(mask, 0, 0, np.full((80, 100), 0.8, np.float32), camera, EXACT)
    assert np.allclose(found.centroid, [0.060, -0.060, 0.8], atol=1e-6)  # the middle of pixels 50..89 is 69.5
    assert np.allclose(np.ptp(found.extent, axis=0), [39 * 0.003, 19 * 0.003, 0], atol=1e-6)
    variances = [(40**2 - 1) / 12 * 0.003**2, (20**2 - 1) / 12 * 0.003**2, 0]  # of equal steps
    assert np.allclose(found.covariance, np.diag(variances) * 800 / 799, atol=1e-9)
    assert (found.area, found.depth_pixels, len(found.points), found.inlier_share) == (800, 800, 800, 1.0)
    assert found.depth == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("label", "config", "centroid_mm", "depth_mm", "side_mm"),
    [  # 2.5 to 2.8 mm a pixel; what erosion costs is the rim, which is the furthest part of a ball
        (solids.BALL, EXACT, 0.3, 0.5, 8.5),
        (solids.BOX, EXACT, 0.7, 0.5, 5.5),
        (solids.BALL, LocatorConfig(erosion=1), 3.0, 3.0, 20.0),
        (solids.BOX, LocatorConfig(erosion=1), 3.0, 3.0, 20.0),
        (solids.BALL, LocatorConfig(erosion=2), 6.0, 6.0, 30.0),
        (solids.BOX, LocatorConfig(erosion=2), 6.0, 6.0, 30.0),
    ],
)
def test_errors_on_a_tabletop_in_whole_mm(label, config, centroid_mm, depth_mm, side_mm):
    truth = solids.surface(label)
    found = located(label, whole_mm(solids.cast().depth), config)
    assert np.linalg.norm(found.centroid - truth.mean(axis=0)) < centroid_mm * MM
    assert abs(found.depth - np.median(truth[:, 2])) < depth_mm * MM
    assert np.abs(np.ptp(found.extent, axis=0) - np.ptp(truth, axis=0)).max() < side_mm * MM


def test_erosion_leaves_out_pixels_that_mix_with_the_background():
    view = solids.cast()
    mixed = cv2.blur(view.depth, (3, 3))  # as a sensor does
    on_ball = [
        np.abs(np.linalg.norm(located(solids.BALL, mixed, config).points - solids.BALL_CENTRE, axis=1) - 0.045).max()
        for config in (LocatorConfig(erosion=0, outlier_deviations=0.0), LocatorConfig(erosion=2))
    ]
    assert on_ball[0] > 30 * MM
    assert on_ball[1] < 2 * MM


def test_a_mask_that_spills_over_is_cut_by_the_outliers():
    view = solids.cast()
    mask = view.labels == solids.BOX
    truth = located(solids.BOX, view.depth, EXACT)
    mask[50:61, 178:219] = True  # a fifth of it: the table behind
    spilled = located(solids.BOX, view.depth, EXACT, mask)
    cut = located(solids.BOX, view.depth, LocatorConfig(erosion=0, extent_percentile=0.0), mask)
    assert np.linalg.norm(spilled.centroid - truth.centroid) > 20 * MM
    assert np.linalg.norm(cut.centroid - truth.centroid) < 1 * MM
    assert 0.75 < cut.inlier_share < 0.9
    assert spilled.inlier_share == 1.0


def test_missing_depth_is_left_out():
    view = solids.cast()
    depth = view.depth.copy()
    rows, columns = np.nonzero(view.labels == solids.BALL)
    for i, value in enumerate((0.0, np.nan, np.inf, -np.inf, -1.0, 0.01, 99.0)):
        depth[rows[i::14], columns[i::14]] = value
    whole, found = (located(solids.BALL, each, EXACT) for each in (view.depth, depth))
    assert whole.depth_pixels == whole.area == found.area
    lost = sum(len(rows[i::14]) for i in range(7))
    assert found.depth_pixels == len(found.points) == whole.area - lost
    assert np.isfinite(found.points).all()
    assert np.linalg.norm(found.centroid - whole.centroid) < 1 * MM


def test_a_flat_surface_in_whole_mm_is_kept_although_most_depths_are_equal():
    depth = np.full(1000, 0.8)
    depth[:100] += 0.001
    assert not np.median(np.abs(depth - np.median(depth)))
    assert inliers(depth, 4.0, 0.02).all()
    assert inliers(depth, 4.0, 0.0).sum() == 900
    depth[0] = 0.83
    assert inliers(depth, 4.0, 0.02).sum() == 999
    assert inliers(depth, 0.0, 0.02).all()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.tuples(*[st.booleans()] * 4))
def test_erosion_is_that_of_brute_force(seed, radius, at_border):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 12, 2)) < 0.9
    rows, columns = mask.shape
    top, bottom, left, right = at_border
    expected = np.zeros_like(mask)
    for row in range(rows):
        for column in range(columns):
            alive = True
            for r in range(row - radius, row + radius + 1):
                for c in range(column - radius, column + radius + 1):
                    outside = (r < 0 and top) or (r >= rows and bottom) or (c < 0 and left) or (c >= columns and right)
                    inside = 0 <= r < rows and 0 <= c < columns and mask[r, c]
                    alive = alive and bool(outside or inside)
            expected[row, column] = alive
    assert np.array_equal(eroded(mask, radius, at_border), expected)


def test_a_crop_gives_what_the_whole_mask_gives():
    view = solids.cast()
    mask = view.labels == solids.BALL
    whole = located(solids.BALL, view.depth, LocatorConfig())
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    crop = mask[top : rows.max() + 1, left : columns.max() + 1]
    found = locate(crop, int(left), int(top), view.depth, solids.camera(), LocatorConfig())
    assert np.array_equal(found.points, whole.points)


def test_no_position_says_why():
    depth = solids.cast().depth
    empty = locate(np.zeros((0, 0), bool), 0, 0, depth, solids.camera(), LocatorConfig())
    assert (empty.area, len(empty.points), empty.reason) == (0, 0, "the mask is empty")
    thin = np.zeros(depth.shape, bool)
    thin[50:53, 10:200] = True
    found = locate(thin, 0, 0, depth, solids.camera(), LocatorConfig(erosion=2))
    assert "0 points, expected at least 10: of 570 pixels 0 lie away from the border" in found.reason
    assert np.isnan([found.depth, *found.centroid, *found.extent.ravel(), *found.covariance.ravel()]).all()
    assert np.isnan(found.inlier_share)
    blind = located(solids.BALL, np.zeros_like(depth), LocatorConfig(erosion=0))
    assert "0 of them have depth" in blind.reason
    assert blind.area > 900


def test_sizes_that_differ_are_refused():
    view = solids.cast()
    with pytest.raises(ValueError, match="camera's size 320 x 180, got 320 x 179"):
        locate(view.labels[:-1] == 1, 0, 0, view.depth[:-1], solids.camera(), LocatorConfig())
    with pytest.raises(ValueError, match=r"crop 320 x 180 at \(1, 0\) must lie inside 320 x 180"):
        locate(view.labels == 1, 1, 0, view.depth, solids.camera(), LocatorConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sync": "nearest"}, "sync must be one of exact, approximate"),
        ({"erosion": -1}, "erosion must be >= 0"),
        ({"depth_min": 2.0, "depth_max": 1.0}, "depth_min must be < depth_max, got 2 and 1"),
        ({"distortion": "ignore"}, "distortion must be one of refuse, rectified, undistort"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LocatorConfig(**values)
