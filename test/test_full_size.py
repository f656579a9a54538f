# SPDX-License-Identifier: Apache-2.0
"""From the working size to the full one: what is left out at the working size could not have won a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskrnn_ros.model.refinement import luma, refine
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.full_size import enlarge, enlarge_along_edges
from maskrnn_ros.tracking.merge import Likely, merge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.sheet import Sheet
from maskrnn_ros.types import Box, UInt8Array

SIZES = [((24, 40), (24, 40)), ((36, 64), (135, 240)), ((29, 51), (100, 171)), ((40, 30), (401, 307)), ((3, 5), (7, 9))]
"""Working and full sizes, (h, w)."""


def picture(size: tuple[int, int], seed: int) -> UInt8Array:
    """Shapes of any brightness under noise: edges, and texture that no mask should follow."""
    random = np.random.default_rng(seed)
    image = np.full((*size, 3), 90, np.uint8)
    for _ in range(6):
        centre, axes = random.integers(0, size[::-1]), random.integers(1, max(2, min(size) // 2), 2)
        cv2.ellipse(image, centre.tolist(), axes.tolist(), 0, 0, 360, random.integers(0, 256, 3).tolist(), -1)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def soft(size: tuple[int, int], seed: int) -> Patch:
    """An object as the networks give it: sure inside, never 0 in its crop, which may reach over the border."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    centre, radius = random.random(2) * size, (0.1 + 0.3 * random.random(2)) * size
    away = np.hypot((y - centre[0]) / radius[0], (x - centre[1]) / radius[1])
    odds = np.clip(random.uniform(2, 12) * (1 - away) + random.normal(0, 1, size), -8, 8)
    x0, y0 = (int(max(0, centre[k] - 1.8 * radius[k])) for k in (1, 0))
    x1, y1 = (int(min(size[k], centre[k] + 1.8 * radius[k] + 1)) for k in (1, 0))
    box = Box(x0, y0, x1, y1)
    return Patch((1 / (1 + np.exp(-odds))).astype(np.float32)[box.slices], box, size)


def noise(size: tuple[int, int], seed: int) -> Patch:
    """Nothing that an object looks like: any value beside any other."""
    values = np.random.default_rng(seed).random(size, np.float32)
    return Patch(values ** np.float32(0.5 + 0.6 * seed), Box(0, 0, size[1], size[0]), size)


MAKERS = {"soft": soft, "noise": noise}


def by_id(likely: Likely) -> dict[int, tuple[Box, np.ndarray]]:
    """Boxes and probabilities."""
    columns = zip(likely.ids.tolist(), likely.boxes.tolist(), likely.planes, strict=True)
    return {i: (Box(*corners), plane) for i, corners, plane in columns}


def along_edges(
    patches: dict[int, Patch], working: UInt8Array, image: UInt8Array, config: RefinementConfig, threads: int = 1
) -> dict[int, tuple[Box, np.ndarray]]:
    """Likewise."""
    every = Patches.of(list(patches.values()))
    return by_id(enlarge_along_edges(list(patches), every, working, image, config, ThreadPool(threads)))


@pytest.mark.parametrize("smoothness", [1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("radius", [1, 2, 7])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_out_could_not_win_a_pixel(
    kind: str, sizes: tuple[tuple[int, int], tuple[int, int]], radius: int, smoothness: float
) -> None:
    small, full = sizes
    image = picture(full, 0)
    working = np.asarray(cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    config = RefinementConfig(radius=radius, smoothness=smoothness)
    patches = {seed: MAKERS[kind](small, seed) for seed in range(1, 7)}
    found = along_edges(patches, working, image, config)
    apart = 0
    for i, patch in patches.items():
        # of all pixels; OpenCV's resize has exact weights, its warp those of a 32nd of a pixel
        expected = refine(patch.full, luma(working), luma(image), radius, smoothness)
        mask = np.zeros(full, np.bool_)
        if i in found:
            box, probability = found[i]
            mask[box.slices] = probability >= 0.5
            beside = np.delete(expected.ravel(), np.flatnonzero(np.ravel(inside(box, full))))
            assert beside.max(initial=0) < 0.52
        else:
            assert expected.max() < 0.52
        apart += int(np.count_nonzero(mask != (expected >= 0.5)))
    assert apart <= 2 + (0.002 if smoothness > 1e-6 else 0.03) * image[..., 0].size * len(patches)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", MAKERS)
def test_plain_enlarging_leaves_out_what_could_not_win_a_pixel(
    kind: str, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    small, full = sizes
    for seed in range(6):
        patch = MAKERS[kind](small, seed)
        expected = cv2.resize(patch.full, full[::-1])
        labels = merge(enlarge([3], Patches.of([patch]), full), full)
        apart = (labels == 3) != (expected >= 0.5)
        assert not (apart & (np.abs(expected - 0.5) > 0.05)).any()
        assert np.count_nonzero(apart) <= 2 + 0.01 * apart.size


def inside(box: Box, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.bool_)
    mask[box.slices] = True
    return mask


def test_work_at_the_full_size_is_for_the_mask_and_not_for_its_crop() -> None:
    image = picture((540, 960), 1)
    working = np.asarray(cv2.resize(image, (256, 144), interpolation=cv2.INTER_AREA), np.uint8)
    values = np.full((80, 80), 3e-4, np.float32)
    values[30:50, 30:50] = 0.99
    patches = {1: Patch(values, Box(100, 40, 180, 120), (144, 256))}
    found, _ = along_edges(patches, working, image, RefinementConfig())[1]
    plain, _ = by_id(enlarge([1], Patches.of([patches[1]]), (540, 960)))[1]
    mask = Box(130, 70, 150, 90)
    for box, margin in ((found, 6), (plain, 2)):
        limit = mask.grown(margin, (144, 256))
        assert box.width <= 3.75 * limit.width + 2 and box.height <= 3.75 * limit.height + 2


def test_objects_that_are_nowhere_or_below_a_half_have_no_mask() -> None:
    image = picture((60, 80), 2)
    patches = {
        1: Patch.nothing((60, 80)),
        2: Patch(np.full((10, 10), 0.05, np.float32), Box(5, 5, 15, 15), (60, 80)),
    }
    assert along_edges(patches, image, image, RefinementConfig()) == {}
    plain = enlarge(list(patches), Patches.of(list(patches.values())), (60, 80))
    assert by_id(plain) == {}
    assert not merge(plain, (60, 80)).any()
    assert not merge(enlarge([], Patches.of([]), (60, 80)), (60, 80)).any()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", MAKERS)
def test_what_an_object_is_depends_neither_on_the_others_nor_on_who_does_it(
    kind: str, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    small, full = sizes
    image = picture(full, 0)
    working = np.asarray(cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    patches = {i: MAKERS[kind](small, i) for i in range(1, 8)}
    together = along_edges(patches, working, image, RefinementConfig())
    alone: dict[int, tuple[Box, np.ndarray]] = {}
    for i, patch in patches.items():
        alone |= along_edges({i: patch}, working, image, RefinementConfig())
    for found, apart in (
        (alone, 1e-6),
        *((along_edges(patches, working, image, RefinementConfig(), n), 0) for n in (2, 3, 20)),
    ):
        assert list(found) == list(together)
        for i, (box, probability) in found.items():
            assert box == together[i][0]
            np.testing.assert_allclose(probability, together[i][1], rtol=0, atol=apart)


def test_windows_lie_side_by_side_and_fill_the_sheet() -> None:
    random = np.random.default_rng(0)
    for count in (0, 1, 2, 5, 16, 60):
        low = random.integers(-9, 200, (count, 2))
        windows = np.concatenate([low, low + random.integers(1, 90, (count, 2))], axis=1)
        sheet = Sheet.of(windows)
        covered = np.zeros(sheet.size, np.int64)
        for view, (x0, y0, x1, y1) in zip(sheet.views(covered), windows.tolist(), strict=True):
            assert view.shape == (y1 - y0, x1 - x0)
            view += 1
        assert covered.max(initial=0) <= 1 and covered.size <= 1.7 * covered.sum()
