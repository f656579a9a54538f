# SPDX-License-Identifier: Apache-2.0
"""How the process of a node ends: its exit statuses, and what SIGINT and SIGTERM do.

It imports nothing that takes time, so that a signal counts while everything else is still imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

EXIT_NO_START = 1
"""It could not start: a setting, a file or a device is wrong, and another try will not help."""
EXIT_CRASH = os.EX_SOFTWARE
"""It ran and broke, or its worker had to be abandoned: a new process may do better (``respawn``)."""

END_S = 1.6
"""From the signal to the end of the process, however busy it is."""


class Ending:
    """Hears SIGINT and SIGTERM in a thread of its own, so that they count while the main thread is inside a library.

    Until ``begin`` a signal ends the process at once. After it ``asked`` is set, and a process that has not ended
    ``END_S`` later is ended. The main thread makes it.
    """

    _installed: Ending | None = None

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._is_broken: Callable[[], bool] | None = None
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):  # under launch a Ctrl-C arrives twice
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()

    @classmethod
    def installed(cls) -> Ending:
        """That of this process."""
        if cls._installed is None:
            cls._installed = cls()
        return cls._installed

    def begin(self, is_broken: Callable[[], bool]) -> None:
        """From now on the main thread ends the process, when asked.

        Args:
            is_broken: Whether something would be abandoned; asked where the main thread does not end it in time.
        """
        self._is_broken = is_broken

    def _listen(self, reading: int) -> None:
        os.read(reading, 1)
        if self._is_broken is None:
            os._exit(0)
        self.asked.set()
        time.sleep(END_S)
        os._exit(EXIT_CRASH if self._is_broken() else 0)


def leave(status: int) -> NoReturn:
    """End the process without Python's tear-down, which waits for threads of libraries."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
