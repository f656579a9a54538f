# SPDX-License-Identifier: Apache-2.0
"""Limits on the size of input and of texts, in one place.

A limit is checked before the work that it bounds, in a time that does not grow with what is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized

MAX_NAME = 64
"""Characters in the name of an instance: it is sent with every mask."""
MAX_TOKEN = 64
"""Characters in the token of a request."""
MAX_TEXT = 256
"""Characters in any text that is published, answered or logged."""
MAX_QUOTED = 80
"""Characters of a value that is quoted in such a text."""

MAX_FRAME_ID = 256
"""Characters in the frame_id of a header: it goes out with every mask."""

MAX_PIXELS = 34_000_000
"""In an image or a mask: 8K (7680x4320) is the largest that is taken. Some twenty bytes are needed for each."""
MAX_SIDE = 16_384
"""Pixels of a side; OpenCV has limits of its own not far above it."""
MAX_PROMPTS = 1_000
"""Prompts in a request, and detections in a message: as many as there may be instances."""
MAX_POINTS = 1_000
"""Points in a request; they are told apart one by one."""
MAX_IDS = 1_000
"""Ids in a request to remove."""
MAX_WAITING = 64
"""Requests that wait for the worker: each may be as large as an image."""
MAX_PER_S = 50
"""Requests in a second, of all clients together; twice as many may come at once."""

MIN_FPS, MAX_FPS = 1e-4, 1e5
"""Frames per second: a hundred thousand frames at the lowest rate still have stamps that fit a ROS time."""

MAX_CONNECTIONS = 64
"""Connections to the seed editor at a time; a page has two or three."""
MAX_REQUEST_S = 10.0
"""Seconds in which a request to it has to arrive, and its answer to be taken."""

_MORE = " ({} more)"


def check_fps(fps: float, what: str = "fps") -> None:
    """Refuse a frame rate that makes no stamps.

    >>> check_fps(29.97)

    Raises:
        ValueError: It is too low, too high or no number.
    """
    if not MIN_FPS <= fps < MAX_FPS:
        raise ValueError(f"{what} must be >= {MIN_FPS:g} and < {MAX_FPS:.0f}, got {fps:g}")


def check_size(height: int, width: int, what: str = "image") -> None:
    """Refuse a size that is said, before anything of it is made.

    >>> check_size(4320, 7680)

    Raises:
        ValueError: It is too large.
    """
    if height > MAX_SIDE or width > MAX_SIDE or height * width > MAX_PIXELS:
        raise ValueError(
            f"{what} must have at most {MAX_PIXELS} pixels and {MAX_SIDE} on a side, got {height} x {width}"
        )


def check_number(what: str, values: Sized, limit: int) -> None:
    """Refuse more of something than are taken at a time.

    Raises:
        ValueError: There are.
    """
    if len(values) > limit:
        raise ValueError(f"expected at most {limit} {what} at a time, got {len(values)}")


class Rate:
    """Refuses what comes too often: a bucket of tokens.

    Args:
        per_s: How many may come in a second; twice as many at once.
        clock: Monotonic time, seconds.
    """

    def __init__(self, per_s: int = MAX_PER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = 2.0 * per_s
        self._seen_s = clock()

    def check(self, what: str) -> None:
        """Take one more.

        Raises:
            ValueError: That would be too many.
        """
        now = self._clock()
        self._left = min(2.0 * self._per_s, self._left + (now - self._seen_s) * self._per_s)
        self._seen_s = now
        if self._left < 1:
            raise ValueError(f"expected at most {self._per_s} {what} in a second, got more")
        self._left -= 1


def check_name(name: str) -> None:
    """Refuse a name of an instance that is too long or no single line.

    Raises:
        ValueError: It is.
    """
    _check_word("name", name, MAX_NAME)


def check_token(token: str) -> None:
    """Refuse a token of a request that is too long or no single line.

    Raises:
        ValueError: It is.
    """
    _check_word("token", token, MAX_TOKEN)


def check_frame_id(frame_id: str) -> None:
    """Refuse a header's frame_id that is too long.

    Raises:
        ValueError: It is.
    """
    if len(frame_id) > MAX_FRAME_ID:
        raise ValueError(f"frame_id must have at most {MAX_FRAME_ID} characters, got {len(frame_id)}")


def _check_word(what: str, word: str, limit: int) -> None:
    if len(word) > limit:
        raise ValueError(f"{what} must have at most {limit} characters, got {len(word)}: {quoted(word[:limit])}")
    if any(letter < " " or letter in "\x7f\x85\u2028\u2029" for letter in word):
        raise ValueError(f"{what} must be a single line without control characters, got {quoted(word)}")


def quoted(value: object) -> str:
    """A value as Python writes it, at most ``MAX_QUOTED`` characters of it.

    >>> quoted("cup")
    "'cup'"
    >>> quoted("x" * 100)[-11:]
    ' (22 more)'
    """
    return _cut(repr(value), MAX_QUOTED)


def text_line(text: str, limit: int = MAX_TEXT) -> str:
    r"""A text as one line of at most this many characters; the rest is cut off and counted.

    >>> text_line("expected a cup,\n  got a can")
    'expected a cup, got a can'
    >>> text_line("x" * 300)[-15:], len(text_line("x" * 300))
    ('xxxxx (55 more)', 255)

    Args:
        text: Any; of a very long one only the beginning is looked at.
        limit: Characters.
    """
    seen = text[: 4 * limit]
    line = " ".join(seen.split())
    rest = len(text) - len(seen)
    if not rest and len(line) <= limit:
        return line
    kept = limit - len(_MORE.format(len(text)))
    return line[:kept] + _MORE.format(len(line[kept:]) + rest)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + _MORE.format(len(text) - limit)
