# SPDX-License-Identifier: Apache-2.0
"""Reference matching: what looks like the object is the object, as far as it may be looked for."""

from __future__ import annotations

import pytest
import torch

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.backbone import Features, cells_of, pixels_of
from maskrnn_ros.model.matching import UNIT, Reference, describe, match
from maskrnn_ros.types import Box

ROWS, COLUMNS = 12, 16
SETTINGS = with_values(Config(), matching__radius=3, matching__top_k=1).matching


def orthogonal() -> torch.Tensor:
    """Descriptors (C, ROWS, COLUMNS): every cell like itself alone."""
    return torch.eye(ROWS * COLUMNS).reshape(-1, ROWS, COLUMNS).half()


def marked(box: Box) -> torch.Tensor:
    share = torch.zeros(ROWS, COLUMNS)
    share[box.slices] = 1.0
    return share


@pytest.mark.parametrize("window", [None, Box(0, 0, COLUMNS, ROWS), Box(4, 3, 9, 8)])
def test_labels_follow_cells_that_moved(window: Box | None) -> None:
    object_before, object_now = Box(5, 4, 8, 7), Box(6, 4, 9, 7)
    now = orthogonal().roll(1, dims=2)
    found = match(now, (Reference(orthogonal(), marked(object_before)),), window, SETTINGS)
    expected = marked(object_now)
    if window is not None:
        expected = expected[window.slices]
    torch.testing.assert_close(found, expected)


def test_beyond_the_radius_only_the_global_search_finds() -> None:
    now = orthogonal().roll(4, dims=2)  # the radius is 3
    reference = (Reference(orthogonal(), marked(Box(2, 2, 5, 5))),)
    target = Box(6, 2, 9, 5)
    assert match(now, reference, target, SETTINGS).sum() == 0
    assert match(now, reference, None, SETTINGS)[target.slices].eq(1).all()


def test_the_best_of_all_references_counts() -> None:
    unlike = Reference(torch.zeros_like(orthogonal()), torch.ones(ROWS, COLUMNS))
    like = Reference(orthogonal(), marked(Box(1, 1, 4, 4)))
    for references in ((unlike, like), (like, unlike)):
        torch.testing.assert_close(match(orthogonal(), references, None, SETTINGS), marked(Box(1, 1, 4, 4)))


def test_a_window_costs_what_it_holds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, dim=0: sizes.append(parts[0].numel()) or original(parts, dim=dim))
    match(orthogonal(), (Reference(orthogonal(), torch.zeros(ROWS, COLUMNS)),), Box(6, 5, 8, 7), SETTINGS)
    assert max(sizes) == 4 * (8 * 8)  # 2 x 2 cells with those up to 3 cells around


def test_descriptors_have_length_one_and_do_not_see_what_all_cells_share() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(c, h, w, generator=generator) for c, h, w in ((24, 12, 16), (40, 6, 8), (112, 3, 4))]
    one = describe(Features(*maps))
    other = describe(Features(*(map_ * 3 + 5 for map_ in maps)))
    torch.testing.assert_close(one.float().norm(dim=0) / UNIT, torch.ones(6, 8), atol=0.01, rtol=0)
    assert (one.int() - other.int()).abs().max() <= 1  # of 126


def test_cells_are_means_and_pixels_bring_them_back() -> None:
    map_ = torch.arange(6.0)[:, None].expand(6, 10)
    cells = cells_of(map_, 4)
    assert cells.shape == (2, 3)
    assert cells[0].tolist() == [1.5] * 3 and cells[1].tolist() == [(4 + 5 + 5 + 5) / 4] * 3
    assert pixels_of(torch.ones(2, 3), 4, (6, 10)).eq(1).all()
    ramp = pixels_of(torch.tensor([[0.0, 1.0]]), 4, (4, 8))[0]  # cell centres lie at 2 and 6
    assert ramp.tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
