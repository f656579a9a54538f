# SPDX-License-Identifier: Apache-2.0
"""The thread that carries masks by flow to images that the networks have no time for, see ``inbox`` and ``Ahead``."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from maskrnn_ros.tracker_node.inbox import Arrival, Inbox
from maskrnn_ros.tracker_node.results import Results
from maskrnn_ros.tracking.ahead import Ahead, Look
from maskrnn_ros.tracking.session import check_size
from maskrnn_ros.types import BoolArray, Frame, UInt8Array

_LONGEST_NS = 2_000_000_000
"""So long after the newest image that the networks have looked at masks are still carried: by then flow has lost much,
and where the networks hang nobody is to be deceived."""

_PICTURES = 3
"""Images that are kept for the other thread."""


class Pictures:
    """Makes a frame of an image message, once for both threads.

    Args:
        convert: Image message to RGB; a ValueError rejects the image.
        ignored: Gives the ignore mask bool (H, W) of an image by its stamp, size and era; None: it has none.
    """

    def __init__(
        self,
        convert: Callable[[Any], UInt8Array],
        ignored: Callable[[int, tuple[int, int], int], BoolArray | None],
    ) -> None:
        self._convert = convert
        self._ignored = ignored
        self._lock = threading.Lock()
        self._made: OrderedDict[int, tuple[Any, UInt8Array]] = OrderedDict()

    def of(self, arrival: Arrival) -> Frame:
        """The frame of an image.

        Raises:
            ValueError: The message is none that can be used.
        """
        with self._lock:
            message, image = self._made.pop(id(arrival.message), (None, None))
            if message is not arrival.message or image is None:
                image = self._convert(arrival.message)
            self._made[id(arrival.message)] = arrival.message, image
            while len(self._made) > _PICTURES:
                self._made.popitem(last=False)
        # asked each time: a mask may come somewhat after its image, and the networks look later
        ignored = self._ignored(arrival.stamp_ns, (image.shape[0], image.shape[1]), arrival.era)
        return Frame(stamp_ns=arrival.stamp_ns, image=image, ignored=ignored)


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What the networks know.

    Args:
        look: All instances on the newest image that they have looked at.
        session: Number of the session.
        era: Of the image's stamp.
    """

    look: Look
    session: int
    era: int

    def continues(self, other: Known | None) -> bool:
        """Whether it is of the session, the time and the size of an earlier one."""
        if other is None:
            return False
        return (self.session, self.era, self.look.frame.size) == (other.session, other.era, other.look.frame.size)


class Propagator:
    """Owns an ``Ahead``.

    Args:
        ahead: Touched by this thread only.
        inbox: Where images are handed on.
        pictures: Makes frames of them.
        results: Where masks go.
        known: Gives what the networks know now; None: nothing yet.
        reject: See ``Worker``.
        crash: See ``Worker``.
    """

    def __init__(
        self,
        ahead: Ahead,
        inbox: Inbox,
        pictures: Pictures,
        results: Results,
        *,
        known: Callable[[], Known | None],
        reject: Callable[[str], None],
        crash: Callable[[str], None],
    ) -> None:
        self._ahead = ahead
        self._inbox = inbox
        self._pictures = pictures
        self._results = results
        self._known = known
        self._reject = reject
        self._crash = crash
        self._last: Known | None = None
        self._begun_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="propagator", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread after the inbox was closed; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def goes_ahead(self, arrival: Arrival) -> bool:
        """Whether masks can be carried to an image: there are some, of its time."""
        known = self._known()
        if known is None or not known.look.moment.states or known.era != arrival.era:
            return False
        return arrival.stamp_ns - known.look.frame.stamp_ns <= _LONGEST_NS

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def silent_s(self) -> float:
        """How long it has been at work on one image, seconds; 0 while it is at none."""
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def excuse(self, away_s: float) -> None:
        """See ``Worker``."""
        begun_s = self._begun_s
        if begun_s is not None:
            self._begun_s = min(time.monotonic(), begun_s + away_s)

    def _run(self) -> None:
        while (arrival := self._inbox.take_ahead()) is not None:
            self._begun_s = time.monotonic()
            try:
                self._one(arrival)
            except Exception as error:  # a fault of ours: say so and go on, the stream must not end
                self._crash(f"internal error: {type(error).__name__}: {error}")
            self._begun_s = None

    def _one(self, arrival: Arrival) -> None:
        self._results.skipped(arrival.skipped)
        processed: bool | None = False
        known: Known | None = None
        refusal = ""
        try:
            frame = self._pictures.of(arrival)
            known = self._basis(arrival)
            processed = True if known is not None and self._carry(arrival, frame, known) else None
        except ValueError as error:
            refusal = f"image {arrival.stamp_ns}: {error}"
        finally:
            is_looked_at = known is not None and known.look.frame.stamp_ns == arrival.stamp_ns
            self._inbox.done_ahead(processed=processed, by_flow=not is_looked_at)
        if refusal:
            self._reject(refusal)  # counted before it is said

    def _basis(self, arrival: Arrival) -> Known | None:
        """What masks are carried from; None: nothing is known of the image's time."""
        known = self._known()
        if known is not None and known.era == arrival.era and known.look.frame.stamp_ns > arrival.stamp_ns:
            known = self._last if known.continues(self._last) else None  # the networks were quicker
        if known is None or known.era != arrival.era:
            return None
        since_ns = arrival.stamp_ns - known.look.frame.stamp_ns
        return known if 0 <= since_ns <= _LONGEST_NS else None

    def _carry(self, arrival: Arrival, frame: Frame, known: Known) -> bool:
        """Whether masks were published; not where a newer image has some."""
        check_size(frame.size, known.look.frame.size)
        if not known.continues(self._last):
            self._ahead.forget()
        self._last = known
        return self._results.put(arrival, frame.image, self._ahead.tracks(frame, known.look), known.session)
