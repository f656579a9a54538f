# SPDX-License-Identifier: Apache-2.0
"""Patches of all instances in one array."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import Box

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
F = TypeVar("F", np.float32, np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Patches:
    """Maps of K instances, each 0 everywhere but in its box.

    Args:
        values: float32, (N,): of all boxes, row by row, one after the other.
        boxes: int64, (K, 4), x0 y0 x1 y1; 0: the instance is nowhere.
        starts: int64, (K,): where in ``values`` those of a box begin.
        size: (h, w) of the whole maps.
        sizes: Of each, where they differ, see ``zoom``; None: all have that size.
    """

    values: Floats
    boxes: Ints
    starts: Ints
    size: tuple[int, int]
    sizes: tuple[tuple[int, int], ...] | None = None

    @staticmethod
    def empty(boxes: Ints, size: tuple[int, int]) -> Patches:
        """Room for the values of boxes (K, 4)."""
        counts = areas_of(boxes)
        ends = np.cumsum(counts)
        return Patches(np.empty(int(ends[-1]) if len(ends) else 0, np.float32), boxes, ends - counts, size)

    @staticmethod
    def of(patches: Sequence[Patch]) -> Patches:
        """Those of some instances."""
        boxes = [(0, 0, 0, 0) if one.box is None else one.box.corners for one in patches]
        found = Patches.empty(np.array(boxes, np.int64).reshape(-1, 4), patches[0].size if patches else (0, 0))
        for view, one in zip(found.views, patches, strict=True):
            if one.box is not None:
                view[:] = one.values
        sizes = tuple(one.size for one in patches)
        return found if len(set(sizes)) < 2 else dataclasses.replace(found, sizes=sizes)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, k: int) -> Patch:
        """That of one instance; it shares the values."""
        x0, y0, x1, y1 = self.boxes[k].tolist()
        size = self.size if self.sizes is None else self.sizes[k]
        if x0 == x1:
            return Patch.nothing(size)
        start, width, height = int(self.starts[k]), x1 - x0, y1 - y0
        values = self.values[start : start + width * height].reshape(height, width)
        return Patch(values, Box(x0, y0, x1, y1), size)

    @functools.cached_property
    def views(self) -> list[Floats]:
        """The values of each, (height, width), to be read or written."""
        return [
            self.values[start : start + (x1 - x0) * (y1 - y0)].reshape(y1 - y0, x1 - x0)
            for start, (x0, y0, x1, y1) in zip(self.starts.tolist(), self.boxes.tolist(), strict=True)
        ]

    @property
    def areas(self) -> Ints:
        """Pixels of each that are at least 0.5, (K,)."""
        return self.sums((self.values >= 0.5).astype(np.float32)).astype(np.int64)  # exact up to 2 ** 24

    def only(self, which: npt.NDArray[np.bool_]) -> Patches:
        """The same, nothing where bool (K,) is not set."""
        return self if which.all() else dataclasses.replace(self, boxes=self.boxes * which[:, None])

    def of_size(self, size: tuple[int, int]) -> Patches:
        """Those of maps of a size (h, w), nothing of the others."""
        if self.sizes is None:
            return self if self.size == size else self.only(np.zeros(len(self), np.bool_))
        which = np.array([one == size for one in self.sizes], np.bool_)
        return dataclasses.replace(self.only(which), size=size, sizes=None)

    def sums(self, values: npt.NDArray[F]) -> npt.NDArray[F]:
        """Sums of numbers (..., N) over each box, (..., K)."""
        there, edges = self._edges
        found = np.zeros((*values.shape[:-1], len(self)), values.dtype)
        if edges.size:
            edges = edges[:-1] if edges[-1] == values.shape[-1] else edges  # it must lie inside
            found[..., there] = np.add.reduceat(values, edges, axis=-1)[..., ::2]
        return found

    @functools.cached_property
    def _edges(self) -> tuple[Ints, Ints]:
        """Which boxes hold pixels, and where in ``values`` each of those begins and ends, (2 x number of those,)."""
        counts = areas_of(self.boxes)
        there = np.flatnonzero(counts)
        starts = self.starts[there]
        return there, np.stack([starts, starts + counts[there]], axis=1).ravel()


def areas_of(boxes: Ints) -> Ints:
    """Pixels of boxes (K, 4), (K,)."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.int64)
