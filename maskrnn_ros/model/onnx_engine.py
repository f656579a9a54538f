# SPDX-License-Identifier: Apache-2.0
"""The networks in ONNX Runtime. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model import files
from maskrnn_ros.model.digests import DIGEST, DamagedError, read_checked, read_graph
from maskrnn_ros.model.engine import (
    BEGIN_INPUTS,
    LEARN_INPUTS,
    STEP_INPUTS,
    STEP_OUTPUTS,
    SUMS,
    Around,
    Features,
    Floats,
    Keys,
    Lesson,
    Looked,
    Objects,
    Summed,
)
from maskrnn_ros.model.shapes import STRIDES
from maskrnn_ros.runtime import cores, cores_for, pinned
from maskrnn_ros.types import UInt8Array

RIDGE = "ridge"
"""Key of ``Engine.ridge`` in the metadata of the step's graph."""

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


def device_of(name: str) -> str:
    """The device of a setting: ``auto`` is the CPU, as long as a GPU is not asked for by name.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: cuda was asked for, and this onnxruntime has no provider for it.
    """
    import onnxruntime

    if not name.startswith("cuda"):
        return "cpu"
    if not set(_PROVIDERS["cuda"][:-1]) & set(onnxruntime.get_available_providers()):
        raise RuntimeError(
            f"device {name!r} was asked for, but this onnxruntime has no CUDA: pip install onnxruntime-gpu, or engine: "
            "torch"
        )
    return name


class OnnxEngine:
    """An ``Engine``.

    Args:
        device: cpu, or cuda[:N]: then whichever of the providers for it are there.
        threads: For one operation; 0: as many as there are cores for this process.
        trunk: Weights of the trunk, with the graphs beside them.
        weights: Weights of the decoder, likewise.
        precision: float32 or int8; the decoder's is float32, too, where it has no graph in int8.

    Raises:
        ImportError: onnxruntime is not installed.
        DamagedError: A file is no graph, or not as it was written.
        RuntimeError: A graph is missing, or was made from other weights.
    """

    name = "onnxruntime"
    merge = None

    def __init__(self, device: str, threads: int, trunk: Path, weights: Path, precision: str = "float32") -> None:
        self.device, self.precision = device, precision
        threads = threads or len(cores())
        self._trunk = OnnxTrunk(trunk, device, threads, precision)
        step = files.step_graph(weights, precision)
        self.decoder_precision = precision if step.exists() else "float32"
        step = files.step_graph(weights, self.decoder_precision)
        self._step = _Session(step, weights, device, threads, STEP_INPUTS, STEP_OUTPUTS, [RIDGE])
        self._learn = _Session(files.learn_graph(weights), weights, device, threads, LEARN_INPUTS, SUMS)
        self._begin = _Session(files.begin_graph(weights), weights, device, threads, BEGIN_INPUTS, SUMS)
        self.ridge = float(self._step.metadata[RIDGE])

    def features(self, image: UInt8Array) -> Features:
        """See ``Engine``."""
        pixels, maps, columns = self._trunk(image)
        return Features(maps[1], maps[2], columns, pixels)

    def scores(self, features: Features, coefficients: Floats) -> Floats:
        """See ``Engine``."""
        columns = features.columns[0]
        # not by @: threads of the BLAS would spin where those of the networks run, which took 1.3 times the time of an
        # image with 16 objects
        found = np.einsum("kc,cyx->kyx", coefficients[:, :-1, 0], columns)
        return np.asarray(found + coefficients[:, -1, 0, None, None], np.float32)

    def begin(self, features: Features, boxes: Floats, share: Floats, others: Floats, known: Floats) -> Summed:
        """See ``Engine``."""
        return Summed(*self._begin(features.columns, features.stride8, features.stride16, boxes, share, others, known))

    def step(self, features: Features, around: Around, objects: Objects) -> Looked:
        """See ``Engine``."""
        return Looked(*self._step(*step_inputs(features, around, objects)))

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        """See ``Engine``."""
        which, count = list(lesson.which), len(looked.columns)
        columns, code = (part if len(which) == count else part[which] for part in (looked.columns, looked.code))
        masks = (plane[:, None] for plane in (lesson.share, lesson.rivals, lesson.known))
        square, target, *keys = self._learn(columns, code, *masks)
        if lesson.seen is not None:
            keys = [part * lesson.seen[:, None] for part in keys]
        if len(which) < count:
            held = [part.copy() for part in (newest.code, newest.values)]
            for part, new in zip(held, keys, strict=True):
                part[which] = new
            keys = held
        return Summed(square, target, *keys)

    def stack(self, arrays: Sequence[Floats]) -> Floats:
        """See ``Engine``."""
        return np.stack(arrays)

    def without(self, batch: Floats, which: Sequence[int]) -> Floats:
        """See ``Engine``."""
        batch[list(which)] = 0
        return batch

    def zeros(self, *shape: int) -> Floats:
        """See ``Engine``."""
        return np.zeros(shape, np.float32)

    def times(self, array: Floats, factors: Floats) -> Floats:
        """See ``Engine``."""
        return np.asarray(array * factors, np.float32)


class OnnxTrunk:
    """Trunk and columns; for the arguments see ``OnnxEngine``."""

    def __init__(self, weights: Path, device: str = "cpu", threads: int = 1, precision: str = "float32") -> None:
        self._maps = _Session(files.trunk_graph(weights, precision), weights, device, threads)
        self._columns = _Session(files.columns_graph(weights), weights, device, threads)

    def __call__(self, image: UInt8Array) -> tuple[UInt8Array, list[Floats], Floats]:
        """Of an image, RGB, uint8 (h, w, 3).

        Returns:
            The image (1, 3, h, w); features of strides 4, 8, 16, (1, C, ., .); columns, (1, COLUMNS, h4, w4).
        """
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
        down, right = -height % STRIDES[-1], -width % STRIDES[-1]
        whole = np.pad(pixels, ((0, 0), (0, 0), (0, down), (0, right)), mode="edge") if down or right else pixels
        maps = [
            np.ascontiguousarray(map_[:, :, : -(-height // stride), : -(-width // stride)])
            for map_, stride in zip(self._maps(whole), STRIDES, strict=True)
        ]
        (columns,) = self._columns(*maps)
        return pixels, maps, columns


def step_inputs(features: Features, around: Around, objects: Objects) -> tuple[npt.NDArray[Any], ...]:
    """What a step's graph is given, in the order of ``STEP_INPUTS``."""
    shared = features.image, features.columns, features.stride8, features.stride16
    beside = around.flow, around.ignored, around.beside, around.switches
    own = (
        objects.probability[:, None],
        objects.boxes,
        objects.hidden,
        objects.coefficients,
        objects.seed.code,
        objects.seed.values,
        objects.newest.code,
        objects.newest.values,
        objects.sought,
    )
    return *shared, *beside, *own


def spinning(version: str) -> dict[str, str]:
    """How threads wait between two operations: for 0.1 ms they spin, which spares them most of their waking up.

    With four objects on two cores an image then takes 0.93 of the time, with one 0.89. A thread that spins for longer
    takes the core from OpenCV, the other graphs and the callbacks; versions that cannot be told how long do not spin.

    >>> spinning("1.32.0")
    {'allow_spinning': '1', 'spin_duration_us': '100'}
    >>> spinning("1.24.1")
    {'allow_spinning': '0'}
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return {"allow_spinning": "1", "spin_duration_us": "100"} if (major, minor) >= (1, 26) else {"allow_spinning": "0"}


def named(outputs: Sequence[str]) -> list[str]:
    """Names of outputs, which in a graph must not be those of inputs."""
    return [f"{name}_out" if name in STEP_INPUTS else name for name in outputs]


def _read(file: Path, weights: Path) -> tuple[bytes, str]:
    """A graph, and the digest of the weights that it must have been made from.

    Raises:
        DamagedError: One of them is not as it was written.
        RuntimeError: One of them cannot be read.
    """
    what = f"graph {file}"
    try:
        graph = read_graph(file)
        what = f"weights {weights}"
        return graph, hashlib.sha256(read_checked(weights)).hexdigest()
    except OSError as error:
        raise RuntimeError(f"{what} cannot be read: {' '.join(str(error).split())}") from error


class _Session:
    """Calls a graph with arrays.

    Args:
        file: The graph.
        weights: File that it must have been made from.
        device: See ``OnnxEngine``.
        threads: For one operation.
        inputs: Names that it must have, in this order; None: any.
        outputs: What it must say, in this order, see ``named``.
        known: Keys of what its metadata must say.
    """

    def __init__(
        self,
        file: Path,
        weights: Path,
        device: str,
        threads: int,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] = (),
        known: Sequence[str] = (),
    ) -> None:
        import onnxruntime

        graph, digest = _read(file, weights)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for key, value in spinning(onnxruntime.__version__).items():
            options.add_session_config_entry(f"session.intra_op.{key}", value)
        first, *places = cores_for(threads) or [None]  # the first thread is whoever calls
        if places:
            numbers = ";".join(str(place + 1) for place in places if place is not None)
            options.add_session_config_entry("session.intra_op_thread_affinities", numbers)
        options.log_severity_level = 3
        kind, _, index = device.partition(":")
        on_it = {} if kind == "cpu" else {"device_id": index or "0"}
        there = onnxruntime.get_available_providers()
        providers = [
            (name, {} if name == "CPUExecutionProvider" else on_it) for name in _PROVIDERS[kind] if name in there
        ]
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # onnxruntime's own errors have no common base
            raise DamagedError(f"graph {file} cannot be read: {' '.join(str(error).split())}") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._names = [value.name for value in self._session.get_inputs()]
        said = [value.name for value in self._session.get_outputs()]
        fits = inputs is None or (self._names == list(inputs) and said == named(outputs))
        if not fits or set(known) - set(self.metadata) or self.metadata.get(DIGEST) != digest:
            raise RuntimeError(f"graph {file} was not made from {weights} by this version: run maskrnn export")
        # where whoever calls has to be meanwhile: the other threads of the session have the other cores
        self._core = first if places else None

    def __call__(self, *inputs: npt.NDArray[Any]) -> list[Any]:
        feed = {name: np.ascontiguousarray(value) for name, value in zip(self._names, inputs, strict=True)}
        with pinned(self._core):
            found: list[Any] = self._session.run(None, feed)
        return found
