# SPDX-License-Identifier: Apache-2.0
"""The networks in ONNX Runtime. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model import files
from maskrnn_ros.model.crops import crops_of
from maskrnn_ros.model.digests import DIGEST, DamagedError, read_checked, read_graph
from maskrnn_ros.model.engine import (
    BEGIN_INPUTS,
    BEYOND,
    LEARN_INPUTS,
    LOOK_INPUTS,
    LOOK_OUTPUTS,
    PLACE_INPUTS,
    PLACE_OUTPUTS,
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
from maskrnn_ros.model.shapes import COLUMNS, CROP, FINE, STRIDE, STRIDES
from maskrnn_ros.runtime import ThreadPool, cores, cores_for, pinned
from maskrnn_ros.types import UInt8Array

RIDGE = "ridge"
"""Key of ``Engine.ridge`` in the metadata of the decoder's graph."""

_TOGETHER = 2
"""Objects in a call of the decoder on a CPU at most: of more, what one operation leaves to the next is not in the cache
any more. With 16 objects on one core an image takes 0.86 of the time of one call so, 0.90 with 4, 0.97 with 8."""

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
        look = files.look_graph(weights, precision)
        self.decoder_precision = precision if look.exists() else "float32"
        look = files.look_graph(weights, self.decoder_precision)
        self._place = _Session(files.place_graph(weights), weights, device, threads, PLACE_INPUTS, PLACE_OUTPUTS)
        pool = ThreadPool(threads if device == "cpu" else 1, gives_way=True)
        self._look = _Shared(look, weights, device, pool, LOOK_INPUTS, LOOK_OUTPUTS, [RIDGE])
        self._learn = _Shared(files.learn_graph(weights), weights, device, pool, LEARN_INPUTS, SUMS)
        self._begin = _Session(files.begin_graph(weights), weights, device, threads, BEGIN_INPUTS, SUMS)
        self.ridge = float(self._look.metadata[RIDGE])

    def features(self, image: UInt8Array) -> Features:
        """See ``Engine``."""
        maps, columns = self._trunk(image)
        return Features(maps[1], maps[2], columns, image)

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
        places, columns, inputs = self.looking(features, around, objects)
        said = [*places[:3], *self._look(len(columns), inputs), columns]
        return Looked(*said)

    def looking(
        self, features: Features, around: Around, objects: Objects
    ) -> tuple[list[Floats], Floats, Callable[[slice], tuple[npt.NDArray[Any], ...]]]:
        """The first half of a step.

        Returns:
            What the first graph says; columns in crops, (K, CROP, CROP, COLUMNS), which are filled by the third: the
            inputs of the second graph of some of the objects, in the order of ``LOOK_INPUTS``.
        """
        before = objects.probability[:, None]
        shared = around.flow, around.ignored, around.beside, around.switches
        places: list[Floats] = self._place(*shared, before, objects.boxes, objects.sought)
        crops, others = places[1], places[3]
        cells = np.asarray(cv2.transpose(features.columns.reshape(COLUMNS, -1)), np.float32)
        cells = cells.reshape(*features.columns.shape[2:], COLUMNS)
        columns = np.empty((len(crops), CROP, CROP, COLUMNS), np.float32)

        def inputs(some: slice) -> tuple[npt.NDArray[Any], ...]:
            image = crops_of(features.image, crops[some], FINE, 1, BEYOND)
            crops_of(cells, crops[some], CROP, STRIDE, 0, columns[some])
            maps = features.stride8, features.stride16, around.flow, around.switches
            seen = crops[some], others[some], image, columns[some]
            own = before[some], objects.boxes[some], objects.hidden[some], objects.coefficients[some]
            keys = (part[some] for one in (objects.seed, objects.newest) for part in (one.code, one.values))
            return *maps, *seen, *own, *keys

        return places, columns, inputs

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        """See ``Engine``."""
        which, count = np.asarray(lesson.which), len(looked.code)
        masks = lesson.share, lesson.rivals, lesson.known

        def inputs(some: slice) -> list[npt.NDArray[Any]]:
            rows = _rows(which[some])
            return [looked.columns[rows], looked.code[rows], *(plane[some, None] for plane in masks)]

        square, target, *keys = self._learn(len(which), inputs)
        if lesson.seen is not None:
            keys = [one * lesson.seen[:, None] for one in keys]
        if len(which) < count:
            held = [one.copy() for one in (newest.code, newest.values)]
            for one, new in zip(held, keys, strict=True):
                one[which] = new
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

    def __call__(self, image: UInt8Array) -> tuple[list[Floats], Floats]:
        """Features of strides 4, 8, 16, (1, C, ., .), and columns, (1, COLUMNS, h4, w4), of an image, RGB (h, w, 3)."""
        height, width = image.shape[:2]
        down, right = -height % STRIDES[-1], -width % STRIDES[-1]
        whole = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else image
        maps = [
            np.ascontiguousarray(map_[:, :, : -(-height // stride), : -(-width // stride)])
            for map_, stride in zip(self._maps(whole[None]), STRIDES, strict=True)
        ]
        (columns,) = self._columns(*maps)
        return maps, columns


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
    return [f"{name}_out" if name in LOOK_INPUTS and name in LOOK_OUTPUTS else name for name in outputs]


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
        feed = dict(zip(self._names, inputs, strict=True))
        with pinned(self._core):
            found: list[Any] = self._session.run(None, feed)
        return found


class _Shared:
    """A graph of which every object is computed by itself: threads share out objects, not operations.

    Operations shared out by two threads leave a third of the second core idle, as most are too small for both.

    Args:
        file: The graph, see ``_Session``.
        weights: Likewise.
        device: Likewise; only on a CPU are objects shared out.
        pool: The threads.
        inputs: Likewise.
        outputs: Likewise.
        known: Likewise.
    """

    def __init__(
        self,
        file: Path,
        weights: Path,
        device: str,
        pool: ThreadPool,
        inputs: Sequence[str],
        outputs: Sequence[str],
        known: Sequence[str] = (),
    ) -> None:
        self._pool, self._most = pool, _TOGETHER if device == "cpu" else None
        self._whole = _Session(file, weights, device, pool.size, inputs, outputs, known)
        self._part = self._whole if pool.size == 1 else _Session(file, weights, device, 1, inputs, outputs, known)
        self.metadata = self._whole.metadata

    def __call__(self, count: int, inputs: Callable[[slice], Sequence[npt.NDArray[Any]]]) -> list[Any]:
        """What it says of so many objects; the inputs are those of some of them."""
        parts = self._pool.parts(count, self._most)
        if len(parts) < 2:
            return self._whole(*inputs(slice(count)))
        said = self._pool.map(lambda some: self._part(*inputs(some)), parts)
        return [np.concatenate(one) for one in zip(*said, strict=True)]


def _rows(which: npt.NDArray[np.intp]) -> Any:
    """Rows of a table as what copies none where they lie side by side."""
    if len(which) and which[-1] - which[0] == len(which) - 1:
        return slice(int(which[0]), int(which[-1]) + 1)
    return which
