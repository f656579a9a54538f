# SPDX-License-Identifier: Apache-2.0
"""How the tracker's stream is, in one line for people."""

from __future__ import annotations

import math
from typing import Any

_SILENT_S = 3.0
"""Longer than this between two ~/status is worth a word: they come every second unless status_period says otherwise."""
_IMAGE_S = 2.0
"""The same of images."""
_COUNTED_S = 0.5
"""Shortest time to count images in: an event sends a status between two of the regular ones."""


class StreamLine:
    """Takes ~/status and says what is in it."""

    def __init__(self) -> None:
        self._newest: Any = None
        self._came_s = 0.0
        self._counted_s = 0.0
        self._counted: Any = None
        self._rate: float | None = None

    def take(self, status: Any, now_s: float) -> None:
        """Take a TrackerStatus.

        Args:
            status: The message.
            now_s: When it came, seconds of a clock that never jumps.
        """
        self._newest, self._came_s = status, now_s
        before = self._counted
        if before is None or before.run_id != status.run_id or before.processed > status.processed:
            self._rate = None
        elif now_s - self._counted_s < _COUNTED_S:
            return
        else:
            self._rate = (status.processed - before.processed) / (now_s - self._counted_s)
        self._counted, self._counted_s = status, now_s

    def line(self, now_s: float) -> str:
        """The line, as of now.

        Args:
            now_s: Seconds of the same clock.
        """
        if self._newest is None:
            return "tracker: not heard of yet"
        status, silent_s = self._newest, now_s - self._came_s
        if silent_s > _SILENT_S:
            return f"tracker: silent for {silent_s:.0f} s"
        if not status.enabled:
            return "tracker: disabled, images are dropped"
        if status.image_age < 0:
            return "tracker: waits for the first image"
        if status.image_age > _IMAGE_S:
            return f"tracker: no image for {status.image_age:.0f} s"
        count = len(status.ids)
        parts = [f"{count} instance{'s' * (count != 1)}"]
        if self._rate is not None:
            parts.append(f"{self._rate:.1f} images/s")
        if not math.isnan(status.age_ms_p50):
            parts.append(f"masks after {status.age_ms_p50:.0f} ms")
        return "tracker: " + ", ".join(parts)
