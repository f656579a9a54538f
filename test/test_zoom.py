# SPDX-License-Identifier: Apache-2.0
"""Small instances in windows of a larger image: what that wins, and what stays as it is for all others."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import world
from shipped import CONFIG, assert_same, engine, overlap

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import build_flow
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.tracking.state_file import from_bytes, to_bytes
from maskrnn_ros.tracking.zoom import SIDES, Window, is_near, near_views
from maskrnn_ros.types import Box, Frame, InstanceState, Seed, Tracks

SHAPES = (
    world.Shape(1, 8, 8, 44, 40, 1, 0),
    world.Shape(2, 84, 54, 20, 24, 2, 0),
    world.Shape(3, 60, 56, 22, 22, 1, 0),
)
"""The first is large; the others are small, side by side."""

PLAIN = with_values(CONFIG, working_size=64, catch_up__mode="exact")
ZOOM = with_values(PLAIN, zoom__size=128, zoom__below=16)
"""At the working size the small ones have 12 pixels, which is less than 16, and the large one 22."""


@functools.cache
def picture(number: int) -> np.ndarray:
    return world.image(number, SHAPES)


def frame(number: int, ignored: np.ndarray | None = None) -> Frame:
    return Frame(stamp_ns=world.stamp_ns(number), image=picture(number), ignored=ignored)


def marked(number: int, *ids: int) -> Seed:
    return world.seed(number, *ids, shapes=SHAPES)


def build(config: Config) -> Tracker:
    return Tracker(config, build_flow(config.flow), engine(), threads=1)


def run(config: Config, *ids: int, frames: int = 6) -> tuple[Tracker, tuple[Tracks, ...]]:
    """A tracker and its tracks of the frames after the seed."""
    tracker = build(config)
    tracker.seed(marked(0, *ids), frame(0))
    return tracker, tuple(tracker.step(frame(number)) for number in range(1, frames))


def mean_overlap(tracks: tuple[Tracks, ...], i: int) -> float:
    truth = [world.labels(number, SHAPES) == i for number in range(1, len(tracks) + 1)]
    return float(np.mean([overlap(found.labels == i, true) for found, true in zip(tracks, truth, strict=True)]))


def test_small_instances_are_followed_in_the_larger_image_and_large_ones_as_they_were() -> None:
    (plain, without), (zoomed, with_zoom) = run(PLAIN), run(ZOOM)
    assert plain.newest is not None and plain.newest.fine is None
    assert zoomed.newest is not None and zoomed.newest.fine is not None
    assert [is_near(zoomed.states[i], zoomed.newest) for i in (1, 2, 3)] == [False, True, True]
    assert not any(is_near(state, plain.newest) for state in plain.states.values())
    for i in (2, 3):
        assert mean_overlap(with_zoom, i) > mean_overlap(without, i) + 0.03
        assert mean_overlap(with_zoom, i) > 0.85
    assert mean_overlap(with_zoom, 1) == pytest.approx(mean_overlap(without, 1), abs=0.01)


def test_without_small_instances_the_zoom_changes_nothing() -> None:
    (plain, without), (zoomed, with_zoom) = run(PLAIN, 1), run(ZOOM, 1)
    assert_same(plain.moment, zoomed.moment)
    assert_same(without[-1], with_zoom[-1])


def test_an_image_without_more_pixels_has_no_larger_one() -> None:
    tracker, _ = run(with_values(ZOOM, working_size=128), frames=2)
    assert tracker.newest is not None and tracker.newest.fine is None


def test_velocities_count_pixels_of_the_input() -> None:
    """The flow is estimated; counted in other pixels they would be half of that or less."""
    _, tracks = run(ZOOM, frames=4)
    second = next(track for track in tracks[-1].tracks if track.instance_id == 2)
    assert second.velocity == pytest.approx((2e9 / world.PERIOD_NS, 0), abs=16)


@pytest.mark.parametrize("change", ["added", "removed"])
def test_what_happens_to_a_small_one_leaves_the_others_as_they_are_on_that_frame(change: str) -> None:
    ids = (1, 2) if change == "added" else (1, 2, 3)
    changed, untouched = run(ZOOM, *ids, frames=3)[0], run(ZOOM, *ids, frames=3)[0]
    untouched.step(frame(3))
    if change == "added":
        changed.seed(marked(3, 3), frame(3))
    else:
        changed.remove([3])
        changed.step(frame(3))
    for i in (1, 2):
        assert_same(untouched.states[i], changed.states[i], str(i))


def test_small_ones_are_shown_to_the_others_and_they_to_them() -> None:
    """Else the test above would show nothing."""
    alone, both = run(ZOOM, 2, frames=3)[0], run(ZOOM, 2, 3, frames=3)[0]
    assert not np.array_equal(alone.states[2].patch.full, both.states[2].patch.full)
    large, all_of_them = run(ZOOM, 1, frames=3)[0], run(ZOOM, frames=3)[0]
    assert not np.array_equal(large.states[1].patch.full, all_of_them.states[1].patch.full)


class Bench:
    """A session, and all that it reported."""

    def __init__(self, config: Config = ZOOM, saved: Saved | None = None) -> None:
        self.config = config
        self.outcomes: list[SeedOutcome] = []
        self.kept: list[Saved] = []
        self.ids = IdBook()
        if saved is not None:
            self.ids.take_up([one.instance_id for one in saved.instances], saved.used)
        keep = self.kept.append
        self.session = Session(config, build, self.ids, self.outcomes.append, saved=saved, keep=keep)

    def seed(self, seed: Seed) -> None:
        self.session.seed(SeedRequest(ticket=None, admission=self.ids.admit(seed, self.config), arrived=0.0))

    def images(self, *numbers: int) -> tuple[Tracks, ...]:
        return tuple(self.session.process(frame(number)) for number in numbers)


def test_a_late_seed_of_a_small_one_ends_up_where_one_in_time_would_be() -> None:
    in_time, late = Bench(), Bench()
    for bench in (in_time, late):
        bench.seed(marked(0, 1, 2))
    in_time.seed(marked(1, 3))
    in_time.images(0, 1, 2, 3)
    late.images(0, 1, 2, 3)
    late.seed(marked(1, 3))
    assert late.outcomes[-1].status == SeedStatus.APPLIED
    assert_same(in_time.session.tracker.moment, late.session.tracker.moment)
    assert_same(in_time.images(4, 5), late.images(4, 5))


def test_a_late_seed_that_skips_is_followed_closely_too() -> None:
    bench = Bench(with_values(ZOOM, catch_up__mode="skip"))
    bench.seed(marked(0, 1, 2))
    bench.images(0, 1, 2, 3)
    bench.seed(marked(1, 3))
    while bench.session.catching_up:
        bench.session.catch_up()
    (tracks,) = bench.images(4)
    newest = bench.session.tracker.newest
    assert newest is not None and is_near(bench.session.states[3], newest)
    assert overlap(tracks.labels == 3, world.labels(4, SHAPES) == 3) > 0.8


def test_the_buffer_counts_the_larger_images() -> None:
    plain, zoomed = Bench(PLAIN), Bench()
    for bench in (plain, zoomed):
        bench.images(0, 1)
    assert zoomed.session.buffer.nbytes - plain.session.buffer.nbytes == 2 * picture(0).nbytes


def test_small_ones_are_followed_closely_after_a_restart() -> None:
    before = Bench()
    before.seed(marked(0))
    before.images(0, 1, 2)
    after = Bench(saved=from_bytes(to_bytes(before.kept[-1])))
    tracks = after.images(3, 4)[-1]
    newest = after.session.tracker.newest
    assert newest is not None
    assert [is_near(after.session.states[i], newest) for i in (1, 2, 3)] == [False, True, True]
    for i in (2, 3):
        assert overlap(tracks.labels == i, world.labels(4, SHAPES) == i) > 0.75


def test_what_was_saved_without_a_zoom_is_followed_as_it_was() -> None:
    before = Bench(PLAIN)
    before.seed(marked(0))
    before.images(0, 1)
    after = Bench(saved=from_bytes(to_bytes(before.kept[-1])))
    after.images(2, 3)
    newest = after.session.tracker.newest
    assert newest is not None and newest.fine is not None
    assert not any(is_near(state, newest) for state in after.session.states.values())


def test_what_grows_out_of_its_window_is_followed_in_the_working_image() -> None:
    tracker, _ = run(ZOOM, 2, frames=2)
    state, newest = tracker.states[2], tracker.newest
    assert newest is not None and state.known is not None
    crop = np.array([0, 0, 48, 48], np.float32)  # of a working image of 64 x 48
    assert not Window.holds(crop, newest)
    grown = dataclasses.replace(state.known.carried, crop=crop)
    tracker.adopt({2: dataclasses.replace(state, known=dataclasses.replace(state.known, carried=grown))})
    tracker.step(frame(2))
    moved = tracker.states[2]
    assert not is_near(moved, newest)
    assert moved.usual_area == pytest.approx(state.usual_area / 4, rel=0.1)


@pytest.mark.parametrize(("unseen", "left"), [(0, 32), (1, 0), (2, 32)])
def test_a_lost_one_is_looked_for_where_it_was_and_by_turns_elsewhere_in_the_frame(unseen: int, left: int) -> None:
    tracker, _ = run(ZOOM, 2, frames=2)
    newest, state = tracker.newest, dataclasses.replace(tracker.states[2], frames_unseen=unseen)
    assert newest is not None
    corner = SimpleNamespace(search=lambda state, frame, config: np.array([0, 0, 10, 10], np.float32))
    flow = build_flow(ZOOM.flow)
    views = near_views({2: state}, newest, newest, flow, corner, ZOOM, None)  # type: ignore[arg-type]
    assert views[2].window.box == Box(left, 0, left + 96, 96)


def test_a_small_one_behind_an_ignore_mask_is_hidden_and_found_again() -> None:
    tracker, _ = run(ZOOM, 2, frames=3)
    everything = np.ones((world.HEIGHT, world.WIDTH), np.bool_)
    hidden = tracker.step(frame(3, everything)).tracks[0]
    assert hidden.state == InstanceState.OCCLUDED and hidden.box is None
    tracks = [tracker.step(frame(number)) for number in (4, 5, 6)]
    assert any(found.tracks[0].state == InstanceState.TRACKING for found in tracks)


def test_part_of_an_ignore_mask_holds_in_a_window() -> None:
    left = np.zeros((world.HEIGHT, world.WIDTH), np.bool_)
    left[:, :90] = True
    tracker, _ = run(ZOOM, 2, frames=3)
    found = tracker.step(frame(3, left)).labels
    assert found.any() and not found[left].any()


@pytest.mark.parametrize("crop", [(0, 0, 30, 30), (480, 250, 510, 280), (200, 100, 260, 160), (-20, -20, 5, 5)])
def test_windows_lie_in_the_image_on_a_grid_and_say_where_they_are(crop: tuple[float, ...]) -> None:
    tracker = build(with_values(CONFIG, working_size=512, zoom__size=1920))
    large = tracker.prepare(Frame(stamp_ns=1, image=np.zeros((1080, 1920, 3), np.uint8)))
    place = np.array(crop, np.float32)
    window = Window.around(place, large)
    box = window.box
    assert box.width == box.height and box.width in SIDES and box.width >= 1.5 * min(crop[2] - crop[0], 90) * 3.75
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1920 and box.y1 <= 1080
    assert window.outward(window.inward(place)) == pytest.approx(place, abs=1e-3)
    assert window.place == pytest.approx(np.array([box.x0, box.y0, box.x1, box.y1]) * 512 / 1920, abs=1e-3)
    part = window.of(large)
    assert part.size_of_work == (box.height, box.width) and part.fine is None


def test_the_same_images_give_the_same_masks() -> None:
    (one, first), (other, second) = run(ZOOM), run(ZOOM)
    assert_same(one.moment, other.moment)
    assert_same(first, second)
