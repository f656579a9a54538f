# SPDX-License-Identifier: Apache-2.0
"""The topic ``~/ignore_mask``: where on an image surely is no object, such as the robot's own body.

No image waits for one, and none at all is normal. Callbacks check and hold them; the worker asks for that of an image
when it begins to work on it, so that a mask that is rendered for the image may come somewhat after it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from maskrnn_ros.image_messages import NS_PER_S, ignore_pixels, stamp_to_ns
from maskrnn_ros.newest import Newest
from maskrnn_ros.types import BoolArray, UInt8Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class IgnoreCounts:
    """What became of the masks.

    Args:
        received: That came.
        rejected: That could not be used.
        age_ns: How much older the mask of the newest image was, ns; None: that image had none.
    """

    received: int = 0
    rejected: int = 0
    age_ns: int | None = None


class IgnoreMasks:
    """Holds masks as they came, by stamp; shared by callbacks and worker.

    Args:
        max_bytes: Memory for them.
        timeout_s: Gives how much older than its image a mask may be, seconds.
        refuse: Called with one line where one cannot be used.
    """

    def __init__(self, max_bytes: int, timeout_s: Callable[[], float], refuse: Callable[[str], None]) -> None:
        self._timeout_s = timeout_s
        self._refuse = refuse
        self._lock = threading.Lock()
        self._held = Newest[UInt8Array](max_bytes)
        self._counts = IgnoreCounts()
        self._era = 0

    @property
    def counts(self) -> IgnoreCounts:
        """A consistent snapshot."""
        with self._lock:
            return self._counts

    def put(self, message: Any) -> None:
        """Take a message (sensor_msgs/Image); one that contradicts itself is refused."""
        with self._lock:
            self._count(received=1)
        try:
            stamp_ns, pixels = stamp_to_ns(message.header.stamp), ignore_pixels(message)
            if stamp_ns <= 0:
                raise ValueError(f"stamp must be > 0 ns, that of the image, got {stamp_ns}")
        except ValueError as error:
            self._reject(str(error))
            return
        with self._lock:
            self._held.put(stamp_ns, pixels, pixels.nbytes)

    def of(self, stamp_ns: int, size: tuple[int, int], era: int | None = None) -> BoolArray | None:
        """The mask of an image: the newest that is not newer and not too old.

        Args:
            stamp_ns: Stamp of the image, ns.
            size: (H, W) of the image; a mask of another size is refused, and the one before it may count.
            era: Of the newest image's stamp, see ``StampOrder``; None: this image is an older one.

        Returns:
            bool, (H, W), True where is no object; None where there is no mask.
        """
        within_ns = round(self._timeout_s() * NS_PER_S)
        wrong, found = list[str](), None
        with self._lock:
            if era is not None and era < self._era:
                era = None  # of a time that is over
            if era is not None and era > self._era:
                self._era = era
                self._held.drop_newer(stamp_ns)  # they are of before a jump back
            while (found := self._held.at(stamp_ns, within_ns)) is not None and found[1].shape != size:
                self._held.drop(found[0])
                height, width = found[1].shape
                wrong.append(f"must be {size[1]}x{size[0]} (width x height) like the image, got {width}x{height}")
            if era is not None:
                self._counts = dataclasses.replace(self._counts, age_ns=None if found is None else stamp_ns - found[0])
        for line in wrong:
            self._reject(line)
        mask: BoolArray | None = None if found is None else found[1] != 0
        return mask

    def _reject(self, reason: str) -> None:
        with self._lock:
            self._count(rejected=1)
        self._refuse(f"ignore mask: {reason}")

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._counts, name) + number for name, number in more.items()}
        self._counts = dataclasses.replace(self._counts, **values)
