# SPDX-License-Identifier: Apache-2.0
"""What the seeding tool asks of the tracker, and what it refuses."""

from __future__ import annotations

import array
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import world
from seed_bench import TIMEOUT_S, FakeTracker, SeedBench, connected  # skips where ROS is absent, hence first

# isort: split

import rclpy
from matplotlib.path import Path
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from maskrnn_ros.image_messages import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.ros.qos import client_node, spin_until
from maskrnn_ros.rviz_tool.menu import ENTRIES
from maskrnn_ros.rviz_tool.node import SeedTool
from maskrnn_ros.srv import AddInstances

WIDTH, HEIGHT = world.WIDTH, world.HEIGHT
TRIANGLE = ((10.3, 12.6), (100.2, 30.1), (40.7, 88.4))


def inside(vertices) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], 1)
    return Path([*vertices, vertices[0]]).contains_points(centres).reshape(HEIGHT, WIDTH)


@pytest.fixture
def tracker():
    return FakeTracker()


@pytest.fixture
def bench(tracker):
    with connected(tracker) as bench:
        yield bench


def test_a_polygon_becomes_a_new_instance_on_the_frozen_image(bench, tracker) -> None:
    sent = bench.image(world.image(0), world.stamp_ns(0), "optical")
    bench.image(world.image(1), world.stamp_ns(1))  # not frozen
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.choose("Close polygon")
    bench.wait(lambda: bench.shown("mask"))
    bench.choose("New instance")
    bench.wait(lambda: tracker.added)
    (request,) = tracker.added
    assert stamp_to_ns(request.stamp) == world.stamp_ns(0)
    assert request.image.header == sent.header
    np.testing.assert_array_equal(image_to_rgb(request.image), world.image(0))
    (prompt,) = request.prompts
    assert (prompt.id, prompt.mask.encoding) == (0, "mono8")  # 0: the tracker gives the id
    labels = labels_from_image(prompt.mask)
    np.testing.assert_array_equal(labels, np.where(inside(TRIANGLE), 255, 0))
    x, y = np.array(TRIANGLE).T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert (labels > 0).sum() == pytest.approx(area, rel=0.01)
    bench.wait(lambda: bench.masks)
    assert bench.masks[-1].header == sent.header
    np.testing.assert_array_equal(labels_from_image(bench.masks[-1]), np.where(inside(TRIANGLE), 7, 0))
    bench.wait(lambda: not bench.shown("mask"))  # ready for the next


def test_open_vertices_are_closed_when_sent(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    assert bench.trigger("new_instance").message == f"sent {inside(TRIANGLE).sum()} pixels as a new instance"
    bench.wait(lambda: tracker.added)
    np.testing.assert_array_equal(labels_from_image(tracker.added[0].prompts[0].mask) > 0, inside(TRIANGLE))


def test_results_are_shown_and_a_rejected_drawing_comes_back(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: bench.masks and not bench.shown("mask"))
    request = tracker.added[0]
    foreign = AddInstances.Request(token="that of another")
    tracker.result(foreign, SeedResult.STATUS_REJECTED, "not ours")
    tracker.result(request, SeedResult.STATUS_PENDING, "catches up 3 images")
    bench.wait(lambda: bench.text[:1] == ["instance 7: catches up 3 images"])
    tracker.result(request, SeedResult.STATUS_REJECTED, "the image is too old")
    bench.wait(lambda: bench.text[:1] == ["rejected: the image is too old"])
    bench.wait(lambda: bench.shown("mask"))
    np.testing.assert_array_equal(bench.node._drawing.mask, inside(TRIANGLE))
    bench.trigger("new_instance")
    bench.wait(lambda: len(bench.masks) == 2)
    tracker.result(tracker.added[1], SeedResult.STATUS_APPLIED)
    bench.wait(lambda: bench.text[:1] == ["instance 7 is tracked"] and not bench.shown("mask"))
    assert bench.status[1] == "last seed: applied"  # also when the instance is removed


def test_a_drawing_that_waited_in_a_tracker_that_was_started_again_comes_back(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: bench.masks and not bench.shown("mask"))
    tracker.result(tracker.added[0], SeedResult.STATUS_PENDING, "waits for the next image")
    bench.wait(lambda: bench.text[:1] == ["instance 7: waits for the next image"])
    tracker.live(bench, i3="")
    assert bench.text[:1] == ["instance 7: waits for the next image"]
    tracker.run_id = "the next run"
    tracker.live(bench, i4="")
    bench.wait(lambda: bench.text[:1] == ["rejected: the tracker was started again"])
    bench.wait(lambda: bench.shown("mask"))
    np.testing.assert_array_equal(bench.node._drawing.mask, inside(TRIANGLE))


def test_a_result_may_overtake_the_service_s_answer(bench, tracker) -> None:
    answer = tracker._add

    def result_first(request, response):
        tracker.result(request, SeedResult.STATUS_APPLIED)
        deadline = time.monotonic() + TIMEOUT_S
        while bench.node._answer != "instance 7 is tracked" and time.monotonic() < deadline:
            time.sleep(0.01)
        return answer(request, response)

    tracker.answer = result_first
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: tracker.added and bench.masks and not bench.shown("mask"))
    bench.corners((5, 5), width=WIDTH)
    assert len(bench.masks) == 1


def test_a_rejected_drawing_does_not_disturb_the_next(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: bench.masks and not bench.shown("mask"))
    bench.corners((5, 5), width=WIDTH)
    tracker.result(tracker.added[0], SeedResult.STATUS_REJECTED, "too old")
    bench.wait(lambda: bench.text[:1] == ["rejected: too old"])
    assert len(bench.vertices) == 1 and not bench.shown("mask")


def test_what_the_tracker_refuses_is_shown_and_the_drawing_stays(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    tracker.refuse = "expected at most 20 instances"
    bench.choose("New instance")
    bench.wait(lambda: bench.text[:1] == ["refused: expected at most 20 instances"])
    np.testing.assert_array_equal(bench.node._drawing.mask, inside(TRIANGLE))
    assert bench.masks == []


def test_a_correction_carries_the_id_by_menu_and_by_service(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.live(bench, i3="", i255="cup")  # 255 is an id as any other here
    bench.wait(lambda: len(bench.button.menu_entries) == len(ENTRIES) + 4)
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.choose("Correct instance", "255 cup")
    bench.wait(lambda: bench.masks)
    bench.corners(*TRIANGLE, width=WIDTH)
    refused = bench.trigger("correct_instance")
    assert (refused.success, refused.message) == (
        False,
        "instance_id must be one of the live instances [3, 255], got 0",
    )
    bench.node.set_parameters([Parameter("instance_id", value=3)])
    assert bench.trigger("correct_instance").success
    bench.wait(lambda: len(tracker.added) == 2)
    for request, instance_id in zip(tracker.added, (255, 3), strict=True):
        (prompt,) = request.prompts
        assert prompt.id == instance_id
        np.testing.assert_array_equal(labels_from_image(prompt.mask) != 0, inside(TRIANGLE))


def test_remove_and_reset_go_to_the_tracker(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.live(bench, i3="", i12="cup")
    bench.wait(lambda: len(bench.button.menu_entries) == len(ENTRIES) + 4)
    bench.choose("Remove instance", "3")
    bench.wait(lambda: bench.text[:1] == ["removed 3"])
    bench.node.set_parameters([Parameter("instance_id", value=12)])
    assert bench.trigger("remove_instance").success
    bench.wait(lambda: tracker.removed == [[3], [12]])
    tracker.refuse = "id 3 is unknown"
    bench.choose("Remove instance", "3")
    bench.wait(lambda: bench.text[:1] == ["refused: id 3 is unknown"])
    bench.corners((5, 5), width=WIDTH)
    bench.choose("Reset the tracker")
    bench.wait(lambda: tracker.resets == 1 and bench.text[:1] == ["the tracker is reset"])
    bench.wait(lambda: bench.vertices == [])


def test_grabcut_cuts_the_object_out_of_the_box(bench, tracker) -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(rng.normal(60, 6, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    truth = inside(((45, 30), (85, 34), (80, 70), (42, 66)))
    picture[truth] = (220, 90, 40)
    bench.image(picture, world.stamp_ns(0))
    bench.corners((36, 24), (92, 76), width=WIDTH)
    bench.choose("Cut out")
    bench.wait(lambda: bench.shown("mask"))
    found = bench.node._drawing.mask
    assert (found & truth).sum() / (found | truth).sum() > 0.95


MODES = ("click_mode", "draw_mode")


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.name not in MODES])
def test_without_a_tracker_and_an_image_every_service_says_what_is_missing(name) -> None:
    with SeedBench() as bench:
        bench.node.set_parameters([Parameter("instance_id", value=1)])
        answer = bench.trigger(name)
        assert not answer.success
        expected = {
            "correct_instance": "instance_id must be one of the live instances [], got 1",
            "remove_instance": "instance_id must be one of the live instances [], got 1",
            "reset": "nobody serves /tracker/reset: start the tracker, or remap to its name",
        }
        assert answer.message == expected.get(name, "there is no image on /image yet")
        if name == "new_instance":
            bench.image(world.image(0), world.stamp_ns(0))
            bench.corners(*TRIANGLE, width=WIDTH)
            assert "nobody serves /tracker/add_instances" in bench.trigger(name).message
            assert bench.shown("mask") or bench.vertices  # nothing is lost


def test_what_a_click_is_can_be_chosen_before_the_first_image() -> None:
    with SeedBench() as bench:
        for name in (*MODES, "draw_mode"):
            answer = bench.trigger(name)
            assert (answer.success, answer.message) == (True, "waiting for images on /image")
        bench.image(world.image(0), world.stamp_ns(0))
        bench.press(0.25, -0.5)
        bench.wait(lambda: len(bench.vertices) == 1)


def test_a_frozen_image_without_a_stamp_is_refused(bench, tracker) -> None:
    bench.image(world.image(0), 0)
    bench.corners(*TRIANGLE, width=WIDTH)
    assert "stamp of the frozen image must be > 0 ns" in bench.trigger("new_instance").message
    assert tracker.added == []


def test_compressed_images_and_those_that_cannot_be_read() -> None:
    with SeedBench(compressed=True) as bench:
        bench.stamped(CompressedImage(format="jpeg", data=array.array("B", b"no jpeg")), 5)
        bench.wait(lambda: bench.text and "cannot decode" in bench.text[0])
        done, data = cv2.imencode(".png", world.image(0)[..., ::-1])
        bench.stamped(CompressedImage(format="png", data=array.array("B", data.tobytes())), world.stamp_ns(0))
        bench.wait(lambda: bench.node._drawing is not None)
        np.testing.assert_array_equal(bench.node._drawing.image, world.image(0))


def test_an_image_that_cannot_be_read_does_not_take_the_frozen_one_away(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((5, 5), width=WIDTH)
    bench.stamped(Image(encoding="nonsense", width=1, height=1, step=1), 9)
    assert "encoding must be one of" in bench.trigger("freeze").message
    assert len(bench.vertices) == 1
    np.testing.assert_array_equal(bench.node._drawing.image, world.image(0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_reliability", "often", "image_reliability must be one of auto, reliable, best_effort, got 'often'"),
        ("prompts.backend", "magic", "prompt backend must be grabcut, learned or package.module:factory, got 'magic'"),
        ("compressed", 3, "compressed"),
    ],
)
def test_a_bad_parameter_stops_the_start(name, value, message) -> None:
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        with pytest.raises(ValueError, match=message):
            SeedTool(context=context, parameter_overrides=[Parameter(name, value=value)])
    finally:
        rclpy.shutdown(context=context)


SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "rviz_seed_tool"


def test_the_script_ends_cleanly_at_a_double_ctrl_c() -> None:
    with client_node("watcher") as (node, executor):
        command = [sys.executable, str(SCRIPT), "--ros-args", "-r", "__ns:=/left"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        name = "/left/rviz_seed_tool/seed/update"
        assert spin_until(executor, lambda: node.count_publishers(name) > 0, TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")


def test_the_script_says_in_one_line_why_it_cannot_start() -> None:
    command = [sys.executable, str(SCRIPT), "--ros-args", "-p", "prompts.backend:=magic"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    line = "rviz_seed_tool: prompt backend must be grabcut, learned or package.module:factory, got 'magic'\n"
    assert (result.returncode, result.stderr) == (1, line)
