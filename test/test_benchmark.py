# SPDX-License-Identifier: Apache-2.0
"""`maskrnn benchmark`: its scene, its figures, and what it refuses. No test looks at how long anything takes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)

from maskrnn_ros.benchmark.measure import Run, measure
from maskrnn_ros.benchmark.memory import over_cycles, over_frames
from maskrnn_ros.benchmark.report import Report
from maskrnn_ros.benchmark.scaling import lines
from maskrnn_ros.benchmark.scene import FRAMES, Scene
from maskrnn_ros.cli import main
from maskrnn_ros.config import Config, with_values

QUICK = """
/**:
  ros__parameters:
    working_size: 192
    buffer: {seconds: 0.5}
"""
STAGES = ["prepare", "flow", "trunk", "heads", "merge", "messages"]


def quick() -> Config:
    return with_values(
        Config(),
        working_size=192,
        buffer__seconds=0.5,
    )


def run(objects: int, size: tuple[int, int], ms: float) -> Run:
    return Run(
        width=size[0],
        height=size[1],
        objects=objects,
        engine="torch",
        ms_p50=ms,
        ms_p95=ms,
        fps=1e3 / ms,
        rss_mb=1.0,
        stages={},
        stages_p95={},
        frames=1,
        not_tracking=0,
        iou=1.0,
        seed_s=1.0,
        object_height=0.25,
        covered=0.1,
        threads=1,
    )


SCENES = [(160, 120, 1), (320, 180, 4), (320, 180, 16), (120, 320, 5), (301, 203, 2)]


@pytest.mark.parametrize(("width", "height", "objects"), SCENES)
def test_objects_never_overlap_nor_leave_the_image(width: int, height: int, objects: int) -> None:
    scene = Scene(width, height, objects)
    area: dict[int, list[int]] = {i: [] for i in range(1, objects + 1)}
    for number in range(FRAMES):
        labels = scene.labels(number)
        assert not np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).any(), number
        # one pixel wider they still do not touch: as many pieces as objects
        wider = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        assert cv2.connectedComponents(wider)[0] - 1 == objects, number
        for i in area:
            area[i].append(int((labels == i).sum()))
    for sizes in area.values():  # what were hidden or cut off would be smaller for a while
        assert min(sizes) > 0.93 * max(sizes)


@pytest.mark.parametrize(("width", "height", "objects"), SCENES)
def test_it_goes_round_in_small_steps(width: int, height: int, objects: int) -> None:
    scene = Scene(width, height, objects)
    assert np.array_equal(scene.image(0), scene.image(FRAMES))
    assert np.array_equal(scene.labels(3), scene.labels(FRAMES + 3))
    for body in scene.bodies:
        places = np.array([body.place(number)[:2] for number in range(FRAMES + 1)])
        steps = np.hypot(*np.diff(places, axis=0).T)
        assert 0.2 * steps.max() < steps.min()  # the last one to the first included: no jump, no standstill
        assert steps.max() < 0.01 * height


def test_the_same_seed_draws_the_same_scene_and_another_one_another() -> None:
    images = [Scene(160, 120, 3, seed).image(7) for seed in (0, 0, 1)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_masks_are_where_the_objects_were_drawn() -> None:
    scene, moved = Scene(160, 120, 2), 12
    changed = np.abs(scene.image(0).astype(int) - scene.image(moved).astype(int)).max(axis=2)
    either = (scene.labels(0) > 0) | (scene.labels(moved) > 0)
    assert changed[either].mean() > 3 * changed[~either].mean()


@pytest.mark.parametrize(("size", "objects", "low"), [((854, 480), 1, 0.24), ((854, 480), 16, 1 / 6)])
def test_objects_are_as_large_as_documented(size: tuple[int, int], objects: int, low: float) -> None:
    scene = Scene(*size, objects)
    assert low <= scene.object_height <= 0.25


def test_all_instances_are_tracked_throughout() -> None:
    result = measure(quick(), 320, 180, 2, 0.1)
    assert (result.width, result.height, result.objects) == (320, 180, 2)
    assert result.not_tracking == 0
    assert result.frames >= 5
    assert result.iou > 0.7
    assert list(result.stages) == STAGES
    stages = [ms for name, ms in result.stages.items() if name != "messages"]
    assert all(ms is not None and ms > 0 for ms in stages)
    assert result.rss_mb > 50


def test_a_run_that_lost_an_instance_says_so() -> None:
    never_seen = with_values(quick(), presence__min_pixels=100_000)
    result = measure(never_seen, 320, 180, 1, 0.1)
    assert result.not_tracking == result.frames


def test_slopes_are_those_of_the_line_that_was_drawn() -> None:
    small, large = (1000, 500), (2000, 1000)  # 0.5 and 2 megapixels
    runs = [run(n, size, 10 + 3 * n + 4 * size[0] * size[1] / 1e6) for size in (small, large) for n in (1, 2, 5)]
    found = {line.of: line for line in lines(runs)}
    assert list(found) == ["1000x500", "2000x1000", "1 object", "2 objects", "5 objects"]
    assert found["2000x1000"].ms_per == pytest.approx(3)
    assert found["2000x1000"].ms_at_0 == pytest.approx(18)
    assert found["5 objects"].ms_per == pytest.approx(4)
    assert found["1000x500"].largest_residual_ms == pytest.approx(0, abs=1e-9)
    bent = [run(n, small, ms) for n, ms in ((1, 1.0), (2, 4.0), (3, 1.0))]
    assert lines(bent)[0].largest_residual_ms == pytest.approx(2)
    assert lines(runs[:1]) == ()


def test_the_command_writes_what_machines_read_and_a_plot(tmp_path: Path) -> None:
    config, file, plot = tmp_path / "quick.yaml", tmp_path / "figures.json", tmp_path / "plot.png"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--objects", "1,2", "--size", "160x90"]
    command += ["--seconds", "0.05", "--config", str(config), "--json", str(file), "--plot", str(plot)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    report = json.loads(file.read_text())
    further = {"calls", "ros", "memory", "cycles", "seed", "services", "cameras", "soak", "persistence", "clicks"}
    assert {"machine", "slopes", "runs", *further} == set(report)
    assert all(report[name] is None for name in further), "what was not asked for"
    assert [(r["width"], r["height"], r["objects"]) for r in report["runs"]] == [(160, 90, 1), (160, 90, 2)]
    required = {"width", "height", "objects", "engine", "ms_p50", "ms_p95", "fps", "rss_mb", "stages", "not_tracking"}
    for each in report["runs"]:
        assert required <= set(each)
        assert list(each["stages"]) == STAGES
        assert each["fps"] > 0 and each["ms_p50"] <= each["ms_p95"]
    assert report["slopes"][0]["of"] == "160x90"
    assert cv2.imread(str(plot)).shape[0] > 100
    lines_out = result.stdout.splitlines()
    assert all(name in lines_out[0] for name in (*STAGES, "p50 ms", "not TRACKING"))
    assert [line.split()[:2] for line in lines_out[1:3]] == [["160x90", "1"], ["160x90", "2"]]
    assert "ms for each further object" in result.stdout


def test_memory_is_sampled_from_the_first_to_the_last() -> None:
    over = over_frames(quick(), 160, 90, 1, 20)
    assert (over.what, over.count, over.not_tracking) == ("frames", 20, 0)
    assert [number for number, _ in over.samples] == list(range(21))
    assert over.first_mb == over.samples[0][1] and over.last_mb == over.samples[-1][1]
    assert over.peak_mb == max(mb for _, mb in over.samples) > over.images_mb


def test_cycles_add_and_remove_the_last_object_beside_the_others() -> None:
    over = over_cycles(quick(), 160, 90, 2, 3)
    assert (over.what, over.count, over.not_tracking) == ("cycles", 3, 0)
    assert [number for number, _ in over.samples] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "12x"], "--size takes WxH in pixels, e.g. 854x480, separated by commas, got '12x'"),
        (["--size", "0x480"], "got '0x480'"),
        (["--size", "99999999x99999999"], "--size image must have at most 34000000 pixels and 16384 on a side, got 9"),
        (["--memory", "9" * 100], "--memory must be >= 1 and <= 1000000000, got " + "9" * 80 + " (20 more)"),
        (["--size", "854x480,,"], "--size takes WxH"),
        (["--size", "20x20", "--objects", "4"], "4 objects do not fit into 20x20"),
        (["--objects", "0"], "--objects takes whole numbers >= 1, separated by commas, got '0'"),
        (["--objects", "1,two"], "got 'two'"),
        (["--objects", "33"], "--objects must be <= 32 (max_instances), got 33"),
        (["--seconds", "0"], "--seconds must be > 0 and finite, got 0"),
        (["--seconds", "nan"], "--seconds must be > 0 and finite, got nan"),
        (["--rates", "15,fast"], "--rates takes images per second, > 0 and <= 1000, separated by commas, got 'fast'"),
        (["--memory", "0"], "--memory must be >= 1 and <= 1000000000, got 0"),
        (["--cycles", "-3"], "--cycles must be >= 1 and <= 1000000000, got -3"),
        (["--cameras", "0"], "--cameras must be >= 1 and <= 1000000000, got 0"),
        (["--cameras", "2", "--threads", "one"], "--threads takes whole numbers >= 1, separated by commas, got 'one'"),
        (["--skip-runs", "--cameras", "2", "--cpus", "0"], "--cpus: expected cores for each of 2 cameras"),
        (["--soak", "0"], "--soak must be > 0 and finite, got 0"),
        (["--soak", "1", "--plot", "x.png"], "--plot draws the runs, or with --skip-runs --soak the soak"),
        (["--skip-runs"], "--skip-runs leaves nothing to do"),
        (["--skip-runs", "--ros", "--plot", "x.png"], "--plot draws the runs"),
        (["--plot", "x.nope"], "--plot must end in .png, .pdf, .svg, got 'x.nope'"),
        (["--json", "absent/x.json"], "--json: there is no folder absent"),
        (["--engine", "steam"], "engine"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_report_without_runs_can_be_written(tmp_path: Path) -> None:
    Report().write(tmp_path / "empty.json")
    assert json.loads((tmp_path / "empty.json").read_text())["runs"] == []


def test_the_time_from_a_seed_to_its_masks_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = tmp_path / "quick.yaml", tmp_path / "figures.json"
    config.write_text(QUICK)
    arguments = ["benchmark", "--objects", "2", "--size", "160x90", "--skip-runs", "--beside"]
    assert main([*arguments, "--config", str(config), "--json", str(file)]) == 0
    seed = json.loads(file.read_text())["seed"]
    assert (seed["width"], seed["height"], seed["objects"]) == (160, 90, 2)
    assert seed["first_mask_ms"] > 0 and 0 < seed["after_ms_mean"]
    assert "from the seed to the first mask (160x90, 2 objects)" in capsys.readouterr().out


def test_calls_of_python_are_counted_for_each_number_of_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file = tmp_path / "quick.yaml", tmp_path / "figures.json"
    config.write_text(QUICK)
    arguments = ["benchmark", "--objects", "1,3", "--size", "320x180", "--skip-runs", "--calls"]
    assert main([*arguments, "--config", str(config), "--json", str(file)]) == 0
    one, three = json.loads(file.read_text())["calls"]
    assert (one["objects"], three["objects"]) == (1, 3)
    assert 100 < one["carried"] < three["carried"] and 100 < one["masks"] < three["masks"]
    assert "each further object after 1:" in capsys.readouterr().out


def test_services_of_a_busy_node_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_ros()
    from maskrnn_ros.benchmark import services as module

    few = functools.partial(module.measure_services, calls=2, step_ms=50.0, rate=5.0)
    monkeypatch.setattr(module, "measure_services", few)
    file = tmp_path / "figures.json"
    assert main(["benchmark", "--size", "160x90", "--skip-runs", "--services", "--json", str(file)]) == 0
    found = json.loads(file.read_text())["services"]
    names = ("add_instances", "remove_instances", "enable")
    assert {name: len(spent) for name, spent in found["services"].items()} == dict.fromkeys(names, 2)
    assert all(ms > 0 for spent in found["services"].values() for ms in spent)
    assert found["received"] >= found["processed"]
    said = capsys.readouterr().out
    assert all(f"{name}: p50" in said for name in names)


def test_several_cameras_are_measured_side_by_side(tmp_path: Path) -> None:
    needs_ros()
    config, file = tmp_path / "quick.yaml", tmp_path / "figures.json"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--size", "160x90", "--skip-runs", "--cameras", "2"]
    command += ["--rates", "2", "--seconds", "3", "--config", str(config), "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["cameras"]
    assert [(row["camera"], row["threads"], row["cpus"]) for row in rows] == [(0, 1, ""), (1, 1, "")]
    assert all(row["sent_hz"] > 0 and row["masks_hz"] > 0 and row["age_ms_p50"] > 0 for row in rows)


def test_latency_counts_every_image_that_has_no_masks() -> None:
    needs_ros()
    from maskrnn_ros.benchmark.latency import _Collector, highest_rate
    from maskrnn_ros.image_messages import ns_to_stamp
    from maskrnn_ros.msg import InstanceMask, InstanceMaskArray

    from rclpy.serialization import serialize_message  # isort: skip

    collector = _Collector("/tracker", objects=1)
    for stamp, state in ((1, InstanceMask.STATE_TRACKING), (3, InstanceMask.STATE_OCCLUDED)):
        message = InstanceMaskArray(instances=[InstanceMask(state=state)])
        ns_to_stamp(stamp, message.header.stamp)
        collector._on_instances(serialize_message(message))
    burst = {"hz": 15.0, "stamps": [1, 2, 3, 4], "late_ms_p95": 0.0, "publish_ms_p50": 0.0}
    row = collector.rate(burst)
    assert (row["sent"], row["received"], row["dropped_share"], row["not_tracking"]) == (4, 2, 0.5, 1)
    nothing = collector.rate({**burst, "stamps": [7]})
    assert (nothing["dropped_share"], nothing["age_ms_p50"]) == (1.0, None)
    assert highest_rate([row]) is None
    assert highest_rate([{"hz": 15, "dropped_share": 0.0099}, {"hz": 24, "dropped_share": 0.01}]) == 15


def test_latency_through_real_topics(tmp_path: Path) -> None:
    needs_ros()
    config, file = tmp_path / "quick.yaml", tmp_path / "figures.json"
    config.write_text(QUICK)
    command = [sys.executable, "-m", "maskrnn_ros", "benchmark", "--objects", "2", "--size", "160x90", "--skip-runs"]
    command += ["--ros", "--rates", "2", "--seconds", "2", "--config", str(config), "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    ros = json.loads(file.read_text())["ros"]
    assert (ros["objects"], ros["width"], ros["height"]) == (2, 160, 90)
    (rate,) = ros["rates"]
    assert (rate["hz"], rate["sent"]) == (2.0, 4)
    assert 1 <= rate["received"] <= 4
    assert rate["dropped_share"] == pytest.approx(1 - rate["received"] / 4)
    assert 0 < rate["age_ms_p50"] <= rate["age_ms_p95"]
    assert rate["not_tracking"] == 0
    assert ros["highest_hz"] == (2.0 if rate["received"] == 4 else None)
    assert "camera to mask through topics" in result.stdout


def needs_ros() -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")
