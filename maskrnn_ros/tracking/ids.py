# SPDX-License-Identifier: Apache-2.0
"""Which ids a session has given out."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, TypeVar

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.prompted import AnySeed, SeedT
from maskrnn_ros.types import MAX_INSTANCE_ID

_SeedT_co = TypeVar("_SeedT_co", bound=AnySeed, covariant=True)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """What a seed is remembered by: no mask, for an hour of seeds has hundreds of them.

    Args:
        ids: Its final ids.
        given: Those of them that the book gave, in this order.
    """

    ids: tuple[int, ...]
    given: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Admission(Generic[_SeedT_co]):
    """A seed whose ids are settled.

    Args:
        original: The seed as it came.
        seed: The seed with its final ids.
        added: Those of its ids that were not live before.
        known: What it, or the very same seed that came before, is remembered by.
        is_duplicate: Whether the very same seed came before and its instances are live.
        epoch: Which session of the book it belongs to.
    """

    original: _SeedT_co
    seed: _SeedT_co
    added: tuple[int, ...]
    known: Known
    is_duplicate: bool
    epoch: int


class IdBook:
    """Settles ids when a request arrives, so that a service can answer at once.

    It knows ids alone. The ``SeedQueue`` holds the seeds, and confirms or releases each admission once.

    A live id is corrected, an unknown one is added, one that was removed in this session is refused. Only a label mask
    whose non-zero values are all 255 gets the next free id, and so does every prompt of id 0. The same seed (stamp
    and content) twice is applied once, as long as its instances live. An id is live from its admission on; a seed that
    is rejected leaves the book as if it had never come. The book is used by the callbacks and by the worker, hence its
    lock; nothing in it waits.
    """

    _KNOWN = 256  # seeds that are remembered so as to be known again

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._tracked: set[int] = set()
        self._pending: Counter[int] = Counter()  # of how many seeds that wait
        self._removed: set[int] = set()
        self._known: OrderedDict[tuple[int, bytes], Known] = OrderedDict()

    @property
    def live(self) -> tuple[int, ...]:
        """Ids that are tracked or wait to be, ascending."""
        with self._lock:
            return tuple(sorted(self._live))

    @property
    def _live(self) -> set[int]:
        return (self._tracked | self._pending.keys()) - self._removed

    @property
    def removed(self) -> frozenset[int]:
        """Ids that were removed in this session."""
        with self._lock:
            return frozenset(self._removed)

    @property
    def used(self) -> frozenset[int]:
        """Ids that live or were removed in this session."""
        with self._lock:
            return frozenset(self._live | self._removed)

    def take_up(self, tracked: Iterable[int], used: Iterable[int]) -> None:
        """Begin with ids of an earlier process: those that are tracked, and those that may not be given again."""
        with self._lock:
            self._tracked = set(tracked)
            self._removed = set(used) - self._tracked

    def admit(self, original: SeedT, config: Config) -> Admission[SeedT]:
        """Settle the ids of a seed.

        Raises:
            ValueError: An id was removed in this session, does not fit, or there would be too many instances.
        """
        key = _key(original)
        with self._lock:
            former = self._known.get(key)
            if former is not None and self._live.issuperset(former.ids):
                as_before = former.given
                again = original.settled(lambda _: iter(as_before))
                return self._admission(original, again, (), former, is_duplicate=True)
            given: list[int] = []

            def free(beside: Collection[int]) -> Iterator[int]:
                for i in self._free(largest_id(config), beside):
                    given.append(i)
                    yield i

            seed = original.settled(free)
            added = self._check(set(seed.ids), config)
            self._pending.update(seed.ids)
            known = self._known[key] = Known(ids=tuple(seed.ids), given=tuple(given))
            while len(self._known) > self._KNOWN:
                self._known.popitem(last=False)
            return self._admission(original, seed, added, known)

    def _admission(
        self, original: SeedT, seed: SeedT, added: tuple[int, ...], known: Known, is_duplicate: bool = False
    ) -> Admission[SeedT]:
        return Admission(
            original=original,
            seed=seed,
            added=added,
            known=known,
            is_duplicate=is_duplicate,
            epoch=self._epoch,
        )

    def is_current(self, admission: Admission[AnySeed]) -> bool:
        """Whether the admission is of this session of the book."""
        with self._lock:
            return admission.epoch == self._epoch

    def knows(self, admission: Admission[AnySeed]) -> bool:
        """Whether the seed that this one repeats was not rejected meanwhile."""
        with self._lock:
            return self._known.get(_key(admission.original)) is admission.known

    def _check(self, ids: set[int], config: Config) -> tuple[int, ...]:
        """Those of the ids that are new, ascending; refuses removed ones, too large ones, too many."""
        gone = sorted(ids & self._removed)
        if gone:
            raise ValueError(f"id {gone} was removed in this session; ids are not reused, expected a new one")
        largest, live = largest_id(config), self._live
        if max(ids) > largest:
            raise ValueError(f"ids must be <= {largest} with label_encoding {config.label_encoding}, got {max(ids)}")
        added = ids - live
        if len(live) + len(added) > config.max_instances:
            raise ValueError(
                f"expected at most {config.max_instances} instances (max_instances), got {len(added)} new ones "
                f"beside {len(live)}"
            )
        return tuple(sorted(added))

    def _free(self, largest: int, given: Collection[int]) -> Iterator[int]:
        """Ids that this session has not used and the seed does not give, the next ones first.

        Raises:
            ValueError: There are no more.
        """
        used = self._live | self._removed | set(given)
        following = max(used, default=0) + 1
        yield from (i for i in itertools.chain(range(following, largest + 1), range(1, largest + 1)) if i not in used)
        raise ValueError(
            f"expected a free id, all of 1..{largest} were used in this session: call ~/reset to begin a new one"
        )

    def left(self, config: Config) -> int:
        """How many ids this session has not used yet."""
        with self._lock:
            return largest_id(config) - len(self._live | self._removed)

    def confirm(self, admission: Admission[AnySeed]) -> None:
        """The seed was applied: its ids are tracked now.

        One for "the next image" may be given again from now on: the next image is another one then.
        """
        with self._lock:
            if admission.epoch == self._epoch:
                self._end(admission)
                self._tracked |= set(admission.seed.ids) - self._removed
                if admission.seed.stamp_ns == 0:
                    self._known.pop(_key(admission.original), None)

    def release(self, admission: Admission[AnySeed]) -> None:
        """The seed was rejected: its ids are free again, unless they are tracked or another seed waits with them."""
        with self._lock:
            if admission.epoch == self._epoch:
                self._end(admission)
                if self._known.get(_key(admission.original)) is admission.known and not admission.is_duplicate:
                    del self._known[_key(admission.original)]

    def _end(self, admission: Admission[AnySeed]) -> None:
        if not admission.is_duplicate:  # the other counts
            self._pending -= Counter(admission.seed.ids)  # drops what is 0

    def check(self, ids: Iterable[int]) -> None:
        """Refuse ids that could not be removed.

        Raises:
            ValueError: One of them is not live, or none is given.
        """
        with self._lock:
            self._check_live(set(ids))

    def remove(self, ids: Iterable[int]) -> None:
        """Take out live ids for the rest of the session.

        Raises:
            ValueError: One of them is not live, or none is given; none is removed then.
        """
        with self._lock:
            self._check_live(set(ids))
            self._take_out(set(ids))

    def drop(self, ids: Iterable[int]) -> None:
        """Take out ids, live or not."""
        with self._lock:
            self._take_out(set(ids))

    def _check_live(self, ids: set[int]) -> None:
        live = self._live
        unknown = sorted(ids - live)
        if unknown or not ids:
            raise ValueError(f"ids to remove must be among {sorted(live)}, got {unknown or 'none'}")

    def _take_out(self, ids: set[int]) -> None:
        self._tracked -= ids
        self._removed |= ids
        # their seeds cannot come again
        self._known = OrderedDict((k, known) for k, known in self._known.items() if ids.isdisjoint(known.ids))

    def clear(self) -> None:
        """A new session: every id is free again."""
        with self._lock:
            self._epoch += 1
            self._tracked.clear()
            self._pending.clear()
            self._removed.clear()
            self._known.clear()


def largest_id(config: Config) -> int:
    """The largest id that ``~/label_image`` can hold."""
    return 255 if config.label_encoding == "mono8" else MAX_INSTANCE_ID


def _key(seed: AnySeed) -> tuple[int, bytes]:
    """Stamp and content, as a digest: seeds may be many and large."""
    digest = hashlib.blake2b(digest_size=16)
    for part in seed.content():
        digest.update(part)
    return seed.stamp_ns, digest.digest()
