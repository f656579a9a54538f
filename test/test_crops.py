# SPDX-License-Identifier: Apache-2.0
"""Geometry on tensors: boxes, crops, and maps that are carried along the flow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maskrnn_ros.flow.warp import warp as warp_of_tracker
from maskrnn_ros.model.shapes import CROP
from maskrnn_ros.model.torch.crops import (
    apply_deltas,
    cell_centres,
    crop,
    deltas_of,
    paste,
    sample_crop,
    scale_boxes,
    scaled,
    warp,
)

SIZE = (96, 160)


def test_images_are_scaled_to_one_on_either_side_of_zero() -> None:
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == pytest.approx([-1, 1])


def test_deltas_are_those_of_fast_rcnn_and_have_an_inverse() -> None:
    prior, box = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[14.0, 20.0, 54.0, 40.0]])
    expected = [(34 - 20) / 20, (30 - 40) / 40, math.log(2), math.log(0.5)]
    torch.testing.assert_close(deltas_of(box, prior), torch.tensor([expected]))
    torch.testing.assert_close(apply_deltas(prior, deltas_of(box, prior)), box)


def test_boxes_grow_about_their_centres() -> None:
    assert scale_boxes(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), 1.5).tolist() == [[5, 10, 35, 70]]


def test_cell_centres_are_in_the_middle_of_the_cells() -> None:
    centres = cell_centres(torch.tensor([[10.0, 100.0, 18.0, 104.0]]), 4)
    assert centres[0, 0, :, 0].tolist() == [11, 13, 15, 17]
    assert centres[0, :, 0, 1].tolist() == [100.5, 101.5, 102.5, 103.5]


def test_a_crop_pasted_back_is_what_was_cut_out() -> None:
    ramp = torch.arange(SIZE[1]).float().expand(1, 1, *SIZE) + 3 * torch.arange(SIZE[0])[:, None]
    box = torch.tensor([[16.0, 8.0, 80.0, 72.0]])  # a cell is a pixel
    cut = crop(ramp, torch.cat([torch.zeros(1, 1), box], dim=1), CROP, 1.0)
    whole = paste(cut[:, 0], box, SIZE, outside=-1.0)
    torch.testing.assert_close(whole[0, 8:72, 16:80], ramp[0, 0, 8:72, 16:80])
    whole[0, 8:72, 16:80] = -1.0
    assert (whole == -1.0).all()


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (8, 0), (0, -4), (-12, 8)])
def test_what_moves_with_its_crop_does_not_move_in_it(dx: int, dy: int) -> None:
    state = torch.rand(1, 16, CROP // 2, CROP // 2)
    old = torch.tensor([[40.0, 20.0, 104.0, 84.0]])
    new = old + torch.tensor([dx, dy, dx, dy])
    came_from = cell_centres(new, CROP // 2) - torch.tensor([dx, dy])
    torch.testing.assert_close(sample_crop(state, old, came_from), state, atol=1e-4, rtol=1e-4)


def test_outside_a_crop_there_is_nothing_or_its_nearest_cell() -> None:
    state = torch.ones(1, 2, CROP // 2, CROP // 2)
    old, new = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[64.0, 32.0, 96.0, 64.0]])
    points = cell_centres(new, CROP // 2)
    assert (sample_crop(state, old, points) == 0).all()
    assert (sample_crop(state, old, points, "border") == 1).all()


def test_the_training_carries_maps_as_the_tracker_does() -> None:
    random = np.random.default_rng(0)
    before = random.random((37, 53), np.float32)
    flow = random.normal(0, 9, (2, 37, 53)).astype(np.float32)  # some come from outside
    found = warp(torch.from_numpy(before)[None], torch.from_numpy(flow))[0].numpy()
    assert (found == 0).any()
    np.testing.assert_allclose(warp_of_tracker(before, flow), found, atol=0.04)  # OpenCV steps by 1/32 of a pixel
    assert np.abs(warp_of_tracker(before, flow) - found).mean() < 0.01


def test_a_flow_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"flow must be \(2, 4, 6\) like the map, got \(2, 4, 5\)"):
        warp(torch.zeros(1, 4, 6), torch.zeros(2, 4, 5))
