# SPDX-License-Identifier: Apache-2.0
"""Files: only regular ones are read, and what is written is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


def regular_file(path: Path | str, most_bytes: int | None = None) -> Path:
    """The path of a file that can be read to its end: a pipe or a device has none, and would be waited for.

    Args:
        path: Links are followed.
        most_bytes: Largest size allowed; None for any.

    Raises:
        OSError: It is not there, is no regular file, or is larger.
    """
    path = Path(path)
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path}: expected a file, found a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path}: expected a regular file, found a {_kind(found.st_mode)}")
    if most_bytes is not None and found.st_size > most_bytes:
        raise OSError(f"{path}: expected at most {most_bytes} bytes, found {found.st_size}")
    return path


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "thing of another kind")


def check_plain_name(name: str, what: str) -> None:
    """Refuse a name that would lead out of the folder in which it is looked for, or written.

    >>> check_plain_name("bmx-trees", "sequence")

    Raises:
        ValueError: It is empty, has a slash, or is a dot or two.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected the plain name of a {what}, got {name!r}")


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path beside ``path`` to write to; at the end it takes its place, unless something was raised.

    So a full disk or an end in the middle leaves what was there before, never half a file.

    Raises:
        OSError: The file cannot be made.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # e.g. /dev/stdout: there is nothing to be replaced
        yield path
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    made = Path(name)
    try:
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        yield made
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file as a whole.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    with replacing(path) as made:
        made.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write a text as a whole, UTF-8; see ``write_bytes``."""
    write_bytes(path, text.encode())
