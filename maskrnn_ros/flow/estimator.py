# SPDX-License-Identifier: Apache-2.0
"""What every flow backend does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import UInt8Array


class FlowEstimator(Protocol):
    """Computes the flow from one image to another: what is at p in the first is at ``p + flow[:, v, u]`` in the second.

    With the frame before as the second image this is the backward flow that the tracker carries masks by; with the
    frame after, the forward flow. A frame's two flows belong to two pairs of images, so they are two calls; no backend
    saves much by computing both directions of one pair at once.

    * Direction: from ``current`` to ``previous``, at the pixels of ``current``.
    * Unit: pixels of the images as given, (dx, dy); x to the right, y down.
    * Border: every pixel has a finite flow. ``p + flow`` may lie outside the image; where what is at p was hidden or
      outside, the flow is a guess, as a rule that of its surroundings.
    * Size: any; what a backend needs more is padded by repeating the border and cut away.
    * Device: images and flow are on the CPU, wherever the estimator computes; of an image that it was given before, and
      as a rule the previous one was, a network keeps what it has on its device.
    * Repeatable: the same images on the same device give the same flow, whatever was computed before.
    * One thread at a time: estimators may hold buffers, so every tracker has its own. None needs gradients.
    """

    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """Flow from ``current`` to ``previous``.

        Args:
            current: Image of frame t, RGB, uint8 (H, W, 3), H and W >= 1.
            previous: Image of frame t-1, same shape and dtype.

        Returns:
            float32 (2, H, W), (dx, dy) in pixels.

        Raises:
            ValueError: The images are no two RGB images of one shape.
        """
        ...


def check_images(current: UInt8Array, previous: UInt8Array) -> None:
    """Refuse what no backend takes.

    Raises:
        ValueError: As in ``FlowEstimator``.
    """
    if current.shape != previous.shape:
        raise ValueError(f"images must share their shape, got {current.shape} and {previous.shape}")
    if current.ndim != 3 or current.shape[2] != 3 or 0 in current.shape:
        raise ValueError(f"images must be (H, W, 3), got {current.shape}")
    if current.dtype != np.uint8 or previous.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {current.dtype} and {previous.dtype}")
