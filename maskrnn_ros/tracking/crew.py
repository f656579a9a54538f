# SPDX-License-Identifier: Apache-2.0
"""Threads that share the work of many instances."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from maskrnn_ros.cores import places_of, stay_on

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")


class Crew:
    """Does the same for many, some at a time, each of them on one core; the results do not depend on how many do it.

    Whole instances are shared out, not the insides of operations: small ones gain nothing from threads, and threads
    that wait for each other in every operation stall when something else needs a core.

    Args:
        size: Threads; with 1 whoever asks does all.
    """

    def __init__(self, size: int = 1) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if size > 1:
            places = iter(places_of(size))
            self._pool = ThreadPoolExecutor(size, "crew", initializer=lambda: _settle(next(places, None)))
            weakref.finalize(self, self._pool.shutdown, wait=False)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The function of each item, in their order."""
        todo = list(items)
        if self._pool is None or len(todo) < 2:
            return [function(item) for item in todo]
        return list(self._pool.map(function, todo))

    def map_values(self, function: Callable[[T], R], items: Mapping[K, T]) -> dict[K, R]:
        """The same for the values of a mapping."""
        return dict(zip(items, self.map(function, items.values()), strict=True))


def _settle(core: int | None) -> None:
    if core is not None:
        stay_on(core)
