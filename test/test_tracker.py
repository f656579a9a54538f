# SPDX-License-Identifier: Apache-2.0
"""The tracker of one video: it follows, and instances do not disturb each other."""

import dataclasses

import numpy as np
import pytest
import shipped
import world

from maskrnn_ros.config import with_values
from maskrnn_ros.quality import working_size
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.gate import box_of, boxes_of, enlarge, predicted_boxes, scaled_boxes
from maskrnn_ros.tracking.merge import Likely, merge
from maskrnn_ros.types import Box, Frame, InstanceState, Seed, Tracks


def run(tracker: Tracker, frames: int, seed: Seed | None = None) -> list[Tracks]:
    first = [tracker.seed(seed or world.seed(0), world.frame(0))]
    return first + [tracker.step(world.frame(number)) for number in range(1, frames)]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_with_the_true_flow_masks_are_true_to_the_pixel() -> None:
    for number, tracks in enumerate(run(world.exact_tracker(world.WARP_ONLY), 8)):
        np.testing.assert_array_equal(tracks.labels, world.labels(number))
        assert [track.instance_id for track in tracks.tracks] == [1, 2]
        assert [track.age for track in tracks.tracks] == [number, number]
        for track, shape in zip(tracks.tracks, world.TWO, strict=True):
            x, y = shape.x + shape.dx * number, shape.y + shape.dy * number
            assert track.box == Box(x, y, x + shape.width, y + shape.height)
            assert track.centroid == (x + shape.width / 2, y + shape.height / 2)
            assert track.score == pytest.approx(1.0, abs=1e-3)


def test_with_estimated_flow_it_follows_two_objects_that_move_differently() -> None:
    tracks = run(build_tracker(world.WARP_ONLY), 8)[-1]
    start, truth = world.labels(0), world.labels(7)
    for track in tracks.tracks:
        mask, true = tracks.labels == track.instance_id, truth == track.instance_id
        assert overlap(mask, true) > 0.5
        assert overlap(mask, true) > overlap(start == track.instance_id, true)
        assert track.box == Box.of_mask(mask)


def test_the_velocity_is_that_of_the_object() -> None:
    one, two = run(world.exact_tracker(world.WARP_ONLY), 5)[-1].tracks
    per_second = 1e9 / world.PERIOD_NS
    assert one.velocity == pytest.approx((2 * per_second, 0), rel=1e-3)
    assert two.velocity == pytest.approx((-1 * per_second, 1 * per_second), rel=1e-3)


def test_the_velocity_counts_pixels_of_the_input_at_a_smaller_working_size() -> None:
    def one_to_the_right(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        return shipped.still(current, previous) - np.array([1, 0], np.float32)[:, None, None]

    tracker = Tracker(with_values(world.WARP_ONLY, working_size=64), one_to_the_right)
    one = run(tracker, 2)[-1].tracks[0]  # a working pixel is two of the input
    assert one.velocity == pytest.approx((2e9 / world.PERIOD_NS, 0))


def test_the_seeded_frame_gives_back_the_seed_to_the_pixel_at_any_working_size() -> None:
    for size in (64, 100, 448):
        tracks = build_tracker(with_values(world.WARP_ONLY, working_size=size)).seed(world.seed(0), world.frame(0))
        np.testing.assert_array_equal(tracks.labels, world.labels(0))
        assert {track.state for track in tracks.tracks} == {InstanceState.SEEDED}
        assert {track.age for track in tracks.tracks} == {0}


@pytest.mark.parametrize("change", ["remove", "add", "correct"])
def test_changing_one_instance_leaves_the_state_of_the_others_bit_identical(change: str) -> None:
    alone, changed = build_tracker(world.WARP_ONLY), build_tracker(world.WARP_ONLY)
    alone.seed(world.seed(0, 1), world.frame(0))
    changed.seed(world.seed(0, 1) if change == "add" else world.seed(0), world.frame(0))
    for number in range(1, 7):
        alone.step(world.frame(number))
        changed.step(world.frame(number))
        if number == 3 and change == "remove":
            changed.remove([2])
        if number == 3 and change in ("add", "correct"):
            changed.adopt(changed.start(world.seed(3, 2), changed.newest))
    shipped.assert_same(alone.states[1], changed.states[1])
    assert tuple(changed.states) == ((1,) if change == "remove" else (1, 2))


def test_a_correction_replaces_the_mask_and_keeps_the_name() -> None:
    tracker = build_tracker(world.WARP_ONLY)
    tracker.seed(dataclasses.replace(world.seed(0), names={1: "cup", 2: "box"}), world.frame(0))
    tracker.step(world.frame(1))
    moved = np.zeros((world.HEIGHT, world.WIDTH), np.int32)
    moved[70:90, 5:25] = 1
    tracks = tracker.seed(Seed(stamp_ns=world.stamp_ns(2), labels=moved), world.frame(2))
    assert tracks.tracks[0].box == Box(5, 70, 25, 90)
    assert [track.name for track in tracks.tracks] == ["cup", "box"]
    assert [track.age for track in tracks.tracks] == [0, 2]


def test_the_same_frames_give_the_same_masks() -> None:
    one, other = (run(build_tracker(world.WARP_ONLY), 6) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)


def test_an_object_that_leaves_is_occluded_then_lost_with_an_empty_mask() -> None:
    leaving = (world.Shape(1, 100, 40, 16, 16, 6, 0),)
    tracker = world.exact_tracker(with_values(world.WARP_ONLY, presence__lost_after_frames=3), leaving)
    tracker.seed(world.seed(0, shapes=leaving), world.frame(0, leaving))
    seen = [tracker.step(world.frame(number, leaving)).tracks[0] for number in range(1, 16)]
    hidden = [track for track in seen if track.state != InstanceState.TRACKING]
    assert hidden, "it never left"
    assert [track.frames_unseen for track in hidden] == list(range(1, len(hidden) + 1))
    assert [track.state for track in hidden[:4]] == [InstanceState.OCCLUDED] * 3 + [InstanceState.LOST]
    for track in hidden:
        assert (track.box, track.area, track.score, track.centroid, track.velocity) == (None, 0, 0.0, None, None)


def test_an_instance_whose_pixels_others_won_is_reported_occluded() -> None:
    tracker = build_tracker(world.WARP_ONLY)
    tracker.seed(world.seed(0, 1), world.frame(0))
    doubled = Seed(stamp_ns=world.stamp_ns(0), labels=np.where(world.labels(0) == 1, 2, 0).astype(np.int32))
    tracker.adopt(tracker.start(doubled, tracker.newest))
    one, two = tracker.tracks().tracks  # equal probabilities: the smaller id wins every pixel
    assert (one.state, one.frames_unseen, one.area) == (InstanceState.SEEDED, 0, 480)
    assert (two.state, two.frames_unseen, two.area) == (InstanceState.OCCLUDED, 1, 0)


def test_an_instance_whose_pixels_others_keep_is_lost_in_the_end() -> None:
    tracker = world.exact_tracker(with_values(world.WARP_ONLY, presence__lost_after_frames=2))
    tracker.seed(world.seed(0, 1), world.frame(0))
    twin = Seed(stamp_ns=world.stamp_ns(0), labels=np.where(world.labels(0) == 1, 2, 0).astype(np.int32))
    tracker.adopt(tracker.start(twin, tracker.newest))
    seen = [tracker.step(world.frame(number)).tracks[1] for number in range(1, 5)]
    assert [track.frames_unseen for track in seen] == [1, 2, 3, 4]
    assert [track.state for track in seen] == [InstanceState.OCCLUDED] * 2 + [InstanceState.LOST] * 2


@pytest.mark.parametrize("enabled", [True, False])
def test_what_lies_outside_the_gate_is_forgotten_unless_it_is_off(enabled: bool) -> None:
    config = with_values(world.WARP_ONLY, working_size=64, gate__enabled=enabled)
    tracker = Tracker(config, shipped.still)
    labels = world.labels(0, world.TWO[:1])
    labels[80, 100] = 1  # a quarter of a working pixel: too weak for the box, and far from it
    tracker.seed(Seed(stamp_ns=1, labels=labels), world.frame(0))
    assert tracker.states[1].probability[40, 50] == 0.25
    tracker.step(world.frame(1))
    assert float(tracker.states[1].probability[40, 50]) == pytest.approx(0 if enabled else 0.25, abs=1e-4)
    assert tracker.states[1].area == 12 * 10


def test_what_is_too_small_is_hidden_and_does_not_count_as_usual() -> None:
    leaving = (world.Shape(1, 100, 40, 16, 16, 6, 0),)
    tracker = world.exact_tracker(with_values(world.WARP_ONLY, presence__min_pixels=100), leaving)
    tracker.seed(world.seed(0, shapes=leaving), world.frame(0, leaving))
    for number in (1, 2, 3):
        tracker.step(world.frame(number, leaving))
    usual = tracker.states[1].usual_area
    tracks = tracker.step(world.frame(4, leaving))  # 4 x 16 pixels are left in the image
    assert (tracks.tracks[0].state, tracks.tracks[0].area) == (InstanceState.OCCLUDED, 0)
    assert not tracks.labels.any()
    assert (tracker.states[1].area, tracker.states[1].usual_area) == (64, usual)


def test_visibility_falls_as_the_object_leaves() -> None:
    leaving = (world.Shape(1, 100, 40, 16, 16, 4, 0),)
    tracker = world.exact_tracker(world.WARP_ONLY, leaving)
    tracker.seed(world.seed(0, shapes=leaving), world.frame(0, leaving))
    shares = [tracker.step(world.frame(number, leaving)).tracks[0].visibility for number in range(1, 7)]
    assert shares[:3] == [1.0] * 3 and shares[3:] == sorted(shares[3:], reverse=True) and shares[-1] < 0.4


def test_sizes_that_differ_are_refused_and_nothing_changes() -> None:
    tracker = build_tracker(world.WARP_ONLY)
    tracker.seed(world.seed(0), world.frame(0))
    states = tracker.states
    small = Frame(stamp_ns=world.stamp_ns(1), image=np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ValueError, match="frame must be 128x96 .* got 60x50"):
        tracker.step(small)
    with pytest.raises(ValueError, match="seed must be 128x96 .* got 60x50"):
        tracker.seed(Seed(stamp_ns=1, labels=np.ones((50, 60), np.int32)), world.frame(0))
    assert tracker.states is states


def test_removing_an_unknown_instance_removes_none() -> None:
    tracker = build_tracker(world.WARP_ONLY)
    tracker.seed(world.seed(0), world.frame(0))
    with pytest.raises(KeyError, match=r"no instance \[7\]"):
        tracker.remove([1, 7])
    assert tuple(tracker.states) == (1, 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 2), (481, 853)])
def test_odd_and_tiny_images_pass(size: tuple[int, int]) -> None:
    tracker = build_tracker(world.WARP_ONLY)
    image = world.texture(5, *size)
    whole = Seed(stamp_ns=1, labels=np.ones(size, np.int32))
    tracker.seed(whole, Frame(stamp_ns=1, image=image))
    assert tracker.step(Frame(stamp_ns=2, image=image)).labels.shape == size


def test_before_the_first_frame_there_are_no_tracks() -> None:
    with pytest.raises(RuntimeError, match="no frame yet"):
        build_tracker(world.WARP_ONLY).tracks()


def test_without_instances_no_flow_is_computed() -> None:
    def no_flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        raise AssertionError("flow was computed")

    tracker = Tracker(world.WARP_ONLY, no_flow)
    assert [tracker.step(world.frame(number)).tracks for number in range(3)] == [(), (), ()]


def test_merge_gives_every_pixel_to_the_likeliest() -> None:
    rows = [[0.6, 0.2, 0.49, 0.9]], [[0.4, 0.48, 0.8]], [[0.6, 0.5, 0.49, 0.7]]
    boxes = np.array([[0, 0, 4, 1], [1, 0, 4, 1], [0, 0, 4, 1]])
    likely = Likely(np.array([1, 2, 3]), boxes, [np.array(row, np.float32) for row in rows])
    expected = [[1, 3, 0, 1]]
    assert merge(likely, (1, 4)).tolist() == expected
    apart = [Likely(likely.ids[k : k + 1], boxes[k : k + 1], likely.planes[k : k + 1]) for k in (2, 0, 1)]
    assert merge(Likely.joined(apart), (1, 4)).tolist() == expected


@pytest.mark.parametrize(
    ("box", "factor", "expected"),
    [
        (Box(10, 10, 18, 14), 1.0, Box(10, 10, 18, 14)),
        (Box(10, 10, 18, 14), 1.25, Box(9, 9, 19, 15)),
        (Box(0, 0, 8, 4), 1.5, Box(0, 0, 10, 5)),
        (Box(90, 50, 100, 60), 2.0, Box(85, 45, 100, 60)),
    ],
)
def test_enlarging_is_about_the_centre_and_clipped(box: Box, factor: float, expected: Box) -> None:
    assert enlarge(box, factor, (60, 100)) == expected


def test_the_box_of_nothing_is_none() -> None:
    assert box_of(np.full((4, 4), 0.49)) is None
    assert box_of(np.eye(4)) == Box(0, 0, 4, 4)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((480, 854), 448, (252, 448)), ((854, 480), 448, (448, 252)), ((10, 20), 448, (10, 20)), ((1, 4000), 64, (1, 64))],
)
def test_the_working_size_keeps_the_aspect_and_never_grows(
    size: tuple[int, int], longest: int, expected: tuple[int, int]
) -> None:
    assert working_size(size, longest) == expected


def test_boxes_of_masks_are_those_of_what_is_likely_or_of_the_most_there_is() -> None:
    masks = np.zeros((2, 6, 8), np.float32)
    masks[0, 1:3, 2:5], masks[0, 4, 7] = 0.9, 0.4
    masks[1, 5, 0], masks[1, 0, 0] = 0.3, 0.2  # a thin object fills no pixel
    assert boxes_of(masks).tolist() == [[2, 1, 5, 3], [0, 5, 1, 6]]


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_predicted_boxes_are_those_of_the_training(factor: float) -> None:
    torch = pytest.importorskip("torch")
    from maskrnn_ros.model.torch import crops

    random = np.random.default_rng(0)
    corners = random.uniform(-20, 60, (5, 2))
    priors = np.concatenate([corners, corners + random.uniform(1, 50, (5, 2))], axis=1).astype(np.float32)
    deltas = random.normal(0, 1.5, (5, 4)).astype(np.float32)  # some of them are cut
    expected = crops.scale_boxes(crops.apply_deltas(torch.from_numpy(priors), torch.from_numpy(deltas)), factor)
    np.testing.assert_allclose(scaled_boxes(predicted_boxes(priors, deltas), factor), expected, rtol=1e-5, atol=1e-4)
