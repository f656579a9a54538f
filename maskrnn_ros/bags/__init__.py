# SPDX-License-Identifier: Apache-2.0
"""Bags: DAVIS sequences to bags, and bags back to frames and masks. Needs no ROS.

What reads and writes them comes when it is asked for: the command line takes names of topics from here, and where only
is trained there need not be the package ``rosbags``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maskrnn_ros.bags.topics import IMAGE_TOPIC, SEED_TOPIC, TRUTH_TOPIC

if TYPE_CHECKING:
    from maskrnn_ros.bags.convert import BagSummary, from_davis
    from maskrnn_ros.bags.read import BagReader, RawMessage, StampedLabels, Topic

_PLACES = {name: "convert" for name in ("BagSummary", "from_davis")}
_PLACES |= {name: "read" for name in ("BagReader", "RawMessage", "StampedLabels", "Topic")}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


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
