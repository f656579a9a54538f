# SPDX-License-Identifier: Apache-2.0
"""`python -m maskrnn_ros.ros`, the old name of `python -m maskrnn_ros.tracker_node`."""

from maskrnn_ros.tracker_node.__main__ import main

if __name__ == "__main__":
    main()
