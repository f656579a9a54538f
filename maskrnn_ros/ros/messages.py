# SPDX-License-Identifier: Apache-2.0
"""Tracks and outcomes to messages, and seed messages to seeds."""

from __future__ import annotations

import array
import math
from typing import Any

from sensor_msgs.msg import RegionOfInterest

from maskrnn_ros.events import Event
from maskrnn_ros.masks import MaskEncoding, encode
from maskrnn_ros.msg import InstanceEvent, InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.ros.images import labels_from_image, stamp_to_ns
from maskrnn_ros.tracking.session import SeedOutcome
from maskrnn_ros.types import Box, Seed, Track, Tracks


def seed_from_message(message: Any) -> Seed:
    """A seed from a label mask (sensor_msgs/Image).

    Raises:
        ValueError: The message contradicts itself, marks nothing, or holds ids out of range.
    """
    return Seed(stamp_ns=stamp_to_ns(message.header.stamp), labels=labels_from_image(message))


def instance_mask_array(
    tracks: Tracks,
    header: Any,
    *,
    session: int,
    frame_index: int,
    frames_skipped: int,
    encoding: MaskEncoding,
) -> Any:
    """An InstanceMaskArray; ``header`` is that of the source image and goes out as it came."""
    height, width = tracks.size
    return InstanceMaskArray(
        header=header,
        image_height=height,
        image_width=width,
        session=session,
        frame_index=frame_index,
        frames_skipped=frames_skipped,
        instances=[instance_mask(track, encoding) for track in tracks.tracks],
    )


def instance_mask(track: Track, encoding: MaskEncoding) -> Any:
    """An InstanceMask, its mask in the given encoding."""
    centroid = track.centroid or (math.nan, math.nan)
    velocity = track.velocity or (math.nan, math.nan)
    message = InstanceMask(
        id=track.instance_id,
        label=track.name,
        state=int(track.status),
        age=track.age,
        frames_unseen=track.frames_unseen,
        score=track.score,
        visibility=track.visibility,
        centroid_x=centroid[0],
        centroid_y=centroid[1],
        area=track.area,
        velocity_x=velocity[0],
        velocity_y=velocity[1],
        encoding=int(encoding),
    )
    if track.box is not None:
        message.box = region_of_interest(track.box)
    if track.box is not None and encoding != MaskEncoding.NONE:
        message.x, message.y = track.box.x0, track.box.y0
        message.width, message.height = track.box.width, track.box.height
        # rclpy checks every element of what is assigned, but takes an array.array as it is.
        message.data = array.array("B", encode(track.mask, track.probability, encoding))
    return message


def region_of_interest(box: Box) -> Any:
    """A sensor_msgs/RegionOfInterest; its offset and size make the same half-open box."""
    return RegionOfInterest(x_offset=box.x0, y_offset=box.y0, width=box.width, height=box.height)


def seed_result(outcome: SeedOutcome) -> Any:
    """A SeedResult; the ticket of the outcome is the header of the seed."""
    return SeedResult(
        header=outcome.ticket,
        status=int(outcome.status),
        reason=outcome.reason,
        ids=list(outcome.ids),
        session=outcome.session,
        frames_used=outcome.frames_used,
        duration=outcome.duration_s,
    )


def instance_event(event: Event, header: Any, frame_index: int) -> Any:
    """An InstanceEvent; ``header`` is that of the source image."""
    return InstanceEvent(
        header=header,
        session=event.session,
        frame_index=frame_index,
        id=event.instance_id,
        label=event.name,
        before=InstanceEvent.STATE_NONE if event.before is None else int(event.before),
        after=int(event.after),
    )
