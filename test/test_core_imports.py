# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: rooms in one order, and ROS, bags and torch only where they belong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from import_graph import OLD_NAMES, Package, imported  # noqa: E402

PACKAGE = Path(__file__).resolve().parent.parent / "maskrnn_ros"

CORE = ("base", "metrics", "model", "prompts", "flow", "tracking")

PLACES = {
    "rclpy": ("ros", "tracker_node", "locator", "rviz_tool", "seed_ui", "replay", "evaluation.online", "benchmark"),
    "rosbags": ("bags",),
    "torch": ("model.torch", "prompts.torch", "flow.torch", "training", "paper"),
    "torchvision": ("model.torch", "prompts.torch", "flow.torch", "training", "paper"),
}
"""Where a package may be imported; nothing of it is in the core but for the folders ``torch``."""

ASKS_FOR_TORCH = {"maskrnn_ros.model.load", "maskrnn_ros.benchmark.report"}
"""Ask it in a function, where it is there: is there a GPU, and which?"""

NEEDS_ROS = (
    *PLACES["rclpy"][:-1],
    "benchmark.cameras",
    "benchmark.clicks",
    "benchmark.services",
    "benchmark.by_flow",
    "benchmark.latency",
    "benchmark.latency_camera",
    "benchmark.persistence",
    "benchmark.soak",
    "benchmark.soak_camera",
    "benchmark.soak_report",
    "benchmark.turns",
    "commands.demo",
    "commands.seed",
)
"""What cannot be imported without ROS; commands import it late."""

IMPORT_ALL = """
import importlib, sys
for blocked in sys.argv[1].split():
    sys.modules[blocked] = None
for name in sys.argv[2:]:
    importlib.import_module(name)
"""

NO_ROS = "rclpy rosidl_runtime_py sensor_msgs std_msgs cv_bridge message_filters maskrnn_ros.msg maskrnn_ros.srv"


ROOMS = Package(PACKAGE)


def strays(package: str, module: str, source: str) -> bool:
    """Whether a module imports a package that does not belong there."""
    allowed = tuple(f"maskrnn_ros.{place}." for place in PLACES[package])
    return package in {name.partition(".")[0] for name in imported(source)} and not f"{module}.".startswith(allowed)


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} - {"msg", "srv"}
    assert folders == set(ROOMS.level) - {"base", "cli"}


def test_the_page_lists_the_rooms_in_their_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| (\d+) \| `?([\w ]+?)(?:\.py)?`? \|", page, re.MULTILINE)
    levels = {"beside the rooms" if room == "base" else room: level + 1 for room, level in ROOMS.level.items()}
    assert {room: int(level) for level, room in listed} == levels


def test_rooms_import_downwards() -> None:
    files = {name: path.read_text() for name, path in ROOMS.modules.items() if name not in OLD_NAMES}
    stray = [" -> ".join(arrow) for name, source in files.items() for arrow in ROOMS.upward(name, source)]
    assert not stray, "\n".join(["these arrows point upwards:", *stray])


@pytest.mark.parametrize("package", PLACES)
def test_a_package_is_imported_where_it_belongs(package: str) -> None:
    stray = {name for name, path in ROOMS.modules.items() if strays(package, name, path.read_text())}
    assert stray - (ASKS_FOR_TORCH if package == "torch" else set()) == set(), f"{package}: {PLACES[package]}"


@pytest.mark.parametrize(
    ("module", "source", "arrows"),
    [
        ("maskrnn_ros.types", "from maskrnn_ros.tracking import Tracker", 1),
        ("maskrnn_ros.tracking.tracker", "def late():\n    import maskrnn_ros.tracker_node.node", 1),
        ("maskrnn_ros.locator.node", "from maskrnn_ros.tracker_node import inbox", 2),
        ("maskrnn_ros.tracker_node.node", "from maskrnn_ros.tracking import tracker", 0),
        ("maskrnn_ros.tracking.tracker", "from maskrnn_ros.tracking import follow", 0),
    ],
)
def test_a_wrong_direction_is_found(module: str, source: str, arrows: int) -> None:
    assert len(ROOMS.upward(module, source)) == arrows


@pytest.mark.parametrize(
    ("package", "module", "stray"),
    [
        ("torch", "maskrnn_ros.model.load", True),
        ("torch", "maskrnn_ros.model.torch.engine", False),
        ("torch", "maskrnn_ros.training.runs", False),
        ("rclpy", "maskrnn_ros.evaluation.run", True),
        ("rclpy", "maskrnn_ros.evaluation.online.play", False),
        ("rosbags", "maskrnn_ros.datasets.readers", True),
    ],
)
def test_a_package_in_the_wrong_place_is_found(package: str, module: str, stray: bool) -> None:
    assert strays(package, module, f"def late():\n    from {package} import thing") == stray


def test_the_core_imports_without_ros_bags_and_torch() -> None:
    core = [name for name in ROOMS.modules if ROOMS.room(name) in CORE and ".torch" not in name]
    assert {"maskrnn_ros.types", "maskrnn_ros.tracking.session", "maskrnn_ros.model.onnx_engine"} <= set(core)
    import_all(f"{NO_ROS} rosbags torch torchvision", core)


def test_what_works_on_files_imports_without_ros() -> None:
    needs = tuple(f"maskrnn_ros.{place}." for place in NEEDS_ROS)
    files = [name for name in ROOMS.modules if not f"{name}.".startswith(needs) and name != "maskrnn_ros.__main__"]
    assert {"maskrnn_ros.bags.read", "maskrnn_ros.evaluation.run", "maskrnn_ros.cli"} <= set(files)
    import_all(NO_ROS, files)


def import_all(blocked: str, modules: list[str]) -> None:
    """Import modules in a process of their own where other packages are not installed."""
    command = [sys.executable, "-c", IMPORT_ALL, blocked, *modules]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.returncode == 0, result.stderr


def test_old_names_lead_to_the_new_ones() -> None:
    from maskrnn_ros import image_messages, types
    from maskrnn_ros.ros import images

    assert images.image_to_rgb is image_messages.image_to_rgb and types.InstanceStatus is types.InstanceState
    start = ROOMS.modules["maskrnn_ros.ros.__main__"].read_text()
    assert "maskrnn_ros.tracker_node.__main__" in set(imported(start)) and "main()" in start
