# SPDX-License-Identifier: Apache-2.0
"""Maps that are 0 nearly everywhere: what is known of an instance is known in a box."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray, Box


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """A map of the working image that is 0 everywhere but in a box.

    Args:
        values: float32, (box.height, box.width); not looked at where there is no box.
        box: Where they are; None: nowhere.
        size: (h, w) of the whole map.
    """

    values: npt.NDArray[np.float32]
    box: Box | None
    size: tuple[int, int]

    @staticmethod
    def of(whole: npt.NDArray[np.float32]) -> Patch:
        """What of a map (h, w) is not 0."""
        size = (whole.shape[0], whole.shape[1])
        box = Box.of_mask(whole != 0)
        return Patch.nothing(size) if box is None else Patch(whole[box.slices].copy(), box, size)

    @staticmethod
    def nothing(size: tuple[int, int]) -> Patch:
        """0 everywhere."""
        return Patch(np.zeros((0, 0), np.float32), None, size)

    @property
    def full(self) -> npt.NDArray[np.float32]:
        """The whole map, (h, w)."""
        whole = np.zeros(self.size, np.float32)
        if self.box is not None:
            whole[self.box.slices] = self.values
        return whole

    def gated(self, box: Box | None) -> Patch:
        """The same inside a box, 0 beside it."""
        both = self.box.intersection(box) if self.box is not None and box is not None else None
        if both is None or self.box is None:
            return Patch.nothing(self.size)
        return dataclasses.replace(self, values=self.values[both.moved(-self.box.x0, -self.box.y0).slices], box=both)

    def without(self, mask: BoolArray | None) -> Patch:
        """The same, 0 where a mask (h, w) of the whole map is set; None sets nothing."""
        if mask is None or self.box is None:
            return self
        return dataclasses.replace(self, values=np.where(mask[self.box.slices], np.float32(0), self.values))

    @property
    def area(self) -> int:
        """Pixels that are at least 0.5."""
        return int(np.count_nonzero(self.values >= 0.5))
