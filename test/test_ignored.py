# SPDX-License-Identifier: Apache-2.0
"""Ignore masks: no mask enters them, nothing is learned there, and seeds lose what lies in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import world
from shipped import CONFIG, LARGE, assert_same, engine, overlap, still, tracker
from test_session import Bench

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import FlowEstimator
from maskrnn_ros.model.engine import Features, Keys, Lesson, Looked, Summed
from maskrnn_ros.model.shapes import CHANNELS, COLUMNS, STRIDES
from maskrnn_ros.tracking import Tracker, follow, views
from maskrnn_ros.tracking.cells import cells_of
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedStatus
from maskrnn_ros.tracking.state_file import from_bytes, to_bytes
from maskrnn_ros.types import Frame, InstanceState, Seed, UInt8Array

SIZE = (world.HEIGHT, world.WIDTH)


def columns_from(first: int, last: int = world.WIDTH) -> np.ndarray:
    """An ignore mask of upright strip."""
    mask = np.zeros(SIZE, bool)
    mask[:, first:last] = True
    return mask


def frame(number: int, ignored: np.ndarray | None, shapes: tuple[world.Shape, ...] = world.TWO) -> Frame:
    return dataclasses.replace(world.frame(number, shapes), ignored=ignored)


def tracker_of(kind: str, flow: FlowEstimator) -> Tracker:
    return Tracker(world.WARP_ONLY, flow) if kind == "flow" else tracker(flow=flow)


@pytest.mark.parametrize("kind", ["flow", "networks"])
@pytest.mark.parametrize("is_refined", [False, True])
def test_no_mask_enters_and_what_is_beside_it_goes_on_as_without(kind: str, is_refined: bool) -> None:
    strip = columns_from(45, 63)  # the first shape moves into it, to the right
    one, free = (tracker_of(kind, world.ExactFlow(LARGE)) for _ in range(2))
    for each in (one, free):
        refinement = dataclasses.replace(each.config.refinement, enabled=is_refined)
        each.config = dataclasses.replace(each.config, refinement=refinement)
        each.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for number in range(1, 4):
        tracks, expected = one.step(frame(number, strip, LARGE)), free.step(world.frame(number, LARGE)).labels
        assert expected[strip].any() and not tracks.labels[strip].any()
        assert all(not (track.box is not None and strip[track.box.slices][track.mask].any()) for track in tracks.tracks)
        assert not any((state.probability[strip] > 0).any() for state in one.states.values())
        beside = np.where(strip, 0, expected)
        assert min(overlap(tracks.labels == i, beside == i) for i in (1, 2)) > (0.98 if kind == "flow" else 0.85)


def test_what_the_mask_covers_is_hidden_and_found_again_behind_it() -> None:
    image = world.texture(0, *SIZE) // 3
    image[12:52, 12:56] = world.texture(1, 40, 44) // 6 + np.array([200, 30, 30], np.uint8)
    labels = np.zeros(SIZE, np.int32)
    labels[12:52, 12:56] = 1
    shown = partial(Frame, image=image)
    arm = columns_from(0, 70)
    one = tracker(flow=still)
    one.seed(Seed(stamp_ns=1, labels=labels), shown(stamp_ns=1))
    for stamp_ns in (2, 3):
        tracks = one.step(shown(stamp_ns=stamp_ns, ignored=arm))
        assert tracks.tracks[0].state == InstanceState.OCCLUDED and not tracks.labels.any()
    tracks = one.step(shown(stamp_ns=4))
    assert tracks.tracks[0].state == InstanceState.TRACKING and overlap(tracks.labels == 1, labels == 1) > 0.6


# --- what is learned ---


class LocalEngine:
    """Features that know no more of the image than the cell's own pixels; column 0 is how bright it is, 0..1.

    It notes with what weight each cell was learned: of a seed's views their brightness, of a frame its masks.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(3)
        self._mixes = [random.normal(0, 1, (3, channels)).astype(np.float32) for channels in (COLUMNS, *CHANNELS[1:])]
        self._mixes[0][:, 0] = 1 / 3
        self.begun: list[tuple[np.ndarray, np.ndarray]] = []
        self.learned: list[tuple[np.ndarray, np.ndarray]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(engine(), name)

    def features(self, image: UInt8Array) -> Features:
        planes = image.transpose(2, 0, 1).astype(np.float32) / 255
        means = (np.stack([cells_of(plane, stride) for plane in planes]) for stride in STRIDES)
        columns, stride8, stride16 = (
            np.einsum("cf,cji->fji", mix, mean)[None].astype(np.float32)
            for mix, mean in zip(self._mixes, means, strict=True)
        )
        return Features(stride8, stride16, columns, image)

    def begin(self, features: Features, *masks: np.ndarray) -> Summed:
        self.begun.append((features.columns[0, 0], masks[3]))
        return engine().begin(features, *masks)

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        self.learned.append((lesson.share, lesson.known))
        return engine().learn(looked, lesson, newest)


def seeded(image: np.ndarray, ignored: np.ndarray | None) -> tuple[Tracker, LocalEngine]:
    local = LocalEngine()
    one = Tracker(CONFIG, world.ExactFlow(), local)
    one.seed(world.seed(0, 1), Frame(stamp_ns=world.stamp_ns(0), image=image, ignored=ignored))
    return one, local


def test_no_target_model_learns_what_lies_in_it() -> None:
    def seed_sums(is_painted: bool, ignored: np.ndarray | None) -> np.ndarray:
        image = world.image(0)
        if is_painted:
            image[:, 96:] = (255, 0, 255)  # far inside the mask
        known = seeded(image, ignored)[0].states[1].known
        assert known is not None
        return known.memory.seed.square

    mask = columns_from(64)
    np.testing.assert_allclose(seed_sums(False, mask), seed_sums(True, mask), rtol=1e-4, atol=1e-6)
    assert np.abs(seed_sums(False, None) - seed_sums(True, None)).max() > 1e-3, "else nothing was tested"


def test_no_view_of_the_seed_teaches_it_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmented views move the mask with the picture, which here is the mask."""
    monkeypatch.setattr(follow, "augment", partial(views.augment, change=views.Change(cover=0.0, lighting=1.0)))
    mask = columns_from(64)
    _, local = seeded(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), mask)
    assert sum(bright.max() > 0.9 for bright, _ in local.begun) > 3, "else nothing was tested"
    for bright, known in local.begun:
        np.testing.assert_allclose(1 - bright, known[0], atol=0.04)  # bytes are moved less exactly than floats


def test_no_cell_of_it_is_matched_with() -> None:
    known = seeded(world.image(0), columns_from(46))[0].states[1].known
    free = seeded(world.image(0), None)[0].states[1].known
    assert known is not None and free is not None
    gone = ~known.memory.seed_keys.code.any(axis=0)
    assert gone.any() and not gone.all()
    assert not known.memory.seed_keys.values[:, gone].any()
    np.testing.assert_array_equal(known.memory.seed_keys.code[:, ~gone], free.memory.seed_keys.code[:, ~gone])


def test_no_frame_teaches_what_lies_in_it() -> None:
    local = LocalEngine()
    one = Tracker(CONFIG, world.ExactFlow(LARGE), local)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for number in (1, 2):
        one.step(frame(number, columns_from(44, 60), LARGE))
    (share, known), *_ = local.learned
    assert (known == 0).any() and (known > 0).any()
    assert share[known == 0].max() < 1e-3, "nor is the object there"
    keys = [state.known.memory.newest_keys for state in one.states.values() if state.known is not None]
    assert any((~each.code.any(axis=0)).any() for each in keys), "no cell of it is matched with"


# --- seeds ---


def test_a_seed_loses_what_lies_in_it_and_one_that_lies_wholly_in_it_is_refused() -> None:
    bench = Bench()
    bench.session.process(frame(0, columns_from(30)))  # the first shape is at 20..44, the second at 80..100
    bench.seed(world.seed(0, 1), ticket="part")
    assert bench.last[0] == SeedStatus.APPLIED
    assert bench.outcomes[-1].reason == f"{14 * 20} pixels in the ignore mask were left out"
    bench.seed(world.seed(0, 2), ticket="whole")
    assert bench.last[0] == SeedStatus.REJECTED
    assert "instance 2 lies wholly in the ignore mask of the image" in bench.outcomes[-1].reason
    tracks = bench.session.process(frame(1, columns_from(30)))
    np.testing.assert_array_equal(tracks.labels, np.where(columns_from(30), 0, world.labels(1, world.TWO[:1])))
    assert [track.instance_id for track in tracks.tracks] == [1]


def test_a_late_seed_is_cut_by_the_mask_of_its_own_image() -> None:
    bench = Bench()
    for number, mask in enumerate((columns_from(40), None, None)):
        bench.session.process(frame(number, mask))
    bench.seed(world.seed(0, 1))
    assert bench.last[0] == SeedStatus.APPLIED
    tracks = bench.session.process(frame(3, None))
    cut = np.where(columns_from(46), 0, world.labels(3, world.TWO[:1]))  # it has moved by 6 since
    np.testing.assert_array_equal(tracks.labels, cut)


def test_a_mask_of_another_size_is_no_part_of_a_frame() -> None:
    with pytest.raises(ValueError, match=r"ignore mask must be bool \(96, 128\) like the image, got bool \(96, 127\)"):
        frame(0, np.zeros((96, 127), bool))


# --- what is held ---


def test_it_is_held_in_bits_and_follows_the_working_size() -> None:
    mask = np.random.default_rng(0).random((50, 101)) < 0.5
    held = Ignored.of(mask, (25, 51))
    assert held is not None and np.array_equal(held.full, mask) and held.bits.nbytes == 50 * 13
    tracker = world.exact_tracker(world.WARP_ONLY)
    prepared = tracker.prepare(frame(0, columns_from(64)))
    assert prepared.nbytes == tracker.prepare(frame(0, None)).nbytes + world.HEIGHT * (world.WIDTH // 8 + world.WIDTH)
    small = world.exact_tracker(with_values(world.WARP_ONLY, working_size=64))
    halved = small.prepare(frame(0, columns_from(64)))
    assert halved.unknown is not None and halved.unknown[:, 32:].all() and not halved.unknown[:, :32].any()
    assert tracker.prepare(frame(0, np.zeros(SIZE, bool))).ignored is None


def test_it_outlives_the_process_with_its_seed() -> None:
    kept: list[Saved] = []
    build: Callable[[Config], Tracker] = lambda config: tracker(CONFIG, world.TWO)  # noqa: E731
    bench = Bench(build)
    bench.session.keeper.keep = kept.append
    bench.session.process(frame(0, columns_from(30)))
    bench.seed(world.seed(0, 1))
    begun = bench.session.states[1].known
    bench.session.process(frame(1, columns_from(30)))
    read = from_bytes(to_bytes(kept[-1]))
    assert read.seeds[0].ignored is not None and np.array_equal(read.seeds[0].ignored, columns_from(30))
    again = Bench(build)
    again.session.keeper.left = read
    tracks = again.session.process(frame(2, columns_from(0)))  # all is hidden now: no reason to forget it
    assert [track.state for track in tracks.tracks] == [InstanceState.OCCLUDED]
    known = again.session.states[1].known
    assert begun is not None and known is not None
    assert (~known.memory.seed_keys.code.any(axis=0)).any()
    assert_same(known.memory, begun.memory)
