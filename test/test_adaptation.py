# SPDX-License-Identifier: Apache-2.0
"""Adaptation: a head fits its seed, the same way every time, and changes nothing but itself."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
import world

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.backbone import Lite0, pixels_of
from maskrnn_ros.model.head import STRIDE
from maskrnn_ros.model.matching import describe
from maskrnn_ros.model.weights import load_lite0
from maskrnn_ros.tracking.adaptation import Adapter, Cancelled, SeedView, _AdamW, adapt, augment
from maskrnn_ros.types import Box

SETTINGS = with_values(
    Config(),
    adaptation__method="finetune",
    adaptation__steps=40,
    adaptation__rate=0.01,
    adaptation__views=4,
    adaptation__channels=8,
    adaptation__mode="blocking",
).adaptation
STILL = dataclasses.replace(SETTINGS, resize=1.0, rotate=0.0, shift=0.0, flip=False, lighting=1.0, cover=0.0)


@pytest.fixture(scope="module")
def trunk() -> Lite0:
    return load_lite0()


def seed_view(trunk: Lite0, number: int = 0, instance_id: int = 1) -> SeedView:
    image = torch.tensor(world.image(number)).permute(2, 0, 1).contiguous()
    share = torch.tensor(world.labels(number) == instance_id).float()
    return SeedView(world.stamp_ns(number), image, share, describe(trunk.features(image)))


def agreement(head: torch.nn.Module, trunk: Lite0, seed: SeedView) -> float:
    maps = [map_[None].float() for map_ in trunk.features(seed.image).maps]
    rows, columns = maps[0].shape[2:]
    found = pixels_of(head.frozen.log_odds(maps, Box(0, 0, columns, rows)), STRIDE, tuple(seed.share.shape)) > 0
    true = seed.share > 0.5
    return float((found & true).sum() / (found | true).sum())


def test_a_head_adapted_on_one_frame_fits_it_and_leaves_the_trunk_as_it_was(trunk: Lite0) -> None:
    seed = seed_view(trunk)
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    untrained = adapt((seed,), trunk, dataclasses.replace(SETTINGS, steps=0))
    head = adapt((seed,), trunk, SETTINGS)
    assert agreement(head, trunk, seed) > 0.7 > agreement(untrained, trunk, seed)
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_the_same_seed_gives_the_same_head_and_another_random_seed_another(trunk: Lite0) -> None:
    seeds = (seed_view(trunk),)
    few = dataclasses.replace(SETTINGS, steps=5)
    one, same = adapt(seeds, trunk, few), adapt(seeds, trunk, few)
    other = adapt(seeds, trunk, dataclasses.replace(few, seed=1))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(one.last.weight, other.last.weight)


def test_the_optimizer_steps_as_that_of_torch() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer, oracle = _AdamW([ours]), torch.optim.AdamW([theirs], lr=0.1, weight_decay=1e-3)
    for _ in range(5):
        optimizer.step(torch.autograd.grad((ours**4).sum(), [ours]), 0.1)
        oracle.zero_grad()
        (theirs**4).sum().backward()
        oracle.step()
    torch.testing.assert_close(ours, theirs)


def test_adapting_within_no_grad_trains_all_the_same(trunk: Lite0) -> None:
    seeds = (seed_view(trunk),)
    few = dataclasses.replace(SETTINGS, steps=3)
    with torch.no_grad():
        inside = adapt(seeds, trunk, few)
    assert torch.equal(inside.last.weight, adapt(seeds, trunk, few).last.weight)


def test_all_seeds_are_trained_on(trunk: Lite0) -> None:
    """The correction marks another object as well: a head of both seeds knows it on the first frame."""
    first, second = seed_view(trunk, 0, 1), seed_view(trunk, 6, 2)
    alone = adapt((first,), trunk, SETTINGS)
    both = adapt((first, second), trunk, SETTINGS)
    assert agreement(both, trunk, second) > 0.5 > agreement(alone, trunk, second)


def test_augmentation_moves_image_and_mask_together() -> None:
    """On an image that is the mask they stay each other's picture, whatever the change."""
    share = (world.labels(0) == 1).astype(np.float32)
    image = np.repeat((share * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    config = dataclasses.replace(SETTINGS, lighting=1.0, cover=0.0)
    random = np.random.default_rng(0)
    changed = 0
    for _ in range(10):
        picture, mask = augment(image, share, config, random)
        assert picture.dtype == np.uint8 and mask.dtype == np.float32
        np.testing.assert_allclose(picture[..., 0] / 255, mask, atol=0.05)
        changed += not np.array_equal(mask, share)
    assert changed == 10


def test_without_any_change_a_view_is_the_seed() -> None:
    image, share = world.image(0), (world.labels(0) == 1).astype(np.float32)
    picture, mask = augment(image, share, STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(picture, image)
    np.testing.assert_array_equal(mask, share)


@pytest.mark.parametrize(
    ("change", "same_mask"),
    [({"resize": 2.0}, False), ({"rotate": 90.0}, False), ({"shift": 0.3}, False), ({"lighting": 2.0}, True)],
)
def test_each_augmentation_does_its_own(change: dict, same_mask: bool) -> None:
    image, share = world.image(0), (world.labels(0) == 1).astype(np.float32)
    picture, mask = augment(image, share, dataclasses.replace(STILL, **change), np.random.default_rng(0))
    assert not np.array_equal(picture, image)
    assert np.array_equal(mask, share) == same_mask


@pytest.mark.parametrize("count", [129, 600])  # 64 objects and their others; OpenCV 5 takes 128 planes, OpenCV 4 512
def test_any_number_of_planes_moves_alike(count: int) -> None:
    image, share = world.image(0), (world.labels(0) == 1).astype(np.float32)
    many = np.stack([share * (k + 1) / count for k in range(count)], axis=2)
    picture, moved = augment(image, many, SETTINGS, np.random.default_rng(3))
    few = many[..., [0, 1, count // 2, count - 2, count - 1]]
    same, expected = augment(image, few, SETTINGS, np.random.default_rng(3))
    assert moved.shape == many.shape and moved.dtype == np.float32
    np.testing.assert_array_equal(picture, same)
    np.testing.assert_array_equal(moved[..., [0, 1, count // 2, count - 2, count - 1]], expected)


def test_mirroring_is_about_the_object() -> None:
    image, share = world.image(0), (world.labels(0) == 1).astype(np.float32)
    views = [augment(image, share, dataclasses.replace(STILL, flip=True), np.random.default_rng(n)) for n in range(8)]
    mirrored = [picture for picture, mask in views if not np.array_equal(picture, image)]
    assert 0 < len(mirrored) < 8
    np.testing.assert_array_equal(mirrored[0][20:40, 20:44], image[20:40, 20:44][:, ::-1])


def test_what_is_covered_is_not_the_object_and_nothing_else_changes() -> None:
    image, share = world.image(0), (world.labels(0) == 1).astype(np.float32)
    hidden = 0
    for number in range(8):
        config = dataclasses.replace(STILL, cover=1.0)
        picture, mask = augment(image, share, config, np.random.default_rng(number))
        covered = (picture != image).any(axis=2)
        assert len(np.unique(picture[covered], axis=0)) == 1
        assert not mask[covered].any()
        np.testing.assert_array_equal(mask[~covered], np.where(mask[~covered] > 0, share[~covered], mask[~covered]))
        hidden += bool((mask < share).any())
    assert hidden >= 4


def test_training_in_the_background_gives_the_head_that_blocking_gives(trunk: Lite0) -> None:
    seeds = (seed_view(trunk),)
    few = dataclasses.replace(SETTINGS, steps=5)
    adapter = Adapter(dataclasses.replace(few, mode="background"), trunk)
    promise = adapter.start(seeds)
    head = promise.result(timeout=60)
    assert torch.equal(head.last.weight, adapt(seeds, trunk, few).last.weight)


def test_training_ends_when_nobody_wants_it_any_more(trunk: Lite0) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        adapt((seed_view(trunk),), trunk, SETTINGS, stop)
    adapter = Adapter(dataclasses.replace(SETTINGS, mode="background", steps=100_000), trunk)
    promise = adapter.start((seed_view(trunk),))
    while not promise.running():
        assert not promise.done()
    del adapter
    assert isinstance(promise.exception(timeout=60), Cancelled)


def test_what_is_closed_trains_no_more_and_drops_what_waits(trunk: Lite0) -> None:
    adapter = Adapter(dataclasses.replace(SETTINGS, mode="background", steps=100_000), trunk)
    begun, waiting = (adapter.start((seed_view(trunk),)) for _ in range(2))
    adapter.close()
    assert waiting.cancelled() or isinstance(waiting.exception(timeout=60), Cancelled)
    assert begun.cancelled() or isinstance(begun.exception(timeout=60), Cancelled)
