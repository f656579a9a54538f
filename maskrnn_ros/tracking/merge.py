# SPDX-License-Identifier: Apache-2.0
"""From one probability per instance to one label per pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import LabelArray

Ints = npt.NDArray[np.int64]

_NEARLY = np.nextafter(np.float32(0.5), np.float32(0))
"""The largest number below 0.5."""


@dataclasses.dataclass(frozen=True, eq=False)
class Likely:
    """How likely K instances are, each in a box of the image; beside it, it is not there.

    Args:
        ids: int64, (K,).
        boxes: int64, (K, 4), x0 y0 x1 y1, pixels of the input.
        planes: Probabilities, float32 (height, width) of each box, 0..1.
    """

    ids: Ints
    boxes: Ints
    planes: Sequence[npt.NDArray[np.float32]]

    @staticmethod
    def joined(some: Sequence[Likely]) -> Likely:
        """All instances, by ascending id; each of some is in that order."""
        if len(some) == 1:
            return some[0]
        ids = np.concatenate([np.zeros(0, np.int64), *(one.ids for one in some)])
        boxes = np.concatenate([np.zeros((0, 4), np.int64), *(one.boxes for one in some)])
        planes = [plane for one in some for plane in one.planes]
        order = np.argsort(ids)
        return Likely(ids[order], boxes[order], [planes[k] for k in order.tolist()])


def merge(likely: Likely, size: tuple[int, int]) -> LabelArray:
    """Give every pixel to the likeliest instance, or to the background.

        labels[v, u] = argmax_i probability_i[v, u]  where that maximum >= 0.5, else 0

    MaskRNN, argmax over the objects; the threshold is our choice, the paper's value is not known. Of equal
    probabilities the first one wins.

    Args:
        likely: By ascending id.
        size: (H, W).

    Returns:
        int32 (H, W) of ids, 0 = background.
    """
    labels: LabelArray = np.zeros(size, np.int32)
    if not len(likely.ids):
        return labels
    left, top = likely.boxes[:, :2].min(axis=0).tolist()
    right, below = likely.boxes[:, 2:].max(axis=0).tolist()
    best = np.empty((below - top, right - left), np.float32)
    boxes = likely.boxes.tolist()
    before = [best[y0 - top : y1 - top, x0 - left : x1 - left] for x0, y0, x1, y1 in boxes]
    for room in before:  # below this nothing wins; a running maximum then needs one pass over each box
        room[:] = _NEARLY
    for i, (x0, y0, x1, y1), room, plane in zip(likely.ids.tolist(), boxes, before, likely.planes, strict=True):
        labels[y0:y1, x0:x1][plane > room] = i
        np.fmax(room, plane, out=room)
    return labels
