# SPDX-License-Identifier: Apache-2.0
"""The node over a restart: an instance keeps its id, and what ends the process ends it in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from node_bench import TIMEOUT_S, NodeBench  # skips where ROS is absent, hence first

# isort: split

from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from maskrnn_ros.image_messages import fill_image, ns_to_stamp
from maskrnn_ros.masks import label_image
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.ros.ending import EXIT_CRASH
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_subscribers
from maskrnn_ros.tracker_node import node as node_module
from maskrnn_ros.tracking.state_file import NAME, from_bytes


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine the end of a process may leave no time for the last write."""
    monkeypatch.setattr(node_module, "_SAVE_S", TIMEOUT_S)


def bench(folder: Path, **parameters: object) -> NodeBench:
    return NodeBench(world.exact_or_still_tracker, persist_dir=str(folder), persist_period=0.1, **parameters)


def wait_for_write(running: NodeBench) -> None:
    before = running.node._store._writer.written
    running.wait(lambda: running.node._store._writer.written > before)


def seen(message: Any) -> list[tuple[int, int]]:
    return [(instance.id, instance.state) for instance in message.instances]


def test_a_node_that_is_started_again_takes_its_instances_up(tmp_path: Path) -> None:
    with bench(tmp_path) as first:
        first.seed(world.labels(0), world.stamp_ns(0))
        for number in range(3):
            before = first.image(number)
    assert (tmp_path / "tracker" / NAME).is_file()
    with bench(tmp_path) as second:
        after = second.image(3)
        assert seen(after) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]
        assert after.run_id != before.run_id and after.session == before.session + 1
        second.wait(lambda: any("instances [1, 2] taken up" in status.event for status in second.statuses))
        assert second.call(Trigger, "reset", Trigger.Request()).success
        assert seen(second.image(4)) == []
        wait_for_write(second)
    with bench(tmp_path) as third:
        assert seen(third.image(5)) == []


def test_a_cleanup_and_a_configure_are_a_restart(tmp_path: Path) -> None:
    with bench(tmp_path) as running:
        running.seed(world.labels(0), world.stamp_ns(0))
        running.image(0)
        for label in ("deactivate", "cleanup", "configure", "activate"):
            request = ChangeState.Request()
            request.transition.label = label
            assert running.call(ChangeState, "change_state", request).success
        running.wait(running.images.get_subscription_count)
        assert seen(running.image(1)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]


def test_a_torn_file_is_said_and_the_node_starts_without(tmp_path: Path) -> None:
    folder = tmp_path / "tracker"
    folder.mkdir()
    (folder / NAME).write_bytes(b"torn")
    with bench(tmp_path) as running:
        assert seen(running.image(0)) == []
        running.wait(lambda: "is refused and set aside as instances.refused" in running.statuses[-1].last_error)
        running.seed(world.labels(1), world.stamp_ns(1))
        running.image(1)
    assert (folder / "instances.refused").read_bytes() == b"torn" and (folder / NAME).is_file()


# --- the process ---


class Camera:
    """Publishes the world's images to a tracker in a process, and hears what it says."""

    def __init__(self, node: Any, executor: Any, namespace: str) -> None:
        self.executor = executor
        self.arrays: list[Any] = []
        self.results: list[Any] = []
        self.images = node.create_publisher(Image, f"{namespace}/image", reliable(5))
        self.seeds = node.create_publisher(Image, f"{namespace}/tracker/seed_mask", reliable(5))
        node.create_subscription(InstanceMaskArray, f"{namespace}/tracker/instances", self.arrays.append, reliable(50))
        node.create_subscription(SeedResult, f"{namespace}/tracker/seed_result", self.results.append, reliable(50))

    def publish(self, publisher: Any, pixels: np.ndarray, encoding: str, stamp_ns: int) -> None:
        message = Image()
        fill_image(message, pixels, encoding)
        ns_to_stamp(stamp_ns, message.header.stamp)
        publisher.publish(message)

    def image(self, number: int) -> None:
        """The world stands still: how many images are dropped says nothing of the masks then."""
        self.publish(self.images, world.image(0), "rgb8", world.stamp_ns(number))

    def wait(self, is_done: Any) -> None:
        assert spin_until(self.executor, lambda: bool(is_done()), 2 * TIMEOUT_S), "waited in vain"


HANGS = """
import threading, sys
from maskrnn_ros.tracking.tracker import Tracker
real, hang = Tracker.advance, threading.Event()
def advance(self, frame):
    if frame.size == (96, 128):  # no picture that warms it up
        print("hangs", file=sys.stderr, flush=True)
        hang.wait()
    return real(self, frame)
Tracker.advance = advance
"""
LOADS = """
import threading, sys
from maskrnn_ros.tracker_node import node
def build(config):
    print("hangs", file=sys.stderr, flush=True)
    threading.Event().wait()
node.TrackerNode.__init__.__defaults__ = (build,)
"""


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"from maskrnn_ros.tracker_node import __main__ as program\n{script}\nprogram.main()"
    return subprocess.Popen([sys.executable, "-c", code, "--ros-args", *arguments], stderr=subprocess.PIPE, text=True)


@pytest.fixture
def cleaned() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def lines_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    lines = []
    while text not in (line := process.stderr.readline()):
        lines.append(line)
        assert line or process.poll() is None, lines


@pytest.mark.faults
def test_ctrl_c_ends_a_start_that_never_ends_with_0(cleaned: list[Any]) -> None:
    process = started(LOADS)
    cleaned.append(process)
    lines_until(process, "hangs")
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 0


@pytest.mark.faults
@pytest.mark.parametrize("limit_s", [0.0, 2.0])
def test_a_step_that_never_returns_ends_the_process_with_a_status_of_its_own(
    limit_s: float, cleaned: list[Any]
) -> None:
    """By Ctrl-C, whose worker must be abandoned, and by the watchdog, without anybody."""
    process = started(HANGS, "-r", "__ns:=/hung", "-p", f"watchdog.worker_s:={limit_s}")
    cleaned.append(process)
    lines_until(process, "active on")
    with client_node("camera") as (node, executor):
        camera = Camera(node, executor, "/hung")
        wait_for_subscribers(executor, (camera.images, camera.seeds), 2 * TIMEOUT_S)
        camera.image(0)
        lines_until(process, "hangs")
        if not limit_s:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=2 * TIMEOUT_S)
    assert process.returncode == EXIT_CRASH, errors
    assert ("the worker hangs" if limit_s else "is abandoned") in errors


@pytest.mark.faults
def test_the_watchdog_leaves_out_a_time_in_which_the_process_was_stopped(cleaned: list[Any]) -> None:
    process = started(HANGS, "-r", "__ns:=/stopped", "-p", "watchdog.worker_s:=5.0")
    cleaned.append(process)
    lines_until(process, "active on")
    with client_node("camera") as (node, executor):
        camera = Camera(node, executor, "/stopped")
        wait_for_subscribers(executor, (camera.images, camera.seeds), 2 * TIMEOUT_S)
        camera.image(0)
        lines_until(process, "hangs")
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(30.0)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=2 * TIMEOUT_S)
    assert process.returncode == EXIT_CRASH, errors
    (silent_s,) = set(re.findall(r"the worker hangs: .*no progress for ([0-9.]+) s", errors))
    assert 5.0 <= float(silent_s) < 30.0


def has_instances(file: Path) -> bool:
    """Whether a file of saved instances is there and has any."""
    return file.is_file() and bool(from_bytes(file.read_bytes()).instances)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_ten_kills_under_load_and_every_time_the_same_instances(
    tmp_path: Path, cleaned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 at any moment of writing, while images come faster than they are taken."""
    # With shared memory 1 of 14 restarted nodes never heard the camera (docs/troubleshooting.md). The range LOCALHOST
    # makes rmw_fastrtps choose the transports itself.
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    number, file = 0, tmp_path / "killed" / "tracker" / NAME
    arguments = ("-r", "__ns:=/killed", "-p", f"persist_dir:={tmp_path}", "-p", "persist_period:=0.1")
    with client_node("camera") as (node, executor):
        camera = Camera(node, executor, "/killed")
        for kill in range(11):
            process = started("", *arguments)
            cleaned.append(process)
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            lines_until(process, "active on")
            drain.start()
            wait_for_subscribers(executor, (camera.images, camera.seeds), 2 * TIMEOUT_S)
            if not kill:
                camera.publish(camera.seeds, world.labels(0).astype(np.uint16), "mono16", world.stamp_ns(0))
            camera.arrays.clear()
            deadline = time.monotonic() + TIMEOUT_S  # a seed takes a while, and images without instances pass meanwhile
            # before the first kill the seed has been written once: masks may come first
            while len(camera.arrays) < 5 + kill or not camera.arrays[-1].instances or not has_instances(file):
                assert time.monotonic() < deadline, (kill, len(camera.arrays))
                camera.image(number)  # faster than it can take them
                number += 1
                spin_until(executor, lambda: False, 0.02)
            last = camera.arrays[-1]
            assert [instance.id for instance in last.instances] == [1, 2], kill
            labels = label_image(last)
            for i in (1, 2):
                one, true = labels == i, world.labels(0) == i
                assert (one & true).sum() / (one | true).sum() > 0.5, (kill, i)
            if kill:
                assert last.session == kill + 1
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert not file.with_name("instances.refused").exists()
