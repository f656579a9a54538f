# SPDX-License-Identifier: Apache-2.0
"""Lockstep replay to the real node of bags whose images it refuses or holds back: it never waits in vain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import world
from node_bench import NodeBench
from rosbags.rosbag2 import StoragePlugin, Writer
from test_evaluate_bag import IMAGE, IMAGE_TYPE, SEED, Recorded

from maskrnn_ros.cli import main
from maskrnn_ros.image_messages import label_image_data, stamp_to_ns
from maskrnn_ros.replay.image_news import ImageNews
from maskrnn_ros.replay.player import play

REMAP = {IMAGE: "/image", SEED: "/tracker/seed_mask"}
TIMEOUT_S = 60.0
"""Far longer than any answer takes: where it is waited for, a test fails by the reason given."""


def bag_of(path: Path, images: list[tuple[int, np.ndarray]]) -> Path:
    """Images (stamp, pixels) in the order in which they are recorded, and a seed on the world's frame 0."""
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        pictures, seeds = Recorded(writer, IMAGE, IMAGE_TYPE), Recorded(writer, SEED, IMAGE_TYPE)
        seeds.write_image(world.stamp_ns(0), label_image_data(world.labels(0), "mono8"), "mono8")
        for stamp_ns, pixels in images:
            pictures.write_image(stamp_ns, pixels, "rgb8")
    return path


def good(*numbers: int) -> list[tuple[int, np.ndarray]]:
    return [(world.stamp_ns(number), world.image(number)) for number in numbers]


def node() -> NodeBench:
    return NodeBench(world.exact_or_still_tracker, adaptation__method="none")


def stamps(bench: NodeBench) -> list[int]:
    return [stamp_to_ns(message.header.stamp) for message in bench.label_images]


def test_refused_images_are_said_at_once_and_cost_the_others_nothing(tmp_path: Path) -> None:
    wild = (world.stamp_ns(4) + 3600 * 10**9, world.image(4))
    small = (world.stamp_ns(6), np.zeros((40, 50, 3), np.uint8))
    images = [*good(0, 1, 3, 2, 4), wild, *good(5, 5), small, *good(7, 1, 8)]
    with node() as bench:
        report = play(bag_of(tmp_path / "bag", images), lockstep=True, remap=REMAP, timeout_s=TIMEOUT_S)
        numbers = [0, 1, 3, 4, 5, 7, 8]
        bench.wait(lambda: len(bench.label_images) == len(numbers))
        assert stamps(bench) == [world.stamp_ns(number) for number in numbers]
        np.testing.assert_array_equal(bench.labels, world.labels(8))
        assert bench.instances[-1].session == 1
        bench.wait(lambda: bench.statuses[-1].rejected == 5 and not bench.statuses[-1].waiting)
        assert (bench.statuses[-1].received, bench.statuses[-1].processed) == (len(images), len(numbers))
    expected = (
        "40 ms older than the newest",
        "3600 s ahead of",
        "the same 1200000000 ns again",
        "must be 128x96",
        "jump",
    )
    assert len(report.rejected_images) == len(expected) and report.held_images == 0
    for line, text in zip(report.rejected_images, expected, strict=True):
        assert text in line


def test_the_same_bag_a_second_time_on_the_same_node_needs_no_reset(tmp_path: Path) -> None:
    bag = bag_of(tmp_path / "bag", good(*range(8)))
    with node() as bench:
        for _ in range(2):
            report = play(bag, lockstep=True, remap=REMAP, timeout_s=TIMEOUT_S)
            assert (report.rejected_images, report.held_images) == ((), 0)
        bench.wait(lambda: len(bench.label_images) == 16)
        assert [message.session for message in bench.instances] == [1] * 8 + [2] * 8
        first, second = (bench.label_images[i : i + 8] for i in (0, 8))
        assert [bytes(m.data) for m in first] == [bytes(m.data) for m in second]
        np.testing.assert_array_equal(bench.labels, world.labels(7))


def test_what_is_held_back_to_the_end_is_said_and_the_command_ends_with_1(tmp_path: Path, capsys) -> None:
    ahead = [(world.stamp_ns(number) + 3600 * 10**9, world.image(number)) for number in (4, 5)]
    bag = bag_of(tmp_path / "bag", [*good(*range(4)), *ahead])
    with node() as bench:
        rules = [f"{name}:={other}" for name, other in REMAP.items()]
        assert main(["bag", "play", str(bag), "--lockstep", "--remap", *rules, "--json", str(tmp_path / "f.json")]) == 1
        assert "2 images gave no masks: time may have jumped before them" in capsys.readouterr().err
        bench.wait(lambda: len(bench.label_images) == 4)
        bench.wait(lambda: bench.statuses[-1].waiting == 2)
    assert '"held_images": 2' in (tmp_path / "f.json").read_text()


def test_news_of_another_image_or_of_before_decide_nothing() -> None:
    from diagnostic_msgs.msg import KeyValue

    from maskrnn_ros.msg import TrackerStatus

    def status(received: int, rejected: str = "", held: str = "", count: int = 0, **more: Any) -> TrackerStatus:
        details = [KeyValue(key="rejected_stamps", value=rejected), KeyValue(key="held_stamps", value=held)]
        return TrackerStatus(received=received, rejected=count, details=details, **more)

    news = ImageNews()
    news.hear(status(100, rejected="5 7", count=2))
    news.sends(7)
    assert news.hear(status(101, rejected="5 7", count=2)) == () and not news.is_decided, "said before it was sent"
    news.hear(status(100, held="7", rejected="5 7", count=2))
    assert not news.is_decided, "written before it came"
    lines = news.hear(status(101, rejected="5 7 7", count=3, last_error="image 7: why", event="image 9: other"))
    assert news.is_decided and lines == ("refused: image at 0.000000007 s: why",)
    news.sends(8)
    assert not news.is_decided
    news.hear(status(102, held="8", rejected="5 7 7", count=3, waiting=1))
    assert news.is_decided and news.held == {8} and news.is_settled
    news.sends(9)
    news.hear(status(103, held="8", rejected="5 7 7", count=3, waiting=2))
    assert news.held == {8} and not news.is_settled, "image 9, which is worked on, may decide about 8"
    news.hear(status(103, rejected="5 7 7 8", count=4, last_error="image 8: why"))
    assert not news.held and news.is_settled
