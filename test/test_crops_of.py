# SPDX-License-Identifier: Apache-2.0
"""Crops by OpenCV beside RoiAlign, which the networks were trained with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskrnn_ros.model.crops import crops_of

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")


# inside, over each of the four edges, around all, far outside, smaller than a cell
BOXES = np.array(
    [
        [30.0, 20.0, 61.5, 51.5],
        [-20.3, 10.0, 40.0, 70.3],
        [60.0, -31.7, 111.7, 20.0],
        [100.0, 40.0, 150.0, 90.0],
        [-40.0, -60.0, 160.0, 140.0],
        [300.0, 300.0, 364.0, 364.0],
        [50.2, 30.1, 52.0, 31.9],
    ],
    np.float32,
)


@pytest.mark.parametrize(("channels", "stride", "cells"), [(48, 4, 64), (3, 1, 128), (1, 8, 32)])
def test_crops_are_those_of_roi_align(channels: int, stride: int, cells: int) -> None:
    random = np.random.default_rng(0)
    map_ = cv2.GaussianBlur(random.random((20, 30, channels), np.float32), (0, 0), 1.0).reshape(20, 30, channels)
    boxes = BOXES * stride / 4
    found = crops_of(map_, boxes, cells, stride, 0)
    rois = torch.from_numpy(np.concatenate([np.zeros((len(boxes), 1), np.float32), boxes], axis=1))
    planes = torch.from_numpy(map_).permute(2, 0, 1)[None].contiguous()
    expected = torch.ops.torchvision.roi_align(planes, rois, 1 / stride, cells, cells, 1, True).permute(0, 2, 3, 1)
    assert found.shape == (len(boxes), cells, cells, channels) and found.dtype == np.float32
    slope = max(float(np.abs(np.diff(map_, axis=axis)).max()) for axis in (0, 1))
    assert np.abs(found - expected.numpy()).max() <= slope / 16 + 1e-6  # 1/64 of a cell off in each direction
    assert (found[5] == 0).all() and (expected[5] == 0).all() and found[4].any()


def test_bytes_stay_bytes_and_what_is_beyond_is_said() -> None:
    image = np.full((20, 30, 3), 200, np.uint8)
    found = crops_of(image, BOXES, 16, 1, 127)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {127, 200}
    assert (found[5] == 127).all() and (found[1, :, 0] == 127).all() and (found[3, -1] == 127).all()


def test_crops_go_where_they_are_wanted() -> None:
    map_ = np.random.default_rng(0).random((20, 30, 48), np.float32)
    out = np.full((3, 64, 64, 48), np.nan, np.float32)
    assert crops_of(map_, BOXES[:2], 64, 4, 0, out[1:]).base is not None
    assert np.isnan(out[0]).all() and np.array_equal(out[1:], crops_of(map_, BOXES[:2], 64, 4, 0))
    alone = crops_of(map_, BOXES[1:2], 64, 4, 0)
    assert np.array_equal(alone[0], out[2])


def test_there_may_be_more_crops_than_opencv_maps_at_once() -> None:
    map_ = np.random.default_rng(0).random((20, 30, 3), np.float32)
    boxes = np.repeat(BOXES[:4], 80, axis=0)  # 320 of 128 rows
    found = crops_of(map_, boxes, 128, 1, 0)
    assert all(np.array_equal(found[80 * k : 80 * k + 80], found[80 * k : 80 * k + 1].repeat(80, 0)) for k in range(4))
    assert np.array_equal(found[::80], crops_of(map_, BOXES[:4], 128, 1, 0))
    assert len(crops_of(map_, boxes[:0], 128, 1, 0)) == 0
