# SPDX-License-Identifier: Apache-2.0
"""Where a node keeps its instances over a restart (``persist_dir``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maskrnn_ros.config import Config
from maskrnn_ros.runtime import give_way
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.state_file import StateFile, StateWriter

_NICE = 10


class Store:
    """The file of a node, read once and written in the background.

    Args:
        config: All settings; ``persist_dir`` is set.
        name: Full name of the node, whose folder is that within ``persist_dir``.
        fault: Called with one line when a file is refused or cannot be written; from any thread.

    Raises:
        ValueError: Another process uses the folder, or it holds more instances than ``max_instances``.
        OSError: The folder cannot be made.
    """

    def __init__(self, config: Config, name: str, fault: Callable[[str], None]) -> None:
        self._file = StateFile(Path(config.persist_dir).expanduser() / name.strip("/"))
        saved, refusal = self._file.read()
        count = len(saved.instances) if saved is not None else 0
        if count > config.max_instances:
            self._file.close()
            raise ValueError(
                f"max_instances must be at least the {count} instances that {self._file.path} holds, got "
                f"{config.max_instances}: raise it or move the file away"
            )
        if refusal:
            fault(refusal)
        self.refusal = refusal
        """Why a file was refused, in one line; empty where none was."""
        self.saved: Saved | None = saved
        self._writer = StateWriter(self._file, config.persist_period, fault, prepare=lambda: give_way(_NICE))

    def put(self, saved: Saved) -> None:
        """Keep this from now on; it returns at once."""
        self._writer.put(saved)

    def close(self, timeout_s: float | None = None) -> None:
        """Write what is left, as far as the time allows: the file is whole at any moment."""
        self._writer.close(timeout_s)
