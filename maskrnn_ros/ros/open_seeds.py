# SPDX-License-Identifier: Apache-2.0
"""Seeds that have no verdict yet, whoever holds them: the inbox, the session, or a worker that does not end."""

from __future__ import annotations

import threading

from maskrnn_ros.ros.messages import Ticket


class OpenSeeds:
    """Which seeds still owe their clients a verdict. Callbacks and worker both use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[Ticket, tuple[int, ...]] = {}

    def open(self, ticket: Ticket, ids: tuple[int, ...]) -> None:
        """A seed with these ids was taken."""
        with self._lock:
            self._ids[ticket] = ids

    def is_open(self, ticket: Ticket) -> bool:
        """Whether its verdict is still to come."""
        with self._lock:
            return ticket in self._ids

    def close(self, ticket: Ticket) -> bool:
        """It gets its verdict now; False where it has had one, and must not get another."""
        with self._lock:
            return self._ids.pop(ticket, None) is not None

    def close_all(self) -> dict[Ticket, tuple[int, ...]]:
        """All that are left, with their ids; the caller informs their clients."""
        with self._lock:
            left, self._ids = self._ids, {}
            return left
