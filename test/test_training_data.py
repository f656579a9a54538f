# SPDX-License-Identifier: Apache-2.0
"""Training data: sizes, masks made wrong, and stills that move, whose truth fits their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import world

from maskrnn_ros.labels import write_labels
from maskrnn_ros.training.perturbation import perturb_mask, remap, smooth_field
from maskrnn_ros.training.sizes import fit_image, fit_labels
from maskrnn_ros.training.stills import Still, Unsuitable, moving_still, read_still

GREY, RED, GREEN, BLUE = (128, 128, 128), (230, 20, 20), (20, 230, 20), (20, 20, 230)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / max(1, (found | true).sum()))


# --- sizes


def test_labels_are_brought_to_a_size_by_the_id_that_covers_most_without_new_ids() -> None:
    labels = np.zeros((8, 12), np.int32)
    labels[:, 3:8], labels[:, 8:] = 7, 3
    small = fit_labels(labels, (2, 3))
    assert small.tolist() == [[0, 7, 3]] * 2
    assert set(np.unique(fit_labels(labels, (20, 30)))) == {0, 3, 7}


def test_an_image_of_another_shape_loses_its_sides_evenly_and_is_not_stretched() -> None:
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, 3:7] = 200
    assert (fit_image(image, (8, 8)) == 200).all(), "the middle square is all that is left"
    assert fit_labels((image[..., 0] > 0).astype(np.int32), (8, 8)).all()


# --- perturbation


def disk(height: int = 120, width: int = 160) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 50) / 30) ** 2 + ((columns - 80) / 45) ** 2 <= 1


def test_a_mask_is_made_wrong_by_its_strength_the_same_way_for_the_same_random_numbers() -> None:
    true = disk()
    before = true.copy()
    agreement = {}
    for strength in (0.0, 0.5, 1.0):
        random = np.random.default_rng(0)
        masks = [perturb_mask(true, random, strength=strength) for _ in range(60)]
        assert all(mask.dtype == np.bool_ and mask.shape == true.shape and mask.any() for mask in masks)
        agreement[strength] = np.mean([overlap(mask, true) for mask in masks])
        again = np.random.default_rng(0)
        assert all(np.array_equal(mask, perturb_mask(true, again, strength=strength)) for mask in masks[:5])
    assert agreement[0.0] == 1.0 > agreement[0.5] > agreement[1.0] > 0.5
    assert np.array_equal(true, before)


@pytest.mark.parametrize("shape", ["pixel", "corner", "full"])
def test_a_mask_with_pixels_is_never_perturbed_away(shape: str) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[{"pixel": np.s_[20, 30], "corner": np.s_[:3, :2], "full": np.s_[:]}[shape]] = 255
    random = np.random.default_rng(1)
    assert all(perturb_mask(mask, random).any() for _ in range(100))


def test_an_empty_mask_stays_empty_but_for_another_object_that_seldom_gets_in() -> None:
    empty = np.zeros((40, 60), bool)
    other = empty.copy()
    other[10:20, 10:20] = True
    random = np.random.default_rng(0)
    assert not any(perturb_mask(empty, random, others=(empty,)).any() for _ in range(50))
    masks = [perturb_mask(empty, random, others=(empty, other)) for _ in range(400)]
    got_in = [mask for mask in masks if mask.any()]
    assert all(np.array_equal(mask, other) for mask in got_in) and 2 <= len(got_in) <= 40


def test_remapping_moves_by_the_change_and_a_field_bends_the_other_way() -> None:
    picture = world.texture(0, 20, 30)
    shift = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])
    still = np.zeros((20, 30, 2))
    assert np.array_equal(remap(picture, shift, still)[:18, 3:], picture[2:, :27])
    assert np.array_equal(remap(picture, np.eye(2, 3), still + (1, 0))[:, :29], picture[:, 1:])


def test_a_smooth_field_is_one_long_at_most_and_changes_slowly() -> None:
    field = smooth_field((90, 110), 20.0, np.random.default_rng(0))
    assert field.shape == (90, 110, 2)
    assert np.hypot(field[..., 0], field[..., 1]).max() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(np.diff(field, axis=1)).max() < 0.2


def is_colour(images: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    low, high = ([value + step for value in colour] for step in (-2, 2))
    flat = images.reshape(-1, images.shape[-2], 3)
    return (cv2.inRange(flat, np.array(low), np.array(high)) > 0).reshape(images.shape[:-1])


# --- stills


def painted_still(colours: list[tuple[int, int, int]], ground: tuple[int, int, int]) -> Still:
    image = np.full((150, 240, 3), ground, np.uint8)
    masks = []
    for number, colour in enumerate(colours):
        mask = np.zeros((150, 240), bool)
        mask[40:100, 30 + 100 * number : 80 + 100 * number] = True
        image[mask] = colour
        masks.append(mask)
    return Still(image=image, masks=tuple(masks))


def test_the_truth_of_moving_stills_fits_the_pixels_and_everything_moves() -> None:
    still, other = painted_still([RED, GREEN], GREY), painted_still([BLUE], (200, 200, 60))
    counts = set()
    for k in range(12):
        images, truth = moving_still(still, other, (252, 448), np.random.default_rng(k))
        ids = np.unique(truth[truth > 0]).tolist()
        counts.add(len(ids))
        assert ids == list(range(1, len(ids) + 1)) and min(np.bincount(truth[0].ravel())[1:]) >= 300
        kernel = np.ones((7, 7), np.uint8)
        for image, labels in zip(images, truth, strict=True):
            for i in ids:
                inside = cv2.erode((labels == i).astype(np.uint8), kernel, borderValue=0) > 0
                fits = [is_colour(image, colour)[inside].mean() for colour in (RED, GREEN, BLUE)]
                assert not inside.any() or max(fits) > 0.99, "one object is of one colour"
        assert all(cv2.absdiff(before, after).any() for before, after in zip(images, images[1:], strict=False))
    assert len(counts) >= 2


def test_a_still_without_a_large_object_or_with_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((40, 50, 3), np.uint8))
    small, other = np.zeros((40, 50), np.int32), np.ones((50, 40), np.int32)
    small[:3, :3] = 1
    write_labels(tmp_path / "small.png", small)
    write_labels(tmp_path / "other.png", other)
    with pytest.raises(Unsuitable, match="expected an object of 400 pixels"):
        read_still(tmp_path / "image.png", tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"\(40, 50\), found \(50, 40\)"):
        read_still(tmp_path / "image.png", tmp_path / "other.png")


def write_stills(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(2):
        picture = cv2.cvtColor(world.image(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(root / "images" / f"{number}.png"), picture)
        write_labels(root / "masks" / f"{number}.png", world.labels(number))
