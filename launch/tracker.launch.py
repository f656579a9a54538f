# SPDX-License-Identifier: Apache-2.0
"""Starts the tracker, and RViz2 with rviz:=true. `ros2 launch maskrnn_ros tracker.launch.py --show-args` explains."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def _tracker(context: LaunchContext, sim_time: dict[str, ParameterValue]) -> list[Node]:
    """The node; an empty `device` must not override what params_file says, hence a function."""
    device = LaunchConfiguration("device").perform(context)
    return [
        Node(
            package="maskrnn_ros",
            executable="tracker",
            name="tracker",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[LaunchConfiguration("params_file"), sim_time, {"device": device} if device else {}],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("~/seed_mask", LaunchConfiguration("seed_mask")),
            ],
            arguments=["--ros-args", "--log-level", ["tracker:=", LaunchConfiguration("log_level")]],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the tracker, RViz2."""
    config = PathJoinSubstitution([FindPackageShare("maskrnn_ros"), "config"])
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, e.g. /left."),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([config, "tracker.yaml"]),
            description="ROS parameter file; settings that it leaves out keep their defaults.",
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=["true", "false"], description="Take time from /clock."
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="What the node logs.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="Where the tracker runs: auto, cpu, cuda or cuda:N. Empty: as params_file says.",
        ),
        DeclareLaunchArgument(
            "image",
            default_value="image",
            description="Topic of the camera images, e.g. /camera/color/image_raw. With the parameter `compressed` "
            "the node subscribes to <image>/compressed.",
        ),
        DeclareLaunchArgument(
            "seed_mask",
            default_value="~/seed_mask",
            description="Topic of the seed masks (sensor_msgs/Image, value = instance id), e.g. /camera/seed_mask.",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=["true", "false"],
            description="Start RViz2 with the overlay (package rviz2).",
        ),
    ]
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([config, "tracker.rviz"])],
        parameters=[sim_time],
        remappings=[("/tracker/overlay", [LaunchConfiguration("namespace"), "/tracker/overlay"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=_tracker, args=[sim_time]), rviz])
