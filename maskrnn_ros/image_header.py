# SPDX-License-Identifier: Apache-2.0
"""How large an encoded image is, before it is decoded: a file of a megabyte may hold a thousand million pixels."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from maskrnn_ros.disk import regular_file
from maskrnn_ros.limits import MAX_PIXELS, check_size
from maskrnn_ros.types import UInt8Array

_PNG = b"\x89PNG\r\n\x1a\n"


def check_encoded(data: bytes | UInt8Array, what: str = "image") -> bool:
    """Refuse an encoded image that is too large, by its header alone.

    Args:
        data: JPEG, PNG or any other format that Pillow knows.
        what: What it is, for error messages.

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
    return bytes(data[: len(_PNG)]) != _PNG or _holds_its_chunks(data)


def read_encoded(path: Path) -> bytes:
    """The bytes of an image file that may be decoded.

    Raises:
        ValueError: It is no image, or too large.
        OSError: It cannot be read, or is no regular file.
    """
    data = regular_file(path).read_bytes()
    if not check_encoded(data, str(path)):
        raise ValueError(f"{path}: expected an image, found {len(data)} bytes that are none")
    return data


def _holds_its_chunks(data: bytes | UInt8Array) -> bool:
    """Whether every chunk of a PNG ends within it: OpenCV makes room for what a chunk says, up to four gigabytes."""
    place = len(_PNG)
    while place < len(data):
        head = bytes(data[place : place + 8])
        place += 12 + int.from_bytes(head[:4], "big")  # length, type, content, checksum
        if len(head) < 8 or place > len(data):
            return False
        if head[4:] == b"IEND":
            return True
    return False
