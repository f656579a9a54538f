# SPDX-License-Identifier: Apache-2.0
"""The node changes its level of quality by what images take, or when it is told to, and says so."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import world
from node_bench import NodeBench
from test_node import set_parameter

from maskrnn_ros.config import Config
from maskrnn_ros.msg import InstanceMask
from maskrnn_ros.ros.images import stamp_to_ns
from maskrnn_ros.tracking import PreparedFrame, Tracker, build_tracker, latency

SIDE = 5  # the world at 640x480, beyond the sizes of all levels
QUICK = {
    "network__enabled": False,
    "adaptation__method": "none",
    "buffer__megabytes": 100,
}


class Slow:
    """Builds real trackers that take their time, at sizes beyond the smallest, while ``is_slow``."""

    def __init__(self) -> None:
        self.is_slow = True

    def build(self, config: Config) -> Tracker:
        tracker = build_tracker(config)
        advance = tracker.advance

        def slow(frame: PreparedFrame) -> None:
            if self.is_slow and frame.image.shape[1] > 384:
                time.sleep(0.7)
            advance(frame)

        tracker.advance = slow  # type: ignore[method-assign]
        return tracker


def large(picture: np.ndarray, method: int) -> np.ndarray:
    return cv2.resize(picture, (picture.shape[1] * SIDE, picture.shape[0] * SIDE), interpolation=method)


class Stream:
    """Images of the world to and fro, without end."""

    def __init__(self, bench: NodeBench) -> None:
        self._bench = bench
        self._numbers = iter(self._to_and_fro())
        self._count = 0

    @staticmethod
    def _to_and_fro() -> Iterator[int]:
        while True:
            yield from range(8)
            yield from reversed(range(1, 7))

    def image(self) -> list[object]:
        """Publish the next image and wait for its masks: the instances."""
        stamp_ns = world.stamp_ns(self._count)
        self._count += 1
        picture = large(world.image(next(self._numbers)), cv2.INTER_LINEAR)
        self._bench.publish(self._bench.images, picture, "rgb8", stamp_ns)
        found = self._bench.instances
        self._bench.wait(lambda: found and stamp_to_ns(found[-1].header.stamp) == stamp_ns)
        return list(found[-1].instances)

    def until(self, event: str, most: int = 150) -> None:
        """Go on until a status tells of an event; all instances must be seen all the while."""
        for _ in range(most):
            instances = self.image()
            assert [(one.id, one.state) for one in instances] == [(i, InstanceMask.STATE_TRACKING) for i in (1, 2)]
            if any(status.event.startswith(event) for status in self._bench.statuses):
                return
        raise AssertionError(f"no event {event!r} in {[s.event for s in self._bench.statuses if s.event]}")


def levels(bench: NodeBench) -> tuple[str, str]:
    return details(bench)["quality"], details(bench)["working_size"]


def details(bench: NodeBench) -> dict[str, str]:
    return {entry.key: entry.value for entry in bench.counts().details}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images decide."""
    monkeypatch.setattr(latency, "WINDOW", 4)
    monkeypatch.setattr(latency, "CALM", 8)


def test_a_slow_node_steps_down_and_up_again_with_all_instances_and_says_so(soon: None) -> None:
    slow = Slow()
    with NodeBench(build=slow.build, max_latency_ms=600.0, **QUICK) as bench:
        stream = Stream(bench)
        stream.image()
        bench.seed(large(world.labels(0), cv2.INTER_NEAREST), world.stamp_ns(0))
        assert levels(bench) == ("medium", "512x384")
        stream.until("quality medium -> low: p90 7")
        assert levels(bench) == ("low", "384x288")
        slow.is_slow = False
        stream.until("quality low -> medium: p90 ")
        assert levels(bench) == ("medium", "512x384")
        down, up = (status.event for status in bench.statuses if status.event.startswith("quality"))
        assert down.endswith(" ms over max_latency_ms 600") and " ms with max_latency_ms 600, about " in up
        said = {entry.key: entry.value for entry in bench.diagnostics[-1].status[0].values}
        assert said["quality"] and said["working size"]
        assert len(stream.image()) == 2 and bench.statuses[-1].last_error == ""


def test_the_level_and_what_it_sets_change_while_the_node_runs() -> None:
    with NodeBench(**QUICK) as bench:
        stream = Stream(bench)
        stream.image()
        bench.seed(large(world.labels(0), cv2.INTER_NEAREST), world.stamp_ns(0))
        stream.image()
        for name, value, event, size in (
            ("quality", "low", "quality low: working_size 384, flow.preset ultrafast", "384x288"),
            ("quality", "high", "quality high: working_size 640, flow.preset medium", "640x480"),
            ("working_size", 300, "quality high: working_size 300, flow.preset medium", "300x225"),
            ("flow.preset", "fast", "quality high: working_size 300, flow.preset fast", "300x225"),
        ):
            assert set_parameter(bench, name, value) == (True, "")
            stream.until(event)
            assert details(bench)["working_size"] == size
        assert not set_parameter(bench, "quality", "best")[0]
