# SPDX-License-Identifier: Apache-2.0
"""`maskrnn evaluate --bag --online`: the real node, as a process, over real topics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import world
from test_evaluate_bag import some, write_bag

from maskrnn_ros.cli import main
from maskrnn_ros.datasets.clips import Clip
from maskrnn_ros.evaluation.online.score import OnlineRun, score_online
from maskrnn_ros.evaluation.streaming import Timeline
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import jaccard

FRAMES = 16
FPS = 10.0
ROS2 = """#!{python}
# does what `ros2 bag play` of rosbag2 0.26 does: it waits for nobody, but starts paused and has services
import argparse, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["bag"])
parser.add_argument("action", choices=["play"])
parser.add_argument("bag")
parser.add_argument("--rate", type=float, required=True)
for name in ("--topics", "--remap"):
    parser.add_argument(name, nargs="+", required=True)
parser.add_argument("--qos-profile-overrides-path", required=True)
for name in ("--disable-keyboard-controls", "--start-paused"):
    parser.add_argument(name, action="store_true", required=True)
args = parser.parse_args()
import rclpy, yaml
from std_srvs.srv import Empty
from sensor_msgs.msg import Image
from maskrnn_ros.bags.read import BagReader
from maskrnn_ros.ros.qos import reliable
offers = yaml.safe_load(open(args.qos_profile_overrides_path))
print(yaml.safe_dump(offers), file=open({log!r}, "w"))
if {exit!r}:
    sys.exit({exit!r})
rclpy.init(args=["--ros-args", *(word for rule in args.remap for word in ("--remap", rule))])
node = rclpy.create_node("rosbag2_player")
publishers = {{name: node.create_publisher(Image, name, reliable(offers[name]["depth"])) for name in args.topics}}
resumed = []
node.create_service(Empty, "~/resume", lambda request, response: resumed.append(1) or response)
while not resumed:
    rclpy.spin_once(node, timeout_sec=0.1)
with BagReader(args.bag) as reader:
    messages = [m for m in reader.messages(args.topics) if m.topic not in {lost!r}]
begin_s = time.monotonic()
for message in messages:
    due_s = begin_s + (message.log_ns - messages[0].log_ns) * 1e-9 / args.rate
    time.sleep(max(0.0, due_s - time.monotonic()))
    publishers[message.topic].publish(message.data)
from rclpy.duration import Duration
for publisher in publishers.values():
    publisher.wait_for_all_acked(Duration(seconds=30))
"""


def stand_in(folder: Path, lost: tuple[str, ...] = (), exit: int = 0) -> Path:
    """A folder with the command ros2 and the package rosbag2_interfaces; some topics are lost on their way."""
    (folder / "rosbag2_interfaces" / "srv").mkdir(parents=True)
    (folder / "rosbag2_interfaces" / "__init__.py").touch()
    # Resume has no fields, as Empty
    (folder / "rosbag2_interfaces" / "srv" / "__init__.py").write_text("from std_srvs.srv import Empty as Resume\n")
    (folder / "ros2").write_text(ROS2.format(python=sys.executable, log=str(folder / "qos"), lost=lost, exit=exit))
    (folder / "ros2").chmod(0o755)
    return folder


def needs_ros() -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")


def world_bag(path: Path) -> Path:
    images = [(10 + t, t) for t in range(FRAMES)]
    return write_bag(path, images, [(10 + t, world.labels(t)) for t in range(FRAMES)], [(10, world.labels(0))])


def online(bag: Path, out: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskrnn_ros", "evaluate", "--bag", str(bag), "--online", "--preset", "warp"]
    command += ["--out", str(out), "--json", f"{out}.json", *arguments]
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("player", "rate"), [("maskrnn", 1.0), ("ros2bag", 2.0)])
def test_the_node_is_scored_by_the_masks_that_it_published(tmp_path: Path, player: str, rate: float) -> None:
    needs_ros()
    fake = stand_in(tmp_path / "bin")
    bag, out = world_bag(tmp_path / "bag"), tmp_path / "out"
    done = online(bag, out, "--player", player, "--rate", str(rate), path=str(fake))
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(f"{out}.json").read_text())
    figures, streaming, summary = found["online"], found["streaming"], found["summary"]
    assert set(summary) <= set(figures) and figures["rate"] == rate
    assert figures["frames"] == summary["frames"] == FRAMES - 2 and figures["objects"] == summary["objects"] == 2
    assert 0 < figures["processed"] <= figures["played"] == FRAMES
    assert figures["drop_share"] == streaming["drop_share"] == pytest.approx(1 - figures["processed"] / FRAMES)
    assert 0 < figures["age_ms_p50"] <= figures["age_ms_p95"] and figures["fps"] > 0
    assert streaming["fps"] == pytest.approx(FPS * rate)
    masks = [read_labels(out / "online" / "bag" / f"{t:05d}.png") for t in range(FRAMES)]
    by_hand = [
        np.mean([jaccard(masks[t] == i, world.labels(t) == i) for t in range(1, FRAMES - 1)]) for i in world_ids()
    ]
    assert figures["j_mean"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert np.array_equal(masks[0], world.labels(0)) and masks[-1].any()
    if figures["processed"] == FRAMES:  # then time has changed nothing
        assert figures["j_mean"] == summary["j_mean"] and figures["f_mean"] == summary["f_mean"]
    for key in ("slack0", "slack1"):
        assert 0 < streaming[key]["j_mean"] <= 1
    page = (out / "report.html").read_text()
    assert "Histogram of the age" in page and ">online<" in page
    assert "slack 0" in done.stdout and f"online: at rate {rate:g} the node gave" in done.stdout
    if player == "ros2bag":  # it would offer what was recorded otherwise
        assert (fake / "qos").read_text().count("reliability: reliable") == 2


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"exit": 3}, "the player ended with exit status 3"),
        (
            {"lost": ("/camera/seed_mask",)},
            "expected the node to follow the seed: the message of its seed did not come",
        ),
    ],
)
def test_a_run_that_went_wrong_gives_no_online_scores_and_keeps_the_offline_ones(
    tmp_path: Path, fault: dict, text: str
) -> None:
    needs_ros()
    fake = stand_in(tmp_path / "bin", **fault)
    bag, out = world_bag(tmp_path / "bag"), tmp_path / "out"
    done = online(bag, out, "--player", "ros2bag", "--rate", "4", path=str(fake))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("maskrnn evaluate:")]
    assert text in line and "Traceback" not in done.stderr
    found = json.loads(Path(f"{out}.json").read_text())
    assert found["summary"]["j_mean"] > 0.5 and found.get("online") is None
    assert "online: at rate" not in done.stdout and (out / "report.html").is_file()


def world_ids() -> tuple[int, ...]:
    return tuple(shape.instance_id for shape in world.TWO)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--player", "ros2bag"], "--player ros2bag needs the command `ros2 bag`, found none"),
        (["--config", "CONFIG"], "mask_encoding must not be none"),
    ],
)
def test_what_cannot_run_online_is_said_in_one_line_before_anything_is_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    needs_ros()
    config = tmp_path / "none.yaml"
    config.write_text("/**:\n  ros__parameters:\n    mask_encoding: none\n")
    ros2 = tmp_path / "ros2"  # a ros2 without bag
    ros2.write_text("#!/bin/sh\nexit 2\n")
    ros2.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    bag, out = write_bag(tmp_path / "bag", **some("good")), tmp_path / "out"
    arguments = [argument.replace("CONFIG", str(config)) for argument in arguments]
    assert main(["evaluate", "--bag", str(bag), "--online", "--out", str(out), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert not out.exists()


class _World:
    """The synthetic world as a clip."""

    name = "world"

    def __len__(self) -> int:
        return 5

    def stem(self, number: int) -> str:
        return f"{number:05d}"

    place = stem

    def stamp_ns(self, number: int) -> int:
        return world.stamp_ns(number)

    def image(self, number: int) -> np.ndarray:
        return world.image(number)

    def truth(self, number: int) -> np.ndarray:
        return world.labels(number)

    seed = truth
    starts = {1: 0, 2: 0}

    def check(self) -> frozenset[int]:
        return frozenset({0, 1, 2})


def test_held_masks_wait_for_no_clock_and_streamed_ones_do() -> None:
    clip: Clip = _World()
    masks = {t: world.labels(t) for t in (0, 2, 3)}  # perfect ones; frames 1 and 4 were dropped
    line = Timeline(period_s=0.1, arrived_s=(1.0, 1.1, 1.2, 1.3, 1.4), out_s={0: 1.05, 2: 1.25, 3: 1.45})
    streaming, held = score_online(clip, "davis2017", OnlineRun(line=line, masks=masks, rate=1.0))

    def expected(shown: list[int]) -> list[list[float]]:
        return [[jaccard(world.labels(s) == i, world.labels(t) == i) for t, s in enumerate(shown, 1)] for i in (1, 2)]

    assert [list(scores.j) for scores in held.objects] == expected([0, 2, 3])
    assert [list(scores.j) for scores in streaming.slack0] == expected([0, 0, 2])
    assert [list(scores.j) for scores in streaming.slack1] == expected([0, 2, 2])
    assert (held.played, held.processed, streaming.dropped) == (5, 3, 2)
    assert held.fps == pytest.approx(3 / 0.45)
    assert held.ages_ms == pytest.approx((50, 50, 150))
