# SPDX-License-Identifier: Apache-2.0
"""The topic ~/events: an instance changed its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from std_msgs.msg import Header

from maskrnn_ros.events import Seen, changes
from maskrnn_ros.msg import InstanceEvent
from maskrnn_ros.ros.messages import instance_event
from maskrnn_ros.tracker_node.worker import Result

_DEPTH = 100
"""A reset removes all instances at once, and every one of them is an event."""


class EventOutput:
    """Compares every published image with the one before.

    Args:
        create: Makes a publisher of a type, a name and a queue depth. At ``forget`` the node is not active any more,
            and it must be heard all the same.
        run_id: Of the node.
    """

    def __init__(self, create: Callable[[Any, str, int], Any], run_id: str) -> None:
        self._run_id = run_id
        self._publisher = create(InstanceEvent, "~/events", _DEPTH)
        self._seen = Seen()
        self._header = Header()

    def publish(self, result: Result) -> None:
        """Publish what changed with this image; the worker calls it for every one."""
        tracks = result.tracks.tracks
        for event in changes(self._seen, result.session, tracks):
            self._publisher.publish(instance_event(event, result.message.header, self._run_id))
        self._seen = Seen.of(result.session, tracks)
        self._header = result.message.header

    def forget(self) -> None:
        """Publish that all instances of the last image are removed, with its header: none follows in their session."""
        for event in changes(self._seen, self._seen.session + 1, ()):
            self._publisher.publish(instance_event(event, self._header, self._run_id))
        self._seen = Seen()
