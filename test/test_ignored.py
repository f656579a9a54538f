# SPDX-License-Identifier: Apache-2.0
"""Ignore masks: no mask enters them, nothing is learned there, and seeds lose what lies in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import world
from test_follow import LARGE, PLAIN, overlap, untrained
from test_session import Bench
from torch.nn import functional

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.backbone import CHANNELS, STRIDES, Features
from maskrnn_ros.model.matching import Reference
from maskrnn_ros.model.trunk import TrainedTrunk
from maskrnn_ros.model.weights import load_trunk
from maskrnn_ros.state_file import from_bytes, to_bytes
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking import follow as module
from maskrnn_ros.tracking.follow import Following
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.rescale import rescaled_frame
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedStatus
from maskrnn_ros.types import Frame, InstanceStatus, Seed

CPU = torch.device("cpu")
SIZE = (world.HEIGHT, world.WIDTH)


def columns_from(first: int, last: int = world.WIDTH) -> np.ndarray:
    """An ignore mask of upright strip."""
    mask = np.zeros(SIZE, bool)
    mask[:, first:last] = True
    return mask


def frame(number: int, ignored: np.ndarray | None, shapes: tuple[world.Shape, ...] = world.TWO) -> Frame:
    return dataclasses.replace(world.frame(number, shapes), ignored=ignored)


@pytest.fixture(scope="module")
def trunk() -> TrainedTrunk:
    found = load_trunk("streams")  # in which a target model is right without a decoder that learned, too
    assert isinstance(found, TrainedTrunk)
    return found


def tracker_of(kind: str, trunk: TrainedTrunk, flow: Callable[..., torch.Tensor], **changes: object) -> Tracker:
    if kind == "flow":
        return Tracker(world.unrefined(world.WARP_ONLY), flow, CPU)
    if kind == "decoder":
        return Tracker(with_values(PLAIN, **changes), flow, CPU, trunk, following=Following(untrained(), trunk))
    network = world.network() if kind == "network" else None
    config = with_values(world.QUICK, presence__threshold=0.5, **changes)  # what a network says that never learned
    return Tracker(config, flow, CPU, trunk, network)


@pytest.mark.parametrize("kind", ["flow", "network", "decoder"])
def test_no_mask_enters_and_what_is_beside_it_goes_on_as_without(kind: str, trunk: TrainedTrunk) -> None:
    strip = columns_from(45, 63)  # the first shape moves into it, to the right
    tracker, free = (tracker_of(kind, trunk, world.ExactFlow(LARGE), refinement__enabled=True) for _ in range(2))
    for each in (tracker, free):
        each.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for number in range(1, 4):
        tracks, expected = tracker.step(frame(number, strip, LARGE)), free.step(world.frame(number, LARGE)).labels
        assert expected[strip].any() and not tracks.labels[strip].any()
        assert all(not (track.box is not None and strip[track.box.slices][track.mask].any()) for track in tracks.tracks)
        assert not any((state.probability[torch.from_numpy(strip)] > 0).any() for state in tracker.states.values())
        beside = np.where(strip, 0, expected)
        assert min(overlap(tracks.labels == i, beside == i) for i in (1, 2)) > (0.99 if kind == "flow" else 0.85)


@pytest.mark.parametrize("kind", ["network", "decoder"])
def test_what_the_mask_covers_is_hidden_and_found_again_behind_it(kind: str, trunk: TrainedTrunk) -> None:
    image = world.texture(0, *SIZE) // 3
    image[12:52, 12:56] = world.texture(1, 40, 44) // 6 + np.array([200, 30, 30], np.uint8)
    labels = np.zeros(SIZE, np.int32)
    labels[12:52, 12:56] = 1
    shown = partial(Frame, image=image)
    arm = columns_from(0, 70)
    tracker = tracker_of(kind, trunk, lambda now, before: torch.zeros(2, *now.shape[1:]), adaptation__steps=30)
    tracker.seed(Seed(stamp_ns=1, labels=labels), shown(stamp_ns=1))
    for stamp_ns in (2, 3):
        tracks = tracker.step(shown(stamp_ns=stamp_ns, ignored=arm))
        assert tracks.tracks[0].status == InstanceStatus.OCCLUDED and not tracks.labels.any()
    tracks = tracker.step(shown(stamp_ns=4))
    assert tracks.tracks[0].status == InstanceStatus.TRACKING and overlap(tracks.labels == 1, labels == 1) > 0.6


# --- what is learned ---


class LocalTrunk(TrainedTrunk):
    """Features that know no more of the image than the cell's own pixels."""

    def __init__(self, like: TrainedTrunk) -> None:
        super().__init__()
        self.start = like.start
        random = torch.Generator().manual_seed(3)
        self.mixes = [torch.randn(channels, 3, generator=random) for channels in CHANNELS]

    def features(self, image: torch.Tensor) -> Features:
        pooled = (functional.avg_pool2d(image[None].float() / 255, stride)[0] for stride in STRIDES)
        return Features(*(torch.einsum("ck,kji->cji", mix, m) for mix, m in zip(self.mixes, pooled, strict=True)))


def seeded(kind: str, trunk: TrainedTrunk, painted: bool, ignored: np.ndarray | None, **changes: object) -> Tracker:
    """A tracker on its seed's frame, of which the right quarter may be painted; that is far inside the ignore mask."""
    image = world.image(0)
    if painted:
        image[:, 96:] = (255, 0, 255)
    tracker = tracker_of(kind, LocalTrunk(trunk), world.ExactFlow(), **changes)
    tracker.seed(world.seed(0, 1), Frame(stamp_ns=world.stamp_ns(0), image=image, ignored=ignored))
    return tracker


@pytest.mark.parametrize("steps", [0, 12])
@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_no_head_learns_what_lies_in_it(trunk: TrainedTrunk, steps: int, mode: str) -> None:
    def head(painted: bool, ignored: np.ndarray | None) -> torch.Tensor:
        settings = {"adaptation__mode": mode, "adaptation__steps": steps, "adaptation__views": 1}
        tracker = seeded("parts", trunk, painted, ignored, **settings)
        state = tracker.states[1]
        found = state.head if state.promise is None else state.promise.result(timeout=60)
        assert found is not None
        own = [state.head] if state.head is not None else []  # in the background: what there is until then
        return torch.cat([one.last.weight.flatten() for one in (found, *own)])

    mask = columns_from(64)
    torch.testing.assert_close(head(False, mask), head(True, mask), rtol=1e-3, atol=1e-5)
    assert (head(False, None) - head(True, None)).abs().max() > 1e-2, "else nothing was tested"


def test_no_view_of_the_seed_teaches_it_either(trunk: TrainedTrunk) -> None:
    """Augmented views move the mask with the picture."""
    from maskrnn_ros.tracking import adaptation

    tracker = seeded("parts", trunk, False, columns_from(64), adaptation__steps=0)
    seeds, config = tracker.states[1].seeds, with_values(world.QUICK, adaptation__views=6).adaptation
    assert seeds[0].ignored is not None
    drawn = torch.where(seeds[0].ignored > 0, 255, 0).to(torch.uint8).repeat(3, 1, 1)
    marked = (dataclasses.replace(seeds[0], image=drawn),)
    white = dataclasses.replace(config, lighting=1.0, cover=0.0)
    maps, _, _, known = adaptation._views(marked, LocalTrunk(trunk), white, np.random.default_rng(0), None)
    assert known is not None and len(known) == 6
    bright = torch.linalg.lstsq(LocalTrunk(trunk).mixes[0].sum(dim=1, keepdim=True), maps[0].transpose(0, 1).flatten(1))
    torch.testing.assert_close(1 - bright.solution.reshape(known.shape), known, rtol=0, atol=0.02)


def test_no_target_model_learns_what_lies_in_it(trunk: TrainedTrunk, monkeypatch: pytest.MonkeyPatch) -> None:
    def seed_sums(painted: bool, ignored: np.ndarray | None) -> torch.Tensor:
        known = seeded("decoder", trunk, painted, ignored).states[1].known
        assert known is not None
        return known.memory.seed.square

    mask = columns_from(64)
    torch.testing.assert_close(seed_sums(False, mask), seed_sums(True, mask), rtol=1e-4, atol=1e-6)
    assert (seed_sums(False, None) - seed_sums(True, None)).abs().max() > 1e-3, "else nothing was tested"

    known = seeded("decoder", trunk, False, columns_from(40)).states[1].known
    assert known is not None
    gone = known.memory.seed_keys.code.abs().sum(dim=1) == 0
    assert gone.any() and not gone.all(), "no cell of it is matched with"

    seen: list[tuple[torch.Tensor, ...]] = []
    sums_of = module.sums_of
    monkeypatch.setattr(module, "sums_of", lambda net, *parts: seen.append(parts) or sums_of(net, *parts))
    tracker = tracker_of("decoder", trunk, world.ExactFlow(LARGE))
    tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    tracker.step(frame(1, columns_from(48, 64), LARGE))
    (_, share, _, known), crops = seen[0], tracker.states[1].known
    assert crops is not None and (known == 0).any() and (known > 0).any()
    assert share[known == 0].max() < 1e-3, "nor is the object there"


def test_no_cell_of_it_is_matched_with() -> None:
    random = torch.Generator().manual_seed(0)
    descriptors = torch.randint(-60, 60, (4, 12, 16), generator=random, dtype=torch.int8)
    share = torch.zeros(12, 16)
    share[2:5, 2:6] = 1.0
    ignored = torch.zeros(12, 16)
    ignored[:, 5:9] = 1.0
    keys, shares = Reference(descriptors, share, ignored=ignored).keys
    kept = (ignored == 0) | (share > 0)
    assert torch.equal(keys, descriptors.flatten(1)[:, kept.flatten()]) and torch.equal(shares, share[kept])
    assert len(Reference(descriptors, share).keys[1]) == 12 * 16


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
    halved = rescaled_frame(prepared, (48, 64))
    assert halved.unknown is not None and halved.unknown[:, 32:].all() and not halved.unknown[:, :32].any()
    assert tracker.prepare(frame(0, np.zeros(SIZE, bool))).ignored is None


def test_it_outlives_the_process_with_its_seed(trunk: TrainedTrunk) -> None:
    kept: list[Saved] = []
    bench = Bench()
    bench.session._keep = kept.append
    bench.session.process(frame(0, columns_from(30)))
    bench.seed(world.seed(0, 1))
    bench.session.process(frame(1, columns_from(30)))
    read = from_bytes(to_bytes(kept[-1]))
    assert read.seeds[0].ignored is not None and np.array_equal(read.seeds[0].ignored, columns_from(30))
    build: Callable[[Config], Tracker] = lambda config: Tracker(world.QUICK, world.ExactFlow(), CPU, trunk)  # noqa: E731
    again = Bench(build)
    again.session._saved = read
    tracks = again.session.process(frame(2, columns_from(0)))  # all is hidden now: no reason to forget it
    assert [track.status for track in tracks.tracks] == [InstanceStatus.OCCLUDED]
    (view,) = again.session.states[1].seeds
    assert view.ignored is not None and view.ignored[:, 30:].all() and not view.ignored[:, :30].any()
