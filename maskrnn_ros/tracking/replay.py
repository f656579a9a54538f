# SPDX-License-Identifier: Apache-2.0
"""All instances again from the image of a late seed on, where they learn from each other."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from maskrnn_ros.tracking.buffer import FrameBuffer, Held
from maskrnn_ros.tracking.moment import Marking, Moment
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Frame


class Replay:
    """Brings a tracker to where it would be if a seed had come in time, array for array.

    The tracker as it was on the image of the seed is held in the buffer. Its twin begins there with the seed and then
    does again, in their order, all that was done since: removals, frames, other seeds. The tracker itself stays as it
    is until ``commit``, so that a fault on the way costs the seed and nothing else.

    Args:
        tracker: On the newest frame.
        buffer: What was done since.
        stamp_ns: Of the seed's image; where that is none of the stream's the seed enters on the next one.

    Raises:
        ValueError: What was on that image is not held.
    """

    def __init__(self, tracker: Tracker, buffer: FrameBuffer, stamp_ns: int) -> None:
        self._begin = _beginning(buffer, stamp_ns)
        assert self._begin.moment is not None
        self.tracker = tracker.twin(self._begin.moment, self._begin.frame)
        self.frames_used = 0
        self._marking: Marking | None = None
        self._moments: dict[int, Moment] = {}

    @property
    def states(self) -> Mapping[int, InstanceMemory]:
        """The seed's instances, as far as the replay has come."""
        ids = self._marking.ids if self._marking is not None else ()
        return MappingProxyType({i: self.tracker.states[i] for i in ids if i in self.tracker.states})

    @property
    def corrected(self) -> frozenset[int]:
        """Those of them that were marked again on a later image."""
        begun = self._moments[self._begin.stamp_ns].states
        return frozenset(i for i, state in self.states.items() if state.seeded_ns > begun[i].seeded_ns)

    @property
    def frame(self) -> PreparedFrame:
        """Where the replay is."""
        assert self.tracker.newest is not None
        return self.tracker.newest

    def mark(self, marking: Marking, states: Mapping[int, InstanceMemory]) -> None:
        """Take in the late seed, with the states that begin by it."""
        self._marking = marking
        self.frames_used += marking.drawn_on is not None
        self.tracker.adopt(states)
        self._moments[self.frame.stamp_ns] = self.tracker.moment

    def is_done(self, tracker: Tracker) -> bool:
        """Whether the twin is on the tracker's newest frame."""
        return self.frame is tracker.newest

    def step(self, tracker: Tracker, buffer: FrameBuffer) -> None:
        """Go to the next frame."""
        self._leave(buffer)
        following = buffer.following(self.frame.stamp_ns, 1)
        self.tracker.advance(following.frame)
        for marking in following.markings:
            self.tracker.adopt(marking.begun(self.tracker))
        self._moments[following.stamp_ns] = self.tracker.moment
        self.frames_used += 1

    def commit(self, tracker: Tracker, buffer: FrameBuffer, published: Frame | None) -> None:
        """Make the tracker what the twin is, and hold what is to be held of the way.

        Args:
            tracker: On the frame where the replay has ended.
            buffer: As before.
            published: The newest image, where its masks were published already.
        """
        assert self._marking is not None
        newest = self.tracker.moment
        if published is not None:
            self._leave(buffer, published)
        for stamp_ns, moment in {**self._moments, self.frame.stamp_ns: newest}.items():
            held = buffer.held(stamp_ns)
            assert held is not None
            held.moment = moment
        self._begin.markings.append(self._marking)
        tracker.become(self.tracker)

    def _leave(self, buffer: FrameBuffer, image: Frame | None = None) -> None:
        """What was done on a frame after its seeds: its masks were merged, and instances removed.

        By the merge it is counted how long nothing was seen of an instance; where the working image is smaller than the
        image as it came, of which only the newest is at hand, without the refinement.
        """
        held = buffer.held(self.frame.stamp_ns)
        assert held is not None
        as_it_came = held.frame.image if held.frame.size == held.frame.size_of_work else None
        self.tracker.tracks(image.image if image is not None else as_it_came)
        self.tracker.remove(held.removed & self.tracker.states.keys())


def _beginning(buffer: FrameBuffer, stamp_ns: int) -> Held:
    """The frame on which a seed enters.

    A frame that was not held any more may lie between the image of a seed and the oldest frame that is; where that is
    the newest, too, the seed waited for it.
    """
    newest, first = buffer.newest, buffer.replays_from_ns
    assert newest is not None
    held = buffer.held(stamp_ns) or (buffer.following(stamp_ns, 1) if stamp_ns < newest.stamp_ns else newest)
    is_oldest = buffer.oldest is held.frame and held is not newest
    if held.moment is None or (is_oldest and stamp_ns < held.stamp_ns):
        since = "none are held yet" if first is None else f"the oldest held are of {first}"
        raise ValueError(
            f"all instances would have to be run again from the image with stamp {stamp_ns} (catch_up.mode exact), "
            f"and their states there are not held: {since}"
        )
    return held
