# SPDX-License-Identifier: Apache-2.0
"""What holds at a time: the newest of some stamped items that is not newer, and not too old."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Items by stamp; those that came first are let go when it is too much.

    >>> masks = Newest[str]()
    >>> masks.put(10, "a"), masks.put(20, "b")
    (None, None)
    >>> masks.at(19, within_ns=9), masks.at(19, within_ns=8), masks.at(20, within_ns=0)
    ((10, 'a'), None, (20, 'b'))

    Args:
        max_bytes: Memory for them; the newest arrival always stays. None: no bound.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self._items: OrderedDict[int, tuple[T, int]] = OrderedDict()  # in the order of arrival: stamps may jump
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, stamp_ns: int, item: T, nbytes: int = 0) -> None:
        """Take an item; of two with one stamp the later counts."""
        self.drop(stamp_ns)
        self._items[stamp_ns] = item, nbytes
        self._bytes += nbytes
        while self.max_bytes is not None and self._bytes > self.max_bytes and len(self._items) > 1:
            self.drop(next(iter(self._items)))

    def at(self, stamp_ns: int, within_ns: int) -> tuple[int, T] | None:
        """The newest item that is not newer than a stamp and at most so much older, with its own; None: there is none.

        Args:
            stamp_ns: The time, ns.
            within_ns: How much older it may be, ns; 0: equal stamps alone.
        """
        found = max((held for held in self._items if stamp_ns - within_ns <= held <= stamp_ns), default=None)
        return None if found is None else (found, self._items[found][0])

    def drop(self, stamp_ns: int) -> None:
        """Let go of the item with that stamp, if there is one."""
        _, nbytes = self._items.pop(stamp_ns, (None, 0))
        self._bytes -= nbytes

    def drop_newer(self, stamp_ns: int) -> None:
        """Let go of all that are newer: time has jumped back."""
        for held in [held for held in self._items if held > stamp_ns]:
            self.drop(held)
