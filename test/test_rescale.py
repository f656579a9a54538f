# SPDX-License-Identifier: Apache-2.0
"""Instances go on when the working size or the flow changes between two frames."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import shipped
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from test_session import Bench

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.files import read_frame, read_labels
from maskrnn_ros.flow import build_flow
from maskrnn_ros.tracking import InstanceState, PreparedFrame, Tracker, build_tracker
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.rescale import rescaled_frame, rescaled_states
from maskrnn_ros.tracking.session import SeedStatus
from maskrnn_ros.types import Frame, InstanceStatus, Seed

SCALE = 4
"""The world is small; here it is seen from near."""


def large(picture: np.ndarray, method: int = cv2.INTER_CUBIC) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width * SCALE, height * SCALE), interpolation=method)


def frame(number: int) -> Frame:
    return Frame(stamp_ns=world.stamp_ns(number), image=large(world.image(number)))


def labels(number: int) -> np.ndarray:
    return large(world.labels(number), cv2.INTER_NEAREST).astype(np.int32)


def seed(number: int, *ids: int) -> Seed:
    exact = labels(number)
    return Seed(stamp_ns=world.stamp_ns(number), labels=np.where(np.isin(exact, ids), exact, 0) if ids else exact)


def ious(found: np.ndarray, number: int) -> list[float]:
    truth = labels(number)
    return [float(((found == i) & (truth == i)).sum() / ((found == i) | (truth == i)).sum()) for i in (1, 2)]


class KnownFlow:
    """The true flow to the frame before, at whatever size; a test says which frame it is."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        height, width = current.shape[:2]
        assert previous.shape == current.shape
        ids, earlier = (
            cv2.resize(world.labels(number).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            for number in (self.number, self.number - 1)
        )
        flow = np.zeros((2, height, width), np.float32)
        flow[:, (ids == 0) & (earlier != 0)] = 1e4  # what was hidden comes from nowhere
        for shape in world.TWO:
            step = [[-shape.dx * width / world.WIDTH], [-shape.dy * height / world.HEIGHT]]
            flow[:, ids == shape.instance_id] = step
        return flow


@pytest.mark.parametrize("sizes", [{3: 384, 7: 512}, {0: 333, 4: 201, 6: 512}])
def test_masks_stay_where_the_flow_carries_them_across_steps_down_and_up(sizes: dict[int, int]) -> None:
    flow = KnownFlow()
    tracker = Tracker(with_values(world.WARP_ONLY, working_size=512), flow)
    tracker.seed(seed(0), frame(0))
    for flow.number in range(1, 10):
        if flow.number - 1 in sizes:
            picture = frame(flow.number - 1) if flow.number % 2 else None
            tracker.configure(with_values(tracker.config, working_size=sizes[flow.number - 1]), picture)
        tracks = tracker.step(frame(flow.number))
        assert [(t.instance_id, t.status) for t in tracks.tracks] == [(i, InstanceStatus.TRACKING) for i in (1, 2)]
        assert min(ious(tracks.labels, flow.number)) > 0.9


def with_networks(config: Config) -> Tracker:
    """The networks, and the flow that is estimated."""
    return shipped.tracker(config, flow=build_flow(config.flow))


CLIP = Path(__file__).resolve().parent.parent / "maskrnn_ros" / "data" / "tabletop"


def j_of_clip(config: Config, sizes: Mapping[int, int], frames: int = 9) -> list[float]:
    """Mean J on every frame of the clip that ships; the working size changes after some of them."""
    tracker = with_networks(config)
    files = zip(sorted(CLIP.glob("JPEGImages/*/*.jpg")), sorted(CLIP.glob("Annotations/*/*.png")), strict=True)
    found = []
    for number, (picture, annotation) in enumerate(itertools.islice(files, frames)):
        truth = read_labels(annotation).astype(np.int32)
        now = Frame(stamp_ns=world.stamp_ns(number), image=read_frame(picture))
        tracks = tracker.step(now) if number else tracker.seed(Seed(stamp_ns=now.stamp_ns, labels=truth), now)
        assert [t.instance_id for t in tracks.tracks] == [1, 2, 3, 4]
        assert number == 0 or {t.status for t in tracks.tracks} == {InstanceStatus.TRACKING}
        pairs = [(tracks.labels == i, truth == i) for i in (1, 2, 3, 4)]
        found.append(float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])))
        if number in sizes:
            tracker.configure(with_values(tracker.config, working_size=sizes[number]), now)
    return found


def test_with_all_parts_masks_are_a_little_coarser_while_small_and_as_good_as_ever_afterwards() -> None:
    steady, stepping = (j_of_clip(shipped.CONFIG, sizes) for sizes in ({}, {2: 301, 5: 512}))
    assert stepping[:3] == steady[:3]
    assert min(stepping[3:6]) > min(steady[3:6]) - 0.06
    assert np.mean(stepping[7:]) > np.mean(steady[7:]) - 0.01


def test_what_is_counted_in_pixels_of_the_working_image_is_carried_over() -> None:
    tracker = with_networks(with_values(shipped.CONFIG, working_size=512))
    tracker.seed(seed(0), frame(0))
    tracker.step(frame(1))
    before = dict(tracker.states)
    tracker.configure(with_values(tracker.config, working_size=256))
    assert tracker.newest is not None and tracker.newest.image.shape == (192, 256, 3)
    for i, state in tracker.states.items():
        old = before[i]
        assert state.patch.size == (192, 256)
        assert state.area == int((state.probability >= 0.5).sum()) == pytest.approx(old.area / 4, rel=0.06)
        assert state.usual_area == pytest.approx(old.usual_area / 4)
        assert state.known is not None and old.known is not None
        np.testing.assert_allclose(state.known.carried.crop * 2, old.known.carried.crop, rtol=1e-6)
        assert state.known.carried.hidden is old.known.carried.hidden and state.known.memory is old.known.memory
        assert (state.status, state.age, state.frames_unseen) == (old.status, old.age, old.frames_unseen)


def test_what_was_removed_is_shown_once_more_at_the_new_size() -> None:
    tracker = with_networks(with_values(shipped.CONFIG, working_size=512))
    tracker.seed(seed(0), frame(0))
    tracker.remove([2])
    tracker.configure(with_values(tracker.config, working_size=256))
    assert {state.patch.size for state in tracker.moment.leaving.values()} == {(192, 256)}
    assert [track.instance_id for track in tracker.step(frame(1)).tracks] == [1]


def test_a_correction_at_another_size_holds_there_and_is_not_lost_afterwards() -> None:
    tracker = with_networks(with_values(shipped.CONFIG, working_size=512))
    tracker.seed(seed(0), frame(0))
    tracker.configure(with_values(tracker.config, working_size=256))
    tracks = tracker.seed(seed(1, 1), frame(1))
    assert tracks.tracks[0].status == InstanceStatus.SEEDED
    assert min(ious(tracker.step(frame(2)).labels, 2)) > 0.8
    tracker.configure(with_values(tracker.config, working_size=512))
    one, other = ious(tracker.step(frame(3)).labels, 3)
    assert one > 0.5 and other > 0.95, "what was learned of noise at half its size holds less"


def test_what_is_nowhere_stays_nowhere_and_no_states_or_frames_are_no_trouble() -> None:
    tracker = build_tracker(world.WARP_ONLY)
    tracker.configure(with_values(tracker.config, working_size=64))
    assert rescaled_states({}, (10, 10)) == {}
    nothing = state_of(Patch.nothing((9, 13)))
    (found,) = rescaled_states({1: nothing}, (20, 31)).values()
    assert found.patch.box is None and found.patch.size == (20, 31) and found.area == 0
    tracker.seed(world.seed(0), world.frame(0))
    assert tracker.newest is not None and tracker.newest.image.shape == (48, 64, 3)


def state_of(patch: Patch) -> InstanceState:
    area = int((patch.values >= 0.5).sum())
    return InstanceState(
        instance_id=1,
        name="",
        patch=patch,
        status=InstanceStatus.TRACKING,
        seeded_ns=1,
        age=1,
        frames_unseen=0,
        area=area,
        usual_area=float(max(area, 1)),
        velocity=None,
        seed_mask=None,
    )


sides = st.integers(24, 90)


@given(sides, sides, st.tuples(sides, sides), st.data())
@settings(max_examples=40)
def test_a_box_lies_where_it_lay_at_any_size(
    height: int, width: int, size: tuple[int, int], data: st.DataObject
) -> None:
    y0, x0 = data.draw(st.integers(0, height - 12)), data.draw(st.integers(0, width - 12))
    y1, x1 = data.draw(st.integers(y0 + 10, height)), data.draw(st.integers(x0 + 10, width))
    whole = np.zeros((height, width), np.float32)
    whole[y0:y1, x0:x1] = 1.0
    (found,) = rescaled_states({1: state_of(Patch.of(whole))}, size).values()
    down, across = size[0] / height, size[1] / width
    rows, columns = np.nonzero(found.probability >= 0.5)
    got = (int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
    assert got == pytest.approx((y0 * down, y1 * down, x0 * across, x1 * across), abs=1.01)
    assert found.usual_area == pytest.approx(max(1.0, (y1 - y0) * (x1 - x0) * down * across))
    assert 0.0 <= float(found.probability.min()) and float(found.probability.max()) <= 1.0


@pytest.mark.parametrize("size", [(31, 47), (96, 128), (150, 203), (1, 64)])
def test_a_frame_at_another_size_is_the_same_picture(size: tuple[int, int]) -> None:
    image = world.image(0)
    found = rescaled_frame(PreparedFrame(stamp_ns=5, size=(96, 128), image=image), size)
    assert found.image.shape == (*size, 3) and found.image.dtype == np.uint8 and found.image.flags["C_CONTIGUOUS"]
    assert (found.stamp_ns, found.size) == (5, (96, 128))
    assert found.image.mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(0, 1)), abs=9)


# --- in a session ---


def sized_bench(**changes: object) -> Bench:
    bench = Bench(None, working_size=512, **changes)
    return bench


def image(bench: Bench, number: int) -> list[float]:
    return ious(bench.session.process(frame(number)).labels, number)


def set_size(bench: Bench, size: int) -> None:
    bench.session.configure(with_values(bench.session.config, working_size=size))


def test_a_late_seed_starts_on_a_frame_from_before_the_change() -> None:
    bench = sized_bench()
    for number in range(4):
        image(bench, number)
    set_size(bench, 300)
    assert bench.session.working_size == (225, 300)
    assert bench.events[-1] == "quality medium: working_size 300, flow.preset ultrafast"
    image(bench, 4)
    bench.seed(seed(1))
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 3)
    assert min(image(bench, 5)) > 0.8


def test_a_seed_on_the_newest_frame_is_in_time_after_the_change() -> None:
    bench = sized_bench()
    image(bench, 0)
    set_size(bench, 300)
    bench.seed(seed(0))
    assert bench.last == (SeedStatus.APPLIED, (1, 2), 0)


def test_while_a_seed_catches_up_the_size_waits_other_settings_do_not() -> None:
    bench = sized_bench(catch_up__mode="skip", catch_up__max_s=60.0)
    for number in range(5):
        image(bench, number)
    bench.seed(seed(1))
    assert bench.session.catching_up
    bench.session.configure(with_values(bench.session.config, working_size=300, gate__enlarge=1.5))
    bench.session.took(1.0)
    assert bench.session.working_size == (384, 512) and bench.session._tracker.config.gate.enlarge == 1.5
    while bench.session.catching_up:
        bench.session.catch_up()
    assert bench.last[0] == SeedStatus.APPLIED
    image(bench, 5)
    bench.session.took(1.0)
    assert bench.session.working_size == (225, 300)
    assert bench.events[-1] == "quality medium: working_size 300, flow.preset ultrafast"
    assert min(image(bench, 6)) > 0.8


def test_a_level_changes_size_and_flow_and_a_new_session_keeps_it() -> None:
    bench = Bench(None, max_latency_ms=40.0)
    image(bench, 0)
    bench.seed(seed(0))
    number = 0
    while bench.session.quality == "medium" and number < 60:
        number += 1
        image(bench, number % 8) if number < 8 else bench.session.took(90.0)
        bench.session.took(90.0)
    assert bench.session.quality == "low" and bench.session.working_size == (288, 384)
    assert bench.events[-1] == "quality medium -> low: p90 90 ms over max_latency_ms 40"
    bench.session.reset("test")
    assert bench.session._tracker.config.working_size == 384
    bench.session.configure(with_values(bench.session.config, quality="high"))
    flow = bench.session._tracker._flow
    bench.session.configure(with_values(bench.session.config, quality="medium"))
    assert bench.session._tracker._flow is not flow


def test_a_flow_that_was_given_stays() -> None:
    flow = world.ExactFlow()
    tracker = Tracker(world.WARP_ONLY, flow)
    tracker.configure(with_values(world.WARP_ONLY, flow__preset="medium"))
    assert tracker._flow is flow and tracker.config.flow.preset == "medium"
