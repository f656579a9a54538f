# SPDX-License-Identifier: Apache-2.0
"""`maskrnn evaluate --bag`: a bag gives the scores of the files that it was made of."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import world
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from test_bags import box_labels

from maskrnn_ros.bags import from_davis
from maskrnn_ros.bags.convert import _Channel
from maskrnn_ros.cli import main
from maskrnn_ros.evaluation.bag_clip import BagClip
from maskrnn_ros.image_messages import label_image_data
from maskrnn_ros.labels import read_labels, write_labels

FRAMES = 7
IMAGE, TRUTH, SEED = "/camera/image_raw", "/camera/ground_truth", "/camera/seed_mask"
IMAGE_TYPE = "sensor_msgs/msg/Image"


def write_tree(root, binary):
    for t in range(FRAMES):
        picture, truth = root / "JPEGImages/480p/clip" / f"{t:05d}.jpg", root / "Annotations/480p/clip" / f"{t:05d}.png"
        for path in (picture, truth):
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), world.image(t)[..., ::-1])
        labels = world.labels(t)
        write_labels(truth, np.where(labels > 0, 255, 0) if binary else labels)
    return root


class Recorded(_Channel):
    """Messages are recorded at even times, in the order in which they are written, whatever their stamps."""

    period_ns = 10**8

    def _write(self, stamp_ns, message):
        data = self._store.serialize_cdr(message, self._connection.msgtype)
        self._writer.write(self._connection, 10**9 + self.count * self.period_ns, data)
        self.count += 1


def write_bag(path, images=(), truths=(), seeds=(), channel=_Channel):
    """A bag of (stamp in steps of 0.1 s, labels) messages; images are (stamp, number of the world's frame)."""
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        pictures = channel(writer, IMAGE, IMAGE_TYPE)
        truth, seed = channel(writer, TRUTH, IMAGE_TYPE), channel(writer, SEED, IMAGE_TYPE)
        for stamp, labels in seeds:
            seed.write_image(round(stamp * 10**8), label_image_data(labels, "mono8"), "mono8")
        for stamp, number in images:
            pictures.write_image(round(stamp * 10**8), world.image(number), "rgb8")
        for stamp, labels in truths:
            truth.write_image(round(stamp * 10**8), label_image_data(labels, "mono8"), "mono8")
    return path


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


def figures(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("preset", ["warp", "default"])
def test_scores_of_a_bag_are_those_of_its_files_to_the_last_digit(tmp_path, capsys, binary, compressed, preset):
    root = write_tree(tmp_path / "tree", binary)
    from_davis(root, "clip", tmp_path / "clip", compressed=compressed, fps=10.0)
    config = tmp_path / "quick.yaml"
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"flow.preset": "ultrafast", "device": "cpu"}}}))
    common = ("--preset", preset, "--config", config)
    assert evaluate("--root", root, *common, "--out", tmp_path / "a", "--json", tmp_path / "files.json") == 0
    assert evaluate("--bag", tmp_path / "clip", *common, "--out", tmp_path / "b", "--json", tmp_path / "bag.json") == 0
    files, bag = figures(tmp_path / "files.json"), figures(tmp_path / "bag.json")
    assert files["summary"].pop("fps") > 0 and bag["summary"].pop("fps") > 0
    assert bag.pop("labels") == ["labels: values are ids, 255 does not occur"]  # the bag was written by the rule
    text = "255 is the object: no other value occurs" if binary else "values are ids, 255 does not occur"
    assert files.pop("labels") == [f"labels: {text}"]
    assert bag == files
    assert bag["convention"] == ("davis2016" if binary else "davis2017")
    assert 0.3 < bag["summary"]["j_mean"] < 1, "there is something to compare"
    for t in range(FRAMES):
        name = f"clip/{t:05d}.png"
        np.testing.assert_array_equal(read_labels(tmp_path / "a" / name), read_labels(tmp_path / "b" / name))
    assert (tmp_path / "b" / "report.html").is_file()


def test_it_begins_at_the_image_of_the_first_seed_and_later_ones_add_objects(tmp_path, capsys):
    seeds = [(13, world.labels(3, world.TWO[:1])), (15, world.labels(5))]
    numbers = range(FRAMES)
    images, truths = [(10 + t, t) for t in numbers], [(10 + t, world.labels(t)) for t in numbers]
    path = write_bag(tmp_path / "bag", images, truths, seeds)
    with BagClip(path) as clip:
        assert len(clip) == FRAMES - 3
        assert [clip.stamp_ns(number) for number in range(4)] == [(13 + i) * 10**8 for i in range(4)]
        assert set(np.unique(clip.truth(0))) == {0, 1}, "the seed, not the ground truth"
        for number in (2, 1, 3, 3, 1):  # back and forth
            np.testing.assert_array_equal(clip.image(number), world.image(3 + number))
            np.testing.assert_array_equal(clip.truth(number), world.labels(3 + number))
    assert evaluate("--bag", path, "--preset", "static", "--json", tmp_path / "f.json") == 0
    found = figures(tmp_path / "f.json")
    assert [(row["sequence"], row["id"], row["frames"]) for row in found["objects"]] == [("bag", 1, 2)]
    printed = capsys.readouterr().out
    assert f"{path}: begins at image 3, that of the first seed" in printed
    assert "bag: object 2 begins at 00002: followed, not scored, davis2017 takes those of the first frame" in printed


def test_without_a_seed_the_first_ground_truth_is_the_seed(tmp_path, capsys):
    numbers = range(2, FRAMES)
    path = write_bag(tmp_path / "bag", [(t, t) for t in range(1, FRAMES)], [(t, world.labels(t)) for t in numbers])
    assert evaluate("--bag", path, "--preset", "static", "--json", tmp_path / "f.json") == 0
    assert "no seed; the first ground truth is the seed" in capsys.readouterr().out
    found = figures(tmp_path / "f.json")
    assert [row["id"] for row in found["objects"]] == [1, 2] and found["summary"]["frames"] == len(numbers) - 2


def test_a_seed_of_0_and_255_marks_one_instance(tmp_path):
    numbers = range(1, FRAMES)
    seed = np.where(world.labels(1, world.TWO[:1]) > 0, 255, 0).astype(np.int32)
    truths = [(t, world.labels(t)) for t in numbers]
    path = write_bag(tmp_path / "bag", [(t, t) for t in numbers], truths, [(1, seed)])
    assert evaluate("--bag", path, "--preset", "warp", "--json", tmp_path / "f.json") == 0
    (row,) = figures(tmp_path / "f.json")["objects"]
    assert figures(tmp_path / "f.json")["convention"] == "davis2017"
    assert row["id"] == 1 and row["j_mean"] > 0.8


def some(kind):
    """Bags that are wrong in one way."""
    numbers = range(1, FRAMES)
    images, truths = [(t, t) for t in numbers], [(t, world.labels(t)) for t in numbers]
    seeds = [(1, world.labels(1))]
    match kind:
        case "no images":
            images = []
        case "no truth":
            truths = []
        case "a hole":
            truths = truths[:3] + truths[4:]
        case "stray truth":
            truths = [*truths, (99, truths[0][1])]
        case "stray seed":
            seeds = [(55, seeds[0][1])]
        case "small truth":
            truths[3] = (truths[3][0], box_labels((1, 0)))
        case "small seed":
            seeds = [(1, box_labels((1, 0)))]
        case "same again":
            images[4] = (4, 5)
        case "two truths":
            truths[4] = truths[3]
        case "begins again":
            images = images * 2
        case "empty seed":
            seeds = [(1, np.zeros_like(seeds[0][1]))]
    return {"images": images, "truths": truths, "seeds": seeds}


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("good", ["--image-topic", "/other"], "has no topic /other; its topics are: "),
        ("good", ["--truth-topic", "/other"], "has no topic /other"),
        ("good", ["--seed-topic", "/other"], "has no topic /other"),
        ("no images", [], f"expected messages on {IMAGE} in BAG, found none"),
        ("no truth", [], f"expected messages on {TRUTH} in BAG, found none"),
        ("a hole", [], f"expected one for every image from the seed on, {FRAMES - 1}, found none for message 3 on"),
        ("stray truth", [], f"{TRUTH} in BAG: expected the stamp of an image on {IMAGE}, found 9.900000000 s, the nea"),
        ("stray seed", [], f"{SEED} in BAG: expected the stamp of an image on {IMAGE}, found 5.500000000 s, the nea"),
        ("small truth", [], f"{TRUTH} for message 3 on {IMAGE} in BAG: expected 128x96 like message 0 on"),
        ("small seed", [], f"{SEED} for message 0 on {IMAGE} in BAG: expected 128x96 like message 0 on"),
        ("same again", [], f"{TRUTH} in BAG: expected the stamp of an image on {IMAGE}, found 0.500000000 s, the near"),
        ("two truths", [], f"{TRUTH} in BAG: expected one for 0.400000000 s, found more"),
        (
            "begins again",
            [],
            f"{IMAGE} in BAG: time jumps back from 0.600000000 s to 0.100000000 s (message 6); the tra",
        ),
        ("empty seed", [], "expected an object in the first annotation"),
        ("unfinished", [], "was not finished: metadata.yaml is missing"),
        ("absent", [], "expected a bag, found no BAG"),
        ("good", ["--root", "x"], "expected --root or --bag, found both"),
        ("good", ["--split", "val"], "--split is for --root; a bag is one sequence"),
        ("good", ["--workers", "2"], "--workers is for --root; a bag is one sequence"),
        ("good", ["--rate", "2"], "--rate needs --online"),
        ("good", ["--player", "ros2bag"], "--player needs --online"),
        ("good", ["--online", "--rate", "0"], "--rate must be > 0 and finite, got 0"),
        (
            "good",
            ["--online", "--preset", "graph"],
            "--online runs the node, and the preset 'graph' is not the tracker",
        ),
        (
            "good",
            ["--online", "--predictions", "x"],
            "--online runs the node; it cannot be combined with --predictions",
        ),
        ("good", ["--online", "--streaming"], "--online already scores the node in real time"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, kind, arguments, text):
    path = tmp_path / "bag"
    if kind != "absent":
        write_bag(path, **some(kind), channel=Recorded)
    if kind == "unfinished":
        (path / "metadata.yaml").unlink()
    assert evaluate("--bag", path, *arguments, "--json", tmp_path / "f.json", "--out", tmp_path / "out") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "maskrnn evaluate:" in line]
    assert text.replace("BAG", str(path)) in line
    assert not (tmp_path / "f.json").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "expected --root or --bag, found neither"),
        (["--root", "x", "--truth-topic", "/y"], "--truth-topic needs --bag"),
        (["--root", "x", "--online"], "--online needs --bag"),
    ],
)
def test_what_is_of_a_bag_needs_one(capsys, arguments, text):
    assert evaluate(*arguments) == 2
    assert text in capsys.readouterr().err


def test_a_bag_is_scored_offline_where_there_is_no_ros(tmp_path):
    path = write_bag(tmp_path / "bag", **some("good"))
    blocked = "import sys\nfor name in ('rclpy', 'sensor_msgs', 'maskrnn_ros.msg'): sys.modules[name] = None\n"
    call = f"from maskrnn_ros.cli import main\nsys.exit(main(['evaluate', '--bag', {str(path)!r}, *sys.argv[1:]]))"
    for flags, status in ([], 0), (["--online"], 2):
        command = [sys.executable, "-c", blocked + call, "--preset", "warp", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wild", ["late", "ahead", "back", "same again", "no time"])
def test_an_image_that_the_tracker_would_refuse_is_left_out_and_said(tmp_path, capsys, wild):
    """The scores are those of the bag without it, to the last digit."""
    numbers = range(FRAMES)
    images, truths = [(100 + t, t) for t in numbers], [(100 + t, world.labels(t)) for t in numbers]
    good = write_bag(tmp_path / "a" / "bag", images, truths, [(100, world.labels(0))], Recorded)
    match wild:
        case "late":
            odd, text = (102.5, 2), "50 ms older than the newest, 10300000000 ns, too late"
        case "ahead":
            odd, text = (36000, 3), "3589.7 s ahead of the newest, 10300000000 ns; a jump is believed after 3 in a row"
        case "back":
            odd, text = (50, 3), "5.3 s older than the newest, 10300000000 ns; a jump is believed after 3 in a row"
        case "same again":
            odd, text = (103, 5), "got the same 10300000000 ns again"
        case "no time":  # of a simulator whose clock does not run yet (rosbag2, issue 1276)
            odd, text = (0, 3), "stamp must be > 0 ns, got 0"
    odd_truth = [] if wild in ("same again", "no time") else [(odd[0], world.labels(odd[1]))]
    bad = write_bag(
        tmp_path / "b" / "bag",
        [*images[:4], odd, *images[4:]],
        [*truths, *odd_truth],
        [(100, world.labels(0))],
        Recorded,
    )
    for name, path in (("good", good), ("bad", bad)):
        assert evaluate("--bag", path, "--preset", "warp", "--json", tmp_path / f"{name}.json") == 0
    printed = capsys.readouterr().out
    assert f"{bad}: 1 of {FRAMES + 1} images are not used, as the tracker refuses them" in printed and text in printed
    good_figures, bad_figures = figures(tmp_path / "good.json"), figures(tmp_path / "bad.json")
    for found in (good_figures, bad_figures):
        found["summary"].pop("fps")
    assert good_figures == bad_figures and good_figures["summary"]["frames"] == FRAMES - 2


class Slow(Recorded):
    """Recorded from a player at rate 1/4: stamps are 0.1 s apart, what was recorded 0.4 s."""

    period_ns = 4 * 10**8


def test_the_period_of_a_played_bag_is_that_of_its_recording(tmp_path):
    numbers = range(FRAMES)
    images, truths = [(10 + t, t) for t in numbers], [(10 + t, world.labels(t)) for t in numbers]
    with BagClip(write_bag(tmp_path / "bag", images, truths, channel=Slow)) as clip:
        assert clip.period_s == pytest.approx(0.1) and clip.played_period_s == pytest.approx(0.4)
        assert clip.log_ns(3) - clip.log_ns(0) == 3 * Slow.period_ns
