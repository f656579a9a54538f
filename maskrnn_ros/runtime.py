# SPDX-License-Identifier: Apache-2.0
"""Cores and threads: which this process may use, and what shares work among them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

_NICE = 5
"""Of threads that compute networks: what carries masks to the newest image must not wait for them. With eight objects
on two cores and a camera at 24 Hz masks are 64 and 66 ms old so (p50, by turns), else 159 and 105."""

T = TypeVar("T")
R = TypeVar("R")


def cores() -> list[int]:
    """Their numbers, ascending: those that ``taskset`` left, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(threads: int) -> list[int | None]:
    """The core of each of some threads; empty where they are better left to the scheduler.

    Two threads on two cores get one each. On virtual machines the scheduler wakes a thread on the core of the one that
    woke it, and finds out only milliseconds later that the other core is idle. With more cores, which other processes
    use, too, it knows better than this one.
    """
    mine = cores()
    return [*mine] if hasattr(os, "sched_setaffinity") and threads == len(mine) == 2 else []


def pin(core: int) -> None:
    """Pin the calling thread to a core, if the system lets it: it is a matter of speed alone."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin the calling thread to a core for the block; None leaves it where it is."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def set_threads(number: int) -> None:
    """Threads of OpenCV for one operation; 0 leaves their default."""
    if number:
        cv2.setNumThreads(number)


class ThreadPool:
    """Does the same for many, some at a time, each of them on one core; the results do not depend on how many do it.

    Whole instances are shared out, not the insides of operations: small ones gain nothing from threads, and threads
    that wait for each other in every operation stall when something else needs a core.

    Args:
        size: Threads; with 1 whoever asks does all.
        gives_way: Whether its threads give way to others, see ``give_way``.
    """

    def __init__(self, size: int = 1, gives_way: bool = False) -> None:
        self.size = size
        self._pool: ThreadPoolExecutor | None = None
        if size > 1:
            places = iter(cores_for(size))
            self._pool = ThreadPoolExecutor(size, "maskrnn", initializer=lambda: _begin(next(places, None), gives_way))
            weakref.finalize(self, self._pool.shutdown, wait=False)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function of each item, in their order."""
        todo = list(items)
        if self._pool is None or len(todo) < 2:
            return [function(item) for item in todo]
        return list(self._pool.map(function, todo))

    def parts(self, count: int, most: int | None = None) -> list[slice]:
        """Which of so many items the threads are to do, about as many each, at most so many; none is empty."""
        turns = 1 if most is None else -(-count // (most * self.size))
        shares = min(self.size * turns, count)
        return [slice(count * k // shares, count * (k + 1) // shares) for k in range(shares)]


def _begin(core: int | None, gives_way: bool) -> None:
    if core is not None:
        pin(core)
    if gives_way:
        give_way(_NICE)


def give_way(nice: int) -> None:
    """Let the calling thread have a core only after others, if the system lets it: it is a matter of speed alone.

    Args:
        nice: Its priority from now on, 0..19, see nice(2); one that is lower already stays.
    """
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
