# SPDX-License-Identifier: Apache-2.0
"""Where objects may be that were not seen on the frame before."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.tracking.cells import Floats
from maskrnn_ros.tracking.pieces import Pieces
from maskrnn_ros.types import BoolArray

_RIVAL = 0.1
"""Score in the target model from which a lost object may be somewhere."""


def searched(scores: Floats, usual: npt.NDArray[np.float64], hidden: BoolArray, return_share: float) -> Floats:
    """Box of the piece of the frame with the highest sum of an object's score, (K, 4); NaN: nowhere.

    Args:
        scores: Of K objects by their target models, float32 (K, h4, w4).
        usual: Usual areas, (K,).
        hidden: Cells where none is looked for, bool (K, h4, w4).
        return_share: Of its usual area that a piece must have.
    """
    scores = np.stack([cv2.blur(score, (3, 3)) for score in scores])
    scores[hidden] = 0.0
    pieces = Pieces.of(scores > _RIVAL)
    best = pieces.largest(pieces.sums(np.clip(scores, 0, None)))
    found = np.full((len(scores), 4), np.nan, np.float32)
    there = np.flatnonzero(best >= 0)
    large = pieces.areas[best[there]] * STRIDE**2 >= return_share * usual[there]
    there = there[large]
    boxes = pieces.boxes[best[there]] * float(STRIDE)
    centre, least = boxes[:, :2] + boxes[:, 2:] / 2, 0.6 * usual[there] ** 0.5
    half = np.maximum(boxes[:, 2:], least[:, None]) / 2
    found[there] = np.concatenate([centre - half, centre + half], axis=1)
    return found
