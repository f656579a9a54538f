# SPDX-License-Identifier: Apache-2.0
"""Starts the tracker; with rviz:=true RViz2, with seed_tool:=true the tool that draws seeds in it.

`ros2 launch maskrnn_ros tracker.launch.py --show-args` explains.
"""

import shutil
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

IN_RVIZ = (
    "/tracker/overlay",
    "/tracker/markers",
    "/rviz_seed_tool/markers",
    "/rviz_seed_tool/seed/update",
    "/rviz_seed_tool/seed/feedback",
    "/rviz_seed_tool/seed/get_interactive_markers",
    "/clicked_point",
)
"""What config/tracker.rviz asks for, as it stands there: without a namespace."""

OVERRIDES = {"device": str, "mask_encoding": str, "threads": int}
"""Arguments of the tracker that are parameters of it, too; an empty one must not override params_file."""


def _overrides(context: LaunchContext) -> dict[str, ParameterValue]:
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in OVERRIDES.items()
        if LaunchConfiguration(name).perform(context)
    }


def _pinned(context: LaunchContext) -> dict[str, str]:
    """Options of the tracker's Node that keep its process on some cores; none without `cpus`."""
    cpus = LaunchConfiguration("cpus").perform(context)
    if not cpus:
        return {}
    if shutil.which("taskset") is None:
        raise FileNotFoundError("cpus: needs the command taskset (package util-linux), found none")
    return {"prefix": f"taskset --cpu-list {cpus}"}


def _transport(context: LaunchContext, config: Path) -> list[SetEnvironmentVariable]:
    """Hands one of our Fast DDS profiles to the nodes; an empty `fastdds` leaves what the shell has set."""
    profile = LaunchConfiguration("fastdds").perform(context)
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE") if profile else ()  # 2.x and 3.x
    return [SetEnvironmentVariable(name, str(config / f"fastdds_{profile}.xml")) for name in names]


def _nodes(context: LaunchContext, config: Path) -> list[Any]:
    """The nodes; a function, since some of their arguments follow from the values of several others."""
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():  # launch_ros only warns and goes on without it
        raise FileNotFoundError(f"params_file: there is no file {params_file!r}")
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    namespace = make_namespace_absolute(
        prefix_namespace(
            context.launch_configurations.get("ros_namespace"),  # PushRosNamespace in a launch file around this one
            LaunchConfiguration("namespace").perform(context),
        )
    ).rstrip("/")

    def node(name: str, parameters: list[Any], *remappings: tuple[str, Any], **options: Any) -> Node:
        logger = f"{namespace}/{name}"[1:].replace("/", ".")
        return Node(
            package="maskrnn_ros",
            executable=name,
            name=name,
            namespace=namespace or "/",
            output="screen",
            parameters=[params_file, sim_time, *parameters],
            remappings=[("image", LaunchConfiguration("image")), *remappings],
            arguments=["--ros-args", "--log-level", [f"{logger}:=", LaunchConfiguration("log_level")]],
            **options,
        )

    overrides = _overrides(context)
    tracker = node(
        "tracker",
        [overrides] if overrides else [],
        *((f"~/{topic}", LaunchConfiguration(topic)) for topic in ("seed_mask", "ignore_mask")),
        *_clicked_in_rviz(context),
        **_pinned(context),
    )
    # what it shares with the tracker (compressed, image_reliability) stands in the same file
    seed_tool = node(
        "rviz_seed_tool",
        [],
        ("click", LaunchConfiguration("click")),
        condition=IfCondition(LaunchConfiguration("seed_tool")),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config / "tracker.rviz")],
        parameters=[sim_time],
        remappings=[(name, f"{namespace}{name}") for name in IN_RVIZ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    locator = _locator(context, namespace, sim_time)
    # rviz2 may be missing: then launch stops there, and no tracker is left behind
    return [*_transport(context, config), rviz, *locator, tracker, seed_tool]


def _clicked_in_rviz(context: LaunchContext) -> list[tuple[str, str]]:
    """Hands the points of RViz2's Publish Point to the tracker; where the seed tool shows its frozen image, to that."""
    rviz, seed_tool = (IfCondition(LaunchConfiguration(name)).evaluate(context) for name in ("rviz", "seed_tool"))
    return [("~/click_stamped", "clicked_point")] if rviz and not seed_tool else []


def _locator(context: LaunchContext, namespace: str, sim_time: dict[str, ParameterValue]) -> list[Node]:
    """The node that gives positions in space; none without a depth topic."""
    topics = {name: LaunchConfiguration(name).perform(context) for name in ("depth", "camera_info")}
    if not any(topics.values()):
        return []
    for name, topic in topics.items():
        if not topic:
            raise ValueError(f"{name}: expected a topic, got none; positions need depth and camera_info")
    params_file = LaunchConfiguration("locator_params_file").perform(context)
    if params_file and not Path(params_file).is_file():  # as above
        raise FileNotFoundError(f"locator_params_file: there is no file {params_file!r}")
    locator = Node(
        package="maskrnn_ros",
        executable="locator",
        name="locator",
        namespace=namespace or "/",
        output="screen",
        parameters=[*([params_file] if params_file else []), sim_time],
        remappings=[("instances", "tracker/instances"), *topics.items()],
    )
    return [locator]


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    config = Path(get_package_share_directory("maskrnn_ros"), "config")
    arguments = [
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="Namespace of the node and of its relative topics, e.g. /left: the masks are then on "
            "/left/tracker/instances. Empty: /tracker/instances.",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(config / "tracker.yaml"),
            description="ROS parameter file; parameters that it leaves out keep their defaults.",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=["true", "false"],
            description="Take time from /clock (simulation, `maskrnn bag play --clock`). Overrides params_file.",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Log level of the node.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="Where the networks run: auto, cpu, cuda or cuda:N. Overrides params_file unless empty.",
        ),
        DeclareLaunchArgument(
            "mask_encoding",
            default_value="",
            choices=["", "none", "mono8", "bits", "rle", "prob8"],
            description="Encoding of the masks; rle is smallest, for networks. Overrides params_file unless empty.",
        ),
        DeclareLaunchArgument(
            "threads",
            default_value="",
            description="Threads of the tracker; 0: one per core. Overrides params_file unless empty.",
        ),
        DeclareLaunchArgument(
            "cpus",
            default_value="",
            description="Pin the tracker to these cores, in the format of taskset, e.g. 0 or 0-3,6. Empty: any core.",
        ),
        DeclareLaunchArgument(
            "fastdds",
            default_value="",
            choices=["", "localhost", "lan"],
            description="Fast DDS profile of the nodes: localhost (this machine only) or lan; give the camera driver "
            "the same one. Empty: the one in FASTRTPS_DEFAULT_PROFILES_FILE.",
        ),
        DeclareLaunchArgument(
            "image",
            default_value="image",
            description="Topic of the camera images (sensor_msgs/Image), e.g. /camera/color/image_raw. If the "
            "parameter `compressed` is true, the node subscribes to <image>/compressed.",
        ),
        DeclareLaunchArgument(
            "seed_mask",
            default_value="~/seed_mask",
            description="Topic of the seed masks (sensor_msgs/Image, value = instance id), e.g. /camera/seed_mask. "
            "~ stands for <namespace>/tracker.",
        ),
        DeclareLaunchArgument(
            "ignore_mask",
            default_value="~/ignore_mask",
            description="Topic of ignore masks (sensor_msgs/Image, mono8, nonzero = cannot be an object, e.g. the "
            "robot's own body rendered from its URDF), with the stamps of the images. ~ stands for "
            "<namespace>/tracker.",
        ),
        DeclareLaunchArgument(
            "depth",
            default_value="",
            description="Topic of depth images registered to `image`, e.g. /camera/aligned_depth_to_color/image_raw: "
            "starts the locator, which publishes positions in space. Empty: no locator.",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="",
            description="Topic of the CameraInfo of the depth images; needed with `depth`.",
        ),
        DeclareLaunchArgument(
            "locator_params_file",
            default_value="",
            description="ROS parameter file of the locator. Empty: its defaults.",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=["true", "false"],
            description="Start RViz2 with the overlay and the view for seed_tool (package rviz2).",
        ),
        DeclareLaunchArgument(
            "seed_tool",
            default_value="false",
            choices=["true", "false"],
            description="Start rviz_seed_tool: freeze an image, click masks on it, correct and remove instances.",
        ),
        DeclareLaunchArgument(
            "click",
            default_value="~/image_mouse_left",
            description="Topic of clicks for seed_tool (geometry_msgs/Point). The default is where rqt_image_view "
            "publishes them when it shows ~/image of the tool. ~ stands for <namespace>/rviz_seed_tool.",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes, args=[config])])
