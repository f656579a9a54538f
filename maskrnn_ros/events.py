# SPDX-License-Identifier: Apache-2.0
"""What happened to the instances between two images: their changes of state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from maskrnn_ros.types import InstanceState, Track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One instance changed its state.

    Args:
        session: Number of the session that the id belongs to.
        instance_id: Public id, >= 1.
        name: Its name on the image, may be empty.
        before: State on the previous image; None where it was not there.
        after: State on this image.
    """

    session: int
    instance_id: int
    name: str
    before: InstanceState | None
    after: InstanceState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What an image said of its instances, as far as the next image is compared with it.

    Args:
        session: Number of the session.
        instances: Name and state by id; removed ones are left out.
    """

    session: int = 0
    instances: Mapping[int, tuple[str, InstanceState]] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(session: int, tracks: tuple[Track, ...]) -> Seen:
        """What these tracks say."""
        alive = {t.instance_id: (t.name, t.state) for t in tracks if t.state != InstanceState.REMOVED}
        return Seen(session=session, instances=alive)


def changes(before: Seen, session: int, tracks: tuple[Track, ...]) -> tuple[Event, ...]:
    """Changes of state from one published image to the next, those of an ended session first, then by ascending id.

    A reset removes all instances: they are said to be REMOVED in the session that they belonged to, and the ids are
    free again.

    Args:
        before: What the previous image said; ``Seen()`` before the first.
        session: Number of the session of this image.
        tracks: Its tracks, removed ones included.
    """
    same = before.session == session
    known = before.instances if same else {}
    events = [
        Event(session=session, instance_id=t.instance_id, name=t.name, before=_state(known, t), after=t.state)
        for t in tracks
        if _state(known, t) != t.state
    ]
    said = {t.instance_id for t in tracks} if same else set()
    gone = [
        Event(session=before.session, instance_id=i, name=name, before=state, after=InstanceState.REMOVED)
        for i, (name, state) in before.instances.items()
        if i not in said
    ]
    return tuple(sorted([*gone, *events], key=lambda event: (event.session != before.session, event.instance_id)))


def _state(known: Mapping[int, tuple[str, InstanceState]], track: Track) -> InstanceState | None:
    return known[track.instance_id][1] if track.instance_id in known else None
