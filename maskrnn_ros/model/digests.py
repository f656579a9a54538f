# SPDX-License-Identifier: Apache-2.0
"""Whether a file of weights or a graph is what was written: by SHA-256, without torch.

What ships is listed in ``weights/SHA256SUMS``, which ``maskrnn weights digests`` writes and ``sha256sum -c`` reads.
Other graphs carry their digest in their last bytes (``sealed``); other weights in their metadata (``weights``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from maskrnn_ros.disk import regular_file, write_text

FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Weights and graphs that ship with the package."""

SUMS = FOLDER / "SHA256SUMS"

DIGEST = "weights_sha256"
"""Key of the weights' digest in a graph's metadata."""

_KEY = b"graph_sha256"


class DamagedError(RuntimeError):
    """A file is not what was written."""


def write_digests(folder: Path = FOLDER) -> list[str]:
    """Write ``SHA256SUMS`` anew; returns its lines.

    Raises:
        OSError: A file cannot be read or written.
    """
    files = sorted(file for pattern in ("*.safetensors", "*.onnx") for file in folder.glob(pattern))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    write_text(folder / SUMS.name, "\n".join(lines) + "\n")
    return lines


def read_checked(path: Path | str) -> bytes:
    """The bytes of a file; one that ships must be the one that is listed.

    Raises:
        DamagedError: It is listed otherwise, or lies among those that ship and is not listed.
        OSError: It cannot be read.
    """
    path = regular_file(path)
    data = path.read_bytes()
    if path.resolve().parent == FOLDER:
        listed = {name: digest for digest, name in (line.split() for line in SUMS.read_text().splitlines())}
        found = hashlib.sha256(data).hexdigest()
        if listed.get(path.name) != found:
            raise DamagedError(
                f"{path} is damaged: expected SHA-256 {listed.get(path.name, 'none')}, got {found}; install the "
                "package anew (or, where it was made anew, run maskrnn weights digests)"
            )
    return data


def digest_of(weights: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
    """
    return hashlib.sha256(regular_file(weights).read_bytes()).hexdigest()


def read_graph(file: Path) -> bytes:
    """A graph as it was written: one that ships as it is listed, any other by the digest that it carries.

    Raises:
        DamagedError: It is not.
        OSError: It cannot be read.
    """
    data = read_checked(file)
    if file.resolve().parent != FOLDER:
        check_seal(data, f"graph {file}")
    return data


def sealed(graph: bytes) -> bytes:
    """A serialized ONNX model with its own SHA-256 as the last entry of its metadata.

    Protocol buffers may be appended to one another, so every reader of ONNX takes it.

    >>> check_seal(sealed(b"model"), "a file")
    """
    return graph + _seal(graph)


def check_seal(data: bytes, what: str) -> None:
    """Refuse a graph that is not what ``sealed`` gave.

    Raises:
        DamagedError: It has no digest of itself at its end, or another one.
    """
    length = len(_seal(b""))
    if data[-length:] != _seal(data[:-length]):
        raise DamagedError(f"{what} is damaged or was made by an earlier version: run maskrnn export")


def _seal(graph: bytes) -> bytes:
    value = hashlib.sha256(graph).hexdigest().encode()
    entry = b"\x0a" + bytes([len(_KEY)]) + _KEY + b"\x12" + bytes([len(value)]) + value  # StringStringEntryProto
    return b"\x72" + bytes([len(entry)]) + entry  # field 14 of ModelProto: metadata_props
