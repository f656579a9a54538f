# SPDX-License-Identifier: Apache-2.0
"""A late seed on its way to the newest frame, while the others stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from maskrnn_ros.sections import CatchUpConfig
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.follow import Beside
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker

_PACE_RATE = 0.3
"""Weight of the newest step in the pace: a step's time varies with what else the worker does in between."""


class CatchUp:
    """Carries the states of a seed from its frame to the newest one, some frames at a time.

    Where instances are coupled, these are shown of the others what was published; the others are not shown these.

    Args:
        states: First states, on ``frame``.
        frame: The frame that the seed was drawn on.
        config: Exact or skip, and the time for it.
        clock: Monotonic time, seconds.
    """

    def __init__(
        self,
        states: Mapping[int, InstanceMemory],
        frame: PreparedFrame,
        config: CatchUpConfig,
        clock: Callable[[], float],
    ) -> None:
        self.states = states
        self.frames_used = 0
        self._at = frame
        self._config = config
        self._clock = clock
        self._last_s = clock()
        self._deadline_s = self._last_s + config.max_s
        self._pace_s = 0.0

    def is_done(self, tracker: Tracker) -> bool:
        """Whether the states belong to the tracker's newest frame."""
        return self._at is tracker.newest

    def step(self, tracker: Tracker, buffer: FrameBuffer) -> None:
        """Carry the states to the next frame, or over some of them where time is short."""
        stride = self._stride(buffer.count_after(self._at.stamp_ns))
        following = buffer.following(self._at.stamp_ns, stride).frame
        shown = self._shown(buffer, following) if tracker.is_coupled else None
        self.states = tracker.carry(self.states, self._at, following, images=stride, beside=shown)
        self._at = following
        self.frames_used += 1
        now_s = self._clock()
        spent_s, self._last_s = now_s - self._last_s, now_s
        first = self.frames_used == 1
        self._pace_s = spent_s if first else (1 - _PACE_RATE) * self._pace_s + _PACE_RATE * spent_s

    def _shown(self, buffer: FrameBuffer, following: PreparedFrame) -> Beside:
        before, now = (buffer.others(frame.stamp_ns, self.states.keys()) for frame in (self._at, following))
        return Beside(before, now)

    def _stride(self, ahead: int) -> int:
        """How many frames to go on, so that the rest fits into the time left at the pace so far."""
        if self._config.mode == "exact":
            return 1
        left_s = self._deadline_s - self._clock()
        if left_s <= 0:
            return ahead
        steps = max(1, int(left_s / max(self._pace_s, 1e-6)))
        return math.ceil(ahead / steps)
