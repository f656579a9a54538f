# SPDX-License-Identifier: Apache-2.0
"""`maskrnn benchmark --soak` and `--persist`: what they count, and that no request is lost. No test looks at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from maskrnn_ros.benchmark import soak_report
from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.benchmark.soak import Plan, Sample, Soak, _Ears, _Log, _Truth, owed, process_figures
from maskrnn_ros.benchmark.soak_camera import Requests
from maskrnn_ros.image_messages import ns_to_stamp
from maskrnn_ros.masks import MaskEncoding
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.ros.ending import EXIT_CRASH

QUICK = """
/**:
  ros__parameters:
    working_size: 192
"""
PLAN = Plan(width=160, height=90, objects=1, rate=2.0, seconds=600.0, sample_s=5.0)


def sample(t_s: float, **figures: Any) -> Sample:
    known = {"rss_mb": 400.0, "threads": 20, "descriptors": 28, "cpu_s": t_s, "sent": 10, "masks": 8}
    known |= {"age_ms": (50.0, 90.0), "step_ms_p50": 40.0, "instances": 2, "iou": 0.9}
    return Sample(t_s=t_s, **{**known, **figures})


def test_growth_is_that_of_the_line_after_the_warm_up() -> None:
    soak = Soak(plan=PLAN, samples=[sample(t, rss_mb=200 + t) for t in range(5, 150, 5)])
    soak.samples += [sample(t, rss_mb=400 + t / 3600 * 12) for t in range(150, 605, 5)]
    found = soak_report.summary(soak)
    assert found["rss_mb_per_hour"] == pytest.approx(12)
    assert found["rss_mb"] == {"first": 400.5, "last": 402.0, "most": 402.0}
    assert found["dropped_share"] == pytest.approx(0.2)
    assert found["cpu_ms_per_mask"] == pytest.approx(5_000 / 8)


def test_ages_are_those_of_the_first_and_of_the_last_tenth() -> None:
    soak = Soak(plan=PLAN, samples=[sample(100.0)], ages=[(5.0, 10.0), (9.0, 20.0), (50.0, 1_000.0), (95.0, 30.0)])
    found = soak_report.summary(soak)
    assert found["age_ms_first_tenth"] == pytest.approx((15.0, 19.5))
    assert found["age_ms_last_tenth"] == (30.0, 30.0)


def test_a_request_without_an_outcome_is_said() -> None:
    soak = Soak(plan=PLAN, samples=[sample(5.0)])
    soak.asked = {"add 0": "add", "correct 1": "correct", "remove 2": "remove", "add 3": "add", "correct 4": "correct"}
    soak.answered = {"add 0": "taken", "correct 1": "taken", "remove 2": "taken", "add 3": "too many"}
    soak.verdicts = {"add 0": "applied"}
    assert owed(soak) == ["correct 1", "correct 4"]
    rows = soak_report.summary_rows(soak_report.summary(soak))
    assert any("2 add, 2 correct, 1 remove; 1 seeds applied, 1 refused, 2 without an outcome" in row for row in rows)
    assert "    add 3: too many" in rows and "    correct 4: no outcome" in rows


def test_a_line_for_every_minute() -> None:
    soak = Soak(plan=PLAN)
    lines = []
    for t in range(5, 125, 5):
        soak.samples.append(sample(float(t)))
        lines.append(soak_report.minute_row(soak))
    assert [line.split()[0] for line in lines if line] == ["1", "2"]
    assert [t for t, line in zip(range(5, 125, 5), lines, strict=True) if line] == [60, 120]
    assert lines[-1] is not None and lines[-1].split()[1:6] == ["400", "20", "28", "1.6", "20.0%"]


def test_the_plot_takes_samples_without_masks(tmp_path: Path) -> None:
    soak = Soak(plan=PLAN, samples=[sample(5.0), sample(10.0, masks=0, age_ms=None, iou=None)])
    soak_report.plot_soak(soak, tmp_path / "soak.png")
    assert cv2.imread(str(tmp_path / "soak.png")).shape[0] > 300


def array(stamp_ns: int, *instances: InstanceMask) -> InstanceMaskArray:
    message = InstanceMaskArray(image_width=160, image_height=90, instances=list(instances))
    ns_to_stamp(stamp_ns, message.header.stamp)
    return message


def test_an_instance_becomes_lost_once_for_every_time_it_was_found() -> None:
    soak = Soak(plan=PLAN)
    ears = _Ears("/tracker", soak)
    states = [InstanceMask.STATE_LOST, InstanceMask.STATE_LOST, InstanceMask.STATE_TRACKING, InstanceMask.STATE_LOST]
    for state in states:
        ears.on_instances(array(1, InstanceMask(id=1, state=state)))
    assert (soak.lost, soak.lost_images, len(soak.ages)) == (2, 3, 4)
    for status, reason in ((SeedResult.STATUS_PENDING, "waits"), (SeedResult.STATUS_REJECTED, "too late")):
        ears.on_result(SeedResult(token="add 0", status=status, reason=reason))
    assert soak.verdicts == {"add 0": "too late"}


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    soak, file = Soak(plan=PLAN), tmp_path / "log"
    with file.open("w") as writing, file.open() as reading:
        log = _Log(reading, soak)
        writing.write('100 0\n{"asked": "add 0", "kind": "add"}\n2')
        writing.flush()
        log.read()
        assert (log.sent, log.numbers, soak.asked) == (1, {100: 0}, {"add 0": "add"})
        writing.write('00 1\n{"answered": "add 0", "success": false, "message": "no", "ids": []}\n')
        writing.flush()
        log.read()
    assert (log.sent, log.numbers, soak.answered) == (2, {100: 0, 200: 1}, {"add 0": "no"})


def test_masks_are_compared_with_the_object_that_they_are_of() -> None:
    plan = Plan(width=160, height=90, objects=1, rate=2.0, seconds=1.0)
    labels = Scene(160, 90, 2).labels(3)

    def instance(instance_id: int, body: int) -> InstanceMask:
        mask = InstanceMask(id=instance_id, encoding=MaskEncoding.MONO8, state=InstanceMask.STATE_TRACKING)
        mask.box.width, mask.box.height = 160, 90
        mask.data, mask.area = np.where(labels == body, 255, 0).astype(np.uint8).ravel(), int((labels == body).sum())
        return mask

    truth = _Truth(plan)
    assert truth.iou(array(1, instance(1, 1), instance(7, 2)), 3) == 1.0  # whatever its id, it is the last object
    assert truth.iou(array(1, instance(1, 2), instance(7, 1)), 3) == 0.0
    assert truth.iou(array(1), 3) is None


def test_the_process_is_read_from_the_kernel() -> None:
    found = process_figures(os.getpid())
    assert found["rss_mb"] > 10 and found["threads"] >= 1 and found["descriptors"] >= 3 and found["cpu_s"] > 0
    ended = subprocess.Popen([sys.executable, "-c", "0"])
    ended.wait()
    with pytest.raises(RuntimeError, match="the node's process has ended"):
        process_figures(ended.pid)


class Clients:
    """Instead of a node: keeps what is asked, and answers at once."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def create_client(self, kind: Any, name: str) -> Clients:
        return self

    def call_async(self, request: Any) -> Clients:
        self.requests.append(request)
        return self

    def add_done_callback(self, answered: Any) -> None:
        answered(self)

    def result(self) -> Any:
        return type("Answer", (), {"success": True, "message": "", "ids": [40 + len(self.requests)]})()


def test_each_request_marks_the_object_that_its_instance_is() -> None:
    scene, clients = Scene(160, 90, 3), Clients()
    requests = Requests(scene, clients, "/tracker")
    for number in range(9):
        requests.ask(1 + number, number)
    said = []
    for number, request in enumerate(clients.requests):
        if hasattr(request, "prompts"):
            (prompt,) = request.prompts
            mask = np.frombuffer(bytes(prompt.mask.data), np.uint8).reshape(90, 160) != 0
            (body,) = np.unique(scene.labels(number)[mask])
            assert np.array_equal(mask, scene.labels(number) == body)
            said.append((prompt.id, int(body)))
        else:
            said.append(tuple(request.ids))
    assert said == [(0, 3), (1, 1), (41,), (0, 3), (2, 2), (44,), (0, 3), (47, 3), (47,)]


def test_a_soak_of_seconds_loses_no_request(tmp_path: Path) -> None:
    config, file, plot = tmp_path / "quick.yaml", tmp_path / "figures.json", tmp_path / "soak.png"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--objects", "1", "--size", "160x90", "--skip-runs"]
    command += ["--soak", "0.2", "--rates", "5", "--config", str(config), "--json", str(file), "--plot", str(plot)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    soak = json.loads(file.read_text())["soak"]
    found = soak["summary"]
    assert found["requests"]["add"] >= 1 and found["requests"]["correct"] >= 1
    assert found["owed"] == [] and found["failure"] == ""
    assert found["exit_status"] in (0, EXIT_CRASH), "at most: the step in hand did not end in time"
    assert 0 < sum(each["masks"] for each in soak["samples"]) <= sum(each["sent"] for each in soak["samples"])
    assert len(soak["samples"]) >= 2 and all(each["threads"] > 1 for each in soak["samples"])
    assert cv2.imread(str(plot)).shape[0] > 300
    assert f"exit status of the node: {found['exit_status']}" in result.stdout


def test_persistence_is_measured_with_and_without(tmp_path: Path) -> None:
    config, file = tmp_path / "quick.yaml", tmp_path / "figures.json"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--objects", "1", "--size", "160x90", "--skip-runs"]
    command += ["--persist", "--seconds", "3", "--rates", "5", "--config", str(config), "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    found = json.loads(file.read_text())["persistence"]
    assert [row["persist"] for row in found["stream"]] == [False, True, False, True]
    assert all(row["sent"] > 0 for row in found["stream"])
    assert found["write"]["writes"] == 50 and found["write"]["bytes"] > 1_000
    assert "a write of" in result.stdout


def test_clicks_are_made_beside_the_node_in_every_second_run(tmp_path: Path) -> None:
    config, file = tmp_path / "quick.yaml", tmp_path / "clicks.json"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--objects", "1", "--size", "160x90", "--skip-runs"]
    command += ["--clicks", "--seconds", "4", "--rates", "5", "--config", str(config), "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    found = json.loads(file.read_text())["clicks"]
    assert [row["way"] for row in found] == ["none", "clicks", "none", "clicks"]
    assert all(row["sent"] and row["masks"] for row in found)
    assert all(row["clicks"] >= 1 and row["click_ms_p50"] > 0 for row in found[1::2])
    assert "clicks, one every 1 s" in result.stdout
