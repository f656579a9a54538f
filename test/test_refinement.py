# SPDX-License-Identifier: Apache-2.0
"""Refinement: edges of masks lie on edges of the image, and where there are none nothing moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskrnn_ros.model.refinement import luma, refine


def test_the_edge_of_the_mask_moves_onto_that_of_the_image() -> None:
    fine = np.zeros((64, 96), np.float32)
    fine[:, 50:] = 1.0
    small = cv2.resize(fine, (48, 32), interpolation=cv2.INTER_AREA)
    rough = np.zeros((32, 48), np.float32)
    rough[:, 26:] = 1.0  # one pixel of the small image beside the edge at 25
    plain = cv2.resize(rough, (96, 64), interpolation=cv2.INTER_LINEAR) >= 0.5
    out = refine(rough, small, fine, 3, 1e-3) >= 0.5
    truth = fine >= 0.5
    assert np.count_nonzero(plain != truth) == 64 * 2
    assert np.count_nonzero(out != truth) == 0


def test_on_a_plain_image_a_large_mask_keeps_its_edge() -> None:
    rough = np.zeros((32, 48), np.float32)
    rough[:, 20:] = 1.0
    out = refine(rough, np.full((32, 48), 0.5, np.float32), np.full((64, 96), 0.5, np.float32), 3, 1e-3)
    assert ((out >= 0.5) == (np.arange(96) >= 40)).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_nothing_and_all_stay_what_they_are(value: float, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random((2 * size[0], 2 * size[1]), np.float32)
    small = cv2.resize(noise, (size[1], size[0]), interpolation=cv2.INTER_AREA).reshape(size)
    out = refine(np.full(size, value, np.float32), small, noise, 4, 1e-3)
    assert out.shape == noise.shape and out.dtype == np.float32
    np.testing.assert_allclose(out, value, atol=1e-4)


def test_brightness_is_that_of_the_eye() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]]], np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [0, 1, 0.299, 0.587], atol=0.003)
