# SPDX-License-Identifier: Apache-2.0
"""Points of the world to pixels, boxes of detections, and the plane of the image."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("sensor_msgs", reason="needs sensor_msgs")

from sensor_msgs.msg import CameraInfo  # noqa: E402

from maskrnn_ros.ros.image_plane import to_pixel, to_plane  # noqa: E402
from maskrnn_ros.ros.optional import optional  # noqa: E402
from maskrnn_ros.tracker_node.click_point import project, rotated  # noqa: E402
from maskrnn_ros.tracker_node.detections import box_and_class  # noqa: E402
from maskrnn_ros.types import Box  # noqa: E402

SIZE = (480, 640)
MATRIX = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
POINT = np.array([0.4, -0.2, 2.0])


def info(model: str = "", d: tuple[float, ...] = (), **fields: Any) -> CameraInfo:
    return CameraInfo(**{"width": 640, "height": 480, "k": MATRIX, "d": list(d), "distortion_model": model, **fields})


def test_without_distortion_it_is_the_pinhole() -> None:
    expected = (500 * 0.2 + 320 + 0.5, 510 * -0.1 + 240 + 0.5)  # calibration counts from the first pixel's centre
    assert project(POINT, info(), SIZE) == pytest.approx(expected)
    assert project(POINT, info("plumb_bob", (0.0,) * 5), SIZE) == pytest.approx(expected)


def test_distortion_is_that_of_its_model() -> None:
    x, y = 0.2, -0.1
    r2 = x * x + y * y
    k1, k2, p1, p2, k3 = 0.1, -0.05, 0.01, -0.02, 0.003
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    found = project(POINT, info("plumb_bob", (k1, k2, p1, p2, k3)), SIZE)
    assert found == pytest.approx((500 * xd + 320.5, 510 * yd + 240.5))
    angle = math.atan(math.sqrt(r2))
    scale = angle * (1 + 0.1 * angle**2) / math.sqrt(r2)
    found = project(POINT, info("equidistant", (0.1, 0.0, 0.0, 0.0)), SIZE)
    assert found == pytest.approx((500 * x * scale + 320.5, 510 * y * scale + 240.5))


@pytest.mark.parametrize(
    ("point", "camera", "message"),
    [
        (POINT, info(width=320), "camera_info must be of 640x480 pixels, got 320x480"),
        (POINT, info(k=[0.0] * 9), "a calibrated k, got focal lengths of 0"),
        (POINT, info("thin_prism"), "must be one of plumb_bob, rational_polynomial, equidistant, got 'thin_prism'"),
        (-POINT, info(), r"in front of the camera .z > 0., got \(-0.4, 0.2, -2\)"),
        (POINT * np.nan, info(), "in front of the camera"),
    ],
)
def test_what_cannot_be_projected_is_refused(point: np.ndarray, camera: CameraInfo, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project(point, camera, SIZE)


def test_quaternions_turn_counterclockwise() -> None:
    half = math.sqrt(0.5)
    np.testing.assert_allclose(rotated(np.array([1.0, 2, 3]), (0, 0, half, half)), [-2, 1, 3])
    np.testing.assert_allclose(rotated(np.array([1.0, 2, 3]), (half, 0, 0, half)), [1, -3, 2])
    np.testing.assert_allclose(rotated(np.array([1.0, 2, 3]), (0, half, 0, half)), [3, 2, -1])


def test_the_plane_of_the_image_is_upright_and_fits_one_metre_by_three_quarters() -> None:
    for size, corner in (
        ((480, 640), (1.0, -0.75)),
        ((720, 1280), (1.0, -0.5625)),
        ((1280, 720), (0.421875, -0.75)),
        ((500, 500), (0.75, -0.75)),
    ):
        height, width = size
        assert to_plane(0.0, 0.0, size) == (0.0, 0.0)
        assert to_plane(float(width), float(height), size) == pytest.approx(corner)
        columns, rows = np.array([0.0, 100.5]), np.array([3.0, 9.25])
        x, y = to_plane(columns, rows, size)
        assert (y < 0).all()
        np.testing.assert_allclose(to_pixel(x, y, size), (columns, rows))
        assert x[1] / columns[1] == pytest.approx(-y[1] / rows[1])  # nothing is stretched


def detection(
    *scores: tuple[str, float], x: float = 50, y: float = 40, width: float = 20, height: float = 10, theta=0.0
):
    hypotheses = [SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score)) for name, score in scores]
    centre = SimpleNamespace(position=SimpleNamespace(x=float(x), y=float(y)), theta=theta)
    return SimpleNamespace(results=hypotheses, bbox=SimpleNamespace(center=centre, size_x=width, size_y=height))


def test_a_detection_is_its_box_and_its_best_class() -> None:
    assert box_and_class(detection(("cup", 0.4), ("can", 0.6)), 0.5) == (Box(40, 35, 60, 45), "can")
    assert box_and_class(detection(("cup", 0.4)), 0.5) is None
    assert box_and_class(detection(("cup", float("nan"))), 0.0) is None
    assert box_and_class(detection(), 0.5) == (Box(40, 35, 60, 45), "")
    assert box_and_class(detection(theta=math.pi / 2), 0.5) == (Box(45, 30, 55, 50), "")
    assert box_and_class(detection(width=0.2, height=0.2, x=7.3, y=7.3), 0.5) == (Box(7, 7, 8, 8), "")


@pytest.mark.parametrize("wrong", [{"width": 0}, {"height": -3}, {"x": math.nan}, {"width": math.inf}])
def test_a_box_without_a_pixel_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a box must be finite and hold a pixel, got centre"):
        box_and_class(detection(**wrong), 0.5)


def test_a_package_that_is_not_there_is_none_and_a_broken_one_is_not_hidden(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_package_of_ours.py").write_text("import absent_package_of_ours")
    monkeypatch.syspath_prepend(tmp_path)
    assert optional("absent_package_of_ours.msg") is None
    with pytest.raises(ModuleNotFoundError, match="absent_package_of_ours"):
        optional("broken_package_of_ours")
