# SPDX-License-Identifier: Apache-2.0
"""The network in the tracker: what it is shown, what it decides, and what each of its settings switches off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import world
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskrnn_ros.config import Config, from_flat, with_values
from maskrnn_ros.model import weights
from maskrnn_ros.model.backbone import Lite0
from maskrnn_ros.model.network import PLANES, FastNet
from maskrnn_ros.model.weights import STREAMS, load_lite0, load_network, load_trunk, save_weights
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.evidence import Evidence, planes
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.view import View
from maskrnn_ros.types import Box, Frame, InstanceStatus, Seed

CPU = torch.device("cpu")
LARGE = (world.Shape(1, 12, 12, 56, 44, 2, 0), world.Shape(2, 76, 40, 40, 48, -1, 1))
NO_EVIDENCE = with_values(
    world.WARP_ONLY,
    presence__min_pixels=1,
    presence__threshold=0.5,  # what a network says that never learned
    network__localization=True,
    gate__spans_prior=False,
)


@pytest.fixture(scope="module")
def trunk() -> Lite0:
    return load_lite0()


def tracker_of(
    config: Config, trunk: Lite0, network: FastNet | None, shapes: tuple[world.Shape, ...] = world.TWO
) -> Tracker:
    """With the true flow; without the refinement."""
    return Tracker(world.unrefined(config), world.ExactFlow(shapes), CPU, trunk, network)


def still(current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    return torch.zeros(2, *current.shape[1:])


def sideways(current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.full(current.shape[1:], 3.0), torch.zeros(current.shape[1:])])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_before_training_it_says_what_the_parts_say_without_it(trunk: Lite0) -> None:
    own = {"adaptation__steps": 60, "adaptation__views": 8, "adaptation__channels": 16, "presence__threshold": 0.5}
    config = with_values(world.QUICK, **own)
    without, within = (tracker_of(config, trunk, net, LARGE) for net in (None, world.network()))
    for tracker in (without, within):
        tracker.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for number in range(1, 6):
        one, other = (tracker.step(world.frame(number, LARGE)).labels for tracker in (without, within))
        for i in (1, 2):
            assert overlap(one == i, other == i) > 0.95
            assert overlap(other == i, world.labels(number, LARGE) == i) > 0.7


def test_planes_are_log_odds_by_eight_and_zero_where_a_part_is_off() -> None:
    # an image of 37 x 53 pixels: (10, 14) cells of stride 4, (5, 7) of stride 8
    prior = torch.full((37, 53), 0.9)
    prior[:8] = 0.0  # the floor of 0.02 makes it ln(1 / 49)
    parts = {
        "prior": Patch.of(prior),
        "matching": Patch(torch.full((5, 7), 2.0), Box(0, 0, 7, 5), (5, 7)),
        "head": Patch(torch.full((10, 14), -8.0), Box(0, 0, 14, 10), (10, 14)),
    }
    expected = torch.stack(
        [torch.full((10, 14), float(np.log(9)) / 8), torch.full((10, 14), 0.25), -torch.ones(10, 14)]
    )
    config = with_values(Config(), network__matching=True)
    expected[0, :2] = float(np.log(1 / 49)) / 8
    for cells in (Box(0, 0, 14, 10), Box(3, 1, 9, 10)):
        wanted = expected[(slice(None), *cells.slices)]
        torch.testing.assert_close(planes(Evidence(**parts), cells, config), wanted)
        for number, name in enumerate(PLANES):
            only = planes(
                Evidence(**{part: value if part == name else None for part, value in parts.items()}), cells, config
            )
            torch.testing.assert_close(only[number], wanted[number])
            assert only.count_nonzero() == wanted[number].count_nonzero()


def test_frame_and_flow_are_encoded_once_for_all_instances_and_not_without_any(
    trunk: Lite0, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = FastNet.encode
    monkeypatch.setattr(FastNet, "encode", lambda *arguments: encoded.append(1) or encode(*arguments))
    tracker = tracker_of(NO_EVIDENCE, trunk, world.network())
    tracker.step(world.frame(0))
    tracker.step(world.frame(1))
    tracker.seed(world.seed(2), world.frame(2))
    assert not encoded
    for number in (3, 4, 5):
        tracker.step(world.frame(number))
    assert len(encoded) == 3 and len(tracker.states) == 2


def test_the_flow_is_shown_as_its_length_in_pixels_and_not_beyond_the_next_image(trunk: Lite0) -> None:
    seen: list[torch.Tensor] = []

    class Looking(FastNet):
        def encode(self, images: torch.Tensor, maps: list[torch.Tensor], magnitudes: torch.Tensor) -> object:
            seen.append(magnitudes)
            return super().encode(images, maps, magnitudes)

    tracker = tracker_of(NO_EVIDENCE, trunk, None)
    frame = tracker.prepare(world.frame(0))
    for is_on in (True, False):
        settings = with_values(Config(), network__flow_stream=is_on).network
        flow = torch.stack([torch.full((96, 128), -3.0), torch.full((96, 128), 4.0)])
        _ = View(frame, flow, Looking(), settings).code
    assert seen[0].shape == (1, 2, 24, 32)
    assert seen[0][0, 0].eq(5.0).all() and not seen[0][0, 1].any()
    assert not seen[1].any()


@pytest.mark.parametrize(
    ("switch", "changes"),
    [
        ({}, True),
        ({"network__flow_stream": False}, False),
        ({"network__flow_stream": False, "network__hidden": True}, True),  # the hidden state moves with the flow
    ],
)
def test_only_what_is_on_sees_the_flow(switch: dict[str, bool], changes: bool, trunk: Lite0) -> None:
    """Masks that are not warped, and two flows: what is left of the difference is what the network sees of it."""
    config = with_values(NO_EVIDENCE, prior__source="unwarped", **{"network__hidden": False, **switch})
    found = []
    for flow in (still, sideways):
        tracker = Tracker(config, flow, CPU, trunk, world.network(noise=0.02))
        tracker.seed(world.seed(0, 1), world.frame(0))
        for number in (1, 2, 3):
            tracker.step(world.frame(number))
        found.append(tracker.states[1].probability)
    assert found[0].any()
    assert torch.equal(found[0], found[1]) != changes


@pytest.mark.parametrize("is_on", [True, False])
def test_the_hidden_state_is_carried_only_if_it_is_on_and_begins_anew_at_a_seed(is_on: bool, trunk: Lite0) -> None:
    tracker = tracker_of(with_values(NO_EVIDENCE, network__hidden=is_on), trunk, world.network(noise=0.02))
    tracker.seed(world.seed(0, 1), world.frame(0))
    tracker.step(world.frame(1))
    first = tracker.states[1].hidden
    assert (first is not None) == is_on
    tracker.step(world.frame(2))
    if first is not None:
        assert not torch.equal(first.state, tracker.states[1].hidden.state)
    tracker.seed(world.seed(3, 1), world.frame(3))
    assert tracker.states[1].hidden is None


def says(presence: float = 0.0, deltas: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> FastNet:
    """A network whose localization net always says the same."""
    net = world.network()
    net.located.bias.copy_(torch.tensor([*deltas, presence]))
    return net


@pytest.mark.parametrize(
    ("presence", "settings", "seen"),
    [
        (-3.0, {}, False),
        (3.0, {}, True),
        (-3.0, {"presence__threshold": 0.02}, True),
        (3.0, {"presence__threshold": 0.99}, False),
        (-3.0, {"network__localization": False}, True),
    ],
)
def test_what_it_says_is_not_there_is_occluded(
    presence: float, settings: dict[str, object], seen: bool, trunk: Lite0
) -> None:
    config = with_values(world.QUICK, adaptation__method="none", **settings)
    tracker = tracker_of(config, trunk, says(presence))
    tracker.seed(world.seed(0, 1), world.frame(0))
    tracks = tracker.step(world.frame(1))
    assert tracks.tracks[0].status == (InstanceStatus.TRACKING if seen else InstanceStatus.OCCLUDED)
    assert tracks.labels.any() == seen == bool(tracker.states[1].probability.any())
    assert (tracker.states[1].hidden is not None) == seen


def test_with_nothing_to_find_it_again_by_a_hidden_mask_is_carried_on_unseen(trunk: Lite0) -> None:
    net = says(-3.0)
    tracker = tracker_of(NO_EVIDENCE, trunk, net)
    tracker.seed(world.seed(0, 1), world.frame(0))
    assert not tracker.step(world.frame(1)).labels.any()
    net.located.bias[4] = 3.0
    assert overlap(tracker.step(world.frame(2)).labels == 1, world.labels(2) == 1) > 0.8


@pytest.mark.parametrize(
    ("deltas", "settings", "expected"),
    [
        # the object is at x 22..46, y 20..40 on frame 1; the gate is 1.25 times the box
        ((0.0, 0.0, 0.0, 0.0), {}, Box(19, 17, 49, 43)),
        ((0.0, 0.0, float(np.log(0.5)), 0.0), {}, Box(26, 17, 42, 43)),
        ((0.5, -0.25, 0.0, 0.0), {}, Box(31, 12, 61, 38)),
        ((0.5, -0.25, 0.0, 0.0), {"gate__enlarge": 1.0}, Box(34, 15, 58, 35)),
        ((0.5, -0.25, 0.0, 0.0), {"network__localization": False}, Box(19, 17, 49, 43)),
        ((0.5, -0.25, 0.0, 0.0), {"gate__spans_prior": True}, Box(19, 12, 61, 43)),
    ],
)
def test_the_gate_is_the_box_that_it_predicts(
    deltas: tuple[float, ...], settings: dict[str, object], expected: Box, trunk: Lite0
) -> None:
    tracker = tracker_of(with_values(NO_EVIDENCE, **settings), trunk, says(5.0, deltas))
    tracker.seed(world.seed(0, 1), world.frame(0))
    tracker.step(world.frame(1))
    probability = tracker.states[1].probability.numpy()
    inside = np.zeros((world.HEIGHT, world.WIDTH), bool)
    inside[expected.slices] = True
    crop = np.zeros_like(inside)
    crop[14:46, 15:53] = True  # 1.6 times the box: 14.8..53.2 x 14..46, all pixel centres
    np.testing.assert_array_equal(probability > 0, inside & crop)


def test_a_box_outside_the_image_leaves_nothing(trunk: Lite0) -> None:
    tracker = tracker_of(NO_EVIDENCE, trunk, says(5.0, (-9.0, 0.0, 0.0, 0.0)))
    tracker.seed(world.seed(0, 1), world.frame(0))
    assert not tracker.step(world.frame(1)).labels.any()


@pytest.mark.parametrize("network", [False, True])
def test_without_a_prior_a_frame_alone_decides(network: bool, trunk: Lite0) -> None:
    config = with_values(
        world.QUICK,
        prior__source="none",
        matching__enabled=False,
        network__hidden=False,
        network__flow_stream=False,
        adaptation__steps=60,
        adaptation__views=8,
    )
    through, at_once = (tracker_of(config, trunk, world.network(0.01) if network else None) for _ in range(2))
    for tracker, numbers in ((through, range(1, 6)), (at_once, [5])):
        tracker.seed(world.seed(0, 1), world.frame(0))
        for number in numbers:
            tracker.step(world.frame(number))
    assert torch.equal(through.states[1].probability, at_once.states[1].probability)
    assert overlap(through.states[1].probability.numpy() >= 0.5, world.labels(5) == 1) > 0.4


@pytest.mark.parametrize("network", [False, True])
def test_without_prior_and_head_it_stays_where_it_was_marked(network: bool, trunk: Lite0) -> None:
    config = with_values(NO_EVIDENCE, prior__source="none")
    tracker = tracker_of(config, trunk, world.network() if network else None)
    tracker.seed(world.seed(0, 1), world.frame(0))
    np.testing.assert_array_equal(tracker.step(world.frame(3)).labels == 1, world.labels(0) == 1)


def test_unwarped_masks_stay_where_they_were() -> None:
    tracker = Tracker(with_values(NO_EVIDENCE, prior__source="unwarped"), sideways, CPU)
    tracker.seed(world.seed(0, 1), world.frame(0))
    np.testing.assert_array_equal(tracker.step(world.frame(1)).labels == 1, world.labels(0) == 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (37, 53)])
def test_odd_and_tiny_images_pass(size: tuple[int, int], trunk: Lite0) -> None:
    tracker = Tracker(with_values(world.QUICK, adaptation__method="none"), still, CPU, trunk, world.network(noise=0.02))
    image = world.texture(5, *size)
    tracker.seed(Seed(stamp_ns=1, labels=np.ones(size, np.int32)), Frame(stamp_ns=1, image=image))
    for stamp_ns in (2, 3):
        assert tracker.step(Frame(stamp_ns=stamp_ns, image=image)).labels.shape == size


def test_weights_that_are_written_are_read_and_used(tmp_path: Path) -> None:
    net, file = world.network(noise=0.02), tmp_path / "net.safetensors"
    save_weights(net, file, {"trained": "not at all"})
    loaded = load_network(file)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["trained"] == "not at all"
    results = []
    for tracker in (
        build_tracker(with_values(NO_EVIDENCE, network__enabled=True, network__weights=str(file))),
        Tracker(NO_EVIDENCE, build_tracker(NO_EVIDENCE)._flow, CPU, load_trunk("streams"), net),
        build_tracker(NO_EVIDENCE),
    ):
        tracker.seed(world.seed(0, 1), world.frame(0))
        tracker.step(world.frame(1))
        results.append(tracker.states[1].probability)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def without(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read"),
        (lambda tensors: without(tensors, "weights"), r"do not fit FastNet: 1 .* weights: expected \(3,\), got none"),
        (lambda tensors: {**tensors, "weights": torch.zeros(4)}, r"weights: expected \(3,\), got \(4,\)"),
        (lambda tensors: {**tensors, "weightz": torch.zeros(4)}, r"weightz: expected none, got \(4,\)"),
    ],
)
def test_missing_or_other_weights_stop_the_start_with_one_line(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None, message: str, tmp_path: Path
) -> None:
    good, file = tmp_path / "good.safetensors", tmp_path / "net.safetensors"
    save_weights(FastNet(), good)
    if change is not None:
        save_file(change(load_file(good)), file)
    with pytest.raises(RuntimeError, match=message) as raised:
        build_tracker(with_values(Config(), network__enabled=True, network__weights=str(file)))
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


def test_shipped_weights_that_are_not_there_stop_the_start_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights.NETWORKS, "shipped", tmp_path / "decoder.safetensors")
    with pytest.raises(RuntimeError, match="decoder.safetensors cannot be read"):
        build_tracker(with_values(Config(), network__enabled=True))


def test_the_weights_that_ship_fit_the_network() -> None:
    assert STREAMS.stat().st_size < 25e6
    assert not load_network().training


def test_weights_are_a_file_of_their_kind() -> None:
    with pytest.raises(
        ValueError, match="network.weights must be shipped, streams or a .safetensors file, got 'net.pt'"
    ):
        from_flat({"network.weights": "net.pt"})
