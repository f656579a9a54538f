# SPDX-License-Identifier: Apache-2.0
"""Scenes of layers: truth and picture say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_bench import still, write_data

from maskrnn_ros.training import layers
from maskrnn_ros.training.layers import Clip, Scenes
from maskrnn_ros.training.sources import IGNORE, Still, still_files

SIZE = (64, 96)


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    return Scenes(still_files(write_data(tmp_path)), SIZE)


def test_a_scene_depends_on_its_number_alone(scenes: Scenes) -> None:
    one = scenes.draw(np.random.default_rng(4), [0.0, 3.0, 4.0])
    scenes.draw(np.random.default_rng(5), [0.0])
    other = scenes.draw(np.random.default_rng(4), [0.0, 3.0, 4.0])
    assert one.images.shape == (3, *SIZE, 3) and one.labels.shape == (3, *SIZE)
    assert np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


def test_objects_move_hide_each_other_and_some_pixels_are_nobodys(scenes: Scenes) -> None:
    clips = [scenes.draw(np.random.default_rng(seed), [0.0, 6.0, 12.0]) for seed in range(40)]
    ids = [set(np.unique(clip.labels)) - {0, IGNORE} for clip in clips]
    assert max(map(len, ids)) >= 4 and min(map(len, ids)) <= 1
    assert all(not np.array_equal(clip.labels[0], clip.labels[2]) for clip in clips)
    assert any((clip.labels == IGNORE).any() for clip in clips)
    shrunk = [
        (clip.labels[2] == i).sum() < 0.5 * (clip.labels[0] == i).sum()
        for clip, found in zip(clips, ids, strict=True)
        for i in found
    ]
    assert any(shrunk), "hidden, or gone from the frame"


def test_a_bright_object_on_a_dark_background_is_bright_where_the_truth_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OWN_SCENE", "GUEST", "TWIN", "TWO_TONED", "OCCLUDED"):
        monkeypatch.setattr(layers, name, 0.0)
    image, mask = still(np.random.default_rng(0))
    image[mask > 0], image[mask == 0] = 240, 10
    dark = Still(source="dark", image=np.full_like(image, 10), labels=np.zeros_like(mask))
    bright = Still(source="bright", image=image, labels=mask)
    scenes = Scenes([bright], SIZE)
    scenes._scenes = [dark]
    for seed in range(10):
        clip = scenes.draw(np.random.default_rng(seed), [0.0, 5.0])
        level = clip.images.mean(axis=3)
        for number in (0, 1):
            own = clip.labels[number] == 1
            if own.sum() > 50:
                assert level[number][own].mean() > 150 and level[number][~own].mean() < 60


def test_things_are_pasted_over_a_clip_with_ids_after_its_own(scenes: Scenes) -> None:
    seen = set()
    for seed in range(12):
        labels = np.zeros((2, *SIZE), np.uint8)
        labels[:, 20:40, 20:40] = 3
        labels[:, :4] = IGNORE
        base = Clip(images=np.full((2, *SIZE, 3), 60, np.uint8), labels=labels)
        clip = scenes.draw_over(base, np.random.default_rng(seed), [0.0, 2.0])
        found = set(np.unique(clip.labels)) - {0, IGNORE}
        assert found <= {3, 4, 5}
        seen |= found
    assert {3, 4} <= seen
