# SPDX-License-Identifier: Apache-2.0
"""`python -m maskrnn_ros.tracker_node` starts the tracker node, as `ros2 run maskrnn_ros tracker` does."""

from typing import NoReturn

from maskrnn_ros.ros.ending import Ending, leave

Ending.installed()  # rclpy and torch take seconds to import

from maskrnn_ros.tracker_node import node  # noqa: E402


def main() -> NoReturn:
    """Run the node and end the process."""
    leave(node.main())


if __name__ == "__main__":
    main()
