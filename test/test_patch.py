# SPDX-License-Identifier: Apache-2.0
"""What is known in a box is what the whole map would hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import Box

SIZE = (37, 53)


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int] = SIZE) -> Box:
    x0, y0 = draw(st.integers(0, size[1] - 1)), draw(st.integers(0, size[0] - 1))
    return Box(x0, y0, draw(st.integers(x0 + 1, size[1])), draw(st.integers(y0 + 1, size[0])))


def random_in(box: Box) -> np.ndarray:
    whole = np.zeros(SIZE, np.float32)
    whole[box.slices] = np.random.default_rng(box.x0).random((box.height, box.width), np.float32) + 0.1
    return whole


@given(boxes(), boxes())
def test_a_patch_is_the_map_that_it_was_made_of(known: Box, gate: Box) -> None:
    whole = random_in(known)
    patch = Patch.of(whole)
    assert patch.box == known and np.array_equal(patch.full, whole) and patch.full.dtype == np.float32
    assert patch.area == np.count_nonzero(whole >= 0.5)
    gated = np.zeros(SIZE, np.float32)
    gated[gate.slices] = whole[gate.slices]
    assert np.array_equal(patch.gated(gate).full, gated)
    assert not patch.gated(None).full.any()


@given(boxes(), boxes())
def test_without_a_mask_of_the_whole_it_is_nothing_there_and_the_rest_stays(known: Box, hidden: Box) -> None:
    whole, mask = random_in(known), np.zeros(SIZE, bool)
    mask[hidden.slices] = True
    patch = Patch.of(whole)
    assert np.array_equal(patch.without(mask).full, np.where(mask, 0, whole))
    assert patch.without(None) is patch and np.array_equal(patch.full, whole), "nor is it written to"


def test_nothing_is_nowhere() -> None:
    nothing = Patch.nothing((2, 3))
    assert nothing.full.tolist() == [[0, 0, 0], [0, 0, 0]] and nothing.area == 0 and nothing.box is None
    assert Patch.of(np.zeros((2, 3), np.float32)).box is None
    assert nothing.gated(Box(0, 0, 1, 1)).box is None and nothing.without(np.ones((2, 3), bool)).box is None


def test_a_patch_holds_no_more_memory_than_its_box() -> None:
    patch = Patch.of(random_in(Box(3, 4, 9, 11)))
    assert patch.values.base is None and patch.values.nbytes == 4 * 6 * 7
