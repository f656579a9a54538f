# SPDX-License-Identifier: Apache-2.0
"""What the tracker's node publishes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from maskrnn_ros.config import Config
from maskrnn_ros.events import Seen, changes
from maskrnn_ros.image_messages import fill_image, label_image_data
from maskrnn_ros.masks import MaskEncoding
from maskrnn_ros.msg import InstanceEvent, InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.overlay import overlay_tracks
from maskrnn_ros.ros.markers import marker_array
from maskrnn_ros.ros.messages import instance_event, instance_mask_array
from maskrnn_ros.tracker_node.detections import detection_array, vision_msgs
from maskrnn_ros.tracker_node.results import Result

_DEPTH = 10
LATCHED = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""A late subscriber with durability TRANSIENT_LOCAL and depth 1 gets the last message at once."""

_EVENTS_DEPTH = 100
"""A reset removes all instances at once, and every one of them is an event."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PerResult:
    """A topic that says something of every image.

    Args:
        publisher: Its publisher.
        message: Makes the message of a result.
        always: Also while nobody subscribes: what is cheap, and must not miss whoever is just being matched.
    """

    publisher: Any
    message: Callable[[Result, Config], Any]
    always: bool = False


class Outputs:
    """The publishers; they publish while the node is active.

    Args:
        node: A lifecycle node.
        run_id: Of the node.
    """

    def __init__(self, node: Any, run_id: str) -> None:
        self._node = node
        self.seed_result = self._create(SeedResult, "~/seed_result")
        self.status = self._create(TrackerStatus, "~/status", LATCHED)
        self.diagnostics = self._create(DiagnosticArray, "/diagnostics")
        self.instances = self._create(InstanceMaskArray, "~/instances", LATCHED)
        # Pictures first: who takes the masks for "this image is done" finds the rest there, too.
        self._results = [
            _PerResult(publisher=self._create(Image, "~/label_image"), message=_label_image),
            _PerResult(publisher=self._create(Image, "~/overlay"), message=_overlay),
            _PerResult(publisher=self._create(MarkerArray, "~/markers"), message=_markers),
            *self._detections(),
            _PerResult(publisher=self.instances, message=partial(_instances, run_id), always=True),
        ]
        self._events = _Events(node.create_publisher, run_id)

    def publish(self, result: Result, config: Config) -> None:
        """Say what was found on an image, each with the header of the image, as far as anybody listens."""
        for output in self._results:
            if output.always or output.publisher.get_subscription_count():
                output.publisher.publish(output.message(result, config))
        self._events.publish(result)

    def forget(self) -> None:
        """Say that all instances are removed: what was configured is freed."""
        self._events.forget()

    def _create(self, kind: Any, topic: str, qos: Any = _DEPTH) -> Any:
        return self._node.create_lifecycle_publisher(kind, topic, qos)

    def _detections(self) -> list[_PerResult]:
        if vision_msgs is None:
            return []
        return [_PerResult(publisher=self._create(vision_msgs.Detection2DArray, "~/detections"), message=_detections)]


class _Events:
    """The topic ~/events: compares every published image with the one before.

    Args:
        create: Makes a publisher of a type, a name and a queue depth. At ``forget`` the node is not active any more,
            and it must be heard all the same.
        run_id: Of the node.
    """

    def __init__(self, create: Callable[[Any, str, int], Any], run_id: str) -> None:
        self._run_id = run_id
        self._publisher = create(InstanceEvent, "~/events", _EVENTS_DEPTH)
        self._seen = Seen()
        self._header = Header()

    def publish(self, result: Result) -> None:
        """Publish what changed with this image; the worker calls it for every one."""
        tracks = result.tracks.tracks
        for event in changes(self._seen, result.session, tracks):
            self._publisher.publish(instance_event(event, result.message.header, self._run_id))
        self._seen = Seen.of(result.session, tracks)
        self._header = result.message.header

    def forget(self) -> None:
        """Publish that all instances of the last image are removed, with its header: none follows in their session."""
        for event in changes(self._seen, self._seen.session + 1, ()):
            self._publisher.publish(instance_event(event, self._header, self._run_id))
        self._seen = Seen()


def _label_image(result: Result, config: Config) -> Any:
    return _image(result, label_image_data(result.tracks.labels, config.label_encoding), config.label_encoding)


def _overlay(result: Result, config: Config) -> Any:
    return _image(result, overlay_tracks(result.image, result.tracks), "rgb8")


def _markers(result: Result, config: Config) -> Any:
    return marker_array(result.tracks, result.message.header.stamp)


def _detections(result: Result, config: Config) -> Any:
    return detection_array(result.tracks, result.message.header)


def _instances(run_id: str, result: Result, config: Config) -> Any:
    return instance_mask_array(
        result.tracks,
        result.message.header,
        run_id=run_id,
        session=result.session,
        frame_index=result.frame_index,
        frames_skipped=result.frames_skipped,
        encoding=MaskEncoding[config.mask_encoding.upper()],
    )


def _image(result: Result, pixels: npt.NDArray[Any], encoding: str) -> Any:
    message = Image(header=result.message.header)
    fill_image(message, pixels, encoding)
    return message
