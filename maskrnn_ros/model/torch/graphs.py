# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of the networks: where they lie, and how they are made (``maskrnn export``).

    trunk.onnx           uint8 image (1, h, w, 3), of 16 n x 16 m  -> features of strides 4, 8, 16
    trunk.columns.onnx   those features                          -> what target models are linear in
    decoder.place.onnx   masks of K objects, flow                -> where they are looked for (``frame_step``)
    decoder.onnx         flow, maps, K objects, their crops      -> what the decoder says of them
    decoder.learn.onnx   K crops and their masks                 -> sums and keys of the frame
    decoder.begin.onnx   a frame, K masks                        -> sums and keys of seeds
    prompts.onnx         a view and what is said of an object    -> log-odds, IoU (``prompt_graph``)

Of trunk and decoder there are graphs in int8, too (``trunk.int8.onnx``, ``decoder.int8.onnx``).
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
from maskrnn_ros.model.digests import DIGEST, digest_of, sealed
from maskrnn_ros.model.engine import (
    BEGIN_INPUTS,
    LEARN_INPUTS,
    LOOK_INPUTS,
    LOOK_OUTPUTS,
    PLACE_INPUTS,
    PLACE_OUTPUTS,
    SUMS,
)
from maskrnn_ros.model.files import (
    begin_graph,
    columns_graph,
    learn_graph,
    look_graph,
    network_file,
    place_graph,
    trunk_file,
    trunk_graph,
)
from maskrnn_ros.model.onnx_engine import RIDGE, named
from maskrnn_ros.model.shapes import STRIDES
from maskrnn_ros.model.torch.compiled import AsModule
from maskrnn_ros.model.torch.for_graphs import ProductColumns, fusable
from maskrnn_ros.model.torch.frame_step import Begin, Columns, FrameStep, Learn
from maskrnn_ros.model.torch.graph_samples import (
    SAMPLES,
    begin_inputs,
    learn_inputs,
    look_inputs,
    random_maps,
    sizes,
    step_inputs,
)
from maskrnn_ros.model.torch.graph_step import LookGraph, PlaceGraph
from maskrnn_ros.model.torch.weights import load_step, load_trunk

_OPSET = 17
_LARGE = 256
"""Values of a tensor that is worth a node to be kept in half precision."""


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
    trunks: Sequence[str] = ("shipped",), networks: Sequence[str] = ("shipped",), out: Path | None = None
) -> Iterator[Exported]:
    """Make graphs in float32 and compare each with torch on random inputs.

    Args:
        trunks: Names or paths, see ``files.trunk_file``, any number of them.
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
        yield from _export_trunk(trunk_file(trunk), out)
    for network in networks:
        yield from export_step(network_file(network), out)


def _export_trunk(weights: Path, out: Path | None) -> Iterator[Exported]:
    whole = load_trunk(weights)
    net = whole.net
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    names = [f"stride{stride}" for stride in STRIDES]
    free = {"image": {1: "height", 2: "width"}, **{name: {2: f"rows_{name}", 3: f"columns_{name}"} for name in names}}
    aligned, exact = (_of_rows(function) for function in (net.aligned, net.forward))
    graph = _with_free_sizes(traced(aligned, net, (image,), ["image"], names, {}), free)
    inputs = [(torch.randint(0, 256, (1, 16 * h, 16 * w, 3), dtype=torch.uint8),) for h, w in sizes()]
    yield written(graph, placed(trunk_graph(weights), out), weights, exact, inputs)
    module = Columns(whole)
    free = {name: axes for name, axes in free.items() if name != "image"}
    free["columns"] = {2: "rows_stride4", 3: "columns_stride4"}
    fast = ProductColumns(whole)
    graph = traced(fast.forward, fast, random_maps(2, 3), names, ["columns"], free)
    samples = [random_maps(h, w) for h, w in sizes()]
    yield written(graph, placed(columns_graph(weights), out), weights, module.forward, samples)


def _of_rows(function: Callable[[Tensor], Sequence[Tensor]]) -> Callable[[Tensor], Sequence[Tensor]]:
    """A function of images (N, 3, h, w) as one of images as cameras have them, (N, h, w, 3)."""
    return lambda image: function(image.permute(0, 3, 1, 2))


def export_step(weights: Path, out: Path | None = None) -> Iterator[Exported]:
    """The decoder's graphs, see ``frame_step``."""
    net = load_step(weights)
    step, learn, begin = FrameStep(net), Learn(net), Begin(net)
    whole, cells, each = {2: "rows", 3: "columns"}, {1: "rows", 2: "columns"}, {0: "objects"}
    strides = {name: {2: f"rows_{name}", 3: f"columns_{name}"} for name in ("stride8", "stride16")}
    shared = {name: strides[name] for name in ("stride8", "stride16")}
    shared |= {"flow": whole, "ignored": cells, "beside": cells, "switches": {}}
    samples = [step_inputs(k + 1, *size) for k, size in enumerate(sizes())]

    free = {name: each for name in (*PLACE_INPUTS, *PLACE_OUTPUTS)} | shared | {"others": {**each, **cells}}
    parts = [tuple(sample[name] for name in PLACE_INPUTS) for sample in samples]
    place = PlaceGraph()
    graph = traced(place.forward, place, parts[1], list(PLACE_INPUTS), list(PLACE_OUTPUTS), free)
    yield written(graph, placed(place_graph(weights), out), weights, step.place, parts)

    said = named(LOOK_OUTPUTS)
    free = {name: each for name in (*LOOK_INPUTS, *said)} | shared | {"others": {**each, **cells}}
    parts = [tuple({**sample, **look_inputs(step, sample)}[name] for name in LOOK_INPUTS) for sample in samples]
    look = LookGraph(net)
    graph = fusable(traced(look.forward, look, parts[1], list(LOOK_INPUTS), said, free), each[0])
    known = {RIDGE: repr(float(net.ridge))}
    yield written(graph, placed(look_graph(weights), out), weights, step.look, parts, known)

    free = {name: each for name in (*LEARN_INPUTS, *SUMS)}
    graph = traced(learn.forward, learn, learn_inputs(2), list(LEARN_INPUTS), list(SUMS), free)
    yield written(
        graph, placed(learn_graph(weights), out), weights, learn.forward, [learn_inputs(k + 1) for k in range(SAMPLES)]
    )
    free = {**strides, "columns": whole, "boxes": each, **{name: each for name in SUMS}}
    free |= {name: {0: "objects", **cells} for name in ("share", "others", "known")}
    free = {name: axes for name, axes in free.items() if name in (*BEGIN_INPUTS, *SUMS)}
    graph = traced(begin.forward, begin, begin_inputs(2, 5, 9), list(BEGIN_INPUTS), list(SUMS), free)
    begun = [begin_inputs(k + 1, *size) for k, size in enumerate(sizes())]
    yield written(graph, placed(begin_graph(weights), out), weights, begin.forward, begun)


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
    _halve(model)
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


def _halve(model: Any) -> None:
    """Keep in half precision what is the same in it: weights that were read from such a file (``weights.halve``).

    A runtime makes float32 of it once, when it reads the graph, and runs what it would have run.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LARGE:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            name = f"{tensor.name}.half"
            casts.append(helper.make_node("Cast", [name], [tensor.name], name, to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(half, name))
    for number, cast in enumerate(casts):
        model.graph.node.insert(number, cast)


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
