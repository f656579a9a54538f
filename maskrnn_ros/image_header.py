# SPDX-License-Identifier: Apache-2.0
"""How large an encoded image is, before it is decoded: a file of a megabyte may hold a thousand million pixels."""

from __future__ import annotations

import io

from PIL import Image

from maskrnn_ros.limits import MAX_PIXELS, check_size
from maskrnn_ros.types import UInt8Array


def check_encoded(data: bytes | UInt8Array, what: str = "image") -> bool:
    """Refuse an encoded image that is too large, by its header alone.

    Args:
        data: JPEG, PNG or any other format that Pillow knows.
        what: What it is, for what is said.

    Returns:
        Whether it is an image; what is none must not be decoded.

    Raises:
        ValueError: It is too large.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:  # type: ignore[arg-type]
            width, height = image.size
    except Image.DecompressionBombError as error:  # Pillow's own limit, which lies above ours
        raise ValueError(f"{what} must have at most {MAX_PIXELS} pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow raises for damaged headers
        return False
    check_size(height, width, what)
    return True
