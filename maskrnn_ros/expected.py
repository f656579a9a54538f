# SPDX-License-Identifier: Apache-2.0
"""What may go wrong with files and settings without a fault of ours: said in one line, without a traceback."""

from __future__ import annotations

import sqlite3
import struct
import sys
import zlib

TORCH_HINT = "pip install 'maskrnn_ros[gpu]' (or torch and torchvision)"
"""What to do where torch is needed and not there."""

_OF_LIBRARIES = (
    ("cv2", "error"),
    ("apsw", "Error"),
    ("PIL.Image", "DecompressionBombError"),
    ("rclpy.exceptions", "NameValidationException"),
)
"""Modules, perhaps not imported, and the base of the errors that they raise beside Python's own."""


def expected_errors() -> tuple[type[BaseException], ...]:
    """Types of errors to be caught by who says them to people: a command's last line of defence.

    A wrong value or file (ValueError, OSError), what is not there (ImportError) or cannot be had (RuntimeError), what
    is too large (MemoryError), what is damaged (of SQLite, OpenCV, Pillow, zlib), a name that is none (of rclpy). An
    AttributeError, KeyError, TypeError or AssertionError is a fault of ours and keeps its traceback.
    """
    found = [ValueError, OSError, RuntimeError, ImportError, MemoryError, EOFError, sqlite3.Error, struct.error]
    modules = [(sys.modules.get(module), name) for module, name in _OF_LIBRARIES]
    return (*found, zlib.error, *(getattr(module, name) for module, name in modules if module is not None))


def in_one_line(error: BaseException) -> str:
    r"""The text of an error, or the name of its type if the text is empty.

    >>> in_one_line(ValueError("expected a cup,\n got none")), in_one_line(MemoryError())
    ('expected a cup, got none', 'MemoryError: not enough memory')
    """
    text = " ".join(str(error).split())
    if isinstance(error, ImportError) and error.name in ("torch", "torchvision"):
        return f"needs {error.name}, which is not installed: {TORCH_HINT}"
    if isinstance(error, MemoryError):
        return f"MemoryError: {text or 'not enough memory'}"
    if isinstance(error, (ValueError, OSError, RuntimeError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
