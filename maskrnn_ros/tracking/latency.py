# SPDX-License-Identifier: Apache-2.0
"""Stepping between levels of quality by what images take, with hysteresis."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

WINDOW = 20
"""Images that are judged together."""

TOLERATED = 2
"""How many of them may take too long: an image on which an object is marked takes longer than the others."""

SETTLING = 3
"""Images after a step that do not count: what a new size needs is set up on them."""

CALM = 75
"""Images on which the next higher level must seem to fit before it is tried: three seconds at 25 Hz."""

MARGIN = 0.8
"""Share of the limit below which the next higher level must be expected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A change of the level.

    Args:
        level: The new one.
        p90_ms: What nine of ten images took at most before, milliseconds.
        expected_ms: What they are expected to take now.
    """

    level: int
    p90_ms: float
    expected_ms: float


class LatencyControl:
    """Chooses the level by the time of the steps; it knows no clock, only what it is told.

    It goes down by one level as soon as more than ``TOLERATED`` of the last ``WINDOW`` images took longer than the
    limit. It goes up by one when the next level is expected within ``MARGIN`` of the limit on ``CALM`` images in turn.
    If that level turns out not to fit, twice as many images must pass before it is tried again, and so on: where the
    costs are constant, the steps become ever rarer. Another number of instances is another load, for which nothing is
    known to fail.

    Args:
        costs: Of the levels in any unit, the cheapest first; only their ratios count.
        level: Where it begins, 0 is the cheapest.
        limit_ms: What a step may take, milliseconds.
    """

    def __init__(self, costs: Sequence[float], level: int, limit_ms: float) -> None:
        self.level = level
        self._costs = tuple(costs)
        self._limit_ms = limit_ms
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._settling = SETTLING
        self._calm = 0
        self._wait = CALM
        self._since_rise: int | None = None
        self._instances: int | None = None

    def observe(self, step_ms: float, instances: int) -> Step | None:
        """Take in what an image took.

        Args:
            step_ms: Its time, milliseconds.
            instances: How many were followed on it.

        Returns:
            A change of the level, which must be carried out before the next image; None to go on.
        """
        if instances != self._instances:
            self._instances, self._wait, self._since_rise = instances, CALM, None
        if self._settling:
            self._settling -= 1
            return None
        if self._since_rise is not None:
            self._since_rise += 1
        self._recent.append(step_ms)
        if len(self._recent) < WINDOW:
            return None
        p90_ms = sorted(self._recent)[-1 - TOLERATED]
        if p90_ms > self._limit_ms:
            return self._down(p90_ms)
        return self._up(p90_ms)

    def _down(self, p90_ms: float) -> Step | None:
        self._calm = 0
        if self.level == 0:
            return None
        # a level that held for long did not fail: something else has changed since
        failed = self._since_rise is not None and self._since_rise < 4 * self._wait
        self._wait = 2 * self._wait if failed else CALM
        self._since_rise = None
        return self._step(-1, p90_ms)

    def _up(self, p90_ms: float) -> Step | None:
        if self.level + 1 == len(self._costs) or self._expected(+1, p90_ms) > MARGIN * self._limit_ms:
            self._calm = 0
            return None
        self._calm += 1
        if self._calm < self._wait:
            return None
        self._since_rise = 0
        return self._step(+1, p90_ms)

    def _expected(self, by: int, p90_ms: float) -> float:
        return p90_ms * self._costs[self.level + by] / self._costs[self.level]

    def _step(self, by: int, p90_ms: float) -> Step:
        step = Step(level=self.level + by, p90_ms=p90_ms, expected_ms=self._expected(by, p90_ms))
        self.level = step.level
        self._recent.clear()
        self._settling = SETTLING
        self._calm = 0
        return step
