# SPDX-License-Identifier: Apache-2.0
"""The one reading of time: which stamp goes on, which is late, which is a jump, which came before.

Time is ``header.stamp``. Drivers and networks deliver images late, twice, or with a stamp that is an hour off, and bags
begin again: what becomes of each is decided here, for the tracker, the locator, the seed editor and the scoring of
bags alike. Nothing here knows of ROS.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

NS_PER_S = 1_000_000_000

_SLOW = 2
"""A step ahead of up to this factor of the previous one is normal: streams may be slower than ``jump_s``."""


_NO_TIME = "stamp must be > 0 ns, got {}: set header.stamp, everything is matched by it"


class TimeSettings(Protocol):
    """Settings that say what a jump is."""

    @property
    def time_jump_s(self) -> float:
        """See ``TimeRule.jump_s``."""

    @property
    def time_jump_images(self) -> int:
        """See ``TimeRule.images``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeRule:
    """What a jump in time is.

    Args:
        jump_s: How far a stamp must be from the newest one to be no late one, seconds.
        images: Number of images in a row on the new timeline before it is accepted.
    """

    jump_s: float
    images: int

    @staticmethod
    def of(settings: TimeSettings) -> TimeRule:
        """The rule in some settings."""
        return TimeRule(jump_s=settings.time_jump_s, images=settings.time_jump_images)

    @property
    def jump_ns(self) -> int:
        """``jump_s`` in ns."""
        return round(self.jump_s * NS_PER_S)


@dataclasses.dataclass(frozen=True)
class Stamped(Generic[T]):
    """Something with a stamp, ns."""

    stamp_ns: int
    item: T


@dataclasses.dataclass(frozen=True)
class Refusal(Stamped[T]):
    """Something whose stamp is refused, and why, in one line."""

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruling(Generic[T]):
    """What became of a stamp, and of those before it that it decides about.

    Args:
        passed: To be used now, in this order.
        refused: Not to be used.
        went_back: What passed begins at an earlier time: the stream jumped back.
    """

    passed: tuple[Stamped[T], ...] = ()
    refused: tuple[Refusal[T], ...] = ()
    went_back: bool = False


class StampOrder(Generic[T]):
    """Judges the stamps of one stream in the order in which they come.

    * 0 is no time and refused, as are negative ones.
    * A stamp that is newer than the newest one by less than ``jump_s`` goes on. So does a larger step in a stream that
      makes such steps: up to twice the step before.
    * The newest stamp again is refused.
    * A stamp that is older by less than ``jump_s`` is late and refused, unless that very stamp was there before: then
      a short bag may have begun again.
    * Any other is held back. When ``images`` in a row are of the new time - each newer than the one before, all on the
      same side of the newest stamp - the jump is believed, and all of them pass in order: a bag that begins again loses
      nothing. When the stream goes on at the old time, what was held is refused.

    A jump ahead looks like a pause and is treated as one. A jump back counts up ``era``.

    >>> order = StampOrder[str](TimeRule(jump_s=2.0, images=3))
    >>> s, told = 10**9, []
    >>> for stamp in (10 * s, 11 * s, 3611 * s, 12 * s, 11 * s + 5, s, 2 * s, 3 * s):
    ...     told.append(len(order.put(stamp, "").passed))
    >>> told, order.era
    ([1, 1, 0, 1, 0, 0, 0, 3], 1)

    Args:
        rule: What a jump is; may be replaced between two calls.
    """

    def __init__(self, rule: TimeRule) -> None:
        self.rule = rule
        self.era = 0
        self.newest_ns: int | None = None
        self._step_ns = 0
        self._recent: deque[int] = deque()  # what passed within ``jump_s`` of the newest, ascending
        self._held: list[Stamped[T]] = []

    @property
    def held(self) -> tuple[Stamped[T], ...]:
        """What is held back until the stream shows whether time has jumped."""
        return tuple(self._held)

    def put(self, stamp_ns: int, item: T, *, is_known: bool = False) -> Ruling[T]:
        """Judge the next stamp.

        Args:
            stamp_ns: The stamp, ns.
            item: What carries it.
            is_known: A jump to that time is known otherwise, and needs no more images.
        """
        entry = Stamped(stamp_ns, item)
        if stamp_ns <= 0:
            return Ruling(refused=(Refusal(stamp_ns, item, _NO_TIME.format(stamp_ns)),))
        if self.newest_ns is None or 0 < stamp_ns - self.newest_ns < self._reach_ns:
            refused = self._let_go()
            self._pass(entry)
            return Ruling(passed=(entry,), refused=refused)
        if stamp_ns == (self._held[-1].stamp_ns if self._held else self.newest_ns):
            return Ruling(refused=(_same(entry),))
        refused = ()
        if not self._fits(stamp_ns):
            refused = self._let_go()
            if not self._is_apart(stamp_ns):
                return Ruling(refused=(*refused, self._refusal(entry)))
        self._held.append(entry)
        if len(self._held) < self.rule.images and not is_known:
            return Ruling(refused=refused)
        return self._believe(refused)

    def is_near(self, stamp_ns: int) -> bool:
        """Whether a stamp is less than a jump away from the newest."""
        return self.newest_ns is not None and abs(stamp_ns - self.newest_ns) < self.rule.jump_ns

    def drop_held(self) -> tuple[Refusal[T], ...]:
        """The stream ends or pauses: what is held back will not be believed any more."""
        return self._let_go()

    def clear(self) -> tuple[Refusal[T], ...]:
        """Forget the time so far: whatever stamp comes next passes. Gives what was held back."""
        refused = self._let_go()
        self.newest_ns, self._step_ns = None, 0
        self._recent.clear()
        self.era += 1
        return refused

    @property
    def _reach_ns(self) -> int:
        return max(self.rule.jump_ns, _SLOW * self._step_ns)

    def _is_apart(self, stamp_ns: int) -> bool:
        """Whether a stamp that does not go on may belong to another time."""
        assert self.newest_ns is not None
        is_repeated = stamp_ns in self._recent and stamp_ns != self.newest_ns
        return abs(stamp_ns - self.newest_ns) >= self.rule.jump_ns or is_repeated

    def _fits(self, stamp_ns: int) -> bool:
        """Whether a stamp goes on from what is held back."""
        if not self._held or stamp_ns <= self._held[-1].stamp_ns:
            return False
        assert self.newest_ns is not None
        is_same_side = (self._held[-1].stamp_ns > self.newest_ns) == (stamp_ns > self.newest_ns)
        is_next = stamp_ns - self._held[-1].stamp_ns < self.rule.jump_ns
        return is_same_side and (is_next or self._is_apart(stamp_ns))

    def _believe(self, refused: tuple[Refusal[T], ...]) -> Ruling[T]:
        """Time has jumped: what was held back passes, and counts as the stream from now on."""
        assert self.newest_ns is not None
        run, self._held = tuple(self._held), []
        went_back = run[0].stamp_ns < self.newest_ns
        if went_back:
            self.era += 1
            self._step_ns = 0
            self.newest_ns = None
        self._recent.clear()
        for entry in run:
            self._pass(entry)
        return Ruling(passed=run, refused=refused, went_back=went_back)

    def _pass(self, entry: Stamped[T]) -> None:
        if self.newest_ns is not None:
            self._step_ns = entry.stamp_ns - self.newest_ns
        self.newest_ns = entry.stamp_ns
        self._recent.append(entry.stamp_ns)
        while self._recent[0] <= entry.stamp_ns - self.rule.jump_ns:
            self._recent.popleft()

    def _let_go(self) -> tuple[Refusal[T], ...]:
        count = len(self._held)
        tail = f"; a jump is believed after {self.rule.images} in a row (time_jump_images), {count} came"
        refused = tuple(self._refusal(entry, tail if self._is_apart(entry.stamp_ns) else "") for entry in self._held)
        self._held.clear()
        return refused

    def _refusal(self, entry: Stamped[T], tail: str = "") -> Refusal[T]:
        """Why a stamp does not pass, with the distance from the newest one."""
        assert self.newest_ns is not None
        if entry.stamp_ns == self.newest_ns:
            return _same(entry)
        way = "ahead of" if entry.stamp_ns > self.newest_ns else "older than"
        apart = _duration(abs(entry.stamp_ns - self.newest_ns))
        late = "" if tail else ", too late"
        reason = f"stamp {entry.stamp_ns} ns is {apart} {way} the newest, {self.newest_ns} ns{late}{tail}"
        return Refusal(entry.stamp_ns, entry.item, reason)


def _same(entry: Stamped[T]) -> Refusal[T]:
    reason = f"stamp must be newer than the last image's, got the same {entry.stamp_ns} ns again"
    return Refusal(entry.stamp_ns, entry.item, reason)


def _duration(ns: int) -> str:
    """A time for people.

    >>> _duration(33_000_000), _duration(3_600_000_000_000)
    ('33 ms', '3600 s')
    """
    return f"{ns / NS_PER_S:.6g} s" if ns >= NS_PER_S else f"{ns / 1e6:.6g} ms"
