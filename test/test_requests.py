# SPDX-License-Identifier: Apache-2.0
"""Requests of AddInstances: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs sensor_msgs")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from sensor_msgs.msg import RegionOfInterest  # noqa: E402

from maskrnn_ros.prompts import Point, Prompt  # noqa: E402
from maskrnn_ros.ros.images import fill_image, ns_to_stamp  # noqa: E402
from maskrnn_ros.ros.requests import seed_from_request  # noqa: E402
from maskrnn_ros.srv import AddInstances  # noqa: E402
from maskrnn_ros.tracking.prompted import PromptedInstance, PromptSeed  # noqa: E402
from maskrnn_ros.types import Box, Seed  # noqa: E402

SIZE = (30, 40)
ROI = RegionOfInterest(x_offset=2, y_offset=3, width=10, height=5)
BOX = Box(2, 3, 12, 8)


def request(mask: np.ndarray | None = None, **fields: Any) -> AddInstances.Request:
    message = AddInstances.Request()
    if mask is not None:
        fill_image(message.mask, mask.astype(np.uint16), "mono16")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def prompted(**fields: Any) -> tuple[PromptedInstance, ...]:
    seed, frame = seed_from_request(request(**fields), SIZE)
    assert isinstance(seed, PromptSeed) and seed.masks is None and frame is None and not seed.distinct
    return seed.prompted


def test_every_box_without_an_id_is_an_instance_and_all_points_without_one_are_one() -> None:
    found = prompted(
        boxes=[ROI, ROI],
        points_x=[1.5, 4.0],
        points_y=[2.5, 5.0],
        point_labels=[1, 0],
        label_ids=[0, 0],
        labels=["cup", "can"],
    )
    points = (Point(x=1.5, y=2.5), Point(x=4.0, y=5.0, on_object=False))
    assert found == (
        PromptedInstance(prompt=Prompt(box=BOX), name="cup"),
        PromptedInstance(prompt=Prompt(box=BOX), name="can"),
        PromptedInstance(prompt=Prompt(points=points)),
    )


def test_box_and_points_of_one_id_are_one_prompt() -> None:
    found = prompted(
        boxes=[ROI],
        box_ids=[4],
        points_x=[3.0, 9.0],
        points_y=[4.0, 9.0],
        point_ids=[4, 6],
        label_ids=[6],
        labels=["x"],
    )
    assert found == (
        PromptedInstance(prompt=Prompt(box=BOX, points=(Point(x=3.0, y=4.0),)), instance_id=4),
        PromptedInstance(prompt=Prompt(points=(Point(x=9.0, y=9.0),)), instance_id=6, name="x"),
    )


def test_masks_alone_are_a_seed_and_with_boxes_they_go_along() -> None:
    mask = np.zeros(SIZE)
    mask[1, 1] = 3
    alone, _ = seed_from_request(request(mask, label_ids=[3], labels=["nut"]), SIZE)
    assert isinstance(alone, Seed) and alone.names == {3: "nut"}
    both, _ = seed_from_request(request(mask, boxes=[ROI], label_ids=[3, 0], labels=["nut", "cup"]), None)
    assert isinstance(both, PromptSeed) and both.masks is not None
    assert (both.masks.ids, both.masks.names) == ((3,), {3: "nut"})
    assert both.prompted == (PromptedInstance(prompt=Prompt(box=BOX), name="cup"),)


def test_an_image_of_its_own_gives_stamp_and_size() -> None:
    message = request(boxes=[ROI])
    fill_image(message.image, np.zeros((10, 20, 3), np.uint8), "rgb8")
    ns_to_stamp(5, message.image.header.stamp)
    seed, frame = seed_from_request(message, SIZE)
    assert seed.stamp_ns == 5 and frame is not None and frame.size == (10, 20)
    message.boxes = [RegionOfInterest(x_offset=20, y_offset=0, width=5, height=5)]
    with pytest.raises(ValueError, match="box must overlap the 20x10 image"):
        seed_from_request(message, SIZE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "expected a mask, boxes or points, got none of them"),
        ({"boxes": [ROI], "box_ids": [0, 0]}, "expected one of box_ids for each of 1 boxes, got 2"),
        ({"box_ids": [1]}, "expected one of box_ids for each of 0 boxes, got 1"),
        ({"boxes": [RegionOfInterest(width=0, height=4)]}, "a box must hold a pixel, got x 0..0"),
        ({"boxes": [ROI, ROI], "box_ids": [3, 3]}, r"marked once.*\[3\]"),
        ({"boxes": [ROI], "box_ids": [-2]}, "ids of prompts must be >= 1, or 0 .*, got -2"),
        ({"points_x": [1.0]}, "expected one of points_y for each of 1 points_x, got 0"),
        ({"points_x": [1.0], "points_y": [1.0], "point_labels": [2]}, "point_labels must be 1 .* or 0 .*, got 2"),
        ({"points_x": [1.0], "points_y": [1.0], "point_labels": [0]}, "needs a box or a point on the object"),
        ({"points_x": [40.0], "points_y": [1.0]}, r"points must lie inside the 40x30 image, got \(40, 1\)"),
        ({"points_x": [float("nan")], "points_y": [1.0]}, r"points must lie inside .*, got \(nan, 1\)"),
        ({"boxes": [ROI], "label_ids": [1]}, "expected one label for each of 1 label_ids, got 0"),
        ({"boxes": [ROI], "label_ids": [9], "labels": ["a"]}, r"among the ids of the request \[\], got \[9\]"),
        ({"boxes": [ROI], "label_ids": [0, 0], "labels": ["a", "b"]}, "0 for each of 1 new prompts, got 2"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_from_request(request(**fields), SIZE)
