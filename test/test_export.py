# SPDX-License-Identifier: Apache-2.0
"""``maskrnn export``: graphs of one's own weights, in float32 and in int8, that the tracker then takes."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import world

from maskrnn_ros import cli
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model import load
from maskrnn_ros.model.digests import DIGEST, digest_of
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.files import TRUNK, look_graph, trunk_graph
from maskrnn_ros.model.torch.weights import load_step, load_trunk, save_weights
from maskrnn_ros.setting import Value
from maskrnn_ros.training.quantise import Calibration, quantise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("sympy")

FRAMES = 11


def data_set(root: Path) -> Path:
    """Two clips, and a third whose images cannot be read: it is held out."""
    for name in ("first", "second", "third"):
        images, masks = (root / part / name for part in ("JPEGImages", "Annotations"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(FRAMES):
            picture = cv2.resize(world.image(number), (256, 192))[..., ::-1]
            cv2.imwrite(str(images / f"{number:05d}.jpg"), picture[:, ::-1] if name == "second" else picture)
            marked = (world.labels(number) == 1).astype(np.uint8) * 255
            mask = cv2.resize(marked, (256, 192), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(masks / f"{number:05d}.png"), mask[:, ::-1] if name == "second" else mask)
            if name == "third":
                (images / f"{number:05d}.jpg").write_bytes(b"nothing")
    return root


@dataclasses.dataclass(frozen=True)
class Own:
    """Weights that nobody has graphs of."""

    trunk: Path
    decoder: Path

    def engine(self, **changes: Value) -> Engine:
        """What a tracker that takes them runs."""
        values = {"trunk__weights": str(self.trunk), "network__weights": str(self.decoder), **changes}
        return load.load_engine(with_values(Config(), device="cpu", threads=1, **values))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.setattr(load, "adds_8_bit_products", lambda: True)
    (tmp_path / "own").mkdir()
    copies = Own(tmp_path / "own" / "my_trunk.safetensors", tmp_path / "own" / "my.safetensors")
    for module, file in ((load_trunk(), copies.trunk), (load_step(), copies.decoder)):
        next(module.parameters()).data.mul_(1.01)
        save_weights(module, file)
    return copies


def test_graphs_of_own_weights_are_made_beside_them_and_taken(own: Own, tmp_path: Path, capsys) -> None:
    shipped = {file: file.read_bytes() for file in TRUNK.parent.glob("*.onnx")}
    assert own.engine().name == "torch"
    figures = tmp_path / "figures.json"
    weights = ["--trunk", str(own.trunk), "--network", str(own.decoder)]
    assert cli.main(["export", *weights, "--json", str(figures)]) == 0
    made = json.loads(figures.read_text())["graphs"]
    names = ["my_trunk.onnx", "my_trunk.columns.onnx", "my.place.onnx", "my.onnx", "my.learn.onnx", "my.begin.onnx"]
    assert [Path(one["file"]) for one in made] == [own.trunk.with_name(name) for name in names]
    assert all(one["difference"] < 5e-4 * one["scale"] and one["scale"] > 0.5 for one in made)
    assert all(one["size"] == Path(one["file"]).stat().st_size for one in made)
    said = capsys.readouterr().out
    assert all(name in said for name in names) and "differs from torch by at most" in said
    found = own.engine()
    assert (found.name, found.precision) == ("onnxruntime", "float32")
    assert {file: file.read_bytes() for file in TRUNK.parent.glob("*.onnx")} == shipped  # nobody touched those


def test_a_graph_in_int8_is_calibrated_on_the_clips_that_are_not_held_out(own: Own, tmp_path: Path, capsys) -> None:
    root, weights = data_set(tmp_path / "davis"), ["--trunk", str(own.trunk), "--network", str(own.decoder)]
    assert cli.main(["export", *weights, "--calibrate", str(root), "--held-out", "third"]) == 0
    assert capsys.readouterr().out.count("differs from float32 by") == 2
    model = onnx.load(str(trunk_graph(own.trunk, "int8")))
    assert {entry.key: entry.value for entry in model.metadata_props}[DIGEST] == digest_of(own.trunk)
    kinds = [node.op_type for node in model.graph.node]
    assert "QLinearConv" in kinds and "Conv" not in kinds and "DynamicQuantizeLinear" not in kinds
    found, exact = (own.engine(**changes).features(world.image(0)) for changes in ({}, {"engine": "torch"}))
    assert own.engine().precision == "int8"
    for name in ("stride8", "stride16", "columns"):
        one, other = (np.asarray(getattr(features, name)) for features in (found, exact))
        assert 0 < np.abs(one - other).mean() < 0.4 * np.abs(other).mean()
    step = onnx.load(str(look_graph(own.decoder, "int8")))
    assert {entry.key: entry.value for entry in step.metadata_props}[DIGEST] == digest_of(own.decoder)
    kinds = [node.op_type for node in step.graph.node]
    assert kinds.count("QLinearConv") > 10 and "Conv" in kinds and own.engine().decoder_precision == "int8"
    # the third clip is not even read: it could not be
    assert cli.main(["export", *weights, "--calibrate", str(root)]) == 2


def test_the_trunk_that_ships_has_eight_bits() -> None:
    model = onnx.load(str(trunk_graph(TRUNK, "int8")))
    convolutions = {node.input[3] for node in model.graph.node if node.op_type == "QLinearConv"}
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in convolutions]
    assert weights and all(values.dtype == np.int8 for values in weights)
    # the camera's bytes go into the first convolution as they are
    (first,) = (node for node in model.graph.node if "image" in node.input)
    assert first.op_type == "Transpose" and model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    (stem,) = (node for node in model.graph.node if first.output[0] in node.input)
    assert stem.op_type == "QLinearConv"
    assert max(int(np.abs(values.astype(int)).max()) for values in weights) > 100


def test_calibrating_again_gives_the_same_graph(own: Own, tmp_path: Path) -> None:
    calibration = Calibration(root=data_set(tmp_path / "davis"), held_out=("second", "third"))
    assert cli.main(["export", "--trunk", str(own.trunk), "--network", str(own.decoder)]) == 0
    graphs, made = (trunk_graph(own.trunk, "int8"), look_graph(own.decoder, "int8")), []
    for _ in range(2):
        list(quantise(calibration, [str(own.trunk)], [str(own.decoder)]))
        made.append([graph.read_bytes() for graph in graphs])
    assert made[0] == made[1]


def test_out_takes_all_graphs_of_the_shipped_weights(tmp_path: Path) -> None:
    out = tmp_path / "some" / "folder"
    assert cli.main(["export", "--out", str(out)]) == 0
    shipped = {file.name for file in TRUNK.parent.glob("*.onnx")}
    assert {file.name for file in out.iterdir()} == shipped - {
        "trunk.int8.onnx",
        "decoder.int8.onnx",
    }  # of clips that do not ship
    for file in out.iterdir():
        one, other = (onnx.load(str(path)) for path in (file, TRUNK.with_name(file.name)))
        assert [node.op_type for node in one.graph.node] == [node.op_type for node in other.graph.node]


@pytest.mark.parametrize("package", ["onnx", "sympy"])
def test_a_package_that_is_missing_is_named_in_one_line(
    package: str, own: Own, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = data_set(tmp_path / "davis")
    monkeypatch.setitem(sys.modules, package, None)
    arguments = ["--trunk", str(own.trunk), "--calibrate", str(root), "--held-out", "third"]
    assert cli.main(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"pip install {package}" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--held-out", "first"], "--held-out takes --calibrate"),
        (["--calibrate", "ROOT", "--held-out", "fourth"], "found no 'fourth'"),
        (["--calibrate", "ROOT", "--held-out", "first,second,third"], "all are held out"),
        (["--calibrate", "nowhere"], "nowhere"),
        (
            ["--network", "shipped", "--calibrate", "ROOT"],
            "--calibrate begins with the trunk: expected --trunk",
        ),
        (["--network", "my.onnx"], "network.weights must be shipped"),
        (["--network", "absent.safetensors"], "absent.safetensors cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(arguments: list[str], said: str, tmp_path: Path, capsys) -> None:
    root = data_set(tmp_path / "davis")
    arguments = [str(root) if word == "ROOT" else word for word in arguments]
    assert cli.main(["export", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
