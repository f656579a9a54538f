# SPDX-License-Identifier: Apache-2.0
"""`python -m maskrnn_ros.ros` starts the tracker node, as `ros2 run maskrnn_ros tracker` does."""

import os
import signal
import sys

# rclpy and torch take seconds to import. A Ctrl-C meanwhile ends the process as cleanly as one later, when the node
# has handlers of its own.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: os._exit(0))

from maskrnn_ros.ros.node import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
