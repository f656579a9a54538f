# SPDX-License-Identifier: Apache-2.0
"""Warp and flow: direction, order of axes, border, sizes."""

import numpy as np
import pytest
import torch
from world import texture

from maskrnn_ros.config import FlowConfig
from maskrnn_ros.flow import DisFlow, build_flow, warp


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-2, 0), (0, 4), (0, -1), (5, -3)])
def test_whole_pixel_flow_is_a_shift(dx: int, dy: int) -> None:
    previous = torch.rand(2, 11, 13, generator=torch.Generator().manual_seed(1))
    flow = torch.stack([torch.full((11, 13), float(dx)), torch.full((11, 13), float(dy))])
    expected = np.zeros((2, 11, 13), np.float32)
    for v in range(11):
        for u in range(13):
            if 0 <= v + dy < 11 and 0 <= u + dx < 13:
                expected[:, v, u] = previous[:, v + dy, u + dx]
    np.testing.assert_allclose(warp(previous, flow).numpy(), expected, atol=1e-5)


def test_half_pixel_flow_is_the_mean_of_two() -> None:
    previous = torch.tensor([[[0.0, 1.0, 4.0, 9.0]]])
    flow = torch.tensor([[[0.5] * 4], [[0.0] * 4]])
    np.testing.assert_allclose(warp(previous, flow).numpy(), [[[0.5, 2.5, 6.5, 4.5]]], atol=1e-6)


def test_gradients_pass_through_the_warp() -> None:
    previous = torch.rand(1, 6, 7, requires_grad=True)
    warp(previous, torch.ones(2, 6, 7)).sum().backward()
    assert previous.grad is not None
    # what came from row 0 or column 0 is read by nobody, the rest by exactly one pixel
    assert previous.grad[0, 1:, 1:].allclose(torch.ones(5, 6), atol=1e-5)
    assert previous.grad[0, 0].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 6, 6), (3, 6, 7), (1, 6, 7)])
def test_warp_refuses_a_flow_of_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"flow must be \(2, 6, 7\)"):
        warp(torch.zeros(1, 6, 7), torch.zeros(shape))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -4), (-5, 2)])
def test_dis_flow_points_back_to_where_it_was(preset: str, dx: int, dy: int) -> None:
    """A camera pan by whole pixels: the content moves by (dx, dy), so it was at p - (dx, dy)."""
    large = torch.from_numpy(texture(7, 140, 200)).permute(2, 0, 1)
    previous, current = large[:, 20:116, 20:148], large[:, 20 - dy : 116 - dy, 20 - dx : 148 - dx]
    flow = build_flow(FlowConfig(preset=preset), torch.device("cpu"))(current, previous)
    inner = flow[:, 16:-16, 16:-16]
    assert flow.shape == (2, 96, 128) and flow.dtype == torch.float32
    assert inner.flatten(1).median(dim=1).values.tolist() == pytest.approx([-dx, -dy], abs=0.25)
    # the oracle for the sign: warping the previous image gives the current one
    error = (warp(previous.float(), flow) - current.float()).abs()[:, 16:-16, 16:-16].mean()
    assert error < 0.25 * (previous.float() - current.float()).abs().mean()


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (24, 448), (31, 33), (448, 20)])
def test_dis_flow_takes_small_and_narrow_images(size: tuple[int, int]) -> None:
    still = torch.from_numpy(texture(3, *size)).permute(2, 0, 1).contiguous()
    flow = DisFlow("ultrafast")(still, still)
    assert flow.shape == (2, *size)
    assert torch.isfinite(flow).all()


def test_dis_flow_refuses_images_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"share their shape, got \(3, 40, 50\) and \(3, 40, 51\)"):
        DisFlow()(torch.zeros(3, 40, 50, dtype=torch.uint8), torch.zeros(3, 40, 51, dtype=torch.uint8))
