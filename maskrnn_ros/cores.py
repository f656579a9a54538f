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

    Two threads on two cores get one each. On virtual machines the scheduler wakes a thread on the core of the one that
    woke it, and finds out only milliseconds later that the other core is idle. With more cores, which other processes
    use, too, it knows better than this one.
    """
    mine = cores()
    return [*mine] if hasattr(os, "sched_setaffinity") and threads == len(mine) == 2 else []


def stay_on(core: int) -> None:
    """Keep the calling thread on a core from now on, if the system lets it: it is a matter of speed alone."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def seat(core: int | None) -> Iterator[None]:
    """Keep the calling thread on a core for the block; None leaves it where it is."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    stay_on(core)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
