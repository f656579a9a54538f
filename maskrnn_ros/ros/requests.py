# SPDX-License-Identifier: Apache-2.0
"""What the services are asked for, checked."""

from __future__ import annotations

import dataclasses
from typing import Any

from maskrnn_ros.ros.images import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.types import Frame, Seed


def seed_from_request(request: Any, size: tuple[int, int] | None) -> tuple[Seed, Frame | None]:
    """The seed that an AddInstances request describes, and the image that it brings along.

    Args:
        request: AddInstances.Request.
        size: (H, W) of the stream, None where it is not known yet.

    Raises:
        ValueError: The request contradicts itself or asks for what is not there.
    """
    if request.boxes or request.box_ids or len(request.points_x) or len(request.point_ids):
        raise ValueError("prompts need a mask backend, none configured: expected a mask, got boxes or points")
    if not len(request.mask.data):
        raise ValueError("expected a mask, got an empty one")
    if len(request.label_ids) != len(request.labels):
        raise ValueError(
            f"expected one label for each of {len(request.label_ids)} label_ids, got {len(request.labels)}"
        )
    names = dict(zip(request.label_ids, request.labels, strict=True))
    seed = Seed(stamp_ns=stamp_to_ns(request.stamp), labels=labels_from_image(request.mask), names=names)
    strangers = sorted(set(names) - set(seed.ids))
    if strangers:
        raise ValueError(f"label_ids must be among the ids of the mask {list(seed.ids)}, got {strangers}")
    frame = _embedded_frame(request, seed)
    if frame is not None and seed.stamp_ns == 0:
        seed = dataclasses.replace(seed, stamp_ns=frame.stamp_ns)
    expected = frame.size if frame is not None else size
    if expected is not None and seed.size != expected:
        raise ValueError(
            f"mask must be {expected[1]}x{expected[0]} (width x height) like the image, got "
            f"{seed.size[1]}x{seed.size[0]}"
        )
    return seed, frame


def _embedded_frame(request: Any, seed: Seed) -> Frame | None:
    if not len(request.image.data):
        return None
    frame = Frame(stamp_ns=stamp_to_ns(request.image.header.stamp), image=image_to_rgb(request.image))
    if seed.stamp_ns not in (0, frame.stamp_ns):
        raise ValueError(f"stamp must be 0 or that of the embedded image {frame.stamp_ns} ns, got {seed.stamp_ns} ns")
    return frame
