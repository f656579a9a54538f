# SPDX-License-Identifier: Apache-2.0
"""The node ``locator``: masks, depth and a camera to the positions of instances in space."""
