# SPDX-License-Identifier: Apache-2.0
"""The node ``rviz_seed_tool``: marking objects in RViz2."""
