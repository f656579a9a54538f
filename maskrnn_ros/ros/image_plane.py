# SPDX-License-Identifier: Apache-2.0
"""Where images lie in RViz2: upright in the plane z = 0 of a frame of their own, which needs no TF.

The upper left corner is the origin, x goes right and y up. The image fits into 1 m x 0.75 m, whatever its shape: the
pixel position (c, r) is at (c / u, -r / u, 0), with u = max(width, height / 0.75) pixels per metre.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

FRAME = "maskrnn_image"
"""The fixed frame of the shipped RViz config."""
WIDTH_M, HEIGHT_M = 1.0, 0.75
"""What the image fits into: the shipped view shows that much, so that portrait images are not cut off."""

Values = TypeVar("Values", float, npt.NDArray[np.floating])


def unit(size: tuple[int, int]) -> float:
    """Pixels per metre of an image of (H, W)."""
    height, width = size
    return max(width / WIDTH_M, height / HEIGHT_M)


def to_plane(columns: Values, rows: Values, size: tuple[int, int]) -> tuple[Values, Values]:
    """Points x, y in the plane from pixel positions.

    >>> to_plane(64.0, 32.0, (96, 128))
    (0.5, -0.25)
    >>> to_plane(96.0, 128.0, (128, 96))
    (0.5625, -0.75)

    Args:
        columns: Pixels, the first pixel covers 0 .. 1.
        rows: Likewise.
        size: (H, W) of the image.
    """
    per_metre = unit(size)
    return columns / per_metre, -rows / per_metre


def to_pixel(x: Values, y: Values, size: tuple[int, int]) -> tuple[Values, Values]:
    """Pixel positions (columns, rows) from points in the plane; the inverse of ``to_plane``.

    >>> to_pixel(0.5, -0.25, (96, 128))
    (64.0, 32.0)
    """
    per_metre = unit(size)
    return x * per_metre, -y * per_metre
