# SPDX-License-Identifier: Apache-2.0
"""How large may be what comes from outside, and what is said: the one place for such limits.

A limit is checked before the work that it bounds, in a time that does not grow with what is refused.
"""

from __future__ import annotations

MAX_NAME = 64
"""Characters in the name of an instance: it is sent with every mask."""
MAX_TOKEN = 64
"""Characters in the token of a request."""
MAX_TEXT = 256
"""Characters in any text that is published, answered or logged."""
MAX_QUOTED = 80
"""Characters of a value that is quoted in such a text."""

_MORE = " ({} more)"


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
    r"""A text for people as one line of at most so many characters; what is cut off is counted.

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
