# SPDX-License-Identifier: Apache-2.0
"""How good a mask is, estimated from the probabilities that it was cut out of."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray

Numbers = npt.NDArray[np.float64]

OFFSET, SLOPE = 0.13, 0.93
"""Of ``calibrated``. `maskrnn train score --fit` prints them; docs/evaluation.md says on which clips they were
fitted, with the settings as they come."""

_CLOSEST = 1e-6
"""How near to 0 and 1 an expected IoU may come before its log-odds are taken."""


def expected_iou(probability: npt.NDArray[np.float32], mask: BoolArray) -> float:
    """IoU of a mask with the truth if every pixel were right as often as its probability says.

        sum(probability in the mask) / (pixels of the mask + sum(probability beside it))

    the ratio of the expected intersection to the expected union.

    >>> round(expected_iou(np.array([[0.9, 0.3]], np.float32), np.array([[True, False]])), 3)
    0.692

    Args:
        probability: float32, (h, w), in [0, 1].
        mask: bool, likewise, at least one pixel set.
    """
    pixels = int(np.count_nonzero(mask))
    inside = cv2.mean(probability, mask.view(np.uint8))[0] * pixels  # in float64; indexing by the mask takes longer
    return inside / (pixels + cv2.sumElems(probability)[0] - inside)


def ratio(pixels: Numbers, inside: Numbers, around: Numbers) -> Numbers:
    """The same from the pixels of masks and the sums of the probability in them, and in all; any shape."""
    return inside / (pixels + around - inside)


def calibrated(expected: npt.ArrayLike) -> Numbers:
    """Estimates of the IoU with the truth from the expected ones, both 0..1, any shape.

        1 / (1 + exp(-(OFFSET + SLOPE * log-odds(expected))))

    Platt's scaling: the probabilities of a tracker are surer than they are right.
    """
    share = np.minimum(np.maximum(expected, _CLOSEST), 1 - _CLOSEST)
    found: Numbers = 1 / (1 + np.exp(-(OFFSET + SLOPE * np.log(share / (1 - share)))))
    return found
