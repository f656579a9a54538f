# SPDX-License-Identifier: Apache-2.0
"""What runs the networks: torch, the reference, or ONNX Runtime, behind the same interface.

On a CPU, ``auto`` takes ONNX Runtime where it and the graphs of these weights are at hand (``graphs``), in int8 if it
can; else, and on a GPU, torch. An instance's own head, which is trained while the stream goes on, is torch in both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskrnn_ros.config import Config
from maskrnn_ros.cores import cores, places_of, seat
from maskrnn_ros.model.backbone import STRIDES, Features
from maskrnn_ros.model.digests import DIGEST, DamagedError, digest_of, read_graph
from maskrnn_ros.model.fit import check_fit
from maskrnn_ros.model.graphs import (
    NEAREST,
    SEEN,
    encode_graph,
    step_graph,
    streams_graph,
    trunk_graph,
)
from maskrnn_ros.model.head import HeadStart
from maskrnn_ros.model.network import CROP, HIDDEN, FastNet, FrameCode, scaled
from maskrnn_ros.model.step import Encoder, Keys, Matcher, Output, Seen, StepNet
from maskrnn_ros.model.trunk import Trunk, net_of
from maskrnn_ros.model.weights import is_step, load_network, load_step, load_trunk, network_file, trunk_file, trunk_of

_LOG = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


_OF_TORCH = (("precision", "float16"), ("compile", "default"), ("compile", "reduce-overhead"))
"""Settings that only torch knows."""


class Network(Protocol):
    """What a tracker needs of the network; ``FastNet`` says what each does."""

    @property
    def weights(self) -> Tensor:
        """Of the planes."""
        ...

    def encode(self, images: Tensor, maps: list[Tensor], magnitudes: Tensor) -> FrameCode:
        """What the objects of a frame share."""
        ...

    def streams(self, seen: Tensor, moved: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both streams on K crops."""
        ...

    def localization(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """The localization net on K regions."""
        ...


class Step(Protocol):
    """What a tracker needs of the decoder; ``StepNet`` says what each does."""

    @property
    def encoder(self) -> Encoder:
        """What the target model is asked for."""
        ...

    @property
    def matcher(self) -> Matcher:
        """Describes cells."""
        ...

    @property
    def ridge(self) -> Tensor:
        """Log of the ridge of the target model."""
        ...

    def look(self, seen: Seen, coefficients: Tensor, seed: Keys, recent: Keys) -> Output:
        """Look at K objects."""
        ...

    def aside(self) -> Step:
        """The same on one core: others are looked at beside it."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Models:
    """The networks of a tracker.

    Args:
        engine: What runs them: torch or onnxruntime.
        trunk: None where nothing needs features.
        network: The two-stream network; None where it is off, or where the weights are those of a decoder.
        step: The decoder; None likewise.
        threads: How many instances may be worked on at a time, each on one core.
        precision: float32, float16 or int8: of trunk and two-stream network; a decoder is in float32 always.
    """

    engine: str
    trunk: Trunk | None
    network: Network | None
    threads: int = 1
    precision: str = "float32"
    step: Step | None = None


def load_models(config: Config, device: torch.device) -> Models:
    """The networks that the config names, frozen, on the engine that it names.

    Where ``auto`` cannot have what it would take, a warning is logged that says why. What is damaged is passed over by
    ``auto`` alone.

    Raises:
        RuntimeError: Weights or graphs cannot be read, onnxruntime was asked for and is not there, or the engine does
            not know the precision or ``compile``.
    """
    weights = network_file(config.network.weights)
    has_step = config.network.enabled and is_step(weights)
    step = load_step(weights, device) if has_step else None
    network = load_network(weights, device) if config.network.enabled and not has_step else None
    needs_features = config.matching.enabled or config.adaptation.method != "none" or config.network.enabled
    if not needs_features:
        return Models("torch", None, None)
    trunk_setting = trunk_of(config.trunk.weights, has_decoder=step is not None)
    trunk = load_trunk(trunk_setting, device)
    check_fit(config, has_decoder=step is not None, is_trained_trunk=trunk.start is not None)
    if _wants_torch(config, device):
        return _in_torch(config, trunk, network, step)
    try:
        return _in_onnxruntime(config, device, trunk, network, step, trunk_file(trunk_setting))
    except (ImportError, RuntimeError) as error:
        if config.engine == "auto" and config.precision != "int8":
            _LOG.warning("engine torch: %s", error)
            return _in_torch(config, trunk, network, step)
        raise RuntimeError(f"engine onnxruntime: {error}") from error


def _wants_torch(config: Config, device: torch.device) -> bool:
    """Whether torch is asked for, be it by what only torch can do.

    Raises:
        RuntimeError: What is asked for does not go together.
    """
    only_torch = [f"{name} {value}" for name, value in _OF_TORCH if getattr(config, name) == value]
    if config.engine == "onnxruntime" and only_torch:
        raise RuntimeError(f"{only_torch[0]} needs engine torch, got onnxruntime")
    wants = config.engine == "torch" or bool(only_torch)
    if wants and config.precision == "int8":
        raise RuntimeError(f"precision int8 needs engine onnxruntime, got {only_torch[0] if only_torch else 'torch'}")
    return wants or (config.engine == "auto" and config.precision != "int8" and device.type != "cpu")


def _in_torch(config: Config, trunk: Trunk, network: FastNet | None, step: StepNet | None) -> Models:
    for module in (net_of(trunk), network):
        if module is not None and config.precision == "float16":
            module.half().to(memory_format=torch.channels_last)
        if module is not None:
            module.compile_with(config.compile)
    precision = "float16" if config.precision == "float16" else "float32"
    return Models("torch", trunk, network, precision=precision, step=step)


def _in_onnxruntime(
    config: Config,
    device: torch.device,
    trunk: Trunk,
    network: FastNet | None,
    step: StepNet | None,
    weights: Path,
) -> Models:
    """In int8 where that is asked for, or else is to be had on a CPU; ``weights`` are those of the trunk."""
    threads = config.threads or len(cores())
    runtime = _Runtime(device, threads)

    def models(precision: str) -> Models:
        fast_trunk = OnnxTrunk(trunk, runtime, weights, precision)
        fast_network = network and OnnxNetwork(network, runtime, network_file(config.network.weights), precision)
        fast_step = step and OnnxStep(step, runtime, network_file(config.network.weights))
        shared_out = threads if device.type == "cpu" else 1
        return Models("onnxruntime", fast_trunk, fast_network, shared_out, precision, fast_step)

    if config.precision != "auto":
        return models(config.precision)
    if device.type == "cpu" and adds_8_bit_products():
        try:
            return models("int8")
        except DamagedError as error:
            if config.engine == "onnxruntime":
                raise
            _LOG.warning("precision float32: %s", error)
        except RuntimeError as error:  # no such graphs, or those of older weights
            _LOG.warning("precision float32: %s", error)
    return models("float32")


def on_one_core(trunk: Trunk, weights: Path) -> Trunk:
    """The trunk in ONNX Runtime with one thread, in float32; as it is where that or its graph is not at hand."""
    with contextlib.suppress(ImportError, RuntimeError):
        return OnnxTrunk(trunk, _Runtime(torch.device("cpu"), 1), weights, "float32")
    return trunk


def adds_8_bit_products() -> bool:
    """Whether the processor has instructions for int8: x86 only with VNNI; others saturate and gain little."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@dataclasses.dataclass(frozen=True)
class _Runtime:
    """How sessions are made.

    Args:
        device: cpu, or cuda: then whichever of the providers for it are there.
        threads: For one operation.
    """

    device: torch.device
    threads: int

    def session(self, file: Path, weights: Path | None = None) -> _Session:
        """A session of a graph.

        Raises:
            ImportError: onnxruntime is not installed.
            DamagedError: The file is no graph, or not as it was written.
            RuntimeError: It is missing, or was made from other weights.
        """
        import onnxruntime

        try:
            graph = read_graph(file)
        except OSError as error:
            raise RuntimeError(f"graph {file} cannot be read: {' '.join(str(error).split())}") from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # a thread that spins while it waits takes the core from torch, OpenCV and the callbacks
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        first, *places = places_of(self.threads) or [None]  # the first thread is whoever calls
        if places:
            numbers = ";".join(str(place + 1) for place in places if place is not None)
            options.add_session_config_entry("session.intra_op_thread_affinities", numbers)
        options.log_severity_level = 3
        there = onnxruntime.get_available_providers()
        on_it = {} if self.device.type == "cpu" else {"device_id": str(self.device.index or 0)}
        providers = [
            (name, {} if name == "CPUExecutionProvider" else on_it)
            for name in _PROVIDERS[self.device.type]
            if name in there
        ]
        try:
            made = onnxruntime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # onnxruntime's own errors have no common base
            raise DamagedError(f"graph {file} cannot be read: {' '.join(str(error).split())}") from error
        found = made.get_modelmeta().custom_metadata_map.get(DIGEST)
        if weights is not None and found != digest_of(weights):
            raise RuntimeError(f"graph {file} was not made from {weights}: run maskrnn export")
        return _Session(made, first if places else None)

    def on_one_core(self) -> _Runtime:
        return dataclasses.replace(self, threads=1)


class _Session:
    """Calls a graph with tensors; on the CPU nothing is copied on the way in, from a GPU they go through the host.

    Args:
        session: Of onnxruntime.
        core: Where whoever calls has to be meanwhile: the other threads of the session have the other cores.
    """

    def __init__(self, session: Any, core: int | None = None) -> None:
        self._session = session
        self._core = core
        self._names = [value.name for value in session.get_inputs()]

    def __call__(self, *inputs: Tensor | npt.NDArray[Any]) -> list[Tensor]:
        feed = {
            name: np.ascontiguousarray(value.cpu().numpy() if isinstance(value, Tensor) else value)
            for name, value in zip(self._names, inputs, strict=True)
        }
        with seat(self._core):
            found = self._session.run(None, feed)
        return [torch.from_numpy(value) for value in found]


class OnnxTrunk:
    """The trunk in ONNX Runtime; a ``Trunk``.

    Args:
        trunk: In torch; what heads start with comes from it.
        runtime: Makes the sessions.
        weights: File that the graph must have been made from.
        precision: float32 or int8.
    """

    def __init__(self, trunk: Trunk, runtime: _Runtime, weights: Path, precision: str = "float32") -> None:
        self._trunk = trunk
        self._runtime = runtime
        self._weights = weights
        self.precision = precision
        self._features = runtime.session(trunk_graph(weights, precision), weights)
        self._nearest = runtime.on_one_core().session(NEAREST)

    @property
    def start(self) -> HeadStart | None:
        """See ``Trunk``."""
        return self._trunk.start

    def features(self, image: Tensor) -> Features:
        """See ``Trunk``."""
        height, width = image.shape[1:]
        pixels = image.cpu().numpy()[None]
        down, right = -height % STRIDES[-1], -width % STRIDES[-1]
        if down or right:
            pixels = np.pad(pixels, ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
        maps = self._features(pixels)
        whole = [
            map_[0, :, : -(-height // stride), : -(-width // stride)].half().to(image.device).contiguous()
            for map_, stride in zip(maps, STRIDES, strict=True)
        ]
        return Features(*whole)

    def nearest(self, queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See ``Trunk``; where the descriptors are on a GPU, torch compares them there."""
        if keys.device.type != "cpu":
            return self._trunk.nearest(queries, keys, count)
        best, where = self._nearest(queries, keys, np.array([min(count, keys.shape[1])]))
        return best, where

    def aside(self) -> Trunk:
        """See ``Trunk``."""
        return OnnxTrunk(self._trunk, self._runtime.on_one_core(), self._weights, self.precision)


class OnnxNetwork:
    """The network in ONNX Runtime; a ``Network``. The localization net stays in torch: it is tiny.

    Args:
        network: In torch.
        runtime: Makes the sessions.
        weights: File that the graphs must have been made from.
        precision: Of the streams, float32 or int8.
    """

    def __init__(self, network: FastNet, runtime: _Runtime, weights: Path, precision: str = "float32") -> None:
        self.weights: Tensor = network.weights
        self.localization: Callable[[Tensor], tuple[Tensor, Tensor]] = network.localization
        # beside it the descriptors are made on another core; and of the streams each call is of one instance, and
        # several instances are worked on at a time
        self._encode = runtime.on_one_core().session(encode_graph(weights), weights)
        self._streams = runtime.on_one_core().session(streams_graph(weights, precision), weights)

    def encode(self, images: Tensor, maps: Sequence[Tensor], magnitudes: Tensor) -> FrameCode:
        """See ``Network``."""
        code, flow = (found.to(images.device) for found in self._encode(*maps, magnitudes))
        return FrameCode(scaled(images), code, flow)

    def streams(self, seen: Tensor, moved: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """See ``Network``."""
        if hidden is None:
            hidden = seen.new_zeros(len(seen), HIDDEN, CROP // 2, CROP // 2)
        added, state = (found.to(seen.device) for found in self._streams(seen, moved, hidden))
        return added, state


class OnnxStep:
    """The decoder in ONNX Runtime, in float32 whatever the trunk computes in; what its memory needs stays in torch.

    Args:
        net: In torch.
        runtime: Makes the sessions.
        weights: File that the graph must have been made from.
    """

    def __init__(self, net: StepNet, runtime: _Runtime, weights: Path) -> None:
        self.encoder, self.matcher, self.ridge = net.encoder, net.matcher, net.ridge
        self._look = runtime.session(step_graph(weights), weights)
        on_one = runtime.device.type == "cpu" and runtime.threads > 1  # else there is nothing to share out
        self._made_aside = partial(OnnxStep, net, runtime.on_one_core(), weights) if on_one else None

    def aside(self) -> Step:
        """See ``StepNet``; another session where this one takes more than one core."""
        return self if self._made_aside is None else self._made_aside()

    def look(self, seen: Seen, coefficients: Tensor, seed: Keys, recent: Keys) -> Output:
        """See ``StepNet``."""
        keys = (seed.code, seed.values, recent.code, recent.values)
        found = self._look(*(getattr(seen, name) for name in SEEN), coefficients, *keys)
        return Output(*(value.to(coefficients.device) for value in found))
