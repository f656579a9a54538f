# SPDX-License-Identifier: Apache-2.0
"""Starts the tracker, and RViz2 with rviz:=true. `ros2 launch maskrnn_ros tracker.launch.py --show-args` explains."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.utilities import make_namespace_absolute, prefix_namespace


def _nodes(context: LaunchContext, config: Path) -> list[Node]:
    """The tracker and RViz2; a function, since some of their arguments follow from the values of several others."""
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():  # launch_ros only warns and goes on without it
        raise FileNotFoundError(f"params_file: there is no file {params_file!r}")
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    device = LaunchConfiguration("device").perform(context)  # empty: must not override params_file
    namespace = make_namespace_absolute(
        prefix_namespace(
            context.launch_configurations.get("ros_namespace"),  # PushRosNamespace in a launch file around this one
            LaunchConfiguration("namespace").perform(context),
        )
    ).rstrip("/")
    logger = f"{namespace}/tracker"[1:].replace("/", ".")
    tracker = Node(
        package="maskrnn_ros",
        executable="tracker",
        name="tracker",
        namespace=namespace or "/",
        output="screen",
        parameters=[params_file, sim_time, {"device": ParameterValue(device, value_type=str)} if device else {}],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("~/seed_mask", LaunchConfiguration("seed_mask")),
        ],
        arguments=["--ros-args", "--log-level", [f"{logger}:=", LaunchConfiguration("log_level")]],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config / "tracker.rviz")],
        parameters=[sim_time],
        remappings=[(f"/tracker/{topic}", f"{namespace}/tracker/{topic}") for topic in ("overlay", "label_image")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    locator = _locator(context, namespace, sim_time)
    return [rviz, *locator, tracker]  # rviz2 may be missing: then launch stops here, and no tracker is left behind


def _locator(context: LaunchContext, namespace: str, sim_time: dict[str, ParameterValue]) -> list[Node]:
    """The node that gives positions in space; none without a depth topic."""
    topics = {name: LaunchConfiguration(name).perform(context) for name in ("depth", "camera_info")}
    if not any(topics.values()):
        return []
    for name, topic in topics.items():
        if not topic:
            raise ValueError(f"{name}: expected a topic, got none; positions need depth and camera_info")
    locator = Node(
        package="maskrnn_ros",
        executable="locator",
        name="locator",
        namespace=namespace or "/",
        output="screen",
        parameters=[sim_time],
        remappings=[("instances", "tracker/instances"), *topics.items()],
    )
    return [locator]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the tracker, RViz2."""
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
            description="ROS parameter file; settings that it leaves out keep their defaults.",
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
            description="Least severe messages of the node that are logged.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="Where the tracker runs: auto, cpu, cuda or cuda:N. Overrides params_file, unless empty.",
        ),
        DeclareLaunchArgument(
            "image",
            default_value="image",
            description="Topic of the camera images (sensor_msgs/Image), e.g. /camera/color/image_raw. Where the "
            "parameter `compressed` is true, the node subscribes to <image>/compressed.",
        ),
        DeclareLaunchArgument(
            "seed_mask",
            default_value="~/seed_mask",
            description="Topic of the seed masks (sensor_msgs/Image, value = instance id), e.g. /camera/seed_mask. "
            "~ stands for <namespace>/tracker.",
        ),
        DeclareLaunchArgument(
            "depth",
            default_value="",
            description="Topic of depth images registered to `image`, e.g. /camera/aligned_depth_to_color/image_raw: "
            "starts the locator, which publishes positions in space. Empty: it is not started.",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="",
            description="Topic of the CameraInfo of the depth images; needed with `depth`.",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=["true", "false"],
            description="Start RViz2 with the overlay (package rviz2).",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes, args=[config])])
