# SPDX-License-Identifier: Apache-2.0
"""Other views of a seed: image and masks move together, whatever is changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import world

from maskrnn_ros.tracking.views import OF_SEEDS, Change, augment

SEED = (world.labels(0) == 1).astype(np.float32)
STILL = Change(resize=1.0, rotate=0.0, shift=0.0, cover=0.0, lighting=1.0)
"""Half of these views are mirrored, and nothing else."""


def is_mirrored(number: int) -> bool:
    """Whether the random numbers of this seed mirror a view: the third one drawn says so."""
    random = np.random.default_rng(number)
    return [random.uniform(-1, 1), random.uniform(-1, 1), random.random()][2] < 0.5


def unmirrored() -> np.random.Generator:
    """Random numbers by which a view is not mirrored."""
    return np.random.default_rng(next(number for number in range(100) if not is_mirrored(number)))


def test_image_and_mask_move_together() -> None:
    """On an image that is the mask they stay each other's picture, whatever the change."""
    change = dataclasses.replace(OF_SEEDS, cover=0.0, lighting=1.0)
    image = np.repeat((SEED * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    random = np.random.default_rng(0)
    changed = 0
    for _ in range(10):
        picture, mask = augment(image, SEED, random, change)
        assert picture.dtype == np.uint8 and mask.dtype == np.float32
        np.testing.assert_allclose(picture[..., 0] / 255, mask, atol=0.05)
        changed += not np.array_equal(mask, SEED)
    assert changed == 10


def test_the_same_random_numbers_give_the_same_view() -> None:
    one, other = (augment(world.image(0), SEED, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], augment(world.image(0), SEED, np.random.default_rng(4))[0])


def test_without_any_change_a_view_is_the_seed() -> None:
    picture, mask = augment(world.image(0), SEED, unmirrored(), STILL)
    np.testing.assert_array_equal(picture, world.image(0))
    np.testing.assert_array_equal(mask, SEED)


@pytest.mark.parametrize(
    ("change", "same_mask"),
    [({"resize": 2.0}, False), ({"rotate": 90.0}, False), ({"shift": 0.3}, False), ({"lighting": 2.0}, True)],
)
def test_each_change_does_its_own(change: dict[str, float], same_mask: bool) -> None:
    picture, mask = augment(world.image(0), SEED, unmirrored(), dataclasses.replace(STILL, **change))
    assert not np.array_equal(picture, world.image(0))
    assert np.array_equal(mask, SEED) == same_mask


@pytest.mark.parametrize("count", [129, 600])  # 64 objects and their others; OpenCV 5 takes 128 planes, OpenCV 4 512
def test_any_number_of_planes_moves_alike(count: int) -> None:
    many = np.stack([SEED * (k + 1) / count for k in range(count)], axis=2)
    picture, moved = augment(world.image(0), many, np.random.default_rng(3))
    some = [0, 1, count // 2, count - 2, count - 1]
    same, expected = augment(world.image(0), many[..., some], np.random.default_rng(3))
    assert moved.shape == many.shape and moved.dtype == np.float32
    np.testing.assert_array_equal(picture, same)
    np.testing.assert_array_equal(moved[..., some], expected)


def test_mirroring_is_about_the_object() -> None:
    image = world.image(0)
    seen = [augment(image, SEED, np.random.default_rng(n), STILL) for n in range(8)]
    mirrored = [picture for picture, mask in seen if not np.array_equal(picture, image)]
    assert 0 < len(mirrored) < 8
    np.testing.assert_array_equal(mirrored[0][20:40, 20:44], image[20:40, 20:44][:, ::-1])


def test_what_is_covered_is_not_the_object_and_nothing_else_changes() -> None:
    change = dataclasses.replace(STILL, cover=1.0)
    hidden = 0
    for number in (number for number in range(20) if not is_mirrored(number)):
        picture, mask = augment(world.image(0), SEED, np.random.default_rng(number), change)
        covered = (picture != world.image(0)).any(axis=2)
        assert len(np.unique(picture[covered], axis=0)) == 1
        assert not mask[covered].any()
        np.testing.assert_array_equal(mask[~covered], np.where(mask[~covered] > 0, SEED[~covered], mask[~covered]))
        hidden += bool((mask < SEED).any())
    assert hidden >= 4


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_odd_and_tiny_images_have_views_too(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        picture, mask = augment(world.texture(1, *size), np.ones(size, np.float32), random)
        assert picture.shape == (*size, 3) and mask.shape == size
