# SPDX-License-Identifier: Apache-2.0
"""What is computed in boxes is what the whole image would give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrnn_ros.config import Config
from maskrnn_ros.flow import warp
from maskrnn_ros.model.backbone import STRIDES, cells_of, pixels_of
from maskrnn_ros.model.head import Head
from maskrnn_ros.tracking.patch import Patch, cells_in, enlarged
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.tracking.view import View
from maskrnn_ros.types import Box

SIZE = (37, 53)


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int] = SIZE) -> Box:
    x0, y0 = draw(st.integers(0, size[1] - 1)), draw(st.integers(0, size[0] - 1))
    return Box(x0, y0, draw(st.integers(x0 + 1, size[1])), draw(st.integers(y0 + 1, size[0])))


def random_in(box: Box, size: tuple[int, int] = SIZE) -> torch.Tensor:
    whole = torch.zeros(size)
    whole[box.slices] = torch.rand(box.height, box.width, generator=torch.Generator().manual_seed(box.x0)) + 0.1
    return whole


@given(boxes(), boxes(), boxes())
def test_a_patch_is_the_map_that_it_was_made_of(known: Box, other: Box, gate: Box) -> None:
    whole = random_in(known)
    patch = Patch.of(whole)
    assert patch.box == known and torch.equal(patch.full, whole)
    assert torch.equal(patch.within(other), whole[other.slices])
    gated = torch.zeros(SIZE)
    gated[gate.slices] = whole[gate.slices]
    assert torch.equal(patch.gated(gate).full, gated)
    assert not patch.gated(None).full.any()


def test_beside_its_box_a_patch_has_its_other_value() -> None:
    patch = Patch(torch.ones(2, 3), Box(1, 1, 4, 3), (5, 6), outside=-4.0)
    assert patch.full.sum() == 6 - 4.0 * (30 - 6)
    assert Patch.nothing((2, 2)).full.tolist() == [[0, 0], [0, 0]]


@given(boxes(), st.sampled_from(STRIDES))
def test_cells_are_enlarged_in_a_box_as_in_the_whole(box: Box, stride: int) -> None:
    rows, columns = -(-SIZE[0] // stride), -(-SIZE[1] // stride)
    cells = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))
    whole = pixels_of(cells, stride, SIZE)
    found = enlarged(Patch(cells, Box(0, 0, columns, rows), (rows, columns)), stride, box)
    torch.testing.assert_close(found, whole[box.slices])


@given(boxes((10, 14)))
def test_a_head_says_of_some_cells_what_it_says_of_all(cells: Box) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = [
        torch.randn(1, c, -(-SIZE[0] // s), -(-SIZE[1] // s), generator=generator)
        for c, s in zip((24, 40, 112), STRIDES, strict=True)
    ]
    head = Head(8, generator).requires_grad_(False)
    head.last.weight.mul_(30)
    whole = head(maps)[0].clamp(-8, 8)
    torch.testing.assert_close(head.frozen.log_odds(maps, cells), whole[cells.slices], atol=1e-4, rtol=1e-4)


@given(boxes(), st.floats(0, 60), st.integers(0, 100))
def test_a_patch_is_carried_as_the_whole_map_is(known: Box, reach: float, seed: int) -> None:
    flow = (torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * reach
    whole = random_in(known)
    frame = PreparedFrame(stamp_ns=1, size=SIZE, image=torch.zeros(3, *SIZE, dtype=torch.uint8))
    carried = View(frame, flow, None, Config().network).carried(Patch.of(whole))
    torch.testing.assert_close(carried.full, warp(whole[None], flow)[0], atol=2e-4, rtol=0)


@pytest.mark.parametrize("margin", [0, 2])
def test_the_cells_of_a_box_cover_it(margin: int) -> None:
    cells = cells_in(Box(9, 17, 23, 30), 8, margin, (5, 7))
    assert cells == Box(max(0, 1 - margin), max(0, 2 - margin), min(7, 3 + margin), min(5, 4 + margin))
    assert cells_of(torch.ones(37, 53), 8).shape == (5, 7)
