# SPDX-License-Identifier: Apache-2.0
"""Instances through time: state, prior, gate, merge, and the session around them."""

from maskrnn_ros.tracking.build import build_tracker
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker

__all__ = ["InstanceMemory", "PreparedFrame", "Tracker", "build_tracker"]
