# SPDX-License-Identifier: Apache-2.0
"""Bags: DAVIS sequences to bags, and bags back to frames and masks. Needs no ROS."""

from maskrnn_ros.bags.convert import BagSummary, from_davis
from maskrnn_ros.bags.read import BagReader, RawMessage, StampedLabels, Topic
from maskrnn_ros.bags.topics import IMAGE_TOPIC, SEED_TOPIC, TRUTH_TOPIC

__all__ = [
    "IMAGE_TOPIC",
    "SEED_TOPIC",
    "TRUTH_TOPIC",
    "BagReader",
    "BagSummary",
    "RawMessage",
    "StampedLabels",
    "Topic",
    "from_davis",
]
