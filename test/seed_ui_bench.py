# SPDX-License-Identifier: Apache-2.0
"""The seed editor beside the real tracker, its node in a thread of this process."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import world
from node_bench import NodeBench

import maskrnn_ros.tracker_node.node as node_module
from maskrnn_ros.seed_ui.node import editor


class SeedUi:
    """Use it in a ``with`` statement.

    Args:
        image_topic: See ``editor``.
        port: See ``editor``.
    """

    def __init__(self, image_topic: str = "", port: int = 0) -> None:
        self._arguments = ("/tracker", image_topic, port, 100.0)
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.url = ""
        self.port = 0

    def _run(self) -> None:
        try:
            with editor(*self._arguments) as (server, executor):
                self.server, self.url, self.port = server, server.url, server.server_port
                self._ready.set()
                while not self._stop.is_set():
                    executor.spin_once(timeout_sec=0.05)
        finally:
            self._ready.set()

    def __enter__(self) -> SeedUi:
        self._thread.start()
        self._ready.wait()
        assert self.url, "the editor did not start"
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def get(self, path: str) -> Any:
        """JSON of the server."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def mask(self, number: int, instance_id: int) -> list[int] | None:
        """Run lengths of an instance on a frame of the world; None while the editor has not got its masks."""
        try:
            return self.get(f"/api/mask?stamp={world.stamp_ns(number)}&id={instance_id}")["runs"]
        except urllib.error.HTTPError:
            return None

    @property
    def state(self) -> dict[str, Any]:
        """What the page is told."""
        return self.get("/api/state")

    def seed_of(self, token: str) -> dict[str, Any]:
        """What is said of a seed."""
        return next(seed for seed in self.state["seeds"] if seed["token"] == token)


def looks_at(bench: NodeBench, ui: SeedUi) -> None:
    """Wait until the editor takes the tracker's images and masks."""

    def is_ready() -> bool:
        ready = ui.state["image_topic"] != "" and bench.images.get_subscription_count() == 2
        return ready and bench.listeners("/tracker/instances") == 2

    bench.wait(is_ready)


def image(bench: NodeBench, ui: SeedUi, number: int) -> None:
    """Publish a frame; wait until the tracker and the editor have it."""
    bench.image(number)
    bench.wait(lambda: ui.mask(number, 1) is not None)


def requests_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The seeds and embedded images that the tracker takes from add_instances, as it reads them."""
    found: list[Any] = []
    read: Callable[..., Any] = node_module.seed_from_request

    def note(*arguments: Any, **named: Any) -> Any:
        found.append(read(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(node_module, "seed_from_request", note)
    return found
