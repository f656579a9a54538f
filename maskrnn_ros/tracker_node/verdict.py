# SPDX-License-Identifier: Apache-2.0
"""Whether the node does its work, judged by time and by what went wrong: the line in /diagnostics."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from maskrnn_ros.sections import WatchdogConfig

_FEW_IDS = 10


class Level(enum.Enum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``, whose values are bytes."""

    OK = b"\x00"
    WARN = b"\x01"
    ERROR = b"\x02"
    STALE = b"\x03"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the node at a moment.

    Args:
        failure: Why it cannot go on; empty where it can.
        enabled: Whether it takes images.
        active_s: Time since its activation, seconds.
        image_age_s: Time since the newest image came, seconds; -1: none since activation.
        step_age_s: Time since the newest masks were published, likewise.
        silent_s: How long there has been no progress with what is worked on, seconds.
        publishers: Of the image topic.
        trackers: Publishers of ``~/instances``, this node included.
        instances: How many are followed.
        lost: How many of those are LOST.
        ids_left: Ids that this session has not used.
        fresh: What was refused since the last verdict: the newest reason by kind (image, seed, internal ...).
    """

    failure: str = ""
    enabled: bool = True
    active_s: float = 0.0
    image_age_s: float = -1.0
    step_age_s: float = -1.0
    silent_s: float = 0.0
    publishers: int = 1
    trackers: int = 1
    instances: int = 0
    lost: int = 0
    ids_left: int = 1_000
    fresh: Mapping[str, str] = dataclasses.field(default_factory=dict)


def verdict(facts: Facts, limits: WatchdogConfig) -> tuple[Level, str]:
    """The level and one line; of several things that are wrong, the worst."""
    if facts.failure:
        return Level.ERROR, facts.failure
    if "internal" in facts.fresh:
        return Level.ERROR, facts.fresh["internal"]
    wrong = _stream(facts, limits) if facts.enabled else None
    reason = next(iter(facts.fresh.values()), "")
    if wrong is not None and wrong[0] != Level.WARN:
        level, line = wrong
        return level, line if not reason or reason in line else f"{line}; {reason}"
    if reason:
        return Level.WARN, reason
    if wrong is not None:
        return wrong
    if facts.publishers > 1:
        return Level.WARN, f"{facts.publishers} publishers on the image topic: their images are mixed, expected one"
    if facts.trackers > 1:
        return Level.WARN, f"{facts.trackers} publishers of ~/instances, expected one: give each node a name of its own"
    if facts.instances and facts.lost == facts.instances:
        return Level.WARN, f"all of {facts.instances} instances are lost"
    if facts.ids_left < _FEW_IDS:
        return Level.WARN, f"{facts.ids_left} ids are left in this session: call ~/reset to begin a new one"
    if not facts.enabled:
        return Level.OK, "disabled: images are dropped"
    return Level.OK, f"following {facts.instances} instances"


def _stream(facts: Facts, limits: WatchdogConfig) -> tuple[Level, str] | None:
    """What is wrong with the way from images to masks; None: nothing."""
    image_s = facts.image_age_s if facts.image_age_s >= 0 else facts.active_s
    step_s = facts.step_age_s if facts.step_age_s >= 0 else facts.active_s
    limit_s = limits.image_s
    if limit_s and facts.silent_s > limit_s:
        return Level.WARN, f"no progress with what is worked on for {facts.silent_s:.0f} s"
    if not facts.publishers:
        stale = bool(limit_s) and facts.image_age_s > limit_s
        return (
            (Level.STALE, f"no image for {image_s:.0f} s, nor a publisher on the image topic")
            if stale
            else (
                Level.WARN,
                "no publisher on the image topic",
            )
        )
    if limit_s and image_s > limit_s:
        return Level.STALE, f"no image for {image_s:.0f} s, though there is a publisher on the image topic"
    if limit_s and step_s > limit_s and facts.image_age_s >= 0:
        why = f": {facts.fresh['image']}" if "image" in facts.fresh else ""
        return Level.ERROR, f"images come, but none gave masks for {step_s:.0f} s{why}"
    return None
