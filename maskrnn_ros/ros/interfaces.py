# SPDX-License-Identifier: Apache-2.0
"""How a node says what it subscribes to, publishes and serves; the tables of the README are made of it."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interface:
    """A topic or a service of a node.

    Args:
        name: As the node asks for it: relative, or private with ``~/``.
        type: ``package/Name``.
        kind: What the node does with it.
        text: One line for the README.
        needs: ROS package without which it is not there; empty: always there.
    """

    name: str
    type: str
    kind: Literal["subscribes", "publishes", "serves", "calls"]
    text: str
    needs: str = ""
