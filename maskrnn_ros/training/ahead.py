# SPDX-License-Identifier: Apache-2.0
"""What the steps of a training see, drawn ahead of them in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import cv2
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")
K = TypeVar("K")

_BATCHES = 3
"""That every process draws ahead."""


class _Drawn(Dataset[T], Generic[K, T]):
    def __init__(self, make: Callable[[], Callable[[K], T]]) -> None:
        self._make = make
        self._draw: Callable[[K], T] | None = None

    def __getitem__(self, key: K) -> T:
        if self._draw is None:
            self._draw = self._make()
        return self._draw(key)


def drawn(make: Callable[[], Callable[[K], T]], keys: Iterable[K], processes: int) -> Iterator[T]:
    """What is drawn for each key, in their order.

    Args:
        make: Makes what draws, once in each process; what it holds already they share.
        keys: Say what to draw, the number of the step for one; they may have no end. They are asked for ahead.
        processes: That draw; 0: none, it is drawn when it is asked for.
    """
    if not processes:
        return iter(_loader(make, keys, 0))
    # A process of its own has one thread, of torch by what DataLoader does. OpenCV's threads are ended here: there they
    # would not exist, and to end them there waits for ever.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(_loader(make, keys, processes))
    finally:
        cv2.setNumThreads(threads)


def _loader(make: Callable[[], Callable[[K], T]], keys: Iterable[K], processes: int) -> DataLoader[T]:
    return DataLoader(
        _Drawn(make),
        batch_size=None,
        sampler=keys,
        num_workers=processes,
        multiprocessing_context="fork" if processes else None,  # nothing is copied: all of it stays where it is
        prefetch_factor=_BATCHES if processes else None,
    )
