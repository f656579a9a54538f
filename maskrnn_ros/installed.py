# SPDX-License-Identifier: Apache-2.0
"""Where an installed ROS package has its files."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path


def share_path(package: str) -> Path:
    """The ``share`` folder of a ROS package.

    Python wheels of ROS 2 put it into the environment they are installed in, where it is found although nothing is
    sourced: ``ament_index_python`` alone would refuse without ``AMENT_PREFIX_PATH``.

    Raises:
        LookupError: The package is not installed.
        ValueError: The name is not one of a package.
    """
    from ament_index_python.packages import get_package_share_path

    if os.environ.get("AMENT_PREFIX_PATH"):
        found: Path = get_package_share_path(package)
        return found
    path = Path(sysconfig.get_path("data"), "share", package)
    if not (path / "package.xml").is_file():
        raise LookupError(f"package {package!r} is not installed; nothing is sourced")
    return path
