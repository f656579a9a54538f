# SPDX-License-Identifier: Apache-2.0
"""Boxes and points to masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from maskrnn_ros.prompts import GrabCut, Point, Prompt, PromptBackend, build_prompts
from maskrnn_ros.sections import PromptsConfig
from maskrnn_ros.types import Box


def built(name: str) -> PromptBackend:
    return build_prompts(PromptsConfig(backend=name))


CUT = built("grabcut")
SIZE = (150, 200)


def scene(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disc and a box of one colour on a shaded ground: image, mask of the disc, mask of the box."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    noise = np.random.default_rng(0).normal(0, 6, (*size, 3))
    image = 90 + 30 * (columns / size[1])[..., None] + noise
    disc = (rows - 0.45 * size[0]) ** 2 + (columns - 0.3 * size[1]) ** 2 < (0.2 * size[0]) ** 2
    block = np.zeros(size, bool)
    block[int(0.4 * size[0]) : int(0.8 * size[0]), int(0.65 * size[1]) : int(0.85 * size[1])] = True
    image[disc | block] = (220, 60, 40) + noise[disc | block]
    return np.clip(image, 0, 255).astype(np.uint8), disc, block


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def grown(box: Box | None, margin: int) -> Box:
    assert box is not None
    return Box(box.x0 - margin, box.y0 - margin, box.x1 + margin, box.y1 + margin)


@pytest.mark.parametrize("size", [SIZE, (301, 403), (61, 83)])
@pytest.mark.parametrize("margin", [0, 4])
def test_a_box_gives_the_object_in_it_and_nothing_outside(size: tuple[int, int], margin: int) -> None:
    image, disc, block = scene(size)
    for truth in (disc, block):
        box = grown(Box.of_mask(truth), margin)
        mask = CUT(image, Prompt(box=box))
        assert mask.shape == size and mask.dtype == np.bool_
        assert iou(mask, truth) > 0.9
        # an edge may be moved by a pixel of the scaled window
        found = Box.of_mask(mask)
        assert found is not None and grown(box, 2).union(found) == grown(box, 2)


def test_a_click_gives_the_one_object_that_it_is_on() -> None:
    image, disc, block = scene()
    mask = CUT(image, Prompt(points=(Point(x=60.5, y=67.5),)))
    assert iou(mask, disc) > 0.9 and not (mask & block).any()  # though that one looks the same
    both = CUT(image, Prompt(points=(Point(x=60.5, y=67.5), Point(x=150.5, y=90.5))))
    assert iou(both, disc | block) > 0.85


def test_a_point_beside_the_object_is_left_out() -> None:
    image, disc, block = scene()
    box = Box(20, 20, 180, 130)
    points = (Point(x=60.5, y=67.5), Point(x=150.5, y=90.5, on_object=False))
    assert (CUT(image, Prompt(box=box)) & block).sum() > 0.9 * block.sum()
    mask = CUT(image, Prompt(box=box, points=points))
    assert mask[67, 60] and not mask[90, 150]


def test_the_same_gives_the_same() -> None:
    image, disc, _ = scene()
    prompts = (Prompt(box=Box.of_mask(disc)), Prompt(points=(Point(x=60.5, y=67.5),)))
    for prompt in prompts:
        first = CUT(image, prompt)
        cv2.setRNGSeed(77)
        np.testing.assert_array_equal(CUT(image, prompt), first)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(box=Box(0, 0, 200, 150)),
        Prompt(box=Box(-50, -50, 400, 400)),
        Prompt(box=Box(199, 149, 200, 150)),
        Prompt(box=Box(10, 10, 11, 90)),
        Prompt(points=(Point(x=0.0, y=0.0),)),
        Prompt(points=(Point(x=199.99, y=149.99),)),
        Prompt(box=Box(10, 10, 12, 12), points=(Point(x=11.0, y=11.0, on_object=False),)),
        Prompt(points=(Point(x=5.0, y=5.0), Point(x=5.0, y=5.0, on_object=False))),
    ],
    ids=str,
)
def test_prompts_at_the_edge_of_sense_give_a_mask_or_none(prompt: Prompt) -> None:
    for image in (scene()[0], np.zeros((*SIZE, 3), np.uint8)):
        mask = CUT(image, prompt)
        assert mask.shape == SIZE
        for point in prompt.points:
            if not point.on_object:
                assert not mask[int(point.y), int(point.x)]


def test_an_image_of_one_pixel() -> None:
    assert CUT(np.zeros((1, 1, 3), np.uint8), Prompt(box=Box(0, 0, 1, 1))).shape == (1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompt(), "needs a box or a point on the object, got neither"),
        (lambda: Prompt(points=(Point(x=1, y=1, on_object=False),)), "got neither"),
        (lambda: CUT(scene()[0], Prompt(points=(Point(x=200, y=1),))), r"inside the 200x150 image, got \(200, 1\)"),
        (lambda: CUT(scene()[0], Prompt(points=(Point(x=float("nan"), y=1),))), r"got \(nan, 1\)"),
        (lambda: CUT(scene()[0], Prompt(box=Box(200, 0, 210, 9))), "box must overlap the 200x150 image"),
        (lambda: built("sam"), "prompt backend must be grabcut, learned or package.module:factory, got 'sam'"),
        (lambda: built("no.such:thing"), "'no.such:thing': ModuleNotFoundError: No module named 'no'"),
        (lambda: built("maskrnn_ros.prompts:Point"), "'maskrnn_ros.prompts:Point': TypeError: "),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_backend_of_ones_own_is_named_by_its_factory() -> None:
    assert isinstance(built("maskrnn_ros.prompts:GrabCut"), GrabCut)


def test_points_mend_the_mask_before() -> None:
    image, disc, block = scene()
    on, off = Point(x=150.5, y=90.5), Point(x=150.5, y=90.5, on_object=False)
    assert iou(CUT(image, Prompt(points=(on,), mask=disc)), disc | block) > 0.85, "a part that was missing"
    assert iou(CUT(image, Prompt(points=(off,), mask=disc | block)), disc) > 0.85, "another thing, alike"
    with pytest.raises(ValueError, match=r"mask must be 200x150 \(width x height\) like the image, got 3x2"):
        CUT(image, Prompt(points=(on,), mask=np.zeros((2, 3), bool)))
