# SPDX-License-Identifier: Apache-2.0
"""Scores in real time: every frame is scored with the newest mask that was out by then, not with its own."""

from __future__ import annotations

import dataclasses

import numpy as np

SLACKS = (0, 1)
"""Patience in frames: with 0 the mask must be out when the frame comes, with 1 when the next one comes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """When the frames of a clip came, and when the masks of some of them were out.

    >>> line = Timeline(period_s=0.1, arrived_s=(0.0, 0.1, 0.2, 0.3, 0.4), out_s={0: 0.05, 1: 0.19, 3: 0.38})
    >>> line.shown(0), line.shown(1)
    ((None, 0, 1, 1, 3), (0, 1, 1, 3, 3))
    >>> line.dropped
    2

    Args:
        period_s: Time between two frames, seconds.
        arrived_s: When each frame came, seconds.
        out_s: By number of the frame: when its masks were out, same clock; those that are not there were dropped.
    """

    period_s: float
    arrived_s: tuple[float, ...]
    out_s: dict[int, float]

    @property
    def dropped(self) -> int:
        """Frames without masks of their own."""
        return len(self.arrived_s) - len(self.out_s)

    @property
    def ages_ms(self) -> tuple[float, ...]:
        """For each frame with masks: from its arrival until they were out, ms."""
        return tuple(1e3 * (out - self.arrived_s[number]) for number, out in sorted(self.out_s.items()))

    def shown(self, slack: int) -> tuple[int | None, ...]:
        """For each frame the number of the frame whose masks count for it; None: none is out, the seed is held.

        Args:
            slack: Frames to wait, see ``SLACKS``.
        """
        numbers = sorted(self.out_s)
        out = np.array([self.out_s[number] for number in numbers])
        shown: list[int | None] = []
        for frame, arrived in enumerate(self.arrived_s):
            known = np.flatnonzero(out <= arrived + slack * self.period_s)
            shown.append(max((numbers[i] for i in known if numbers[i] <= frame), default=None))
        return tuple(shown)

    def held(self) -> tuple[int | None, ...]:
        """Likewise without regard to time: a frame's own masks, those of the last one that has some otherwise."""
        shown: list[int | None] = []
        for frame in range(len(self.arrived_s)):
            shown.append(frame if frame in self.out_s else shown[-1] if shown else None)
        return tuple(shown)
