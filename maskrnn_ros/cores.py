# SPDX-License-Identifier: Apache-2.0
"""The cores that this process may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def cores() -> list[int]:
    """Their numbers, ascending: those that ``taskset`` left, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def places_of(threads: int) -> list[int | None]:
    """The core of each of some threads; empty where they are better left to the scheduler.

    Where there are as many threads as cores, each gets one of its own. On virtual machines the scheduler wakes a thread
    on the core of the one that woke it, and finds out only milliseconds later that the other core is idle.
    """
    mine = cores()
    return [*mine] if hasattr(os, "sched_setaffinity") and threads == len(mine) else []


@contextlib.contextmanager
def seat(core: int | None) -> Iterator[None]:
    """Keep the calling thread on a core for the block; None leaves it where it is."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
