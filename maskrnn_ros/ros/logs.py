# SPDX-License-Identifier: Apache-2.0
"""What the library logs, which knows nothing of ROS, in the node's log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import rclpy.logging


@contextlib.contextmanager
def library_logs_to(name: str) -> Iterator[None]:
    """Hand warnings and errors of the library to the ROS logger of that name."""
    handler = _ToRos(name)
    library = logging.getLogger("maskrnn_ros")
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)


class _ToRos(logging.Handler):
    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self._logger = rclpy.logging.get_logger(name)

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy knows one severity for each place in the code
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        else:
            self._logger.warning(record.getMessage())
