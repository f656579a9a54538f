# SPDX-License-Identifier: Apache-2.0
"""The engines say the same, and one that cannot be had is either replaced or refused in one line."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world
from engine_bench import CPU, SHAPES, copied, least_overlap, models, overlap, run, tracker

from maskrnn_ros.model import digests, engine, graphs, weights
from maskrnn_ros.model.backbone import CHANNELS, STRIDES
from maskrnn_ros.model.digests import DIGEST, digest_of
from maskrnn_ros.model.engine import OnnxNetwork, OnnxTrunk, adds_8_bit_products, load_models
from maskrnn_ros.model.graphs import NEAREST, encode_graph, step_graph, streams_graph, trunk_graph
from maskrnn_ros.model.network import CODE, CROP, FLOW_CODE, HIDDEN, PLANES
from maskrnn_ros.model.similarity import nearest
from maskrnn_ros.model.weights import DECODER, STREAMS, STREAMS_TRUNK, TRUNK, load_network, load_trunk, save_weights
from maskrnn_ros.tracking import Tracker

onnxruntime = pytest.importorskip("onnxruntime")

WITH_VNNI = pytest.mark.skipif(not adds_8_bit_products(), reason="int8 saturates on this processor: it has no VNNI")


@pytest.fixture(autouse=True)
def exact_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen here does not depend on the machine."""
    monkeypatch.setattr(engine, "adds_8_bit_products", lambda: True)


def of(precision: str) -> tuple[OnnxTrunk, OnnxNetwork]:
    found = models(engine="onnxruntime", precision=precision)
    assert isinstance(found.trunk, OnnxTrunk) and isinstance(found.network, OnnxNetwork)
    return found.trunk, found.network


def picture(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(world.texture(3, height, width)).permute(2, 0, 1).contiguous()


def crops(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    half = CROP // 2
    shapes = (3 + CODE + len(PLANES), CROP, CROP), (FLOW_CODE + 1, CROP, CROP), (HIDDEN, half, half)
    seen, moved, hidden = (torch.rand(count, *shape, generator=generator) * 2 - 1 for shape in shapes)
    return seen, moved, hidden


# --- the graphs that ship ---


@pytest.mark.parametrize(
    ("graph", "source"),
    [
        (trunk_graph(TRUNK), TRUNK),
        (trunk_graph(TRUNK, "int8"), TRUNK),
        (trunk_graph(STREAMS_TRUNK), STREAMS_TRUNK),
        (trunk_graph(STREAMS_TRUNK, "int8"), STREAMS_TRUNK),
        (encode_graph(STREAMS), STREAMS),
        (streams_graph(STREAMS), STREAMS),
        (streams_graph(STREAMS, "int8"), STREAMS),
        (step_graph(DECODER), DECODER),
    ],
    ids=lambda path: path.name,
)
def test_a_shipped_graph_was_made_from_the_shipped_weights(graph: Path, source: Path) -> None:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[DIGEST] == digest_of(source)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (90, 160), (31, 47), (16, 16), (1, 1)])
def test_features_are_those_of_torch_to_the_rounding_of_float16(size: tuple[int, int]) -> None:
    image = picture(*size)
    for one, other in zip(
        of("float32")[0].features(image).maps, load_trunk("streams").features(image).maps, strict=True
    ):
        assert one.dtype == other.dtype == torch.float16
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (45, 80)])
def test_the_code_of_a_frame_is_that_of_torch(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    maps = [torch.randn(1, c, *cells, generator=generator) for c, cells in zip(CHANNELS, sizes, strict=True)]
    magnitudes = torch.rand(1, 2, *sizes[0], generator=generator) * 30
    one, other = (net.encode(picture(*size)[None], maps, magnitudes) for net in (of("float32")[1], load_network()))
    for name in ("image", "code", "flow"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_streams_are_those_of_torch(count: int) -> None:
    seen, moved, hidden = crops(count)
    for state in (hidden, None):
        one, other = (net.streams(seen, moved, state) for net in (of("float32")[1], load_network()))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@WITH_VNNI
def test_int8_is_close_in_the_mean_and_is_not_float32() -> None:
    trunk, network = of("int8")
    image = picture(288, 512)
    for one, other in zip(trunk.features(image).maps, load_trunk("streams").features(image).maps, strict=True):
        share = float((one.float() - other.float()).abs().mean() / other.float().abs().mean())
        assert 1e-3 < share < 0.2
    seen, moved, hidden = crops(3)
    for one, other in zip(
        network.streams(seen, moved, hidden), load_network().streams(seen, moved, hidden), strict=True
    ):
        assert 1e-4 < float((one - other).abs().mean() / other.abs().mean()) < 0.2


@pytest.mark.parametrize("reach", [63, 1], ids=["all values", "many equal products"])
@pytest.mark.parametrize(("n", "m"), [(40, 90), (7, 5), (1, 1)])
def test_the_most_similar_are_those_of_torch_exactly(reach: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(reach)
    channels = 152 if reach > 1 else 3
    queries, keys = (
        torch.randint(-reach, reach + 1, (channels, k), dtype=torch.int8, generator=generator) for k in (n, m)
    )
    best, where = of("float32")[0].nearest(queries, keys, 10)
    expected, _ = nearest(queries, keys, 10)
    assert NEAREST.is_file() and best.shape == where.shape == (n, min(10, m))
    assert torch.equal(best.sort(dim=1).values, expected.sort(dim=1).values)
    assert torch.equal((queries.float().T @ keys.float()).gather(1, where), best)
    assert all(len(set(row)) == len(row) for row in where.tolist())


# --- which one is taken ---


def test_auto_takes_int8_in_onnxruntime_on_a_cpu_that_can() -> None:
    found = models()
    assert found.engine == "onnxruntime" and isinstance(found.trunk, OnnxTrunk)
    assert found.trunk.precision == found.precision == "int8"


def test_auto_takes_float32_where_the_processor_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "adds_8_bit_products", lambda: False)
    found = models().trunk
    assert isinstance(found, OnnxTrunk) and found.precision == "float32"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "avx2 avx512_vnni", True), ("x86_64", "avx2 avx512f", False), ("aarch64", "", True)],
)
def test_vnni_is_asked_of_x86_only(monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}\n")
    assert engine.adds_8_bit_products() is expected


def refused(**changes: Any) -> str:
    with pytest.raises(RuntimeError) as error:
        models(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_onnxruntime_auto_is_torch_and_its_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert models().engine == "torch"
    assert "onnxruntime" in refused(engine="onnxruntime")
    assert "onnxruntime" in refused(precision="int8")


def test_without_graphs_auto_is_torch_and_onnxruntime_is_refused(tmp_path: Path) -> None:
    own = copied(tmp_path, graphs="none").settings
    assert models(**own).engine == "torch"
    assert "trunk.onnx cannot be read" in refused(engine="onnxruntime", **own)
    assert "trunk.int8.onnx cannot be read" in refused(precision="int8", **own)


@pytest.mark.parametrize("which", ["trunk", "network"])
def test_graphs_of_other_weights_are_not_taken(tmp_path: Path, which: str) -> None:
    own = copied(tmp_path)
    module: Any = load_trunk() if which == "trunk" else load_network()
    next(module.parameters()).data.mul_(1.001)
    save_weights(module, getattr(own, which))
    assert models(**own.settings).engine == "torch"
    said = refused(engine="onnxruntime", **own.settings)
    assert str(getattr(own, which)) in said and "maskrnn export" in said


def test_an_int8_graph_that_was_left_behind_leaves_float32(tmp_path: Path) -> None:
    own = copied(tmp_path)
    (tmp_path / "trunk.int8.onnx").write_bytes((tmp_path / "nearest.onnx").read_bytes())
    for name in ("auto", "onnxruntime"):
        found = models(engine=name, **own.settings)
        assert isinstance(found.trunk, OnnxTrunk) and found.trunk.precision == found.precision == "float32"
    assert "trunk.int8.onnx was not made from" in refused(precision="int8", **own.settings)


@pytest.mark.parametrize("damage", ["cut", "bit", "nothing", "pipe"])
@pytest.mark.parametrize("name", ["trunk.int8.onnx", "fast.streams.int8.onnx", "trunk.onnx"])
def test_a_torn_graph_is_an_error_and_with_auto_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    own = copied(tmp_path)
    file, precision = tmp_path / name, "int8" if "int8" in name else "float32"
    torn(file, damage)
    said = refused(engine="onnxruntime", precision=precision, **own.settings)
    assert name in said and ("regular file, found a pipe" if damage == "pipe" else "damaged") in said
    if precision == "int8" and damage != "pipe":
        assert refused(engine="onnxruntime", **own.settings) == said  # it would have been taken
    caplog.clear()
    found = models(precision="auto" if precision == "int8" else precision, **own.settings)
    assert (found.engine, found.precision) == ("onnxruntime" if precision == "int8" else "torch", "float32")
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("maskrnn_ros")]
    assert name in line


def torn(file: Path, damage: str) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes({"cut": data[: len(data) // 2], "bit": data, "nothing": b""}[damage])


@pytest.mark.parametrize("name", ["trunk.safetensors", "fast.safetensors", "trunk.onnx", "nearest.onnx"])
def test_what_ships_is_verified_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for file in TRUNK.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for module in (digests, weights, graphs):
        monkeypatch.setattr(module, "FOLDER", tmp_path, raising=False)
    monkeypatch.setattr(digests, "SUMS", tmp_path / "SHA256SUMS")
    own = {"trunk__weights": str(tmp_path / TRUNK.name), "network__weights": str(tmp_path / STREAMS.name)}
    monkeypatch.setattr(engine, "NEAREST", tmp_path / NEAREST.name)
    assert models(engine="onnxruntime", precision="float32", **own).engine == "onnxruntime"
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / name).write_bytes(data)
    said = refused(engine="onnxruntime", precision="float32", **own)
    assert f"{name} is damaged: expected SHA-256" in said


def test_all_that_ships_is_listed_as_it_is(tmp_path: Path) -> None:
    listed = digests.SUMS.read_text().splitlines()
    for file in (*TRUNK.parent.glob("*.safetensors"), *TRUNK.parent.glob("*.onnx")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert digests.write_digests(tmp_path) == listed, "run: maskrnn weights digests"


def test_weights_of_ones_own_are_verified_and_finite(tmp_path: Path) -> None:
    own = copied(tmp_path)
    network = load_network()
    save_weights(network, own.network, {"made": "here"})
    assert models(engine="torch", **own.settings).network is not None
    data = bytearray(own.network.read_bytes())
    data[-200_000:] = bytes(200_000)
    own.network.write_bytes(data)
    assert "are damaged: their tensors are not those that were saved" in refused(engine="torch", **own.settings)
    for value in (float("nan"), float("inf")):
        next(network.parameters()).data.view(-1)[0] = value
        save_weights(network, own.network)
        assert "1 tensors hold NaN or infinite values, the first is" in refused(engine="torch", **own.settings)
    own.network.unlink()
    os.mkfifo(own.network)
    assert "cannot be read: " in refused(engine="torch", **own.settings)


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    (tmp_path / "net.safetensors").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        save_weights(load_network(), tmp_path / "net.safetensors")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("net.safetensors", b"old")]


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    own = copied(tmp_path)
    own.trunk.with_suffix(".onnx").write_bytes(b"no graph")
    assert "trunk.onnx is damaged" in refused(engine="onnxruntime", precision="float32", **own.settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "torch", "precision": "int8"}, "precision int8 needs engine onnxruntime"),
        ({"compile": "default", "precision": "int8"}, "precision int8 needs engine onnxruntime"),
        ({"engine": "onnxruntime", "precision": "float16"}, "precision float16 needs engine torch"),
        ({"engine": "onnxruntime", "compile": "default"}, "compile default needs engine torch"),
    ],
)
def test_what_an_engine_does_not_know_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(**changes)


def test_without_anything_that_needs_features_nothing_is_loaded() -> None:
    found = load_models(world.WARP_ONLY, CPU)
    assert found.trunk is None and found.network is None


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], 3),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], 2),
        (["AzureExecutionProvider", "CPUExecutionProvider"], 1),
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
    engine._Runtime(torch.device("cuda:1"), 1).session(NEAREST)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"][-taken:]
    assert [name for name, _ in asked[0]] == names
    assert all(options == ({} if name.startswith("CPU") else {"device_id": "1"}) for name, options in asked[0])
    engine._Runtime(CPU, 1).session(NEAREST)
    assert asked[1] == [("CPUExecutionProvider", {})]


# --- behind a tracker ---


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99), pytest.param("int8", 0.85, marks=WITH_VNNI)])
def test_a_clip_is_tracked_alike_on_both_engines_with_adapted_heads(precision: str, least: float) -> None:
    exact, fast = tracker(models(engine="torch")), tracker(models(engine="onnxruntime", precision=precision))
    one, other = run(exact), run(fast)
    assert all(state.head is not None for t in (exact, fast) for state in t.states.values())
    assert least_overlap(one, other) > least
    for i in (1, 2, 3):
        assert overlap(other[-1].labels == i, world.labels(5, SHAPES) == i) > 0.55


def same(one: Tracker, other: Tracker, ids: tuple[int, ...] = (1, 2, 3)) -> None:
    for i in ids:
        a, b = one.states[i], other.states[i]
        assert torch.equal(a.probability, b.probability)
        assert a.hidden is not None and b.hidden is not None and torch.equal(a.hidden.state, b.hidden.state)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_runs_are_bit_identical_whatever_the_number_of_threads(precision: str) -> None:
    made = []
    for threads in (1, 1, 2):
        found = models(engine="onnxruntime", precision=precision, threads=threads)
        assert found.threads == threads
        made.append((found, tracker(found)))
    masks = [[tracks.labels for tracks in run(one)] for _, one in made]
    for (_, one), labels in zip(made[1:], masks[1:], strict=True):
        same(made[0][1], one)
        assert all(np.array_equal(a, b) for a, b in zip(masks[0], labels, strict=True))


def test_an_instance_that_comes_or_goes_leaves_the_others_bit_identical() -> None:
    found = models(engine="onnxruntime", threads=2)
    whole, less, more = (tracker(found) for _ in range(3))
    for one, ids in ((whole, (1, 2, 3)), (less, (1, 2, 3)), (more, (1, 2))):
        one.seed(world.seed(0, *ids, shapes=SHAPES), world.frame(0, SHAPES))
    for number in range(1, 7):
        picture = world.frame(number, SHAPES)
        for one in (whole, less):
            one.step(picture)
        if number == 2:
            less.remove([3])
        if number == 3:
            more.seed(world.seed(3, 3, shapes=SHAPES), picture)
        else:
            more.step(picture)
    assert set(less.states) == {1, 2} and set(more.states) == {1, 2, 3}
    # seeds know of each other: what is beside them is background; hence `more` is compared with one that never had 3
    same(whole, less, (1, 2))
    pair = tracker(found)
    pair.seed(world.seed(0, 1, 2, shapes=SHAPES), world.frame(0, SHAPES))
    for number in range(1, 7):
        pair.step(world.frame(number, SHAPES))
    same(pair, more, (1, 2))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_thread_beside_the_stream_gets_a_trunk_that_says_the_same(precision: str) -> None:
    trunk, image = of(precision)[0], picture(90, 160)
    for one, other in zip(trunk.aside().features(image).maps, trunk.features(image).maps, strict=True):
        assert torch.equal(one, other)
