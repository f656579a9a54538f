# SPDX-License-Identifier: Apache-2.0
"""Masks at the full size as a GPU would merge them, on the CPU: beside OpenCV's, without a word from the host."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
import world
from shipped import CONFIG, engine
from test_full_size import MAKERS, SIZES, picture, soft
from test_gpu_path import IN_A_ROW, TORCH, OnOneDevice, Waits, same_pixels
from test_gpu_path import run as followed

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.model.torch import full_size
from maskrnn_ros.model.torch.engine import TorchEngine
from maskrnn_ros.model.torch.full_size import Part, Tiles, Uploaded, merged, parts
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.full_size import drafts_of
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.shown import Instances, Shown
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import Box, LabelArray

POOL = ThreadPool(1)


@pytest.fixture(scope="module")
def far() -> TorchEngine:
    """It works as if its device were a GPU."""
    found = load_engine(TORCH)
    assert isinstance(found, TorchEngine) and found.merge is None, "on a CPU OpenCV is quicker"
    found._is_far = True
    return found


def instances(
    patches: dict[int, Patch],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    config: RefinementConfig,
    ignored: np.ndarray | None = None,
) -> Instances:
    small, full = sizes
    image = picture(full, 0)
    working = np.asarray(cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    frame = PreparedFrame(stamp_ns=1, size=full, image=working, ignored=Ignored.of(ignored, small))
    ids = sorted(patches)
    every = Patches.of([patches[i] for i in ids])
    return Instances(ids, every, {}, frame, image if config.enabled else None, config)


def both(some: Instances, far: TorchEngine) -> tuple[tuple[LabelArray, dict[int, Shown]], ...]:
    return some.shown(None, POOL), some.shown(far.merge, POOL)


def check_same(some: Instances, far: TorchEngine, share: float = 0.0005) -> None:
    """Labels, but for a pixel or two where a share of few pixels is less; boxes, scores and probabilities with them."""
    (labels, shown), (labels_far, shown_far) = both(some, far)
    assert labels_far.dtype == np.int32
    apart = labels != labels_far
    assert np.count_nonzero(apart) <= 2 + share * labels.size
    for i in {*shown, *shown_far}:
        if np.count_nonzero(apart & ((labels == i) | (labels_far == i))) == 0:
            one, other = shown[i], shown_far[i]
            assert one.box == other.box
            assert one.score == pytest.approx(other.score, abs=0.01)
            np.testing.assert_array_equal(one.mask, other.mask)
            probability = other.probability() if callable(other.probability) else other.probability
            np.testing.assert_allclose(probability, one.probability, rtol=0, atol=1e-6)  # sums in another order
    for i, one in shown_far.items():
        assert one.box == Box.of_mask(labels_far == i)
        np.testing.assert_array_equal(one.mask, (labels_far == i)[one.box.slices])


@pytest.mark.parametrize(("radius", "smoothness"), [(1, 1e-3), (2, 3e-3), (7, 0.1), (30, 0.01)])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("is_ignored", [False, True])
def test_masks_are_those_of_opencv(
    is_ignored: bool,
    kind: str,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    radius: int,
    smoothness: float,
    far: TorchEngine,
) -> None:
    patches = {2 * seed + 1: MAKERS[kind](sizes[0], seed) for seed in range(7)}
    ignored = np.zeros(sizes[1], np.bool_)
    ignored[:, sizes[1][1] // 3 : sizes[1][1] // 2] = True
    some = instances(
        patches, sizes, RefinementConfig(radius=radius, smoothness=smoothness), ignored if is_ignored else None
    )
    check_same(some, far)
    labels, _ = some.shown(far.merge, POOL)
    assert labels.any() or 2 * radius >= min(sizes[0]), "or windows are as large as the image"
    assert not (is_ignored and labels[ignored].any())


@pytest.mark.parametrize("sizes", SIZES)
def test_masks_are_those_of_opencv_without_refinement(
    sizes: tuple[tuple[int, int], tuple[int, int]], far: TorchEngine
) -> None:
    check_same(instances({i: soft(sizes[0], i) for i in range(1, 6)}, sizes, RefinementConfig(enabled=False)), far)


@pytest.mark.parametrize("place", ["corner", "whole", "line"])
def test_an_object_may_lie_at_the_border_or_be_all(place: str, far: TorchEngine) -> None:
    small, full = (36, 64), (135, 241)
    box = {"corner": Box(50, 20, 64, 36), "whole": Box(0, 0, 64, 36), "line": Box(0, 17, 64, 20)}[place]
    values = np.full((box.height, box.width), 0.97, np.float32)
    some = instances({9: Patch(values, box, small)}, (small, full), RefinementConfig())
    check_same(some, far)
    labels, shown = some.shown(far.merge, POOL)
    assert (labels == 9).any() and (place != "whole" or labels.all()) and list(shown) == [9]


def test_without_an_object_the_device_is_not_asked() -> None:
    faint = Patch(np.full((4, 4), 0.01, np.float32), Box(2, 2, 6, 6), (12, 16))
    for patches in ({}, {1: Patch.nothing((12, 16)), 2: faint}):
        some = instances(patches, ((12, 16), (24, 32)), RefinementConfig())
        labels, shown = some.shown(lambda drafts: pytest.fail("asked"), POOL)
        assert labels.shape == (24, 32) and labels.dtype == np.int32 and not labels.any() and not shown


def test_of_equal_ones_the_smaller_id_wins_whatever_the_ids_are(far: TorchEngine) -> None:
    patch = soft((36, 64), 3)
    some = instances({32_767: patch, 300: patch, 4: patch}, ((36, 64), (135, 240)), RefinementConfig())
    check_same(some, far)
    labels, shown = some.shown(far.merge, POOL)
    assert set(np.unique(labels)) == {0, 4} and list(shown) == [4]
    other = instances({32_767: patch, 300: patch}, ((36, 64), (135, 240)), RefinementConfig())
    np.testing.assert_array_equal(other.shown(far.merge, POOL)[0] == 300, labels == 4)


def test_a_thousand_objects_are_told_apart(far: TorchEngine) -> None:
    spots = {
        1 + x + 40 * y: Patch(np.full((3, 3), 0.99, np.float32), Box(4 * x, 4 * y, 4 * x + 3, 4 * y + 3), (100, 160))
        for x in range(40)
        for y in range(25)
    }
    labels, shown = instances(spots, ((100, 160), (300, 480)), RefinementConfig(enabled=False)).shown(far.merge, POOL)
    assert sorted(shown) == list(range(1, 1001)) and all(
        labels[12 * y + 4, 12 * x + 4] == 1 + x + 40 * y for x in range(40) for y in range(25)
    )


def test_memory_is_taken_for_some_objects_at_a_time_and_the_masks_are_the_same(
    far: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (36, 64), (135, 240)
    some = instances({i: soft(sizes[0], i) for i in range(1, 9)}, sizes, RefinementConfig())
    labels, shown = some.shown(far.merge, POOL)
    drafts = drafts_of(some.ids, some.patches, sizes[1], None, some.config, None)
    assert drafts is not None
    tiles = Tiles.of(drafts.shown, *sizes)
    assert len(list(parts(drafts, tiles))) == 1
    monkeypatch.setattr(full_size, "_AT_ONCE", 40_000)
    found = list(parts(drafts, tiles))
    assert 1 < len(found) < 8
    for name, count in (("objects", 8), ("tiles", len(tiles.table)), ("values", sum(v.size for v in drafts.values))):
        slices = [getattr(part, name) for part in found]
        assert [s.stop for s in slices[:-1]] == [s.start for s in slices[1:]], "one after the other"
        assert (slices[0].start, slices[-1].stop) == (0, count)
    for part in found:
        pixels = (part.tiles.stop - part.tiles.start) * 32 * 32
        assert pixels <= 40_000 or part.objects.stop - part.objects.start == 1
    again, shown_again = some.shown(far.merge, POOL)
    np.testing.assert_array_equal(again, labels)
    assert {i: (one.box, one.score) for i, one in shown_again.items()} == {
        i: (one.box, one.score) for i, one in shown.items()
    }


# --- on the device ---


def uploaded(objects: int, tiles: int, values: int, device: str) -> Uploaded:
    floats = [(values,), (objects, 4), (objects, 4), (tiles, 3), (objects,), (1,)]
    planes = [(18, 32), (45, 80), (45, 80)]
    return Uploaded(
        *(torch.zeros(shape, device=device) for shape in floats),
        *(torch.zeros(shape, device=device, dtype=torch.uint8) for shape in planes),
    )


def test_it_stays_on_the_device_and_takes_as_many_kernels_for_many_objects_as_for_one() -> None:
    calls = []
    for objects in (1, 64):
        given = uploaded(objects, 7 * objects, 100 * objects, "meta")
        everything = [Part(slice(0, objects), slice(0, 100 * objects), slice(0, 7 * objects))]
        with torch.no_grad(), OnOneDevice() as seen:
            found = merged(given, everything, (18, 32), (45, 80), 2)
        assert not seen.others
        assert [tuple(value.shape) for value in found] == [(objects, 4), (7 * objects, 3), (45, 80)]
        assert {value.device.type for value in found} == {"meta"}
        calls.append(seen.calls)
    assert calls[0] == calls[1] < 350


@pytest.mark.parametrize("is_ignored", [False, True])
def test_labels_of_many_come_in_as_many_copies_as_those_of_one(
    is_ignored: bool, far: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (36, 64), (135, 240)
    ignored = np.zeros(sizes[1], np.bool_)
    ignored[:9] = True
    said = []
    for count in (1, 3, 20):
        some = instances(
            {i: soft(sizes[0], i) for i in range(1, count + 1)},
            sizes,
            RefinementConfig(),
            ignored if is_ignored else None,
        )
        with monkeypatch.context() as patch:
            waits = Waits(far, patch)
            with waits:
                some.shown(far.merge, POOL)
        said.append(sorted(waits.said))
    assert said[0] == said[1] == said[2] == ["cpu", *["up"] * (4 if is_ignored else 3)]


# --- in the tracker ---


def tracker(runs: object, config: Config) -> Tracker:
    return Tracker(config, world.ExactFlow(IN_A_ROW), runs)  # type: ignore[arg-type]


def test_the_tracker_says_what_it_says_on_a_cpu(far: TorchEngine) -> None:
    config = with_values(TORCH, refinement__enabled=True)
    one = followed(tracker(far, config))
    other = followed(tracker(engine(), with_values(CONFIG, refinement__enabled=True)))
    assert same_pixels(one, other) > 0.999  # OpenCV, which cuts for ONNX Runtime, rounds places
    for here, there in zip(one, other, strict=True):
        for track, expected in zip(here.tracks, there.tracks, strict=True):
            assert track.box is not None and track.state == expected.state
            assert track.score == pytest.approx(expected.score, abs=0.01)
            assert track.probability.dtype == np.float32 and track.probability.shape == track.mask.shape
            if track.box == expected.box:
                np.testing.assert_allclose(track.probability, expected.probability, atol=0.1)


def test_seeds_are_shown_to_the_pixel(far: TorchEngine) -> None:
    one = tracker(far, with_values(TORCH, refinement__enabled=True))
    truth = world.labels(0, IN_A_ROW)
    tracks = one.seed(world.seed(0, shapes=IN_A_ROW), world.frame(0, IN_A_ROW))
    np.testing.assert_array_equal(tracks.labels, truth)
    later = one.step(dataclasses.replace(world.frame(1, IN_A_ROW)))
    assert all(track.box is not None for track in later.tracks)
