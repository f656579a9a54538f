# SPDX-License-Identifier: Apache-2.0
"""A node's topics and services as data; docs/reference.md is generated from it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

REJECTED_STAMPS, HELD_STAMPS = "rejected_stamps", "held_stamps"
"""Further figures of TrackerStatus that a player in lockstep reads: stamps in ns, with a space between two."""

PROPAGATED = "propagated"
"""Another: how many of the processed images have the masks of an earlier one, carried there by flow."""


def propagated(status: Any) -> int:
    """That figure of a TrackerStatus; 0 where it is not said."""
    return next((int(entry.value) for entry in status.details if entry.key == PROPAGATED), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interface:
    """A topic or a service of a node.

    Args:
        name: As the node declares it: relative, or private with ``~/``.
        type: ``package/Name``.
        kind: What the node does with it.
        text: One line for docs/reference.md.
        needs: ROS package that must be installed for it; empty: none.
    """

    name: str
    type: str
    kind: Literal["subscribes", "publishes", "serves", "calls"]
    text: str
    needs: str = ""
