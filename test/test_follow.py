# SPDX-License-Identifier: Apache-2.0
"""The networks in the tracker: what is carried, what objects know of each other, when one is hidden and found again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import world
from shipped import CONFIG, LARGE, assert_same, engine, overlap, still, tracker

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.engine import Around, Features, Looked, Objects
from maskrnn_ros.model.torch import frame_step
from maskrnn_ros.model.torch.sight import Carried, place
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking import decide as module
from maskrnn_ros.tracking.recognition import Measured
from maskrnn_ros.tracking.target import taken
from maskrnn_ros.types import Frame, InstanceState, Seed


def test_the_networks_follow_what_moves() -> None:
    one = tracker()
    tracks = one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    assert np.array_equal(tracks.labels, world.labels(0, LARGE)), "the seed itself, to the pixel"
    for number in range(1, 5):
        tracks = one.step(world.frame(number, LARGE))
        truth = world.labels(number, LARGE)
        assert min(overlap(tracks.labels == i, truth == i) for i in (1, 2)) > 0.8, number


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_images_give_the_same_masks_whatever_the_number_of_threads(threads: int) -> None:
    config = with_values(CONFIG, refinement__enabled=True)

    def run(threads: int) -> Tracker:
        one = tracker(config, threads=threads)
        found = [one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))]
        found += [one.step(world.frame(number, LARGE)) for number in (1, 2, 3)]
        masks.append(tuple(tracks.labels for tracks in found))
        return one

    masks: list[tuple[np.ndarray, ...]] = []
    one, other = run(1), run(threads)
    assert_same(*masks)
    assert_same(dict(one.states), dict(other.states))


def brute_force(maps: np.ndarray) -> np.ndarray:
    """At every place of each map the most of what all others have there; alone: 0."""
    found = np.zeros_like(maps)
    for k in range(len(maps)):
        for o in range(len(maps)):
            if o != k:
                found[k] = np.maximum(found[k], maps[o])
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("levels", [2, 5, 1000])  # of few levels, many are equal, at 0 and at the top, too
def test_each_is_shown_the_most_of_the_others(count: int, levels: int) -> None:
    maps = np.random.default_rng(count).integers(0, levels + 1, (count, 20, 30)).astype(np.float32) / levels
    found = frame_step._most_of_others(torch.from_numpy(maps)).numpy()
    np.testing.assert_allclose(found, brute_force(maps), atol=1e-6)


def test_a_thin_object_that_fills_no_cell_is_looked_for_where_it_was() -> None:
    prior = torch.zeros(20, 30)
    prior[5, 4:9], prior[6, 4] = 0.3, 0.1
    assert frame_step._boxes_of(prior[None]).tolist() == [[16, 20, 36, 24]]
    prior[10:12, 10:14], prior[12, 10] = 0.9, 0.4
    nothing = torch.full((20, 30), 0.05)
    found = frame_step._boxes_of(torch.stack([nothing, prior]))
    assert found[0].isnan().all()
    assert found[1].tolist() == [40, 40, 56, 48], "what fills cells is looked for where it does"


# --- hidden and found again ---


def picture(x: int, y: int, there: bool = True) -> np.ndarray:
    """A red thing before a dark background: no texture of noise, by which nothing is known again."""
    image = world.texture(0, world.HEIGHT, world.WIDTH) // 3
    if there:
        image[y : y + 40, x : x + 44] = world.texture(1, 40, 44) // 6 + np.array([200, 30, 30], np.uint8)
    return image


def red_frame(number: int, image: np.ndarray) -> Frame:
    return Frame(stamp_ns=world.stamp_ns(number), image=image)


def following_red(config: Config = CONFIG) -> Tracker:
    """It lies at (12, 12) and is marked; nothing moves by the flow."""
    one = tracker(config, flow=still)
    labels = np.zeros((world.HEIGHT, world.WIDTH), np.int32)
    labels[12:52, 12:56] = 1
    one.seed(Seed(stamp_ns=world.stamp_ns(0), labels=labels), red_frame(0, picture(12, 12)))
    return one


def test_what_is_gone_is_hidden_then_lost_and_found_again_where_it_comes_back() -> None:
    one = following_red(with_values(CONFIG, presence__lost_after_frames=2))
    states = []
    for number in range(1, 5):
        tracks = one.step(red_frame(number, picture(0, 0, there=False)))
        states.append(tracks.tracks[0].state)
        assert tracks.tracks[0].box is None and not tracks.labels.any()
        known = one.states[1].known
        assert known is not None and not known.carried.probability.any() and not known.carried.hidden.any()
    assert states == [InstanceState.OCCLUDED] * 2 + [InstanceState.LOST] * 2
    tracks = one.step(red_frame(5, picture(72, 44)))
    assert tracks.tracks[0].state == InstanceState.TRACKING
    truth = np.zeros((world.HEIGHT, world.WIDTH), bool)
    truth[44:84, 72:116] = True
    assert overlap(tracks.labels == 1, truth) > 0.7


def test_what_is_gone_for_long_is_carried_as_it_was_and_the_others_go_on() -> None:
    """Where nothing is looked at, nothing moves or grows: boxes without end would be cut out of the image."""
    one = tracker(flow=still)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    image = world.image(0, LARGE[1:])
    image[:, :72] = 60  # the first one is gone, and nothing is like it
    crops = []
    for number in range(1, 8):
        tracks = one.step(red_frame(number, image))
        assert [track.state for track in tracks.tracks] == [InstanceState.OCCLUDED, InstanceState.TRACKING]
        assert overlap(tracks.labels == 2, world.labels(0, LARGE) == 2) > 0.85
        known = one.states[1].known
        assert known is not None
        crops.append(known.carried.crop)
    assert all(np.array_equal(crop, crops[0]) for crop in crops)
    assert 48 <= crops[0][2] - crops[0][0] < 2 * 40 * 1.8


def says(monkeypatch: pytest.MonkeyPatch, **changes: float) -> None:
    """Masks are measured so, whatever they are; where there is none nothing is changed."""
    measured = module.measured

    def changed(*arguments: object) -> Measured:
        found: Measured = measured(*arguments)  # type: ignore[arg-type]
        told = {
            name: np.where(found.area > 0, np.float64(value), getattr(found, name)) for name, value in changes.items()
        }
        return found._replace(**told)

    monkeypatch.setattr(module, "measured", changed)


SURE = {"presence": 0.99, "sure": 0.95, "likeness": 1.0, "agreement": 0.5}


@pytest.mark.parametrize("likeness, status", [(0.85, InstanceState.OCCLUDED), (0.95, InstanceState.TRACKING)])
def test_what_is_found_again_must_look_like_the_seed(
    monkeypatch: pytest.MonkeyPatch, likeness: float, status: InstanceState
) -> None:
    one = following_red()
    says(monkeypatch, **SURE)
    assert one.step(red_frame(1, picture(12, 12))).tracks[0].state == InstanceState.TRACKING
    monkeypatch.undo()
    assert one.step(red_frame(2, picture(0, 0, there=False))).tracks[0].state == InstanceState.OCCLUDED
    says(monkeypatch, **{**SURE, "likeness": likeness})
    assert one.step(red_frame(3, picture(12, 12))).tracks[0].state == status


@pytest.mark.parametrize("agreement, status", [(-0.7, InstanceState.OCCLUDED), (-0.5, InstanceState.TRACKING)])
def test_what_was_beside_the_object_on_its_seed_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, agreement: float, status: InstanceState
) -> None:
    one = following_red()
    says(monkeypatch, **{**SURE, "agreement": agreement})
    assert one.step(red_frame(1, picture(12, 12))).tracks[0].state == status


@pytest.mark.parametrize("likeness, status", [(0.85, InstanceState.OCCLUDED), (0.95, InstanceState.TRACKING)])
def test_a_mask_that_is_not_sure_counts_where_it_looks_like_the_seed(
    monkeypatch: pytest.MonkeyPatch, likeness: float, status: InstanceState
) -> None:
    one = following_red()
    says(monkeypatch, **SURE)
    one.step(red_frame(1, picture(12, 12)))
    monkeypatch.undo()
    says(monkeypatch, **{**SURE, "sure": 0.7, "likeness": likeness})
    assert one.step(red_frame(2, picture(12, 12))).tracks[0].state == status


# --- parts ---


def test_without_adaptation_there_is_no_target_model() -> None:
    one = tracker(with_values(CONFIG, adaptation__method="none"))
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    one.step(world.frame(1, LARGE))
    one.step(world.frame(2, LARGE))
    known = one.states[1].known
    assert known is not None and not known.weights.any() and not known.memory.seed.square.any()
    assert one.states[1].frames_unseen == 0, "the warped mask and the decoder are enough"
    assert one.adaptation == "off"


def test_trusted_frames_enter_the_memory_and_the_seed_stays() -> None:
    one = tracker()
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    before = one.states[1].known
    one.step(world.frame(1, LARGE))
    between = one.states[1].known
    one.step(world.frame(2, LARGE))
    after = one.states[1].known
    assert before is not None and between is not None and after is not None
    assert_same(before.memory, between.memory)  # every second image is due
    assert_same(before.memory.seed, after.memory.seed)
    assert not np.array_equal(before.memory.recent.square, after.memory.recent.square)
    assert not np.array_equal(before.weights, after.weights)
    assert_same(before.memory.seed_keys, after.memory.seed_keys)
    assert not np.array_equal(before.memory.newest_keys.code, after.memory.newest_keys.code)


@pytest.mark.parametrize("change", ["flow_stream", "hidden", "localization"])
def test_each_part_can_be_switched(change: str) -> None:
    def run(config: Config) -> np.ndarray:
        one = tracker(with_values(config, gate__spans_prior=False, gate__enlarge=1.0))
        one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
        for number in (1, 2, 3):
            one.step(world.frame(number, LARGE))
        return one.states[1].probability

    default = getattr(CONFIG.network, change)
    assert not np.array_equal(run(CONFIG), run(with_values(CONFIG, **{f"network__{change}": not default})))


def objects_of(one: Tracker, ids: Sequence[int]) -> tuple[Features, Objects]:
    """What a step would be given of some of the objects of a tracker."""
    assert one.newest is not None
    known = taken(one.states.begun, [i - 1 for i in ids])
    return one.newest.features, known.told(np.full((len(ids), 4), np.nan, np.float32))


def test_what_an_object_is_told_does_not_depend_on_how_many_there_are_but_on_where_they_are() -> None:
    shapes = (*LARGE, world.Shape(3, 40, 34, 40, 44, 1, 0))  # it lies over both
    one = tracker(shapes=shapes)
    one.seed(world.seed(0, shapes=shapes), world.frame(0, shapes))
    one.step(world.frame(1, shapes))
    cells = world.HEIGHT // 4, world.WIDTH // 4
    nothing = np.zeros((1, *cells), np.float32)

    def look(ids: Sequence[int], beside: np.ndarray = nothing) -> Looked:
        features, objects = objects_of(one, ids)
        around = Around(np.zeros((1, 2, *cells), np.float32), nothing, beside, np.ones(4, np.float32))
        return engine().step(features, around, objects)

    together, turned = look((1, 2, 3)), look((3, 1, 2))
    for name in ("log_odds", "deltas", "presence", "hidden", "crops", "matched"):
        expected = np.roll(getattr(turned, name), -1, axis=0)
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-3, err_msg=name)
    placed = torch.stack([place_of(one, i) for i in (1, 3)]).amax(dim=0).numpy()
    alone, lonely = look((2,), placed[None]), look((2,))
    np.testing.assert_allclose(alone.log_odds[0], together.log_odds[1], atol=1e-3)
    np.testing.assert_allclose(alone.hidden[0], together.hidden[1], atol=1e-3)
    assert np.abs(lonely.log_odds[0] - together.log_odds[1]).max() > 0.1, "else the others were not seen"
    np.testing.assert_allclose(lonely.matched[0], together.matched[1], atol=1e-3)


def place_of(one: Tracker, instance_id: int) -> torch.Tensor:
    """An object's mask at the cells of the frame, which has not moved."""
    known = one.states[instance_id].known
    assert known is not None
    carried = Carried(
        *(torch.from_numpy(part)[None] for part in (known.carried.probability[None], known.carried.crop)),
        torch.from_numpy(known.carried.hidden)[None],
    )
    return place(
        carried.probability,
        carried.boxes,
        torch.zeros(1, 2, world.HEIGHT // 4, world.WIDTH // 4),
        torch.zeros(1, dtype=torch.int64),
    )[0]
