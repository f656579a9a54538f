# SPDX-License-Identifier: Apache-2.0
"""What others cover in the crops of objects that learn from a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.shapes import CROP, STRIDE
from maskrnn_ros.tracking.cells import Floats, cut
from maskrnn_ros.tracking.gate import whole
from maskrnn_ros.tracking.target import Carried
from maskrnn_ros.types import BoolArray

Ints = npt.NDArray[np.intp]


def rivals_of(carried: Carried, sees: BoolArray, which: Ints, now: Floats | None) -> Floats:
    """At every cell the most that any other object has there, (n, CROP, CROP).

    Args:
        carried: Masks of K objects in their crops.
        sees: Which of them are there, bool (K,).
        which: Numbers of those n whose crops are asked for.
        now: What objects cover that are not among them, (h4, w4); None: nothing.
    """
    rivals = np.zeros((len(which), CROP, CROP), np.float32)
    places, others = np.nonzero(meets(carried.crop, which) & sees)
    if len(places):
        crops = carried.crop[which[places]]
        found = cut(carried.probability, carried.crop, crops, CROP, others)
        first = np.flatnonzero(np.diff(places, prepend=-1))
        rivals[places[first]] = np.maximum.reduceat(found, first, axis=0)
    if now is not None:
        everything = whole((now.shape[0] * STRIDE, now.shape[1] * STRIDE))
        np.maximum(rivals, cut(now[None], everything[None], carried.crop[which], CROP), out=rivals)
    return rivals


def meets(crops: Floats, which: Ints) -> BoolArray:
    """Whether the crops of some meet those of others, bool (n, K)."""
    mine = crops[which][:, None]
    both = np.maximum(mine[..., :2], crops[:, :2]) < np.minimum(mine[..., 2:], crops[:, 2:])
    return np.asarray(both.all(axis=2) & (which[:, None] != np.arange(len(crops))), np.bool_)
