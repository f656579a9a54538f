# SPDX-License-Identifier: Apache-2.0
"""Instances around which nothing changes are not looked at, and are on the very image on which something does."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from shipped import CONFIG, assert_same, engine, overlap

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.rest import picture_of
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedRequest, Session
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import Frame, InstanceState, Seed

HEIGHT, WIDTH = 192, 320
PLACES = {1: (40.0, 60.0, 44, 40), 2: (210.0, 70.0, 40, 52)}
"""x, y, width, height of the objects; their crops do not meet."""

SETTLED = 8
"""Images after which what stands still rests: it is marked on the first, and looked at five times."""

OFF = with_values(CONFIG, rest__enabled=False)


@functools.cache
def texture(seed: int, height: int, width: int, middle: float, spread: float) -> np.ndarray:
    """Smooth noise, float32 (height, width, 3)."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 4.0)
    return np.asarray(middle + soft * spread / soft.std(), np.float32)


def scene(number: int, moved: float = 0.0, sigma: float = 3.0, quality: int = 85, gain: float = 1.0, hand: float = 0.0):
    """What a still camera sees: two objects 40 grey levels above the background, noise and JPEG.

    Args:
        number: Of the image; the noise differs.
        moved: How far the first object is to the right of its place, pixels.
        sigma: Of the noise, grey levels.
        quality: Of the JPEG.
        gain: Of the light.
        hand: Right edge of a hand that comes from the left, pixels; 0: there is none.
    """
    picture = texture(0, HEIGHT, WIDTH, 100, 8).copy()
    for i, (x, y, width, height) in PLACES.items():
        x += moved if i == 1 else 0.0
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        size = WIDTH, HEIGHT
        share = cv2.warpAffine(np.ones((height, width), np.float32), shift, size)[..., None]
        patch = cv2.warpAffine(texture(i, height, width, 140, 8), shift, size, borderMode=cv2.BORDER_REPLICATE)
        picture = picture * (1 - share) + patch * share
    picture[40:110, : int(hand)] = 170
    picture = picture * gain + np.random.default_rng(number).normal(0, sigma, picture.shape)
    image = np.clip(picture, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1))


def labels(moved: float = 0.0) -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), np.int32)
    for i, (x, y, width, height) in PLACES.items():
        x += moved if i == 1 else 0.0
        found[int(y) : int(y) + height, round(x) : round(x) + width] = i
    return found


def stamp_ns(number: int) -> int:
    return 1_000_000_000 + number * 40_000_000


def frame(number: int, image: np.ndarray, ignored: np.ndarray | None = None) -> Frame:
    return Frame(stamp_ns=stamp_ns(number), image=image, ignored=ignored)


def begun(config: Config = CONFIG, images: int = SETTLED, threads: int = 1, **changes: float) -> Tracker:
    """A tracker that has seen so many images of things at rest."""
    runs = engine() if threads == 1 else load_engine(with_values(CONFIG, threads=threads))
    one = Tracker(config, DisFlow("ultrafast"), runs, threads=threads)
    first = frame(0, scene(0, **changes))
    one.seed(Seed(stamp_ns=first.stamp_ns, labels=labels()), first)
    for number in range(1, images):
        one.step(frame(number, scene(number, **changes)))
    return one


def resting(one: Tracker) -> set[int]:
    """Ids of those that the networks have not looked at on the newest image."""
    return {i for i, state in one.states.items() if state.still is not None and state.still.age < state.age}


def due(one: Tracker) -> set[int]:
    """Ids of those that are looked at on the next image since it is their turn."""
    return {i for i, state in one.states.items() if (state.age + 1 + 3 * i) % 15 == 0}


def past_due(one: Tracker, **changes: float) -> int:
    """Go on until nobody is due for a while; gives the number of the next image."""
    number = next(iter(one.states.values())).age + 1
    while due(one) or resting(one) != set(one.states):
        one.step(frame(number, scene(number, **changes)))
        number += 1
        assert number < 60, "they do not come to rest"
    return number


# --- at rest ---


@pytest.mark.parametrize(("sigma", "quality"), [(0.0, 100), (3.0, 85), (3.0, 60), (6.0, 85)])
def test_what_stands_still_is_looked_at_now_and_then_only(sigma: float, quality: int) -> None:
    one = begun(sigma=sigma, quality=quality)
    looks = dict.fromkeys(PLACES, 0)
    for number in range(SETTLED, SETTLED + 45):
        one.step(frame(number, scene(number, sigma=sigma, quality=quality)))
        for i in set(PLACES) - resting(one):
            looks[i] += 1
    assert all(count == 3 for count in looks.values()), looks  # every 15 images


def test_not_all_are_looked_at_on_the_same_image() -> None:
    one, looked = begun(), []
    for number in range(SETTLED, SETTLED + 15):
        one.step(frame(number, scene(number)))
        looked += [number for i in PLACES if i not in resting(one)]
    assert len(looked) == len(set(looked)) == 2


def test_where_all_rest_no_network_runs_and_nothing_is_held_twice() -> None:
    one = begun()
    number = past_due(one)
    before, area = one.moment, one.states.area
    tracks = one.step(frame(number, scene(number)))
    assert resting(one) == set(PLACES)
    assert one.newest is not None and one.newest._features is None
    held = one.states
    assert held.known is before.states.known and held.patches is before.states.patches  # type: ignore[attr-defined]
    assert np.array_equal(area, one.states.area)
    assert [track.state for track in tracks.tracks] == [InstanceState.TRACKING] * 2
    assert [track.velocity for track in tracks.tracks] == [(0.0, 0.0)] * 2
    assert [track.age for track in tracks.tracks] == [number] * 2


def test_masks_are_as_good_as_with_looks() -> None:
    on, off = begun(images=40), begun(OFF, images=40)
    assert not resting(off)
    for i in PLACES:
        good, usual = (overlap(one.states[i].probability >= 0.5, labels() == i) for one in (on, off))
        assert good > usual - 0.01 and good > 0.9


def test_with_rest_off_or_without_networks_nobody_rests() -> None:
    assert not any(state.still for state in begun(OFF).states.values())
    one = Tracker(with_values(CONFIG, network__enabled=False), DisFlow("ultrafast"))
    first = frame(0, scene(0))
    one.seed(Seed(stamp_ns=first.stamp_ns, labels=labels()), first)
    for number in range(1, SETTLED):
        one.step(frame(number, scene(number)))
    assert not any(state.still for state in one.states.values())


@pytest.mark.parametrize("threads", [2, 3])
def test_the_result_is_the_same_whatever_the_threads(threads: int) -> None:
    assert_same(begun(images=20).states, begun(images=20, threads=threads).states)


@pytest.mark.parametrize("phase", [0, 1])
def test_a_camera_that_sends_each_image_twice_does_not_keep_them_awake(phase: int) -> None:
    """An image is no measure of the noise of its copy."""
    one, rests = begun(images=1), 0
    for number in range(1, 40):
        one.step(frame(number, scene((number + phase) // 2)))
        rests += len(resting(one))
    assert rests > 50


def test_without_any_noise_they_rest_and_what_changes_is_noticed() -> None:
    one, still = begun(images=1), scene(0)
    for number in range(1, SETTLED + 8):
        one.step(frame(number, still))
    assert resting(one) | due(one) == set(PLACES)
    other = still.copy()
    other[80:88, 60:68] = np.clip(other[80:88, 60:68].astype(int) + 8, 0, 255)
    one.step(frame(SETTLED + 8, other))
    assert 1 not in resting(one)


@pytest.mark.parametrize("size", [(249, 377), (375, 500), (97, 97)])
def test_every_pixel_of_a_crop_is_compared_whatever_the_size(size: tuple[int, int]) -> None:
    def prepared(image: np.ndarray) -> PreparedFrame:
        return PreparedFrame(stamp_ns=1, size=size, image=image, engine=None)

    plain = np.full((*size, 3), 100, np.uint8)
    for column in (0, 40, size[1] // 2, size[1] - 9, size[1] - 1):
        changed = plain.copy()
        changed[:, column] = 255
        cells = np.abs(picture_of(prepared(changed)) - picture_of(prepared(plain))).max(axis=(0, 2))
        assert cells[column // 8] > 10 and np.count_nonzero(cells) == 1


def test_in_torch_all_rest_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its networks are captured or compiled for one number of objects."""
    monkeypatch.setattr(Tracker, "engine", property(lambda self: "torch"))
    one = begun()
    counts = set()
    for number in range(SETTLED, SETTLED + 30):
        one.step(frame(number, scene(number)))
        counts.add(len(resting(one)))
    assert counts == {0, 2}
    one.step(frame(SETTLED + 30, scene(SETTLED + 30, moved=3)))
    assert not resting(one)


def test_light_and_codecs_may_wander_a_little() -> None:
    one, looks = begun(sigma=1, quality=100), 0
    for number in range(SETTLED, SETTLED + 30):
        one.step(frame(number, scene(number, sigma=1, quality=100, gain=1 + 0.002 * np.sin(number / 5))))
        looks += len(set(PLACES) - resting(one))
    assert looks == 4  # each twice, in its turn


# --- what is noticed on the very image ---

CHANGES: dict[str, Callable[[int], np.ndarray]] = {
    "it moves by half a pixel": lambda number: scene(number, moved=0.5),
    "a finger enters the crop": lambda number: scene(number, hand=32),
    "it is covered": lambda number: scene(number, hand=100),
    "the light is dimmed": lambda number: scene(number, gain=0.96),
    "it is gone": lambda number: scene(number, moved=400),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_is_looked_at_on_that_very_image(what: str) -> None:
    one = begun()
    number = past_due(one)
    one.step(frame(number, CHANGES[what](number)))
    assert 1 not in resting(one)
    assert 2 in resting(one) or what == "the light is dimmed"


def test_what_is_small_beside_a_large_object_is_a_change() -> None:
    one = Tracker(CONFIG, DisFlow("ultrafast"), engine())
    place = np.zeros((HEIGHT, WIDTH), np.int32)
    place[40:150, 80:240] = 1
    picture = texture(0, HEIGHT, WIDTH, 100, 8) + 40 * (place != 0)[..., None]

    def seen(number: int) -> Frame:
        noise = np.random.default_rng(number).normal(0, 2, picture.shape)
        return frame(number, np.clip(picture + noise, 0, 255).astype(np.uint8))

    first = seen(0)
    one.seed(Seed(stamp_ns=first.stamp_ns, labels=place), first)
    for number in range(1, SETTLED):
        one.step(seen(number))
    assert resting(one) == {1}
    picture[80:83, 75:78] = 200  # a wire, before its edge
    one.step(seen(SETTLED))
    assert resting(one) == set()


@pytest.mark.parametrize("what", ["it is covered", "it is gone"])
def test_it_is_unseen_on_the_image_on_which_it_would_be_without_rest(what: str) -> None:
    states = []
    for config in (OFF, CONFIG):
        one = begun(config, images=20)
        states.append([one.step(frame(n, CHANGES[what](n))).tracks[0].state for n in range(20, 24)])
    off, on = (next(n for n, state in enumerate(found) if state != InstanceState.TRACKING) for found in states)
    assert on <= off
    assert one.states[1].frames_unseen > 0


@pytest.mark.parametrize("speed", [0.5, 0.1, 0.03])
def test_what_moves_slowly_is_followed_as_without_rest(speed: float) -> None:
    on, off = (begun(config) for config in (CONFIG, OFF))
    for number in range(SETTLED, SETTLED + 60):
        moved = speed * (number - SETTLED + 1)
        picture = frame(number, scene(number, moved=moved))
        masks = [one.step(picture).labels == 1 for one in (on, off)]
        good, usual = (overlap(mask, labels(moved) == 1) for mask in masks)
        assert good > usual - 0.04, number  # a column of pixels more or less is 0.023


def test_what_moves_slowly_has_not_gone_far_when_it_is_noticed() -> None:
    one = begun()
    number, moved, noticed = past_due(one), 0.0, False
    while not noticed:
        moved, turn = moved + 0.03, due(one)
        one.step(frame(number, scene(number, moved=moved)))
        number, noticed = number + 1, 1 not in resting(one) | turn
    assert 0.1 < moved <= 0.6


def test_what_moves_into_a_crop_that_stays_wakes_that_one_alone() -> None:
    one = begun()
    number = past_due(one)
    one.step(frame(number, scene(number, moved=110)))
    assert resting(one) == set()  # the first has moved next to the second


# --- others, seeds, settings ---


def test_the_others_are_shown_what_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    one, shown = begun(), []
    original = type(engine()).step

    def step(self: object, features: object, around: object, objects: object) -> object:
        shown.append((around.beside[0], len(objects.boxes)))  # type: ignore[attr-defined]
        return original(self, features, around, objects)  # type: ignore[arg-type]

    number = past_due(one)
    monkeypatch.setattr(type(engine()), "step", step)
    one.step(frame(number, scene(number, moved=1.0)))
    ((beside, count),) = shown
    x, y, width, height = (round(value / 4) for value in PLACES[2])
    assert count == 1
    assert beside[y + 2 : y + height - 2, x + 2 : x + width - 2].min() > 0.9
    assert beside[:, : x - 2].max() < 0.1  # itself it is not shown


def test_with_others_there_or_marked_anew_all_are_looked_at() -> None:
    for change in ("removed", "added", "corrected"):
        one = begun()
        number = past_due(one)
        if change == "removed":
            one.remove([2])
            one.step(frame(number, scene(number)))  # it goes along once more
            number += 1
        else:
            mark = np.zeros((HEIGHT, WIDTH), np.int32)
            mark[150:180, 140:180] = 3
            if change == "corrected":
                mark = np.where(labels() == 2, labels(), 0).astype(np.int32)
            picture = frame(number, scene(number))
            one.seed(Seed(stamp_ns=picture.stamp_ns, labels=mark), picture)
            number += 1
        one.step(frame(number, scene(number)))
        assert 1 not in resting(one), change
        for later in range(number + 1, number + SETTLED):
            one.step(frame(later, scene(later)))
        assert 1 in resting(one), change


def test_an_ignore_mask_that_changes_in_the_crop_is_a_change() -> None:
    one = begun()
    number = past_due(one)
    far, near = (np.zeros((HEIGHT, WIDTH), np.bool_) for _ in range(2))
    far[:, 260:] = True
    near[60:70, 30:36] = True
    one.step(frame(number, scene(number), far))
    assert resting(one) == {1}  # it reaches into the crop of the second
    one.step(frame(number + 1, scene(number + 1), near))
    assert resting(one) == set()


class Bench:
    """A session before a still camera."""

    def __init__(self, saved: Saved | None = None) -> None:
        self.kept: list[Saved] = []
        self.ids = IdBook()
        if saved is not None:
            self.ids.take_up([one.instance_id for one in saved.instances], saved.used)
        self.config = with_values(CONFIG, catch_up__mode="exact")
        self.session = Session(
            self.config,
            lambda config: Tracker(config, DisFlow("ultrafast"), engine()),
            self.ids,
            lambda outcome: None,
            lambda line: None,
            clock=lambda: 0.0,
            saved=saved,
            keep=self.kept.append,
        )

    def images(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.session.process(frame(number, scene(number)), 0)

    def seed(self, number: int, *ids: int) -> None:
        marks = np.where(np.isin(labels(), ids), labels(), 0).astype(np.int32)
        seed = Seed(stamp_ns=stamp_ns(number), labels=marks)
        self.session.seed(SeedRequest(ticket=None, admission=self.ids.admit(seed, self.config), arrived=0.0))
        while self.session.catching_up:
            self.session.catch_up()

    @property
    def resting(self) -> set[int]:
        return resting(self.session._tracker)


def test_a_late_seed_is_where_a_seed_in_time_would_be_though_others_rest() -> None:
    late, in_time = Bench(), Bench()
    for one in (late, in_time):
        one.seed(0, 1)
        one.images(0, 10)
    assert 1 in late.resting
    in_time.seed(10, 2)
    for one in (late, in_time):
        one.images(10, 22)
    assert late.resting != in_time.resting
    late.seed(10, 2)
    assert_same(late.session._tracker.moment, in_time.session._tracker.moment)
    for one in (late, in_time):
        one.images(22, 30)
    assert late.resting == in_time.resting != set()
    assert_same(late.session._tracker.moment, in_time.session._tracker.moment)


def test_settings_that_change_masks_wake_all_and_others_do_not() -> None:
    bench = Bench()
    bench.seed(0, 1, 2)
    bench.images(0, 12)
    assert bench.resting
    bench.session.configure(with_values(bench.config, presence__threshold=0.6))
    bench.images(12, 13)
    assert not bench.resting
    bench.images(13, 24)
    assert bench.resting == {1, 2}
    bench.session.configure(with_values(bench.config, presence__threshold=0.6, max_instances=7))
    bench.images(24, 25)
    assert bench.resting


def test_after_a_restart_nobody_rests_at_once() -> None:
    before = Bench()
    before.seed(0, 1, 2)
    before.images(0, 12)
    after = Bench(before.kept[-1])
    after.images(20, 21)
    assert set(after.session.states) == {1, 2} and not after.resting
    after.images(21, 34)
    assert after.resting
