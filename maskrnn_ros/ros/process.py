# SPDX-License-Identifier: Apache-2.0
"""The process of a node: from its arguments to its exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from maskrnn_ros.ros.ending import EXIT_CRASH, EXIT_NO_START, Ending
from maskrnn_ros.ros.guard import GuardedExecutor, Report
from maskrnn_ros.ros.logs import library_logs_to

_MAX_FAILURES = 20
"""Consecutive failures of the executor before the process gives up: a restart is better than a fault that stays."""
_PAUSE_S = 0.05
_POLL_S = 0.2


def run_node(
    name: str,
    make: Callable[[], Any],
    arguments: Sequence[str] | None = None,
    start: Callable[[Any], bool] = lambda node: True,
) -> int:
    """Run a node until SIGINT or SIGTERM; what a callback raises is reported and does not end it.

    A node has ``close``. It may have ``fault(where, error)``, which is told of exceptions in its callbacks;
    ``failure``, a line that says why it cannot go on; and ``is_working``: something of it still runs.

    Args:
        name: Of the program, for what it says when it cannot start.
        make: Makes the node; a ValueError or RuntimeError ends the process with its text in one line.
        arguments: Of the process; None for those that it was started with.
        start: Called before the first callback; False where the node cannot run.

    Returns:
        Exit status: 0 when asked to end, ``EXIT_NO_START``, or ``EXIT_CRASH`` where it could not go on or had to
        abandon what it was working on.
    """
    ending = Ending.installed()
    ending.begin(lambda: False)
    with library_logs_to(name):
        return _run(name, make, arguments, start, ending)


def _run(
    name: str,
    make: Callable[[], Any],
    arguments: Sequence[str] | None,
    start: Callable[[Any], bool],
    ending: Ending,
) -> int:
    node = None
    status = EXIT_NO_START
    try:
        # Without rclpy's own handlers: under launch a Ctrl-C arrives twice, and the second must not break the shutdown.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        ending.begin(lambda: _is_working(node))
        status = 0 if start(node) else EXIT_NO_START
    except (RuntimeError, ValueError) as error:  # of rcl, e.g. a parameter file that cannot be read; or of the node
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
    try:
        if status == 0:
            status = _spin(node, ending)
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return EXIT_CRASH if _is_working(node) else status


def _spin(node: Any, ending: Ending) -> int:
    report: Report = getattr(node, "fault", partial(_log_fault, node))
    executor = GuardedExecutor(report)
    executor.add_node(node)
    failures = 0
    try:
        while not ending.asked.is_set():
            try:
                executor.spin_once(timeout_sec=_POLL_S)  # bounds how long a signal waits
                failures = 0
            except Exception as error:  # of the executor itself: callbacks are guarded
                report("the executor", error)
                failures += 1
                ending.asked.wait(_PAUSE_S)
            if failures > _MAX_FAILURES or bool(getattr(node, "failure", "")):
                return EXIT_CRASH
        return 0
    finally:
        executor.shutdown()


def _is_working(node: Any) -> bool:
    return bool(getattr(node, "is_working", False))


def _log_fault(node: Any, where: str, error: Exception) -> None:
    line = f"internal error in {where}: {type(error).__name__}: {error}"
    node.get_logger().error(f"{line}\n{traceback.format_exc()}", throttle_duration_sec=1.0)
