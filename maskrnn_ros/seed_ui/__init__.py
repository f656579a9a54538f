# SPDX-License-Identifier: Apache-2.0
"""The seed editor in the browser: a small web server for one page; what it knows of ROS is ``server.Link`` alone."""
