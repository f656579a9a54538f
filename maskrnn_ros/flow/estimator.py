# SPDX-License-Identifier: Apache-2.0
"""What every flow backend does."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


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
    * Device: the images may be on any, the flow comes on the estimator's own. A network reads images of its own device
      where they are; OpenCV's backends fetch them to the CPU.
    * Repeatable: the same images on the same device give the same flow, whatever was computed before.
    * One thread at a time: estimators may hold buffers, so every tracker has its own. None needs gradients.
    """

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        """Flow from ``current`` to ``previous``.

        Args:
            current: Image of frame t, RGB, uint8 (3, H, W), H and W >= 1.
            previous: Image of frame t-1, same shape, dtype and device.

        Returns:
            float32 (2, H, W), (dx, dy) in pixels, on the device of the estimator.

        Raises:
            ValueError: The images are no two RGB images of one shape, or lie on two devices.
        """
        ...


def check_images(current: Tensor, previous: Tensor) -> None:
    """Refuse what no backend takes.

    Raises:
        ValueError: As in ``FlowEstimator``.
    """
    if current.shape != previous.shape:
        raise ValueError(f"images must share their shape, got {tuple(current.shape)} and {tuple(previous.shape)}")
    if current.ndim != 3 or current.shape[0] != 3 or 0 in current.shape:
        raise ValueError(f"images must be (3, H, W), got {tuple(current.shape)}")
    if current.dtype != torch.uint8 or previous.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {current.dtype} and {previous.dtype}")
    if current.device != previous.device:
        raise ValueError(f"images must be on one device, got {current.device} and {previous.device}")
