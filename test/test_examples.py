# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/examples.md and of the tutorials, each as a process beside the real node."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import world
from node_bench import NodeBench  # skips where ROS is absent, hence first

# isort: split

from sensor_msgs.msg import Image, RegionOfInterest

from maskrnn_ros.image_messages import fill_image, stamp_to_ns
from maskrnn_ros.masks import MaskEncoding, encode
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray
from maskrnn_ros.types import InstanceState

TRACKING, OCCLUDED, LOST = InstanceState.TRACKING, InstanceState.OCCLUDED, InstanceState.LOST

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [(DOCS / name).read_text() for name in ("examples.md", "tutorials/pose_and_grasp.md")]
PROGRAMS = {
    re.match(r"# (\w+)\.py", text).group(1): text
    for page in PAGES
    for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
}


class Program:
    """One of the programs, and what it has printed so far."""

    def __init__(self, name: str, folder: Path) -> None:
        command = [sys.executable, "-c", PROGRAMS[name], "--ros-args", "-r", "/camera/color/image_raw:=/image"]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def begin(name: str) -> Program:
        started.append(Program(name, tmp_path))
        return started[-1]

    yield begin
    for program in started:
        program.end()


def wait(bench: NodeBench, program: Program, is_done: Callable[[], object]) -> None:
    bench.wait(lambda: is_done() or program.process.poll() is not None)
    assert is_done(), "".join(program.lines)


def subscribers(bench: NodeBench, topic: str) -> int:
    return bench.node.count_subscribers(topic)


def play(bench: NodeBench, program: Program, topic: str, already: int) -> None:
    """Wait for the program's subscription, then mark both objects and publish three images."""
    wait(bench, program, lambda: subscribers(bench, topic) > already)
    bench.seed(world.labels(0), world.stamp_ns(0))
    for number in range(3):
        bench.image(number)


def test_there_are_as_many_programs_as_tests() -> None:
    assert set(PROGRAMS) == {"follow", "mark", "events", "cutout", "labels", "pose_mask"}


def test_follow(start) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        program = start("follow")
        play(bench, program, "/tracker/instances", 1)
        wait(bench, program, lambda: len(program.lines) >= 3)
        shape = world.TWO[0]
        boxes = [(shape.x + n * shape.dx, shape.y + n * shape.dy, shape.width, shape.height) for n in range(3)]
        states = ("SEEDED", "TRACKING", "TRACKING")
        assert program.lines == [f"{state} {box} score 1.00\n" for state, box in zip(states, boxes, strict=True)]


def test_mark(start) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.image(0)
        program = start("mark")
        wait(bench, program, lambda: bench.results)  # the first says that it waits
        assert not program.lines and bench.results[0].token
        wait(bench, program, lambda: subscribers(bench, "/tracker/seed_result") > 1)
        bench.image(1)
        wait(bench, program, lambda: program.lines)
        assert program.lines == ["followed as [1]\n"]
        (cup,) = bench.image(2).instances
        assert (cup.id, cup.label) == (1, "cup")
        exact = world.labels(2) == 1
        assert (exact & (bench.labels == 1)).sum() > 0.8 * exact.sum()


def test_events(start) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        program = start("events")
        play(bench, program, "/tracker/events", 0)
        wait(bench, program, lambda: len(program.lines) >= 4)
        assert program.lines[0] == "1 : nothing -> SEEDED\n"
        assert program.lines[2] == "1 : SEEDED -> TRACKING\n"


def read(file: Path) -> np.ndarray | None:
    """The picture; None while there is none, or only a part of it."""
    found = cv2.imread(str(file)) if file.exists() else None
    return None if found is None else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def publish_still(bench: NodeBench, stamp_ns: int) -> None:
    """The third image of the world again, and wait for its masks."""
    bench.publish(bench.images, world.image(2), "rgb8", stamp_ns)
    bench.wait(lambda: stamp_to_ns(bench.instances[-1].header.stamp) == stamp_ns)


def test_cutout(start, tmp_path: Path) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        program = start("cutout")
        wait(bench, program, lambda: subscribers(bench, "/image") > 1)
        play(bench, program, "/tracker/instances", 1)
        shape = world.TWO[0]
        expected = world.texture(1, shape.height, shape.width)
        for number in range(3, 200):  # all stands still: the file may be whole only some images later
            if np.array_equal(read(tmp_path / "cutout.png"), expected):
                return
            assert program.process.poll() is None, "".join(program.lines)
            publish_still(bench, world.stamp_ns(number))
        pytest.fail("no cutout.png of the object")


def test_labels(start) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        program = start("labels")
        play(bench, program, "/tracker/instances", 1)
        wait(bench, program, lambda: len(program.lines) >= 3)
        areas = {shape.instance_id: shape.width * shape.height for shape in world.TWO}
        for line in program.lines[:3]:
            counts, corners = ast.literal_eval(line.replace("} [", "}, ["))
            assert (counts, corners) == (areas, [4, 4])


def test_a_pose_estimator_is_registered_again_after_an_occlusion(capsys: pytest.CaptureFixture[str]) -> None:
    """Told by a stand-in for the tracker, since the states are what matters; three topics have no order among them."""
    space: dict[str, Any] = {}
    exec(PROGRAMS["pose_mask"].partition("rclpy.init")[0], space)
    keeper = space["Keeper"]()
    for number, state in enumerate([TRACKING, TRACKING, OCCLUDED, LOST, TRACKING, TRACKING]):
        image, depth = np.zeros((96, 128, 3), np.uint8), np.full((96, 128), 500, np.uint16)
        keeper.keep(keeper.images, stamped(Image(), number, image, "rgb8"))
        keeper.keep(keeper.depths, stamped(Image(), number, depth, "16UC1"))
        keeper.on_instances(stamped(masks_of(state), number))
    keeper.on_instances(stamped(masks_of(TRACKING), 100))  # its image was lost
    register = "register with 480 pixels at 0.50 m"
    said = [register, "track", "hidden: the pose is not valid", register, "track"]
    assert capsys.readouterr().out.splitlines() == said


def stamped(message: Any, number: int, pixels: np.ndarray | None = None, encoding: str = "") -> Any:
    message.header.stamp.sec = number + 1
    if pixels is not None:
        fill_image(message, pixels, encoding)
    return message


def masks_of(state: int) -> InstanceMaskArray:
    """One instance in that state, of 24x20 pixels where it is visible."""
    one = InstanceMask(id=1, state=state, score=0.9)
    if state == TRACKING:
        one.box = RegionOfInterest(x_offset=20, y_offset=20, width=24, height=20)
        one.area, one.encoding = 480, int(MaskEncoding.MONO8)
        one.data = encode(np.ones((20, 24), bool), None, MaskEncoding.MONO8)
    return InstanceMaskArray(image_height=96, image_width=128, instances=[one])
