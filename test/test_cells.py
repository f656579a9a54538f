# SPDX-License-Identifier: Apache-2.0
"""Planes at cells, in crops and back: against what torch does in training, and against sums written out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import world
from torchvision.ops import roi_align

from maskrnn_ros.model.torch.trunk import cells_of as cells_of_training
from maskrnn_ros.tracking.cells import cells_of, cut, halved, pasted, resized, shrunk, sigmoid
from maskrnn_ros.types import Box


def plane(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).random((height, width), np.float32)


# --- cells ---


@pytest.mark.parametrize("size", [(96, 128), (37, 53), (1, 1), (3, 90)])
@pytest.mark.parametrize("stride", [4, 8])
def test_cells_are_means_and_at_the_border_the_nearest_pixels_count(size: tuple[int, int], stride: int) -> None:
    found = cells_of(plane(*size), stride)
    assert found.dtype == np.float32
    expected = cells_of_training(torch.from_numpy(plane(*size)), stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_beyond_the_border_is_nothing_where_that_is_asked_for() -> None:
    found = cells_of(np.ones((6, 5), np.float32), 4, cv2.BORDER_CONSTANT)
    np.testing.assert_allclose(found, [[1, 0.25], [0.5, 0.125]])


@pytest.mark.parametrize("size", [(24, 24), (10, 13), (24, 39), (50, 77), (1, 1)])
def test_shares_stay_shares_at_any_size(size: tuple[int, int]) -> None:
    found = resized(np.ones((24, 39), np.float32), size)  # here OpenCV's areas come to 1.0000001
    assert found.shape == size and found.dtype == np.float32 and found.max() <= 1
    np.testing.assert_allclose(found, 1, atol=1e-6)
    values = plane(24, 39)
    assert resized(values, size).mean() == pytest.approx(values.mean(), abs=0.03)


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (722, 1281), (576, 1024), (480, 854), (1000, 600)])
def test_a_shrunk_image_counts_every_pixel_by_its_area(size: tuple[int, int]) -> None:
    image = world.texture(3, *size)
    expected = cv2.resize(image, (512, 288), interpolation=cv2.INTER_AREA).astype(int)
    found = shrunk(image, (288, 512))
    assert found.shape == (288, 512, 3) and found.dtype == np.uint8
    assert np.abs(found - expected).mean() < 0.1 * expected.std()  # of noise, where weights matter most
    assert abs((found - expected).mean()) < 0.3  # each halving rounds up


def test_an_image_of_whole_blocks_is_shrunk_as_at_once() -> None:
    image = np.repeat(np.repeat(world.texture(3, 36, 64), 8, axis=0), 8, axis=1)
    np.testing.assert_array_equal(shrunk(image, (36, 64)), image[::8, ::8])


def test_halves_are_means_of_two_by_two() -> None:
    planes = np.random.default_rng(0).random((3, 2, 6, 8), np.float32)
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(planes), 2)
    np.testing.assert_allclose(halved(planes), expected, atol=1e-6)
    assert halved(planes).dtype == np.float32
    assert halved(np.arange(4, dtype=np.float32).reshape(2, 2)).tolist() == [[1.5]]


# --- crops ---


@pytest.mark.parametrize("cells", [64, 128])
@pytest.mark.parametrize(
    "crop", [(8.0, 12.0, 40.0, 44.0), (3.3, 4.7, 50.1, 51.5), (0.0, 0.0, 72.0, 72.0), (20.0, 30.0, 23.0, 33.0)]
)
def test_inside_its_box_a_cut_is_that_of_roi_align(crop: tuple[float, ...], cells: int) -> None:
    values, box = plane(80, 96), np.array([0, 0, 96, 80], np.float32)
    (found,) = cut(values[None], box[None], np.array([crop], np.float32), cells)
    rois = torch.tensor([[0.0, *crop]])
    expected = roi_align(torch.from_numpy(values)[None, None], rois, cells, 1.0, sampling_ratio=1, aligned=True)
    assert found.shape == (cells, cells) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-4)


@pytest.mark.parametrize("crop", [(-30.0, -20.0, 40.0, 50.0), (10.0, 60.0, 110.0, 160.0)])
def test_a_cell_of_stride_4_is_cut_as_in_the_training(crop: tuple[float, ...]) -> None:
    """Beside the image nothing is known: the training's crops fade out within half a cell, these end with the image."""
    from maskrnn_ros.model.torch.crops import crop as crop_of_training

    values, box = plane(24, 32), np.array([0, 0, 128, 96], np.float32)
    (found,) = cut(values[None], box[None], np.array([crop], np.float32), 64)
    rois = torch.tensor([[0.0, *crop]])
    expected = crop_of_training(torch.from_numpy(values)[None, None], rois, 64, 1 / 4)[0, 0].numpy()
    x, y = (crop[k] + (np.arange(64) + 0.5) / 64 * (crop[k + 2] - crop[k]) for k in (0, 1))
    inside = ((y > 2) & (y < 94))[:, None] & ((x > 2) & (x < 126))
    outside = ~(((y > -2) & (y < 98))[:, None] & ((x > -2) & (x < 130)))
    assert inside.any() and outside.any()
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    assert not found[outside].any() and not expected[outside].any()


def test_a_cut_of_a_cut_is_that_of_the_training_where_one_crop_is_seen_in_another() -> None:
    from maskrnn_ros.model.torch.crops import cell_centres, sample_crop

    values = plane(128, 128)
    ours, theirs = np.array([10, 20, 90, 100], np.float32), np.array([40, -5, 130, 85], np.float32)
    (found,) = cut(values[None], ours[None], theirs[None], 64)
    box, other = torch.from_numpy(ours)[None], torch.from_numpy(theirs)[None]
    expected = sample_crop(torch.from_numpy(values)[None, None], box, cell_centres(other, 64), "border")[0, 0].numpy()
    x, y = cell_centres(other, 64)[0].numpy().transpose(2, 0, 1)
    inside = (x >= 10) & (x <= 90) & (y >= 20) & (y <= 100)
    assert inside.any() and not inside.all()
    np.testing.assert_allclose(found, np.where(inside, expected, 0), atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1)])
def test_a_plane_of_one_cell_is_cut_too(size: tuple[int, int]) -> None:
    box = np.array([0, 0, size[1], size[0]], np.float32)
    found = cut(np.full((1, *size), 0.7, np.float32), box[None], box[None], 6)
    np.testing.assert_allclose(found, 0.7, rtol=1e-6)
    assert not cut(np.ones((1, *size), np.float32), box[None], box[None] + 50, 6).any()


def test_what_is_cut_at_once_is_what_is_cut_alone() -> None:
    random = np.random.default_rng(0)
    planes = random.random((3, 20, 24), np.float32)
    corners = random.uniform(0, 40, (3, 2))
    boxes = np.concatenate([corners, corners + 30], axis=1).astype(np.float32)
    crops = np.concatenate([random.uniform(-20, 40, (40, 2)), random.uniform(45, 80, (40, 2))], axis=1)
    crops, of = crops.astype(np.float32), random.integers(0, 3, 40)
    found = cut(planes, boxes, crops, 16, of)
    for k, plane_of in enumerate(of):
        some = slice(plane_of, plane_of + 1)
        np.testing.assert_array_equal(found[k], cut(planes[some], boxes[some], crops[k : k + 1], 16)[0])
    assert cut(planes, boxes, crops[:0], 16).shape == (0, 16, 16)


# --- and back ---


def bilinear(values: np.ndarray, x: float, y: float) -> float:
    """At a point in cells, the nearest cell beyond the outermost centres."""
    count = len(values)
    x, y = (min(max(v - 0.5, 0.0), count - 1.0) for v in (x, y))
    i, j = min(int(y), count - 2), min(int(x), count - 2)
    a, b = y - i, x - j
    upper, lower = ((1 - b) * values[row, j] + b * values[row, j + 1] for row in (i, i + 1))
    return float((1 - a) * upper + a * lower)


def paste(values: np.ndarray, corners: np.ndarray, box: Box) -> np.ndarray:
    """One of two: beside nothing."""
    boxes = np.array([(0, 0, 0, 0), box.corners])
    out = [np.zeros((0, 0), np.float32), np.full((box.height, box.width), np.nan, np.float32)]
    pasted(np.stack([values, values]), np.stack([corners, corners]), boxes, out)
    return out[1]


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((10.0, 20.0, 42.0, 52.0), Box(10, 20, 42, 52)),  # a pixel is a cell
        ((-7.3, 4.9, 88.7, 100.9), Box(0, 4, 89, 96)),  # the image's border cuts it
        ((30.2, 30.4, 41.2, 41.4), Box(30, 30, 42, 42)),  # cells are smaller than pixels
    ],
)
def test_a_crop_pasted_back_is_bilinear_at_the_centres_of_the_pixels(corners: tuple[float, ...], box: Box) -> None:
    values = plane(32, 32)
    found = paste(values, np.array(corners, np.float32), box)
    side = corners[2] - corners[0], corners[3] - corners[1]
    expected = [
        [
            bilinear(values, (x + 0.5 - corners[0]) / side[0] * 32, (y + 0.5 - corners[1]) / side[1] * 32)
            for x in range(box.x0, box.x1)
        ]
        for y in range(box.y0, box.y1)
    ]
    np.testing.assert_allclose(found, expected, atol=0.02)  # OpenCV steps by 1/32 of a cell
    assert np.abs(found - np.array(expected)).mean() < 0.005


def test_what_was_cut_out_comes_back() -> None:
    ramp = np.add.outer(3 * np.arange(96), np.arange(160)).astype(np.float32) / 500
    crop, box = np.array([16, 8, 80, 72], np.float32), Box(16, 8, 80, 72)
    (values,) = cut(ramp[None], np.array([[0, 0, 160, 96]], np.float32), crop[None], 128)
    back = paste(values, crop, box)
    np.testing.assert_allclose(back, ramp[box.slices], atol=2e-3)


def test_log_odds_become_probabilities() -> None:
    found = sigmoid(np.array([-8, 0, 8], np.float32))
    np.testing.assert_allclose(found, [1 / (1 + np.exp(8)), 0.5, 1 / (1 + np.exp(-8))], rtol=1e-5)
    assert found.dtype == np.float32
