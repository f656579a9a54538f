# SPDX-License-Identifier: Apache-2.0
"""Requests of AddInstances: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs sensor_msgs")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from sensor_msgs.msg import RegionOfInterest  # noqa: E402

from maskrnn_ros.image_messages import fill_image, ns_to_stamp  # noqa: E402
from maskrnn_ros.limits import MAX_TOKEN  # noqa: E402
from maskrnn_ros.msg import Prompt as Message  # noqa: E402
from maskrnn_ros.prompts import Point, Prompt  # noqa: E402
from maskrnn_ros.ros.messages import mask_prompt  # noqa: E402
from maskrnn_ros.srv import AddInstances  # noqa: E402
from maskrnn_ros.tracker_node.requests import seed_from_request  # noqa: E402
from maskrnn_ros.tracking.prompted import MaskPrompt, PromptedInstance  # noqa: E402
from maskrnn_ros.types import Box  # noqa: E402

SIZE = (30, 40)
ROI = RegionOfInterest(x_offset=2, y_offset=3, width=10, height=5)
BOX = Box(2, 3, 12, 8)
DOT = np.zeros(SIZE, bool)
DOT[1, 1] = True


def prompted(*prompts: Message) -> tuple[PromptedInstance, ...]:
    seed, frame = seed_from_request(AddInstances.Request(prompts=prompts), SIZE)
    assert frame is None and not seed.distinct and seed.stamp_ns == 0
    return seed.prompted


def test_each_prompt_is_an_instance_with_its_id_name_box_and_points() -> None:
    points = (Point(x=1.5, y=2.5), Point(x=4.0, y=5.0, on_object=False))
    assert prompted(
        Message(box=ROI, name="cup"),
        Message(box=ROI, id=4, x=[3.0], y=[4.0]),
        Message(x=[1.5, 4.0], y=[2.5, 5.0], positive=[1, 0], name="can"),
    ) == (
        PromptedInstance(prompt=Prompt(box=BOX), name="cup"),
        PromptedInstance(prompt=Prompt(box=BOX, points=(Point(x=3.0, y=4.0),)), instance_id=4),
        PromptedInstance(prompt=Prompt(points=points), name="can"),
    )


def test_points_alone_with_an_id_may_all_be_beside_the_object() -> None:
    (item,) = prompted(Message(id=4, x=[3.0], y=[4.0], positive=[0]))
    beside = (Point(x=3.0, y=4.0, on_object=False),)
    assert item == PromptedInstance(prompt=Prompt(points=beside, is_correction=True), instance_id=4)


def test_a_mask_is_what_is_not_0_whatever_the_value_and_255_an_id_as_any_other() -> None:
    message = Message(id=255, name="nut")
    fill_image(message.mask, DOT.astype(np.uint16) * np.uint16(7), "mono16")
    for item in prompted(message, mask_prompt(DOT, 3)):
        assert isinstance(item.prompt, MaskPrompt)
        np.testing.assert_array_equal(item.prompt.mask, DOT)
    assert [(item.instance_id, item.name) for item in prompted(message)] == [(255, "nut")]


def test_an_image_of_its_own_gives_stamp_and_size() -> None:
    request = AddInstances.Request(prompts=[Message(box=ROI)])
    fill_image(request.image, np.zeros((10, 20, 3), np.uint8), "rgb8")
    ns_to_stamp(5, request.image.header.stamp)
    seed, frame = seed_from_request(request, SIZE)
    assert seed.stamp_ns == 5 and frame is not None and frame.size == (10, 20)
    request.prompts[0].box = RegionOfInterest(x_offset=20, y_offset=0, width=5, height=5)
    with pytest.raises(ValueError, match="box must overlap the 20x10 image"):
        seed_from_request(request, SIZE)
    request.prompts = [mask_prompt(DOT)]
    with pytest.raises(ValueError, match="mask must be 20x10 .width x height. like the image, got 40x30"):
        seed_from_request(request, SIZE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs a box or a point on the object, got neither"),
        ({"box": RegionOfInterest(width=0, height=4)}, "a box must hold a pixel, got x 0..0"),
        ({"box": ROI, "id": -2}, "ids of prompts must be >= 1, or 0 .*, got -2"),
        ({"box": ROI, "name": "x" * 65}, "name must have at most 64 characters, got 65"),
        ({"x": [1.0]}, "expected one y for each of 1 x, got 0"),
        ({"y": [1.0]}, "expected one y for each of 0 x, got 1"),
        ({"box": ROI, "positive": [1]}, "expected one positive for each of 0 x, got 1"),
        ({"x": [1.0], "y": [1.0], "positive": [2]}, "positive must be 1 .* or 0 .*, got 2"),
        ({"x": [1.0], "y": [1.0], "positive": [0]}, "needs a box or a point on the object"),
        ({"box": ROI, "mask": mask_prompt(DOT).mask}, "expected a mask alone, or a box and points, got both"),
        ({"x": [1.0], "y": [1.0], "mask": mask_prompt(DOT).mask}, "expected a mask alone"),
        ({"mask": mask_prompt(~DOT & DOT).mask}, "mask must mark at least one pixel"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused_by_its_number(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"prompts\[1\]: .*{message}"):
        prompted(Message(box=ROI), Message(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts": []}, "expected at least one prompt, got none"),
        ({"prompts": [Message(box=ROI, id=3), Message(box=ROI, id=3)]}, r"marked once.*\[3\]"),
        ({"prompts": [Message(x=[40.0], y=[1.0])]}, r"points must lie inside the 40x30 image, got \(40, 1\)"),
        ({"prompts": [Message(x=[float("nan")], y=[1.0])]}, r"points must lie inside .*, got \(nan, 1\)"),
        ({"prompts": [mask_prompt(DOT.T)]}, "mask must be 40x30 .width x height. like the image, got 30x40"),
        ({"token": "x" * (MAX_TOKEN + 1)}, "token must have at most 64 characters, got 65"),
        ({"token": "a\nb"}, "token must be a single line without control characters"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_from_request(AddInstances.Request(**{"prompts": [Message(box=ROI)], **fields}), SIZE)
