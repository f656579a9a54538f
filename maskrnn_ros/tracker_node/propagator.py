# SPDX-License-Identifier: Apache-2.0
"""The thread that carries masks by flow to images that the networks have no time for, see ``inbox`` and ``Ahead``."""

from __future__ import annotations

import dataclasses
import threading
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
        self._made: OrderedDict[int, tuple[Any, Frame]] = OrderedDict()

    def of(self, arrival: Arrival) -> Frame:
        """The frame of an image.

        Raises:
            ValueError: The message is none that can be used.
        """
        with self._lock:
            message, frame = self._made.pop(id(arrival.message), (None, None))
            if message is not arrival.message or frame is None:
                image = self._convert(arrival.message)
                ignored = self._ignored(arrival.stamp_ns, (image.shape[0], image.shape[1]), arrival.era)
                frame = Frame(stamp_ns=arrival.stamp_ns, image=image, ignored=ignored)
            self._made[id(arrival.message)] = arrival.message, frame
            while len(self._made) > _PICTURES:
                self._made.popitem(last=False)
            return frame


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

    def _run(self) -> None:
        while (arrival := self._inbox.take_ahead()) is not None:
            processed: bool | None = False
            try:
                self._results.skipped(arrival.skipped)
                processed = self._image(arrival) or None
            except ValueError as error:
                self._inbox.done_ahead(processed=False)
                self._reject(f"image {arrival.stamp_ns}: {error}")  # counted before it is said
                continue
            except Exception as error:  # a fault of ours: say so and go on, the stream must not end
                self._crash(f"internal error: {type(error).__name__}: {error}")
            self._inbox.done_ahead(processed=processed)

    def _image(self, arrival: Arrival) -> bool:
        """Whether the image got its masks; not where a newer one has them, or nothing is known of its time."""
        frame = self._pictures.of(arrival)
        known = self._known()
        if known is not None and known.look.frame.stamp_ns > arrival.stamp_ns and known.era == arrival.era:
            known = self._last  # the networks were quicker: go on from where this thread is
        if known is None or known.era != arrival.era or known.look.frame.stamp_ns > arrival.stamp_ns:
            return False
        check_size(frame.size, known.look.frame.size)
        self._last = known
        return self._results.put(arrival, frame.image, self._ahead.tracks(frame, known.look), known.session)
