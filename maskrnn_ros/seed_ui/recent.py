# SPDX-License-Identifier: Apache-2.0
"""The last images and masks, as serialized messages by stamp: only what a page asks for is decoded."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict

from maskrnn_ros.config import Config
from maskrnn_ros.timeline import StampOrder, TimeRule

_KEEP_BYTES = 128_000_000
"""Of images that wait for their masks."""
_SHOWN_BYTES = 64_000_000
_SHOWN_LEAST = 4
"""A picture that a page has got may be frozen a moment later: so many are kept whatever their size."""
_FROZEN = 4
_LATE_S = 3.0
"""Masks that are later than this are not waited for."""


@dataclasses.dataclass(eq=False)
class Held:
    """An image and, once they have come, its instances.

    Args:
        stamp_ns: Of both.
        image: Serialized message; None until it has come.
        instances: Likewise.
        arrived_s: Clock at the arrival of the first of them, seconds.
    """

    stamp_ns: int
    arrived_s: float
    image: bytes | None = None
    instances: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        return len(self.image or b"") + len(self.instances or b"")


class FrameStore:
    """Bounded; filled by the thread of the node, read by those of the web server."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = StampOrder[bytes](TimeRule.of(Config()))
        self._ring: OrderedDict[int, Held] = OrderedDict()
        self._shown: OrderedDict[int, Held] = OrderedDict()
        self._frozen: OrderedDict[int, Held] = OrderedDict()

    def put_image(self, stamp_ns: int, data: bytes) -> None:
        """Add an image, where its stamp is not refused; a jump back in time empties the store but for what is frozen.

        Nothing is said of what is refused: the tracker says it.
        """
        with self._changed:
            ruling = self._order.put(stamp_ns, data)
            if ruling.went_back:
                self._ring.clear()
                self._shown.clear()
            for entry in ruling.passed:
                self._held(entry.stamp_ns).image = entry.item
            total = sum(held.nbytes for held in self._ring.values())
            while total > _KEEP_BYTES and len(self._ring) > 1:
                total -= self._ring.popitem(last=False)[1].nbytes
            self._changed.notify_all()

    def put_instances(self, stamp_ns: int, data: bytes) -> None:
        """Add the masks of an image."""
        with self._changed:
            self._held(stamp_ns).instances = data
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all but what is frozen."""
        with self._changed:
            self._ring.clear()
            self._shown.clear()

    def wait(self, after_ns: int, with_masks: bool, timeout_s: float) -> Held | None:
        """The newest frame, as soon as it is not that of ``after_ns``; None after the timeout.

        Args:
            after_ns: Stamp that the page has; 0: none.
            with_masks: The newest that has its masks, unless they are late by seconds.
            timeout_s: Longest wait, seconds.
        """
        with self._changed:
            found: list[Held] = []

            def is_there() -> bool:
                newest = self._newest(with_masks)
                found[:] = [newest] if newest is not None and newest.stamp_ns != after_ns else []
                return bool(found)

            if not self._changed.wait_for(is_there, timeout_s):
                return None
            self._show(found[0])
            return found[0]

    def freeze(self, stamp_ns: int) -> None:
        """Keep a frame that a page shows.

        Raises:
            ValueError: It is not held any more.
        """
        held = self.at(stamp_ns)
        with self._changed:
            self._frozen[stamp_ns] = held
            self._frozen.move_to_end(stamp_ns)
            if len(self._frozen) > _FROZEN:
                self._frozen.popitem(last=False)

    def at(self, stamp_ns: int) -> Held:
        """The frame of a stamp, with its image.

        Raises:
            ValueError: It is not held any more.
        """
        with self._changed:
            for place in (self._frozen, self._shown, self._ring):
                held = place.get(stamp_ns)
                if held is not None and held.image is not None:
                    return held
        raise ValueError(f"the image with stamp {stamp_ns} ns is not held here any more: take the newest one")

    def _held(self, stamp_ns: int) -> Held:
        for place in (self._ring, self._shown, self._frozen):
            if stamp_ns in place:
                return place[stamp_ns]
        return self._ring.setdefault(stamp_ns, Held(stamp_ns, time.monotonic()))

    def _newest(self, with_masks: bool) -> Held | None:
        """The newest image, or the newest that has masks where those are not late."""
        images = [held for held in self._ring.values() if held.image is not None]
        if not images:
            return None
        newest = max(images, key=lambda held: held.stamp_ns)
        masked = [held for held in images if held.instances is not None]
        if not with_masks or not masked:
            return newest
        best = max(masked, key=lambda held: held.stamp_ns)
        return best if newest.arrived_s - best.arrived_s < _LATE_S else newest

    def _show(self, held: Held) -> None:
        self._shown[held.stamp_ns] = held
        self._shown.move_to_end(held.stamp_ns)
        total = sum(item.nbytes for item in self._shown.values())
        while total > _SHOWN_BYTES and len(self._shown) > _SHOWN_LEAST:
            total -= self._shown.popitem(last=False)[1].nbytes
