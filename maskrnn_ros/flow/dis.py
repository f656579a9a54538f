# SPDX-License-Identifier: Apache-2.0
"""DIS flow by OpenCV (Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search, ECCV 2016)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.flow.estimator import check_images

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
_MIN_SIDE = 32
"""Below this OpenCV 4 reads outside its coarsest scale and crashes (seen for 16 to 31 rows at 448 columns)."""


class DisFlow:
    """Dense inverse search on the CPU; a ``FlowEstimator``.

    It knows one thread's work at a time: OpenCV's object holds buffers, so a tracker has its own.

    Args:
        preset: ultrafast, fast or medium.
        device: Where the flow is put.
    """

    def __init__(self, preset: str = "medium", device: torch.device | str = "cpu") -> None:
        self._preset = _PRESETS[preset]
        self._dis: Any = None
        self._size: tuple[int, int] | None = None
        self._newest: tuple[Tensor, Any] | None = None
        self._device = torch.device(device)

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        height, width = current.shape[-2:]
        pad = max(0, _MIN_SIDE - height), max(0, _MIN_SIDE - width)
        if self._size != (height, width):  # after a tiny image OpenCV's object would keep that one's scales
            self._dis, self._size = cv2.DISOpticalFlow.create(self._preset), (height, width)
        known = self._newest  # as a rule the image before is the newest of the last call
        before = known[1] if known is not None and known[0] is previous else _gray(previous, pad)
        self._newest = current, _gray(current, pad)
        flow = self._dis.calc(self._newest[1], before, None)[:height, :width]
        return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1))).to(self._device)


def _gray(image: Tensor, pad: tuple[int, int]) -> Any:
    gray = cv2.cvtColor(image.permute(1, 2, 0).cpu().numpy(), cv2.COLOR_RGB2GRAY)
    return cv2.copyMakeBorder(gray, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE) if any(pad) else gray
