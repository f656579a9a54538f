# SPDX-License-Identifier: Apache-2.0
"""The decoder's parts, each against something that is not the code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from maskrnn_ros.model.shapes import CODES, COLUMNS, CROP, FINE, HIDDEN, KEYS, SMALLEST, STRIDE, TARGET
from maskrnn_ros.model.torch.matching import Keys, Matcher
from maskrnn_ros.model.torch.motion import motion_planes
from maskrnn_ros.model.torch.sight import Carried, Seen, Shared, crops_around, place, see
from maskrnn_ros.model.torch.step import StepNet, target_channels
from maskrnn_ros.model.torch.target import Memory, Sums, coefficients, remember, seed_sums, sums_of


def carried(boxes: torch.Tensor) -> Carried:
    """Half of each crop, the left one, is the object."""
    probability = torch.zeros(len(boxes), 1, FINE, FINE)
    probability[..., : FINE // 2] = 1
    return Carried(probability, boxes, torch.zeros(len(boxes), HIDDEN, CROP // 2, CROP // 2))


def no_keys(count: int) -> tuple[Keys, Keys]:
    nothing = Keys(torch.zeros(count, CODES, KEYS), torch.zeros(count, 2, KEYS))
    return nothing, nothing


def test_a_mask_goes_where_the_flow_says() -> None:
    boxes = torch.tensor([[16.0, 16.0, 80.0, 80.0]])
    which = torch.zeros(1, dtype=torch.int64)
    flow = torch.zeros(1, 2, 32, 32)
    still = place(carried(boxes).probability, boxes, flow, which)[0] >= 0.5
    flow[:, 0], flow[:, 1] = -8.0, 4.0  # it came from 8 pixels left and 4 below
    moved = place(carried(boxes).probability, boxes, flow, which)[0] >= 0.5
    expected = torch.zeros_like(still)
    expected[3:19, 6:14] = True  # the cells [16, 48) x [16, 80) lie 8 to the right and 4 up
    assert torch.equal(moved, expected) and still.sum() == expected.sum()


def test_crops_are_squares_around_the_box_and_never_tiny() -> None:
    found = crops_around(torch.tensor([[10.0, 20.0, 110.0, 60.0], [5.0, 5.0, 6.0, 6.0]]))
    assert found[0].tolist() == pytest.approx([-30, -50, 150, 130])
    assert (found[1, 2:] - found[1, :2]).tolist() == [SMALLEST, SMALLEST]


def test_flow_that_is_the_objects_own_motion_fits_it_and_not_its_surroundings() -> None:
    steps = torch.linspace(-1, 1, CROP // 2)
    flow = torch.zeros(1, 2, CROP // 2, CROP // 2)
    flow[:, 0] = 3 + 2 * steps  # the surroundings stretch
    prior = torch.zeros(1, 1, CROP, CROP)
    prior[..., 16:48, 16:48] = 1
    flow[..., 8:24, 8:24] = 0
    flow[:, 1, 8:24, 8:24] = -6 + steps[8:24, None]  # the object turns away
    length, own, rest = motion_planes(flow, prior)[0]
    inside = torch.zeros(CROP // 2, CROP // 2, dtype=torch.bool)
    inside[9:23, 9:23] = True
    outside = torch.zeros_like(inside)
    outside[:7] = True
    torch.testing.assert_close(length, torch.log1p(flow[0].square().sum(0).clamp(min=1e-6).sqrt()))
    assert own[inside].max() < 0.05 and rest[outside].max() < 0.2
    assert own[outside].min() > 1.0 and rest[inside].min() > 1.0


def test_target_channels_are_linear_in_the_columns() -> None:
    columns, weights = torch.randn(2, COLUMNS, 5, 7), torch.randn(2, COLUMNS + 1, TARGET)
    full = torch.cat([columns, torch.ones(2, 1, 5, 7)], dim=1)
    expected = torch.einsum("kfab,kfc->kcab", full, weights)
    torch.testing.assert_close(target_channels(columns, weights), expected, atol=1e-4, rtol=1e-4)


def shared(columns: torch.Tensor) -> Shared:
    count, _, height, width = columns.shape
    return Shared(
        image=torch.zeros(count, 3, height * 4, width * 4),
        columns=columns,
        stride8=torch.zeros(count, 40, height // 2, width // 2),
        stride16=torch.zeros(count, 112, height // 4, width // 4),
        flow=torch.zeros(count, 2, height, width),
    )


def test_an_object_that_was_not_there_has_no_prior_and_the_others_masks_are_seen() -> None:
    boxes = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    there = carried(boxes)
    nothing = dataclasses.replace(there, probability=torch.zeros_like(there.probability))
    others = torch.zeros(1, 32, 32)
    others[:, :16] = 1
    which = torch.zeros(1, dtype=torch.int64)
    seen = see(shared(torch.rand(1, COLUMNS, 32, 32)), which, boxes, nothing, others)
    assert seen.prior.max() == 0 and seen.others[0, 0, :31].min() == 1 and seen.others[0, 0, 33:].max() == 0
    net = StepNet().eval()
    with torch.no_grad():
        output = net.look(seen, torch.zeros(1, COLUMNS + 1, TARGET), *no_keys(1))
    assert output.log_odds.shape == (1, FINE, FINE) and output.hidden.shape == seen.hidden.shape
    assert output.log_odds.abs().max() < 1, "an untrained network that is told nothing says nothing"


def test_objects_in_a_batch_do_not_see_each_other() -> None:
    net = StepNet().eval()
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.05)
    sizes = {field.name: None for field in dataclasses.fields(Seen)}
    boxes = torch.tensor([[0.0, 0.0, 100.0, 100.0], [20.0, 10.0, 90.0, 80.0]])
    which = torch.zeros(2, dtype=torch.int64)
    seen = see(shared(torch.rand(1, COLUMNS, 32, 32)), which, boxes, carried(boxes), torch.rand(2, 32, 32))
    weights = torch.randn(2, COLUMNS + 1, TARGET) * 0.1
    one = Seen(**{name: getattr(seen, name)[:1] for name in sizes})
    keys = Keys(torch.randn(2, CODES, KEYS), torch.rand(2, 2, KEYS))
    with torch.no_grad():
        both = net.look(seen, weights, keys, keys)
        alone = net.look(one, weights[:1], *(keys[torch.tensor([0])] for _ in range(2)))
    torch.testing.assert_close(both.log_odds[:1], alone.log_odds, atol=1e-4, rtol=0)


def test_the_target_model_solves_the_weighted_regression() -> None:
    net = StepNet()
    columns = torch.rand(1, COLUMNS, CROP, CROP)
    share = (torch.rand(1, 1, CROP, CROP) < 0.3).float()
    sums = sums_of(net, columns, share, torch.zeros_like(share))
    found = coefficients(net, Memory(sums, sums, *no_keys(1)))[0].detach().numpy()
    rows = torch.cat([columns, torch.ones(1, 1, CROP, CROP)], dim=1)[0].flatten(1).T.double().numpy()
    own = share.flatten().numpy() > 0
    weight = np.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
    square = (rows * weight[:, None]).T @ rows
    ridge = np.exp(float(net.ridge)) * np.diag(square).mean() + 1e-6
    target = (rows * weight[:, None]).T @ np.where(own, 1.0, -1.0)
    expected = np.linalg.solve(square + ridge * np.eye(COLUMNS + 1), target)
    assert np.abs(found[:, 0] - expected).max() < 1e-2 * np.abs(expected).max()


def test_the_seed_is_told_from_its_surroundings_and_from_what_lies_far_away() -> None:
    net = StepNet()
    columns = torch.zeros(1, COLUMNS, 64, 64)
    columns[:, 0] = 1  # the surroundings
    columns[:, 0, 40:, 40:] = 0
    columns[:, 2, 40:, 40:] = 1  # what is far away
    share = torch.zeros(1, 64, 64)
    share[:, 8:16, 8:16] = 1
    columns[:, 0, 8:16, 8:16] = 0
    columns[:, 1, 8:16, 8:16] = 1
    which, boxes = torch.zeros(1, dtype=torch.int64), torch.tensor([[32.0, 32.0, 64.0, 64.0]])
    sums = seed_sums(net, columns, which, boxes, share, torch.zeros_like(share), torch.ones_like(share))
    score = target_channels(columns, coefficients(net, Memory(sums, sums, *no_keys(1))))[0, 0]
    assert score[9:15, 9:15].min() > 0.8 and score[20:30, 20:30].max() < -0.8 and score[45:, 45:].max() < -0.8


def test_the_seed_keeps_its_share_whatever_comes_and_the_newest_trusted_frame_is_matched() -> None:
    seed, other = (Sums(torch.full((1, 2, 2), value), torch.full((1, 2, 3), value)) for value in (1.0, 0.0))
    marked, found = no_keys(1)[0], Keys(torch.ones(1, CODES, KEYS), torch.ones(1, 2, KEYS))
    memory = Memory(seed, seed, marked, marked)
    untouched = remember(memory, other, found, torch.tensor([0.0]))
    assert torch.equal(untouched.recent.square, seed.square) and untouched.newest_keys.values.max() == 0
    for _ in range(200):
        memory = remember(memory, other, found, torch.tensor([0.1]))
    assert memory.recent.square.max() < 1e-6 and torch.equal(memory.seed.square, seed.square)
    assert memory.newest_keys.values.min() == 1 and memory.seed_keys.values.max() == 0


def test_a_cell_is_matched_with_what_it_looks_like() -> None:
    matcher = Matcher().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 40, generator=random)  # the object, another one, the background
    where = torch.zeros(CROP // 2, CROP // 2, dtype=torch.int64) + 2
    where[4:12, 4:12], where[20:28, 4:12] = 0, 1
    stride8 = kinds[where].permute(2, 0, 1)[None] + 0.1 * torch.randn(1, 40, CROP // 2, CROP // 2, generator=random)
    stride16 = torch.randn(1, 112, CROP // 4, CROP // 4, generator=random) * 0.1
    matcher.standardise(stride8, stride16)
    code = matcher.describe(stride8, stride16)
    torch.testing.assert_close(code.square().sum(dim=1), torch.ones(1, CROP // 2, CROP // 2))
    keys = matcher.keys(code, (where == 0).float()[None, None], (where == 1).float()[None, None])
    assert keys.code.shape == (1, CODES, KEYS)
    own, others, similarity = matcher.match(code.flip(3), keys)[0]  # the same, mirrored
    mirrored = where.flip(1)
    assert own[mirrored == 0].min() > 0.3 and own[mirrored != 0].max() < -0.3
    assert others[mirrored == 1].min() > 0.8 and others[mirrored != 1].max() < 0.2
    assert similarity.min() > 0.6
    unlike = matcher.match(-code, keys)[0, 2]
    assert unlike.max() < similarity.min(), "what is like nothing that is known"
    assert matcher.match(code, no_keys(1)[0]).abs().max() == 0


def test_cells_are_those_of_the_stride() -> None:
    assert FINE == 2 * CROP and STRIDE == 4
