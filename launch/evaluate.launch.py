# SPDX-License-Identifier: Apache-2.0
"""Plays a bag with `ros2 bag` to the tracker and scores its masks, as `maskrnn evaluate --bag BAG --online` does.

`ros2 launch maskrnn_ros evaluate.launch.py --show-args` explains. The figures are printed; out:= and json:= keep them.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

ARGUMENTS = {
    "bag": (None, "Folder of the bag: images, their ground truth as label images, and a seed."),
    "rate": ("1.0", "Speed of the player, 1.0 = as recorded."),
    "preset": ("default", "What tracks: default, warp or match; see `maskrnn evaluate --help`."),
    "config": ("", "ROS parameter file for the tracker; empty: the defaults."),
    "image_topic": ("", "Topic of the images in the bag; empty: /camera/image_raw, raw or compressed."),
    "truth_topic": ("", "Topic of their ground truth; empty: /camera/ground_truth."),
    "seed_topic": ("", "Topic of the seed; empty: /camera/seed_mask, else the first ground truth is the seed."),
    "ignore_topic": ("", "Topic of ignore masks; empty: /camera/ignore_mask, where the bag has it."),
    "convention": ("", "davis2016, davis2017 or segtrack2; empty: by the ids in the ground truth."),
    "out": ("", "New folder for masks, tables and report.html; empty: none."),
    "json": ("", "New file for the figures; empty: none."),
}
PLAYER = DeclareLaunchArgument(
    "player",
    default_value="ros2bag",
    choices=["ros2bag", "maskrnn"],
    description="Who plays the bag: `ros2 bag play`, or the player of this package.",
)


def _ended(event: ProcessExited, context: LaunchContext) -> Shutdown:
    """Launch ends with the evaluation, and with 1 where that failed: Shutdown alone would end with 0."""
    if event.returncode:
        raise RuntimeError(f"the evaluation ended with exit status {event.returncode}, see above")
    return Shutdown(reason="evaluated")


def _evaluate(context: LaunchContext) -> list[ExecuteProcess]:
    """The command; a function, since arguments that are empty are left out."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, "player")}
    options = [word for name, value in given.items() if value for word in (f"--{name.replace('_', '-')}", value)]
    # it starts and ends the tracker and the player itself: only so it knows when both are ready and done
    maskrnn = ExecutableInPackage(package="maskrnn_ros", executable="maskrnn")
    command = [maskrnn, "evaluate", "--online", *options]
    return [ExecuteProcess(cmd=command, name="evaluate", output="screen", on_exit=_ended)]


def generate_launch_description() -> LaunchDescription:
    """Arguments and the command."""
    arguments = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, PLAYER, OpaqueFunction(function=_evaluate)])
