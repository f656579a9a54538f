# SPDX-License-Identifier: Apache-2.0
"""What ~/status says beside the counts: which run, what it runs on, how old the newest image and step are."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from builtin_interfaces.msg import Time

from maskrnn_ros.limits import MAX_TEXT
from maskrnn_ros.sections import WatchdogConfig
from maskrnn_ros.tracker_node.health import Health
from maskrnn_ros.tracker_node.inbox import Inbox
from maskrnn_ros.tracker_node.worker import Snapshot


class Clock:
    """Monotonic time that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


def status(inbox: Inbox, health: Health | None = None, event: str = "", **seen: Any) -> Any:
    health = health or Health("cpu", "this run")
    return health.status(Time(), inbox=inbox, seen=Snapshot(**seen), event=event)


def test_ages_count_from_the_newest_image_and_the_newest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, inbox = Clock(monkeypatch), Inbox(1000)
    said = status(inbox)
    assert (said.image_age, said.step_age) == (-1, -1)
    inbox.put_image(SimpleNamespace(data=b"12"), 5)
    clock.now += 2
    assert (status(inbox).image_age, status(inbox).step_age) == (2, -1)
    clock.now += 3
    assert (status(inbox, published_s=101.0).image_age, status(inbox, published_s=101.0).step_age) == (5, 4)
    inbox.refuse_image(0)  # a camera that sends what cannot be used does send
    assert status(inbox).image_age == 0
    inbox.enabled = False
    clock.now += 1
    inbox.put_image(SimpleNamespace(data=b"12"), 6)
    assert status(inbox).image_age == 0


def test_queues_and_what_it_runs_on_are_said() -> None:
    inbox = Inbox(1000)
    for _ in range(3):
        inbox.put_request(lambda: None)
    inbox.take(0.0)
    seen = {
        "engine": "onnxruntime",
        "precision": "int8",
        "adaptation": "recursive",
        "session": 7,
    }
    said = status(inbox, **seen)
    assert said.requests_waiting == 2 and said.run_id == "this run" and said.device == "cpu"
    assert {name: getattr(said, name) for name in seen} == seen
    assert math.isnan(said.step_ms_p50)


def test_every_text_is_one_short_line_and_is_said_in_diagnostics_once_as_such() -> None:
    health = Health("cpu", "this run")
    health.refuse("request", "x" * 8_000_000 + "\nand more")
    said = status(Inbox(0), health, event="a\nb" + "y" * 1000)
    assert len(said.last_error) <= MAX_TEXT and said.last_error.endswith("more)")
    assert len(said.event) <= MAX_TEXT and said.event.startswith("a by")
    (entry,) = health.diagnostics("tracker", said, WatchdogConfig(), publishers=1).status
    assert max(len(value.value) for value in entry.values) <= MAX_TEXT and len(entry.message) <= MAX_TEXT
