# SPDX-License-Identifier: Apache-2.0
"""The frame in which RViz2 shows an image as a quad: what is drawn on it and clicked on it meets there.

The image lies in the plane z = 0, x to the right and 1 m over its width, y up from its upper edge: seen from +z it
stands upright. It is a frame of its own, so that no transform is needed: RViz2's fixed frame is set to it.
"""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt

FRAME = "maskrnn_image"

Floats = npt.NDArray[np.float64]


@overload
def to_plane(columns: float, rows: float, width: int) -> tuple[float, float]: ...
@overload
def to_plane(columns: Floats, rows: Floats, width: int) -> tuple[Floats, Floats]: ...
def to_plane(columns: float | Floats, rows: float | Floats, width: int) -> tuple[float | Floats, float | Floats]:
    """Pixels (the first one covers 0..1) to metres in ``FRAME``.

    >>> to_plane(320.0, 240.0, 640)
    (0.5, -0.375)
    """
    return columns / width, -rows / width


@overload
def to_pixel(x: float, y: float, width: int) -> tuple[float, float]: ...
@overload
def to_pixel(x: Floats, y: Floats, width: int) -> tuple[Floats, Floats]: ...
def to_pixel(x: float | Floats, y: float | Floats, width: int) -> tuple[float | Floats, float | Floats]:
    """The way back: metres in ``FRAME`` to (columns, rows).

    >>> to_pixel(0.5, -0.375, 640)
    (320.0, 240.0)
    """
    return x * width, -y * width
