# SPDX-License-Identifier: Apache-2.0
"""Our image conversion against cv_bridge, where that is installed, over the encodings that both read.

Left out, because there is nothing to compare: cv_bridge refuses 8UC1, 8UC3, 8UC4 and 16UC1 as rgb8 and does
not know uyvy and yuyv; it misreads rows whose step is no whole number of pixels; with NumPy 2 it fails on
every big-endian message.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from maskrnn_ros.image_messages import compressed_to_rgb, fill_image, image_to_rgb, labels_from_image

messages = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed (it comes with ROS by apt)")
pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="cv_bridge has no C++ part (PyPI's leftover?)")

PIXEL_BYTES = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "mono16": 2,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "yuv422": 2,
    "yuv422_yuy2": 2,
}
LABEL_BYTES = {"mono8": 1, "8UC1": 1, "mono16": 2, "16UC1": 2, "32SC1": 4}
SIZES = [(48, 64), (47, 62), (480, 854)]

big_endian = pytest.param(
    1,
    marks=pytest.mark.skipif(
        not hasattr(np.ndarray, "newbyteorder"), reason="cv_bridge needs NumPy 1 for big-endian messages"
    ),
)


def noise(size, encoding, pixel_bytes, padding_pixels, is_bigendian):
    """Message of random bytes in all samples and in the padding."""
    height, width = size
    step = (width + padding_pixels) * pixel_bytes
    data = np.random.default_rng(5).integers(0, 256, (height, step), np.uint8)
    return messages.Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=step,
        data=array.array("B", data.tobytes()),
    )


@pytest.mark.parametrize("is_bigendian", [0, big_endian])
@pytest.mark.parametrize("padding_pixels", [0, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", PIXEL_BYTES)
def test_image_is_that_of_cv_bridge(encoding, size, padding_pixels, is_bigendian):
    msg = noise(size, encoding, PIXEL_BYTES[encoding], padding_pixels, is_bigendian)
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(msg, "rgb8")
    # where values are computed, another OpenCV behind cv_bridge may round otherwise
    tolerance = 1 if encoding.startswith(("mono16", "bayer", "yuv")) else 0
    np.testing.assert_allclose(image_to_rgb(msg).astype(int), theirs.astype(int), rtol=0, atol=tolerance)


@pytest.mark.parametrize("is_bigendian", [0, big_endian])
@pytest.mark.parametrize("padding_pixels", [0, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", LABEL_BYTES)
def test_labels_are_those_of_cv_bridge(encoding, size, padding_pixels, is_bigendian):
    msg = noise(size, encoding, LABEL_BYTES[encoding], padding_pixels, is_bigendian)
    np.testing.assert_array_equal(labels_from_image(msg), cv_bridge.CvBridge().imgmsg_to_cv2(msg))


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape"),
    [("rgb8", np.uint8, (5, 7, 3)), ("mono8", np.uint8, (5, 7)), ("mono16", np.uint16, (5, 7))],
)
def test_filled_message_is_that_of_cv_bridge(encoding, dtype, shape):
    pixels = np.random.default_rng(6).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    msg = messages.Image()
    fill_image(msg, pixels, encoding)
    assert msg == cv_bridge.CvBridge().cv2_to_imgmsg(pixels, encoding)


@pytest.mark.parametrize("codec", ["jpg", "png"])
def test_compressed_image_is_that_of_cv_bridge(codec):
    bridge = cv_bridge.CvBridge()
    smooth = cv2.resize(np.random.default_rng(7).integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
    msg = bridge.cv2_to_compressed_imgmsg(smooth, codec)
    np.testing.assert_array_equal(compressed_to_rgb(msg), bridge.compressed_imgmsg_to_cv2(msg, "rgb8"))
