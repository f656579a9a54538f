# SPDX-License-Identifier: Apache-2.0
"""DIS flow by OpenCV (Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search, ECCV 2016)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.flow.estimator import check_images
from maskrnn_ros.types import UInt8Array

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
    """

    def __init__(self, preset: str = "medium") -> None:
        self._preset = _PRESETS[preset]
        self._dis: Any = None
        self._size: tuple[int, int] | None = None
        self._newest: tuple[UInt8Array, Any] | None = None

    def __call__(self, current: UInt8Array, previous: UInt8Array) -> npt.NDArray[np.float32]:
        """See ``FlowEstimator``."""
        check_images(current, previous)
        height, width = current.shape[:2]
        pad = max(0, _MIN_SIDE - height), max(0, _MIN_SIDE - width)
        if self._size != (height, width):  # after a tiny image OpenCV's object would keep that one's scales
            self._dis, self._size = cv2.DISOpticalFlow.create(self._preset), (height, width)
        known = self._newest  # as a rule the image before is the newest of the last call
        before = known[1] if known is not None and known[0] is previous else _gray(previous, pad)
        self._newest = current, _gray(current, pad)
        flow = self._dis.calc(self._newest[1], before, None)[:height, :width]
        return np.ascontiguousarray(flow.transpose(2, 0, 1))


def _gray(image: UInt8Array, pad: tuple[int, int]) -> Any:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.copyMakeBorder(gray, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE) if any(pad) else gray
