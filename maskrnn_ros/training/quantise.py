# SPDX-License-Identifier: Apache-2.0
"""Graphs in int8 (``maskrnn export --calibrate``): static quantisation by ONNX Runtime, calibrated on clips.

    trunk     48 frames, chosen at random from all clips, 512 x 288, go through it while the range of every activation
              is noted. Weights have 8 bits: with 7, with which the sum of two products fits into 16 bits on processors
              without VNNI, the features are off by twice as much, and held out clips lose 0.005 J&F.
    decoder   48 steps while the clips' first frames are tracked, with that trunk. Only convolutions are in int8, and of
              these not what ``_EXACT`` names.

What int8 changes is measured on 8 more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.datasets.clips import FileClip, frame_of
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.digests import DIGEST
from maskrnn_ros.model.engine import LOOK_INPUTS, LOOK_OUTPUTS, Around, Features, Looked, Objects
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
from maskrnn_ros.model.onnx_engine import RIDGE, OnnxEngine
from maskrnn_ros.model.torch.graphs import Exported, compare, needs, placed, read_session, write_graph
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Seed

Feed: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Inputs of a graph, by name."""

_SIZE = (512, 288)
"""Width and height of the frames, both multiples of 16."""

_FRAMES, _CHECKED = 48, 8

_LENGTH = 12
"""Steps of a clip that are taken into account at most."""

_EXACT = ("code4", "code8", "code16", "motion.0", "motion.2", "up8", "up4", "pixels", "coarse")
"""Convolutions of the decoder that stay in float32: they look at the image, at features and at flow, whose values reach
far, or say the answer; all are small."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What int8 is calibrated on.

    Args:
        root: Data set in the layout of DAVIS, with masks.
        held_out: Its clips that are left out.
        seed: Of the choice of frames; the same one gives the same graph.
    """

    root: Path
    held_out: tuple[str, ...] = ()
    seed: int = 0


def quantise(
    calibration: Calibration,
    trunks: Sequence[str] = ("shipped",),
    networks: Sequence[str] = (),
    out: Path | None = None,
) -> Iterator[Exported]:
    """Make the graphs in int8 from those in float32 that ``graphs.export`` made, and compare the two.

    Args:
        calibration: Data.
        trunks: Names or paths, see ``files.trunk_file``.
        networks: What ``network.weights`` names, each with the trunk in the same place.
        out: Folder of the graphs; None: beside the weights.

    Raises:
        ImportError: onnx, onnxruntime or sympy is not installed.
        RuntimeError: A graph or weights cannot be read.
        ValueError: The data set has no such clips.
        OSError: A file cannot be written.
    """
    needs("onnx", "onnxruntime", "sympy")
    clips = _clips(calibration)
    feeds = _images(clips, calibration.seed)
    for trunk in trunks:
        weights = trunk_file(trunk)
        source, file = placed(trunk_graph(weights), out), placed(trunk_graph(weights, "int8"), out)
        _write(source, file, feeds[:-_CHECKED])
        exact = read_session(source)
        yield compare(file, ((feed, exact.run(None, feed)) for feed in feeds[-_CHECKED:]))
    for trunk, network in zip(trunks, networks, strict=False):
        yield _quantise_step(clips, calibration.seed, trunk_file(trunk), network_file(network), out)


def _quantise_step(clips: Sequence[FileClip], seed: int, trunk: Path, network: Path, out: Path | None) -> Exported:
    source, file = placed(look_graph(network), out), placed(look_graph(network, "int8"), out)
    feeds = _steps(clips, seed, trunk, network, out)
    _write(source, file, feeds[:-_CHECKED], _decoder_convolutions(source))
    exact, place = read_session(source), LOOK_OUTPUTS.index("log_odds")
    samples = ((feed, [exact.run(None, feed)[place]]) for feed in feeds[-_CHECKED:])
    return compare(file, samples, lambda outputs: [outputs[place]])


def _decoder_convolutions(source: Path) -> list[str]:
    """Names of those that are put in int8, and of the rectifiers behind them: these are a matter of the range then."""
    import onnx

    nodes = onnx.load(str(source)).graph.node
    exact = tuple(f"/{part}/Conv" for part in _EXACT)
    convolutions = [
        node
        for node in nodes
        if node.op_type == "Conv" and node.name.startswith("/decoder/") and not node.name.endswith(exact)
    ]
    found = {output for node in convolutions for output in node.output}
    rectifiers = [node for node in nodes if node.op_type == "Relu" and node.input[0] in found]
    return [node.name for node in (*convolutions, *rectifiers)]


def _write(source: Path, file: Path, feeds: Sequence[Feed], nodes: Sequence[str] = ()) -> None:
    """Make a graph; of all nodes, or of those that are named."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, made = f"{folder}/prepared.onnx", f"{folder}/made.onnx"
        quant_pre_process(str(source), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            _Reader(feeds),
            quant_format=QuantFormat.QOperator,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=list(nodes),
            op_types_to_quantize=["Conv", "Relu"]
            if nodes
            else None,  # of boxes, which may be NaN, no range is asked for
        )
        model = onnx.load(made)
    if not nodes:  # a trunk
        _take_bytes(model)
    del model.metadata_props[:]
    made_from = [entry for entry in onnx.load(str(source)).metadata_props if entry.key in (DIGEST, RIDGE)]
    model.metadata_props.extend(made_from)
    write_graph(file, model)


def _take_bytes(model: Any) -> None:
    """Let a trunk take its image as it is.

    What the trunk makes of a pixel, (value - 127) / 128, is in 8 bits the value again, with that scale and that zero: a
    copy to float32 and back of every image less.
    """
    from onnx import numpy_helper

    graph, known = model.graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    chain = [node for node in graph.node if node.op_type in ("Cast", "Sub", "Div", "QuantizeLinear")][:4]
    if [node.op_type for node in chain] != ["Cast", "Sub", "Div", "QuantizeLinear"]:
        return
    scale, zero = (known[name].item() for name in chain[3].input[1:])
    if all(one.output[0] == other.input[0] for one, other in pairwise(chain)) and (scale, zero) == (1 / 128, 127):
        taken, given = chain[3].output[0], chain[0].input[0]
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == taken:
                    node.input[place] = given
        for node in chain:
            graph.node.remove(node)
        used = {name for node in graph.node for name in node.input}
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
            graph.initializer.remove(tensor)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its warnings, one for every integer that is left as it is."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Reader:
    """Onnxruntime's CalibrationDataReader; it takes whatever has this method."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._rest = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next inputs; None at the end."""
        return next(self._rest, None)


def _clips(calibration: Calibration) -> list[FileClip]:
    """The clips to calibrate on."""
    clips = find_clips(calibration.root)
    unknown = sorted(set(calibration.held_out) - {clip.name for clip in clips})
    if unknown:
        raise ValueError(f"held out clips must be in {calibration.root}, found no {unknown[0]!r}")
    kept = [clip for clip in clips if clip.name not in calibration.held_out]
    if not kept:
        raise ValueError(f"expected clips to calibrate on in {calibration.root}, all are held out")
    return kept


def _images(clips: Sequence[FileClip], seed: int) -> list[Feed]:
    frames = [(clip, number) for clip in clips for number in range(len(clip))]
    random.Random(seed).shuffle(frames)
    wanted = frames[: _FRAMES + _CHECKED]
    if len(wanted) <= _CHECKED:
        raise ValueError(f"expected more than {_CHECKED} frames to calibrate on, found {len(wanted)}")
    return [{"image": _resized(clip.image(number))[None]} for clip, number in wanted]


def _resized(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, _SIZE), np.uint8)


def _steps(clips: Sequence[FileClip], seed: int, trunk: Path, network: Path, out: Path | None) -> list[Feed]:
    """Inputs of steps while clips are tracked from their first frames, in random order."""
    lengths = [min(len(clip) - 1, _LENGTH) for clip in clips]
    every = max(1, sum(lengths) // (_FRAMES + _CHECKED))
    config = with_values(Config(), threads=1, device="cpu", rest__enabled=False)
    with tempfile.TemporaryDirectory() as folder:
        engine = _Recording(every, *_together(Path(folder), trunk, network, out))
        for clip, length in zip(clips, lengths, strict=True):
            tracker = Tracker(config, build_flow(config.flow, "cpu"), engine, threads=1)
            first = frame_of(clip, 0)
            tracker.seed(Seed(stamp_ns=first.stamp_ns, labels=clip.seed(0)), first)
            for number in range(1, length + 1):
                tracker.step(frame_of(clip, number))
    if len(engine.feeds) <= _CHECKED:
        raise ValueError(f"expected more than {_CHECKED} tracked frames to calibrate on, found {len(engine.feeds)}")
    random.Random(seed).shuffle(engine.feeds)
    return engine.feeds[: _FRAMES + _CHECKED]


class _Recording(OnnxEngine):
    """The trunk in int8, the decoder in float32; keeps the inputs of every n-th step."""

    def __init__(self, every: int, trunk: Path, weights: Path) -> None:
        super().__init__("cpu", 1, trunk, weights, "int8")
        self.feeds: list[Feed] = []
        self._every, self._count = every, 0

    def step(self, features: Features, around: Around, objects: Objects) -> Looked:
        """See ``Engine``."""
        if self._count % self._every == 0:
            inputs = self.looking(features, around, objects)[2](slice(None))
            self.feeds.append({name: np.array(value) for name, value in zip(LOOK_INPUTS, inputs, strict=True)})
        self._count += 1
        return super().step(features, around, objects)


def _together(folder: Path, trunk: Path, network: Path, out: Path | None) -> tuple[Path, Path]:
    """Copies of weights with their graphs beside them, but for the decoder's in int8: an older one may be there."""
    of_trunk = trunk_graph(trunk), trunk_graph(trunk, "int8"), columns_graph(trunk)
    of_network = place_graph(network), look_graph(network), learn_graph(network), begin_graph(network)
    copies = []
    for name, weights, graphs in (("trunk", trunk, of_trunk), ("network", network, of_network)):
        place = folder / name
        place.mkdir()
        for file in (weights, *(placed(graph, out) for graph in graphs)):
            shutil.copyfile(file, place / file.name)
        copies.append(place / weights.name)
    return copies[0], copies[1]
