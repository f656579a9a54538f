# SPDX-License-Identifier: Apache-2.0
"""What the short-lived clients share: a node of their own, its QoS, and waiting for the other side."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from maskrnn_ros.msg import TrackerStatus

POLL_S = 0.05
"""Longest single wait in the middleware: what has no event there (a match, Ctrl-C) is seen this late."""


def reliable(depth: int, *, is_latched: bool = False) -> QoSProfile:
    """Reliable, keep last ``depth``; volatile, or latched (transient local) for late subscribers."""
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if is_latched else QoSDurabilityPolicy.VOLATILE,
    )


@contextlib.contextmanager
def client_node(name: str) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node in a context of its own, and the executor that spins it in the caller's thread.

    rclpy installs no signal handlers for it: Ctrl-C is a KeyboardInterrupt, as anywhere in Python.
    """
    context = Context()
    with _one_interrupt():
        rclpy.init(args=[], context=context)
        try:
            node = rclpy.create_node(name, context=context, enable_rosout=False, start_parameter_services=False)
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            try:
                yield node, executor
            finally:
                executor.shutdown()
                node.destroy_node()
        finally:
            rclpy.shutdown(context=context)


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """Ignore all SIGINT after the first: launch and timeout send it twice, and the second hits the cleanup."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    is_ours = threading.current_thread() is threading.main_thread()  # Python sets handlers nowhere else
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def spin_until(executor: SingleThreadedExecutor, is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Run callbacks until a condition holds; False where it does not within the time."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        executor.spin_once(timeout_sec=min(left, POLL_S))
    return True


def wait_for_subscribers(
    executor: SingleThreadedExecutor, publishers: Iterable[Any], timeout_s: float, count: int = 1
) -> None:
    """Wait until every publisher has a subscriber, or several.

    Args:
        executor: Spins meanwhile.
        publishers: rclpy publishers.
        timeout_s: Seconds, for all of them together.
        count: How many each of them needs.

    Raises:
        TimeoutError: One has fewer; the message names its topic.
    """
    deadline = time.monotonic() + timeout_s
    for publisher in publishers:

        def is_matched(publisher: Any = publisher) -> bool:
            return bool(publisher.get_subscription_count() >= count)

        if not spin_until(executor, is_matched, deadline - time.monotonic()):
            found = publisher.get_subscription_count()
            who = f"expected {count} subscribers of {publisher.topic_name}, found {found}"
            who = who if count > 1 else f"nobody subscribes to {publisher.topic_name}"
            raise TimeoutError(f"{who}; waited {timeout_s:g} s")


def wait_for_answers(
    node: Node, executor: SingleThreadedExecutor, topics: Iterable[str], tracker: str, timeout_s: float
) -> None:
    """Wait until the tracker's answers reach the subscriptions that ``node`` has made.

    That a publisher is seen does not mean that it sees us: its first messages may go by. Therefore, where
    the tracker publishes ``<tracker>/status``, one such message is waited for, on a subscription that is made
    last. Subscriptions are announced in order, so the earlier ones are known to the tracker then.

    Args:
        node: Has subscribed to the topics.
        executor: Spins meanwhile.
        topics: Topics of the answers.
        tracker: Name of the tracker's node, e.g. "/tracker".
        timeout_s: Seconds, for all of it together.

    Raises:
        TimeoutError: A topic has no publisher, or no status comes; the message names the topic.
    """
    deadline = time.monotonic() + timeout_s
    for topic in topics:

        def is_offered(topic: str = topic) -> bool:
            return bool(node.count_publishers(topic))

        if not spin_until(executor, is_offered, deadline - time.monotonic()):
            raise TimeoutError(f"nobody publishes {topic}; waited {timeout_s:g} s")
    status_topic = f"{tracker}/status"
    if not node.count_publishers(status_topic):
        return
    received: list[bytes] = []
    subscription = node.create_subscription(TrackerStatus, status_topic, received.append, reliable(1), raw=True)
    if not spin_until(executor, lambda: bool(received), deadline - time.monotonic()):
        raise TimeoutError(f"no message on {status_topic}; waited {timeout_s:g} s")
    node.destroy_subscription(subscription)
