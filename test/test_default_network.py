# SPDX-License-Identifier: Apache-2.0
"""The network that follows as the package comes, and how settings, presets and trainings name it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
import yaml
from safetensors.torch import load_file

from maskrnn_ros import cli
from maskrnn_ros.config import Config, from_flat, with_values
from maskrnn_ros.evaluation.presets import ABLATION, TUNED, ablation_configs, apply_preset
from maskrnn_ros.metrics.davis import jaccard
from maskrnn_ros.model.files import DECODER, NETWORKS, TRUNK, TRUNKS, network_file, trunk_file
from maskrnn_ros.model.torch.weights import load_step, load_trunk
from maskrnn_ros.parameter_file import load
from maskrnn_ros.sections import SHIPPED
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import InstanceState


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_the_decoder_ships_and_is_the_default() -> None:
    assert (Config().network.weights, Config().trunk.weights) == ("shipped", "shipped")
    assert Config().adaptation.method == "recursive"
    assert network_file("shipped") == DECODER and trunk_file("shipped") == TRUNK
    assert not load_step().training and DECODER.stat().st_size < 10e6
    assert load_trunk().start.head.narrow[0].weight.shape[0] == 48


def test_the_default_tracker_follows_two_objects(caplog: pytest.LogCaptureFixture) -> None:
    tracker = build_tracker(Config())
    assert tracker.adaptation == "recursive" and not warnings(caplog)
    tracker.seed(world.seed(0), world.frame(0))
    for number in range(1, 4):
        tracks = tracker.step(world.frame(number))
    assert [(track.instance_id, track.state) for track in tracks.tracks] == [
        (1, InstanceState.TRACKING),
        (2, InstanceState.TRACKING),
    ]


@pytest.mark.parametrize("has_network", [True, False])
def test_fine_tuning_is_refused_and_not_passed_over(has_network: bool) -> None:
    config = with_values(Config(), adaptation__method="finetune", network__enabled=has_network)
    with pytest.raises(RuntimeError, match="^adaptation.method finetune is for .*: the tracker takes recursive"):
        build_tracker(config)


def test_settings_of_the_paper_alone_are_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    build_tracker(with_values(Config(), network__enabled=False, adaptation__steps=40, adaptation__rate=0.01))
    (line,) = warnings(caplog)
    assert line.startswith("adaptation.steps, adaptation.rate: no effect")


def test_without_a_target_model_it_follows_and_says_off() -> None:
    tracker = build_tracker(from_flat({"adaptation.method": "none"}))
    assert tracker.adaptation == "off"
    tracker.seed(world.seed(0), world.frame(0))
    tracks = tracker.step(world.frame(1))
    assert [track.state for track in tracks.tracks] == [InstanceState.TRACKING] * 2
    assert all(state.known is not None and not state.known.weights.any() for state in tracker.states.values())


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ({"network.weights": "streams"}, "the two-stream network is gone: write shipped"),
        ({"trunk.weights": "streams"}, "the two-stream network is gone: write shipped"),
        ({"trunk.weights": "imagenet"}, "networks need a trained trunk: write shipped"),
        ({"prior.weight": 1.0}, "the network weighs its parts itself"),
    ],
)
def test_old_settings_that_the_network_cannot_follow_are_refused_with_the_cure(
    values: Mapping[str, Value], cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(values)}}))
    with pytest.raises(ValueError, match="any more") as refused:
        load(file)
    assert cure in str(refused.value) and "\n" not in str(refused.value)
    arguments = ["track", "--frames", "x", "--seed-mask", "y.png", "--out", str(tmp_path / "o"), "--config", str(file)]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert cure in line


# --- the permissive pair ---


def test_the_permissive_weights_follow_objects_on_their_own() -> None:
    config = with_values(Config(), network__weights="permissive", trunk__weights="permissive")
    masks = []
    for one in (config, Config()):
        tracker = build_tracker(with_values(one, precision="float32", engine="onnxruntime"))
        tracker.seed(world.seed(0), world.frame(0))
        masks.append([tracker.step(world.frame(number)).labels for number in range(1, 5)])
    for number, (found, expected) in enumerate(zip(*masks, strict=True), start=1):
        truth = world.labels(number)
        assert not np.array_equal(found, expected)  # other weights
        assert all(jaccard(found == i, truth == i) > 0.7 for i in np.unique(truth[truth > 0]))


@pytest.mark.parametrize(("network", "trunk"), [("permissive", "shipped"), ("shipped", "permissive")])
def test_weights_that_did_not_learn_together_are_refused(network: str, trunk: str) -> None:
    with pytest.raises(ValueError, match=f"must be the same, they learned together, got '{network}' and '{trunk}'"):
        from_flat({"network.weights": network, "trunk.weights": trunk})


def test_weights_of_ones_own_go_with_any_trunk() -> None:
    assert from_flat({"network.weights": "my.safetensors", "trunk.weights": "permissive"}).trunk.weights == "permissive"
    assert from_flat({"trunk.weights": "my.safetensors"}).network.ships


# --- evaluation ---


@pytest.mark.parametrize("name", ["maskrnn", "masktrack", "osvos"])
def test_presets_of_papers_switch_the_network_that_is_there(name: str) -> None:
    assert apply_preset(name, Config()).network.weights == "shipped"
    own = with_values(Config(), network__weights=str(DECODER), trunk__weights=str(TRUNK))
    found = apply_preset(name, own)
    assert (found.network.weights, found.trunk.weights) == (str(DECODER), str(TRUNK))
    tracker = build_tracker(found)
    tracker.seed(world.seed(0), world.frame(0))
    assert len(tracker.step(world.frame(1)).tracks) == 2


def test_the_rows_of_the_ablation_end_with_the_tracker_as_it_comes() -> None:
    for table in (ABLATION, TUNED):
        configs = [config for config in ablation_configs(Config(), table) if config is not None]
        assert len(configs) == len(table) and configs[-1] == apply_preset("default", Config()) == Config()
        assert {config.network.weights for config in configs} == {"shipped"}
    methods = [config.adaptation.method for config in ablation_configs(Config(), ABLATION) if config is not None]
    assert methods == ["none"] * 4 + ["recursive"] * 2


# --- training ---


@pytest.mark.parametrize(
    ("arguments", "module", "options", "file"),
    [
        (["decoder", "--data", "D"], "decoder", "DecoderOptions", DECODER),
        (["flow", "--davis", "D"], "flow", "FlowOptions", DECODER.with_name("flownet.safetensors")),
    ],
)
def test_init_shipped_is_what_ships_of_the_network_that_is_trained(
    arguments: list[str], module: str, options: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    train = {"DecoderOptions": "train_decoder", "FlowOptions": "train_flow"}[options]
    monkeypatch.setattr(f"maskrnn_ros.training.{module}.{train}", lambda made: given.append(made) or "done")
    assert cli.main(["train", *arguments, "--out", "O", "--init", "shipped"]) == 0
    assert cli.main(["train", *arguments, "--out", "O", "--init", "my.safetensors"]) == 0
    assert cli.main(["train", *arguments, "--out", "O"]) == 0
    assert [one.init for one in given] == [file, Path("my.safetensors"), None]


def test_everything_that_ships_has_a_name_that_the_settings_take() -> None:
    assert tuple(NETWORKS) == tuple(TRUNKS) == SHIPPED
    for name in SHIPPED:
        found = with_values(Config(), network__weights=name, trunk__weights=name)
        assert found.network.ships and load_file(NETWORKS[name]) and load_file(TRUNKS[name])
