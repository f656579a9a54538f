# SPDX-License-Identifier: Apache-2.0
"""The level of quality that a session works at: the one that is set, or below it where images take too long."""

from __future__ import annotations

from maskrnn_ros.config import Config
from maskrnn_ros.quality import LEVELS, at_level, chosen, relative_cost
from maskrnn_ros.tracking.latency import LatencyControl

_NAMES = tuple(LEVELS)


class Tuning:
    """Keeps the level, and changes it by what images take, where the config has a limit for that.

    Args:
        config: As the user gave it.
    """

    def __init__(self, config: Config) -> None:
        self.level = config.quality
        self._config = config
        self._control: LatencyControl | None = None
        self._ladder: tuple[str, ...] = ()
        self._size: tuple[int, int] | None = None

    def configure(self, config: Config) -> None:
        """Take new settings; where they say anything of levels, what was measured before is forgotten."""
        if _asked(config) != _asked(self._config):
            self.level = config.quality
            self._control = None
        self._config = config

    @property
    def settings(self) -> Config:
        """All settings, at the level in use."""
        return at_level(self._config, self.level)

    @property
    def said(self) -> str:
        """The settings that the level chooses, in one line."""
        config = self.settings
        return f"quality {self.level}: working_size {config.working_size}, flow.preset {config.flow.preset}"

    def observe(self, step_ms: float, size: tuple[int, int], instances: int) -> str | None:
        """Take in what an image took; images without instances say nothing of what one with them takes.

        Args:
            step_ms: Its time, milliseconds.
            size: (H, W) of the image.
            instances: How many are followed.

        Returns:
            Why ``level`` and ``settings`` are others now, in one line; None where they are not.
        """
        if not self._config.max_latency_ms or not instances:
            return None
        if self._control is None or size != self._size:
            self._control = self._begin(size)
        step = self._control.observe(step_ms, instances)
        if step is None:
            return None
        before, self.level = self.level, self._ladder[step.level]
        limit = f"max_latency_ms {self._config.max_latency_ms:g}"
        line = f"quality {before} -> {self.level}: p90 {step.p90_ms:.0f} ms "
        if _NAMES.index(self.level) < _NAMES.index(before):
            return f"{line}over {limit}"
        return f"{line}with {limit}, about {step.expected_ms:.0f} ms expected"

    def _begin(self, size: tuple[int, int]) -> LatencyControl:
        """Control for images of a size; of levels that do the same, which small images make, one remains."""
        by_cost: dict[float, str] = {}
        for name in _NAMES[: _NAMES.index(self._config.quality) + 1]:
            by_cost[relative_cost(at_level(self._config, name), size)] = name
        self._size, self._ladder = size, tuple(by_cost.values())
        now = _NAMES.index(self.level)
        level = next(k for k, name in enumerate(self._ladder) if _NAMES.index(name) >= now)
        self.level = self._ladder[level]
        return LatencyControl(tuple(by_cost), level, self._config.max_latency_ms)


def _asked(config: Config) -> tuple[object, ...]:
    return config.max_latency_ms, chosen(config)
