# SPDX-License-Identifier: Apache-2.0
"""The trunk's graph in int8 (``maskrnn export --calibrate``): static quantisation by ONNX Runtime, calibrated on clips.

48 frames, chosen at random from all clips, 512 x 288, go through it while the range of every activation is noted. What
int8 changes is measured on 8 more. Weights have 8 bits: with 7, with which the sum of two products fits into 16 bits on
processors without VNNI, the features are off by twice as much, and held out clips lose 0.005 J&F.
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

from maskrnn_ros.datasets.clips import FileClip
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.model.digests import DIGEST
from maskrnn_ros.model.files import trunk_file, trunk_graph
from maskrnn_ros.model.torch.graphs import Exported, compare, needs, placed, read_session, write_graph

Feed: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Inputs of a graph, by name."""

_SIZE = (512, 288)
"""Width and height of the frames, both multiples of 16."""

_FRAMES, _CHECKED = 48, 8


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
    calibration: Calibration, trunks: Sequence[str] = ("shipped",), out: Path | None = None
) -> Iterator[Exported]:
    """Make the graphs in int8 from those in float32 that ``graphs.export`` made, and compare the two.

    Args:
        calibration: Data.
        trunks: Names or paths, see ``weights.trunk_file``.
        out: Folder of the graphs; None: beside the weights.

    Raises:
        ImportError: onnx, onnxruntime or sympy is not installed.
        RuntimeError: A graph or weights cannot be read.
        ValueError: The data set has no such clips.
        OSError: A file cannot be written.
    """
    needs("onnx", "onnxruntime", "sympy")
    feeds = _images(_clips(calibration), calibration.seed)
    for trunk in trunks:
        weights = trunk_file(trunk)
        source, file = placed(trunk_graph(weights), out), placed(trunk_graph(weights, "int8"), out)
        _write(source, file, feeds[:-_CHECKED])
        exact = read_session(source)
        yield compare(file, ((feed, exact.run(None, feed)) for feed in feeds[-_CHECKED:]))


def _write(source: Path, file: Path, feeds: Sequence[Feed]) -> None:
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
    return [{"image": _resized(clip.image(number)).transpose(2, 0, 1)[None].copy()} for clip, number in wanted]


def _resized(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, _SIZE), np.uint8)
