# SPDX-License-Identifier: Apache-2.0
"""Maps that have one value nearly everywhere: what is known of an instance is known in a box."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.tracking.gate import box_of
from maskrnn_ros.types import Box


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """A map of the working image, or of its cells, that is ``outside`` everywhere but in a box.

    Args:
        values: Float, (box.height, box.width); not looked at where there is no box.
        box: Where they are; None: nowhere.
        size: (h, w) of the whole map.
        outside: Value beside the box.
    """

    values: Tensor
    box: Box | None
    size: tuple[int, int]
    outside: float = 0.0

    @staticmethod
    def of(whole: Tensor) -> Patch:
        """What of a map (h, w) is not 0."""
        size = (whole.shape[0], whole.shape[1])
        box = box_of(whole.abs(), torch.finfo(whole.dtype).tiny)
        return Patch(whole[box.slices].clone() if box else whole[:0, :0], box, size)

    @staticmethod
    def nothing(size: tuple[int, int], device: torch.device | str = "cpu") -> Patch:
        """0 everywhere."""
        return Patch(torch.zeros(0, 0, device=device), None, size)

    @property
    def full(self) -> Tensor:
        """The whole map, (h, w)."""
        return self.within(Box(0, 0, self.size[1], self.size[0]))

    def within(self, box: Box) -> Tensor:
        """Its values in another box, (box.height, box.width)."""
        if self.box == box:
            return self.values
        out = torch.full((box.height, box.width), self.outside, device=self.values.device)
        both = None if self.box is None else self.box.intersection(box)
        if both is not None and self.box is not None:
            out[both.moved(-box.x0, -box.y0).slices] = self.values[both.moved(-self.box.x0, -self.box.y0).slices]
        return out

    def gated(self, box: Box | None) -> Patch:
        """The same inside a box, ``outside`` beside it."""
        both = self.box.intersection(box) if self.box is not None and box is not None else None
        if both is None or self.box is None:
            return Patch(self.values[:0, :0], None, self.size, self.outside)
        return dataclasses.replace(self, values=self.values[both.moved(-self.box.x0, -self.box.y0).slices], box=both)

    def without(self, mask: Tensor | None) -> Patch:
        """The same, ``outside`` where a mask bool (h, w) of the whole map is set; None sets nothing."""
        if mask is None or self.box is None:
            return self
        return dataclasses.replace(self, values=self.values.masked_fill(mask[self.box.slices], self.outside))


def cells_in(box: Box, stride: int, margin: int, size: tuple[int, int]) -> Box:
    """The cells that a box of pixels touches, and some around them, as far as there are any.

    >>> cells_in(Box(3, 8, 9, 12), 4, 1, (3, 10))
    Box(x0=0, y0=1, x1=4, y1=3)

    Args:
        box: Pixels.
        stride: Pixels of a cell.
        margin: Cells around.
        size: (rows, columns) of all cells.
    """
    return Box(
        max(0, box.x0 // stride - margin),
        max(0, box.y0 // stride - margin),
        min(size[1], math.ceil(box.x1 / stride) + margin),
        min(size[0], math.ceil(box.y1 / stride) + margin),
    )


def enlarged(cells: Patch, stride: int, box: Box) -> Tensor:
    """Bilinear from cells to the pixels of a box, (box.height, box.width): ``pixels_of`` for a part of the image."""
    source = cells_in(box, stride, 1, cells.size)
    fine = functional.interpolate(cells.within(source)[None, None], scale_factor=stride, mode="bilinear")[0, 0]
    top, left = box.y0 - source.y0 * stride, box.x0 - source.x0 * stride
    return fine[top : top + box.height, left : left + box.width]
