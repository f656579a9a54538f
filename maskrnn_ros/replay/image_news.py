# SPDX-License-Identifier: Apache-2.0
"""What became of images that give no masks, as a player in lockstep hears it."""

from __future__ import annotations

from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.ros.interfaces import HELD_STAMPS, REJECTED_STAMPS
from maskrnn_ros.timeline import NS_PER_S


def in_seconds(stamp_ns: int) -> str:
    """A stamp for people."""
    return f"{stamp_ns // NS_PER_S}.{stamp_ns % NS_PER_S:09d} s"


class ImageNews:
    """What ~/status says of the images that were sent in lockstep: which were refused, and which are held back."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.held: frozenset[int] = frozenset()
        self.is_decided = False
        self.is_settled = True
        """Whether a status was heard that knows what became of the newest image and of those that were held back."""
        self._first: TrackerStatus | None = None
        self._rejected = self._sent = 0
        self._stamp_ns = 0

    @property
    def has_heard(self) -> bool:
        """Whether the tracker has said how many images came before."""
        return self._first is not None

    def sends(self, stamp_ns: int) -> None:
        """The next image goes out; ``is_decided`` becomes true when no masks are to be waited for."""
        self._sent += 1
        self._stamp_ns = stamp_ns
        self.is_decided = self.is_settled = False

    def hear(self, status: TrackerStatus) -> tuple[str, ...]:
        """Take a TrackerStatus; a line for every image that was refused since the last one."""
        if self._first is None or status.received < self._first.received:  # it was activated anew
            self._first, self._rejected, self._sent = status, status.rejected, 0
            return ()
        details = {entry.key: entry.value for entry in status.details}
        rejected = [int(word) for word in details.get(REJECTED_STAMPS, "").split()]
        fresh = rejected[-(status.rejected - self._rejected) :] if status.rejected > self._rejected else []
        self._rejected = status.rejected
        if status.received - self._first.received >= self._sent:  # it knows of the newest one
            self.held = frozenset(int(word) for word in details.get(HELD_STAMPS, "").split())
            self.is_decided |= self._stamp_ns in self.held
            self.is_settled = status.waiting == len(self.held)
        self.is_decided |= self._stamp_ns in fresh
        lines = []
        for stamp_ns in fresh:
            mine = (text for text in (status.event, status.last_error) if text.startswith(f"image {stamp_ns}: "))
            reason = next(mine, status.last_error).removeprefix(f"image {stamp_ns}: ")
            lines.append(f"image at {in_seconds(stamp_ns)}: {reason}")
        self.refused += lines
        return tuple(f"refused: {line}" for line in lines)
