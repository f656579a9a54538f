# SPDX-License-Identifier: Apache-2.0
"""The RViz config, the launch file and the nodes name the same things."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import yaml

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from maskrnn_ros.ros.image_plane import FRAME  # noqa: E402
from maskrnn_ros.ros.seed_tool import INTERFACES  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch" / "tracker.launch.py"
CONFIG = yaml.safe_load((ROOT / "config" / "tracker.rviz").read_text())
MANAGER = CONFIG["Visualization Manager"]
DISPLAYS = {display["Name"]: display for display in MANAGER["Displays"]}
NAMESPACE = DISPLAYS["Seed image"]["Interactive Markers Namespace"]


def remapped() -> set[str]:
    """IN_RVIZ of the launch file, which only a machine with launch can import."""
    for node in ast.parse(LAUNCH.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "IN_RVIZ":
            return set(ast.literal_eval(node.value))
    raise AssertionError("no IN_RVIZ")


def test_the_launch_file_remaps_what_the_config_asks_for() -> None:
    topics = {display["Topic"]["Value"] for display in DISPLAYS.values() if "Topic" in display}
    marker = {f"{NAMESPACE}/{name}" for name in ("update", "feedback", "get_interactive_markers")}
    assert topics | marker == remapped()


def test_the_seeding_tool_gives_what_the_config_asks_for() -> None:
    names = {i.name.replace("~", "/rviz_seed_tool") for i in INTERFACES}
    assert {name for name in remapped() if name.startswith("/rviz_seed_tool/")} <= names


def test_the_image_lies_in_the_fixed_frame_and_in_view() -> None:
    assert MANAGER["Global Options"]["Fixed Frame"] == FRAME
    view, window = MANAGER["Views"]["Current"], CONFIG["Window Geometry"]
    assert (view["Class"], view["Angle"], view["X"]) == ("rviz_default_plugins/TopDownOrtho", 0, 0.5)
    for height in (9 / 16, 3 / 4):  # of an image that is 1 wide
        assert view["Y"] + window["Height"] / view["Scale"] / 2 > 0.1  # the text above it
        assert view["Y"] - window["Height"] / view["Scale"] / 2 < -height
    assert MANAGER["Tools"][0]["Class"] == "rviz_default_plugins/Interact"  # the first is active at the start


def test_no_panel_takes_the_picture_s_place_and_no_display_needs_what_may_be_missing() -> None:
    assert [panel["Name"] for panel in CONFIG["Panels"]] == ["Displays"]  # Time's row is as wide as the window
    window = CONFIG["Window Geometry"]
    assert (window["Hide Left Dock"], window["Hide Right Dock"]) == (False, False)
    assert not any(display.get("Normalize Range") for display in DISPLAYS.values())


def test_the_launch_file_offers_the_seeding_tool() -> None:
    pytest.importorskip("launch_ros", reason="needs launch_ros")
    spec = importlib.util.spec_from_file_location("tracker_launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = {a.name for a in module.generate_launch_description().entities if hasattr(a, "name")}
    assert {"rviz", "seed_tool", "click", "image", "namespace"} <= arguments
