# SPDX-License-Identifier: Apache-2.0
"""What the networks are shown in the tracker, what is made of what they say, and what each setting switches off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import world
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shipped import CONFIG, LARGE, engine, overlap, still, tracker

from maskrnn_ros.cli import main
from maskrnn_ros.config import Config, from_flat, with_values
from maskrnn_ros.model import files
from maskrnn_ros.model.engine import Around, Looked
from maskrnn_ros.model.torch.step import StepNet
from maskrnn_ros.model.torch.weights import load_step, load_trunk, save_weights
from maskrnn_ros.tracking import Tracker, build_tracker, follow
from maskrnn_ros.types import Box, Frame, InstanceState, Seed

ALIGNED = (world.Shape(1, 20, 20, 24, 20, 4, 0),)
"""On all frames its edges are those of cells."""


class Changed:
    """The engine: notes what a step is given beside the objects, and changes what it says."""

    def __init__(self, change: Callable[[Looked], Looked] = lambda looked: looked) -> None:
        self.change = change
        self.around: list[Around] = []

    def __getattr__(self, name: str) -> object:
        return getattr(engine(), name)

    def step(self, features: object, around: Around, objects: object) -> Looked:
        self.around.append(around)
        return self.change(engine().step(features, around, objects))  # type: ignore[arg-type]


def says(presence: float, deltas: tuple[float, ...] | None = None, all_is_it: bool = False) -> Changed:
    """Networks that always say the same."""
    told = {"presence": presence, "deltas": deltas, **({"log_odds": 8.0, "matched": 1.0} if all_is_it else {})}

    def change(looked: Looked) -> Looked:
        changes = {
            name: np.broadcast_to(np.float32(value), getattr(looked, name).shape).copy()
            for name, value in told.items()
            if value is not None
        }
        return dataclasses.replace(looked, **changes)

    return Changed(change)


def sideways(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    return still(current, previous) + np.array([3, 0], np.float32)[:, None, None]


# --- what they are shown ---


def test_the_flow_is_shown_as_it_is_at_the_cells_in_pixels() -> None:
    spy = Changed()
    random = np.random.default_rng(0).normal(0, 5, (2, world.HEIGHT, world.WIDTH)).astype(np.float32)
    one = Tracker(CONFIG, lambda current, previous: random, spy)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    one.step(world.frame(1, LARGE))
    (around,) = spy.around
    cells = random.reshape(2, world.HEIGHT // 4, 4, world.WIDTH // 4, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(around.flow[0], cells, atol=1e-4)
    assert not around.ignored.any() and not around.beside.any()


@pytest.mark.parametrize(
    ("changes", "switches"),
    [
        ({}, [1, 1, 1, 1]),
        ({"prior__source": "unwarped"}, [0, 1, 1, 1]),
        ({"prior__source": "none"}, [0, 0, 1, 1]),
        ({"network__flow_stream": False}, [1, 1, 0, 1]),
        ({"network__hidden": False}, [1, 1, 1, 0]),
    ],
)
def test_each_setting_turns_its_switch(changes: dict[str, object], switches: list[float]) -> None:
    spy = Changed()
    one = Tracker(with_values(CONFIG, **changes), still, spy)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    one.step(world.frame(1, LARGE))
    assert spy.around[0].switches.tolist() == switches


@pytest.mark.parametrize("is_on", [True, False])
def test_only_the_flow_stream_sees_the_flow_where_masks_are_not_warped(is_on: bool) -> None:
    """Masks that are not warped, and two flows: what is left of the difference is what the networks see of it."""
    config = with_values(CONFIG, prior__source="unwarped", network__flow_stream=is_on)
    found = []
    for flow in (still, sideways):
        one = tracker(config, flow=flow)
        one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
        for number in (1, 2, 3):
            one.step(world.frame(number, LARGE))
        found.append(one.states[1].probability)
    assert found[0].any()
    assert np.array_equal(*found) != is_on


@pytest.mark.parametrize("is_on", [True, False])
def test_the_hidden_state_counts_only_if_it_is_on_and_begins_anew_at_a_seed(is_on: bool) -> None:
    one = tracker(with_values(CONFIG, network__hidden=is_on))
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    assert not one.states[1].known.carried.hidden.any()  # type: ignore[union-attr]
    one.step(world.frame(1, LARGE))
    previous, now = one.newest, one.prepare(world.frame(2, LARGE))
    state = one.states[1]
    assert previous is not None and state.known is not None
    found = []
    for hidden in (state.known.carried.hidden, np.zeros_like(state.known.carried.hidden)):
        carried = dataclasses.replace(state.known.carried, hidden=hidden)
        other = dataclasses.replace(state, known=dataclasses.replace(state.known, carried=carried))
        found.append(one.carry({1: other}, previous, now)[1].probability)
    assert found[0].any() and np.array_equal(*found) != is_on
    one.seed(world.seed(3, 1, shapes=LARGE), world.frame(3, LARGE))
    assert not one.states[1].known.carried.hidden.any()  # type: ignore[union-attr]


# --- what is made of what they say ---


@pytest.mark.parametrize(
    ("presence", "settings", "seen"),
    [
        (-3.0, {}, False),
        (3.0, {}, True),
        (-3.0, {"presence__threshold": 0.02}, True),
        (3.0, {"presence__threshold": 0.99}, False),
    ],
)
def test_what_they_say_is_not_there_is_occluded(presence: float, settings: dict[str, object], seen: bool) -> None:
    one = Tracker(with_values(CONFIG, **settings), world.ExactFlow(LARGE), says(presence))
    one.seed(world.seed(0, 1, shapes=LARGE), world.frame(0, LARGE))
    tracks = one.step(world.frame(1, LARGE))
    assert tracks.tracks[0].state == (InstanceState.TRACKING if seen else InstanceState.OCCLUDED)
    known = one.states[1].known
    assert tracks.labels.any() == seen == bool(one.states[1].probability.any())
    assert known is not None and bool(known.carried.hidden.any()) == seen == bool(known.carried.probability.any())


@pytest.mark.parametrize(("method", "is_found"), [("recursive", True), ("none", False)])
def test_what_was_hidden_is_found_again_by_its_target_model(method: str, is_found: bool) -> None:
    runs = says(-3.0)
    one = Tracker(with_values(CONFIG, adaptation__method=method), world.ExactFlow(LARGE), runs)
    one.seed(world.seed(0, 1, shapes=LARGE), world.frame(0, LARGE))
    assert not one.step(world.frame(1, LARGE)).labels.any()
    runs.change = says(3.0).change
    labels = one.step(world.frame(2, LARGE)).labels
    assert (overlap(labels == 1, world.labels(2, LARGE) == 1) > 0.7) == is_found == bool(labels.any())


@pytest.mark.parametrize(
    ("deltas", "settings", "expected"),
    [
        # the object is at x 24..48, y 20..40 on frame 1; the gate is 1.25 times the box
        ((0.0, 0.0, 0.0, 0.0), {}, (21, 17.5, 51, 42.5)),
        ((0.0, 0.0, float(np.log(0.5)), 0.0), {}, (28.5, 17.5, 43.5, 42.5)),
        ((0.5, -0.25, 0.0, 0.0), {}, (33, 12.5, 63, 37.5)),
        ((0.5, -0.25, 0.0, 0.0), {"gate__enlarge": 1.0}, (36, 15, 60, 35)),
        ((0.5, -0.25, 0.0, 0.0), {"gate__spans_prior": True}, (21, 12.5, 63, 42.5)),
        ((0.5, -0.25, 0.0, 0.0), {"network__localization": False}, None),
        ((0.5, -0.25, 0.0, 0.0), {"gate__enabled": False}, None),
    ],
)
def test_the_gate_is_the_box_that_they_predict(
    deltas: tuple[float, ...], settings: dict[str, object], expected: tuple[float, ...] | None
) -> None:
    defaults = {"network__localization": True, "gate__spans_prior": False, "presence__min_probability": 0.5}
    one = Tracker(
        with_values(CONFIG, **{**defaults, **settings}), world.ExactFlow(ALIGNED), says(5.0, deltas, all_is_it=True)
    )
    one.seed(world.seed(0, shapes=ALIGNED), world.frame(0, ALIGNED))
    one.step(world.frame(1, ALIGNED))
    box = Box.of_mask(one.states[1].probability >= 0.5)
    assert box is not None
    crop = (12, 6, 60, 54)  # the square of 48 pixels around it
    wanted = crop if expected is None else (*np.maximum(expected[:2], crop[:2]), *np.minimum(expected[2:], crop[2:]))
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(wanted, abs=0.6)
    assert one.states[1].area == box.width * box.height, "all of it"


def test_a_box_outside_the_image_leaves_nothing() -> None:
    config = with_values(CONFIG, network__localization=True, gate__spans_prior=False)
    one = Tracker(config, world.ExactFlow(LARGE), says(5.0, (-9.0, 0.0, 0.0, 0.0)))
    one.seed(world.seed(0, 1, shapes=LARGE), world.frame(0, LARGE))
    assert not one.step(world.frame(1, LARGE)).labels.any()


# --- priors ---


def test_without_a_prior_a_frame_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_trusted", lambda *_: np.zeros(0, int))  # no frame teaches anything
    config = with_values(CONFIG, prior__source="none", network__hidden=False, network__flow_stream=False)
    through, at_once = (tracker(config) for _ in range(2))
    for one, numbers in ((through, range(1, 6)), (at_once, [5])):
        one.seed(world.seed(0, 1, shapes=LARGE), world.frame(0, LARGE))
        for number in numbers:
            one.step(world.frame(number, LARGE))
    np.testing.assert_array_equal(through.states[1].probability, at_once.states[1].probability)
    assert overlap(through.states[1].probability >= 0.5, world.labels(5, LARGE) == 1) > 0.6


def test_without_networks_and_prior_it_stays_where_it_was_marked() -> None:
    one = world.exact_tracker(with_values(world.WARP_ONLY, prior__source="none"))
    one.seed(world.seed(0, 1), world.frame(0))
    np.testing.assert_array_equal(one.step(world.frame(3)).labels == 1, world.labels(0) == 1)


def test_unwarped_masks_stay_where_they_were() -> None:
    one = Tracker(with_values(world.WARP_ONLY, prior__source="unwarped"), sideways)
    one.seed(world.seed(0, 1), world.frame(0))
    np.testing.assert_array_equal(one.step(world.frame(1)).labels == 1, world.labels(0) == 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (37, 53), (481, 85)])
def test_odd_and_tiny_images_pass(size: tuple[int, int]) -> None:
    one = tracker(with_values(CONFIG, refinement__enabled=True), flow=still)
    image = world.texture(5, *size)
    one.seed(Seed(stamp_ns=1, labels=np.ones(size, np.int32)), Frame(stamp_ns=1, image=image))
    for stamp_ns in (2, 3):
        assert one.step(Frame(stamp_ns=stamp_ns, image=image)).labels.shape == size


# --- weights ---


def noisy(noise: float = 0.02) -> StepNet:
    """The decoder that ships, disturbed."""
    torch.manual_seed(0)
    net = load_step()
    for value in (value for value in net.parameters() if value.numel() > 1):
        value.add_(torch.randn_like(value) * noise * value.std())
    return net


def in_torch(**changes: object) -> Config:
    return with_values(CONFIG, engine="torch", **changes)


def test_weights_that_are_written_are_read_and_used(tmp_path: Path) -> None:
    net, file = noisy(), tmp_path / "net.safetensors"
    save_weights(net, file, {"trained": "not at all"})
    loaded = load_step(file)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["trained"] == "not at all"
    results = []
    for config in (in_torch(network__weights=str(file)), in_torch(network__weights=str(file)), in_torch()):
        one = build_tracker(config)
        one.seed(world.seed(0, 1, shapes=LARGE), world.frame(0, LARGE))
        one.step(world.frame(1, LARGE))
        results.append(one.states[1].probability)
    assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


def test_weights_in_half_precision_take_half_the_room_and_are_read_as_float32(tmp_path: Path, capsys) -> None:
    file, halved = tmp_path / "net.safetensors", tmp_path / "half.safetensors"
    save_weights(load_step(), file, {"trained": "somehow"})
    assert main(["weights", "halve", str(file), "--out", str(halved)]) == 0
    assert f"{halved}: 60 tensors, {halved.stat().st_size} bytes" in capsys.readouterr().out
    assert halved.stat().st_size < 0.51 * file.stat().st_size
    with safe_open(halved, "pt") as opened:
        assert opened.metadata()["trained"] == "somehow"
    exact, found = load_step(file).state_dict(), load_step(halved).state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    for name, tensor in found.items():
        assert torch.equal(tensor, exact[name].half().float())
    assert main(["weights", "halve", str(halved), "--out", str(file)]) == 0
    one, other = load_file(file), load_file(halved)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items()), "a second time changes nothing"
    data = bytearray(halved.read_bytes())
    data[-1000:] = bytes(1000)
    halved.write_bytes(data)
    with pytest.raises(RuntimeError, match="are damaged: their tensors are not those that were saved"):
        load_step(halved)


def test_weights_that_half_precision_has_not_are_refused(tmp_path: Path, capsys) -> None:
    file = tmp_path / "net.safetensors"
    save_file({"large": torch.tensor([1.0, 7e4]), "count": torch.tensor(3)}, file)
    assert main(["weights", "halve", str(file), "--out", str(tmp_path / "half.safetensors")]) == 2
    assert "reach beyond half precision (65504), the first are large" in capsys.readouterr().err
    assert not (tmp_path / "half.safetensors").exists()


def without(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read"),
        (lambda tensors: without(tensors, "ridge"), r"do not fit StepNet: 1 .* ridge: expected \(\), got none"),
        (lambda tensors: {**tensors, "ridge": torch.zeros(4)}, r"ridge: expected \(\), got \(4,\)"),
        (lambda tensors: {**tensors, "ridgf": torch.zeros(4)}, r"ridgf: expected none, got \(4,\)"),
    ],
)
def test_missing_or_other_weights_stop_the_start_with_one_line(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "net.safetensors"
    if change is not None:
        save_file(change(load_file(files.DECODER)), file)
    with pytest.raises(RuntimeError, match=message) as raised:
        build_tracker(in_torch(network__weights=str(file)))
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


@pytest.mark.parametrize("runs", ["torch", "onnxruntime", "auto"])
def test_shipped_weights_that_are_not_there_stop_the_start_with_one_line(
    runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(files.NETWORKS, "shipped", tmp_path / "decoder.safetensors")
    with pytest.raises(RuntimeError, match=r"decoder\.(safetensors|place\.onnx) cannot be read") as raised:
        build_tracker(with_values(CONFIG, engine=runs, precision="auto"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("setting", ["network", "trunk"])
def test_weights_of_one_kind_are_not_taken_for_another(setting: str) -> None:
    other = {"network": files.TRUNK, "trunk": files.DECODER}[setting]
    with pytest.raises(RuntimeError, match="do not fit (StepNet|TrainedTrunk)"):
        build_tracker(in_torch(**{f"{setting}__weights": str(other)}))


def test_the_weights_that_ship_fit_the_networks() -> None:
    assert sum(file.stat().st_size for file in (files.DECODER, files.TRUNK)) < 25e6
    assert not load_step().training and not load_trunk().training


@pytest.mark.parametrize("setting", ["network", "trunk"])
def test_weights_are_a_file_of_their_kind(setting: str) -> None:
    with pytest.raises(
        ValueError, match=f"{setting}.weights must be shipped, permissive or a .safetensors file, got 'net.pt'"
    ):
        from_flat({f"{setting}.weights": "net.pt"})
