# SPDX-License-Identifier: Apache-2.0
"""The web server of the seed editor, without ROS: who is answered, what is refused, and what goes in and out."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import world

import maskrnn_ros.seed_ui.recent as frames_module
import maskrnn_ros.seed_ui.server as server_module
from maskrnn_ros.overlay import colour
from maskrnn_ros.prompts import GrabCut, Point, Prompt, UnsureError
from maskrnn_ros.seed_ui.pictures import Scene, mask_of, picture, runs_of
from maskrnn_ros.seed_ui.recent import FrameStore
from maskrnn_ros.seed_ui.server import SeedServer
from maskrnn_ros.types import Box

STAMP = 1_700_000_000_123_456_789  # more than a number of JavaScript holds
PAGE = Path(server_module.__file__).parent / "page"
JSON = {"Content-Type": "application/json"}


class FakeLink:
    """A tracker that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.touched = 0
        self.refusal: Exception | None = None

    def touch(self) -> None:
        self.touched += 1

    def state(self) -> dict[str, Any]:
        return {"trouble": ""}

    def wait(self, after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        return None if after_ns == STAMP else STAMP

    def freeze(self, stamp_ns: int) -> None:
        self.asked.append(("freeze", stamp_ns))

    def image(self, stamp_ns: int) -> np.ndarray:
        if stamp_ns != STAMP:
            raise ValueError("not held")
        return world.image(0)

    def scene(self, stamp_ns: int) -> Scene | None:
        boxes = {i: Box.of_mask(world.labels(0) == i) for i in (1, 2)}
        return Scene(labels=world.labels(0), titles={1: "1 cup"}, boxes=boxes)

    def seed(self, stamp_ns: int, mask: np.ndarray, target: int, name: str) -> dict[str, Any]:
        if self.refusal:
            raise self.refusal
        self.asked.append(("seed", stamp_ns, mask, target, name))
        return {"token": "t"}

    def remove(self, instance_id: int) -> None:
        self.asked.append(("remove", instance_id))

    def reset(self) -> None:
        self.asked.append(("reset",))


class Client:
    def __init__(self, server: SeedServer) -> None:
        self.server, self.link = server, server.link

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {**(JSON if method == "POST" else {}), **(headers or {})})
        self.answer = connection.getresponse()
        found = self.answer.read()
        connection.close()
        is_json = self.answer.headers.get_content_type() == "application/json"
        return self.answer.status, json.loads(found) if is_json else found

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def client() -> Iterator[Client]:
    with SeedServer(FakeLink(), GrabCut(), port=0, rate=100.0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


# --- who is answered ---


@pytest.mark.parametrize(
    ("path", "length"),
    [("http://[/", "{}"), ("/api/reset", "9" * 5000), ("/", "-{}")],
    ids=["path", "length", "negative"],
)
def test_what_a_refused_request_sends_along_is_no_request(client: Client, path: str, length: str) -> None:
    along = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=30) as connection:
        connection.sendall(f"{head}{length.format(len(along))}\r\n\r\n".encode() + along)
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 ") == 1 and answers.startswith(b"HTTP/1.1 400 ")


def test_it_listens_on_the_loopback_address_only(client: Client) -> None:
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):  # another address of this machine
        socket.create_connection(("127.0.0.2", client.server.server_port), timeout=5)


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST", "127.0.0.1:9000", "[::1]:8765"])
def test_a_tunnel_may_end_at_any_port(client: Client, host: str) -> None:
    assert client.get("/api/state", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "", "a@localhost"]
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/api/frame"])
def test_a_foreign_name_that_points_here_is_refused(client: Client, host: str, path: str) -> None:
    status, said = client.get(path, Host=host)
    assert status == 403
    assert "Host must be localhost" in said["error"]
    assert client.link.touched == 0


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"Origin": "http://evil.example"}, "Origin"),
        ({"Origin": "null"}, "Origin"),
        ({"Origin": "http://localhost:1"}, "Origin"),  # another server of this machine
        ({"Origin": "https://localhost:8765", "Host": "localhost:8765"}, "Origin"),
        ({"Sec_Fetch_Site": "cross-site"}, "Sec-Fetch-Site"),
        ({"Sec_Fetch_Site": "same-site"}, "Sec-Fetch-Site"),
        ({"Content_Type": "text/plain"}, "Content-Type"),
        ({"Content_Type": "application/x-www-form-urlencoded"}, "Content-Type"),
    ],
)
@pytest.mark.parametrize("path", ["/api/reset", "/api/remove", "/api/seed"])
def test_a_post_of_another_page_changes_nothing(client: Client, headers: dict[str, str], word: str, path: str) -> None:
    status, said = client.post(path, {"id": 1}, **headers)
    assert (status, word in said["error"]) == (403, True)
    assert client.link.asked == []


def test_another_page_cannot_load_pictures(client: Client) -> None:
    assert client.get("/api/frame", Sec_Fetch_Site="cross-site")[0] == 403


def test_our_own_page_is_answered(client: Client) -> None:
    own = {"Host": "localhost:9000", "Origin": "http://localhost:9000", "Sec_Fetch_Site": "same-origin"}
    assert client.post("/api/reset", {}, **own) == (200, {})
    assert client.link.asked == [("reset",)]


def test_the_page_is_whole_and_asks_for_nothing_elsewhere(client: Client) -> None:
    names = {file.name for file in PAGE.iterdir()}
    assert {"index.html", "app.js", "style.css"} <= names
    for name in names:
        status, data = client.get(f"/{name}")
        assert (status, data) == (200, (PAGE / name).read_bytes())
        assert "default-src 'self'" in client.answer.headers["Content-Security-Policy"]
        links = set(re.findall(rb"\w+://[^\s\"'`]+", data))
        assert links <= {b"http://www.w3.org/2000/svg"}
        for used in re.findall(r"(?:from |href=|src=)\"(?:\./)?([\w.]+)\"", data.decode()):
            assert used in names
    assert client.get("/")[1] == (PAGE / "index.html").read_bytes()


@pytest.mark.parametrize("path", ["/../server.py", "/%2e%2e/server.py", "/server.py", "//etc/passwd", "/api/none"])
def test_nothing_else_is_served(client: Client, path: str) -> None:
    assert client.get(path)[0] == 404


# --- what is asked ---


def test_a_seed_arrives_to_the_pixel(client: Client) -> None:
    mask = world.labels(0) == 2
    body = {"stamp": str(STAMP), "runs": runs_of(mask), "target": 3, "name": " cup "}
    assert client.post("/api/seed", body) == (200, {"token": "t"})
    ((kind, stamp_ns, sent, target, name),) = client.link.asked
    assert (kind, stamp_ns, target, name) == ("seed", STAMP, 3, "cup")
    assert np.array_equal(sent, mask)


PIXELS = world.HEIGHT * world.WIDTH


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"runs": [5, PIXELS - 6]}, "must sum"),
        ({"runs": [PIXELS]}, "draw the object first"),
        ({"runs": []}, "must sum"),
        ({"runs": [0, -1, PIXELS + 1]}, "runs must be"),
        ({"runs": [0, float("nan")]}, "runs must be"),
        ({"runs": [False, PIXELS]}, "runs must be"),
        ({"runs": "many"}, "runs must be"),
        ({"stamp": "7"}, "not held"),
        ({"stamp": "-1"}, "stamp must be"),
        ({"stamp": None}, "stamp must be"),
        ({"target": -1}, "target must be"),
        ({"target": 70000}, "target must be"),
        ({"name": 3}, "name must be"),
        ({"name": "x" * 65}, "name must have at most 64 characters, got 65"),
    ],
)
def test_a_bad_seed_is_refused_in_words(client: Client, change: dict[str, Any], word: str) -> None:
    body = {"stamp": str(STAMP), "runs": [0, PIXELS], "target": 0, "name": "", **change}
    status, said = client.post("/api/seed", body)
    assert (status, word in said["error"]) == (400, True), said
    assert client.link.asked == []


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("id 3 was removed"), 400), (ConnectionError("nobody serves it"), 503)]
)
def test_the_trackers_words_reach_the_page(client: Client, error: Exception, status: int) -> None:
    client.link.refusal = error
    body = {"stamp": str(STAMP), "runs": [0, PIXELS]}
    assert client.post("/api/seed", body) == (status, {"error": str(error)})


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(client: Client, body: bytes) -> None:
    assert client.post("/api/remove", body)[0] == 400


def test_a_body_that_is_too_large_is_not_read(client: Client) -> None:
    assert client.post("/api/remove", b"{}", Content_Length="8000001")[0] == 400


def test_a_box_becomes_the_mask_of_the_prompt_backend(client: Client) -> None:
    body = {"stamp": str(STAMP), "box": [15.2, 15, 50, 45], "points": [[30.5, 30, 1], [17, 17, 0]]}
    status, said = client.post("/api/prompt", body)
    points = (Point(x=30.5, y=30), Point(x=17, y=17, on_object=False))
    expected = GrabCut()(world.image(0), Prompt(box=Box(15, 15, 50, 45), points=points))
    assert status == 200
    assert expected.any()
    assert np.array_equal(mask_of(said["runs"], world.HEIGHT, world.WIDTH), expected)


def test_a_preview_waits_for_no_turn(client: Client) -> None:
    body = {"stamp": str(STAMP), "points": [[30.5, 30, 1]]}
    expected = client.post("/api/prompt", body)
    assert client.post("/api/prompt", {**body, "preview": True}) == expected
    with client.server.one_prompt:  # somebody has clicked
        assert client.post("/api/prompt", {**body, "preview": True}) == (200, {"runs": None, "unsure": ""})
    for wrong in ({"stamp": "7"}, {"points": [[9999, 9999, 1]]}, {"points": []}):
        assert client.post("/api/prompt", {**body, "preview": True, **wrong})[0] == 400
    assert client.post("/api/prompt", body) == expected, "a refused one leaves the turn to others"


def test_the_backend_is_warmed_up_and_its_faults_are_left_to_the_clicks(client: Client) -> None:
    seen = []
    client.server.prompts = lambda image, prompt: seen.append(prompt) or 1 / 0
    client.server.warm()
    assert len(seen) == 1 and not client.server.one_prompt.locked()


def test_points_mend_the_mask_that_was_there(client: Client) -> None:
    mask = world.labels(0) == 1
    body = {"stamp": str(STAMP), "points": [[100.5, 70, 1]], "runs": runs_of(mask)}
    status, said = client.post("/api/prompt", body)
    expected = GrabCut()(world.image(0), Prompt(points=(Point(x=100.5, y=70),), mask=mask))
    assert status == 200 and (expected & mask).any() and (expected & ~mask).any()
    assert np.array_equal(mask_of(said["runs"], world.HEIGHT, world.WIDTH), expected)
    assert client.post("/api/prompt", {**body, "runs": [5]})[0] == 400


def test_a_mask_that_the_backend_does_not_believe_in_is_shown_and_said_to_be_unsure() -> None:
    mask = world.labels(0) == 1

    def unsure(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        raise UnsureError(mask, 0.3, 0.5)

    with SeedServer(FakeLink(), unsure, port=0, rate=100.0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            status, said = Client(server).post("/api/prompt", {"stamp": str(STAMP), "points": [[30.5, 30, 1]]})
        finally:
            server.shutdown()
            thread.join()
    assert (status, said["unsure"]) == (200, "unsure (0.30, below 0.5): click again or draw")
    assert np.array_equal(mask_of(said["runs"], world.HEIGHT, world.WIDTH), mask)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"points": [[1, 2, 0]]},
        {"points": [[500, 2, 1]]},
        {"points": [[1, 2]]},
        {"points": [[1, 2, "1"]]},
        {"points": [[10**400, 2, 1]]},
        {"box": [10, 10, 10, 20]},
        {"box": [10, 10, 1e300, 20]},
        {"box": "all"},
    ],
)
def test_a_bad_prompt_is_refused(client: Client, body: dict[str, Any]) -> None:
    assert client.post("/api/prompt", {"stamp": str(STAMP), **body})[0] == 400


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_the_frame_comes_with_its_stamp_and_size(client: Client) -> None:
    status, data = client.get("/api/frame?after=0")
    assert (status, client.answer.headers["X-Stamp"], client.answer.headers["X-Size"]) == (200, str(STAMP), "128x96")
    assert np.abs(decoded(data) - world.image(0)).mean() < 6  # it is a JPEG
    assert client.get(f"/api/frame?after={STAMP}")[0] == 204
    assert decoded(client.get("/api/frame?width=64")[1]).shape == (48, 64, 3)


def test_masks_are_drawn_in_the_colours_of_the_overlay() -> None:
    flat = np.full((world.HEIGHT, world.WIDTH, 3), 100, np.uint8)
    scene = Scene(labels=world.labels(0), titles={}, boxes={})
    shown = decoded(picture(flat, scene))
    inner = (slice(24, 36), slice(24, 40))  # of instance 1
    assert np.abs(shown[inner] - (100 + np.asarray(colour(1))) / 2).max() < 12
    assert np.abs(decoded(picture(flat, scene.without(1)))[inner] - 100).max() < 12


def test_the_mask_of_an_instance_is_given(client: Client) -> None:
    _, said = client.get(f"/api/mask?stamp={STAMP}&id=2")
    assert np.array_equal(mask_of(said["runs"], world.HEIGHT, world.WIDTH), world.labels(0) == 2)


# --- the frames that are held ---


def test_the_newest_frame_with_masks_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(frames_module.time, "monotonic", lambda: now[0])
    store = FrameStore()
    for stamp_ns in (10, 20, 30):
        store.put_image(stamp_ns, b"image")
    assert store.wait(0, True, 0).stamp_ns == 30  # there are no masks at all
    store.put_instances(20, b"masks")
    assert store.wait(0, True, 0).stamp_ns == 20
    assert store.wait(20, True, 0) is None
    assert store.wait(0, False, 0).stamp_ns == 30
    now[0] = 3.0
    store.put_image(40, b"image")
    assert store.wait(0, True, 0).stamp_ns == 40  # masks that late are not waited for


def test_masks_that_come_before_their_image_belong_to_it() -> None:
    store = FrameStore()
    store.put_instances(10, b"masks")
    assert store.wait(0, True, 0) is None
    store.put_image(10, b"image")
    assert store.wait(0, True, 0).instances == b"masks"


def test_a_frozen_frame_outlives_the_others_and_a_jump_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "_KEEP_BYTES", 40)
    monkeypatch.setattr(frames_module, "_SHOWN_BYTES", 20)
    store = FrameStore()
    for stamp_ns in range(1, 30):
        store.put_image(stamp_ns, b"0123456789")
        store.wait(0, False, 0)
        if stamp_ns == 5:
            store.freeze(5)
    assert store.at(29).stamp_ns == 29
    with pytest.raises(ValueError, match="stamp 10 ns is not held"):
        store.at(10)
    for stamp_ns in (3, 4, 6):
        assert store.wait(29, False, 0) is None
        store.put_image(stamp_ns, b"again")
    assert store.wait(29, False, 0).stamp_ns == 6
    with pytest.raises(ValueError, match="not held"):
        store.at(29)
    assert store.at(5).image == b"0123456789"
