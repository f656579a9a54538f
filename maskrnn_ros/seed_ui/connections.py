# SPDX-License-Identifier: Apache-2.0
"""A web server that no client can wear out: limits on connections and on the time that a request takes.

The standard library's server gives each connection a thread and waits for each byte anew.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from maskrnn_ros.limits import MAX_CONNECTIONS, MAX_REQUEST_S, text_line

_LOG = logging.getLogger(__name__)
_IDLE_S = 60.0
"""How long a connection may stay open between two requests."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
_MOST_FAULTS = 100


class LimitedServer(ThreadingHTTPServer):
    """Holds at most MAX_CONNECTIONS connections.

    One more takes the place of the one that has been silent, or sending its request, for the longest time; where all
    are being answered, it is refused. So slow clients do not keep others out.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[TimedHandler]) -> None:
        self._book = threading.Lock()
        self._waits_since: dict[Any, float | None] = {}  # by socket; None: is being answered
        self._faults: set[str] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give it a thread, or refuse it."""
        if self._has_room():
            with self._book:
                self._waits_since[request] = time.monotonic()
            super().process_request(request, client_address)
        else:
            with contextlib.suppress(OSError):
                request.sendall(_FULL)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """It is over."""
        with self._book:
            self._waits_since.pop(request, None)
        super().shutdown_request(request)

    def notes(self, request: Any, *, is_answered: bool) -> None:
        """Whether a connection waits for its client, or its client for us."""
        with self._book:
            if request in self._waits_since:  # else it had to make room
                self._waits_since[request] = None if is_answered else time.monotonic()

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._book:
            return len(self._waits_since)

    def _has_room(self) -> bool:
        """Whether one more may come; the one that has waited longest without a request is cut off for it."""
        with self._book:
            if len(self._waits_since) < MAX_CONNECTIONS:
                return True
            waiting = {request: since for request, since in self._waits_since.items() if since is not None}
            if not waiting:
                return False
            oldest = min(waiting, key=waiting.__getitem__)
            del self._waits_since[oldest]
        with contextlib.suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end and goes
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks says nothing; a fault of ours is told once, with its traceback."""
        error = sys.exc_info()[1]  # so the standard library hands it over
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.tell(error)

    def tell(self, error: BaseException) -> None:
        """Log a fault of ours, once for each kind and place."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "nowhere"
        kind = f"{type(error).__name__} at {where}"
        with self._book:
            is_new = kind not in self._faults and len(self._faults) < _MOST_FAULTS
            if is_new:
                self._faults.add(kind)
        if is_new:
            text = text_line(f"a request failed: {type(error).__name__}: {error}; told once")
            _LOG.error("%s", text, exc_info=error)


class TimedHandler(BaseHTTPRequestHandler):
    """A request has MAX_REQUEST_S to arrive, whatever comes of it meanwhile, and so has its answer to leave."""

    server: LimitedServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Read through a clock."""
        super().setup()
        self._arriving = _Timed(self.connection)
        self.rfile = io.BufferedReader(self._arriving)

    def handle_one_request(self) -> None:
        """Wait for a request, let it arrive in time, answer it."""
        self.close_connection = True
        self.server.notes(self.connection, is_answered=False)
        try:
            self._arriving.until(_IDLE_S)
            if not self.rfile.peek(1):  # type: ignore[attr-defined]
                return
            self._arriving.until(MAX_REQUEST_S)
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def has_arrived(self) -> None:
        """The request is whole: call it before the answer is made."""
        self.server.notes(self.connection, is_answered=True)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer; the client has to take it in time."""
        self.connection.settimeout(MAX_REQUEST_S)  # for all of what one call sends
        super().send_response(code, message)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A line for every request would say nothing."""

    def version_string(self) -> str:
        """Nothing that need be told."""
        return "maskrnn"


class _Timed(io.RawIOBase):
    """What a socket receives until a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end_s = 0.0

    def until(self, seconds: float) -> None:
        """From now."""
        self._end_s = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some bytes, 0 at the end.

        Raises:
            TimeoutError: The time is over.
        """
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"the request did not arrive within {MAX_REQUEST_S:g} s")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)
