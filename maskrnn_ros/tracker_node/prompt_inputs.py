# SPDX-License-Identifier: Apache-2.0
"""Boxes of a detector and clicks: the topics that start instances by prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point as PointMessage
from geometry_msgs.msg import PointStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.limits import MAX_PROMPTS, check_number
from maskrnn_ros.prompts import Point, Prompt, clicked
from maskrnn_ros.ros.image_plane import FRAME, to_pixel
from maskrnn_ros.tracker_node.click_point import Frames, project
from maskrnn_ros.tracker_node.detections import box_and_class, vision_msgs
from maskrnn_ros.tracker_node.results import Result
from maskrnn_ros.tracking.prompted import AnySeed, PromptedInstance, PromptSeed
from maskrnn_ros.types import Box, InstanceState

_DEPTH = 10


class PromptInputs:
    """Subscribes to ``~/seed_box``, ``~/click``, ``~/click_stamped`` and ``camera_info`` while it lives.

    Args:
        node: The rclpy node.
        take: Takes a seed under a header; a ValueError refuses it.
        reject: Called with the header and the reason of what is refused.
        live: Gives the ids that are tracked or wait to be.
        marked: Gives the seeds that wait, or whose masks were not published yet.
        config: Gives the settings as they are now.
    """

    def __init__(
        self,
        node: Any,
        *,
        take: Callable[[Any, PromptSeed], object],
        reject: Callable[[Any, str], None],
        live: Callable[[], tuple[int, ...]],
        marked: Callable[[], Iterable[AnySeed]],
        config: Callable[[], Config],
    ) -> None:
        self.newest: Result | None = None  # the worker's thread puts it here
        self._node = node
        self._take = take
        self._reject = reject
        self._live = live
        self._marked = marked
        self._config = config
        self._info: Any = None
        self._boxes: dict[int, Box] = {}
        self._frames = Frames(node)
        kinds = [
            (PointMessage, "~/click", self._on_click, _DEPTH),
            (PointStamped, "~/click_stamped", self._on_click_stamped, _DEPTH),
            (CameraInfo, "camera_info", self._on_info, qos_profile_sensor_data),
        ]
        if vision_msgs is not None:
            kinds.append((vision_msgs.Detection2DArray, "~/seed_box", self._on_detections, _DEPTH))
        self._subscriptions = [node.create_subscription(*arguments) for arguments in kinds]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._frames.close()

    def forget(self) -> None:
        """A new session: nothing is there."""
        self.newest = None
        self._boxes.clear()

    # --- detections ---

    def _on_detections(self, message: Any) -> None:
        try:
            check_number("detections", message.detections, MAX_PROMPTS)
        except ValueError as error:
            self._reject(message.header, str(error))
            return
        prompts = self._config().prompts
        for detection in message.detections:
            try:
                found = box_and_class(detection, prompts.min_score)
                if found is None:
                    continue
                box, name = found
                if max((box.iou(other) for other in self._occupied()), default=0.0) <= prompts.same_iou:
                    self._start(message.header, stamp_to_ns(message.header.stamp), Prompt(box=box), name)
            except ValueError as error:  # of this detection; the others stand for themselves
                self._reject(message.header, str(error))

    def _occupied(self) -> list[Box]:
        """Boxes of what is there: followed instances, hidden ones where they were seen last, and seeds that wait."""
        newest, live = self.newest, set(self._live())
        tracks = {track.instance_id: track for track in newest.tracks.tracks} if newest is not None else {}
        for i, track in tracks.items():
            if track.box is not None:
                self._boxes[i] = track.box
            elif track.state != InstanceState.OCCLUDED:
                self._boxes.pop(i, None)
        self._boxes = {i: box for i, box in self._boxes.items() if i in live}
        # boxes of seeds are looked for when a detection asks: most masks come without a detector
        waiting = {i: box for seed in self._marked() for i, box in seed.boxes.items() if i in live - tracks.keys()}
        return [*self._boxes.values(), *(box for box in waiting.values() if box is not None)]

    # --- clicks ---

    def _on_click(self, message: Any) -> None:
        header = Header()
        try:
            self._click(header, 0, message.x, message.y)
        except ValueError as error:
            self._reject(header, str(error))

    def _on_click_stamped(self, message: Any) -> None:
        try:
            stamp_ns, x, y = self._clicked(message)
            self._click(message.header, stamp_ns, x, y)
        except ValueError as error:
            self._reject(message.header, str(error))

    def _clicked(self, message: Any) -> tuple[int, float, float]:
        """The stamp of the image that is meant, and the pixel.

        A point in the frame of the image with z = 0 is a pixel: as a point of the world it would lie in the plane of
        the camera itself, where nothing is seen. One in the plane that ~/markers draws in is a pixel, too, whatever its
        z: RViz2 knows that coarsely. Any other is a point of the world. RViz2 stamps these two with the time of the
        click, which is that of no image: they are looked for on the next one.
        """
        if self.newest is None:
            raise ValueError("a stamped click needs an image before it, whose frame_id it is compared with, got none")
        camera = self.newest.message.header.frame_id
        frame, point = message.header.frame_id or camera, message.point
        if frame == camera and point.z == 0:
            return stamp_to_ns(message.header.stamp), point.x, point.y
        if frame == FRAME:
            return 0, *to_pixel(point.x, point.y, self.newest.tracks.size)
        if self._info is None:
            topic = self._node.resolve_topic_name("camera_info")
            raise ValueError(f"a 3D point (frame {frame!r}, z {point.z:g}) needs a camera_info, none came on {topic}")
        where = np.array([point.x, point.y, point.z])
        if frame != camera:
            where = self._frames.transformed(where, frame, camera)
        return 0, *project(where, self._info, self.newest.tracks.size)

    def _click(self, header: Any, stamp_ns: int, x: float, y: float) -> None:
        newest = self.newest
        prompt = Prompt(points=(Point(x=x, y=y),))
        if newest is not None:
            point = clicked(x, y, newest.tracks.size)
            prompt = Prompt(points=(point,))
            there = int(newest.tracks.labels[int(point.y), int(point.x)])
            if there in self._live():
                raise ValueError(
                    f"click ({x:g}, {y:g}) lies on instance {there}, which is followed already; correct it by "
                    "~/seed_mask or ~/add_instances, or remove it first"
                )
        self._start(header, stamp_ns, prompt, "")

    def _on_info(self, message: Any) -> None:
        self._info = message

    def _start(self, header: Any, stamp_ns: int, prompt: Prompt, name: str) -> None:
        if self.newest is not None:
            prompt.check_inside(self.newest.tracks.size)
        prompted = (PromptedInstance(prompt=prompt, name=name),)
        self._take(header, PromptSeed(stamp_ns=stamp_ns, prompted=prompted, distinct=True))
