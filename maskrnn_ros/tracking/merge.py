# SPDX-License-Identifier: Apache-2.0
"""From one probability per instance to one label per pixel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import Box, LabelArray


@dataclasses.dataclass(frozen=True, eq=False)
class Likely:
    """How likely an instance is in a box of the image; beside it, it is not there.

    Args:
        box: Pixels of the input.
        probability: float32, (box.height, box.width), 0..1.
    """

    box: Box
    probability: npt.NDArray[np.float32]


def merge(instances: Mapping[int, Likely], size: tuple[int, int]) -> LabelArray:
    """Give every pixel to the likeliest instance, or to the background.

        labels[v, u] = argmax_i probability_i[v, u]  where that maximum >= 0.5, else 0

    MaskRNN, argmax over the objects; the threshold is our choice, the paper's value is not known. Of equal
    probabilities the smaller id wins, so the order of the mapping does not matter.

    Args:
        instances: By id.
        size: (H, W).

    Returns:
        int32 (H, W) of ids, 0 = background.
    """
    labels: LabelArray = np.zeros(size, np.int32)
    if not instances:
        return labels
    whole = functools.reduce(Box.union, (one.box for one in instances.values()))
    # below this nothing wins; a running maximum then needs one pass over each box
    best = np.empty((whole.height, whole.width), np.float32)
    for one in instances.values():
        best[one.box.moved(-whole.x0, -whole.y0).slices] = np.nextafter(np.float32(0.5), np.float32(0))
    for instance_id in sorted(instances):
        one = instances[instance_id]
        before = best[one.box.moved(-whole.x0, -whole.y0).slices]
        np.copyto(labels[one.box.slices], instance_id, where=one.probability > before)
        np.fmax(before, one.probability, out=before)
    return labels
