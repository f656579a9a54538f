# SPDX-License-Identifier: Apache-2.0
"""What comes from outside is checked at the border."""

import dataclasses
import doctest
import importlib

import numpy as np
import pytest

from maskrnn_ros.types import Box, Frame, InstanceState, Seed, Track


@pytest.mark.parametrize("stamp", [0, -1])
def test_a_frame_needs_a_stamp(stamp: int) -> None:
    with pytest.raises(ValueError, match=f"stamp must be > 0 ns, got {stamp}"):
        Frame(stamp_ns=stamp, image=np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8), np.zeros((2, 2, 3))],
)
def test_a_frame_is_rgb_uint8(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \(H, W, 3\), got"):
        Frame(stamp_ns=1, image=image)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2), np.int32), "at least one pixel"),
        (np.zeros((0, 2), np.int32), "at least one pixel"),
        (np.array([[0, -3]], np.int32), r"ids must lie in 1..32767 .*, got -3..0"),
        (np.array([[0, 32768]], np.int32), "got 0..32768"),
        (np.ones((2, 2), np.uint8), r"labels must be int32 \(H, W\), got uint8"),
        (np.ones((2, 2, 1), np.int32), r"got int32 \(2, 2, 1\)"),
    ],
)
def test_a_seed_marks_instances(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Seed(stamp_ns=1, labels=labels)


def test_the_ids_of_a_seed_ascend() -> None:
    assert Seed(stamp_ns=0, labels=np.array([[9, 0, 2, 9]], np.int32)).ids == (2, 9)


@pytest.mark.parametrize("corners", [(0, 0, 0, 1), (3, 0, 2, 1), (0, 5, 1, 5)])
def test_a_box_holds_a_pixel(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="a box must hold a pixel"):
        Box(*corners)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [([], None), ([(0, 0)], Box(0, 0, 1, 1)), ([(3, 5)], Box(5, 3, 6, 4)), ([(1, 4), (2, 0)], Box(0, 1, 5, 3))],
)
def test_the_box_of_a_mask_is_half_open(pixels: list[tuple[int, int]], expected: Box | None) -> None:
    mask = np.zeros((4, 6), bool)
    for v, u in pixels:
        mask[v, u] = True
    assert Box.of_mask(mask) == expected
    if expected:
        assert mask[expected.slices].sum() == mask.sum()


@pytest.mark.parametrize(
    "name", ["types", "config", "flow.warp", "tracking.gate", "quality", "metrics.davis", "factory"]
)
def test_the_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"maskrnn_ros.{name}"))
    assert result.attempted and not result.failed


def test_iou_of_boxes() -> None:
    assert Box(0, 0, 4, 4).iou(Box(0, 0, 4, 4)) == 1
    assert Box(0, 0, 4, 4).iou(Box(4, 0, 8, 4)) == Box(0, 0, 4, 4).iou(Box(9, 9, 12, 12)) == 0
    assert Box(0, 0, 4, 4).iou(Box(2, 1, 6, 5)) == 6 / (32 - 6)


def test_a_probability_may_be_made_when_it_is_first_read() -> None:
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.full((2, 3), 0.75, np.float32)

    given = {"instance_id": 1, "name": "", "state": InstanceState.TRACKING, "age": 1, "frames_unseen": 0, "score": 0.5}
    rest = {"visibility": 1.0, "box": Box(0, 0, 3, 2), "mask": np.ones((2, 3), np.bool_), "velocity": None}
    track = Track(**given, **rest, probability=make)
    assert not made
    assert (track.probability == 0.75).all() and track.probability is track.probability
    assert dataclasses.replace(track, name="cup").probability is track.probability
    assert made == [1]
    array = np.zeros((2, 3), np.float32)
    assert Track(**given, **rest, probability=array).probability is array
    with pytest.raises(TypeError, match="probability"):
        Track(**given, **rest)
