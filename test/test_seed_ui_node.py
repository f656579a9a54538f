# SPDX-License-Identifier: Apache-2.0
"""The seed editor's JSON interface against the real tracker."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ros_env
import world
from node_bench import NodeBench
from seed_ui_bench import SeedUi, image, looks_at, requests_of
from std_srvs.srv import SetBool

from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.overlay import colour
from maskrnn_ros.seed_ui.node import INTERFACES
from maskrnn_ros.seed_ui.pictures import mask_of, runs_of
from maskrnn_ros.seed_ui.watch import Seeds, instance_rows


def seed(ui: SeedUi, number: int, mask: np.ndarray, target: int = 0, name: str = "") -> tuple[int, Any]:
    body = {"stamp": str(world.stamp_ns(number)), "runs": runs_of(mask), "target": target, "name": name}
    return ui.post("/api/seed", body)


def test_a_seed_reaches_the_tracker_to_the_pixel_and_can_be_corrected_and_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = requests_of(monkeypatch)
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        image(bench, ui, 0)
        assert ui.mask(0, 1) == [world.HEIGHT * world.WIDTH]
        exact = world.labels(0) == 2
        status, said = seed(ui, 0, exact, name="cup")
        assert (status, said["ids"]) == (200, [1])
        bench.wait(lambda: ui.seed_of(said["token"])["status"] == "applied")

        ((sent, frame),) = taken
        (item,) = sent.prompted
        assert (sent.stamp_ns, item.instance_id, item.name) == (world.stamp_ns(0), 0, "cup")
        assert np.array_equal(item.prompt.mask, exact)
        assert np.array_equal(frame.image, world.image(0))

        image(bench, ui, 1)
        bench.wait(lambda: [row["name"] for row in ui.state["instances"]] == ["cup"])
        (row,) = ui.state["instances"]
        assert (row["id"], row["state"], row["colour"]) == (1, "TRACKING", list(colour(1)))
        assert np.array_equal(mask_of(ui.mask(1, 1) or [], world.HEIGHT, world.WIDTH), bench.labels == 1)

        status, said = seed(ui, 1, world.labels(1) == 1, target=1)
        assert (status, said["ids"]) == (200, [1])
        bench.wait(lambda: ui.seed_of(said["token"])["status"] == "applied")
        (item,) = taken[-1][0].prompted
        assert item.instance_id == 1 and np.array_equal(item.prompt.mask, world.labels(1) == 1)
        bench.image(2)
        assert np.array_equal(bench.labels, world.labels(2) == 1)

        assert ui.post("/api/remove", {"id": 1}) == (200, {})
        bench.wait(lambda: not ui.state["instances"])  # without a further image
        status, said = ui.post("/api/remove", {"id": 1})
        assert status == 400 and "ids to remove must be among" in said["error"]


def test_a_frozen_image_that_the_tracker_dropped_still_works() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        image(bench, ui, 0)
        bench.call(SetBool, "enable", SetBool.Request(data=False))
        bench.publish_image(1)  # the tracker leaves it out
        bench.wait(lambda: ui.post("/api/freeze", {"stamp": str(world.stamp_ns(1))})[0] == 200)
        bench.call(SetBool, "enable", SetBool.Request(data=True))
        bench.image(2)
        _, said = seed(ui, 1, world.labels(1) == 1)
        bench.wait(lambda: ui.seed_of(said["token"])["status"] == "applied")
        bench.image(3)
        assert np.array_equal(bench.labels, world.labels(3) == 1)


def test_a_frozen_image_that_is_older_than_the_buffer_is_told_and_its_seed_taken() -> None:
    with NodeBench(world.exact_or_still_tracker, buffer__seconds=0.1) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        image(bench, ui, 0)
        assert ui.post("/api/freeze", {"stamp": str(world.stamp_ns(0))})[0] == 200
        for number in range(1, 8):
            bench.image(number)
        _, said = seed(ui, 0, world.labels(0) == 1)
        bench.publish_image(8)
        bench.wait(lambda: ui.seed_of(said["token"])["status"] == "applied")
        assert int(ui.state["status"]["oldest"]) > world.stamp_ns(0)  # so the page can tell before


def test_reset_forgets_all() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        image(bench, ui, 0)
        assert seed(ui, 0, world.labels(0) == 1)[0] == 200
        image(bench, ui, 1)
        bench.wait(lambda: len(ui.state["instances"]) == 1)
        assert ui.post("/api/reset", {}) == (200, {})
        bench.wait(lambda: not ui.state["instances"] and ui.state["status"]["session"] == 2)


def test_instance_255_is_corrected_as_any_other() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        image(bench, ui, 0)
        for number in (1, 2):
            status, said = seed(ui, 0, world.labels(0) == number, target=255)
            assert (status, said["ids"]) == (200, [255])
            bench.wait(lambda token=said["token"]: ui.seed_of(token)["status"] == "applied")
        image(bench, ui, 1)
        assert np.array_equal(bench.labels, np.where(world.labels(1) == 2, 255, 0))


def test_compressed_images_are_shown() -> None:
    with NodeBench(compressed=True, adaptation__method="none") as bench, SeedUi() as ui:
        looks_at(bench, ui)
        assert ui.state["image_topic"] == "/image/compressed"


def test_without_a_tracker_it_says_so_and_recovers() -> None:
    ros_env.leave_domain()
    with SeedUi() as ui:
        assert "tracker" in ui.state["trouble"]
        status, said = ui.post("/api/reset", {})
        assert status == 503 and "nobody serves /tracker/reset" in said["error"]
        with NodeBench(world.exact_or_still_tracker, joins=True) as bench:
            looks_at(bench, ui)
            bench.wait(lambda: ui.state["trouble"].startswith("no image on /image"))
            image(bench, ui, 0)
            bench.wait(lambda: not ui.state["trouble"])
        wait(lambda: ui.state["trouble"].startswith(("no tracker", "the tracker")))  # it has gone again


def wait(is_done: Callable[[], bool]) -> None:
    """Without a bench whose executor spins."""
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_ctrl_c_ends_the_command_and_a_taken_port_is_one_line() -> None:
    command = [sys.executable, "-m", "maskrnn_ros", "seed-ui", "--port"]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline().partition("localhost:")[2].split()[0]
        taken = subprocess.run([*command, port], capture_output=True, text=True, timeout=60)
        assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)
        assert "cannot listen on 127.0.0.1" in taken.stderr
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=60), process.stderr.read()) == (0, "")


def test_the_list_follows_the_status_where_no_image_comes() -> None:
    message = InstanceMaskArray(session=2, instances=[InstanceMask(id=1, state=2), InstanceMask(id=4, state=5)])

    def rows(status: Any, message: Any = message) -> list[tuple[int, str]]:
        return [(row["id"], row["state"]) for row in instance_rows(message, status)]

    assert rows(None) == [(1, "TRACKING")]
    assert rows(TrackerStatus(session=2, ids=[1, 7])) == [(1, "TRACKING"), (7, "WAITING")]
    assert rows(TrackerStatus(session=2)) == []
    assert rows(TrackerStatus(session=3, ids=[1])) == [(1, "WAITING")]
    assert rows(TrackerStatus(session=1)) == [(1, "TRACKING")]  # the status is late
    assert rows(TrackerStatus(session=2, ids=[1]), None) == [(1, "WAITING")]
    for session in (1, 2, 3):  # the tracker was started again: its 1 is another object
        assert rows(TrackerStatus(run_id="another", session=session, ids=[1])) == [(1, "WAITING")]


def test_seeds_of_others_are_told_from_ours() -> None:
    seeds = Seeds()
    seeds.sent("ours")
    for token, frame_id in (("ours", ""), ("", "ours")):  # of a topic: whatever its frame_id says
        result = SeedResult(token=token, status=SeedResult.STATUS_APPLIED, ids=[3])
        result.header.frame_id = frame_id
        seeds.on_result(result)
    assert [(seed["ours"], seed["status"], seed["ids"]) for seed in seeds.report()] == [
        (True, "applied", [3]),
        (False, "applied", [3]),
    ]


def test_a_seed_that_waited_in_another_run_of_the_tracker_is_lost_with_it() -> None:
    seeds = Seeds()
    for token, status in (("waits", SeedResult.STATUS_PENDING), ("done", SeedResult.STATUS_APPLIED)):
        seeds.sent(token)
        seeds.on_result(SeedResult(token=token, status=status, run_id="first"))
    seeds.sent("on its way")
    seeds.on_run("first")
    assert [seed["status"] for seed in seeds.report()] == ["pending", "applied", "pending"]
    seeds.on_run("second")
    found = [(seed["status"], seed["reason"]) for seed in seeds.report()]
    assert found == [("rejected", "the tracker was started again"), ("applied", ""), ("pending", "sent")]


def test_the_interfaces_are_those_that_the_node_has() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench, SeedUi() as ui:
        looks_at(bench, ui)
        listed = {(f"/{item.name.lstrip('/')}", item.type.replace("/", "/msg/")) for item in INTERFACES}

        def found() -> set[tuple[str, str]]:
            names = bench.client.get_subscriber_names_and_types_by_node("maskrnn_seed_ui", "/")
            return {(name, kind) for name, kinds in names for kind in kinds}

        bench.wait(lambda: len(found()) >= len(listed))  # who subscribes is known later than how many do
        assert found() == listed
