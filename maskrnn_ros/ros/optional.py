# SPDX-License-Identifier: Apache-2.0
"""ROS packages that are not everywhere: none of them is on PyPI."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str) -> Any | None:
    """The module of that name, None where its package is not installed.

    Raises:
        ImportError: It is installed and cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
