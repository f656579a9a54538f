# SPDX-License-Identifier: Apache-2.0
"""What the callbacks hand to the worker: the latest image, and requests in order.

The networks look at the latest image. Those that come meanwhile would have to wait for them, or to be dropped. They are
handed on to whoever carries masks by flow (``take_ahead``), and the networks look at the newest of them next without
that anybody waits for it:

* Where the networks keep up with the camera (``Pace``), an image may wait while they finish the one before. Where
  another one comes then, all that have no masks are handed on, and the networks wait for the next image.
* Where they do not, an image that comes while another has no masks is handed on at once, with that.

Where each image has its masks before the next one comes, as in lockstep, none is handed on.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from maskrnn_ros.config import Config
from maskrnn_ros.runtime import cores
from maskrnn_ros.timeline import Refusal, Stamped, StampOrder, TimeRule
from maskrnn_ros.tracker_node.pace import Pace


@dataclasses.dataclass(frozen=True, eq=False)
class Arrival:
    """An image message as it came.

    Args:
        message: The message.
        stamp_ns: Its stamp, ns.
        arrived: Monotonic time of its arrival, seconds.
        skipped: Images dropped since the one taken before; known when it is taken.
        era: Of its stamp, see ``StampOrder``.
        is_kept: It makes room for no other: it was held back long enough.
        is_ahead: It gets its masks by flow; what the networks say of it is for the images after it.
    """

    message: Any
    stamp_ns: int
    arrived: float
    skipped: int = 0
    era: int = 0
    is_kept: bool = False
    is_ahead: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the images; received = processed + dropped + rejected + waiting, in every snapshot.

    Args:
        received: Images that came.
        processed: That gave masks.
        propagated: Of those, by flow alone.
        dropped: That made room for newer ones.
        rejected: That could not be used.
        waiting: That wait, are held back or are worked on.
        rejected_stamps: Of the last that were rejected, ns.
        held_stamps: Of those that are held back since time may have jumped, ns.
    """

    received: int = 0
    processed: int = 0
    propagated: int = 0
    dropped: int = 0
    rejected: int = 0
    waiting: int = 0
    rejected_stamps: tuple[int, ...] = ()
    held_stamps: tuple[int, ...] = ()


SAID_STAMPS = 8
"""Stamps named in a message."""

_AHEAD = 3
"""Images that wait for masks by flow at most; the oldest makes room."""


class Inbox:
    """One slot for images, where the latest wins, and a queue of requests; shared by callbacks and worker.

    What is the latest says the order of stamps, not of arrival. Images that it holds back wait here.

    An image that a seed waits for is not dropped. Of those that are, and of those that come too late, the newest are
    kept as they came within ``dropped_bytes``, since a seed may have been drawn on one of them.

    Args:
        dropped_bytes: Memory for dropped images, bytes.
        order: Judges stamps; it outlives the inbox as the session does.
        wanted: Says of a stamp whether a seed waits for its image.
        enabled: While not, every image is dropped.
        goes_ahead: Says of an image whether masks can be carried to it by flow; None: of none.
    """

    def __init__(
        self,
        dropped_bytes: int,
        order: StampOrder[Arrival] | None = None,
        *,
        wanted: Callable[[int], bool] = lambda stamp_ns: False,
        enabled: bool = True,
        goes_ahead: Callable[[Arrival], bool] | None = None,
    ) -> None:
        self.dropped_bytes = dropped_bytes
        self._wanted = wanted
        self.goes_ahead = goes_ahead
        self._order = order or StampOrder[Arrival](TimeRule.of(Config()))
        self.enabled = enabled
        self._condition = threading.Condition()
        self._images: deque[Arrival] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._dropped: OrderedDict[int, Any] = OrderedDict()
        self._dropped_size = 0
        self._counts = Counts()
        self._rejected: deque[int] = deque(maxlen=SAID_STAMPS)
        self._working: Arrival | None = None
        self._is_told = False  # the masks of the image that is worked on are being published
        self._ahead: deque[Arrival] = deque()
        self._going: Arrival | None = None
        self._pace = Pace()
        self._begun_s = self._going_s = 0.0
        self._newest_s: float | None = None
        self._dropped_at_take = 0
        self._closed = False

    @property
    def counts(self) -> Counts:
        """A consistent snapshot."""
        with self._condition:
            own = [*self._images] + ([] if self._working is None else [self._working])
            ahead = len(self._ahead) + (self._going is not None)
            return dataclasses.replace(
                self._counts,
                waiting=sum(not one.is_ahead for one in own) + ahead + len(self._order.held),
                rejected_stamps=tuple(self._rejected),
                held_stamps=tuple(entry.stamp_ns for entry in self._order.held),
            )

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

    @property
    def held(self) -> frozenset[int]:
        """Stamps of the images that are held back, since time may have jumped, ns."""
        with self._condition:
            return frozenset(entry.stamp_ns for entry in self._order.held)

    def put_image(self, message: Any, stamp_ns: int) -> tuple[Refusal[Arrival], ...]:
        """Take an image; those that wait, and no seed for them, make room for it.

        Returns:
            Images whose stamps are refused, this one or others before it; they are counted as rejected.
        """
        with self._condition:
            ruling = self._order.put(stamp_ns, Arrival(message, stamp_ns, self._receive()))
            for refusal in ruling.refused:
                self._reject(refusal.stamp_ns)
                self._keep(refusal.item)
            self._admit(ruling.passed)
            self._condition.notify_all()
            return ruling.refused

    def forget_time(self) -> tuple[Refusal[Arrival], ...]:
        """Take any stamp next; gives what was held back, counted as rejected."""
        with self._condition:
            refused = self._order.clear()
            for refusal in refused:
                self._reject(refusal.stamp_ns)
            return refused

    def _admit(self, passed: Sequence[Stamped[Arrival]]) -> None:
        """Queue what goes on; images that were held back go through one and all, in order."""
        for entry in passed:
            if not self.enabled:
                self._drop(entry.item)
                continue
            arrival = dataclasses.replace(entry.item, era=self._order.era, is_kept=len(passed) > 1)
            self._pace.came(arrival.arrived)
            arrival = self._sent_ahead(arrival)
            for waiting in [w for w in self._images if not (w.is_kept or self._wanted(w.stamp_ns))]:
                self._images.remove(waiting)
                self._drop(waiting)
            self._images.append(arrival)

    def _sent_ahead(self, arrival: Arrival) -> Arrival:
        """Hand on an image, and those that wait before it, where there are any and masks can be carried there."""
        working = None if self._is_told else self._working
        if any(one is not None and one.is_kept for one in (working, *self._images, arrival)):
            return arrival  # what was held back goes through one and all
        if self._pace.keeps_up:
            is_busy = any(not one.is_ahead for one in self._images)
        else:
            is_busy = bool(self._images) or working is not None
        if not is_busy or self.goes_ahead is None or not self.goes_ahead(arrival):
            return arrival
        if self._working is not None and not self._is_told and not self._working.is_ahead:
            self._hand_on(dataclasses.replace(self._working, skipped=0))  # whoever works on it has told of those
            self._working = dataclasses.replace(self._working, is_ahead=True)
        for k, waiting in enumerate(self._images):
            if not waiting.is_ahead:
                self._hand_on(self._numbered(waiting))
                self._images[k] = dataclasses.replace(waiting, is_ahead=True)
        self._hand_on(self._numbered(arrival))
        return dataclasses.replace(arrival, is_ahead=True)

    def _hand_on(self, arrival: Arrival) -> None:
        self._ahead.append(arrival)
        while len(self._ahead) > _AHEAD:
            left = self._ahead.popleft()
            self._drop(left)
            self._dropped_at_take += 1  # told with the next one here
            self._ahead[0] = dataclasses.replace(self._ahead[0], skipped=self._ahead[0].skipped + left.skipped + 1)

    def _numbered(self, arrival: Arrival) -> Arrival:
        """With the images that were dropped since the last one that was taken or handed on."""
        skipped, self._dropped_at_take = self._counts.dropped - self._dropped_at_take, self._counts.dropped
        return dataclasses.replace(arrival, skipped=skipped)

    def refuse_image(self, stamp_ns: int) -> None:
        """Count an image that could not even be queued; its stamp is what stands in the message."""
        with self._condition:
            self._receive()
            self._reject(stamp_ns)

    def put_request(self, request: Callable[[], None]) -> None:
        """Queue a call for the worker's thread; requests go before images."""
        with self._condition:
            self._requests.append(request)
            self._condition.notify_all()

    def dropped_image(self, stamp_ns: int) -> Any | None:
        """The dropped image of that stamp, where it is still at hand."""
        with self._condition:
            return self._dropped.get(stamp_ns)

    def take(self, timeout_s: float | None) -> Arrival | Callable[[], None] | None:
        """The next request, else the next image; None after the timeout (None waits, 0 does not).

        When closed it gives the requests that are left, then None. An image taken is waiting until ``done``.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._requests or self._next is not None or self._closed, timeout_s)
            if self._requests:
                return self._requests.popleft()
            arrival = self._next
            if arrival is not None:
                self._images.remove(arrival)
                self._is_told, self._begun_s = False, time.monotonic()
                self._pace.begun()
                self._working = arrival if arrival.is_ahead else self._numbered(arrival)
            return self._working if arrival is not None else None

    @property
    def _next(self) -> Arrival | None:
        """The image to look at next; one that has its masks only where there is time for it, or a seed waits for it."""
        is_quick = self._pace.keeps_up
        return next((i for i in self._images if not (i.is_ahead and is_quick) or self._wanted(i.stamp_ns)), None)

    def tell(self) -> bool:
        """Whether the masks of the image taken are to be published; where not, it was handed on meanwhile."""
        with self._condition:
            self._is_told = self._working is not None and not self._working.is_ahead
            return self._is_told

    def done(self, *, processed: bool | None) -> bool:
        """The image taken was processed, or else rejected; False where it was handed on, which counts it.

        Args:
            processed: None: it is left out after all.
        """
        with self._condition:
            working, self._working, self._is_told = self._working, None, False
            self._pace.looked(time.monotonic() - self._begun_s)
            if working is None or working.is_ahead:
                return False
            self._finish(working, processed=processed)
            return True

    def take_ahead(self) -> Arrival | None:
        """The next image that was handed on, as soon as there is one; None when closed.

        It is waiting until ``done_ahead``.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._ahead or self._closed)
            self._going = self._ahead.popleft() if self._ahead else None
            self._going_s = time.monotonic()
            return self._going

    def done_ahead(self, *, processed: bool | None, by_flow: bool = True) -> None:
        """The image that was handed on was processed, or else rejected.

        Args:
            processed: None: it is left out after all.
            by_flow: Whether its masks are those of an earlier image; else the networks were through with it.
        """
        with self._condition:
            going, self._going = self._going, None
            self._pace.carried((time.monotonic() - self._going_s) / len(cores()))
            if going is not None:
                self._finish(going, processed=processed)
                self._count(propagated=int(bool(processed) and by_flow))

    def _finish(self, arrival: Arrival, *, processed: bool | None) -> None:
        if processed is None:
            self._drop(arrival)
        elif processed:
            self._count(processed=1)
        else:
            self._reject(arrival.stamp_ns)

    @property
    def closed(self) -> bool:
        """Whether the worker is to stop."""
        with self._condition:
            return self._closed

    def close(self, *, finish: bool = True) -> None:
        """Take no more images; those that wait count as dropped.

        Args:
            finish: Requests that wait are still given.
        """
        with self._condition:
            self._closed = True
            if not finish:
                self._requests.clear()
            left = sum(not one.is_ahead for one in self._images) + len(self._ahead)
            self._count(dropped=left + len(self._order.drop_held()))
            self._images.clear()
            self._ahead.clear()
            self._condition.notify_all()

    def _receive(self) -> float:
        self._newest_s = time.monotonic()
        self._count(received=1)
        return self._newest_s

    def _reject(self, stamp_ns: int) -> None:
        self._count(rejected=1)
        self._rejected.append(stamp_ns)

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._counts, name) + number for name, number in more.items()}
        self._counts = dataclasses.replace(self._counts, **values)

    def _drop(self, arrival: Arrival) -> None:
        self._count(dropped=int(not arrival.is_ahead))
        self._keep(arrival)

    def _keep(self, arrival: Arrival) -> None:
        """Keep an image that is not processed, for a seed that was drawn on it."""
        former = self._dropped.pop(arrival.stamp_ns, None)
        self._dropped_size -= len(former.data) if former is not None else 0
        self._dropped[arrival.stamp_ns] = arrival.message
        self._dropped_size += len(arrival.message.data)
        while self._dropped_size > self.dropped_bytes:
            _, oldest = self._dropped.popitem(last=False)
            self._dropped_size -= len(oldest.data)
