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
from visualization_msgs.msg import MarkerArray

from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import fill_image, label_image_data
from maskrnn_ros.masks import MaskEncoding
from maskrnn_ros.msg import InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.overlay import overlay_tracks
from maskrnn_ros.ros.markers import marker_array
from maskrnn_ros.ros.messages import instance_mask_array
from maskrnn_ros.tracker_node.detections import detection_array, vision_msgs
from maskrnn_ros.tracker_node.event_output import EventOutput
from maskrnn_ros.tracker_node.worker import Result

_DEPTH = 10
LATCHED = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""A late subscriber with durability TRANSIENT_LOCAL and depth 1 gets the last message at once."""


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
        # Pictures first: who takes the masks for "this image is done" finds the rest there, too.
        self._results = [
            _PerResult(publisher=self._create(Image, "~/label_image"), message=_label_image),
            _PerResult(publisher=self._create(Image, "~/overlay"), message=_overlay),
            _PerResult(publisher=self._create(MarkerArray, "~/markers"), message=_markers),
            *self._detections(),
            _PerResult(
                publisher=self._create(InstanceMaskArray, "~/instances", LATCHED),
                message=partial(_instances, run_id),
                always=True,
            ),
        ]
        self._events = EventOutput(node.create_publisher, run_id)

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
