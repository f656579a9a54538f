# SPDX-License-Identifier: Apache-2.0
"""Checksums of the chunks of an mcap file: rosbags checks them when it reads, but writes none."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"\x89MCAP0\r\n"
_CHUNK, _DATA_END = 0x06, 0x0F
_CRC = 24
"""Where in a chunk its checksum stands: after start and end time and the uncompressed size."""


def add_checksums(path: Path) -> int:
    """Write into an mcap file the CRC-32 of every uncompressed chunk that has none; returns of how many.

    Raises:
        ValueError: It is no mcap file.
        OSError: It cannot be read or written.
    """
    count = 0
    with path.open("r+b") as file:
        for start in list(_chunks(file, path)):
            file.seek(start + _CRC)
            crc, length = struct.unpack("<II", file.read(8))
            compression = file.read(length)
            (size,) = struct.unpack("<Q", file.read(8))
            if crc or compression:
                continue
            crc = zlib.crc32(file.read(size))
            file.seek(start + _CRC)
            file.write(struct.pack("<I", crc))
            count += 1
    return count


def _chunks(file: io.BufferedRandom, path: Path) -> Iterator[int]:
    """Where the contents of the chunks begin."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{path}: expected an mcap file, found another one")
    while len(head := file.read(9)) == 9:
        kind, length = struct.unpack("<BQ", head)
        start = file.tell()
        if kind == _DATA_END:
            return
        if kind == _CHUNK:
            yield start
        file.seek(start + length)
