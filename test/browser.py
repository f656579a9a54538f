# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium, driven over a pipe by its DevTools protocol: real mouse and key events, no driver to install."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Browser:
    """One page; use it in a ``with`` statement.

    Args:
        width: Of the window, CSS pixels.
        height: Likewise.
        touch: A touch screen.
    """

    def __init__(self, width: int = 1280, height: int = 800, touch: bool = False) -> None:
        self._size = (width, height)
        self._touch = touch
        self._numbers = itertools.count(1)
        self._rest = b""
        self.problems: list[str] = []

    def __enter__(self) -> Browser:
        program = find_chromium()
        assert program is not None
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; the shell puts ours there
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = [*_FLAGS, f"--user-data-dir={self._home.name}"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        width, height = self._size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=self._touch
        )
        if self._touch:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._home.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; returns its result."""
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["source"] == "security":
            self.problems.append(parameters["entry"]["text"])

    # --- what a person does ---

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState == 'complete' && location.href.startsWith({json.dumps(url)})")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, meanwhile: Callable[[], Any] = lambda: time.sleep(0.02)) -> None:
        """Until an expression in the page holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"waited in vain for {expression}: {self.problems}"
            meanwhile()

    def mouse(self, kind: str, x: float, y: float, button: str = "left", **more: Any) -> None:
        """One mouse event: mousePressed, mouseMoved or mouseReleased."""
        pressed = {"left": 1, "right": 2}[button] if kind != "mouseReleased" and more.pop("held", True) else 0
        clicks = 0 if kind == "mouseMoved" else 1
        shown = button if pressed or clicks else "none"
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=shown, buttons=pressed, clickCount=clicks, **more
        )

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Move there and click."""
        self.mouse("mouseMoved", x, y, held=False)
        self.mouse("mousePressed", x, y, button)
        self.mouse("mouseReleased", x, y, button)

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place, move over the others, release at the last."""
        self.mouse("mouseMoved", *places[0], held=False)
        self.mouse("mousePressed", *places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", *place)
        self.mouse("mouseReleased", *places[-1])

    def tap(self, x: float, y: float) -> None:
        """Touch the screen."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, selector: str) -> None:
        """Click the middle of an element."""
        place = f"JSON.stringify(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        box = json.loads(self.js(place))
        self.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def key(self, key: str, code: int = 0, control: bool = False) -> None:
        """Press and release a key."""
        modifiers = 2 if control else 0
        text = {"text": key} if len(key) == 1 and not control else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code or ord(key[0].upper()),
                modifiers=modifiers,
                **(text if kind == "keyDown" else {}),
            )

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, kind: str = "png", quality: int | None = None) -> bytes:
        """The page as it is seen."""
        more = {} if quality is None else {"quality": quality}
        return base64.b64decode(self.call("Page.captureScreenshot", format=kind, **more)["data"])
