# SPDX-License-Identifier: Apache-2.0
"""`ros2 bag play`, held until everybody who listens is known to it: it waits for nobody by itself."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import yaml
from diagnostic_msgs.msg import DiagnosticArray

from maskrnn_ros.ros.qos import reliable

_PATIENCE_S = 60.0
_DEPTH = 20


class StockPlayer:
    """The command, started paused, and its release.

    Discovery takes seconds at times. The player goes on when we see its publishers, the tracker says that it sees one
    of its images, and the player has answered a call: publishers, subscriptions and services of two processes are
    announced in order, so whoever answers us knows the subscriptions that we made before.

    Args:
        namespace: That the player is put into; another one may run beside it.
        tracker: Name of the tracker's node.
        topics: Published topics that must be seen, that of the images first.

    Raises:
        ValueError: The services of rosbag2 are not installed.
    """

    def __init__(self, namespace: str, tracker: str, topics: tuple[str, ...]) -> None:
        try:
            self._resume = importlib.import_module("rosbag2_interfaces.srv").Resume  # comes with `ros2 bag`
        except ImportError as error:
            raise ValueError("--player ros2bag needs the package rosbag2_interfaces, found none") from error
        self._namespace, self._tracker, self._topics = namespace, tracker, topics
        self._is_seen = False
        self._answer: Any = None
        self._client: Any = None
        self._node: Any = None
        self._begin_s = time.monotonic()

    def command(self, arguments: list[str], rules: list[str], topics: list[str], scratch: Path) -> list[str]:
        """The command line.

        Args:
            arguments: The bag, and options that every player has.
            rules: FROM:=TO.
            topics: Topics of the bag to play.
            scratch: Folder for a file.
        """
        # it offers what was recorded, often best effort: large images would be lost on their way to us
        qos = scratch / "qos.yaml"
        offer = {"reliability": "reliable", "history": "keep_last", "depth": _DEPTH}
        qos.write_text(yaml.safe_dump({name: dict(offer) for name in topics}))
        options = ["--start-paused", "--disable-keyboard-controls", "--qos-profile-overrides-path", str(qos)]
        rules = [*rules, f"__ns:={self._namespace}"]
        return ["ros2", "bag", "play", *arguments, *options, "--topics", *topics, "--remap", *rules]

    def subscribe(self, node: Any) -> None:
        """Watch with a node whose other subscriptions are made already."""
        self._node = node
        self._begin_s = time.monotonic()
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable(_DEPTH))
        self._client = node.create_client(self._resume, f"{self._namespace}/rosbag2_player/resume")
        node.create_timer(0.1, self._look)

    def check(self) -> None:
        """Refuse to wait for ever.

        Raises:
            RuntimeError: The player has not been released in a minute.
        """
        if self._answer is None and time.monotonic() - self._begin_s > _PATIENCE_S:
            raise RuntimeError(f"the player was not ready within {_PATIENCE_S:g} s: {self._missing()}")

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.startswith(f"{self._tracker[1:]}:"):
                self._is_seen = any(v.key == "publishers" and v.value not in ("", "0") for v in status.values)

    def _missing(self) -> str:
        for topic in self._topics:
            if not self._node.count_publishers(topic):
                return f"nobody publishes {topic}"
        if not self._is_seen:
            return f"{self._tracker} sees no publisher of its images"
        return "" if self._client.service_is_ready() else f"no service {self._client.srv_name}"

    def _look(self) -> None:
        if self._answer is None and not self._missing():
            self._answer = self._client.call_async(self._resume.Request())
