# SPDX-License-Identifier: Apache-2.0
"""``~/ignore_mask`` at the real node, and the same masks from files and bags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from node_bench import NodeBench  # skips where ROS is absent, hence first
from PIL import Image as Picture

# isort: split

from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import Image
from test_evaluate_bag import IMAGE, IMAGE_TYPE, SEED, TRUTH, Recorded

from maskrnn_ros.bags.topics import IGNORE_TOPIC
from maskrnn_ros.cli import main
from maskrnn_ros.config import to_flat, with_values
from maskrnn_ros.evaluation.bag_clip import BagClip
from maskrnn_ros.image_messages import label_image_data, labels_from_image, stamp_to_ns
from maskrnn_ros.labels import read_labels, write_labels
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.replay.player import play
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.tracker_node.ignore_masks import IgnoreMasks

REMAP = {IMAGE: "/image", SEED: "/tracker/seed_mask", IGNORE_TOPIC: "/tracker/ignore_mask"}
FRAMES = 6


def strip(number: int) -> np.ndarray:
    """An ignore mask uint8: an arm that comes from the left over the first shape, which moves to the right."""
    mask = np.zeros((world.HEIGHT, world.WIDTH), np.uint8)
    mask[:, : 22 + 4 * number] = 7
    return mask


class IgnoreBench(NodeBench):
    """A node and someone who publishes ignore masks."""

    def __enter__(self) -> IgnoreBench:
        super().__enter__()
        self.masks = self.client.create_publisher(Image, "/tracker/ignore_mask", reliable(20))
        self.wait(lambda: self.masks.get_subscription_count())
        return self

    def mask(self, stamp_ns: int, pixels: np.ndarray, encoding: str = "mono8") -> None:
        """Publish one and wait until the node has it."""
        before = int(self.details()["ignore_masks_received"])
        self.publish(self.masks, pixels, encoding, stamp_ns)
        self.wait(lambda: int(self.details()["ignore_masks_received"]) > before)

    def details(self) -> dict[str, str]:
        """Of a status that is written after this call."""
        return {entry.key: entry.value for entry in self.counts().details}

    def hidden(self, number: int) -> int:
        """How many columns of the first shape its mask on an image lacks, from the left."""
        self.image(number)
        columns = np.flatnonzero((self.labels == 1).any(axis=0))
        return int(columns[0]) - (20 + 2 * number)


@pytest.fixture
def bench() -> Iterator[IgnoreBench]:
    with IgnoreBench(world.exact_or_still_tracker, adaptation__method="none") as made:
        made.seed(world.labels(0), world.stamp_ns(0))
        yield made


def test_the_newest_that_is_not_newer_and_not_too_old_counts(bench: IgnoreBench) -> None:
    ms = 10**6  # images are 40 ms apart, a mask lasts for 200
    assert bench.hidden(0) == 0 and bench.details()["ignore_mask_age_ms"] == ""  # none is normal
    bench.mask(world.stamp_ns(1) + ms, strip(0))
    assert bench.hidden(1) == 0, "it is newer"
    bench.mask(world.stamp_ns(2) - 10 * ms, strip(1))
    bench.mask(world.stamp_ns(2) - 30 * ms, strip(0))  # later, and older
    assert bench.hidden(2) == 2 and bench.details()["ignore_mask_age_ms"] == "10.0"
    assert bench.hidden(6) == 2, "what was hidden is not known again to the flow alone"
    assert bench.details()["ignore_mask_age_ms"] == "170.0"
    bench.hidden(7)
    assert bench.details()["ignore_mask_age_ms"] == "", "it is too old"
    np.testing.assert_array_equal(bench.labels == 2, world.labels(7) == 2)


def test_what_cannot_be_used_is_refused_counted_and_costs_no_image(bench: IgnoreBench) -> None:
    bench.image(0)
    stamp = world.stamp_ns(1)
    bench.mask(stamp, strip(0).astype(np.uint16), "mono16")
    bench.mask(0, strip(0))
    bench.mask(stamp - 1, strip(2))  # of the right size, and older
    bench.mask(stamp, strip(0)[:-1])
    assert bench.hidden(1) == 8, "the one before counts"
    found = bench.details()
    assert (found["ignore_masks_received"], found["ignore_masks_rejected"]) == ("4", "3")
    status = bench.statuses[-1]
    assert (status.processed, status.rejected, status.seeds_applied) == (2, 0, 1)
    assert status.last_error == "ignore mask: must be 128x96 (width x height) like the image, got 128x95"
    bench.wait(lambda: any("ignore mask" in array.status[0].message for array in bench.diagnostics))


def test_a_seed_that_lies_wholly_in_it_is_rejected(bench: IgnoreBench) -> None:
    bench.image(0)
    bench.mask(world.stamp_ns(1), np.full_like(strip(0), 255))
    third = np.zeros((world.HEIGHT, world.WIDTH), np.int32)
    third[70:80, 10:30] = 3
    bench.seed(third, world.stamp_ns(1))
    bench.image(1)
    bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_REJECTED)
    assert "instance 3 lies wholly in the ignore mask" in bench.results[-1].reason
    assert not bench.labels.any() and [i.id for i in bench.instances[-1].instances] == [1, 2]


def test_masks_of_a_former_time_do_not_count_after_a_jump_back() -> None:
    said: list[str] = []
    masks = IgnoreMasks(10**6, lambda: 0.2, said.append)

    class Message:
        height, width, encoding, is_bigendian, step = 2, 3, "mono8", 0, 3
        data = bytes([1] * 6)

        def __init__(self, stamp_ns: int) -> None:
            class Stamp:
                sec, nanosec = divmod(stamp_ns, 10**9)

            class Header:
                stamp = Stamp

            self.header = Header

    for second in (100, 101, 102):
        masks.put(Message(second * 10**9))
    assert masks.of(102 * 10**9, (2, 3), era=0) is not None
    assert masks.of(90 * 10**9, (2, 3), era=1) is None
    assert masks.of(101 * 10**9, (2, 3), era=1) is None and said == []
    masks = IgnoreMasks(13, lambda: 0.2, said.append)
    for second in (1, 2, 3):
        masks.put(Message(second * 10**9))
    held = [masks.of(second * 10**9, (2, 3), era=0) is not None for second in (1, 2, 3)]
    assert held == [False, True, True], "memory is bounded"


# --- the same masks on every way ---


def write_bag(path: Path) -> Path:
    """Frames of the world with truth, seed and ignore masks; those are recorded last, as renderers are slow."""
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        channels = {topic: Recorded(writer, topic, IMAGE_TYPE) for topic in (IMAGE, TRUTH, SEED, IGNORE_TOPIC)}
        channels[SEED].write_image(world.stamp_ns(0), label_image_data(world.labels(0), "mono8"), "mono8")
        for number in range(FRAMES):
            channels[IMAGE].write_image(world.stamp_ns(number), world.image(number), "rgb8")
            truth = label_image_data(world.labels(number), "mono8")
            channels[TRUTH].write_image(world.stamp_ns(number), truth, "mono8")
        for number in range(1, FRAMES):
            channels[IGNORE_TOPIC].write_image(world.stamp_ns(number), strip(number), "mono8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Parts of the tracker that take little time, in a file and for a node; equal stamps as lockstep needs them."""
    values = to_flat(with_values(world.WARP_ONLY, device="cpu", ignore_mask_timeout=0.0))
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"/**": {"ros__parameters": values}}))
    return path, {name.replace(".", "__"): value for name, value in values.items()}


def test_files_bags_and_lockstep_give_the_same_masks(
    tmp_path: Path, config: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    bag, (file, parameters) = write_bag(tmp_path / "bag"), config
    frames, ignores = tmp_path / "frames", tmp_path / "ignore"
    frames.mkdir(), ignores.mkdir()
    for number in range(FRAMES):
        Picture.fromarray(world.image(number)).save(frames / f"{number:05d}.png")
        if number:
            Picture.fromarray(strip(number)).save(ignores / f"{number:05d}.png")
    write_labels(tmp_path / "seed.png", world.labels(0))
    common = ["--config", str(file)]
    files = ["--frames", str(frames), "--seed-mask", str(tmp_path / "seed.png"), *common]
    assert main(["track", *files, "--ignore-masks", str(ignores), "--out", str(tmp_path / "files")]) == 0
    assert f"{FRAMES - 1} of {FRAMES} frames have an ignore mask" in capsys.readouterr().out
    assert main(["evaluate", "--bag", str(bag), *common, "--out", str(tmp_path / "evaluated")]) == 0
    said = f"{FRAMES - 1} of {FRAMES} images have an ignore mask on {IGNORE_TOPIC}"
    assert said in capsys.readouterr().out
    with NodeBench(**parameters) as bench:
        report = play(bag, lockstep=True, remap=REMAP)
        assert not report.rejected_images and not report.rejected_seeds
        bench.wait(lambda: len(bench.label_images) == FRAMES)
        replayed = sorted(bench.label_images, key=lambda message: stamp_to_ns(message.header.stamp))
    for number in range(FRAMES):
        labels = read_labels(tmp_path / "files" / f"{number:05d}.png")
        np.testing.assert_array_equal(labels, read_labels(tmp_path / "evaluated/bag" / f"{number:05d}.png"))
        np.testing.assert_array_equal(labels, labels_from_image(replayed[number]))
        assert (labels == 1).any() and not (number and labels[strip(number) > 0].any())


def test_lockstep_takes_no_tracker_whose_masks_depend_on_what_came_before(
    tmp_path: Path, config: tuple[Path, dict[str, Any]]
) -> None:
    bag = write_bag(tmp_path / "bag")
    with NodeBench(**{**config[1], "ignore_mask_timeout": 0.5}) as bench:
        with pytest.raises(ValueError, match="lockstep needs .*ignore_mask_timeout 0 for ignore masks, .* has 0.5"):
            play(bag, lockstep=True, remap=REMAP)
        play(bag, lockstep=True, remap=REMAP, topics=[SEED])
        bench.wait(lambda: len(bench.label_images) == FRAMES)


def test_a_bag_is_scored_by_the_rule_of_the_node(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    with BagClip(bag, ignore_s=0.0) as clip:
        masks = [clip.ignored(number) for number in range(FRAMES)]
        assert masks[0] is None
        for number in range(1, FRAMES):
            np.testing.assert_array_equal(masks[number], strip(number) > 0)
    with pytest.raises(ValueError, match="has no topic /other"), BagClip(bag, ignore_topic="/other"):
        pass


def test_a_topic_that_the_bag_does_not_have_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag")
    assert main(["evaluate", "--bag", str(bag), "--ignore-topic", "/other", "--out", str(tmp_path / "out")]) == 2
    assert "has no topic /other" in capsys.readouterr().err
