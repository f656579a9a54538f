# SPDX-License-Identifier: Apache-2.0
"""The levels of quality: what they set, what they leave to the user, and that they stay while a tracker runs."""

from __future__ import annotations

import numpy as np
import pytest
import world

from maskrnn_ros.config import Config, from_flat, to_flat, with_values
from maskrnn_ros.config import settings as known_settings
from maskrnn_ros.quality import LEVELS, SET_BY_LEVELS, resolved
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.types import Frame


def test_the_levels_are_those_of_the_setting_and_what_they_set_is_left_to_them_by_default() -> None:
    known = {name: (default, setting) for name, default, setting in known_settings()}
    assert tuple(LEVELS) == known["quality"][1].choices == ("medium", "high")
    assert {name for name, (_, setting) in known.items() if setting.automatic is not None} == set(SET_BY_LEVELS)
    assert not any(known[name][1].live for name in ("quality", *SET_BY_LEVELS))
    for name in SET_BY_LEVELS:
        assert known[name][0] == known[name][1].automatic
    for level, values in LEVELS.items():
        assert set(values) == set(SET_BY_LEVELS)
        from_flat({**values, "quality": level})  # values that their settings take


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_sets_what_has_its_default_and_leaves_what_the_user_says(level: str) -> None:
    config = with_values(Config(), quality=level)
    found = resolved(config)
    assert {name: to_flat(found)[name] for name in SET_BY_LEVELS} == LEVELS[level]
    assert resolved(found) == found and found.quality == level
    for size in (448, *(values["working_size"] for values in LEVELS.values())):
        mine = resolved(with_values(config, working_size=size, gate__enlarge=2.0))
        assert (mine.working_size, mine.gate.enlarge) == (size, 2.0)
        assert mine.flow.preset == LEVELS[level]["flow.preset"]
    assert resolved(with_values(config, flow__preset="fast")).flow.preset == "fast"


def test_a_tracker_works_at_the_size_of_its_level() -> None:
    image = np.zeros((540, 960, 3), np.uint8)
    for level, size in (("medium", (288, 512)), ("high", (360, 640))):
        tracker = build_tracker(with_values(world.WARP_ONLY, quality=level))
        assert tracker.prepare(Frame(stamp_ns=1, image=image)).size_of_work == size


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"quality": "high"}, "quality must stay 'medium' while the tracker runs, got 'high'"),
        ({"working_size": 64}, "working_size must stay 512 while the tracker runs, got 64"),
        ({"network__hidden": False}, "network.hidden must stay True while the tracker runs, got False"),
    ],
)
def test_a_running_tracker_takes_live_settings_alone(changes: dict[str, object], line: str) -> None:
    tracker = Tracker(world.WARP_ONLY, world.ExactFlow())
    tracker.configure(with_values(world.WARP_ONLY, gate__enlarge=2.0))
    assert tracker.config.gate.enlarge == 2.0
    with pytest.raises(ValueError, match=f"^{line}$") as caught:
        tracker.configure(with_values(world.WARP_ONLY, gate__enlarge=3.0, **changes))
    assert "\n" not in str(caught.value) and tracker.config.gate.enlarge == 2.0
