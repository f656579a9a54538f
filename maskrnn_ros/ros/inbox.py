# SPDX-License-Identifier: Apache-2.0
"""What the callbacks hand to the worker: the latest image, and requests in order."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Arrival:
    """An image message as it came.

    Args:
        message: The message.
        stamp_ns: Its stamp, ns.
        arrived: Monotonic time of its arrival, seconds.
        skipped: Images dropped since the one taken before; known when it is taken.
    """

    message: Any
    stamp_ns: int
    arrived: float
    skipped: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the images; received = processed + dropped + rejected + waiting, in every snapshot."""

    received: int = 0
    processed: int = 0
    dropped: int = 0
    rejected: int = 0
    waiting: int = 0


class Inbox:
    """One slot for images, where the latest wins, and a queue of requests; shared by callbacks and worker.

    An image that a seed waits for is not dropped. Of those that are, the newest are kept as they came within
    ``dropped_bytes``, since a seed may have been drawn on one of them.

    Args:
        dropped_bytes: Memory for dropped images, bytes.
        enabled: While not, every image is dropped.
    """

    def __init__(self, dropped_bytes: int, *, enabled: bool = True) -> None:
        self.dropped_bytes = dropped_bytes
        self.enabled = enabled
        self._condition = threading.Condition()
        self._images: deque[Arrival] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._claims: Counter[int] = Counter()
        self._dropped: OrderedDict[int, Any] = OrderedDict()
        self._dropped_size = 0
        self._counts = Counts()
        self._working = 0
        self._newest_s: float | None = None
        self._dropped_at_take = 0
        self._closed = False

    @property
    def counts(self) -> Counts:
        """A consistent snapshot."""
        with self._condition:
            return dataclasses.replace(self._counts, waiting=len(self._images) + self._working)

    @property
    def stamps(self) -> frozenset[int]:
        """Stamps of the images that wait, ns."""
        with self._condition:
            return frozenset(image.stamp_ns for image in self._images)

    @property
    def requests_waiting(self) -> int:
        """Requests that the worker has not taken yet."""
        with self._condition:
            return len(self._requests)

    @property
    def newest_s(self) -> float | None:
        """Monotonic time at which the newest image was received, be it used or not, seconds; None: none yet."""
        with self._condition:
            return self._newest_s

    def put_image(self, message: Any, stamp_ns: int) -> None:
        """Take an image; those that wait and are not claimed by a seed make room for it."""
        with self._condition:
            self._receive()
            if not self.enabled:
                self._drop(Arrival(message, stamp_ns, 0.0))
                return
            for waiting in [w for w in self._images if w.stamp_ns not in self._claims]:
                self._images.remove(waiting)
                self._drop(waiting)
            assert self._newest_s is not None  # just received
            self._images.append(Arrival(message, stamp_ns, self._newest_s))
            self._condition.notify()

    def refuse_image(self) -> None:
        """Count an image that could not even be queued."""
        with self._condition:
            self._receive()
            self._count(rejected=1)

    def put_request(self, request: Callable[[], None]) -> None:
        """Queue a call for the worker's thread; requests go before images."""
        with self._condition:
            self._requests.append(request)
            self._condition.notify()

    def claim(self, stamp_ns: int) -> None:
        """A seed waits for the image of that stamp."""
        with self._condition:
            self._claims[stamp_ns] += 1

    def unclaim(self, stamp_ns: int) -> None:
        """One seed less waits for it."""
        with self._condition:
            self._claims[stamp_ns] -= 1
            if self._claims[stamp_ns] <= 0:
                del self._claims[stamp_ns]

    def dropped_image(self, stamp_ns: int) -> Any | None:
        """The dropped image of that stamp, where it is still at hand."""
        with self._condition:
            return self._dropped.get(stamp_ns)

    def take(self, timeout_s: float | None) -> Arrival | Callable[[], None] | None:
        """The next request, else the next image; None after the timeout (None waits, 0 does not).

        When closed it gives the requests that are left, then None. An image taken is waiting until ``done``.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._requests or self._images or self._closed, timeout_s)
            if self._requests:
                return self._requests.popleft()
            if self._images:
                self._working = 1
                skipped = self._counts.dropped - self._dropped_at_take
                self._dropped_at_take = self._counts.dropped
                return dataclasses.replace(self._images.popleft(), skipped=skipped)
            return None

    def done(self, *, processed: bool) -> None:
        """The image taken was processed, or else rejected."""
        with self._condition:
            self._working = 0
            self._count(processed=int(processed), rejected=int(not processed))

    @property
    def closed(self) -> bool:
        """Whether the worker is to stop."""
        with self._condition:
            return self._closed

    def close(self) -> None:
        """Take no more images; those that wait count as dropped."""
        with self._condition:
            self._closed = True
            self._count(dropped=len(self._images))
            self._images.clear()
            self._condition.notify_all()

    def _receive(self) -> None:
        self._newest_s = time.monotonic()
        self._count(received=1)

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._counts, name) + number for name, number in more.items()}
        self._counts = dataclasses.replace(self._counts, **values)

    def _drop(self, arrival: Arrival) -> None:
        self._count(dropped=1)
        former = self._dropped.pop(arrival.stamp_ns, None)
        self._dropped_size -= len(former.data) if former is not None else 0
        self._dropped[arrival.stamp_ns] = arrival.message
        self._dropped_size += len(arrival.message.data)
        while self._dropped_size > self.dropped_bytes:
            _, oldest = self._dropped.popitem(last=False)
            self._dropped_size -= len(oldest.data)
