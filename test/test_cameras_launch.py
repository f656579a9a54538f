# SPDX-License-Identifier: Apache-2.0
"""cameras.launch.py starts a tracker per camera; a program in the tracker's place writes down how it was started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import yaml

pytest.importorskip("launch_ros", reason="needs launch_ros")
pytest.importorskip("rclpy", reason="needs rclpy")

ROOT = Path(__file__).resolve().parent.parent
CORES = sorted(os.sched_getaffinity(0))
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
source = PythonLaunchDescriptionSource(sys.argv[1])
arguments = [text.split(":=") for text in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""
TRACKER = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
files = [Path(file).read_text() for option, file in zip(sys.argv, sys.argv[1:]) if option == "--params-file"]
profile = os.environ.get("{PROFILES}", "")
started = dict(argv=sys.argv, files=files, cores=sorted(os.sched_getaffinity(0)), profile=profile)
Path(os.environ["STARTED"], str(os.getpid())).write_text(json.dumps(started))
"""
needs_taskset = pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")


@dataclass
class Bench:
    """A prefix whose package maskrnn_ros has the real configuration and a tracker that only writes."""

    folder: Path

    def __post_init__(self) -> None:
        index = self.folder / "share" / "ament_index" / "resource_index" / "packages"
        programs = self.folder / "lib" / "maskrnn_ros"
        for folder in (index, programs, self.folder / "share" / "maskrnn_ros", self.started):
            folder.mkdir(parents=True)
        (index / "maskrnn_ros").touch()
        (self.folder / "share" / "maskrnn_ros" / "config").symlink_to(ROOT / "config")
        (programs / "tracker").write_text(TRACKER)
        (programs / "tracker").chmod(0o755)

    @property
    def started(self) -> Path:
        return self.folder / "started"

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit status and output of launch."""
        prefixes = os.pathsep.join([str(self.folder), os.environ.get("AMENT_PREFIX_PATH", "")])
        env = {
            **os.environ,
            "AMENT_PREFIX_PATH": prefixes,
            "STARTED": str(self.started),
            "ROS_LOG_DIR": str(self.folder / "log"),
            **environment,
        }
        command = [sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "cameras.launch.py"), *arguments]
        done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        return done.returncode, done.stdout

    def trackers(self) -> dict[str, dict[str, Any]]:
        """How each was started, by its namespace."""
        found = {}
        for file in self.started.iterdir():
            started = json.loads(file.read_text())
            started["parameters"] = {}
            for text in started["files"]:  # later ones win
                for node in yaml.safe_load(text).values():
                    started["parameters"] |= node["ros__parameters"]
            rules = dict(word.split(":=") for word in started["argv"] if ":=" in word)
            started["image"] = rules["image"]
            found[rules["__ns"]] = started
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "prefix")


def test_every_camera_has_a_tracker_with_the_settings_of_the_file(bench: Bench) -> None:
    status, output = bench.run("cameras:=front, rear", **{PROFILES: "mine.xml"})
    assert status == 0, output
    trackers = bench.trackers()
    assert set(trackers) == {"/front", "/rear"}
    for tracker in trackers.values():
        assert tracker["image"] == "image_raw"  # relative: in the namespace
        assert tracker["parameters"]["mask_encoding"] == "mono8"
        assert tracker["parameters"]["use_sim_time"] is False
        assert tracker["parameters"]["threads"] == 0  # as in the file: an empty argument overrides nothing
        assert (tracker["cores"], tracker["profile"]) == (CORES, "mine.xml")


@needs_taskset
def test_what_is_said_of_all_reaches_all_and_cores_are_each_ones_own(bench: Bench) -> None:
    cores = {"/front": CORES[0], "/arm/rear": CORES[-1]}
    arguments = ["mask_encoding:=rle", "threads:=2", "fastdds:=lan", "use_sim_time:=true", "log_level:=warn"]
    status, output = bench.run("cameras:=front,/arm/rear", f"cpus:={CORES[0]};{CORES[-1]}", *arguments)
    assert status == 0, output
    trackers = bench.trackers()
    assert {name: tracker["cores"] for name, tracker in trackers.items()} == {n: [core] for n, core in cores.items()}
    for name, tracker in trackers.items():
        given = tracker["parameters"]
        assert (given["mask_encoding"], given["threads"], given["use_sim_time"]) == ("rle", 2, True)
        assert Path(tracker["profile"]).name == "fastdds_lan.xml" and Path(tracker["profile"]).is_file()
        assert f"{name[1:].replace('/', '.')}.tracker:=warn" in tracker["argv"]


def test_the_name_of_the_camera_stands_in_topics_and_files(bench: Bench, tmp_path: Path) -> None:
    for camera, size in (("front", 384), ("rear", 256)):
        text = yaml.safe_dump({"/**": {"ros__parameters": {"working_size": size}}})
        (tmp_path / f"{camera}.yaml").write_text(text)
    topic = "image_topic:=/{camera}/{camera}/color/image_raw"
    status, output = bench.run("cameras:=front,rear", topic, f"params_file:={tmp_path}/{{camera}}.yaml")
    assert status == 0, output
    trackers = bench.trackers()
    assert {name: tracker["image"] for name, tracker in trackers.items()} == {
        "/front": "/front/front/color/image_raw",
        "/rear": "/rear/rear/color/image_raw",
    }
    sizes = {name: tracker["parameters"]["working_size"] for name, tracker in trackers.items()}
    assert sizes == {"/front": 384, "/rear": 256}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cameras:=front,,rear"], "cameras: expected different names, separated by commas, got 'front,,rear'"),
        (["cameras:=front,/front"], "cameras: expected different names, separated by commas, got 'front,/front'"),
        (["cameras:=front,rear", "cpus:=0"], "cpus: expected cores for each of 2 cameras, separated by ';', got '0'"),
        (["cameras:=front,rear", "cpus:=0;"], "cpus: expected cores for each of 2 cameras"),
        (["cameras:=front", "mask_encoding:=png"], "mask_encoding"),
        (["cameras:=front", "params_file:=absent.yaml"], "params_file: there is no file 'absent.yaml'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_starts(bench: Bench, arguments: list[str], message: str) -> None:
    status, output = bench.run(*arguments)
    assert status != 0
    assert message in output
    assert bench.trackers() == {}


def test_cores_without_taskset_are_refused(bench: Bench, tmp_path: Path) -> None:
    status, output = bench.run("cameras:=front", f"cpus:={CORES[0]}", PATH=str(tmp_path))
    assert status != 0
    assert "cpus: needs the command taskset (package util-linux), found none" in output
    assert bench.trackers() == {}
