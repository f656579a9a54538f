# SPDX-License-Identifier: Apache-2.0
"""The levels of ``quality``, and which settings a level sets."""

from __future__ import annotations

from collections.abc import Mapping

from maskrnn_ros.config import Config, from_flat, settings, to_flat
from maskrnn_ros.setting import Value

LEVELS: Mapping[str, Mapping[str, Value]] = {
    "medium": {"working_size": 512, "flow.preset": "ultrafast"},
    "high": {"working_size": 640, "flow.preset": "medium"},
}
"""Settings of every level, the cheapest level first."""

SET_BY_LEVELS = tuple(LEVELS["medium"])
"""Names of what a level sets; each level sets all of them."""


def resolved(config: Config) -> Config:
    """The settings with the values of the level where the config leaves them to it.

    >>> resolved(Config()).working_size, resolved(Config(working_size=448)).working_size
    (512, 448)

    The result stands for itself: what is resolved once stays as it is.
    """
    flat = to_flat(config)
    left_open = {name: known.automatic for name, _, known in settings() if name in SET_BY_LEVELS}
    set_here = {name: value for name, value in LEVELS[config.quality].items() if flat[name] == left_open[name]}
    return from_flat({**flat, **set_here})


def working_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(h, w) that the tracker works on: the longer side at most ``longest`` > 0, never scaled up.

    >>> working_size((480, 854), 448)
    (252, 448)

    Raises:
        ValueError: ``longest`` is not settled yet: 0 leaves it to the level, see ``resolved``.
    """
    if longest < 1:
        raise ValueError(f"longest must be >= 1, got {longest}: the config is to be resolved first")
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
