# SPDX-License-Identifier: Apache-2.0
"""Starts a tracker for each of several cameras, each in a process and a namespace of its own: /<camera>/tracker.

`ros2 launch maskrnn_ros cameras.launch.py --show-args` explains; docs/cameras.md tells more. What it does not have,
like depth and RViz2, tracker.launch.py has, once per camera.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

TRACKER = Path(__file__).with_name("tracker.launch.py")
ARGUMENTS = {
    "cameras": (
        None,
        "Namespaces of the cameras, separated by commas: front,rear starts /front/tracker, /rear/tracker.",
    ),
    "image_topic": (
        "image_raw",
        "Topic of a camera's images; a relative one is in its namespace (/front/image_raw), {camera} stands for the "
        "camera, e.g. /{camera}/{camera}/color/image_raw.",
    ),
    "cpus": (
        "",
        "Cores that each tracker is kept on, as taskset lists them, separated by semicolons, in quotes for the shell: "
        "'0;1' or '0-1;2,3'. Empty: any.",
    ),
}
PASSED_ON = ("params_file", "use_sim_time", "log_level", "device", "mask_encoding", "threads", "fastdds")
"""Arguments of tracker.launch.py that hold for all cameras; {camera} stands for the camera."""


def _cameras(context: LaunchContext) -> list[str]:
    text = LaunchConfiguration("cameras").perform(context)
    cameras = [name.strip().strip("/") for name in text.split(",")]
    if not all(cameras) or len(set(cameras)) < len(cameras):
        raise ValueError(f"cameras: expected different names, separated by commas, got {text!r}")
    return cameras


def _cpus(context: LaunchContext, cameras: list[str]) -> list[str]:
    """The cores of each camera."""
    text = LaunchConfiguration("cpus").perform(context)
    if not text:
        return [""] * len(cameras)
    cpus = [cores.strip() for cores in text.split(";")]
    if not all(cpus) or len(cpus) != len(cameras):
        raise ValueError(f"cpus: expected cores for each of {len(cameras)} cameras, separated by ';', got {text!r}")
    return cpus


def _trackers(context: LaunchContext) -> list[GroupAction]:
    """One group per camera: what is set in it is not seen by the next."""
    cameras = _cameras(context)
    groups = []
    for camera, cpus in zip(cameras, _cpus(context, cameras), strict=True):
        given = {name: LaunchConfiguration(name).perform(context) for name in ("image_topic", *PASSED_ON)}
        arguments = {name: value.replace("{camera}", camera) for name, value in given.items()}
        arguments |= {"namespace": camera, "image": arguments.pop("image_topic"), "cpus": cpus}
        source = PythonLaunchDescriptionSource(str(TRACKER))
        groups.append(GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())]))
    return groups


def generate_launch_description() -> LaunchDescription:
    """Arguments and trackers."""
    own = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in ARGUMENTS.items()
    ]
    of_tracker = PythonLaunchDescriptionSource(str(TRACKER)).get_launch_description(LaunchContext())
    passed_on = [argument for argument in of_tracker.get_launch_arguments() if argument.name in PASSED_ON]
    return LaunchDescription([*own, *passed_on, OpaqueFunction(function=_trackers)])
