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

from maskrnn_ros.ros.image_plane import FRAME, HEIGHT_M, WIDTH_M  # noqa: E402
from maskrnn_ros.rviz_tool.markers import button_marker  # noqa: E402
from maskrnn_ros.rviz_tool.node import INTERFACES  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch" / "tracker.launch.py"
CONFIG = yaml.safe_load((ROOT / "config" / "tracker.rviz").read_text())
MANAGER = CONFIG["Visualization Manager"]
DISPLAYS = {display["Name"]: display for display in MANAGER["Displays"]}
NAMESPACE = DISPLAYS["Seed image"]["Interactive Markers Namespace"]
LIVE_WIDTH = 640
"""Of the dock of the live overlay, pixels."""
EDGES = (40, 100)
"""What RViz2's window has beside docks and view: width of two narrow buttons, height of menu, tool and status bars."""


def remapped() -> set[str]:
    """IN_RVIZ of the launch file, which only a machine with launch can import."""
    for node in ast.parse(LAUNCH.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "IN_RVIZ":
            return set(ast.literal_eval(node.value))
    raise AssertionError("no IN_RVIZ")


def test_the_launch_file_remaps_what_the_config_asks_for() -> None:
    parts = [*DISPLAYS.values(), *MANAGER["Tools"]]
    topics = {part["Topic"]["Value"] for part in parts if "Topic" in part}
    marker = {f"{NAMESPACE}/{name}" for name in ("update", "feedback", "get_interactive_markers")}
    assert topics | marker == remapped()


def test_the_seeding_tool_gives_what_the_config_asks_for() -> None:
    names = {i.name.replace("~", "/rviz_seed_tool") for i in INTERFACES}
    assert {name for name in remapped() if name.startswith("/rviz_seed_tool/")} <= names


def test_the_points_of_publish_point_reach_the_seeding_tool() -> None:
    (tool,) = (tool for tool in MANAGER["Tools"] if tool["Class"].endswith("/PublishPoint"))
    assert tool["Topic"]["Value"].lstrip("/") in {i.name for i in INTERFACES if i.kind == "subscribes"}


def test_the_image_lies_in_the_fixed_frame_and_in_view_beside_a_large_live_view() -> None:
    assert MANAGER["Global Options"]["Fixed Frame"] == FRAME
    view, window = MANAGER["Views"]["Current"], CONFIG["Window Geometry"]
    assert (view["Class"], view["Angle"]) == ("rviz_default_plugins/TopDownOrtho", 0)
    width, height = window["Width"] - LIVE_WIDTH - EDGES[0], window["Height"] - EDGES[1]
    half_width, half_height = width / view["Scale"] / 2, height / view["Scale"] / 2
    button = button_marker(None, None, {}).controls[0].markers[0]
    assert view["X"] - half_width < 0 and view["X"] + half_width > max(p.x for p in button.points) >= WIDTH_M
    assert view["Y"] + half_height > 0.1  # the text above it
    assert view["Y"] - half_height < -HEIGHT_M - 0.08  # and below
    assert MANAGER["Tools"][0]["Class"] == "rviz_default_plugins/Interact"  # the first is active at the start
    current = {key: value for key, value in view.items() if key != "Name"}
    assert current in [{k: v for k, v in saved.items() if k != "Name"} for saved in MANAGER["Views"]["Saved"]]


def test_no_panel_takes_the_picture_s_place_and_no_display_needs_what_may_be_missing() -> None:
    assert [panel["Name"] for panel in CONFIG["Panels"]] == ["Displays", "Views"]  # Time is as wide as the window
    window = CONFIG["Window Geometry"]
    assert (window["Hide Left Dock"], window["Hide Right Dock"]) == (False, False)
    # without them the window manager moves the window, which RViz2 takes for a change that it offers to save
    assert window["X"] >= 0 and window["Y"] >= 0
    assert window["X"] + window["Width"] <= 1920 and window["Y"] + window["Height"] + EDGES[1] <= 1080
    assert not any(display.get("Normalize Range") for display in DISPLAYS.values())


def test_the_window_s_state_knows_all_docks_and_the_tool_bar() -> None:
    state = bytes.fromhex(CONFIG["Window Geometry"]["QMainWindow State"])
    images = {name for name, display in DISPLAYS.items() if display["Class"].endswith("/Image")}
    for name in (*images, *(panel["Name"] for panel in CONFIG["Panels"]), "Tools"):
        text = name.encode("utf-16-be")
        assert len(text).to_bytes(4, "big") + text in state  # as Qt writes a QString
    assert LIVE_WIDTH.to_bytes(4, "big") in state
    assert all(CONFIG["Window Geometry"][name] == {"collapsed": False} for name in images)


def test_what_takes_clicks_away_from_the_picture_is_off() -> None:
    assert DISPLAYS["Instances"]["Enabled"] is False


def test_the_launch_file_offers_the_seeding_tool() -> None:
    pytest.importorskip("launch_ros", reason="needs launch_ros")
    spec = importlib.util.spec_from_file_location("tracker_launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = {a.name for a in module.generate_launch_description().entities if hasattr(a, "name")}
    assert {"rviz", "seed_tool", "click", "image", "namespace"} <= arguments


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rviz": "true"}, "/left/clicked_point"),
        ({"rviz": "true", "seed_tool": "true"}, None),  # that takes them: it shows the frozen image
        ({"seed_tool": "true"}, None),
        ({}, None),
    ],
)
def test_publish_point_goes_to_one_of_the_two(given: dict[str, str], expected: str | None) -> None:
    pytest.importorskip("launch_ros", reason="needs launch_ros")
    from launch import LaunchContext
    from launch.utilities import perform_substitutions

    spec = importlib.util.spec_from_file_location("tracker_launch", LAUNCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    for argument in module.generate_launch_description().get_launch_arguments():
        text = given.get(argument.name, perform_substitutions(context, argument.default_value))
        context.launch_configurations[argument.name] = text
    context.launch_configurations["namespace"] = "left"
    rules = module._clicked_in_rviz(context)
    assert [f"/left/{target}" for _, target in rules] == ([expected] if expected else [])
