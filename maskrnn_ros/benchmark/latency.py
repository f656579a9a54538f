# SPDX-License-Identifier: Apache-2.0
"""From camera to mask through real topics: a camera's process, the real node's, and this one that takes the masks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message

from maskrnn_ros import parameter_file
from maskrnn_ros.benchmark.by_flow import ByFlow
from maskrnn_ros.benchmark.latency_camera import IMAGE_DEPTH
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray
from maskrnn_ros.ros.node_process import Listener, child_process, node_command, use_large_segments
from maskrnn_ros.ros.qos import reliable

MOST_DROPPED = 0.01
"""Share of the images that a rate may lose and still count as kept up with."""

_DEPTH = 10
_LAST_TIMEOUT_S = 5.0
_STATUS_PERIOD_S = 0.2


def measure_latency(
    config: Config, width: int, height: int, objects: int, *, rates: Sequence[float], seconds: float
) -> dict[str, Any]:
    """Play a scene to the real node at one rate after another.

    The age of the masks is from the moment in which the image is published until the InstanceMaskArray with its stamp
    is received and decoded. All processes are on this machine; topics are reliable, and Fast DDS has a shared memory
    that is large enough for images. An image counts as dropped where no masks came for it. Of the others a share has
    the masks of an earlier image, carried there by flow (``while_busy``).

    Args:
        config: Settings of the node; heads must not be trained in the background.
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many are followed.
        rates: Images a second.
        seconds: For each rate.

    Returns:
        For JSON: ``rates``, each with ``hz, sent, received, dropped_share, propagated_share`` (of those received),
        ``age_ms_p50, age_ms_p95``; ``highest_hz``,
        the highest rate with a share of dropped images below ``MOST_DROPPED``, None where there is none.

    Raises:
        RuntimeError: The node or the camera fails.
    """
    use_large_segments()
    namespace = f"/maskrnn_benchmark_{os.getpid()}"  # others may run beside it
    collector = _Collector(f"{namespace}/tracker", objects)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "node.yaml"
        values = to_flat(with_values(config, compressed=False, status_period=_STATUS_PERIOD_S))
        parameter_file.write(file, values)
        node = node_command(namespace, "--params-file", str(file))
        camera = [sys.executable, "-m", "maskrnn_ros.benchmark.latency_camera", "--namespace", namespace]
        camera += ["--scene", str(width), str(height), str(objects), "--seconds", str(seconds)]
        camera += ["--rates", *map(str, rates)]
        with (
            child_process(node) as process,
            Listener(process, collector.tracker, collector.subscribe) as listener,
            (Path(scratch) / "stamps").open("w+") as stamps,  # a pipe would fill up
            child_process(camera, stdout=stamps, stdin=subprocess.DEVNULL) as playing,
        ):
            listener.wait_until(lambda: playing.poll() is not None, float("inf"))
            if playing.returncode:
                raise RuntimeError(f"the camera ended with exit status {playing.returncode}, see above")
            stamps.seek(0)
            bursts = [json.loads(line) for line in stamps]
            last = bursts[-1]["stamps"][-1]  # the newest image is never dropped, so its masks come last
            listener.wait_until(lambda: collector.has(last), _LAST_TIMEOUT_S)
    rows = [collector.rate(burst) for burst in bursts]
    return {
        "objects": objects,
        "width": width,
        "height": height,
        "rates": rows,
        "highest_hz": highest_rate(rows),
        "image_bytes": width * height * 3,
        "message_bytes_p50": float(np.median(collector.message_bytes)) if collector.message_bytes else 0.0,
        "mask_encoding": config.mask_encoding,
        "qos": f"reliable; images keep the last {IMAGE_DEPTH}, masks the last {_DEPTH}",
    }


def highest_rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The highest rate that loses less than ``MOST_DROPPED`` of its images.

    >>> highest_rate([{"hz": 15.0, "dropped_share": 0.0}, {"hz": 30.0, "dropped_share": 0.2}])
    15.0
    """
    return max((float(row["hz"]) for row in rows if row["dropped_share"] < MOST_DROPPED), default=None)


class _Collector:
    """Takes the masks as a user's node does, decoded, and notes how old they are."""

    def __init__(self, tracker: str, objects: int) -> None:
        self.tracker = tracker
        self._objects = objects
        self.age_ms: dict[int, float] = {}
        self.message_bytes: list[int] = []
        self._not_tracking: set[int] = set()
        self.by_flow = ByFlow(tracker)

    def has(self, stamp_ns: int) -> bool:
        """Whether the masks of an image have come, and the counts after it."""
        return stamp_ns in self.age_ms and self.by_flow.counted_ns > stamp_ns

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        self.by_flow.subscribe(node)
        topic = f"{self.tracker}/instances"
        node.create_subscription(InstanceMaskArray, topic, self._on_instances, reliable(_DEPTH), raw=True)

    def _on_instances(self, data: bytes) -> None:
        message = deserialize_message(data, InstanceMaskArray)  # raw, so that its size is known
        now_ns, stamp_ns = time.time_ns(), stamp_to_ns(message.header.stamp)
        self.message_bytes.append(len(data))
        tracking = sum(instance.state == InstanceMask.STATE_TRACKING for instance in message.instances)
        if tracking != self._objects:
            self._not_tracking.add(stamp_ns)
        self.age_ms[stamp_ns] = (now_ns - stamp_ns) / 1e6  # last: a waiting reader then finds the rest

    def rate(self, burst: Mapping[str, Any]) -> dict[str, Any]:
        """The figures of one rate."""
        stamps = burst["stamps"]
        ages = [self.age_ms[stamp] for stamp in stamps if stamp in self.age_ms]
        p50, p95 = np.percentile(ages, (50, 95)).tolist() if ages else (None, None)
        return {
            "hz": burst["hz"],
            "sent": len(stamps),
            "received": len(ages),
            "dropped_share": 1 - len(ages) / len(stamps),
            "propagated_share": self.by_flow.share(stamps[0], stamps[-1]),
            "age_ms_p50": p50,
            "age_ms_p95": p95,
            "not_tracking": len(self._not_tracking.intersection(stamps)),
            "camera_late_ms_p95": burst["late_ms_p95"],
            "publish_ms_p50": burst["publish_ms_p50"],
        }
