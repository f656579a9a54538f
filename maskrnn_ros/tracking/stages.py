# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

STAGES = ("prepare", "flow", "trunk", "heads", "merge")
"""Of a tracker's step, in their order: to the working size and onto the device; optical flow; features and what else
all instances share; all that is done per instance; masks, boxes and the label map at the size of the input."""


class Stages:
    """Adds up wall time by stage; measuring costs a microsecond a stage, so it is always on."""

    def __init__(self) -> None:
        self.ms = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.ms[stage] += (time.perf_counter() - begin) * 1e3

    def take(self) -> dict[str, float]:
        """Milliseconds by stage since the last call."""
        taken, self.ms = self.ms, dict.fromkeys(STAGES, 0.0)
        return taken
