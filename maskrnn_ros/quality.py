# SPDX-License-Identifier: Apache-2.0
"""The levels of ``quality``: which settings a level sets, and what one costs beside another."""

from __future__ import annotations

from collections.abc import Mapping

from maskrnn_ros.config import Config, from_flat, settings, to_flat
from maskrnn_ros.setting import Value

LEVELS: Mapping[str, Mapping[str, Value]] = {
    "low": {"working_size": 384, "flow.preset": "ultrafast"},
    "medium": {"working_size": 512, "flow.preset": "ultrafast"},
    "high": {"working_size": 640, "flow.preset": "medium"},
}
"""Settings of every level, the cheapest level first."""

SET_BY_LEVELS = tuple(LEVELS["medium"])
"""Names of what a level sets; each level sets all of them."""

_PIXEL_COST = {"ultrafast": 1.0, "fast": 1.03, "medium": 1.3}
"""Time of a pixel of the working image by the flow's preset."""

_FIXED_PIXELS = 60_000
"""Pixels that take as long as what does not grow with the working size: crops of instances, edges at the full size.
Measured with one thread: 100 000 with four instances on images of 640x360."""


def at_level(config: Config, level: str) -> Config:
    """The settings at a level: its values where the config leaves them to it, else what the config says.

    >>> at_level(Config(), "low").working_size, at_level(Config(working_size=512), "low").working_size
    (384, 512)

    The result is that of ``at_level`` of itself at the same level, but not at another one: go from the config that the
    user gave.

    Args:
        config: As the user gave it.
        level: One of ``LEVELS``; it becomes the ``quality`` of the result.
    """
    flat = to_flat(config)
    left_open = {name: known.automatic for name, _, known in settings() if name in SET_BY_LEVELS}
    set_here = {name: value for name, value in LEVELS[level].items() if flat[name] == left_open[name]}
    return from_flat({**flat, **set_here, "quality": level})


def chosen(config: Config) -> dict[str, Value]:
    """The level and what it sets, by dotted name."""
    flat = to_flat(config)
    return {name: flat[name] for name in ("quality", *SET_BY_LEVELS)}


def relative_cost(config: Config, size: tuple[int, int]) -> float:
    """About how long a step takes beside another one with other settings of ``SET_BY_LEVELS``, in no unit.

    A first guess, by which a higher level is tried or not; whether it fits is measured then.

    Args:
        config: Settings at a level.
        size: (H, W) of the input images, pixels.
    """
    has_presets = config.flow.backend in ("auto", "dis", "epicflow")
    height, width = working_size(size, config.working_size)
    return _FIXED_PIXELS + height * width * (_PIXEL_COST[config.flow.preset] if has_presets else 1.0)


def working_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(h, w) that the tracker works on: the longer side at most ``longest`` > 0, never scaled up.

    >>> working_size((480, 854), 448)
    (252, 448)

    Raises:
        ValueError: ``longest`` is not settled yet: 0 leaves it to the level, see ``at_level``.
    """
    if longest < 1:
        raise ValueError(f"longest must be >= 1, got {longest}: the level of quality is to be applied first")
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
