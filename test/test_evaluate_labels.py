# SPDX-License-Identifier: Apache-2.0
"""What label images mean to `maskrnn evaluate` and bags: the same everywhere, and never a flattering guess."""

import json

import cv2
import numpy as np
import pytest
import world
from PIL import Image

from maskrnn_ros.bags import BagReader, from_davis
from maskrnn_ros.cli import main
from maskrnn_ros.datasets.clips import label_notes, scored_objects
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.evaluation.followers import StaticFollower
from maskrnn_ros.evaluation.scoring import seeds_of
from maskrnn_ros.labels import read_labels, write_labels
from maskrnn_ros.types import Frame

FRAMES = 6


def tree(root, change=lambda t, labels: labels, write=write_labels, suffix=".png", name="clip"):
    """A sequence of the synthetic world, its annotations changed."""
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / name).mkdir(parents=True)
    for t in range(FRAMES):
        cv2.imwrite(str(root / "JPEGImages" / name / f"{t:05d}.png"), world.image(t)[..., ::-1])
        write(root / "Annotations" / name / f"{t:05d}{suffix}", change(t, world.labels(t)))
    return root


def grey(path, labels):
    Image.fromarray(labels.astype(np.uint8)).save(path)


def evaluate(root, *arguments, file="f.json"):
    status = main(["evaluate", "--root", str(root), *map(str, arguments), "--json", str(root / file), "--force"])
    return json.loads((root / file).read_text()) if not status else None


def predictions(root, change, write=write_labels):
    folder = root / "predictions" / "clip"
    folder.mkdir(parents=True)
    for t in range(FRAMES):
        write(folder / f"{t:05d}.png", change(t, world.labels(t)))
    return root / "predictions"


def test_ids_that_do_not_exist_do_not_count(tmp_path):
    root = tree(tmp_path, lambda t, labels: np.array([0, 3, 40])[labels])
    found = evaluate(root, "--predictions", predictions(root, lambda t, labels: 0 * labels))
    assert [row["id"] for row in found["objects"]] == [3, 40]
    assert found["summary"]["j_mean"] == 0.0 and found["summary"]["f_mean"] == 0.0


def soft(mask):
    return cv2.GaussianBlur(mask.astype(np.uint8), (0, 0), 1.5)


def test_jpeg_annotations_are_refused(tmp_path, capsys):
    root = tree(tmp_path, lambda t, labels: 255 * (labels > 0), grey, ".jpg")
    assert evaluate(root, "--preset", "static") is None
    assert "values in a JPEG, which changes values along edges: not a label image" in capsys.readouterr().err
    found = evaluate(root, "--preset", "static", "--threshold", 128)
    assert found["convention"] == "davis2016" and found["labels"] == ["labels: values of 128 or more are the object"]


def test_probability_maps_as_predictions_are_refused_or_thresholded(tmp_path, capsys):
    root = tree(tmp_path, lambda t, labels: 255 * (labels > 0))
    folder = predictions(root, lambda t, labels: soft(255 * (labels > 0)), grey)
    assert evaluate(root, "--predictions", folder) is None
    assert "many values along edges: not a label image" in capsys.readouterr().err
    found = evaluate(root, "--predictions", folder, "--threshold", 128)
    assert found["summary"]["j_mean"] > 0.9


def void(t, labels):
    """The second object is void: 255 beside the id 1."""
    return np.where(labels == 2, 255, labels)


def test_255_beside_ids_is_void_in_files_and_bags_alike(tmp_path):
    root = tree(tmp_path, void)
    (clip,) = find_clips(root)
    assert clip.rule.meaning == "void" and dict(clip.starts) == {1: 0}
    np.testing.assert_array_equal(clip.truth(2), np.where(world.labels(2) == 1, 1, 0))
    files = evaluate(root, "--preset", "warp", "--convention", "davis2017")
    assert files["labels"] == ["labels: 255 is void, beside ids"]
    from_davis(root, "clip", tmp_path / "bag")
    arguments = ["--preset", "warp", "--convention", "davis2017", "--json", str(tmp_path / "b.json")]
    assert main(["evaluate", "--bag", str(tmp_path / "bag"), *arguments]) == 0
    bag = json.loads((tmp_path / "b.json").read_text())
    for found in (files, bag):
        found["summary"].pop("fps"), found.pop("labels")
        [row.pop("sequence") for row in found["objects"]]
    assert bag == files and [row["id"] for row in files["objects"]] == [1]


@pytest.mark.parametrize("convention", ["davis2016", "davis2017"])
def test_255_alone_is_the_object_by_any_convention(tmp_path, convention):
    binary = tree(tmp_path / "a", lambda t, labels: 255 * (labels == 1))
    ids = tree(tmp_path / "b", lambda t, labels: np.where(labels == 1, 1, 0))
    one, other = (evaluate(root, "--preset", "warp", "--convention", convention) for root in (binary, ids))
    assert one["labels"] == ["labels: 255 is the object: no other value occurs"]
    for found in (one, other):
        found.pop("labels"), found["summary"].pop("fps")
    assert one == other and one["summary"]["j_mean"] > 0.8


def test_masks_of_one_object_are_not_given_to_one_of_several(tmp_path, capsys):
    root = tree(tmp_path)
    folder = predictions(root, lambda t, labels: 255 * (labels == 1))
    assert evaluate(root, "--predictions", folder) is None
    assert "expected ids 1, 2 of the annotations, found masks of one object" in capsys.readouterr().err


def late(t, labels):
    """The second object begins on frame 2."""
    return np.where((labels == 2) & (t < 2), 0, labels)


def test_an_object_that_begins_later_is_followed_and_named_and_official_scores_leave_it_out(tmp_path, capsys):
    root = tree(tmp_path, late)
    (clip,) = find_clips(root)
    assert dict(clip.starts) == {1: 0, 2: 2}
    seeds = seeds_of(clip, "davis2017")
    assert {number: seed.ids for number, seed in seeds.items()} == {0: (1,), 2: (2,)}
    assert scored_objects(clip, "davis2017") == {1: 0} and scored_objects(clip, "segtrack2") == {1: 0, 2: 2}
    out = tmp_path / "out"
    found = evaluate(root, "--preset", "warp", "--out", out)
    assert [row["id"] for row in found["objects"]] == [1]
    line = "clip: object 2 begins at 00002: followed, not scored, davis2017 takes those of the first frame"
    assert line in found["labels"] and line in capsys.readouterr().out
    masks = [read_labels(out / "clip" / f"{t:05d}.png") for t in range(FRAMES)]
    assert not (masks[1] == 2).any()
    np.testing.assert_array_equal(masks[2] == 2, world.labels(2) == 2)
    assert np.count_nonzero((masks[5] == 2) & (world.labels(5) == 2)) > 0.7 * np.count_nonzero(world.labels(5) == 2)
    whole = evaluate(root, "--preset", "warp", "--convention", "segtrack2", file="s.json")
    assert [(row["id"], row["frames"]) for row in whole["objects"]] == [(1, FRAMES - 1), (2, FRAMES - 3)]
    assert whole["objects"][1]["j_mean"] > 0.7
    assert "clip: object 2 begins at 00002: followed, scored from there" in whole["labels"]


def test_a_bag_has_a_seed_for_each_object_that_begins_later_and_scores_alike(tmp_path):
    root = tree(tmp_path, late)
    summary = from_davis(root, "clip", tmp_path / "bag", fps=10.0)
    assert summary.late == {2: 2} and summary.ids == (1, 2)
    with BagReader(tmp_path / "bag") as bag:
        seeds = {seed.stamp_ns: np.unique(seed.labels).tolist() for seed in bag.seeds()}
    assert seeds == {10**9: [0, 1], 12 * 10**8: [0, 2]}
    for convention in ("davis2017", "segtrack2"):
        common = ["--preset", "warp", "--convention", convention]
        files = evaluate(root, *common)
        file = tmp_path / f"{convention}.json"
        assert main(["evaluate", "--bag", str(tmp_path / "bag"), *common, "--json", str(file)]) == 0
        bag = json.loads(file.read_text())
        assert [row["j_mean"] for row in bag["objects"]] == [row["j_mean"] for row in files["objects"]]


def test_a_sequence_begins_where_an_object_is_marked(tmp_path):
    root = tree(tmp_path, lambda t, labels: labels if t >= 2 else 0 * labels)
    (clip,) = find_clips(root)
    assert len(clip) == FRAMES - 2 and clip.stem(0) == "00002"
    np.testing.assert_array_equal(clip.truth(0), world.labels(2))
    np.testing.assert_array_equal(clip.image(0), world.image(2))
    assert label_notes([clip], "davis2017")[1] == "clip: begins at 00002, the first annotation that marks an object"


def test_a_seed_on_a_later_frame_is_added_to_what_is_followed():
    follower = StaticFollower()
    frames = [Frame(stamp_ns=world.stamp_ns(t), image=world.image(t)) for t in range(3)]
    follower.seed(world.seed(0, 1), frames[0])
    found = follower.seed(world.seed(1, 2), frames[1])
    expected = np.where(world.labels(1) == 2, 2, np.where(world.labels(0) == 1, 1, 0))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(follower.step(frames[2]), expected)


def test_soft_truth_in_a_bag_is_refused_by_its_message(tmp_path, capsys):
    from test_evaluate_bag import write_bag

    numbers = range(1, FRAMES)
    truths = [(t, soft(255 * (world.labels(t) > 0)).astype(np.int32)) for t in numbers]
    path = write_bag(tmp_path / "bag", [(t, t) for t in numbers], truths, [(1, world.labels(1))])
    assert main(["evaluate", "--bag", str(path), "--preset", "static"]) == 2
    line = capsys.readouterr().err
    assert "message 0 on /camera/ground_truth" in line and "many values along edges: not a label image" in line
