# SPDX-License-Identifier: Apache-2.0
"""What the steps of a training see, drawn ahead of them in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")
K = TypeVar("K")

_BATCHES = 3
"""That every process draws ahead."""


class _Drawn(Dataset[T], Generic[K, T]):
    def __init__(self, make: Callable[[], Callable[[K], T]], processes: int) -> None:
        self._make, self._processes = make, processes
        self._draw: Callable[[K], T] | None = None

    def __getitem__(self, key: K) -> T:
        if self._draw is None:
            if self._processes:  # of each of them; where it is this one, its threads are somebody else's matter
                torch.set_num_threads(1)
                cv2.setNumThreads(1)
            self._draw = self._make()
        return self._draw(key)


def drawn(make: Callable[[], Callable[[K], T]], keys: Iterable[K], processes: int) -> Iterator[T]:
    """What is drawn for each key, in their order.

    Args:
        make: Makes what draws, once in each process.
        keys: Say what to draw, the number of the step for one; they may have no end. They are asked for ahead.
        processes: That draw; 0: none, it is drawn when it is asked for.
    """
    loader = DataLoader(
        _Drawn(make, processes),
        batch_size=None,
        sampler=keys,
        num_workers=processes,
        prefetch_factor=_BATCHES if processes else None,
    )
    return iter(loader)
