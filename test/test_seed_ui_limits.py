# SPDX-License-Identifier: Apache-2.0
"""The web server of the seed editor under clients that are slow, many, gone or wrong."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import world
from test_seed_ui import STAMP, Client, FakeLink

import maskrnn_ros.seed_ui.connections as connections
import maskrnn_ros.seed_ui.live as live
from maskrnn_ros.prompts import GrabCut
from maskrnn_ros.seed_ui.live import LivePictures
from maskrnn_ros.seed_ui.pictures import Scene
from maskrnn_ros.seed_ui.server import SeedServer

HANG_S = 60


@pytest.fixture
def client() -> Iterator[Client]:
    with SeedServer(FakeLink(), GrabCut(), port=0, rate=100.0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


def connect(client: Client, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", client.server.server_port), timeout=HANG_S)
    connection.sendall(data)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


HEAD = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n"


# --- connections ---


def test_slow_clients_do_not_keep_others_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    slow = [connect(client, HEAD) for _ in range(40)]
    assert client.get("/api/state") == (200, {"trouble": ""})
    assert client.server.connections <= 8
    for oldest in slow[:32]:  # had to make room, without an answer
        assert all_of(oldest) == b""
    slow[-1].sendall(b"Connection: close\r\n\r\n")  # the newest may still be whole
    assert all_of(slow[-1]).startswith(b"HTTP/1.1 200")
    for connection in slow:
        connection.close()


def test_one_more_than_can_be_answered_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    asked, answer = threading.Semaphore(0), threading.Event()

    def state() -> dict[str, str]:
        asked.release()
        assert answer.wait(HANG_S)
        return {"trouble": ""}

    monkeypatch.setattr(client.link, "state", state)
    busy = [connect(client, HEAD + b"Connection: close\r\n\r\n") for _ in range(3)]
    for _ in busy:
        assert asked.acquire(timeout=HANG_S)
    with connect(client, b"") as more:
        assert all_of(more).startswith(b"HTTP/1.1 503 ")
    answer.set()
    for connection in busy:
        assert all_of(connection).startswith(b"HTTP/1.1 200")
        connection.close()


# --- time ---


def test_bytes_now_and_then_do_not_hold_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = connections._Timed(ours)
        reader.until(10.0)
        for _ in range(3):
            theirs.sendall(b"x")
            assert reader.readinto(bytearray(8)) == 1
            now[0] += 4.0
        theirs.sendall(b"x")
        with pytest.raises(TimeoutError, match="did not arrive within 10 s"):
            reader.readinto(bytearray(8))


def test_a_head_that_does_not_come_ends_the_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_REQUEST_S", 0.2)
    with connect(client, HEAD) as connection:
        assert all_of(connection) == b""


def test_a_body_that_does_not_come_is_answered_with_408(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_REQUEST_S", 0.2)
    head = b"POST /api/reset HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with connect(client, head + b"{") as connection:
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")
    assert client.link.asked == []


def test_an_answer_that_is_not_taken_ends_the_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_REQUEST_S", 0.2)
    monkeypatch.setattr(client.link, "state", lambda: {"trouble": "x" * 30_000_000})
    with connect(client, HEAD + b"\r\n"):
        deadline = threading.Event()
        for _ in range(HANG_S * 20):
            if client.link.touched and client.server.connections == 0:
                break
            deadline.wait(0.05)
        assert client.server.connections == 0


# --- logs ---


def test_a_connection_that_breaks_says_nothing(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (b"", b"GET /api/st", HEAD, HEAD + b"\r\n"):
        connection = connect(client, data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # with a reset
    assert client.get("/api/state")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_ours_is_answered_and_told_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, str]:
        raise KeyError("height")

    monkeypatch.setattr(client.link, "state", broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            status, said = client.get("/api/state")
            assert (status, said) == (500, {"error": "a fault of the seed editor; its log tells more"})
    (record,) = caplog.records
    assert "KeyError: 'height'" in record.getMessage() and record.exc_info is not None
    assert client.get("/index.html")[0] == 200


# --- one picture for all pages ---


class Frames:
    """A new frame at each look."""

    def __init__(self) -> None:
        self.looks, self.decoded = 0, 0
        self.scenes: list[Scene | None] = []

    def wait(self, after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        self.looks += 1
        return self.looks

    def image(self, stamp_ns: int) -> np.ndarray:
        self.decoded += 1
        return world.image(0)

    def scene(self, stamp_ns: int) -> Scene | None:
        return self.scenes.pop(0) if self.scenes else None


def test_twenty_pages_share_one_picture(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    inside = threading.Event()

    def slowly(image: np.ndarray, scene: Scene | None, width: int) -> bytes:
        drawn.append(width)
        assert inside.wait(HANG_S)
        return b"jpeg %d" % width

    monkeypatch.setattr(live, "picture", slowly)
    with ThreadPoolExecutor(20) as pages:
        asked = [pages.submit(client.get, f"/api/frame?after=0&masks=1&width={620 + i}") for i in range(20)]
        while client.server.connections < 20:
            assert not any(page.done() for page in asked)
        inside.set()
        assert {page.result(HANG_S) for page in asked} == {(200, b"jpeg 640")}
    assert drawn == [640]  # windows of about the same size share it, too


def test_each_page_gets_each_frame_but_not_more_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, naps = [50.0], []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(live.time, "sleep", sleep)
    frames = Frames()
    pictures = LivePictures(frames, rate=10.0)
    has = [0, 0, 0]
    for turn in (1, 2, 3):
        for page in range(3):
            has[page] = pictures.newest(has[page], True, 1.0)
        assert has == [turn] * 3 and frames.looks == turn
    assert naps == pytest.approx([0.1, 0.1])


def test_pages_that_wait_for_a_frame_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, inside, go = Frames(), threading.Event(), threading.Event()

    def wait(after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        inside.set()
        assert go.wait(HANG_S)
        return None

    monkeypatch.setattr(frames, "wait", wait)
    pictures = LivePictures(frames, rate=10.0)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(pictures.newest, 0, True, 1.0)
        assert inside.wait(HANG_S)
        assert pictures.newest(0, True, 0.01) is None  # while the first still waits
        go.set()
        assert first.result(HANG_S) is None


def test_masks_that_come_late_are_drawn_and_a_correction_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    frames = Frames()
    marked = Scene(labels=world.labels(0), titles={}, boxes={})
    frames.scenes = [None, marked, marked.without(1)]
    pictures = LivePictures(frames, rate=10.0)

    def jpeg() -> bytes:
        return pictures.jpeg(STAMP, True, 0, 0)[0]

    bare, drawn = jpeg(), jpeg()
    assert bare != drawn == jpeg() and frames.decoded == 2
    now[0] += 1.1
    assert jpeg() not in (bare, drawn) and frames.decoded == 3


def test_a_frame_that_is_gone_is_an_error_for_who_asks_and_is_not_kept(client: Client) -> None:
    for _ in range(2):
        status, said = client.get(f"/api/frame?stamp={STAMP + 1}")
        assert (status, said) == (400, {"error": "not held"})
    assert client.get(f"/api/frame?stamp={STAMP}")[0] == 200
