# SPDX-License-Identifier: Apache-2.0
"""Sparse matches interpolated along the edges of the image, in the manner of EpicFlow.

Revaud, Weinzaepfel, Harchaoui, Schmid: EpicFlow, Edge-Preserving Interpolation of Correspondences for Optical Flow,
CVPR 2015. The matches are ours: DIS flow both ways, kept where the two agree (the paper's are DeepMatching's); the
interpolator is that of opencv-contrib, and its edges are gradients (the paper's are learned).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.flow.estimator import check_images
from maskrnn_ros.types import UInt8Array

_STEP = 3
"""Pixels between two matches; more where there would be too many."""

_MOST_MATCHES = 30_000
"""OpenCV numbers them by 16 bits."""

_AGREE_PX = 1.0
"""How far from its start a match may end that is followed there and back, pixels."""

_FEWEST_MATCHES = 16
"""With fewer there is nothing to interpolate: the flow is that of the matcher."""


class EpicFlow:
    """Edge-aware interpolation of checked DIS matches, on the CPU; a ``FlowEstimator``.

    Args:
        preset: Effort of the matches' DIS: ultrafast, fast or medium.

    Raises:
        RuntimeError: OpenCV is there without its contrib modules.
    """

    def __init__(self, preset: str = "medium") -> None:
        if not hasattr(cv2, "ximgproc"):
            raise RuntimeError(
                "flow.backend epicflow needs cv2.ximgproc, which this OpenCV has not: "
                "install opencv-contrib-python-headless in place of opencv-python-headless"
            )
        self._matcher = DisFlow(preset)
        self._interpolator = cv2.ximgproc.createEdgeAwareInterpolator()

    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        back, forth = self._matcher(current, previous), self._matcher(previous, current)
        here, there = consistent_matches(back, forth)
        if len(here) < _FEWEST_MATCHES:
            return back
        pictures = [np.ascontiguousarray(image[..., ::-1]) for image in (current, previous)]
        flow = self._interpolator.interpolate(pictures[0], here, pictures[1], there)
        return np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32)


def consistent_matches(
    back: npt.NDArray[np.float32], forth: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points of a grid that come back to where they started.

    Args:
        back: Flow from the first image to the second, (2, H, W).
        forth: Flow from the second to the first, (2, H, W).

    Returns:
        Points in the first image and in the second, float32 (N, 2) each, (x, y) in pixels; both inside the images.
    """
    height, width = back.shape[1:]
    step = max(_STEP, math.ceil(math.sqrt(height * width / _MOST_MATCHES)))
    rows, columns = (axis.ravel() for axis in np.mgrid[step // 2 : height : step, step // 2 : width : step])
    here = np.stack([columns, rows], axis=1).astype(np.float32)
    there = here + back[:, rows, columns].T
    inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)
    here, there = here[inside], there[inside]
    nearest = np.rint(there).astype(int)
    returned = there + forth[:, nearest[:, 1], nearest[:, 0]].T
    agree = np.linalg.norm(returned - here, axis=1) <= _AGREE_PX
    return here[agree], there[agree]
