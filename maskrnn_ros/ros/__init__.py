# SPDX-License-Identifier: Apache-2.0
"""The two ends of a frame's way in ROS 2; rclpy is imported here and nowhere else."""
