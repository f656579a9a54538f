# SPDX-License-Identifier: Apache-2.0
"""Pictures for people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskrnn_ros.overlay import colour, overlay_tracks
from maskrnn_ros.seed_ui.pictures import Scene, picture
from maskrnn_ros.types import Box, InstanceState, Track, Tracks

SMALL = (360, 640)


def tracked(size: tuple[int, int]) -> Tracks:
    """One instance in the lower right quarter, and one that is hidden."""
    height, width = size
    labels = np.zeros(size, np.int32)
    box = Box(width // 2, height // 2, width * 3 // 4, height * 3 // 4)
    labels[box.y0 : box.y1, box.x0 : box.x1] = 1
    mask = np.ones((box.height, box.width), np.bool_)
    none = np.zeros((0, 0), np.bool_)
    hidden = {"instance_id": 2, "state": InstanceState.OCCLUDED, "box": None, "mask": none}
    tracks = tuple(
        Track(
            name="",
            age=1,
            frames_unseen=0,
            score=0.9,
            visibility=1.0,
            velocity=None,
            probability=values["mask"].astype(np.float32),
            **values,
        )
        for values in ({"instance_id": 1, "state": InstanceState.TRACKING, "box": box, "mask": mask}, hidden)
    )
    return Tracks(stamp_ns=1, labels=labels, tracks=tracks)


def extents(changed: np.ndarray) -> tuple[int, ...]:
    """Rows and columns of the first and the last pixel that is set."""
    rows, columns = np.nonzero(changed)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("size", [(360, 640), (720, 1280), (1080, 1920), (1920, 1080)])
def test_titles_and_lines_are_as_large_a_part_of_every_large_picture(size: tuple[int, int]) -> None:
    def line_of_the_hidden(size: tuple[int, int]) -> np.ndarray:
        drawn = overlay_tracks(np.full((*size, 3), 90, np.uint8), tracked(size))
        return np.array(extents((drawn[: size[0] // 3] != 90).any(-1)))

    factor = max(size) / max(SMALL)
    np.testing.assert_allclose(line_of_the_hidden(size), line_of_the_hidden(SMALL) * factor, atol=2 * factor, rtol=0.05)
    drawn = overlay_tracks(np.full((*size, 3), 90, np.uint8), tracked(size))
    left = drawn[size[0] * 5 // 8, : size[1] // 2 + round(8 * factor)]  # across the left edge of the box
    assert (left == colour(1)).all(-1).sum() >= factor
    title = extents((drawn[size[0] // 3 : size[0] // 2 - round(2 * factor)] != 90).any(-1))
    assert title[1] - title[0] >= 8 * factor  # its height


def test_the_browser_s_picture_has_titles_of_the_same_share() -> None:
    boxes = {1: Box(960, 540, 1440, 810)}
    labels = np.zeros((1080, 1920), np.int32)
    labels[540:810, 960:1440] = 1
    scene = Scene(labels=labels, titles={1: "1 cup"}, boxes=boxes)
    whole = picture(np.full((1080, 1920, 3), 90, np.uint8), scene)
    scaled = picture(np.full((1080, 1920, 3), 90, np.uint8), scene, width=640)

    def title(data: bytes) -> np.ndarray:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        upper = decoded[: decoded.shape[0] // 2 - decoded.shape[1] // 320]
        return np.array(extents((np.abs(upper.astype(int) - 90) > 60).any(-1)))

    np.testing.assert_allclose(title(whole), 3 * title(scaled), atol=6)
