# SPDX-License-Identifier: Apache-2.0
"""The process of a node: from its arguments to its exit status."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from maskrnn_ros.ros.logs import library_logs_to


def run_node(
    name: str,
    make: Callable[[], Any],
    arguments: Sequence[str] | None = None,
    start: Callable[[Any], bool] = lambda node: True,
) -> int:
    """Run a node until SIGINT or SIGTERM.

    Args:
        name: Of the program, for what it says when it cannot start.
        make: Makes the node, which has ``close``; a ValueError ends the process with its text in one line.
        arguments: Of the process; None for those that it was started with.
        start: Called before the first callback; False where the node cannot run.

    Returns:
        Exit status: 1 where it could not start.
    """
    # Our own handlers: under launch a Ctrl-C arrives twice, and the second must not break the shutdown.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        with library_logs_to(name):
            return _spin(make(), start, stop)
    except (RuntimeError, ValueError) as error:  # of rcl, e.g. a parameter file that cannot be read; or of the node
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def _spin(node: Any, start: Callable[[Any], bool], stop: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not start(node):
            return 1
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.2)  # bounds how long a signal waits
        return 0
    finally:
        executor.shutdown()
        node.close()
