# SPDX-License-Identifier: Apache-2.0
"""What the seed editor says of the tracker: what is wrong, the instances, the fate of the seeds."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.msg import InstanceMask, SeedResult
from maskrnn_ros.overlay import colour
from maskrnn_ros.ros.tracker_client import LOST

STATES = {
    InstanceMask.STATE_SEEDED: "SEEDED",
    InstanceMask.STATE_TRACKING: "TRACKING",
    InstanceMask.STATE_OCCLUDED: "OCCLUDED",
    InstanceMask.STATE_LOST: "LOST",
    InstanceMask.STATE_REMOVED: "REMOVED",
}
_REMOVED = InstanceMask.STATE_REMOVED
_RESULTS = {
    SeedResult.STATUS_PENDING: "pending",
    SeedResult.STATUS_APPLIED: "applied",
    SeedResult.STATUS_REJECTED: "rejected",
}
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_STATUS = "maskrnn_ros/msg/TrackerStatus"
_SILENT_S = 3.0
_WINDOW = 30
_SEEDS = 20
_FORGOTTEN_S = 60.0


class Health:
    """Watches the tracker and its images; says in one line what is wrong and what to do.

    Args:
        node: The rclpy node.
        tracker: Full name of the tracker's node.
        image_topic: Empty: what the tracker subscribes to.
    """

    def __init__(self, node: Any, tracker: str, image_topic: str) -> None:
        self._node, self._tracker, self._wanted = node, tracker, image_topic
        self.status: Any = None
        self.image: tuple[str, bool] | None = None
        """Topic of the images, and whether they are compressed; None where it is not known."""
        self.subscribed_compressed = False
        self._status_s = self._image_s = float("-inf")
        self._periods: deque[float] = deque(maxlen=5)
        self._arrivals: deque[float] = deque(maxlen=_WINDOW)
        self._since_s = time.monotonic()
        self._trouble = "looking for the tracker"

    def on_status(self, message: Any) -> None:
        """The tracker says how it is."""
        now = time.monotonic()
        if self.status is not None:
            self._periods.append(now - self._status_s)
        self.status, self._status_s = message, now

    def on_image(self) -> None:
        """An image came."""
        self._image_s = time.monotonic()
        self._arrivals.append(self._image_s)

    def no_images(self) -> None:
        """Nothing is subscribed to any more."""
        self._arrivals.clear()
        self._image_s = float("-inf")

    def look(self) -> None:
        """Look who is there; in the node's thread."""
        found = self._find_image()
        if found != self.image:
            self._since_s = time.monotonic()
        self.image = found
        self._trouble = self._find_trouble()

    def report(self) -> dict[str, Any]:
        """What the page shows, for JSON."""
        status = self.status if self.speaks else None
        return {
            "tracker": self._tracker,
            "image_topic": self.image[0] if self.image else "",
            "trouble": self._trouble,
            "fps": self._fps(),
            "status": None
            if status is None
            else {
                "session": status.session,
                "device": status.device,
                "enabled": status.enabled,
                "step_ms": _finite(status.step_ms_p50),
                "oldest": str(stamp_to_ns(status.buffer_oldest)),
                "last_error": status.last_error,
            },
        }

    @property
    def speaks(self) -> bool:
        """Whether the tracker's status comes as often as it did."""
        usual = max(self._periods, default=1.0)
        return time.monotonic() - self._status_s < max(_SILENT_S, 3 * usual)

    def _fps(self) -> float:
        arrivals = list(self._arrivals)
        if len(arrivals) < 2 or time.monotonic() - arrivals[-1] > _SILENT_S:
            return 0.0
        return (len(arrivals) - 1) / max(1e-3, arrivals[-1] - arrivals[0])

    def _find_image(self) -> tuple[str, bool] | None:
        if self._wanted:
            types = dict(self._node.get_topic_names_and_types()).get(self._wanted, [])
            return self._wanted, _COMPRESSED in types and _IMAGE not in types
        topics = self._tracker_images()
        return topics[0] if len(topics) == 1 else None

    def _tracker_images(self) -> Sequence[tuple[str, bool]]:
        """What the tracker subscribes to, without masks (seeds, what is to be ignored) and depth."""
        # not by the node's name: the graph keeps a dead tracker for some time, and would answer for that one
        found = [
            (topic, _COMPRESSED in types)
            for topic, types in self._node.get_topic_names_and_types()
            if {_IMAGE, _COMPRESSED}.intersection(types)
            and not any(word in topic.rpartition("/")[2] for word in ("seed", "mask"))
            and any(self._is_tracker(info) for info in self._node.get_subscriptions_info_by_topic(topic))
        ]
        colour_only = [item for item in found if "depth" not in item[0]]
        return colour_only if len(found) > 1 and colour_only else found

    def _is_tracker(self, info: Any) -> bool:
        return f"{info.node_namespace.rstrip('/')}/{info.node_name}" == self._tracker

    def _find_trouble(self) -> str:
        now = time.monotonic()
        if not self._node.count_publishers(f"{self._tracker}/status"):
            return f"no tracker at {self._tracker}: start it with `ros2 run maskrnn_ros tracker`{self._others()}"
        if not self.speaks:
            return f"the tracker {self._tracker} is silent: is it active? (`ros2 lifecycle get {self._tracker}`)"
        if self.image is None:
            topics = ", ".join(topic for topic, _ in self._tracker_images())
            return f"which images? start this editor with --image, one of: {topics or 'none found yet'}"
        topic = self.image[0]
        if not self._node.count_publishers(topic):
            return f"nobody publishes {topic}: is the camera running?"
        if now - max(self._image_s, self._since_s) > _SILENT_S:
            silent = f"for {now - self._image_s:.0f} s" if math.isfinite(self._image_s) else "yet"
            return f"no image on {topic} {silent}"
        if not self.status.enabled:
            return f"the tracker is disabled, it drops all images: call {self._tracker}/enable"
        return ""

    def _others(self) -> str:
        """Trackers of other names."""
        names = [
            topic.rpartition("/")[0]
            for topic, types in self._node.get_topic_names_and_types()
            if _STATUS in types and self._node.count_publishers(topic)
        ]
        return f"; there is one at {names[0]}: --tracker {names[0]}" if names else ""


class Seeds:
    """Results of seeds: our own by their token, and those of other clients.

    It shares no book with ``TrackerClient``, which forgets a mask with its end and knows of no other client's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._count = 0

    def sent(self, token: str) -> None:
        """A seed of ours is on its way."""
        with self._lock:
            self._entry(token)["ours"] = True

    def forget(self, token: str) -> None:
        """The tracker did not take it."""
        with self._lock:
            self._entries.pop(token, None)

    def on_result(self, message: Any) -> None:
        """The tracker says what became of a seed."""
        header = message.header
        with self._lock:
            # a seed from a topic has no token; its stamp tells it well enough from the last ones
            entry = self._entry(message.token or f"{header.frame_id} {stamp_to_ns(header.stamp)}")
            entry.update(
                status=_RESULTS.get(message.status, "pending"),
                reason=message.reason,
                ids=list(message.ids),
                frames_used=message.frames_used,
                duration=round(float(message.duration), 2),
                run_id=message.run_id,
            )

    def on_run(self, run_id: str) -> None:
        """The tracker says which run it is: what waited in another one is lost with it."""
        with self._lock:
            for entry in self._entries.values():
                if entry["status"] == "pending" and entry["run_id"] not in ("", run_id):
                    entry.update(status="rejected", reason=LOST)

    def report(self) -> list[dict[str, Any]]:
        """The last ones, oldest first, for JSON."""
        now = time.monotonic()
        with self._lock:
            entries = [dict(entry) for entry in self._entries.values()]
        for entry in entries:
            del entry["run_id"]
            if now - entry.pop("sent_s") > _FORGOTTEN_S and entry["status"] == "pending":
                entry.update(status="rejected", reason=f"the tracker said nothing more of it for {_FORGOTTEN_S:g} s")
        return entries

    def _entry(self, token: str) -> dict[str, Any]:
        if token not in self._entries:
            self._count += 1
            self._entries[token] = {
                "token": token,
                "number": self._count,
                "ours": False,
                "status": "pending",
                "reason": "sent",
                "ids": [],
                "frames_used": 0,
                "duration": 0.0,
                "run_id": "",
                "sent_s": time.monotonic(),
            }
            if len(self._entries) > _SEEDS:
                self._entries.popitem(last=False)
        return self._entries[token]


def instance_rows(message: Any, status: Any) -> list[dict[str, Any]]:
    """The instances, ascending, as on the newest image.

    The status is said at every event, so it knows first of what was added, removed or reset since that image, and of
    another run of the tracker, whose ids mean other objects.

    Args:
        message: The newest InstanceMaskArray, or None.
        status: The newest TrackerStatus, or None.
    """
    known = {} if message is None else {i.id: _row(i) for i in message.instances if i.state != _REMOVED}
    same_run = message is None or status is None or message.run_id == status.run_id
    if status is None or (message is not None and same_run and message.session > status.session):
        return list(known.values())
    if message is not None and not (same_run and message.session == status.session):
        known = {}
    return [known.get(instance_id) or _waiting(instance_id) for instance_id in status.ids]


def _row(instance: Any) -> dict[str, Any]:
    return {
        "id": instance.id,
        "name": instance.label,
        "state": STATES.get(instance.state, ""),
        "score": _finite(instance.score),
        "visibility": _finite(instance.visibility),
        "colour": list(colour(instance.id)),
    }


def _waiting(instance_id: int) -> dict[str, Any]:
    row = {"id": instance_id, "name": "", "state": "WAITING", "score": None, "visibility": None}
    return {**row, "colour": list(colour(instance_id))}


def _finite(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
