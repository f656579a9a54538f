# SPDX-License-Identifier: Apache-2.0
"""A seed on its way: how it came, where it is, what is decided of it and what became of it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from maskrnn_ros.tracking.ids import Admission
from maskrnn_ros.tracking.prompted import AnySeed
from maskrnn_ros.types import Frame

if TYPE_CHECKING:
    from maskrnn_ros.tracking.seeding import Seeding


class SeedStatus(enum.IntEnum):
    """What became of a seed; the values are those of ``SeedResult.status``."""

    PENDING = 1
    APPLIED = 2
    REJECTED = 3


class SeedState(enum.Enum):
    """Where a seed is on its way."""

    ARRIVED = "admitted, and not taken by the session yet"
    WAITING = "waits for its image, or for the next one"
    IN_DOUBT = "has a verdict, which stands unless time jumps with the next image"
    TWIN = "is the same as another that is open, and shares its outcome"
    STARTED = "has started on its image, and catches up where that is not the newest"
    OVER = "has its outcome: there is never another"


@dataclasses.dataclass(eq=False, kw_only=True)
class SeedRequest:
    """A seed that was admitted, on its way.

    Args:
        ticket: Given back with the outcome; the node puts here what its client knows the seed by.
        admission: The seed, its ids settled; a new session gives it another one.
        arrived: Clock of the session at its arrival, seconds.
        frame: Gives the image that the seed was drawn on, where the client or a drop left one at hand; asked only
            where the stream has it not, or a prompt is to be cut on it. A ValueError rejects the seed.

    The rest is the queue's: ``state``; ``deadline_s``, when it is given up if it waits; ``verdict``, of one in doubt;
    ``twin_of``, whose outcome it shares; ``is_told``, whether it was said to be pending; ``work``, what has started.
    """

    ticket: object
    admission: Admission[AnySeed]
    arrived: float
    frame: Callable[[], Frame] | None = None
    state: SeedState = dataclasses.field(default=SeedState.ARRIVED, init=False)
    deadline_s: float = dataclasses.field(default=0.0, init=False)
    verdict: tuple[SeedStatus, str] | None = dataclasses.field(default=None, init=False)
    twin_of: SeedRequest | None = dataclasses.field(default=None, init=False)
    is_told: bool = dataclasses.field(default=False, init=False)
    work: Seeding | None = dataclasses.field(default=None, init=False)

    @property
    def seed(self) -> AnySeed:
        """With its final ids."""
        return self.admission.seed

    @property
    def stamp_ns(self) -> int:
        """Of the image that it belongs to, ns; 0 = the next image."""
        return self.admission.seed.stamp_ns

    @property
    def waits(self) -> bool:
        """Whether an image, or its time, decides what comes of it."""
        return self.state in (SeedState.WAITING, SeedState.IN_DOUBT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOutcome:
    """What became of a seed request; the fields are those of ``SeedResult``."""

    ticket: object
    status: SeedStatus
    reason: str
    ids: tuple[int, ...]
    session: int
    frames_used: int
    duration_s: float


@dataclasses.dataclass(frozen=True)
class Start:
    """Decided: start the seed on its image, the newest one where its stamp is 0."""

    request: SeedRequest


@dataclasses.dataclass(frozen=True)
class Tell:
    """Decided: tell whoever sent the seed."""

    request: SeedRequest
    status: SeedStatus
    reason: str
    ids: tuple[int, ...]
    frames_used: int = 0

    def outcome(self, session: int, now: float) -> SeedOutcome:
        """What is told, by the number of the session and its clock in seconds."""
        return SeedOutcome(
            ticket=self.request.ticket,
            status=self.status,
            reason=self.reason,
            ids=self.ids,
            session=session,
            frames_used=self.frames_used,
            duration_s=now - self.request.arrived,
        )


Decision: TypeAlias = Start | Tell


@dataclasses.dataclass(frozen=True)
class Stream:
    """What of the stream is at hand.

    Args:
        newest_ns: Stamp of the newest image processed, ns; None: none yet.
        stamps: Of the images held, ns, ascending.
        replays: Whether late seeds are run again with all instances.
        replays_from_ns: From which image on their states are held for that, ns; None: from none.
    """

    newest_ns: int | None = None
    stamps: tuple[int, ...] = ()
    replays: bool = False
    replays_from_ns: int | None = None

    @property
    def oldest_ns(self) -> int | None:
        """Stamp of the oldest image held, ns."""
        return self.stamps[0] if self.stamps else None

    def nearest(self, stamp_ns: int) -> int:
        """The stamp held that is nearest to that one; some are held."""
        return min(self.stamps, key=lambda held: abs(held - stamp_ns))

    def held(self, stamp_ns: int) -> str:
        """What is held, for people, about a seed of that stamp."""
        if self.newest_ns is None or not self.stamps:
            return "no image is held"
        nearest = f", nearest is {self.nearest(stamp_ns)}" if stamp_ns else ""
        since = f", instances' states from {self.replays_from_ns} on" if self.replays else ""
        return f"held are {len(self.stamps)} images from {self.stamps[0]} to {self.newest_ns}{nearest}{since}"

    def not_held(self, stamp_ns: int) -> str:
        """That an image is not held, for people."""
        return f"the image with stamp {stamp_ns} is not held (too old, or dropped); {self.held(stamp_ns)}"
