# SPDX-License-Identifier: Apache-2.0
"""Where on a frame surely is no object: an ignore mask, as the tracker holds it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from maskrnn_ros.tracking.cells import cells_of, resized
from maskrnn_ros.types import BoolArray, Box, UInt8Array


@dataclasses.dataclass(frozen=True, eq=False)
class Ignored:
    """An ignore mask of one frame.

    At the size of the input it decides what is published, to the pixel. There it is held as bits: frames are held for
    late seeds by the hundred.

    Args:
        bits: uint8, (H, ceil(W / 8)): the mask at the size of the input, rows packed.
        size: (H, W) of the input, pixels.
        working: bool, (h, w): the same at the working size, where at least half of a pixel is ignored.
    """

    bits: UInt8Array
    size: tuple[int, int]
    working: BoolArray

    @staticmethod
    def of(mask: BoolArray | None, size: tuple[int, int]) -> Ignored | None:
        """A mask bool (H, W) for a working size (h, w); None where nothing is ignored."""
        if mask is None or not mask.any():
            return None
        bits = np.packbits(mask, axis=1)
        return Ignored(bits, (mask.shape[0], mask.shape[1]), _shrunk(mask, size))

    @property
    def full(self) -> BoolArray:
        """The mask at the size of the input, bool (H, W)."""
        return np.unpackbits(self.bits, axis=1, count=self.size[1]).astype(np.bool_)

    @property
    def nbytes(self) -> int:
        """Memory that it holds, bytes."""
        return int(self.bits.nbytes + self.working.nbytes)

    def part(self, size: tuple[int, int], box: Box) -> Ignored | None:
        """Those of the pixels in a box of an image (h, w) of another size; None where nothing there is ignored."""
        working = _shrunk(self.full, size)[box.slices]
        return dataclasses.replace(self, working=working) if working.any() else None

    def cells(self, stride: int) -> npt.NDArray[np.float32]:
        """Share of each cell that is ignored, float32 (j, i), 0..1."""
        return cells_of(self.working.astype(np.float32), stride)


def _shrunk(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    return np.asarray(resized(mask.astype(np.float32), size) >= 0.5)
