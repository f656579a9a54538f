# SPDX-License-Identifier: Apache-2.0
"""Takes up what an earlier process saved, and says after every image and change what is to be saved of this one."""

from __future__ import annotations

from collections.abc import Callable, Collection

from maskrnn_ros.tracking.saved import Saved, SavedSeed, SeedLog, stamped_before, take_up, without
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Tracks


class Keeper:
    """What is saved of a session.

    Args:
        left: Instances of an earlier process, to be taken up at the first image; None: there are none.
        keep: Called with what is to be saved; None: nothing is.
    """

    def __init__(self, left: Saved | None, keep: Callable[[Saved], None] | None) -> None:
        self.left = left
        self.keep = keep
        self.shown: Tracks | None = None  # the newest masks
        self._log = SeedLog()
        self._spares = False

    @property
    def left_ids(self) -> list[int]:
        """Ids of instances that are to be taken up."""
        return [] if self.left is None else [instance.instance_id for instance in self.left.instances]

    def take_up(self, tracker: Tracker, frame: PreparedFrame) -> int | None:
        """Give a new tracker what was left, before its first image, once; gives the number of the session it is of.

        Raises:
            ValueError: See ``saved.take_up``; what is saved stays as it is then until there is something new, for it
                may have been the wrong camera.
        """
        left, self.left = self.left, None
        if left is None or not left.instances:
            return None
        self._spares = True
        moved = stamped_before(left, frame.stamp_ns)
        take_up(tracker, moved, frame)
        self._spares = False
        if self.keep is not None:
            self._log.take_up(moved)
        return left.session

    def add(self, seed: SavedSeed, ids: Collection[int]) -> None:
        """A seed was applied to these instances; its image and masks are held only where they are to be saved."""
        if self.keep is not None:
            self._log.add(seed, ids)
        self._spares = False

    def remove(self, ids: Collection[int]) -> None:
        """These instances are gone, those too that were not taken up yet."""
        self._log.remove(ids)
        if self.left is not None:
            self.left = without(self.left, ids)

    def clear(self) -> None:
        """A new session: nothing is there."""
        self._log.clear()
        self.left = self.shown = None
        self._spares = False

    def save(self, session: int, used: frozenset[int]) -> None:
        """Say what is to be saved.

        Args:
            session: Its number.
            used: Ids that may not be given to other instances.
        """
        if self.keep is not None and self.left is None and not self._spares:
            self.keep(self._log.saved(session, self.shown, used))
