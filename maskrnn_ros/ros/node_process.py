# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, and a thread that listens to it: what demo and online evaluation share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maskrnn_ros.installed import share_path
from maskrnn_ros.ros.qos import POLL_S, client_node, wait_for_answers

_START_TIMEOUT_S = 180.0
"""A node that ends is noticed at once. One that warms up while others take all cores may need a minute, not 3 s."""
_END_TIMEOUT_S = 10.0
_PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"


@contextlib.contextmanager
def child_process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that Ctrl-C does not reach; at the end it is asked to end as by Ctrl-C, and killed if it does not.

    Args:
        command: Program and arguments.
        options: Further arguments of ``subprocess.Popen``.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)  # Ctrl-C is ours to pass on
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # does nothing where it has ended and was waited for
        try:
            process.wait(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def node_command(namespace: str, *arguments: str) -> list[str]:
    """Command of a tracker ``<namespace>/tracker``.

    Args:
        namespace: Full name, e.g. "/maskrnn_demo": a robot's own tracker may run beside it.
        arguments: Further ROS arguments.
    """
    return [sys.executable, "-m", "maskrnn_ros.tracker_node", "--ros-args", "-r", f"__ns:={namespace}", *arguments]


class Listener:
    """Runs callbacks in a thread of its own while the node lives; use it in a ``with`` statement.

    Args:
        process: The node's process, just started.
        tracker: Name of the node, e.g. "/maskrnn_demo/tracker".
        subscribe: Makes subscriptions of the rclpy node that it is given; their callbacks run in the thread.

    Raises:
        RuntimeError: On entry: the node does not start.
    """

    def __init__(self, process: subprocess.Popen[bytes], tracker: str, subscribe: Callable[[Any], None]) -> None:
        self._process, self._tracker, self._subscribe = process, tracker, subscribe
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_until(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so; False where it is not within the time.

        Raises:
            RuntimeError: The node's process has ended.
            Exception: What a callback raised.
        """
        deadline = time.monotonic() + timeout_s
        while not is_done():
            if self._error is not None:
                raise self._error
            if self._process.poll() is not None:
                raise RuntimeError(f"the node ended with exit status {self._process.returncode}, see above")
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _run(self) -> None:
        try:
            with client_node("maskrnn_listener") as (node, executor):
                self._subscribe(node)
                self._wait_for_node(node, executor)
                self._ready.set()
                while not self._stop.is_set():
                    executor.spin_once(timeout_sec=POLL_S)
        except Exception as error:  # belongs to the thread that waits for us
            self._error = error
        finally:
            self._ready.set()

    def _wait_for_node(self, node: Any, executor: Any) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return wait_for_answers(node, executor, [f"{self._tracker}/instances"], self._tracker, 1.0)
            except TimeoutError as error:
                if self._process.poll() is not None:
                    status = self._process.returncode
                    raise RuntimeError(f"the node ended with exit status {status}, see above") from error
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the node did not start within {_START_TIMEOUT_S:g} s: {error}") from error


def use_large_segments() -> None:
    """Give Fast DDS room for large images, in this process before its first node and in those started later.

    With its default shared memory of 512 KB a publisher of 480p images loses most of them or sends them late, and the
    figures would be those of the transport. A profile that the user has set stays.
    """
    places = [Path(__file__).parents[2] / "config"]
    with contextlib.suppress(LookupError):
        places.append(share_path("maskrnn_ros") / "config")
    profile = next(
        (place / "fastdds_localhost.xml" for place in places if (place / "fastdds_localhost.xml").is_file()), None
    )
    if profile is not None:
        os.environ.setdefault(_PROFILES, str(profile))
