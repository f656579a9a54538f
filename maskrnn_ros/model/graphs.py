# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of the networks: where they lie, and how they are made (``maskrnn export``).

    trunk.onnx          uint8 image, sides multiples of 16      -> features of strides 4, 8, 16
    prompts.onnx        a view and what is said of an object     -> log-odds, IoU (``prompt_graph``)
    decoder.onnx        crops of K objects, their target models  -> log-odds, box deltas, presence, hidden states
    fast.encode.onnx    features, two magnitudes of the flow     -> code and flow code of the frame
    fast.streams.onnx   K crops, hidden states                   -> log-odds, hidden states
    nearest.onnx        descriptors                              -> the most similar ones (``similarity``)

Of the trunk and of the streams there are graphs in int8, too (``trunk.int8.onnx``, ``fast.streams.int8.onnx``).
Sizes and K are free. A graph knows the weights that it was made from by their digest, so that one that was left behind
by an older file is not taken. TensorRT and other runtimes read the same files.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maskrnn_ros.disk import write_bytes
from maskrnn_ros.model.backbone import CHANNELS, STRIDES
from maskrnn_ros.model.compiled import AsModule
from maskrnn_ros.model.digests import DIGEST, digest_of, sealed
from maskrnn_ros.model.network import CODE, CROP, FLOW_CODE, HIDDEN, PLANES
from maskrnn_ros.model.similarity import nearest
from maskrnn_ros.model.step import CODES, COLUMNS, KEYS, TARGET, Keys, Seen, StepNet
from maskrnn_ros.model.step import CROP as OBJECT_CELLS
from maskrnn_ros.model.step import HIDDEN as STATE
from maskrnn_ros.model.trunk import net_of
from maskrnn_ros.model.weights import (
    LITE0,
    NETWORKS,
    is_step,
    load_network,
    load_step,
    load_trunk,
    network_file,
    trunk_file,
)

NEAREST = LITE0.with_name("nearest.onnx")
"""The graph that compares descriptors; it has no weights."""

_OPSET = 17
_SAMPLES = 4
"""Random inputs, of several sizes, on which a graph is compared with torch."""


def trunk_graph(weights: Path, precision: str = "float32") -> Path:
    """Where the trunk's graph lies, beside its weights."""
    return weights.with_suffix(".int8.onnx" if precision == "int8" else ".onnx")


def encode_graph(weights: Path) -> Path:
    """Where the graph of what objects share lies, beside the network's weights."""
    return weights.with_suffix(".encode.onnx")


def streams_graph(weights: Path, precision: str = "float32") -> Path:
    """Likewise, of the streams."""
    return weights.with_suffix(".streams.int8.onnx" if precision == "int8" else ".streams.onnx")


def step_graph(weights: Path) -> Path:
    """Likewise, of the decoder."""
    return weights.with_suffix(".onnx")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A graph that was written.

    Args:
        file: Where.
        size: Of the file, bytes.
        difference: Largest absolute difference of its outputs from what it was compared with: a graph in float32 with
            torch on random inputs, one in int8 with that in float32 on frames.
        scale: Largest absolute value of that.
        share: Mean absolute difference over mean absolute value, of the output where it is largest.
    """

    file: Path
    size: int
    difference: float
    scale: float
    share: float


def export(
    trunks: Sequence[str] = ("shipped", "streams"), networks: Sequence[str] = tuple(NETWORKS), out: Path | None = None
) -> Iterator[Exported]:
    """Make graphs in float32 and compare each with torch on random inputs.

    Args:
        trunks: Names or paths, see ``weights.trunk_file``, any number of them.
        networks: What ``network.weights`` names, likewise.
        out: Folder for the graphs, made if it is not there; None: beside the weights, where the tracker looks for them.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        RuntimeError: Weights cannot be read.
        OSError: A file cannot be written.
    """
    needs("onnx", "onnxruntime")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for trunk in trunks:
        yield from _export_trunk(trunk, out)
    for network in networks:
        yield from _export_network(network, out)
    if out is not None or "shipped" in trunks:  # it has no weights: other people's folders need none of their own
        yield _export_nearest(out)


def _export_trunk(setting: str, out: Path | None) -> Iterator[Exported]:
    weights = trunk_file(setting)
    net = net_of(load_trunk(setting))
    image = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    names = [f"stride{stride}" for stride in STRIDES]
    free = {"image": {2: "height", 3: "width"}, **{name: {2: f"rows_{name}", 3: f"columns_{name}"} for name in names}}
    graph = _with_free_sizes(traced(net.aligned, net, (image,), ["image"], names, {}), free)
    inputs = [(torch.randint(0, 256, (1, 3, 16 * h, 16 * w), dtype=torch.uint8),) for h, w in _sizes()]
    yield written(graph, placed(trunk_graph(weights), out), weights, net.forward, inputs)


def _export_network(setting: str, out: Path | None) -> Iterator[Exported]:
    weights = network_file(setting)
    if is_step(weights):
        yield export_step(weights, out)
        return
    net = load_network(weights)
    names = [f"stride{stride}" for stride in STRIDES]
    free = {name: {2: f"rows_{name}", 3: f"columns_{name}"} for name in names}
    free |= {name: {2: "rows_stride4", 3: "columns_stride4"} for name in ("magnitudes", "code", "flow_code")}
    graph = traced(net.encoded, net, _features(2, 3), [*names, "magnitudes"], ["code", "flow_code"], free)
    inputs = [_features(h, w) for h, w in _sizes()]
    yield written(graph, placed(encode_graph(weights), out), weights, net.encoded, inputs)
    each = ["seen", "moved", "hidden"], ["added", "state"]
    graph = traced(net.streamed, net, _crops(1), *each, {name: {0: "objects"} for name in (*each[0], *each[1])})
    yield written(
        graph, placed(streams_graph(weights), out), weights, net.streamed, [_crops(k + 1) for k in range(_SAMPLES)]
    )


def export_step(weights: Path, out: Path | None = None) -> Exported:
    """The decoder's graph: crops of K objects and coefficients in, see ``step.Seen`` and ``step.Output``."""
    net = load_step(weights)
    module = StepGraph(net)
    names = [*SEEN, "coefficients", "seed_code", "seed_values", "newest_code", "newest_values"]
    results = ["log_odds", "deltas", "presence", "hidden_out", "code", "matched"]
    free = {name: {0: "objects"} for name in (*names, *results)}
    graph = traced(module.forward, module, _seen(2), names, results, free)
    samples = [_seen(k + 1) for k in range(_SAMPLES)]
    return written(graph, placed(step_graph(weights), out), weights, module.forward, samples)


SEEN = tuple(field.name for field in dataclasses.fields(Seen))
"""First inputs of the decoder's graph, in order; coefficients and keys follow."""


class StepGraph(nn.Module):
    """``StepNet.look`` on plain tensors."""

    def __init__(self, net: StepNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs in the order of ``SEEN``, then coefficients, keys of the seed, keys of the newest frame."""
        seen, rest = inputs[: len(SEEN)], inputs[len(SEEN) :]
        found = self.net.look(Seen(*seen), rest[0], Keys(*rest[1:3]), Keys(*rest[3:]))
        return found.log_odds, found.deltas, found.presence, found.hidden, found.code, found.matched


def _seen(count: int) -> tuple[Tensor, ...]:
    half, quarter = OBJECT_CELLS // 2, OBJECT_CELLS // 4
    return (
        torch.rand(count, 3, 2 * OBJECT_CELLS, 2 * OBJECT_CELLS) * 2 - 1,
        torch.rand(count, COLUMNS, OBJECT_CELLS, OBJECT_CELLS),
        torch.randn(count, CHANNELS[1], half, half),
        torch.randn(count, CHANNELS[2], quarter, quarter),
        torch.rand(count, 1, OBJECT_CELLS, OBJECT_CELLS),
        torch.rand(count, 1, OBJECT_CELLS, OBJECT_CELLS),
        torch.randn(count, 2, half, half) * 3,
        torch.rand(count, STATE, half, half) * 2 - 1,
        torch.randn(count, COLUMNS + 1, TARGET) * 0.1,
        *(
            part
            for _ in range(2)
            for part in (torch.randn(count, CODES, KEYS) * CODES**-0.5, torch.rand(count, 2, KEYS))
        ),
    )


def _keys(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, CODES, KEYS) * CODES**-0.5, torch.rand(count, 2, KEYS)


def _export_nearest(out: Path | None) -> Exported:
    """Integers are multiplied: with those of 7 bits no processor's 16-bit sums of two products overflow."""
    from onnx import TensorProto, helper

    def value(name: str, kind: int, shape: Sequence[str | int]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    shift = helper.make_tensor("shift", TensorProto.UINT8, [], [128])
    nodes = [
        # int8 to uint8 about 128: the kernels of x86 processors multiply unsigned with signed
        helper.make_node("Cast", ["queries"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Add", ["wide", "shift32"], ["shifted"]),
        helper.make_node("Cast", ["shifted"], ["unsigned"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["unsigned"], ["rows"], perm=[1, 0]),
        helper.make_node("MatMulInteger", ["rows", "keys", "shift"], ["whole"]),
        helper.make_node("TopK", ["whole", "count"], ["largest", "where"], axis=1, largest=1, sorted=0),
        helper.make_node("Cast", ["largest"], ["best"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest",
        [
            value("queries", TensorProto.INT8, ["channels", "n"]),
            value("keys", TensorProto.INT8, ["channels", "m"]),
            value("count", TensorProto.INT64, [1]),
        ],
        [value("best", TensorProto.FLOAT, ["n", "k"]), value("where", TensorProto.INT64, ["n", "k"])],
        [shift, helper.make_tensor("shift32", TensorProto.INT32, [], [128])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    file = placed(NEAREST, out)
    write_graph(file, model)

    def sample(n: int, m: int) -> tuple[dict[str, npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        queries, keys = (torch.randint(-63, 64, (152, count), dtype=torch.int8) for count in (n, m))
        best = nearest(queries, keys, 10)[0].sort(dim=1).values
        return {"queries": queries.numpy(), "keys": keys.numpy(), "count": np.array([10])}, [best.numpy()]

    # the largest products, in any order
    return compare(file, (sample(40 + k, 90 * (k + 1)) for k in range(_SAMPLES)), lambda found: [np.sort(found[0])])


def _with_constants(graph: bytes) -> bytes:
    """A graph of a fixed size, all that does not depend on its inputs computed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/graph.onnx"
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return Path(folder, "graph.onnx").read_bytes()


def _with_free_sizes(graph: bytes, free: dict[str, dict[int, str]]) -> bytes:
    """A graph that was traced for one size, for all multiples of 16: there the paddings are the same.

    They become those of the convolutions. As operations of their own, with sizes that are computed, they would cut the
    graph in int8 to pieces in float32: a tenth of its time.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(_with_constants(graph))
    nodes = model.graph.node
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    paddings = {n.output[0]: n for n in nodes if n.op_type == "Pad"}
    for node in nodes:
        padding = paddings.get(node.input[0]) if node.op_type == "Conv" else None
        if padding is not None:
            _, _, top, left, _, _, bottom, right = constants[padding.input[1]].tolist()
            attribute = next(a for a in node.attribute if a.name == "pads")
            attribute.ints[:] = [top, left, bottom, right]
            node.input[0] = padding.input[0]
    for padding in paddings.values():
        nodes.remove(padding)
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == padding.input[1]))
    del model.graph.value_info[:]
    del model.opset_import[1:]  # of other domains, which it has nothing of
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in free[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return bytes(model.SerializeToString())


def traced(
    function: Callable[..., Sequence[Tensor]],
    owner: nn.Module,
    inputs: tuple[Tensor, ...],
    names: list[str],
    outputs: list[str],
    free: dict[str, dict[int, str]],
) -> bytes:
    """The graph of a function of a module, serialized; ``free`` names axes of inputs and outputs by their number."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of sizes that it takes for constants; the comparison decides
        torch.onnx.export(
            AsModule(owner, function).eval(),
            inputs,
            f"{folder}/graph.onnx",
            dynamo=False,  # torch's other exporter takes two minutes for the same graph
            input_names=names,
            output_names=outputs,
            dynamic_axes=free,
            opset_version=_OPSET,
        )
        return Path(folder, "graph.onnx").read_bytes()


@torch.no_grad()
def written(
    graph: bytes,
    file: Path,
    weights: Path,
    function: Callable[..., Sequence[Tensor]],
    samples: Sequence[tuple[Tensor, ...]],
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a graph of weights and compare it with the function that it was made of.

    Args:
        graph: Serialized.
        file: Where it goes.
        weights: File that it was made from.
        function: On plain tensors.
        samples: Its inputs.
        metadata: What the graph says beside the digest of its weights.
    """
    import onnx

    model = onnx.load_from_string(graph)
    for key, value in {DIGEST: digest_of(weights), **(metadata or {})}.items():
        model.metadata_props.add(key=key, value=value)
    write_graph(file, model)
    names = [value.name for value in model.graph.input]
    return compare(
        file,
        (
            (
                {name: value.numpy() for name, value in zip(names, inputs, strict=True)},
                [value.numpy() for value in function(*inputs)],
            )
            for inputs in samples
        ),
    )


def compare(
    file: Path,
    samples: Iterable[tuple[Mapping[str, npt.NDArray[Any]], Sequence[npt.NDArray[Any]]]],
    taken: Callable[[list[npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]] = lambda outputs: outputs,
) -> Exported:
    """Run a graph and measure how far it is from what it should say.

    Args:
        file: The graph.
        samples: Inputs by name, and the outputs that are expected.
        taken: What of its outputs is compared.
    """
    session = read_session(file)
    difference = scale = 0.0
    sums: list[npt.NDArray[np.float64]] = []
    for feed, expected in samples:
        found = taken(session.run(None, dict(feed)))
        apart = [np.abs(one - other) for one, other in zip(found, expected, strict=True)]
        difference = max(difference, *(float(one.max()) for one in apart))
        scale = max(scale, *(float(np.abs(other).max()) for other in expected))
        sums.append(np.array([[one.sum(), np.abs(other).sum()] for one, other in zip(apart, expected, strict=True)]))
    off, whole = np.sum(sums, axis=0).T
    return Exported(file, file.stat().st_size, difference, scale, float((off / whole).max()))


def read_session(file: Path) -> Any:
    """A graph, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def write_graph(file: Path, model: Any) -> None:
    """Write a model of the package onnx with a digest of itself, as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    write_bytes(file, sealed(model.SerializeToString(deterministic=True)))


def placed(file: Path, out: Path | None) -> Path:
    """Where a file goes that belongs beside its weights, or into a folder."""
    return file if out is None else out / file.name


def _sizes() -> list[tuple[int, int]]:
    """Of working images, in cells of stride 16."""
    return [(5 + 2 * k, 9 + 3 * k) for k in range(_SAMPLES)]


def _features(h: int, w: int) -> tuple[Tensor, ...]:
    """What a frame's objects share is made of, of an image that ends within cells of strides 16 and 8."""
    sizes = [(16 // stride * h - (stride == 4), 16 // stride * w - (stride == 4)) for stride in STRIDES]
    maps = [torch.randn(1, channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True)]
    return (*maps, torch.rand(1, 2, *sizes[0]) * 20)


def _crops(count: int) -> tuple[Tensor, ...]:
    half = CROP // 2
    return (
        torch.randn(count, 3 + CODE + len(PLANES), CROP, CROP),
        torch.randn(count, FLOW_CODE + 1, CROP, CROP),
        torch.rand(count, HIDDEN, half, half) * 2 - 1,
    )


def needs(*packages: str) -> None:
    """Refuse in one line what cannot be done without a package.

    Raises:
        ImportError: One is not installed.
    """
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise ImportError(f"making graphs needs the Python package {package}: pip install {package}") from error
