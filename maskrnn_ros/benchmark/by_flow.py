# SPDX-License-Identifier: Apache-2.0
"""How many images have masks that were carried to them by flow, by what a tracker's status counts."""

from __future__ import annotations

from typing import Any

from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.ros.interfaces import propagated
from maskrnn_ros.ros.qos import reliable

_DEPTH = 10


class ByFlow:
    """Listens to the status of a tracker.

    Args:
        tracker: Its name.
    """

    def __init__(self, tracker: str) -> None:
        self._topic = f"{tracker}/status"
        self._counts: list[tuple[int, int, int]] = []  # when (ns), images processed, of those by flow

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        node.create_subscription(TrackerStatus, self._topic, self._on_status, reliable(_DEPTH))

    @property
    def counted_ns(self) -> int:
        """When the newest counts were said, ns; 0: there are none."""
        return self._counts[-1][0] if self._counts else 0

    def share(self, begin_ns: int, end_ns: int) -> float:
        """Of the images that were processed in a time, as far as the counts tell; 0 where there was none."""
        before = [counts for counts in self._counts if counts[0] < begin_ns][-1:] or [(0, 0, 0)]
        after = [counts for counts in self._counts if counts[0] > end_ns][:1] or self._counts[-1:] or before
        processed, moved = (after[0][k] - before[0][k] for k in (1, 2))
        return moved / processed if processed else 0.0

    def _on_status(self, message: Any) -> None:
        self._counts.append((stamp_to_ns(message.stamp), message.processed, propagated(message)))
