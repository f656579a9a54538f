# SPDX-License-Identifier: Apache-2.0
"""Import before rclpy: a ROS of our own, on this machine, that parallel runs do not hear."""

import os

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # above 101 the ports may be taken by others
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"
