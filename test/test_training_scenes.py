# SPDX-License-Identifier: Apache-2.0
"""tools/render_training_scenes.py: what it says of its scenes is so."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pybullet")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import render_tabletop  # noqa: E402
import render_training_scenes as tool  # noqa: E402
import scene_objects  # noqa: E402
import scene_parts  # noqa: E402
import scene_random  # noqa: E402


@pytest.fixture(scope="module")
def scene():
    return scene_random.random_scene("train", 2, 0, permissive=True)


def test_a_number_gives_the_same_scene_and_another_number_another(scene):
    again = scene_random.random_scene("train", 2, 0, permissive=True)
    assert np.array_equal(scene.hand_path, again.hand_path)
    for ours, theirs in zip(scene.things, again.things, strict=True):
        assert ours.position == theirs.position and np.array_equal(ours.texture, theirs.texture)
    other = scene_random.random_scene("held", 2, 0, permissive=True)
    assert not np.array_equal(scene.hand_path, other.hand_path)


def test_what_is_held_out_shares_no_thing_and_no_robot_with_the_rest():
    for table in (scene_objects.KINDS, scene_parts.MESH_FILES):
        assert not set(table["train"]) & set(table["held"])
    assert set(scene_random.ARMS["train"]) & set(scene_random.ARMS["held"]) == {"human"}


@pytest.mark.parametrize("split", ["train", "held"])
def test_a_permissive_scene_has_no_mesh_of_unclear_terms(split):
    for number in range(6):
        scene = scene_random.random_scene(split, number, 0, permissive=True)
        assert not any("/" in thing.name or "." in thing.name for thing in (*scene.things, *scene.clutter))
        assert scene.arm_kind not in scene_random.MODELS or scene_random.MODELS[scene.arm_kind].permissive


def test_every_second_scene_is_permissive_and_each_share_is_as_said():
    scenes = [scene_random.random_scene("train", number, 0, permissive=False) for number in range(18)]
    assert sum(scene.is_permissive for scene in scenes) == 9
    assert sum(scene.is_moving for scene in scenes) == 12
    assert sum(bool(scene.twins) for scene in scenes) == 6
    for scene in scenes:
        assert 2 <= len(scene.things) <= 5
        for first, second in [scene.twins] if len(scene.twins) == 2 else []:
            assert scene.things[first - 1].mesh is scene.things[second - 1].mesh


def test_a_thing_behind_another_has_fewer_pixels_than_alone_and_the_one_in_front_as_many(scene):
    def thing(name, y, size):
        return render_tabletop.Thing(
            name=name, mesh=render_tabletop.box_mesh(size), texture=np.full((8, 8, 3), 90, np.uint8), position=(0, y)
        )

    behind, front = thing("behind", 0.1, (0.1, 0.05, 0.1)), thing("front", -0.1, (0.05, 0.05, 0.1))
    away = np.array([(0.0, 0.5, 0.5, 0.4, 0.0), (1.0, 0.5, 0.5, 0.4, 0.0)])
    camera = scene_random.PannedPath(azimuth_deg=(0, 0), height_m=(0.25, 0.25))
    pair = replace(scene, things=(behind, front), clutter=(), hand_path=away, lifted=None, camera=camera)
    frames = list(tool.render(pair, 2, tool.FPS, tool.WIDTH, tool.HEIGHT, 1, tool.TrainingWorld))
    seen = tool.pixels_seen([frame.labels for frame in frames], 2)
    alone = tool.pixels_alone(pair, [frame.poses for frame in frames], [frame.camera for frame in frames])
    assert (seen[:, 1] == alone[:, 1]).all() and seen[0, 1] > 500
    assert (seen[:, 0] < 0.8 * alone[:, 0]).all() and (seen[:, 0] > 200).all()


def test_what_is_lifted_goes_with_the_hand(scene):
    assert scene.program == "lift" and scene.lifted[0] == 0
    frames = list(tool.render(scene, 8, tool.FPS, 112, 63, 1, tool.TrainingWorld))
    heights = [frame.poses[0][0][2] for frame in frames]
    assert max(heights) > heights[0] + 0.03


def test_a_scene_is_complete_or_absent_and_its_record_is_that_of_its_masks(scene, tmp_path):
    tool.write_scene(scene, "train_002", 3, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"JPEGImages", "Annotations", "visibility"}
    record = json.loads((tmp_path / "visibility" / "train_002.json").read_text())
    masks = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "Annotations" / "train_002").iterdir())]
    assert len(masks) == len(list((tmp_path / "JPEGImages" / "train_002").iterdir())) == 3
    assert [thing["id"] for thing in record["things"]] == list(range(1, len(scene.things) + 1))
    for thing in record["things"]:
        assert thing["seen_px"] == [int((mask == thing["id"]).sum()) for mask in masks]
        assert all(seen <= alone for seen, alone in zip(thing["seen_px"], thing["alone_px"], strict=True))


def test_a_scene_that_fails_half_way_leaves_nothing(scene, tmp_path, monkeypatch):
    def torn(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(tool, "write_frame", torn)
    with pytest.raises(OSError, match="no space left"):
        tool.write_scene(scene, "train_002", 3, tmp_path)
    assert list(tmp_path.iterdir()) == []
