# SPDX-License-Identifier: Apache-2.0
"""What the services are asked for, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from maskrnn_ros.prompts import Point, Prompt
from maskrnn_ros.ros.images import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.tracking.prompted import PromptedInstance, PromptSeed
from maskrnn_ros.types import Box, Frame, LabelArray, Seed


def seed_from_request(request: Any, size: tuple[int, int] | None) -> tuple[Seed | PromptSeed, Frame | None]:
    """The seed that an AddInstances request describes, and the image that it brings along.

    Args:
        request: AddInstances.Request.
        size: (H, W) of the stream, None where it is not known yet.

    Raises:
        ValueError: The request contradicts itself or asks for what is not there.
    """
    prompts = list(_prompts(request))
    labels = labels_from_image(request.mask) if len(request.mask.data) else None
    if labels is None and not prompts:
        raise ValueError("expected a mask, boxes or points, got none of them")
    if len(request.label_ids) != len(request.labels):
        raise ValueError(
            f"expected one label for each of {len(request.label_ids)} label_ids, got {len(request.labels)}"
        )
    frame = _embedded_frame(request)
    stamp_ns = stamp_to_ns(request.stamp)
    if frame is not None and stamp_ns == 0:
        stamp_ns = frame.stamp_ns
    seed = _seed(request, stamp_ns, labels, prompts)
    expected = frame.size if frame is not None else size
    if expected is not None:
        if labels is not None and labels.shape != expected:
            raise ValueError(
                f"mask must be {expected[1]}x{expected[0]} (width x height) like the image, got "
                f"{labels.shape[1]}x{labels.shape[0]}"
            )
        for _, prompt in prompts:
            prompt.check_inside(expected)
    return seed, frame


def _seed(
    request: Any, stamp_ns: int, labels: LabelArray | None, prompts: Sequence[tuple[int, Prompt]]
) -> Seed | PromptSeed:
    prompt_ids = [i for i, _ in prompts]
    given = list(zip(request.label_ids, request.labels, strict=True))
    names = {i: name for i, name in given if i}
    new_names = [name for i, name in given if not i]  # in the order of the new instances, which have no ids yet
    masks = Seed(stamp_ns=stamp_ns, labels=labels) if labels is not None else None
    known = [*(masks.ids if masks else ()), *(i for i in prompt_ids if i)]
    strangers = sorted(set(names) - set(known))
    if strangers:
        raise ValueError(f"label_ids must be among the ids of the request {sorted(known)}, got {strangers}")
    if len(new_names) > prompt_ids.count(0):
        raise ValueError(f"label_ids may hold 0 for each of {prompt_ids.count(0)} new prompts, got {len(new_names)}")
    if masks is not None:
        mine = {i: name for i, name in names.items() if i in masks.ids}
        masks = Seed(stamp_ns=stamp_ns, labels=masks.labels, names=mine)
        if not prompts:
            return masks
    following = iter(new_names)
    prompted = tuple(
        PromptedInstance(prompt=prompt, instance_id=i, name=names.get(i, "") if i else next(following, ""))
        for i, prompt in prompts
    )
    return PromptSeed(stamp_ns=stamp_ns, prompted=prompted, masks=masks)


def _prompts(request: Any) -> Iterator[tuple[int, Prompt]]:
    """Ids and prompts: each box of id 0 is an instance of its own, all points of id 0 are one; boxes come first."""
    boxes = [Box(r.x_offset, r.y_offset, r.x_offset + r.width, r.y_offset + r.height) for r in request.boxes]
    box_ids = _for_each(request.box_ids, len(boxes), "box_ids", "boxes", 0)
    points: dict[int, list[Point]] = {}
    count = len(request.points_x)
    columns = (
        _for_each(request.point_ids, count, "point_ids", "points_x", 0),
        _for_each(request.points_y, count, "points_y", "points_x", None),
        _for_each(request.point_labels, count, "point_labels", "points_x", 1),
    )
    for x, i, y, label in zip(request.points_x, *columns, strict=True):
        if label > 1:
            raise ValueError(f"point_labels must be 1 (on the object) or 0 (not on it), got {label}")
        points.setdefault(int(i), []).append(Point(x=float(x), y=float(y), on_object=bool(label)))
    for i, box in zip(box_ids, boxes, strict=True):
        yield int(i), Prompt(box=box, points=tuple(points.pop(int(i), ())) if i else ())
    for i, those in points.items():
        yield i, Prompt(points=tuple(those))


def _for_each(values: Sequence[Any], count: int, name: str, of: str, default: int | None) -> Sequence[Any]:
    """One value for each box or point; none at all is the default for all, where there is one."""
    if not len(values) and default is not None:
        return [default] * count
    if len(values) != count:
        raise ValueError(f"expected one of {name} for each of {count} {of}, got {len(values)}")
    return values


def _embedded_frame(request: Any) -> Frame | None:
    if not len(request.image.data):
        return None
    stamp_ns = stamp_to_ns(request.stamp)
    frame = Frame(stamp_ns=stamp_to_ns(request.image.header.stamp), image=image_to_rgb(request.image))
    if stamp_ns not in (0, frame.stamp_ns):
        raise ValueError(f"stamp must be 0 or that of the embedded image {frame.stamp_ns} ns, got {stamp_ns} ns")
    return frame
