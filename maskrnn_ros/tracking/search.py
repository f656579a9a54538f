# SPDX-License-Identifier: Apache-2.0
"""Where objects may be that were not seen on the frame before."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Features
from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.tracking.cells import Floats
from maskrnn_ros.tracking.pieces import Pieces

_RIVAL = 0.1
"""Score in the target model from which a lost object may be somewhere."""


def searched(
    features: Features, weights: Floats, usual: npt.NDArray[np.float64], ignored: Floats, return_share: float
) -> Floats:
    """Box of the piece of the frame with the highest sum of an object's score, (K, 4); NaN: nowhere.

    Args:
        features: Of the frame.
        weights: Coefficients of K target models, (K, COLUMNS + 1, TARGET).
        usual: Usual areas, (K,).
        ignored: Share of each cell where no object may be, (h4, w4).
        return_share: Of its usual area that a piece must have.
    """
    columns = features.host()[0]
    scores = (weights[:, None, :-1, 0] @ columns.reshape(len(columns), -1))[:, 0] + weights[:, -1:, 0]
    scores = scores.reshape(-1, *columns.shape[1:])
    for score in scores:
        score[:] = cv2.blur(score, (3, 3))
    scores[:, ignored >= 0.5] = 0.0
    pieces = Pieces.of(scores > _RIVAL)
    best = pieces.largest(pieces.sums(np.clip(scores, 0, None)))
    found = np.full((len(weights), 4), np.nan, np.float32)
    there = np.flatnonzero(best >= 0)
    large = pieces.areas[best[there]] * STRIDE**2 >= return_share * usual[there]
    there = there[large]
    boxes = pieces.boxes[best[there]] * float(STRIDE)
    centre, least = boxes[:, :2] + boxes[:, 2:] / 2, 0.6 * usual[there] ** 0.5
    half = np.maximum(boxes[:, 2:], least[:, None]) / 2
    found[there] = np.concatenate([centre - half, centre + half], axis=1)
    return found
