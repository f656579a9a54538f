# SPDX-License-Identifier: Apache-2.0
"""What several nodes share of ROS: QoS, parameters, messages, a process that ends well, a client of the tracker."""
