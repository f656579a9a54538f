# SPDX-License-Identifier: Apache-2.0
"""Carry a map along a flow."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def warp(previous: npt.NDArray[np.float32], flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Carry a map of the previous frame to where it is now (MaskRNN's phi).

        out[v, u] = previous[v + flow[1, v, u], u + flow[0, v, u]]

    sampled bilinearly at pixel centres. What came from outside the image is 0: an object that was never seen there is
    not assumed there. In graphs and in training ``model.torch.crops.warp`` does the same on tensors.

    Args:
        previous: Map of frame t-1, float32 (H, W), e.g. the mask probability.
        flow: Backward flow t -> t-1, float32 (2, H, W), (dx, dy) in pixels.

    Returns:
        Map of frame t, float32 (H, W).

    Raises:
        ValueError: The two do not share H and W, or flow has not two channels.

    >>> step = np.array([[0.0, 0.0, 1.0]], np.float32)                # an edge at column 2
    >>> warp(step, np.stack([np.ones((1, 3)), np.zeros((1, 3))]).astype(np.float32))  # came from one to the right
    array([[0., 1., 0.]], dtype=float32)
    """
    height, width = previous.shape
    if flow.shape != (2, height, width):
        raise ValueError(f"flow must be (2, {height}, {width}) like the map, got {flow.shape}")
    x = flow[0] + np.arange(width, dtype=np.float32)
    y = flow[1] + np.arange(height, dtype=np.float32)[:, None]
    found = cv2.remap(previous, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(found, np.float32)
