# SPDX-License-Identifier: Apache-2.0
"""The engines say the same, and one that cannot be had is either replaced or refused in one line."""

from __future__ import annotations

import doctest
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world
from engine_bench import SHAPES, Copies, clip_run, copied, least_overlap, overlap, run, tracker
from engine_bench import engine as load

from maskrnn_ros.model import digests, engine, files, onnx_engine
from maskrnn_ros.model import load as choice
from maskrnn_ros.model.digests import DIGEST, digest_of, sealed
from maskrnn_ros.model.engine import Around, Features, Floats, Keys, Lesson, Objects
from maskrnn_ros.model.files import (
    DECODER,
    TRUNK,
    begin_graph,
    columns_graph,
    learn_graph,
    look_graph,
    place_graph,
    trunk_graph,
)
from maskrnn_ros.model.load import adds_8_bit_products
from maskrnn_ros.model.onnx_engine import OnnxEngine, OnnxTrunk
from maskrnn_ros.model.shapes import CHANNELS, CODES, COLUMNS, CROP, FINE, HIDDEN, KEYS, STRIDES, TARGET
from maskrnn_ros.model.torch import engine as torch_engine
from maskrnn_ros.model.torch import weights
from maskrnn_ros.model.torch.engine import TorchEngine
from maskrnn_ros.model.torch.weights import load_step, load_trunk, save_weights
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.types import Tracks

onnxruntime = pytest.importorskip("onnxruntime")

WITH_VNNI = pytest.mark.skipif(not adds_8_bit_products(), reason="int8 saturates on this processor: it has no VNNI")
GRAPHS = (
    trunk_graph(TRUNK),
    columns_graph(TRUNK),
    place_graph(DECODER),
    look_graph(DECODER),
    learn_graph(DECODER),
    begin_graph(DECODER),
)


@pytest.fixture(autouse=True)
def exact_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is chosen here does not depend on the machine, and torch keeps its threads."""
    monkeypatch.setattr(choice, "adds_8_bit_products", lambda: True)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fast() -> OnnxEngine:
    found = load(engine="onnxruntime", precision="float32")
    assert isinstance(found, OnnxEngine)
    return found


@pytest.fixture(scope="module")
def exact() -> TorchEngine:
    found = load(engine="torch")
    assert isinstance(found, TorchEngine)
    return found


def close(one: Any, other: Any, atol: float = 1e-4, rtol: float = 1e-4) -> None:
    """Of either engine."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype == np.float32 and one.shape == other.shape
    np.testing.assert_allclose(one, other, atol=atol, rtol=rtol)


# --- the graphs that ship ---


@pytest.mark.parametrize(
    "graph", [*GRAPHS, trunk_graph(TRUNK, "int8"), look_graph(DECODER, "int8")], ids=lambda path: path.name
)
def test_a_shipped_graph_was_made_from_the_shipped_weights(graph: Path) -> None:
    source = TRUNK if graph.name.startswith("trunk") else DECODER
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[DIGEST] == digest_of(source)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (90, 160), (31, 47), (16, 16), (1, 1)])
def test_features_are_those_of_torch(size: tuple[int, int], fast: OnnxEngine, exact: TorchEngine) -> None:
    image = world.texture(3, *size).reshape(*size, 3)
    one, other = (which.features(image) for which in (fast, exact))
    for name in ("stride8", "stride16", "columns"):
        close(getattr(one, name), getattr(other, name), atol=2e-3, rtol=2e-3)
    shapes = {4: one.columns, 8: one.stride8, 16: one.stride16}
    channels = dict(zip(STRIDES, (COLUMNS, *CHANNELS[1:]), strict=True))
    for stride, found in shapes.items():
        assert found.shape == (1, channels[stride], -(-size[0] // stride), -(-size[1] // stride))
    for each in (one, other):
        coefficients = np.random.default_rng(1).normal(0, 1, (3, COLUMNS + 1, TARGET)).astype(np.float32)
        columns = np.asarray(each.columns)[0]
        exactly = np.einsum("kc,chw->khw", coefficients[:, :-1, 0], columns) + coefficients[:, -1, 0, None, None]
        close((fast if each is one else exact).scores(each, coefficients), exactly, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(one.image, image)
    np.testing.assert_array_equal(np.asarray(other.image)[0].transpose(1, 2, 0), image)


@WITH_VNNI
def test_int8_is_close_in_the_mean_and_is_not_float32(fast: OnnxEngine) -> None:
    image = world.texture(3, 288, 512)
    one, other = load(precision="int8").features(image), fast.features(image)
    for name in ("stride8", "stride16", "columns"):
        found, expected = getattr(one, name), getattr(other, name)
        assert 1e-3 < np.abs(found - expected).mean() / np.abs(expected).mean() < 0.2


# --- calls ---


def boxes(count: int, random: np.random.Generator) -> Floats:
    corner = random.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + random.uniform(24, 60, (count, 1))], axis=1).astype(np.float32)


def masks(count: int, cells: tuple[int, int], random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Of K objects: masks, those of others, weight of each cell."""
    share, others, known = (random.random((count, *cells), np.float32) for _ in range(3))
    return share, others * (1 - share), known


def objects(of: engine.Engine, count: int, random: np.random.Generator) -> Objects:
    """The first of several is lost and looked for; the same numbers on every engine."""
    seed, newest = (keys(of, count, random) for _ in range(2))
    probability = random.random((count, FINE, FINE), np.float32)
    sought = np.full((count, 4), np.nan, np.float32)
    if count > 1:
        probability[0], sought[0] = 0, (8, 4, 60, 44)
    hidden = random.uniform(-1, 1, (count, HIDDEN, CROP // 2, CROP // 2)).astype(np.float32)
    coefficients = random.normal(size=(count, COLUMNS + 1, TARGET)).astype(np.float32) * np.float32(0.1)
    return Objects(
        probability=probability,
        boxes=boxes(count, random),
        hidden=own(of, hidden),
        coefficients=coefficients,
        seed=seed,
        newest=newest,
        sought=sought,
    )


def keys(of: engine.Engine, count: int, random: np.random.Generator) -> Keys:
    code = random.normal(size=(count, CODES, KEYS)).astype(np.float32) * np.float32(0.2)
    return Keys(own(of, code), own(of, random.random((count, 2, KEYS), np.float32)))


def own(of: engine.Engine, array: Floats) -> Any:
    """As an array of the engine."""
    return of.times(of.zeros(*array.shape) + 1, array)


def around(cells: tuple[int, int], random: np.random.Generator) -> Around:
    return Around(
        flow=random.normal(0, 3, (1, 2, *cells)).astype(np.float32),
        ignored=(random.random((1, *cells)) > 0.9).astype(np.float32),
        beside=random.random((1, *cells), np.float32) * np.float32(0.3),
        switches=np.ones(4, np.float32),
    )


def stepped(of: engine.Engine, count: int, size: tuple[int, int]) -> tuple[Features, engine.Looked]:
    random = np.random.default_rng(count)
    features = of.features(world.texture(3, *size))
    cells = features.columns.shape[2:]
    return features, of.step(features, around(cells, random), objects(of, count, random))


@pytest.mark.parametrize(("count", "size"), [(1, (96, 128)), (2, (97, 131)), (5, (90, 160))])
def test_a_step_says_the_same(count: int, size: tuple[int, int], fast: OnnxEngine, exact: TorchEngine) -> None:
    (_, one), (_, other) = (stepped(which, count, size) for which in (fast, exact))
    rounded = {"log_odds": 0.01, "deltas": 0.01, "presence": 0.01, "hidden": 0.01, "columns": 0.02}  # ``crops_of`` does
    for name in engine.STEP_OUTPUTS:
        found, expected = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        if name in rounded:
            assert found.shape == expected.shape
            assert np.abs(found - expected).mean() < rounded[name] * np.abs(expected).mean()
        else:
            close(found, expected, atol=5e-3, rtol=5e-3)
    assert one.looked.all() and isinstance(other.hidden, torch.Tensor)
    for name in ("around", "crops", "looked", "log_odds", "deltas", "presence", "matched"):
        assert isinstance(getattr(other, name), np.ndarray)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_frames_and_seeds_say_is_the_same(count: int, fast: OnnxEngine, exact: TorchEngine) -> None:
    for size in ((96, 128), (97, 131)):
        found = []
        for which in (fast, exact):
            features, looked = stepped(which, count, size)
            random = np.random.default_rng(count)
            seeds = which.begin(
                features, boxes(count, random), *masks(count, tuple(features.columns.shape[2:]), random)
            )
            held = keys(which, count, random)
            planes = masks(count, (CROP, CROP), random)
            lessons = [Lesson(range(count), *planes)]
            some = list(range(0, count, 2))
            seen = (random.random((len(some), KEYS)) > 0.3).astype(np.float32)
            lessons.append(Lesson(some, *(plane[some] for plane in planes), seen))
            every, few = (which.learn(looked, lesson, held) for lesson in lessons)
            close(few.square, np.asarray(every.square)[some])
            for name in ("code", "values"):
                new, all_new, old = (np.asarray(getattr(each, name)) for each in (few, every, held))
                close(new[some], all_new[some] * seen[:, None])
                np.testing.assert_array_equal(np.delete(new, some, axis=0), np.delete(old, some, axis=0))
            found.append((seeds, every, few))
        for one, other in zip(*found, strict=True):
            for name in ("square", "target", "code", "values"):
                close(getattr(one, name), getattr(other, name), atol=5e-3, rtol=5e-3)
            assert isinstance(other.square, np.ndarray) and isinstance(other.code, torch.Tensor)


def test_arrays_of_an_engine_are_handled_alike(fast: OnnxEngine, exact: TorchEngine) -> None:
    for which in (fast, exact):
        batch = own(which, np.arange(24, dtype=np.float32).reshape(4, 2, 3))
        one = batch[1]
        close(one, np.array([[6, 7, 8], [9, 10, 11]], np.float32))
        close(batch[[0, 3]], np.arange(24, dtype=np.float32).reshape(4, 2, 3)[[0, 3]])
        close(which.stack([batch[2], one]), np.asarray(batch)[[2, 1]])
        rest = which.without(own(which, np.asarray(batch)), [0, 2])
        assert not np.asarray(rest)[[0, 2]].any()
        close(rest[[1, 3]], batch[[1, 3]])
        close(which.times(one, np.array([1, 0, 2], np.float32)), np.array([[6, 0, 16], [9, 0, 22]], np.float32))
        assert which.zeros(2, 3).shape == (2, 3) and not np.asarray(which.zeros(2, 3)).any()


def test_the_trunk_alone_says_what_it_says_in_the_engine(fast: OnnxEngine) -> None:
    image = world.texture(3, 97, 131)
    maps = OnnxTrunk(TRUNK)(image)[0]
    features = fast.features(image)
    assert [map_.shape[1] for map_ in maps] == list(CHANNELS)
    np.testing.assert_array_equal(maps[1], features.stride8)
    np.testing.assert_array_equal(maps[2], features.stride16)


# --- which one is taken ---


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("maskrnn_ros")]


def test_auto_takes_int8_in_onnxruntime_on_a_cpu_that_can(caplog: pytest.LogCaptureFixture) -> None:
    found = load()
    assert (found.name, found.device, found.precision) == ("onnxruntime", "cpu", "int8") and not lines(caplog)


def test_auto_takes_float32_where_the_processor_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "adds_8_bit_products", lambda: False)
    found = load()
    assert (found.name, found.precision) == ("onnxruntime", "float32")


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_auto_takes_torch_on_a_gpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "sees_cuda", lambda name: name == "auto")
    monkeypatch.setattr(torch_engine, "choose_device", lambda name: torch.device("cpu"))
    assert load(device="auto", precision=precision).name == "torch"
    assert load(device="auto", precision="int8").name == "onnxruntime"
    assert load(device="cpu").name == "onnxruntime"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "avx2 avx512_vnni", True), ("x86_64", "avx2 avx512f", False), ("aarch64", "", True)],
)
def test_vnni_is_asked_of_x86_only(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(choice.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}\n")
    assert choice.adds_8_bit_products() is expected


def refused(**changes: Any) -> str:
    with pytest.raises(RuntimeError) as error:
        load(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if they were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_without_onnxruntime_auto_is_torch_with_a_warning_and_its_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert load().name == "torch"
    (line,) = lines(caplog)
    assert line.startswith("engine torch: ") and "onnxruntime" in line
    assert "onnxruntime" in refused(engine="onnxruntime")
    assert "onnxruntime" in refused(precision="int8")


def test_without_torch_auto_is_onnxruntime_and_what_needs_torch_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without(monkeypatch, "torch", "torchvision")
    assert load(device="auto").name == "onnxruntime" and not lines(caplog)
    expected = "engine torch: torch is not installed: pip install 'maskrnn_ros[gpu]' (or torch and torchvision)"
    for changes in ({"engine": "torch"}, {"precision": "float16"}, {"compile": "default"}, {"device": "cuda"}):
        assert refused(**changes) == expected


def test_without_torchvision_the_line_says_so() -> None:
    script = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from maskrnn_ros.config import Config, with_values\n"
        "from maskrnn_ros.model.load import load_engine\n"
        "try:\n    load_engine(with_values(Config(), engine='torch'))\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("engine torch: ") and ended.stdout.count("\n") == 1
    assert "torchvision" in ended.stdout and "pip install 'maskrnn_ros[gpu]'" in ended.stdout


def test_without_torch_and_graphs_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    settings = copied(tmp_path, graphs="none").settings
    assert "trunk.onnx cannot be read" in refused(**settings)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime" in refused(**settings)


def test_without_graphs_auto_is_torch_and_onnxruntime_is_refused(tmp_path: Path) -> None:
    settings = copied(tmp_path, graphs="none").settings
    assert load(**settings).name == "torch"
    assert "trunk.onnx cannot be read" in refused(engine="onnxruntime", **settings)
    assert "trunk.int8.onnx cannot be read" in refused(precision="int8", **settings)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda path: path.name)
def test_each_graph_that_is_missing_leaves_torch(graph: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = copied(tmp_path).settings
    (tmp_path / graph.name).unlink()
    assert load(precision="float32", **settings).name == "torch"
    (line,) = lines(caplog)
    assert line.startswith("engine torch: ") and f"{graph.name} cannot be read" in line
    assert f"{graph.name} cannot be read" in refused(engine="onnxruntime", precision="float32", **settings)


@pytest.mark.parametrize("which", ["trunk", "network"])
def test_graphs_of_other_weights_are_not_taken(tmp_path: Path, which: str) -> None:
    copies = copied(tmp_path)
    module: Any = load_trunk() if which == "trunk" else load_step()
    next(module.parameters()).data.mul_(1.001)
    save_weights(module, getattr(copies, which))
    assert load(**copies.settings).name == "torch"
    said = refused(engine="onnxruntime", **copies.settings)
    assert str(getattr(copies, which)) in said and "maskrnn export" in said


@pytest.mark.parametrize("which", ["trunk", "network"])
def test_weights_that_are_gone_are_said_in_one_line(tmp_path: Path, which: str) -> None:
    """Their graphs are still there."""
    copies = copied(tmp_path)
    getattr(copies, which).unlink()
    for changes in ({}, {"engine": "onnxruntime"}, {"engine": "torch"}):
        said = refused(**changes, **copies.settings)
        assert f"weights {getattr(copies, which)} cannot be read" in said


def changed(file: Path, how: str) -> bytes:
    """A graph as another version would write it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(file))
    graph = model.graph
    if how == "an input less":
        del graph.input[-1]
        graph.node.add(op_type="Constant", output=["newest_values"]).attribute.append(
            onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros((1, 2, KEYS), np.float32)))
        )
        nodes = list(graph.node)
        del graph.node[:]
        graph.node.extend([nodes[-1], *nodes[:-1]])
    elif how == "an output less":
        del graph.output[-1]
    else:
        kept = [entry for entry in model.metadata_props if entry.key != onnx_engine.RIDGE]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    return sealed(model.SerializeToString())


@pytest.mark.parametrize("how", ["an input less", "an output less", "no ridge"])
def test_a_graph_of_an_older_version_is_not_taken(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copies = copied(tmp_path)
    look_graph(copies.network).write_bytes(changed(look_graph(DECODER), how))
    assert load(precision="float32", **copies.settings).name == "torch"
    expected = f"graph {look_graph(copies.network)} was not made from {copies.network} by this version"
    assert lines(caplog) == [f"engine torch: {expected}: run maskrnn export"]
    said = refused(engine="onnxruntime", precision="float32", **copies.settings)
    assert said == f"engine onnxruntime: {expected}: run maskrnn export"


@pytest.mark.parametrize("graph", ["trunk.int8.onnx", "decoder.int8.onnx"])
def test_an_int8_graph_that_was_left_behind_leaves_float32(graph: str, tmp_path: Path) -> None:
    settings = copied(tmp_path).settings
    (tmp_path / graph).write_bytes((tmp_path / "decoder.learn.onnx").read_bytes())
    for name in ("auto", "onnxruntime"):
        found = load(engine=name, **settings)
        assert (found.name, found.precision) == ("onnxruntime", "float32")
    assert f"{graph} was not made from" in refused(precision="int8", **settings)


@pytest.mark.parametrize("damage", ["cut", "bit", "nothing", "pipe"])
@pytest.mark.parametrize("name", ["trunk.int8.onnx", "decoder.int8.onnx", "trunk.columns.onnx", "decoder.begin.onnx"])
def test_a_torn_graph_is_an_error_and_with_auto_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    settings = copied(tmp_path).settings
    file, precision = tmp_path / name, "int8" if "int8" in name else "float32"
    torn(file, damage)
    said = refused(engine="onnxruntime", precision=precision, **settings)
    assert name in said and ("regular file, found a pipe" if damage == "pipe" else "damaged") in said
    if precision == "int8" and damage != "pipe":
        assert refused(engine="onnxruntime", **settings) == said  # it would have been taken
    caplog.clear()
    found = load(precision="auto" if precision == "int8" else precision, **settings)
    assert (found.name, found.precision) == ("onnxruntime" if precision == "int8" else "torch", "float32")
    (line,) = lines(caplog)
    assert name in line


def torn(file: Path, damage: str) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes({"cut": data[: len(data) // 2], "bit": data, "nothing": b""}[damage])


@pytest.mark.parametrize("name", ["trunk.safetensors", "decoder.safetensors", "trunk.onnx", "decoder.learn.onnx"])
@pytest.mark.parametrize("kind", ["onnxruntime", "torch"])
def test_what_ships_is_verified_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    for file in TRUNK.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for module in (digests, weights):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(digests, "SUMS", tmp_path / "SHA256SUMS")
    settings = Copies(tmp_path / TRUNK.name, tmp_path / DECODER.name).settings
    assert load(engine=kind, precision="float32", **settings).name == kind
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / name).write_bytes(data)
    if kind == "torch" and name.endswith(".onnx"):
        assert load(engine=kind, precision="float32", **settings).name == kind  # it reads no graph
    else:
        said = refused(engine=kind, precision="float32", **settings)
        assert f"{name} is damaged: expected SHA-256" in said


def test_all_that_ships_is_listed_as_it_is(tmp_path: Path) -> None:
    listed = digests.SUMS.read_text().splitlines()
    for file in (*TRUNK.parent.glob("*.safetensors"), *TRUNK.parent.glob("*.onnx")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert digests.write_digests(tmp_path) == listed, "run: maskrnn weights digests"


def test_all_that_ships_fits_into_its_limit() -> None:
    files = (*TRUNK.parent.glob("*.safetensors"), *TRUNK.parent.glob("*.onnx"))
    assert sum(file.stat().st_size for file in files) <= 35_000_000


def test_every_graph_that_ships_is_one_that_something_reads() -> None:
    expected = {trunk_graph(TRUNK, "int8"), look_graph(DECODER, "int8")}
    expected |= {weights.with_suffix(".onnx") for weights in files.PROMPTS.values()}
    for trunk, network in zip(files.TRUNKS.values(), files.NETWORKS.values(), strict=True):
        expected |= {trunk_graph(trunk), files.columns_graph(trunk)}
        expected |= {
            graph(network) for graph in (files.place_graph, files.look_graph, files.learn_graph, files.begin_graph)
        }
    assert set(GRAPHS) < expected == set(TRUNK.parent.glob("*.onnx"))
    assert {files.trunk_file("shipped"), files.network_file("shipped")} == {TRUNK, DECODER}


def test_weights_of_ones_own_are_verified_and_finite(tmp_path: Path) -> None:
    copies = copied(tmp_path)
    network = load_step()
    save_weights(network, copies.network, {"made": "here"})
    assert load(engine="torch", **copies.settings).name == "torch"
    data = bytearray(copies.network.read_bytes())
    data[-200_000:] = bytes(200_000)
    copies.network.write_bytes(data)
    assert "are damaged: their tensors are not those that were saved" in refused(engine="torch", **copies.settings)
    for value in (float("nan"), float("inf")):
        next(network.parameters()).data.view(-1)[0] = value
        save_weights(network, copies.network)
        assert "1 tensors hold NaN or infinite values, the first is" in refused(engine="torch", **copies.settings)
    copies.network.unlink()
    os.mkfifo(copies.network)
    assert "cannot be read: " in refused(engine="torch", **copies.settings)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    save_weights(load_trunk(), tmp_path / "other.safetensors")
    own = str(tmp_path / "other.safetensors")
    assert "other.safetensors do not fit StepNet" in refused(network__weights=own)
    assert "decoder.safetensors do not fit TrainedTrunk" in refused(engine="torch", trunk__weights=str(DECODER))


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    (tmp_path / "net.safetensors").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        save_weights(load_step(), tmp_path / "net.safetensors")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("net.safetensors", b"old")]


@pytest.mark.parametrize("text", [b"no graph", sealed(b"no graph")], ids=["as it is", "sealed"])
def test_a_file_that_is_no_graph_is_refused_in_one_line(text: bytes, tmp_path: Path) -> None:
    copies = copied(tmp_path)
    copies.trunk.with_suffix(".onnx").write_bytes(text)
    said = refused(engine="onnxruntime", precision="float32", **copies.settings)
    assert "trunk.onnx is damaged" in said or "trunk.onnx cannot be read" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "torch", "precision": "int8"}, "precision int8 needs engine onnxruntime"),
        ({"compile": "default", "precision": "int8"}, "precision int8 needs engine onnxruntime"),
        ({"engine": "onnxruntime", "precision": "float16"}, "precision float16 needs engine torch"),
        ({"engine": "onnxruntime", "compile": "default"}, "compile default needs engine torch"),
        ({"engine": "torch", "device": "cuda:7"}, "device 'cuda:7' was asked for, but torch sees"),
    ],
)
def test_what_an_engine_does_not_know_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(**changes)


def test_onnxruntime_without_cuda_refuses_a_gpu_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    said = refused(engine="onnxruntime", device="cuda")
    assert "device 'cuda' was asked for, but this onnxruntime has no CUDA: pip install onnxruntime-gpu" in said


def test_without_networks_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrnn_ros.tracking.build.load_engine", lambda config: 1 // 0)
    found = build_tracker(world.WARP_ONLY)
    assert (found.engine, found.device, found.precision, found.adaptation) == ("", "cpu", "float32", "off")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], 3),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], 2),
    ],
)
def test_on_a_gpu_the_providers_that_are_there_are_taken_in_order(
    monkeypatch: pytest.MonkeyPatch, there: list[str], taken: int
) -> None:
    asked: list[Any] = []

    make = onnxruntime.InferenceSession

    def noted(file: str, options: Any, providers: Any) -> Any:
        asked.append(providers)
        return make(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    found = load(engine="onnxruntime", device="cuda:1")
    assert (found.device, found.precision, len(asked)) == ("cuda:1", "float32", len(GRAPHS))
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"][-taken:]
    for providers in asked:
        assert [name for name, _ in providers] == names
        assert all(options == ({} if name.startswith("CPU") else {"device_id": "1"}) for name, options in providers)
    asked.clear()
    assert load(engine="onnxruntime").device == "cpu"
    assert asked == [[("CPUExecutionProvider", {})]] * len(GRAPHS)


# --- behind a tracker ---


def labels(found: list[Tracks]) -> list[np.ndarray]:
    return [tracks.labels for tracks in found]


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.98), pytest.param("int8", 0.85, marks=WITH_VNNI)])
def test_the_world_is_tracked_alike_on_both_engines(precision: str, least: float, exact: TorchEngine) -> None:
    one = labels(run(tracker(exact)))
    other = labels(run(tracker(load(engine="onnxruntime", precision=precision))))
    assert least_overlap(one, other) > least
    for i in (1, 2, 3):
        assert overlap(other[-1] == i, world.labels(5, SHAPES) == i) > 0.55


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.98), pytest.param("int8", 0.85, marks=WITH_VNNI)])
def test_a_clip_is_tracked_alike_on_both_engines(precision: str, least: float) -> None:
    one, other = clip_run(engine="torch"), clip_run(engine="onnxruntime", precision=precision)
    assert least_overlap(one, other) > least


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "onnxruntime", "precision": "int8"}, "int8"),
        ({"engine": "onnxruntime", "precision": "auto"}, "int8"),
        ({"engine": "onnxruntime", "precision": "float32"}, "float32"),
        ({"engine": "torch", "precision": "float16"}, "float16, decoder float32"),
        ({"engine": "torch"}, "float32"),
    ],
)
def test_the_tracker_says_what_trunk_and_decoder_compute_in(values: dict[str, Any], said: str) -> None:
    found = tracker(load(**values))
    assert (found.engine, found.precision) == (values["engine"], said)


def test_a_decoder_without_a_graph_in_int8_stays_in_float32(tmp_path: Path) -> None:
    settings = copied(tmp_path).settings
    (tmp_path / "decoder.int8.onnx").unlink()
    for precision in ("auto", "int8"):
        assert tracker(load(engine="onnxruntime", precision=precision, **settings)).precision == "int8, decoder float32"


@WITH_VNNI
@pytest.mark.parametrize(("count", "size"), [(1, (96, 128)), (5, (97, 131))])
def test_a_step_in_int8_is_close_in_the_mean_and_is_not_float32(
    count: int, size: tuple[int, int], fast: OnnxEngine, tmp_path: Path
) -> None:
    settings = copied(tmp_path).settings  # with the same features: the trunk in float32
    (tmp_path / "decoder.onnx").write_bytes((tmp_path / "decoder.int8.onnx").read_bytes())
    small = load(engine="onnxruntime", precision="float32", **settings)
    (_, one), (_, other) = (stepped(which, count, size) for which in (small, fast))
    for name in ("around", "crops", "looked", "code", "matched"):  # none of which a convolution of the decoder says
        close(getattr(one, name), getattr(other, name))
    assert 1e-4 < np.abs(one.log_odds - other.log_odds).mean() / np.abs(other.log_odds).mean() < 0.1


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_object_is_the_same_to_the_bit_alone_and_among_others(precision: str) -> None:
    """So that threads may share out objects in any way, and none depends on how many there are."""
    of = load(engine="onnxruntime", precision=precision, threads=1)
    assert isinstance(of, OnnxEngine)
    random, count = np.random.default_rng(0), 5
    features = of.features(world.texture(3, 90, 160))
    told, made = around(features.columns.shape[2:], random), objects(of, count, random)
    _, columns, inputs = of.looking(features, told, made)
    lessons = [plane[:, None] for plane in masks(count, (CROP, CROP), random)]
    looked = of._look._whole(*inputs(slice(None)))
    taught = of._learn._whole(columns, looked[4], *lessons)
    for some in (slice(0, 1), slice(2, 3), slice(1, 3), slice(2, 5)):
        alone = of._look._whole(*inputs(some))
        assert all(np.array_equal(one, other[some]) for one, other in zip(alone, looked, strict=True))
        alone = of._learn._whole(columns[some], looked[4][some], *(one[some] for one in lessons))
        assert all(np.array_equal(one, other[some]) for one, other in zip(alone, taught, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_threads_of_the_networks_give_way_and_the_caller_does_not() -> None:
    """Masks that are carried to the newest image must not wait for them."""
    of = load(engine="onnxruntime", threads=2)
    assert isinstance(of, OnnxEngine)
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found = of._look._pool.map(lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), range(4))
    assert set(found) == {max(5, mine)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine


def same(one: Tracker, other: Tracker) -> None:
    for i in (1, 2, 3):
        a, b = one.states[i], other.states[i]
        assert np.array_equal(a.probability, b.probability)
        assert a.known is not None and b.known is not None
        assert np.array_equal(a.known.weights, b.known.weights)
        assert np.array_equal(np.asarray(a.known.carried.hidden), np.asarray(b.known.carried.hidden))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_runs_are_bit_identical_whatever_the_number_of_threads(precision: str) -> None:
    made = [tracker(load(engine="onnxruntime", precision=precision, threads=n), n) for n in (1, 1, 2)]
    masks = [labels(run(one)) for one in made]
    for other, found in zip(made[1:], masks[1:], strict=True):
        same(made[0], other)
        assert all(np.array_equal(a, b) for a, b in zip(masks[0], found, strict=True))


@pytest.fixture
def copies(exact: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to and from the device from now on, as it would on a GPU, where each copy is a wait."""
    seen: list[str] = []
    up, cpu = TorchEngine._up, torch.Tensor.cpu
    monkeypatch.setattr(exact, "_is_far", True)
    monkeypatch.setattr(TorchEngine, "_up", lambda own, array: seen.append("up") or up(own, array))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda value: seen.append("down") or cpu(value))
    return seen


def test_what_a_step_needs_goes_up_in_two_copies_and_comes_down_in_one(
    exact: TorchEngine, copies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_is_far", False)
    expected = stepped(exact, 3, (96, 128))[1]
    monkeypatch.setattr(exact, "_is_far", True)
    features, random = exact.features(world.texture(3, 96, 128)), np.random.default_rng(3)
    given = around(tuple(features.columns.shape[2:]), random), objects(exact, 3, random)
    copies.clear()
    found = exact.step(features, *given)
    assert copies == ["up", "up", "down"]
    for name in engine.STEP_OUTPUTS:
        close(getattr(found, name), getattr(expected, name), atol=1e-5)


def test_copies_of_a_frame_do_not_grow_with_the_objects(exact: TorchEngine, copies: list[str]) -> None:
    """The image up; a step up twice, down once; what a frame says of all that learn from it, where else it
    looks like them, and masks at the full size that end on no edges, up and down once each."""
    counts = []
    for ids in ((1,), (1, 2, 3)):
        found = tracker(exact)
        found.seed(world.seed(0, *ids, shapes=SHAPES), world.frame(0, SHAPES))
        for number in range(1, 5):
            copies.clear()
            found.step(world.frame(number, SHAPES))
            assert all(state.frames_unseen == 0 for state in found.states.values())
            counts.append((copies.count("up"), copies.count("down")))
    assert set(counts) == {(4, 2), (6, 4)}


def test_what_stays_on_the_device_stays_there(exact: TorchEngine) -> None:
    found = tracker(exact)
    run(found, 3)
    for state in found.states.values():
        assert state.known is not None
        memory = state.known.memory
        kept = state.known.carried.hidden, memory.seed_keys.code, memory.newest_keys.code, memory.newest_keys.values
        assert all(isinstance(value, torch.Tensor) for value in kept)
        assert isinstance(state.patch.values, np.ndarray) and isinstance(memory.seed.target, np.ndarray)


def test_the_examples_of_the_engine_run() -> None:
    assert doctest.testmod(onnx_engine).attempted and not doctest.testmod(onnx_engine).failed
