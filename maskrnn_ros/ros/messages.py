# SPDX-License-Identifier: Apache-2.0
"""Tracks and outcomes to messages, and seed messages to seeds."""

from __future__ import annotations

import array
import dataclasses
import math
from typing import Any

import numpy as np
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from maskrnn_ros import prompts
from maskrnn_ros.events import Event
from maskrnn_ros.image_messages import fill_image, labels_from_image, stamp_to_ns
from maskrnn_ros.labels import check_labels
from maskrnn_ros.limits import MAX_FRAME_ID, check_size, text_line
from maskrnn_ros.masks import MaskEncoding, encode
from maskrnn_ros.msg import InstanceEvent, InstanceMask, InstanceMaskArray, Prompt, SeedResult
from maskrnn_ros.tracking.session import SeedOutcome
from maskrnn_ros.types import BoolArray, Box, Seed, Track, Tracks


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Ticket:
    """What a client knows its seed by, given back in every SeedResult of it.

    Args:
        header: Of the seed: as it came, or, from a service, with the stamp of the image alone.
        token: Of a request, may be empty.
    """

    header: Any
    token: str = ""


def seed_from_message(message: Any, size: tuple[int, int] | None = None) -> Seed:
    """A seed from a label mask (sensor_msgs/Image).

    Args:
        message: The message.
        size: (H, W) of the image that it belongs to; None: not known.

    Raises:
        ValueError: The message contradicts itself, marks nothing, is a soft mask or of another size, or has ids out of
            range.
    """
    check_size_of_mask(message, size)
    labels = labels_from_image(message)
    check_labels(labels)
    return Seed(stamp_ns=stamp_to_ns(message.header.stamp), labels=labels)


def check_size_of_mask(mask: Any, size: tuple[int, int] | None, what: str = "mask") -> None:
    """Refuse a mask by the size that it says it has, before it is looked at.

    Args:
        mask: sensor_msgs/Image.
        size: (H, W) of the image that it belongs to, None where that is not known.
        what: What it is, for error messages.

    Raises:
        ValueError: It is too large, or of another size.
    """
    check_size(mask.height, mask.width, what)
    if size is not None and (mask.height, mask.width) != size:
        raise ValueError(
            f"{what} must be {size[1]}x{size[0]} (width x height) like the image, got {mask.width}x{mask.height}"
        )


def bounded(header: Any) -> Any:
    """A header that may be given back: the same, or with what fits of its frame_id."""
    if len(header.frame_id) <= MAX_FRAME_ID:
        return header
    return Header(stamp=header.stamp, frame_id=header.frame_id[:MAX_FRAME_ID])


def mask_prompt(mask: BoolArray, instance_id: int = 0, name: str = "") -> Any:
    """A Prompt that says the mask of an instance.

    Args:
        mask: bool, (H, W), size of the image.
        instance_id: The instance to add or correct; 0 = a new one.
        name: Its name; empty leaves the one that it has.
    """
    message = Prompt(id=instance_id, name=name)
    fill_image(message.mask, np.multiply(mask, 255, dtype=np.uint8), "mono8")
    return message


def prompt_message(prompt: prompts.Prompt, instance_id: int = 0) -> Any:
    """A Prompt that says points and a box of an instance.

    Args:
        prompt: Pixels of the image; its mask is not sent.
        instance_id: The instance to add or correct; 0 = a new one.

    Raises:
        ValueError: The box lies outside every image.
    """
    message = Prompt(
        id=instance_id,
        x=[point.x for point in prompt.points],
        y=[point.y for point in prompt.points],
        positive=[int(point.on_object) for point in prompt.points],
    )
    if prompt.box is not None:
        left, top = max(0, prompt.box.x0), max(0, prompt.box.y0)
        if prompt.box.x1 <= left or prompt.box.y1 <= top:
            raise ValueError(f"box must overlap the image, got {prompt.box}")
        message.box.x_offset, message.box.y_offset = left, top
        message.box.width, message.box.height = prompt.box.x1 - left, prompt.box.y1 - top
    return message


def instance_mask_array(
    tracks: Tracks,
    header: Any,
    *,
    run_id: str,
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
        run_id=run_id,
        session=session,
        frame_index=frame_index,
        frames_skipped=frames_skipped,
        instances=[instance_mask(track, encoding) for track in tracks.tracks],
    )


def instance_mask(track: Track, encoding: MaskEncoding) -> Any:
    """An InstanceMask, its mask in the given encoding."""
    velocity = track.velocity or (math.nan, math.nan)
    message = InstanceMask(
        id=track.instance_id,
        label=track.name,
        state=int(track.state),
        frames_unseen=track.frames_unseen,
        score=track.score,
        visibility=track.visibility,
        area=track.area,
        velocity_x=velocity[0],
        velocity_y=velocity[1],
        encoding=int(encoding),
    )
    if track.box is not None:
        message.box = region_of_interest(track.box)
    if track.predicted_box is not None:
        message.predicted_box = region_of_interest(track.predicted_box)
    if track.box is not None and encoding != MaskEncoding.NONE:
        # rclpy checks every element of what is assigned, but takes an array.array as it is.
        message.data = array.array("B", encode(track.mask, track.probability, encoding))
    return message


def region_of_interest(box: Box) -> Any:
    """A sensor_msgs/RegionOfInterest; its offset and size make the same half-open box."""
    return RegionOfInterest(x_offset=box.x0, y_offset=box.y0, width=box.width, height=box.height)


def seed_result(outcome: SeedOutcome, run_id: str) -> Any:
    """A SeedResult; the ticket of the outcome is a ``Ticket``."""
    ticket = outcome.ticket
    assert isinstance(ticket, Ticket)
    return SeedResult(
        header=ticket.header,
        token=ticket.token,
        status=int(outcome.status),
        reason=text_line(outcome.reason),
        ids=list(outcome.ids),
        run_id=run_id,
        session=outcome.session,
        frames_used=outcome.frames_used,
        duration=outcome.duration_s,
    )


def instance_event(event: Event, header: Any, run_id: str) -> Any:
    """An InstanceEvent; ``header`` is that of the source image."""
    return InstanceEvent(
        header=header,
        run_id=run_id,
        session=event.session,
        id=event.instance_id,
        label=event.name,
        before=InstanceEvent.STATE_NONE if event.before is None else int(event.before),
        after=int(event.after),
    )
