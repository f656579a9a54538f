# SPDX-License-Identifier: Apache-2.0
"""The decoder in the tracker: what is carried, what objects know of each other, when one is hidden and found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import world

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.engine import OnnxStep, _Runtime, on_one_core
from maskrnn_ros.model.graphs import _seen, export_step
from maskrnn_ros.model.step import FINE, Keys, Output, Seen, StepNet
from maskrnn_ros.model.trunk import TrainedTrunk
from maskrnn_ros.model.weights import DECODER, is_step, load_network, load_step, load_trunk, save_weights
from maskrnn_ros.tracking import Tracker, build_tracker, recognition
from maskrnn_ros.tracking import follow as module
from maskrnn_ros.tracking.follow import Following, most_of_others
from maskrnn_ros.tracking.rescale import rescaled_states
from maskrnn_ros.types import Frame, InstanceStatus, Seed

CPU = torch.device("cpu")
LARGE = (world.Shape(1, 12, 12, 40, 36, 2, 0), world.Shape(2, 76, 40, 40, 48, -1, 1))
PLAIN = with_values(
    Config(),
    adaptation__method="recursive",
    refinement__enabled=False,
    presence__min_probability=0.5,
    presence__return_probability=0.5,
    presence__threshold=0.5,  # what a network says that never learned
)
Make = Callable[..., Tracker]


@pytest.fixture(scope="module")
def trunk() -> TrainedTrunk:
    found = load_trunk("streams")  # in which a target model is right without a decoder that learned, too
    assert isinstance(found, TrainedTrunk)
    return found


def untrained(noise: float = 0.0) -> StepNet:
    """A decoder as it is before training, but for being sure of itself: all else is in closed form."""
    torch.manual_seed(0)
    net = StepNet().requires_grad_(False)
    net.decoder.told.copy_(torch.tensor([4.0, 0.5, 0.0, 0.0]))
    last = net.decoder.localize[-1]
    last.bias[4] = 3.0
    if noise:
        for value in (net.decoder.coarse.weight, net.decoder.sharp.weight, last.weight):
            value.normal_(0, noise)
    return net


@pytest.fixture
def make(trunk: TrainedTrunk) -> Make:
    """A tracker with a decoder as it is before training, but for being sure of itself: all else is in closed form."""

    def made(
        config: Config = PLAIN, shapes: tuple[world.Shape, ...] = LARGE, noise: float = 0.0, threads: int = 1
    ) -> Tracker:
        net = untrained(noise)
        return Tracker(config, world.ExactFlow(shapes), CPU, trunk, following=Following(net, trunk), threads=threads)

    return made


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.count_nonzero(one & other) / max(1, np.count_nonzero(one | other)))


def test_the_closed_form_alone_follows_what_moves(make: Make) -> None:
    tracker = make()
    tracks = tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    assert np.array_equal(tracks.labels, world.labels(0, LARGE)), "the seed itself, to the pixel"
    for number in range(1, 5):
        tracks = tracker.step(world.frame(number, LARGE))
        truth = world.labels(number, LARGE)
        assert min(overlap(tracks.labels == i, truth == i) for i in (1, 2)) > 0.6, number


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_images_give_the_same_masks_whatever_the_number_of_threads(make: Make, threads: int) -> None:
    def run(threads: int) -> list[np.ndarray]:
        tracker = make(noise=0.05, threads=threads)
        found = [tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))]
        found += [tracker.step(world.frame(number, LARGE)) for number in (1, 2, 3)]
        return [tracks.labels for tracks in found]

    assert all(np.array_equal(one, other) for one, other in zip(run(1), run(threads), strict=True))


def test_each_is_shown_the_most_of_the_others() -> None:
    maps = torch.tensor([[[0.9, 0.1]], [[0.2, 0.5]], [[0.3, 0.4]]])
    assert most_of_others(maps).tolist() == torch.tensor([[[0.3, 0.5]], [[0.9, 0.4]], [[0.9, 0.5]]]).tolist()
    assert most_of_others(maps[:1]).abs().max() == 0


def picture(x: int, y: int, there: bool = True) -> np.ndarray:
    """A red thing before a dark background: no texture of noise, by which nothing is known again."""
    image = world.texture(0, world.HEIGHT, world.WIDTH) // 3
    if there:
        image[y : y + 40, x : x + 44] = world.texture(1, 40, 44) // 6 + np.array([200, 30, 30], np.uint8)
    return image


def red_frame(number: int, image: np.ndarray) -> Frame:
    return Frame(stamp_ns=world.stamp_ns(number), image=image)


def following_red(make: Make, config: Config) -> Tracker:
    """It lies at (12, 12) and is marked; nothing moves by the flow."""
    tracker = make(config)
    tracker._flow = lambda current, previous: torch.zeros(2, *current.shape[1:])
    labels = np.zeros((world.HEIGHT, world.WIDTH), np.int32)
    labels[12:52, 12:56] = 1
    tracker.seed(Seed(stamp_ns=world.stamp_ns(0), labels=labels), red_frame(0, picture(12, 12)))
    return tracker


def test_what_is_gone_is_hidden_then_lost_and_found_again_where_it_comes_back(make: Make) -> None:
    tracker = following_red(make, with_values(PLAIN, presence__lost_after_frames=2))
    states = []
    for number in range(1, 5):
        tracks = tracker.step(red_frame(number, picture(0, 0, there=False)))
        states.append(tracks.tracks[0].status)
        assert tracks.tracks[0].box is None and not tracks.labels.any()
    assert states == [InstanceStatus.OCCLUDED] * 2 + [InstanceStatus.LOST] * 2
    tracks = tracker.step(red_frame(5, picture(72, 44)))
    assert tracks.tracks[0].status == InstanceStatus.TRACKING
    truth = np.zeros((world.HEIGHT, world.WIDTH), bool)
    truth[44:84, 72:116] = True
    assert overlap(tracks.labels == 1, truth) > 0.7


def said(log_odds: torch.Tensor, likeness: float, agreement: float = 0.0) -> torch.Tensor:
    return torch.tensor([[likeness, agreement]], dtype=torch.float64).expand(len(log_odds), -1)


@pytest.mark.parametrize("likeness, status", [(0.85, InstanceStatus.OCCLUDED), (0.95, InstanceStatus.TRACKING)])
def test_what_is_found_again_must_look_like_the_seed(
    make: Make, monkeypatch: pytest.MonkeyPatch, likeness: float, status: InstanceStatus
) -> None:
    tracker = following_red(make, PLAIN)
    monkeypatch.setattr(module, "resemblance", lambda log_odds, matched: said(log_odds, 1.0))
    assert tracker.step(red_frame(1, picture(12, 12))).tracks[0].status == InstanceStatus.TRACKING
    tracker.step(red_frame(2, picture(0, 0, there=False)))
    monkeypatch.setattr(module, "resemblance", lambda log_odds, matched: said(log_odds, likeness))
    assert tracker.step(red_frame(3, picture(12, 12))).tracks[0].status == status


@pytest.mark.parametrize("agreement, status", [(-0.7, InstanceStatus.OCCLUDED), (-0.5, InstanceStatus.TRACKING)])
def test_what_was_beside_the_object_on_its_seed_is_not_taken_for_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, agreement: float, status: InstanceStatus
) -> None:
    tracker = following_red(make, PLAIN)
    monkeypatch.setattr(module, "resemblance", lambda log_odds, matched: said(log_odds, 1.0, agreement))
    assert tracker.step(red_frame(1, picture(12, 12))).tracks[0].status == status


@pytest.mark.parametrize("likeness, status", [(0.85, InstanceStatus.OCCLUDED), (0.95, InstanceStatus.TRACKING)])
def test_a_mask_that_is_not_sure_counts_where_it_looks_like_the_seed(
    make: Make, monkeypatch: pytest.MonkeyPatch, likeness: float, status: InstanceStatus
) -> None:
    tracker = following_red(make, PLAIN)
    monkeypatch.setattr(module, "resemblance", lambda log_odds, matched: said(log_odds, 1.0))
    tracker.step(red_frame(1, picture(12, 12)))
    tracker.configure(with_values(PLAIN, presence__min_probability=1.0))
    monkeypatch.setattr(module, "resemblance", lambda log_odds, matched: said(log_odds, likeness))
    assert tracker.step(red_frame(2, picture(12, 12))).tracks[0].status == status


def test_a_thin_object_that_fills_no_cell_is_looked_for_where_it_was() -> None:
    prior = torch.zeros(20, 30)
    prior[5, 4:9], prior[6, 4] = 0.3, 0.1
    assert module._prior_boxes(prior[None])[0] == (16.0, 20.0, 36.0, 24.0)
    prior[10:12, 10:14], prior[12, 10] = 0.9, 0.4
    assert module._prior_boxes(prior[None])[0] == (40.0, 40.0, 56.0, 48.0), (
        "what fills cells is looked for where it does"
    )
    nothing = torch.full((20, 30), 0.05)
    assert module._prior_boxes(torch.stack([nothing, prior])) == [None, (40.0, 40.0, 56.0, 48.0)]


def test_a_mask_is_like_what_its_cells_were_matched_with() -> None:
    log_odds, matched = torch.full((2, FINE, FINE), -4.0), torch.zeros(2, 6, FINE // 4, FINE // 4)
    assert recognition.resemblance(log_odds, matched).tolist() == [[0.0, 0.0]] * 2
    log_odds[1, : FINE // 2] = 4.0
    matched[1] = 9.0
    matched[1, 2, : FINE // 8], matched[1, 0, : FINE // 8] = 0.75, -0.5
    assert recognition.resemblance(log_odds, matched).tolist() == [
        [0.0, 0.0],
        [pytest.approx(0.75), pytest.approx(-0.5)],
    ]


def test_stray_pieces_far_from_the_object_are_left_out_and_near_or_large_ones_stay() -> None:
    log_odds = torch.full((FINE, FINE), -4.0)
    log_odds[40:80, 40:80] = 4.0
    log_odds[42:50, 84:90] = 4.0  # small and near
    log_odds[100:126, 96:126] = 4.0  # far and large
    log_odds[2:8, 2:8] = 4.0  # small and far
    empty = torch.full_like(log_odds, -4.0)
    matched = torch.ones(3, 2, FINE // 4, FINE // 4)
    found = recognition.without_strays(torch.stack([log_odds, empty, log_odds.T]), matched, [None, 1.0, 1.0])
    assert (found[0, 2:8, 2:8] < 0).all()
    log_odds[2:8, 2:8] = -8.0
    assert torch.equal(found, torch.stack([log_odds, empty, log_odds.T]))


@pytest.mark.parametrize(
    ("likeness", "agreement", "usual", "stays"),
    [
        (0.9, 0.2, 1.0, False),
        (0.9, 0.4, 1.0, True),
        (0.95, 0.2, 1.0, True),
        (0.9, 0.2, 0.95, True),
        (0.9, 0.2, None, True),
    ],
)
def test_a_piece_that_is_unlike_the_seed_is_left_out_however_near(
    likeness: float, agreement: float, usual: float | None, stays: bool
) -> None:
    log_odds = torch.full((1, FINE, FINE), -4.0)
    log_odds[0, 40:80, 40:80] = log_odds[0, 40:80, 84:100] = 4.0
    matched = torch.ones(1, 2, FINE // 4, FINE // 4)
    matched[0, :, :, 21:] = torch.tensor([likeness, agreement])[:, None, None]
    found = recognition.without_strays(log_odds, matched, [usual])
    assert (found[0, 40:80, 40:80] == 4).all() and bool((found[0, 40:80, 84:100] == 4).all()) is stays


def test_without_adaptation_there_is_no_target_model(make: Make) -> None:
    tracker = make(with_values(PLAIN, adaptation__method="none"))
    tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    tracker.step(world.frame(1, LARGE))
    known = tracker.states[1].known
    assert known is not None and known.weights.abs().max() == 0 and known.memory.seed.square.abs().max() == 0


def test_trusted_frames_enter_the_memory_and_the_seed_stays(make: Make) -> None:
    tracker = make()
    tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    before = tracker.states[1].known
    tracker.step(world.frame(1, LARGE))
    between = tracker.states[1].known
    tracker.step(world.frame(2, LARGE))
    after = tracker.states[1].known
    assert before is not None and between is not None and after is not None
    assert torch.equal(before.memory.recent.square, between.memory.recent.square), "every second image is due"
    assert torch.equal(before.memory.seed.square, after.memory.seed.square)
    assert not torch.equal(before.memory.recent.square, after.memory.recent.square)
    assert not torch.equal(before.weights, after.weights)
    assert torch.equal(before.memory.seed_keys.code, after.memory.seed_keys.code)
    assert not torch.equal(before.memory.newest_keys.code, after.memory.newest_keys.code)


@pytest.mark.parametrize("change", ["flow_stream", "hidden", "localization"])
def test_each_part_can_be_switched(make: Make, change: str) -> None:
    def run(config: Config) -> torch.Tensor:
        tracker = make(config, noise=0.2)
        tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
        for number in (1, 2, 3):
            tracker.step(world.frame(number, LARGE))
        return tracker.states[1].probability

    default = getattr(PLAIN.network, change)
    switched = with_values(PLAIN, **{f"network__{change}": not default, "gate__spans_prior": False})
    assert not torch.equal(run(PLAIN), run(switched))


def test_a_change_of_the_working_size_takes_the_crop_along(make: Make, trunk: TrainedTrunk) -> None:
    tracker = make()
    tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    tracker.step(world.frame(1, LARGE))
    before = tracker.states[1].known
    halved = rescaled_states(dict(tracker.states), (world.HEIGHT // 2, world.WIDTH // 2), trunk)
    after = halved[1].known
    assert before is not None and after is not None
    torch.testing.assert_close(after.carried.boxes * 2, before.carried.boxes)


def test_the_graph_says_what_torch_says_and_the_tracker_takes_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = StepNet()
    for value in net.parameters():
        value.data += torch.randn_like(value) * 0.02
    file = tmp_path / "own.safetensors"
    save_weights(net, file)
    made = export_step(file)
    assert made.difference < 1e-3 * made.scale
    assert is_step(file) and not is_step(tmp_path / "none.safetensors")
    tracker = build_tracker(with_values(PLAIN, network__weights=str(file), engine="onnxruntime", precision="float32"))
    step = tracker._following._net  # type: ignore[union-attr]
    assert isinstance(step, OnnxStep)
    frame = Frame(stamp_ns=1, image=world.image(0, LARGE))
    tracker.seed(Seed(stamp_ns=1, labels=world.labels(0, LARGE)), frame)
    in_torch = build_tracker(with_values(PLAIN, network__weights=str(file), engine="torch"))
    in_torch.seed(Seed(stamp_ns=1, labels=world.labels(0, LARGE)), frame)
    following = Frame(stamp_ns=2, image=world.image(1, LARGE))
    one, other = (each.step(following).labels for each in (tracker, in_torch))
    assert (one != other).mean() < 0.01


def test_an_object_is_given_the_same_numbers_alone_and_beside_others() -> None:
    runtime = _Runtime(CPU, 2)
    alone = OnnxStep(load_step(DECODER), runtime, DECODER)
    aside = alone.aside()
    assert aside is not alone and aside.aside() is aside, "with one core there is nothing to share out"
    torch.manual_seed(0)
    *seen, weights, code, values, newest, share = _seen(1)
    found = [step.look(Seen(*seen), weights, Keys(code, values), Keys(newest, share)) for step in (alone, aside)]
    for field in dataclasses.fields(Output):
        assert torch.equal(*(getattr(one, field.name) for one in found)), field.name


def test_there_is_nothing_to_train_in_a_decoder(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_weights(StepNet(), file)
    config = with_values(PLAIN, network__weights=str(file), engine="torch")
    with pytest.raises(RuntimeError, match="has none: set network.weights: streams, or adaptation.method: recursive$"):
        build_tracker(with_values(config, adaptation__method="finetune"))
    assert [build_tracker(with_values(config, adaptation__method=m)).adaptation for m in ("recursive", "none")] == [
        "recursive",
        "off",
    ]


def test_a_decoder_needs_a_trained_trunk_and_no_other_weights_are_taken_for_one(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_weights(StepNet(), file)
    with pytest.raises(RuntimeError, match="a trained trunk, got trunk.weights imagenet: set trunk.weights: ship"):
        build_tracker(with_values(PLAIN, network__weights=str(file), trunk__weights="imagenet"))
    with pytest.raises(RuntimeError, match="do not fit FastNet"):
        load_network(file)
    assert load_step(file).ridge.requires_grad is False
    assert on_one_core(load_trunk(), tmp_path / "no.safetensors").start is not None
