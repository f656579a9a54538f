# SPDX-License-Identifier: Apache-2.0
"""Messages of several topics that belong together, by the synchronizers of the ROS package message_filters.

Two things about its Python classes decide how they are used here. They call back under a lock that they do not release
where something raises, so every stamp is checked before it goes in, and the callback only hands over. And they let go
of the message with the smallest stamp when a queue is full: after a jump back in time that is each new one, so at a
jump they are made anew. What a jump is, and that one late or one wild stamp is none, is said by ``StampOrder``: late
messages are paired as any other, for their counterparts may wait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.locator.locate import LocatorConfig
from maskrnn_ros.timeline import StampOrder, TimeRule


@dataclasses.dataclass
class Input:
    """What is known of one topic; received = matched + unmatched + len(waiting) + len(order.held).

    Args:
        filter: The message_filters.SimpleFilter through which its messages go.
        order: Judges its stamps.
        waiting: Messages that the synchronizer holds, by stamp: the same as in its queue.
        jumps: Up to which jump in time this topic has come.
    """

    filter: Any
    order: StampOrder[Any]
    waiting: dict[int, Any] = dataclasses.field(default_factory=dict)
    jumps: int = 0
    received: int = 0
    matched: int = 0
    unmatched: int = 0

    def forget(self) -> None:
        """Let go of all that waits."""
        self.unmatched += len(self.waiting)
        self.waiting.clear()


class Pairing:
    """Feeds a synchronizer and keeps count. All calls come from one thread.

    Args:
        filters: The module message_filters.
        names: One for each topic.
        matched: Called with one message of each topic, under the synchronizer's lock: it must not raise.
        queue_size: Messages of a topic that wait.
        slop_s: None for equal stamps, else how far apart they may lie, seconds.
        rule: What a jump in time is.
    """

    def __init__(
        self,
        filters: Any,
        names: Sequence[str],
        matched: Callable[..., None],
        *,
        queue_size: int,
        slop_s: float | None = None,
        rule: TimeRule | None = None,
    ) -> None:
        self._filters, self._matched = filters, matched
        self._queue_size, self._slop_s = queue_size, slop_s
        self.jumps = 0
        rule = rule or TimeRule.of(LocatorConfig())
        self.inputs = {name: Input(filters.SimpleFilter(), StampOrder(rule)) for name in names}
        self._connect()

    def put(self, name: str, message: Any) -> tuple[str, ...]:
        """Take a message; a match is handed over before this returns.

        Returns:
            Why messages of this topic are refused, a line each.

        Raises:
            ValueError: Its stamp is none.
        """
        stamp_ns = stamp_to_ns(message.header.stamp)
        source = self.inputs[name]
        source.received += 1
        ruling = source.order.put(stamp_ns, message, is_known=self._has_jumped_to(stamp_ns, source))
        if ruling.went_back:
            self._jump(source)
        refused = []
        for refusal in ruling.refused:
            if source.order.is_near(refusal.stamp_ns):
                self._feed(source, refusal.stamp_ns, refusal.item)
            else:
                source.unmatched += 1
                refused.append(refusal.reason)
        for entry in ruling.passed:
            self._feed(source, entry.stamp_ns, entry.item)
        return tuple(refused)

    def _has_jumped_to(self, stamp_ns: int, source: Input) -> bool:
        """Whether another topic has jumped to that time already: the masks come long after their images."""
        ahead = [other for other in self.inputs.values() if other.jumps > source.jumps]
        return any(other.order.is_near(stamp_ns) for other in ahead)

    def _feed(self, source: Input, stamp_ns: int, message: Any) -> None:
        source.unmatched += stamp_ns in source.waiting  # the synchronizer, too, keeps the newer of two
        source.waiting[stamp_ns] = message
        while len(source.waiting) > self._queue_size:
            del source.waiting[min(source.waiting)]
            source.unmatched += 1
        source.filter.signalMessage(message)

    def explain(self, name: str) -> str:
        """Why messages of a topic wait, by the newest of them: how far the nearest ones of the other topics are."""
        newest = self.inputs[name].order.newest_ns or 0
        lines = []
        for other, source in self.inputs.items():
            if other == name:
                continue
            nearest = min(source.waiting, key=lambda stamp: abs(stamp - newest), default=None)
            if not source.received:
                lines.append(f"no {other} has come")
            elif nearest is None:
                lines.append(f"no {other} waits")
            else:
                lines.append(f"the nearest {other} is {(nearest - newest) / 1e6:+.3f} ms off")
        return ", ".join(lines)

    def _jump(self, source: Input) -> None:
        """Forget what is from before a jump.

        The topics reach a jump one after the other. The first makes all forget; a later one forgets its own messages
        only, since what waits on the first is new.
        """
        if source.jumps == self.jumps:
            self.jumps += 1
            for each in self.inputs.values():
                each.forget()
        else:
            source.forget()
        source.jumps = self.jumps
        self._connect()

    def _connect(self) -> None:
        """A new synchronizer, which is given what waits."""
        for source in self.inputs.values():
            source.filter = self._filters.SimpleFilter()
        sources = [source.filter for source in self.inputs.values()]
        if self._slop_s is None:
            synchronizer = self._filters.TimeSynchronizer(sources, self._queue_size)
        else:
            synchronizer = self._filters.ApproximateTimeSynchronizer(sources, self._queue_size, self._slop_s)
        synchronizer.registerCallback(self._on_match)
        for source in self.inputs.values():
            for message in list(source.waiting.values()):
                source.filter.signalMessage(message)

    def _on_match(self, *messages: Any) -> None:
        for source, message in zip(self.inputs.values(), messages, strict=True):
            if source.waiting.pop(stamp_to_ns(message.header.stamp), None) is not None:
                source.matched += 1
        self._matched(*messages)
