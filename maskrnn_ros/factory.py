# SPDX-License-Identifier: Apache-2.0
"""Parts of one's own, named ``package.module:factory`` where a setting or an argument takes the name of a part."""

from __future__ import annotations

import importlib
from typing import Any


def is_factory(name: str) -> bool:
    """Whether a name has the form of one.

    >>> is_factory("my.module:Part"), is_factory("grabcut"), is_factory(":Part")
    (True, False, False)
    """
    module, _, factory = name.partition(":")
    return bool(module and factory)


def made_by(name: str, *arguments: object) -> Any:
    """What the factory makes of the arguments.

    Raises:
        ValueError: In one line, what went wrong in its module or in itself.
    """
    module, _, factory = name.partition(":")
    try:
        return getattr(importlib.import_module(module), factory)(*arguments)
    except Exception as error:  # whatever it needs may be missing
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
