# SPDX-License-Identifier: Apache-2.0
"""The network that follows as the package comes, and what settings of versions before get from it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import world
import yaml
from safetensors.torch import load_file

from maskrnn_ros import cli
from maskrnn_ros.config import Config, from_flat, with_values
from maskrnn_ros.evaluation.presets import ABLATION, DECODER, DECODER_TUNED, TUNED, ablation_configs, apply_preset
from maskrnn_ros.evaluation.presets import rows_for as rows
from maskrnn_ros.model import engine
from maskrnn_ros.model.digests import sealed
from maskrnn_ros.model.engine import load_models
from maskrnn_ros.model.graphs import step_graph, trunk_graph
from maskrnn_ros.model.network import FastNet
from maskrnn_ros.model.trunk import TrainedTrunk
from maskrnn_ros.model.weights import DECODER as FILE
from maskrnn_ros.model.weights import (
    NETWORKS,
    STREAMS,
    STREAMS_TRUNK,
    TRUNK,
    is_step,
    load_step,
    network_file,
    save_weights,
)
from maskrnn_ros.parameter_file import load
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import InstanceStatus

CPU = torch.device("cpu")
TRAINED = {"adaptation.method": "finetune", "network.weights": "streams"}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_the_decoder_ships_and_is_the_default() -> None:
    assert (Config().network.weights, Config().adaptation.method) == ("shipped", "recursive")
    assert network_file("shipped") == FILE and is_step(FILE) and not is_step(STREAMS)
    assert not load_step(FILE).training and FILE.stat().st_size < 10e6


def test_the_default_tracker_follows_two_objects_without_training(caplog: pytest.LogCaptureFixture) -> None:
    tracker = build_tracker(Config())
    assert tracker.adaptation == "recursive" and not warnings(caplog)
    tracker.seed(world.seed(0), world.frame(0))
    for number in range(1, 4):
        tracks = tracker.step(world.frame(number))
    assert [(track.instance_id, track.status) for track in tracks.tracks] == [
        (1, InstanceStatus.TRACKING),
        (2, InstanceStatus.TRACKING),
    ]


@pytest.mark.parametrize(
    ("values", "file"),
    [
        ({}, TRUNK),
        ({"network.weights": "streams", "adaptation.method": "finetune"}, STREAMS_TRUNK),
        ({"network.enabled": False}, STREAMS_TRUNK),
        ({"trunk.weights": "streams"}, STREAMS_TRUNK),
    ],
)
def test_the_trunk_that_ships_is_the_one_that_learned_with_the_network_in_use(
    values: Mapping[str, Value], file: Path
) -> None:
    found = load_models(from_flat({**values, "engine": "torch"}), CPU).trunk
    assert isinstance(found, TrainedTrunk)
    expected = load_file(file)
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ({"adaptation.method": "finetune"}, "set network.weights: streams, or adaptation.method: recursive"),
        ({"trunk.weights": "imagenet"}, "set trunk.weights: shipped, or network.weights: streams and"),
        ({"trunk.weights": "imagenet", "network.enabled": False}, "shipped, or adaptation.method: finetune"),
    ],
)
def test_old_settings_that_the_decoder_cannot_follow_are_refused_with_the_cure(
    values: Mapping[str, Value], cure: str, tmp_path: Path
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(values)}}))
    with pytest.raises(RuntimeError) as refused:
        load_models(load(file), CPU)
    assert cure in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        # at once and the same every time, which is what blocking asked for; nothing is in the background
        ({"adaptation.mode": "blocking"}, None),
        ({"adaptation.mode": "background"}, None),
        ({"adaptation.mode": "off"}, "adaptation.mode: off is no value any more, taken as adaptation.method: none"),
        (
            {"adaptation.steps": 200, "adaptation.views": 5},
            "adaptation.steps, adaptation.views: no effect on a decoder",
        ),
        ({"matching.enabled": False, "prior.weight": 1.0}, "prior.weight, matching.enabled: no effect on a decoder"),
        ({"adaptation.method": "none", "network.matching": False}, "network.matching: no effect on a decoder"),
        ({"network.weights": "streams"}, "adaptation.method: finetune, the default of versions before, trains them"),
        ({"network.enabled": False}, "adaptation.method: finetune, the default of versions before, trains them"),
        (
            {"network.weights": "streams", "adaptation.rate": 0.01},
            "adaptation.rate: no effect, adaptation.method rec",
        ),
        ({"network.enabled": False, "matching.weight": 1.0, **TRAINED}, None),
        ({**TRAINED, "adaptation.steps": 200}, None),
        ({"adaptation.method": "finetune", "network.enabled": False}, None),
    ],
)
def test_what_an_old_file_said_of_training_is_done_or_heard_of(
    values: Mapping[str, Value], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    load_models(from_flat({"engine": "torch", **values}), CPU)
    found = warnings(caplog)
    assert len(found) == (0 if said is None else 1) and all(str(said) in line for line in found)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "onnxruntime", "precision": "int8"}, "int8, decoder float32"),
        ({"engine": "onnxruntime", "precision": "auto"}, "int8, decoder float32"),
        ({"engine": "onnxruntime", "precision": "float32"}, "float32"),
        ({"engine": "torch", "precision": "float16"}, "float16, decoder float32"),
        ({"engine": "torch"}, "float32"),
        ({"engine": "onnxruntime", "precision": "int8", **TRAINED}, "int8"),
    ],
)
def test_the_tracker_says_what_trunk_and_decoder_compute_in(
    values: Mapping[str, Value], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(engine, "adds_8_bit_products", lambda: True)
    tracker = build_tracker(from_flat(values))
    assert (tracker.engine, tracker.precision) == (values["engine"], said)


@pytest.mark.parametrize("graph", ["missing", "torn", "of other weights"])
def test_a_decoder_whose_graph_does_not_fit_runs_in_torch_and_says_so(
    graph: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    own = tmp_path / "own.safetensors"
    own.write_bytes(FILE.read_bytes())
    if graph == "torn":
        step_graph(own).write_bytes(sealed(step_graph(FILE).read_bytes())[:-1])
    elif graph != "missing":
        step_graph(own).write_bytes(sealed(trunk_graph(TRUNK).read_bytes()))
    config = from_flat({"network.weights": str(own), "precision": "float32"})
    assert load_models(config, CPU).engine == "torch"
    (line,) = warnings(caplog)
    assert line.startswith("engine torch: graph ") and "own.onnx" in line
    with pytest.raises(RuntimeError, match="engine onnxruntime: graph .*own.onnx"):
        load_models(with_values(config, engine="onnxruntime"), CPU)


# --- evaluation ---


@pytest.mark.parametrize("name", ["maskrnn", "masktrack", "osvos"])
def test_presets_of_fine_tuned_networks_name_the_network_that_they_need(name: str, tmp_path: Path) -> None:
    found = apply_preset(name, Config())
    assert (found.network.weights, found.adaptation.method) == ("streams", "finetune")
    save_weights(FastNet(), tmp_path / "own.safetensors")
    own = str(tmp_path / "own.safetensors")
    assert apply_preset(name, with_values(Config(), network__weights=own)).network.weights == own
    assert load_models(with_values(found, engine="torch"), CPU).network is not None


def test_the_rows_of_the_ablation_are_those_of_the_network() -> None:
    streams = from_flat(TRAINED)
    assert (rows(streams), rows(streams, tuned=True)) == (ABLATION, TUNED)
    assert (rows(Config()), rows(Config(), tuned=True)) == (DECODER, DECODER_TUNED)
    for table in (DECODER, DECODER_TUNED):
        configs = [config for config in ablation_configs(Config(), table) if config is not None]
        assert len(configs) == len(table) and configs[-1] == apply_preset("default", Config())
        assert {config.network.weights for config in configs} == {"shipped"}
    methods = [config.adaptation.method for config in ablation_configs(Config(), DECODER) if config is not None]
    assert methods == ["none"] * 4 + ["recursive"] * 2
    assert {one.adaptation.method for one in ablation_configs(Config(), DECODER_TUNED) if one} == {"recursive"}


# --- training ---


@pytest.mark.parametrize(
    ("arguments", "module", "options", "file"),
    [
        (["decoder", "--data", "D"], "decoder", "DecoderOptions", FILE),
        (["flow", "--davis", "D"], "flow", "FlowOptions", FILE.with_name("flownet.safetensors")),
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


def test_every_network_that_ships_has_a_name_that_the_settings_take() -> None:
    for name, file in NETWORKS.items():
        assert with_values(Config(), network__weights=name).network.weights == name and file.is_file()
