# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: rooms in one order, and ROS, bags and torch only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "maskrnn_ros"

ORDER = (
    ("base",),  # the modules of maskrnn_ros/ itself, but for CLI
    ("metrics", "model"),
    ("prompts", "flow"),
    ("tracking",),
    ("datasets",),
    ("bags", "training"),
    ("paper",),
    ("ros",),
    ("tracker_node", "locator", "rviz_tool", "seed_ui", "replay"),
    ("evaluation",),
    ("benchmark",),
    ("commands",),
    ("cli",),
)
"""Rooms from the lowest to the highest, as docs/architecture.md says: each imports lower ones, never one beside it."""

LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

CLI = ("maskrnn_ros.cli", "maskrnn_ros.__main__")

OLD_NAMES = ("maskrnn_ros.ros.__main__", "maskrnn_ros.ros.images")
"""Names that are kept for what was written before the rooms; they lead to new ones."""

CORE = ("base", "metrics", "model", "prompts", "flow", "tracking")

PLACES = {
    "rclpy": ("ros", "tracker_node", "locator", "rviz_tool", "seed_ui", "replay", "evaluation.online", "benchmark"),
    "rosbags": ("bags",),
    "torch": ("model.torch", "prompts.torch", "flow.torch", "training", "paper"),
    "torchvision": ("model.torch", "prompts.torch", "flow.torch", "training", "paper"),
}
"""Where a package may be imported; nothing of it is in the core but for the folders ``torch``."""

ASKS_FOR_TORCH = {"maskrnn_ros.model.engine", "maskrnn_ros.benchmark.report"}
"""Ask it in a function, where it is there: is there a GPU, and which?"""

IMPORT_ALL = """
import importlib, sys
for blocked in ("rclpy", "rosidl_runtime_py", "sensor_msgs", "std_msgs", "cv_bridge", "message_filters", "rosbags",
                "torch", "torchvision"):
    sys.modules[blocked] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def module_of(path: Path) -> str:
    """Dotted name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The folder of a module, "base" for those beside the folders."""
    parts = module.split(".")
    if module in CLI:
        return "cli"
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "base"


def imported(source: str) -> Iterator[str]:
    """Modules that a text imports, wherever in it; of ``from a import b`` both, for b may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(module: str, source: str) -> list[str]:
    """What a module imports of rooms above its own or beside it."""
    own = room_of(module)
    others = {name for name in imported(source) if name in MODULES and name != "maskrnn_ros" and room_of(name) != own}
    return sorted(f"{module} -> {name}" for name in others if LEVEL[room_of(name)] >= LEVEL[own])


def strays(package: str, module: str, source: str) -> bool:
    """Whether a module imports a package that does not belong there."""
    allowed = tuple(f"maskrnn_ros.{place}." for place in PLACES[package])
    return package in {name.partition(".")[0] for name in imported(source)} and not f"{module}.".startswith(allowed)


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} - {"msg", "srv"}
    assert folders == set(LEVEL) - {"base", "cli"}


def test_rooms_import_downwards() -> None:
    stray = [
        arrow for name, path in MODULES.items() if name not in OLD_NAMES for arrow in upward(name, path.read_text())
    ]
    assert not stray, "\n".join(["these arrows point upwards:", *stray])


@pytest.mark.parametrize("package", PLACES)
def test_a_package_is_imported_where_it_belongs(package: str) -> None:
    stray = {name for name, path in MODULES.items() if strays(package, name, path.read_text())}
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
    assert len(upward(module, source)) == arrows


@pytest.mark.parametrize(
    ("package", "module", "stray"),
    [
        ("torch", "maskrnn_ros.model.engine", True),
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
    core = [name for name in MODULES if room_of(name) in CORE and ".torch" not in name]
    assert {"maskrnn_ros.types", "maskrnn_ros.tracking.session", "maskrnn_ros.model.onnx_engine"} <= set(core)
    command = [sys.executable, "-c", IMPORT_ALL, *core]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.returncode == 0, result.stderr
