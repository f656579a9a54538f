# SPDX-License-Identifier: Apache-2.0
"""Warp and flow: direction, order of axes, border, sizes."""

import numpy as np
import pytest
import torch
from world import texture

from maskrnn_ros.flow import build_flow, warp
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.model.torch import crops
from maskrnn_ros.sections import FlowConfig


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-2, 0), (0, 4), (0, -1), (5, -3)])
def test_whole_pixel_flow_is_a_shift(dx: int, dy: int) -> None:
    previous = np.random.default_rng(1).random((11, 13), np.float32)
    flow = np.stack([np.full((11, 13), float(dx)), np.full((11, 13), float(dy))]).astype(np.float32)
    expected = np.zeros((11, 13), np.float32)
    for v in range(11):
        for u in range(13):
            if 0 <= v + dy < 11 and 0 <= u + dx < 13:
                expected[v, u] = previous[v + dy, u + dx]
    np.testing.assert_allclose(warp(previous, flow), expected, atol=1e-5)


def test_half_pixel_flow_is_the_mean_of_two() -> None:
    previous = np.array([[0.0, 1.0, 4.0, 9.0]], np.float32)
    flow = np.array([[[0.5] * 4], [[0.0] * 4]], np.float32)
    np.testing.assert_allclose(warp(previous, flow), [[0.5, 2.5, 6.5, 4.5]], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 33)])
def test_the_warp_of_the_graphs_and_of_training_is_the_same(size: tuple[int, int]) -> None:
    """To OpenCV's step of 1/32 pixel; flow beyond the border included."""
    random = np.random.default_rng(0)
    previous, flow = random.random(size, np.float32), random.normal(0, 3, (2, *size)).astype(np.float32)
    flow = np.round(flow * 32) / 32
    expected = crops.warp(torch.from_numpy(previous)[None], torch.from_numpy(flow)).numpy()[0]
    np.testing.assert_allclose(warp(previous, flow), expected, atol=1e-4)


def test_gradients_pass_through_the_warp_of_training() -> None:
    previous = torch.rand(1, 6, 7, requires_grad=True)
    crops.warp(previous, torch.ones(2, 6, 7)).sum().backward()
    assert previous.grad is not None
    # what came from row 0 or column 0 is read by nobody, the rest by exactly one pixel
    assert previous.grad[0, 1:, 1:].allclose(torch.ones(5, 6), atol=1e-5)
    assert previous.grad[0, 0].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 6, 6), (3, 6, 7), (1, 6, 7)])
def test_warp_refuses_a_flow_of_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"flow must be \(2, 6, 7\)"):
        warp(np.zeros((6, 7), np.float32), np.zeros(shape, np.float32))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -4), (-5, 2)])
def test_dis_flow_points_back_to_where_it_was(preset: str, dx: int, dy: int) -> None:
    """A camera pan by whole pixels: the content moves by (dx, dy), so it was at p - (dx, dy)."""
    large = texture(7, 140, 200)
    previous, current = large[20:116, 20:148], large[20 - dy : 116 - dy, 20 - dx : 148 - dx]
    flow = build_flow(FlowConfig(preset=preset), "cpu")(current, previous)
    inner = flow[:, 16:-16, 16:-16]
    assert flow.shape == (2, 96, 128) and flow.dtype == np.float32
    assert np.median(inner, axis=(1, 2)).tolist() == pytest.approx([-dx, -dy], abs=0.25)
    # the oracle for the sign: warping the previous image gives the current one
    before, now = (image[..., 1].astype(np.float32) for image in (previous, current))
    error, moved = np.abs(warp(before, flow) - now), np.abs(before - now)
    assert error[16:-16, 16:-16].mean() < 0.25 * moved[16:-16, 16:-16].mean()


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (24, 448), (31, 33), (448, 20)])
def test_dis_flow_takes_small_and_narrow_images(size: tuple[int, int]) -> None:
    still = texture(3, *size).reshape(*size, 3)
    flow = DisFlow("ultrafast")(still, still)
    assert flow.shape == (2, *size)
    assert np.isfinite(flow).all()


def test_dis_flow_refuses_images_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"share their shape, got \(40, 50, 3\) and \(40, 51, 3\)"):
        DisFlow()(np.zeros((40, 50, 3), np.uint8), np.zeros((40, 51, 3), np.uint8))
