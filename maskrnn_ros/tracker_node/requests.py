# SPDX-License-Identifier: Apache-2.0
"""What the services are asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.image_messages import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.labels import check_labels
from maskrnn_ros.limits import MAX_POINTS, MAX_PROMPTS, check_number, check_size, check_token
from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.ros.messages import check_size_of_mask
from maskrnn_ros.tracking.prompted import MaskPrompt, PromptedInstance, PromptSeed
from maskrnn_ros.types import Box, Frame


def seed_from_request(
    request: Any, size: tuple[int, int] | None, depth: BitDepth | None = None
) -> tuple[PromptSeed, Frame | None]:
    """The seed that an AddInstances request describes, and the image that it brings along.

    Args:
        request: AddInstances.Request.
        size: (H, W) of the stream, None where it is not known yet.
        depth: Of the stream's 16-bit images.

    Raises:
        ValueError: The request contradicts itself or asks for what is not there.
    """
    check_token(request.token)
    if not request.prompts:
        raise ValueError("expected at least one prompt, got none")
    _check_limits(request, size)
    prompted = tuple(_prompted(number, prompt) for number, prompt in enumerate(request.prompts))
    frame = _embedded_frame(request, depth)
    stamp_ns = stamp_to_ns(request.stamp)
    if frame is not None and stamp_ns == 0:
        stamp_ns = frame.stamp_ns
    seed = PromptSeed(stamp_ns=stamp_ns, prompted=prompted)
    expected = frame.size if frame is not None else size
    if expected is not None:
        for item in prompted:
            item.prompt.check_inside(expected)
    return seed, frame


def _check_limits(request: Any, size: tuple[int, int] | None) -> None:
    """Refuse by lengths and sizes alone what would take long to look at.

    Raises:
        ValueError: There are too many prompts or points, or an image or a mask is too large or of another size.
    """
    check_number("prompts", request.prompts, MAX_PROMPTS)
    points = sum(max(len(prompt.x), len(prompt.y), len(prompt.positive)) for prompt in request.prompts)
    check_number("points", range(points), MAX_POINTS)
    if len(request.image.data):
        check_size(request.image.height, request.image.width)
        size = request.image.height, request.image.width
    for number, prompt in enumerate(request.prompts):
        if len(prompt.mask.data):
            check_size_of_mask(prompt.mask, size, f"prompts[{number}]: mask")


def _prompted(number: int, message: Any) -> PromptedInstance:
    """An instance that is to be marked, of a Prompt; a mistake is said with the number of the prompt in its request."""
    try:
        return PromptedInstance(prompt=_prompt(message), instance_id=message.id, name=message.name)
    except ValueError as error:
        raise ValueError(f"prompts[{number}]: {error}") from error


def _prompt(message: Any) -> Prompt | MaskPrompt:
    """What marks an instance: box and points, or a mask alone."""
    points, box = _points(message), _box(message.box)
    if not len(message.mask.data):
        return Prompt(box=box, points=points, is_correction=message.id != 0 and box is None)
    if points or box is not None:
        raise ValueError("expected a mask alone, or a box and points, got both")
    labels = labels_from_image(message.mask)
    check_labels(labels)
    return MaskPrompt(labels != 0)


def _box(region: Any) -> Box | None:
    """A box; None where its width and height are 0.

    Raises:
        ValueError: One of both is 0.
    """
    if not region.width and not region.height:
        return None
    return Box(region.x_offset, region.y_offset, region.x_offset + region.width, region.y_offset + region.height)


def _points(message: Any) -> tuple[Point, ...]:
    """Points of a Prompt; without ``positive`` all are on the object."""
    count = len(message.x)
    _check_count(message.y, count, "y")
    positive: Sequence[int] = message.positive
    if not len(positive):
        positive = [1] * count
    _check_count(positive, count, "positive")
    wrong = next((value for value in positive if value > 1), None)
    if wrong is not None:
        raise ValueError(f"positive must be 1 (on the object) or 0 (not on it), got {wrong}")
    return tuple(
        Point(x=float(x), y=float(y), on_object=bool(on))
        for x, y, on in zip(message.x, message.y, positive, strict=True)
    )


def _check_count(values: Sequence[Any], count: int, name: str) -> None:
    if len(values) != count:
        raise ValueError(f"expected one {name} for each of {count} x, got {len(values)}")


def _embedded_frame(request: Any, depth: BitDepth | None) -> Frame | None:
    if not len(request.image.data):
        return None
    stamp_ns = stamp_to_ns(request.stamp)
    frame = Frame(stamp_ns=stamp_to_ns(request.image.header.stamp), image=image_to_rgb(request.image, depth))
    if stamp_ns not in (0, frame.stamp_ns):
        raise ValueError(f"stamp must be 0 or that of the embedded image {frame.stamp_ns} ns, got {stamp_ns} ns")
    return frame
