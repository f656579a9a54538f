# SPDX-License-Identifier: Apache-2.0
"""Where images lie in RViz2: upright in the plane z = 0 of a frame of their own, which needs no TF.

The image is 1 wide, its upper left corner is the origin, x goes right and y up: the pixel position (c, r) is at
(c / W, -r / W, 0).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

FRAME = "maskrnn_image"
"""The fixed frame of the shipped RViz config."""

Values = TypeVar("Values", float, npt.NDArray[np.floating])


def to_plane(columns: Values, rows: Values, width: int) -> tuple[Values, Values]:
    """Points x, y in the plane from pixel positions.

    >>> to_plane(64.0, 32.0, 128)
    (0.5, -0.25)

    Args:
        columns: Pixels, the first pixel covers 0 .. 1.
        rows: Likewise.
        width: Of the image, pixels.
    """
    return columns / width, -rows / width


def to_pixel(x: Values, y: Values, width: int) -> tuple[Values, Values]:
    """Pixel positions (columns, rows) from points in the plane; the inverse of ``to_plane``.

    >>> to_pixel(0.5, -0.25, 128)
    (64.0, 32.0)
    """
    return x * width, -y * width
