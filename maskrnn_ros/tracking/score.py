# SPDX-License-Identifier: Apache-2.0
"""How good a mask is, estimated from the probabilities that it was cut out of."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray

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
    return ratio(pixels, inside, cv2.sumElems(probability)[0])


def ratio(pixels: float, inside: float, around: float) -> float:
    """The same from the pixels of the mask and the sums of the probability in it, and in all."""
    return inside / (pixels + around - inside)


def calibrated(expected: float) -> float:
    """Estimate of the IoU with the truth from the expected one, both 0..1.

        1 / (1 + exp(-(OFFSET + SLOPE * log-odds(expected))))

    Platt's scaling: the probabilities of a tracker are surer than they are right.
    """
    expected = min(max(expected, _CLOSEST), 1 - _CLOSEST)
    return 1 / (1 + math.exp(-(OFFSET + SLOPE * math.log(expected / (1 - expected)))))


def score(probability: npt.NDArray[np.float32], mask: BoolArray) -> float:
    """Estimate of the IoU of a mask with the truth, 0..1; 1 for a seed.

    Args:
        probability: float32, (h, w), in [0, 1]: before the merge, inside the box of the mask.
        mask: bool, likewise, at least one pixel set.
    """
    return calibrated(expected_iou(probability, mask))
