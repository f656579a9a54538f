# SPDX-License-Identifier: Apache-2.0
"""What we use of the ROS package message_filters, for machines without it: same names, same rules, traps included."""

from __future__ import annotations

import itertools
import threading
from typing import Any


def _ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class SimpleFilter:
    def __init__(self) -> None:
        self.callbacks: list[tuple[Any, tuple[Any, ...]]] = []

    def registerCallback(self, callback: Any, *arguments: Any) -> None:  # noqa: N802
        self.callbacks.append((callback, arguments))

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802
        for callback, arguments in self.callbacks:
            callback(*messages, *arguments)


class TimeSynchronizer(SimpleFilter):
    """Hands over what has one stamp; the smallest stamp leaves a full queue."""

    def __init__(self, filters: list[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.queues: list[dict[int, Any]] = [{} for _ in filters]
        self.lock = threading.Lock()
        for index, each in enumerate(filters):
            each.registerCallback(self.add, index)

    def add(self, message: Any, index: int) -> None:
        assert self.lock.acquire(timeout=5), "a callback raised: the lock is held for ever"
        queue = self.queues[index]
        queue[_ns(message)] = message
        while len(queue) > self.queue_size:
            del queue[min(queue)]
        self._match(_ns(message), index)
        self.lock.release()  # not in a finally: neither does message_filters

    def _match(self, stamp: int, index: int) -> None:
        if all(stamp in queue for queue in self.queues):
            self.signalMessage(*[queue[stamp] for queue in self.queues])
            for queue in self.queues:
                del queue[stamp]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Hands over the first set around the new message whose stamps lie less than ``slop`` seconds apart."""

    def __init__(self, filters: list[SimpleFilter], queue_size: int, slop: float) -> None:
        super().__init__(filters, queue_size)
        self.slop_ns = round(slop * 1e9)

    def _match(self, stamp: int, index: int) -> None:
        if stamp not in self.queues[index]:
            return
        near = [sorted(queue, key=lambda other: abs(other - stamp)) for queue in self.queues]
        near[index] = [stamp]
        for stamps in itertools.product(*near):
            if max(stamps) - min(stamps) < self.slop_ns:
                self.signalMessage(*[queue[s] for queue, s in zip(self.queues, stamps, strict=True)])
                for queue, s in zip(self.queues, stamps, strict=True):
                    del queue[s]
                return
