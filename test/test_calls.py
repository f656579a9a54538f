# SPDX-License-Identifier: Apache-2.0
"""What an object costs in calls of Python: a number, where a time would depend on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest
import world
from shipped import CONFIG, engine

from maskrnn_ros.config import with_values
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.types import Frame

FEW, MANY = 2, 8

LIMIT = 65.0
"""More calls for each further object on its way to the next image, all near each other, before masks are merged: most
are those of the decoder, which is called for every two objects, as more than that do not fit into a core's cache."""

LIMIT_OF_MASKS = 15.0
"""The same for its mask at the full size."""

SHAPES = tuple(world.Shape(k + 1, 4 + 30 * (k % 4), 6 + 44 * (k // 4), 26, 36, 1, 0) for k in range(MANY))


def calls_of(function: Callable[[], object]) -> int:
    """Calls of functions, in Python and in C."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def calls_per_image(count: int, ignores: bool) -> tuple[float, float]:
    """Of bringing so many objects to the next image, and of their masks; of two images, on one an object learns."""
    one = Tracker(with_values(CONFIG, refinement__enabled=True), world.ExactFlow(SHAPES), engine())
    one.seed(world.seed(0, *range(1, count + 1), shapes=SHAPES), world.frame(0, SHAPES))
    ignored = np.zeros((world.HEIGHT, world.WIDTH), np.bool_)
    ignored[:2] = ignores
    found, masks = [], []
    for number in range(1, 5):
        frame = world.frame(number, SHAPES)
        if ignores:
            frame = Frame(stamp_ns=frame.stamp_ns, image=frame.image, ignored=ignored)
        prepared = one.prepare(frame)
        found.append(calls_of(lambda prepared=prepared: one.advance(prepared)))  # type: ignore[misc]
        masks.append(calls_of(lambda frame=frame: one.tracks(frame.image)))  # type: ignore[misc]
    assert all(state.frames_unseen == 0 for state in one.states.values())
    return sum(found[2:]) / 2, sum(masks[2:]) / 2


@pytest.mark.parametrize("ignores", [False, True])
def test_a_further_object_costs_few_calls(ignores: bool) -> None:
    few, many = (calls_per_image(count, ignores) for count in (FEW, MANY))
    for some, more, limit in zip(few, many, (LIMIT, LIMIT_OF_MASKS), strict=True):
        assert (more - some) / (MANY - FEW) <= limit
