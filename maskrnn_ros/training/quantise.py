# SPDX-License-Identifier: Apache-2.0
"""Graphs in int8 (``maskrnn export --calibrate``): static quantisation by ONNX Runtime, calibrated on clips.

What goes through the graphs while the range of every activation is noted:

    trunk      48 frames, chosen at random from all clips, 512 x 288
    streams    what they are shown while the tracker follows the objects of 10 clips, 8 frames each, in float32

What int8 changes is measured on what is not calibrated on: 8 more frames, and the ninth frame of each of those clips.
The streams' weights have 7 bits, which costs them nothing: the sum of two products fits into 16 bits then, where
processors without VNNI saturate with 8. The trunk's have 8: with 7 its features are off by twice as much, and held out
clips lose 0.005 J&F.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.evaluation.readers import FileClip, find_clips
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.digests import DIGEST
from maskrnn_ros.model.engine import Network, load_models
from maskrnn_ros.model.graphs import (
    Exported,
    compare,
    needs,
    placed,
    read_session,
    streams_graph,
    trunk_graph,
    write_graph,
)
from maskrnn_ros.model.network import CROP, HIDDEN, FrameCode
from maskrnn_ros.model.weights import NETWORKS, is_step, network_file, trunk_file
from maskrnn_ros.quality import at_level
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.types import Frame, Seed

Feed: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Inputs of a graph, by name."""

_SIZE = (512, 288)
"""Width and height of the frames, both multiples of 16."""

_FRAMES, _CLIPS, _STEPS, _CHECKED = 48, 10, 8, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What int8 is calibrated on.

    Args:
        root: Data set in the layout of DAVIS, with masks.
        held_out: Its clips that are left out.
        seed: Of the choice of frames and clips; the same one gives the same graphs.
    """

    root: Path
    held_out: tuple[str, ...] = ()
    seed: int = 0


def quantise(
    calibration: Calibration,
    trunks: Sequence[str] = ("shipped", "streams"),
    networks: Sequence[str] = tuple(NETWORKS),
    out: Path | None = None,
) -> Iterator[Exported]:
    """Make the graphs in int8 from those in float32 that ``graphs.export`` made, and compare the two.

    Args:
        calibration: Data.
        trunks: Names or paths, see ``weights.trunk_file``; the streams see through the last of them, or through theirs.
        networks: What ``network.weights`` names; of decoders there is none in int8.
        out: Folder of the graphs; None: beside the weights.

    Raises:
        ImportError: onnx, onnxruntime or sympy is not installed.
        RuntimeError: A graph or weights cannot be read.
        ValueError: The data set has no such clips.
        OSError: A file cannot be written.
    """
    needs("onnx", "onnxruntime", "sympy")
    clips = _clips(calibration)
    for trunk in trunks:
        weights = trunk_file(trunk)
        feeds = _images(clips, calibration.seed)
        made = trunk_graph(weights, "int8")
        yield _quantised(trunk_graph(weights), made, out, feeds[:-_CHECKED], feeds[-_CHECKED:], bits=8)
    for network in networks:
        weights = network_file(network)
        if is_step(weights):
            continue
        feeds, checked = _shown(clips, calibration.seed, trunks[-1] if trunks else "streams", network)
        made = streams_graph(weights, "int8")
        yield _quantised(streams_graph(weights), made, out, feeds, checked, bits=7)


def _quantised(
    source: Path, file: Path, out: Path | None, feeds: Sequence[Feed], checked: Sequence[Feed], bits: int
) -> Exported:
    source, file = placed(source, out), placed(file, out)
    _write(source, file, feeds, reduce_range=bits == 7)
    exact = read_session(source)
    return compare(file, ((feed, exact.run(None, feed)) for feed in checked))


def _write(source: Path, file: Path, feeds: Sequence[Feed], reduce_range: bool) -> None:
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
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(made)
    del model.metadata_props[:]
    made_from = [entry for entry in onnx.load(str(source)).metadata_props if entry.key == DIGEST]
    model.metadata_props.extend(made_from)
    write_graph(file, model)


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
    return [{"image": _resized(clip.image(number)).transpose(2, 0, 1)[None].copy()} for clip, number in wanted]


def _resized(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, _SIZE), np.uint8)


class _Recorder:
    """A ``Network`` that notes what its streams are shown."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.weights: Tensor = network.weights
        self.shown: list[Feed] = []

    def encode(self, images: Tensor, maps: list[Tensor], magnitudes: Tensor) -> FrameCode:
        return self._network.encode(images, maps, magnitudes)

    def streams(self, seen: Tensor, moved: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        state = seen.new_zeros(len(seen), HIDDEN, CROP // 2, CROP // 2) if hidden is None else hidden
        self.shown.append({"seen": seen.numpy(), "moved": moved.numpy(), "hidden": state.numpy()})
        return self._network.streams(seen, moved, hidden)

    def localization(self, region: Tensor) -> tuple[Tensor, Tensor]:
        return self._network.localization(region)


def _shown(clips: Sequence[FileClip], seed: int, trunk: str, network: str) -> tuple[list[Feed], list[Feed]]:
    """What the streams are shown on the first frames of some clips, and on one more of each."""
    exact = with_values(Config(), device="cpu", engine="torch", precision="float32")
    heads: dict[str, Value] = {
        "adaptation__method": "finetune",
        "adaptation__mode": "blocking",
        "adaptation__steps": 20,
    }
    config = with_values(exact, **heads, trunk__weights=trunk, network__weights=network, adaptation__views=5)
    cpu = torch.device("cpu")
    config = at_level(config, config.quality)
    models = load_models(config, cpu)
    assert models.network is not None
    feeds: list[Feed] = []
    checked: list[Feed] = []
    for clip in random.Random(seed).sample(list(clips), min(_CLIPS, len(clips))):
        recorder = _Recorder(models.network)
        tracker = Tracker(config, build_flow(config.flow, cpu), cpu, models.trunk, recorder)
        for number, _ in enumerate(_followed(tracker, clip)):
            (feeds if number < _STEPS else checked).extend(recorder.shown)
            recorder.shown.clear()
    if not feeds or not checked:
        raise ValueError(f"expected clips of more than {_STEPS + 1} frames with an object on the first, found none")
    return feeds, checked


def _followed(tracker: Tracker, clip: FileClip) -> Iterator[int]:
    """The steps of the tracker on a clip."""
    labels = clip.truth(0)
    if not labels.any():
        return
    tracker.seed(Seed(stamp_ns=clip.stamp_ns(0), labels=labels), Frame(stamp_ns=clip.stamp_ns(0), image=clip.image(0)))
    for number in range(1, min(len(clip), _STEPS + 2)):
        tracker.step(Frame(stamp_ns=clip.stamp_ns(number), image=clip.image(number)))
        yield number
