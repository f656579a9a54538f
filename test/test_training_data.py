# SPDX-License-Identifier: Apache-2.0
"""Training data: what is cached of a clip is what the parts say, and what is made up has truth that fits its pixels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import world

from maskrnn_ros import cli
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.files import write_labels
from maskrnn_ros.model.matching import describe
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.model.weights import load_trunk
from maskrnn_ros.training import prepare as preparing
from maskrnn_ros.training.cache import TrainingClip, build_cache, clip_paths
from maskrnn_ros.training.clips import Pictures, Unsuitable, fit_image, fit_labels, matching_planes, observe
from maskrnn_ros.training.perturbation import perturb_mask, remap, smooth_field
from maskrnn_ros.training.prepare import PasteJob, Preparation, StillJob, prepare
from maskrnn_ros.training.stills import Still, moving_still, read_still
from maskrnn_ros.training.synthesis import _hide, copy_paste

FRAMES = 4
GREY, RED, GREEN, BLUE = (128, 128, 128), (230, 20, 20), (20, 230, 20), (20, 20, 230)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return load_trunk()


@pytest.fixture(scope="module")
def clip(trunk: Trunk) -> TrainingClip:
    """The world with its true flow: object 1 seeded on frames 0 and 1, object 2 on frame 0."""
    pictures = Pictures(
        name="world",
        images=np.stack([world.image(number) for number in range(FRAMES)]),
        truth=np.stack([world.labels(number) for number in range(FRAMES)]).astype(np.uint8),
        seeds=((1, 0), (1, 1), (2, 0)),
    )
    heads = dataclasses.replace(Config().adaptation, steps=60, views=4, channels=8)
    return observe(pictures, trunk, world.ExactFlow(), Config(), heads)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / max(1, (found | true).sum()))


def cells(masks: np.ndarray) -> np.ndarray:
    """Which cells of stride 4 a mask (h, w) covers half."""
    return masks.reshape(masks.shape[0] // 4, 4, masks.shape[1] // 4, 4).mean(axis=(1, 3)) >= 0.5


# --- what is cached of a clip


def test_a_clip_holds_the_images_and_the_features_that_the_trunk_gives_at_run_time(
    clip: TrainingClip, trunk: Trunk
) -> None:
    assert clip.images.shape == (FRAMES, 3, world.HEIGHT, world.WIDTH) and clip.images.dtype == torch.uint8
    image = torch.tensor(world.image(2)).permute(2, 0, 1)
    assert torch.equal(clip.images[2], image)
    for found, expected in zip((clip.stride4, clip.stride8, clip.stride16), trunk.features(image).maps, strict=True):
        assert found.dtype == torch.float16 and torch.equal(found[2], expected)


def test_flow_points_back_in_pixels_and_the_length_ahead_is_that_of_the_motion(clip: TrainingClip) -> None:
    inside = np.s_[7:9, 7:10]  # cells of object 1 on every frame; it moves 2 to the right
    assert torch.equal(
        clip.back[1:, :, inside[0], inside[1]], torch.tensor([-2.0, 0.0]).half()[:, None, None].expand(3, 2, 2, 3)
    )
    assert (clip.ahead[:-1, inside[0], inside[1]] == 2).all()
    second = np.s_[16:18, 20:22]  # object 2 moves by (-1, 1)
    assert torch.equal(
        clip.back[1, :, second[0], second[1]], torch.tensor([1.0, -1.0]).half()[:, None, None].expand(2, 2, 2)
    )
    assert torch.allclose(clip.ahead[0, second[0], second[1]], torch.tensor(2.0).sqrt().half())
    assert not clip.back[0].any() and not clip.ahead[-1].any(), "where the clip knows no other frame"


def test_planes_are_zero_before_the_seed_and_agree_with_the_truth_from_it_on(clip: TrainingClip) -> None:
    for row, (instance_id, seeded) in enumerate(clip.seeds):
        for planes, least in ((clip.matching, 0.5), (clip.head, 0.5)):
            assert planes[row].dtype == torch.float16 and planes[row].abs().max() <= 1
            assert not planes[row, :seeded].any()
            for number in range(seeded, FRAMES):
                true = cells(world.labels(number) == instance_id)
                assert overlap((planes[row, number] > 0).numpy(), true) > least, (instance_id, number)


def jumping(trunk: Trunk, places: list[int | None]) -> tuple[list[torch.Tensor], np.ndarray]:
    """Descriptors and masks of object 1 at some columns, or away."""
    descriptors, masks = [], []
    for x in places:
        shapes = () if x is None else (world.Shape(1, x, 32, 32, 32, 0, 0),)
        image = torch.tensor(world.image(0, shapes)).permute(2, 0, 1).contiguous()
        descriptors.append(describe(trunk.features(image)))
        masks.append(world.labels(0, shapes) == 1)
    return descriptors, np.stack(masks)


def test_an_object_that_was_hidden_is_looked_for_everywhere_and_one_that_was_not_near_its_place(trunk: Trunk) -> None:
    config = with_values(Config(), matching__radius=3)
    hidden = matching_planes(*(found := jumping(trunk, [8, None, 88])), 0, config)
    assert overlap((hidden[2] > 0).numpy(), cells(found[1][2])) > 0.4
    jumped = matching_planes(*jumping(trunk, [8, 88]), 0, config)
    assert not (jumped[1] > 0).any(), "ten cells away, the radius is three"


# --- the file


def test_a_clip_from_a_file_is_the_one_that_was_written_and_a_window_is_a_part_of_it(
    clip: TrainingClip, tmp_path: Path
) -> None:
    clip.save(tmp_path / "world.safetensors")
    assert clip_paths(tmp_path) == [tmp_path / "world.safetensors"], "and no half-written file beside it"
    loaded = TrainingClip.load(tmp_path / "world.safetensors")
    assert (loaded.name, loaded.seeds, len(loaded), loaded.size) == ("world", clip.seeds, FRAMES, clip.size)
    window = loaded.window(1, 3).window(1, 2)
    assert window.start == 2 and len(window) == 1 and window.seeds == clip.seeds
    for field in dataclasses.fields(clip):
        whole = getattr(clip, field.name)
        if isinstance(whole, torch.Tensor):
            assert torch.equal(getattr(loaded, field.name), whole), field.name
            part = whole[:, 2:3] if field.name in ("matching", "head") else whole[2:3]
            assert torch.equal(getattr(window, field.name), part), field.name


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (0, FRAMES + 1)])
def test_a_window_outside_the_clip_is_refused(clip: TrainingClip, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"0..{FRAMES}, got {start}..{stop}"):
        clip.window(start, stop)


def test_a_file_that_is_no_clip_and_a_folder_without_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected clips"):
        clip_paths(tmp_path)
    (tmp_path / "no.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"no\.safetensors: expected a clip"):
        TrainingClip.load(tmp_path / "no.safetensors")


@dataclasses.dataclass(frozen=True)
class SmallJob:
    """A clip of one pixel that writes down when it is made."""

    name: str
    log: Path

    def make(self) -> TrainingClip:
        with self.log.open("a") as file:
            file.write(f"{self.name}\n")
        names = [field.name for field in dataclasses.fields(TrainingClip) if field.type == "Tensor"]
        return TrainingClip(name=self.name, seeds=(), **{name: torch.zeros(1, 1, 1, 1) for name in names})


def test_a_cache_goes_on_where_it_was_ended_and_refuses_clips_of_other_settings(tmp_path: Path) -> None:
    out, log = tmp_path / "cache", tmp_path / "log"
    jobs = [SmallJob(name, log) for name in ("a", "b", "c")]
    out.mkdir()
    jobs[1].make().save(out / "b.safetensors")
    log.unlink()
    assert build_cache(jobs, out, {"all": {"size": [2, 2]}}) == 2
    assert log.read_text().split() == ["a", "c"]
    assert build_cache(jobs, out, {"all": {"size": [2, 2]}, "more": {"x": 1}}) == 0
    assert json.loads((out / "manifest.json").read_text()) == {"all": {"size": [2, 2]}, "more": {"x": 1}}
    with pytest.raises(ValueError, match=r"expected all\.size \[3, 3\], found clips made with \[2, 2\]"):
        build_cache(jobs, out, {"all": {"size": [3, 3]}})
    with pytest.raises(ValueError, match="found 'a' twice"):
        build_cache([jobs[0], jobs[0]], out, {})
    assert [path.stem for path in clip_paths(out)] == ["a", "b", "c"]


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


# --- copy and paste


def painted(name: str, colour: tuple[int, int, int], ground: tuple[int, int, int], count: int = 24) -> Pictures:
    """A clip of one object of one colour that walks to the right, on a background of another."""
    images = np.full((count, 252, 448, 3), ground, np.uint8)
    truth = np.zeros((count, 252, 448), np.uint8)
    for number in range(count):
        x = 150 + 4 * number
        truth[number, 100:170, x : x + 40] = 1
        images[number][truth[number] == 1] = colour
    return Pictures(name=name, images=images, truth=truth, seeds=((1, 0),))


def is_colour(images: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    low, high = ([value + step for value in colour] for step in (-2, 2))
    flat = images.reshape(-1, images.shape[-2], 3)
    return (cv2.inRange(flat, np.array(low), np.array(high)) > 0).reshape(images.shape[:-1])


def assert_truth_fits(pictures: Pictures, colours: dict[int, tuple[int, int, int]]) -> None:
    """Inside the truth of an id is its colour, and its colour is nowhere else; edges of 3 pixels are mixed."""
    kernel = np.ones((7, 7), np.uint8)
    for value, colour in colours.items():
        fits = is_colour(pictures.images, colour)
        for mask, fit in zip((pictures.truth == value).astype(np.uint8), fits, strict=True):
            # an object may end where the image does: its edge is no inside
            inside = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
            assert fit[inside].all() and not fit[cv2.dilate(mask, kernel) == 0].any(), value


MADE = range(16)


@pytest.fixture(scope="module")
def pasted() -> list[Pictures]:
    base, donor = painted("base", RED, GREY), painted("donor", GREEN, BLUE)
    return [copy_paste(f"p{k}", base, donor, np.random.default_rng(k)) for k in MADE]


def test_the_truth_of_pasted_objects_fits_the_pixels_whoever_lies_above(pasted: list[Pictures]) -> None:
    for pictures in pasted:
        assert_truth_fits(pictures, {1: RED, 2: GREEN})


def test_both_objects_can_be_seeded_on_the_first_frame_and_half_of_the_frames_are_left(pasted: list[Pictures]) -> None:
    for pictures in pasted:
        assert pictures.seeds == ((1, 0), (2, 0)) and 12 <= len(pictures.images) <= 24
        assert min((pictures.truth[0] == i).sum() for i in (1, 2)) >= 300


def test_at_times_one_of_the_objects_is_gone_for_some_frames_and_comes_back(pasted: list[Pictures]) -> None:
    returned = {1: 0, 2: 0}
    for pictures in pasted:
        for value in returned:
            seen = (pictures.truth == value).any(axis=(1, 2))
            gone = np.flatnonzero(~seen)
            returned[value] += gone.size >= 5 and bool(seen[gone[-1] :].any())
    assert sum(returned.values()) >= 2 and sum(returned.values()) < len(pasted)


def test_each_of_the_objects_lies_over_the_other_at_times(pasted: list[Pictures]) -> None:
    covered, behind = False, False
    for pictures in pasted:
        if is_colour(pictures.images, BLUE).any():
            continue  # a screen of the donor's background hides them both
        areas = [(pictures.truth == i).sum(axis=(1, 2)) for i in (1, 2)]
        is_whole = areas[0].min() > 0.98 * areas[0].max()
        covered |= bool(areas[0].min() < 0.5 * areas[0].max())
        behind |= bool(is_whole and areas[1].min() < 0.3 * areas[1].max())
    assert covered and behind


def test_a_twin_is_the_mirrored_object_itself_and_keeps_apart_in_the_truth() -> None:
    base = painted("base", RED, GREY)
    pictures = copy_paste("twin", base, base, np.random.default_rng(3))
    assert {1, 2} <= set(np.unique(pictures.truth))
    inside = cv2.erode((pictures.truth[0] > 0).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    assert is_colour(pictures.images[0], RED)[inside].all()


def test_copying_is_the_same_for_the_same_random_numbers_and_leaves_its_sources_alone() -> None:
    base, donor = painted("base", RED, GREY), painted("donor", GREEN, BLUE)
    before = base.images.copy(), donor.images.copy()
    one, same, other = (copy_paste("x", base, donor, np.random.default_rng(k)) for k in (5, 5, 6))
    assert np.array_equal(one.images, same.images) and np.array_equal(one.truth, same.truth)
    assert one.images.shape != other.images.shape or not np.array_equal(one.images, other.images)
    assert np.array_equal(base.images, before[0]) and np.array_equal(donor.images, before[1])


def test_a_screen_hides_the_object_wholly_for_five_to_fifteen_frames_and_nobody_at_the_start() -> None:
    for k in range(8):
        pictures = painted("base", RED, GREY, 30)
        images, truth = pictures.images, pictures.truth
        masks = truth == 1
        _hide(images, truth, masks, images[0].copy(), masks[0], np.random.default_rng(k))
        hidden = ~is_colour(images, RED).any(axis=(1, 2))
        assert np.array_equal(hidden, ~truth.any(axis=(1, 2)))
        assert 5 <= hidden.sum() and np.ptp(np.flatnonzero(hidden)) + 1 == hidden.sum(), k
        assert hidden.sum() <= 17, "fifteen, and one on each side by the margin of the screen"
        assert not hidden[0] and not hidden[-1]


def test_objects_that_are_never_seen_together_are_refused() -> None:
    tiny = painted("tiny", RED, GREY)
    tiny.truth[...] = 0
    tiny.truth[:, 5:10, 5:10] = 1
    with pytest.raises(Unsuitable, match="expected tiny and donor to show"):
        copy_paste("x", tiny, painted("donor", GREEN, BLUE), np.random.default_rng(0))


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
        pictures = moving_still("x", still, other, (252, 448), np.random.default_rng(k))
        ids = sorted(np.unique(pictures.truth[0]).tolist())
        counts.add(len(ids) - 1)
        assert pictures.seeds == tuple((i, 0) for i in ids if i), "ids are 1..n, each seeded"
        kernel = np.ones((7, 7), np.uint8)
        for image, truth in zip(pictures.images, pictures.truth, strict=True):
            for i, _ in pictures.seeds:
                inside = cv2.erode((truth == i).astype(np.uint8), kernel, borderValue=0) > 0
                fits = [is_colour(image, colour)[inside].mean() for colour in (RED, GREEN, BLUE)]
                assert not inside.any() or max(fits) > 0.99, "one object is of one colour"
        moved = [
            cv2.absdiff(before, after).any()
            for before, after in zip(pictures.images, pictures.images[1:], strict=False)
        ]
        assert all(moved)
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


# --- the command


def write_davis(root: Path, names: tuple[str, ...]) -> None:
    """Clips of two frames; on the second little is left of object 1 and nothing of the other."""
    exact = world.labels(0) * (world.labels(0) == 1)
    rest = exact.copy()
    rest[22:, :], rest[:, 25:] = 0, 0
    for name in names:
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for number, truth in enumerate((exact, rest)):
            picture = cv2.cvtColor(world.image(number), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(root / "JPEGImages" / name / f"{number:05d}.png"), picture)
            write_labels(root / "Annotations" / name / f"{number:05d}.png", truth)


def write_stills(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(2):
        picture = cv2.cvtColor(world.image(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(root / "images" / f"{number}.png"), picture)
        write_labels(root / "masks" / f"{number}.png", world.labels(number))


def test_clips_held_out_are_prepared_but_nothing_else_is_made_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_davis(tmp_path / "davis", ("a", "b", "c"))
    asked: list[object] = []

    def record(jobs: list[object], *others: object) -> int:
        asked.extend(jobs)
        return 0

    monkeypatch.setattr(preparing, "build_cache", record)
    prepare(Preparation(out=tmp_path / "out", davis=tmp_path / "davis", held_out=("b",), pasted=3))
    assert [job.name for job in asked] == ["davis_a", "davis_c", "davis_b", "paste_0000", "paste_0001", "paste_0002"]
    assert all(job.clips == ("a", "c") for job in asked if isinstance(job, PasteJob))


def test_a_made_clip_depends_on_its_own_number_alone(tmp_path: Path) -> None:
    write_stills(tmp_path / "stills")
    one, same, other = (
        StillJob(folders=(tmp_path / "stills",), number=k, trunk="shipped", seed=0).make() for k in (1, 1, 2)
    )
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(same, field.name)), field.name
    assert not torch.equal(one.images, other.images)
    assert one.head.any() and one.size == (252, 448)


def test_prepare_writes_the_clips_of_a_data_set_and_of_stills_and_pastes_nothing_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_davis(tmp_path / "davis", ("a",))
    arguments = ["train", "prepare", "--davis", str(tmp_path / "davis"), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--held-out", "nobody"]) == 2
    assert "expected the clip 'nobody' to hold out, found a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    write_stills(tmp_path / "stills")
    more = ["--held-out", "a", "--stills", str(tmp_path / "stills"), "--moving", "1", "--processes", "1"]
    assert cli.main([*arguments, *more]) == 0
    assert "2 clips made" in capsys.readouterr().out
    paths = clip_paths(tmp_path / "out")
    assert [path.stem for path in paths] == ["davis_a", "still_0000"], "nothing is pasted from the one held out"
    clip = TrainingClip.load(paths[0])
    assert clip.images.shape == (2, 3, 252, 448)
    assert clip.truth[1].any() and clip.seeds == ((1, 0),), "too little to be seeded on the second frame"
    assert clip.head.flatten(2).any(dim=2).all()
