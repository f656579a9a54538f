# SPDX-License-Identifier: Apache-2.0
"""The connected pieces of K masks."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray

Numbers = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of 8 neighbours, those of the first mask first.

    Args:
        map: int32, (K, a, b): 1 + the number of a piece; 0: none.
        owners: Which mask each is of, (pieces,).
        areas: Cells of each.
        boxes: x, y, width, height of each in its mask, (pieces, 4).
    """

    map: npt.NDArray[np.int32]
    owners: Ints
    areas: Ints
    boxes: Ints

    @staticmethod
    def of(masks: BoolArray) -> Pieces:
        """Those of masks (K, a, b), by one call: they are put under each other with a row of nothing in between."""
        count, height, width = masks.shape
        sheet = np.zeros((count, height + 1, width), np.uint8)
        sheet[:, :-1] = masks
        _, found, stats, _ = cv2.connectedComponentsWithStats(sheet.reshape(-1, width))
        boxes = stats[1:, :4].astype(np.int64)
        owners, boxes[:, cv2.CC_STAT_TOP] = np.divmod(boxes[:, cv2.CC_STAT_TOP], height + 1)
        areas = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
        return Pieces(np.asarray(found, np.int32).reshape(sheet.shape)[:, :-1], owners, areas, boxes)

    @property
    def counts(self) -> Ints:
        """How many each mask has, (K,)."""
        return np.bincount(self.owners, minlength=len(self.map))

    def largest(self, values: Numbers | Ints) -> Ints:
        """The piece of each mask with the largest of some values, the first of equal ones; -1: it has none."""
        order = np.lexsort((-values, self.owners))
        first = order[np.diff(self.owners[order], prepend=-1) > 0]
        found = np.full(len(self.map), -1, np.int64)
        found[self.owners[first]] = first
        return found

    def sums(self, values: npt.NDArray[np.float32]) -> Numbers:
        """Sums of values (K, a, b) over each."""
        found = np.bincount(self.map.ravel(), values.ravel(), minlength=len(self.areas) + 1)
        return np.asarray(found[1:], np.float64)

    def means(self, values: npt.NDArray[np.float32], which: Ints) -> Numbers:
        """Means of values of coarser cells (K, m, m) over those of some masks; over those of others 0."""
        times = self.map.shape[1] // values.shape[1]
        fine = values[which].repeat(times, axis=1).repeat(times, axis=2)
        sums = np.bincount(self.map[which].ravel(), fine.ravel(), minlength=len(self.areas) + 1)
        return np.asarray(sums[1:] / self.areas, np.float64)
