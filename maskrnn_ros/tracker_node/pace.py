# SPDX-License-Identifier: Apache-2.0
"""Whether the networks keep up with the camera: where they do, an image may wait for them."""

from __future__ import annotations

from collections import deque

import numpy as np

_WINDOW = 10
_FEWEST = 3
_PAUSE_S = 1.0
"""A camera that says nothing for so long has paused."""

_SHARE = 0.95
"""Of the time between two images: a look that takes less is through before the next image comes."""


class Pace:
    """Compares how often images come with how long the networks look at one; all times are monotonic, in seconds.

    >>> pace = Pace()
    >>> for k in range(6):
    ...     pace.came(0.1 * k)
    ...     pace.looked(0.08)
    >>> pace.keeps_up
    True
    >>> for _ in range(6):
    ...     pace.looked(0.12)
    >>> pace.keeps_up
    False
    """

    def __init__(self) -> None:
        self._came_s: deque[float] = deque(maxlen=_WINDOW + 1)
        self._looks_s: deque[float] = deque(maxlen=_WINDOW)
        self._carried_s = 0.0

    def came(self, now_s: float) -> None:
        """An image came."""
        if self._came_s and now_s - self._came_s[-1] > _PAUSE_S:
            self._came_s.clear()
        self._came_s.append(now_s)

    def begun(self) -> None:
        """The networks begin to look at an image."""
        self._carried_s = 0.0

    def carried(self, seconds: float) -> None:
        """Masks were carried to an image by flow meanwhile, which held the networks up by so long."""
        self._carried_s += seconds

    def looked(self, seconds: float) -> None:
        """The networks have looked at an image for so long."""
        self._looks_s.append(max(0.0, seconds - self._carried_s))

    @property
    def keeps_up(self) -> bool:
        """Whether a look is over before the next image comes, as a rule; also where little is known yet."""
        if len(self._looks_s) < _FEWEST or len(self._came_s) <= _FEWEST:
            return True
        period_s = (self._came_s[-1] - self._came_s[0]) / (len(self._came_s) - 1)
        return float(np.median(self._looks_s)) <= _SHARE * period_s
