# SPDX-License-Identifier: Apache-2.0
"""What looks like an object and is not it is neither looked for nor found, and goes where the flow takes it."""

import numpy as np
import pytest

from maskrnn_ros.config import Config
from maskrnn_ros.tracking import build_tracker, follow
from maskrnn_ros.tracking.look_alikes import GRID, at_cells, in_crops, moved, none_yet, seen_elsewhere
from maskrnn_ros.types import Frame, InstanceState, Seed

SIZE = (144, 256)
CELLS = (36, 64)


def a_map(*columns: int) -> np.ndarray:
    """Sure in some columns of the grid."""
    one = none_yet(1)
    one[0][:, list(columns)] = 1
    return one


def scores(*columns: int) -> np.ndarray:
    """High in some columns of the cells of stride 4."""
    one = np.zeros((1, *CELLS), np.float32)
    one[0][:, list(columns)] = 1
    return one


def after(maps: np.ndarray, found: np.ndarray, box: tuple[float, ...] = (0, 0, 40, 144)) -> np.ndarray:
    """Maps after a frame on which the object fills a box, pixels."""
    whole = np.ones((1, 128, 128), np.float32)
    return seen_elsewhere(maps, found, whole, np.array([box], np.float32), SIZE)


def test_a_map_goes_with_the_flow_and_nothing_comes_in_from_outside() -> None:
    flow = np.zeros((2, *CELLS), np.float32)
    flow[0] = -8.0  # backward: what is here was 8 pixels, two cells of the grid, to the left
    there = moved(a_map(0, 30, 62), flow)[0]
    assert np.flatnonzero(there[5] > 0.5).tolist() == [2, 32]


def test_what_scores_beside_the_object_is_known_after_a_frame_and_fades_when_it_scores_no_more() -> None:
    once = after(none_yet(1), scores(*range(50, 54)))
    sure = np.flatnonzero(at_cells(once, CELLS)[0, 10])
    assert set(range(50, 54)) <= set(sure) <= set(range(48, 56))
    faded = after(once, scores())
    assert not at_cells(faded, CELLS).any() and faded.max() > 0


def test_the_object_and_what_its_mask_may_miss_of_it_are_no_look_alikes() -> None:
    """A part that an arm has just uncovered scores, and must be free to join the mask on a later frame."""
    assert not after(none_yet(1), scores(*range(0, 16))).any()  # its mask ends at cell 10
    assert after(none_yet(1), scores(*range(18, 24))).any()


def test_where_the_map_is_sure_a_mask_beside_it_does_not_wear_it_away() -> None:
    maps = a_map(*range(10, 20))
    for _ in range(10):
        maps = after(maps, scores(*range(10, 20)), (0, 0, 40, 144))
    assert at_cells(maps, CELLS)[0, 5, 11:19].all()


def test_maps_are_seen_in_crops() -> None:
    crops = np.array([[64, 0, 128, 64]], np.float32)  # columns 16 to 32 of the grid
    inside = in_crops(a_map(*range(24, 40)), crops, SIZE, 32)[0]
    assert not inside[:, :15].any() and inside[:, 17:].all()
    assert in_crops(none_yet(3), np.repeat(crops, 3, 0), SIZE, 8).shape == (3, 8, 8)


def test_maps_of_many_are_those_of_each() -> None:
    maps = np.concatenate([a_map(30), a_map(50), none_yet(1)])
    flow = np.random.default_rng(0).normal(0, 3, (2, *CELLS)).astype(np.float32)
    np.testing.assert_array_equal(moved(maps, flow), np.concatenate([moved(one[None], flow) for one in maps]))
    assert moved(maps, flow).shape == (3, GRID, GRID)


# --- the tracker, with the networks that ship ---


def picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A striped ball rolls behind a board and out again; another one of its kind lies on the other side all along."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:180, :320]
    image = np.clip(random.normal(0, 6, (180, 320, 3)) + (90, 110, 80) + (x[..., None] / 8), 0, 255)
    stripes = np.where(((x // 4) % 2)[..., None] == 0, (200, 60, 40), (235, 210, 60))
    resting = (x - 262) ** 2 + (y - 100) ** 2 < 20**2
    centre = 50 + 4 * number
    ball = (x - centre) ** 2 + (y - 90) ** 2 < 18**2
    image[resting] = stripes[resting]
    image[ball] = np.roll(stripes, centre, 1)[ball]
    board = (x >= 118) & (x < 186)
    image[board] = (120 + random.normal(0, 20, (180, 320, 1)))[board].repeat(3, -1)
    return image.astype(np.uint8), ball & ~board


@pytest.mark.parametrize("knows", [True, False])
def test_one_of_its_kind_is_not_taken_for_what_is_hidden(knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the map it is: or this would not test it."""
    if not knows:
        monkeypatch.setattr(follow, "seen_elsewhere", lambda maps, *rest: maps)
    tracker, taken, hidden = build_tracker(Config()), 0, 0
    for number in range(34):
        image, ball = picture(number)
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=image)
        if number == 0:
            tracker.seed(Seed(stamp_ns=frame.stamp_ns, labels=ball.astype(np.int32)), frame)
            continue
        (track,) = tracker.step(frame).tracks
        if not ball.any():
            hidden += 1
            taken += track.state is InstanceState.TRACKING
    assert hidden >= 6
    assert (taken == 0) == knows
    assert not knows or track.state is InstanceState.TRACKING, "it is found when it comes out"
