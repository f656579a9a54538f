# SPDX-License-Identifier: Apache-2.0
"""The web server of the seed editor: the page, and a small JSON interface to the tracker.

The standard library's server is enough, on this machine only: the limits that it lacks are in `connections`.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskrnn_ros.limits import MAX_POINTS, check_name, quoted, text_line
from maskrnn_ros.prompts import Point, Prompt, PromptBackend, UnsureError
from maskrnn_ros.seed_ui.access import HEADERS, Forbidden, check
from maskrnn_ros.seed_ui.connections import LimitedServer, TimedHandler
from maskrnn_ros.seed_ui.live import Frames, LivePictures
from maskrnn_ros.seed_ui.pictures import mask_of, runs_of
from maskrnn_ros.types import BoolArray, Box

_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_WAIT_S = 1.0
"""How long a request for a new picture waits for one."""
_LARGEST_BODY = 8_000_000
_WARM = 64
"""Side of the picture that the backend warms up on, pixels."""


class _Late(ValueError):
    """The request did not arrive in time."""


class Link(Frames, Protocol):
    """The tracker as the web server sees it. Methods are called from several threads.

    A ValueError is a refusal, a ConnectionError says that the tracker is not there; the page shows both.
    """

    def touch(self) -> None:
        """Somebody looks: images are wanted."""

    def state(self) -> dict[str, Any]:
        """What the page shows beside the picture, for JSON."""

    def freeze(self, stamp_ns: int) -> None:
        """Keep that frame for drawing."""

    def seed(self, stamp_ns: int, mask: BoolArray, target: int, name: str) -> dict[str, Any]:
        """Add (target 0) or correct an instance; returns ``token``, by which ``state`` says what became of it."""

    def remove(self, instance_id: int) -> None:
        """Remove an instance."""

    def reset(self) -> None:
        """Forget all instances."""


class SeedServer(LimitedServer):
    """Listens on 127.0.0.1.

    Args:
        link: The tracker.
        prompts: Makes masks of boxes and points.
        port: 0: any free one; see ``url``.
        rate: Most frames a second; each is drawn and encoded once for all pages.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, link: Link, prompts: PromptBackend, port: int = 8765, rate: float = 10.0) -> None:
        self.link = link
        self.prompts = prompts
        self.one_prompt = threading.Lock()  # they take a core each: one after the other
        self.pictures = LivePictures(link, rate)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise OSError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}; --port takes another") from error

    def warm(self) -> None:
        """Let the backend read what it needs, so that the first click need not wait for it."""
        with self.one_prompt, contextlib.suppress(Exception):  # whatever is wrong, a click says it
            self.prompts(np.zeros((_WARM, _WARM, 3), np.uint8), Prompt(points=(Point(x=_WARM / 2, y=_WARM / 2),)))

    def server_bind(self) -> None:
        """Without the look at the name service that HTTPServer makes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://localhost:{self.server_port}"


class _Handler(TimedHandler):
    server: SeedServer

    def do_GET(self) -> None:
        self._answer(is_post=False)

    def do_POST(self) -> None:
        self._answer(is_post=True)

    def _answer(self, *, is_post: bool) -> None:
        self._rest = is_post  # what was sent along and not read would be taken for the next request
        try:
            self._route(is_post)
        except Forbidden as error:
            self.close_connection = True  # what was sent along is not read
            self._send_json({"error": text_line(str(error))}, HTTPStatus.FORBIDDEN)
        except _Late as error:
            self.close_connection = True
            self._send_json({"error": str(error)}, HTTPStatus.REQUEST_TIMEOUT)
        except ValueError as error:
            self.close_connection |= self._rest
            self._send_json({"error": text_line(str(error))}, HTTPStatus.BAD_REQUEST)
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError):
            self.close_connection = True  # the page was closed
        except (ConnectionError, TimeoutError) as error:
            self._send_json({"error": text_line(str(error))}, HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception as error:  # a fault of ours: the page hears of it, the connection ends
            self.server.tell(error)
            self.close_connection = True
            text = "a fault of the seed editor; its log tells more"
            self._send_json({"error": text}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _route(self, is_post: bool) -> None:
        url = urllib.parse.urlsplit(self.path)
        is_api = url.path.startswith("/api/")
        check(self.headers, is_api=is_api, is_post=is_post)
        body = self._body() if is_post else {}
        self.has_arrived()
        if not is_api:
            self._send_file(url.path)
            return
        self.server.link.touch()
        routes: dict[str, Callable[[dict[str, Any]], None]] = _POST if is_post else _GET
        route = routes.get(url.path)
        if route is None:
            self._send_json({"error": f"there is no {quoted(url.path)}"}, HTTPStatus.NOT_FOUND)
        else:
            query = dict(urllib.parse.parse_qsl(url.query))
            route(self, body if is_post else query)  # type: ignore[call-arg, arg-type]

    def _body(self) -> dict[str, Any]:
        """The JSON object that a request brings."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 20 or int(length) > _LARGEST_BODY:
            raise ValueError(
                f"Content-Length must lie in 0..{_LARGEST_BODY}, got {quoted(length) if length else 'none'}"
            )
        try:
            data = self.rfile.read(int(length))
            self._rest = False
        except TimeoutError as error:
            raise _Late(str(error)) from error
        try:
            found = json.loads(data)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"expected JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"expected a JSON object, got {type(found).__name__}")
        return found

    # --- what is asked for ---

    def get_state(self, query: dict[str, Any]) -> None:
        self._send_json(self.server.link.state())

    def get_frame(self, query: dict[str, Any]) -> None:
        pictures, with_masks = self.server.pictures, query.get("masks") == "1"
        hidden, width = _whole(query, "without", 0, 0, 65535), _whole(query, "width", 0, 0, 10_000)
        if "stamp" in query:
            stamp_ns: int | None = _stamp(query, "stamp")
        else:
            stamp_ns = pictures.newest(_stamp(query, "after", 0), with_masks, _WAIT_S)
        if stamp_ns is None:
            self._send(b"", "image/jpeg", HTTPStatus.NO_CONTENT)
            return
        data, size = pictures.jpeg(stamp_ns, with_masks, hidden, width)
        self._send(data, "image/jpeg", extra={"X-Stamp": str(stamp_ns), "X-Size": size})

    def get_mask(self, query: dict[str, Any]) -> None:
        stamp_ns, instance_id = _stamp(query, "stamp"), _whole(query, "id", None, 1, 65535)
        scene = self.server.link.scene(stamp_ns)
        if scene is None:
            raise ValueError("the tracker has said nothing of this image")
        self._send_json({"runs": runs_of(scene.labels == instance_id)})

    def post_freeze(self, body: dict[str, Any]) -> None:
        stamp_ns = _stamp(body, "stamp")
        self.server.link.freeze(stamp_ns)
        height, width = self.server.link.image(stamp_ns).shape[:2]
        self._send_json({"stamp": str(stamp_ns), "width": width, "height": height})

    def post_prompt(self, body: dict[str, Any]) -> None:
        is_preview = body.get("preview", False) is True
        if not self.server.one_prompt.acquire(blocking=not is_preview):  # what rests on the picture waits for no turn
            self._send_json({"runs": None, "unsure": ""})
            return
        unsure = ""
        try:
            image = self.server.link.image(_stamp(body, "stamp"))
            mask = self.server.prompts(image, _prompt(body, (image.shape[0], image.shape[1])))
        except UnsureError as error:  # whoever looks at it may know better
            mask, unsure = error.mask, str(error)
        finally:
            self.server.one_prompt.release()
        self._send_json({"runs": runs_of(mask), "unsure": unsure})

    def post_seed(self, body: dict[str, Any]) -> None:
        stamp_ns = _stamp(body, "stamp")
        height, width = self.server.link.image(stamp_ns).shape[:2]
        mask = mask_of(body.get("runs", []), height, width)
        if not mask.any():
            raise ValueError("expected a mask of one pixel or more, got an empty one: draw the object first")
        name = body.get("name", "")
        if not isinstance(name, str):
            raise ValueError(f"name must be a text, got {type(name).__name__}")
        check_name(name.strip())
        target = _whole(body, "target", 0, 0, 65535)
        self._send_json(self.server.link.seed(stamp_ns, mask, target, name.strip()))

    def post_remove(self, body: dict[str, Any]) -> None:
        self.server.link.remove(_whole(body, "id", None, 1, 65535))
        self._send_json({})

    def post_reset(self, body: dict[str, Any]) -> None:
        self.server.link.reset()
        self._send_json({})

    # --- answers ---

    def _send_file(self, path: str) -> None:
        known = {f"/{file.name}": file for file in _PAGE.iterdir() if file.suffix in _TYPES}
        file = known.get("/index.html" if path == "/" else path)
        if file is None:
            self._send_json({"error": f"there is no {quoted(path)}"}, HTTPStatus.NOT_FOUND)
        else:
            self._send(file.read_bytes(), f"{_TYPES[file.suffix]}; charset=utf-8")

    def _send_json(self, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(
        self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, extra: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(extra or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


_GET: dict[str, Any] = {
    "/api/state": _Handler.get_state,
    "/api/frame": _Handler.get_frame,
    "/api/mask": _Handler.get_mask,
}
_POST: dict[str, Any] = {
    "/api/freeze": _Handler.post_freeze,
    "/api/prompt": _Handler.post_prompt,
    "/api/seed": _Handler.post_seed,
    "/api/remove": _Handler.post_remove,
    "/api/reset": _Handler.post_reset,
}


def _whole(values: dict[str, Any], name: str, default: int | None, low: int, high: int) -> int:
    value = values.get(name, default)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}, got {quoted(value)}")
    return value


def _stamp(values: dict[str, Any], name: str, default: int | None = None) -> int:
    """A stamp, ns; as text, since JavaScript's numbers do not hold them."""
    return _whole(values, name, default, 0, 2**62)


def _prompt(body: dict[str, Any], size: tuple[int, int]) -> Prompt:
    """Box and points, and the run lengths of the mask on the image (H, W) that they mend, if there is one."""
    box, points = body.get("box"), body.get("points", [])
    if not isinstance(points, list) or len(points) > MAX_POINTS or not all(_numbers(point, 3) for point in points):
        raise ValueError(f"points must be at most {MAX_POINTS} of [x, y, 1 or 0]")
    if box is not None and not _numbers(box, 4):
        raise ValueError("box must be [x0, y0, x1, y1], or null")
    return Prompt(
        box=None if box is None else Box(*(round(value) for value in box)),
        points=tuple(Point(x=x, y=y, on_object=bool(on)) for x, y, on in points),
        mask=None if body.get("runs") is None else mask_of(body["runs"], *size),
    )


def _numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # neither inf nor NaN passes, and an integer of 400 digits, which is no float, can be compared
        and all(type(value) in (int, float) and abs(value) < 1e6 for value in values)
    )
