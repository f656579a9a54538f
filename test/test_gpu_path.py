# SPDX-License-Identifier: Apache-2.0
"""What a GPU would run, on the CPU: the engine of torch, what it sends and fetches, half precision, torch.compile."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import world
from shipped import CONFIG, LARGE, engine, still
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.optical_flow import raft_large, raft_small

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow.torch.flownet import FlowNetFlow
from maskrnn_ros.flow.torch.raft import _Raft
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.files import DECODER, TRUNK
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.model.torch.compiled import Compiled
from maskrnn_ros.model.torch.engine import TorchEngine, choose_device
from maskrnn_ros.model.torch.frame_step import Begin, FrameFeatures, FrameStep, Learn
from maskrnn_ros.model.torch.graph_samples import begin_inputs, learn_inputs, step_inputs
from maskrnn_ros.model.torch.weights import load_lite0, load_step, load_trunk
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.state import InstanceMemory
from maskrnn_ros.types import Tracks

TORCH = with_values(CONFIG, engine="torch")

IN_A_ROW = tuple(world.Shape(2 * k + 1, 4 + 40 * k, 8 + 20 * k, 32, 36, 2, 0) for k in range(3))
"""Of odd ids: all enter their memories on the same frames."""


@pytest.fixture(scope="module")
def in_torch() -> TorchEngine:
    found = load_engine(TORCH)
    assert isinstance(found, TorchEngine)
    return found


def made(**changes: object) -> TorchEngine:
    found = load_engine(with_values(TORCH, **changes))
    assert isinstance(found, TorchEngine)
    return found


def tracker(runs: Engine, config: Config = TORCH) -> Tracker:
    return Tracker(config, world.ExactFlow(IN_A_ROW), runs)


def run(one: Tracker, frames: int = 5) -> list[Tracks]:
    found = [one.seed(world.seed(0, shapes=IN_A_ROW), world.frame(0, IN_A_ROW))]
    return found + [one.step(world.frame(number, IN_A_ROW)) for number in range(1, frames)]


def same_pixels(one: list[Tracks], other: list[Tracks]) -> float:
    """Least share of pixels with the same id."""
    return float(min((a.labels == b.labels).mean() for a, b in zip(one, other, strict=True)))


def test_torch_says_what_onnx_runtime_says(in_torch: TorchEngine) -> None:
    pair = tracker(engine()), tracker(in_torch)
    one, other = (run(each) for each in pair)
    assert all(len(np.unique(tracks.labels)) == 4 for tracks in one)
    assert same_pixels(one, other) > 0.999
    for i in (1, 3, 5):
        here, there = (each.states[i] for each in pair)
        assert here.known is not None and there.known is not None
        # OpenCV, which cuts for ONNX Runtime, rounds places to 1/32 of a cell, and the image's crops to bytes
        assert np.abs(here.probability - there.probability).mean() < 1e-3
        assert np.abs(np.asarray(here.known.carried.hidden) - np.asarray(there.known.carried.hidden)).mean() < 1e-2
        np.testing.assert_allclose(here.known.weights, there.known.weights, atol=1e-2, rtol=1e-2)
        assert here.velocity == pytest.approx(there.velocity, rel=5e-2)
    assert engine().ridge == pytest.approx(in_torch.ridge)


def test_what_is_opaque_to_the_tracker_stays_on_the_device_and_all_else_is_numpy(in_torch: TorchEngine) -> None:
    one = tracker(in_torch)
    run(one, 3)
    assert one.newest is not None
    features = one.newest.features
    for name in ("stride8", "stride16", "columns", "image"):
        assert isinstance(getattr(features, name), torch.Tensor), name
    for state in one.states.values():
        known = state.known
        assert known is not None
        keys = [
            getattr(each, part) for each in (known.memory.seed_keys, known.memory.newest_keys) for part in vars(each)
        ]
        for value in (known.carried.hidden, *keys):
            assert isinstance(value, torch.Tensor) and value.dtype == torch.float32 and not value.requires_grad
        sums = [getattr(each, part) for each in (known.memory.seed, known.memory.recent) for part in vars(each)]
        for value in (known.carried.probability, known.carried.crop, known.weights, state.patch.values, *sums):
            assert isinstance(value, np.ndarray) and value.dtype == np.float32


def test_what_torch_holds_counts_in_the_memory_of_the_buffer_once(in_torch: TorchEngine) -> None:
    held = {}
    for runs in (engine(), in_torch):
        one = tracker(runs)
        buffer = FrameBuffer(Config().buffer)
        run(one, 2)
        assert one.newest is not None
        moment = one.moment
        buffer.add(dataclasses.replace(one.newest, stamp_ns=1), moment)
        first = buffer.nbytes
        buffer.add(dataclasses.replace(one.newest, stamp_ns=2), moment)
        assert buffer.nbytes - first == one.newest.nbytes, "nothing of it is held twice"
        held[runs.name] = first
    assert held["torch"] == pytest.approx(held["onnxruntime"], rel=0.05)


def test_of_a_batch_nothing_is_held_but_what_is_carried(in_torch: TorchEngine) -> None:
    one = tracker(in_torch)
    run(one, 3)
    known = one.states.begun
    for value in (known.carried.hidden, known.memory.newest_keys.code):
        assert len(value) == 3 and value.untyped_storage().nbytes() == value.numel() * 4
    one.remove([3])
    known = one.states.begun
    for value in (known.carried.hidden, known.memory.newest_keys.code):
        assert len(value) == 2 and value.untyped_storage().nbytes() == value.numel() * 4


# --- what is sent and fetched ---


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: numbers that are read, and copies up and down.

    The engine is told that its device is far: then it copies as it does to and from a GPU.
    """

    def __init__(self, runs: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.said: list[str] = []
        monkeypatch.setattr(runs, "_is_far", True)
        monkeypatch.setattr(runs, "_up", self._noted("up", runs._up))
        for name in ("cpu", "tolist", "item", "new_tensor"):
            monkeypatch.setattr(torch.Tensor, name, self._noted(name, getattr(torch.Tensor, name)))
        monkeypatch.setattr(torch, "tensor", self._noted("tensor", torch.tensor))
        # traced, the networks are one call in which nothing could be seen
        monkeypatch.setattr(Compiled, "__call__", lambda compiled, *inputs: compiled._function(*inputs))

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.said.append(name)
            return function(*args, **kwargs)

        return called

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero"):
            self.said.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_ignored", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
def test_no_more_is_waited_for_with_many_objects_than_with_one(
    is_ignored: bool, is_lost: bool, in_torch: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = np.zeros((world.HEIGHT, world.WIDTH), np.bool_)
    ignored[:4] = True
    found = []
    for ids in ((1,), (1, 3), (1, 3, 5)):
        one = tracker(in_torch, with_values(TORCH, presence__return_probability=1.0))  # what is lost stays lost
        one.seed(world.seed(0, *ids, shapes=IN_A_ROW), world.frame(0, IN_A_ROW))
        one.step(world.frame(1, IN_A_ROW))
        if is_lost:
            one.adopt({i: hidden(state) for i, state in one.states.items()})
        before = {i: state.known for i, state in one.states.items()}
        frame = dataclasses.replace(world.frame(2, IN_A_ROW), ignored=ignored if is_ignored else None)
        with monkeypatch.context() as patch:
            waits = Waits(in_torch, patch)
            with waits:
                one.advance(one.prepare(frame))
        found.append(sorted(waits.said))
        for i, state in one.states.items():
            assert before[i] is not None and state.known is not None
            learned = not np.array_equal(state.known.weights, before[i].weights)  # type: ignore[union-attr]
            assert learned == (state.frames_unseen == 0) == (not is_lost), "or the counts are not of the same"
    copies = 2 if is_lost else 3
    assert found[0].count("cpu") == copies, "what a step says, scores, and sums of what was learned"
    assert found[0] == found[1] == found[2]
    assert len(found[0]) <= 10, found[0]


def hidden(state: InstanceMemory) -> InstanceMemory:
    """The same, not seen on the frame before: it is looked for."""
    assert state.known is not None
    carried = dataclasses.replace(state.known.carried, probability=np.zeros_like(state.known.carried.probability))
    return dataclasses.replace(state, frames_unseen=1, known=dataclasses.replace(state.known, carried=carried))


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_seed_of_many_waits_as_often_as_one_of_one(
    is_ignored: bool, in_torch: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = np.zeros((world.HEIGHT, world.WIDTH), np.bool_)
    ignored[:4] = True
    monkeypatch.setattr("maskrnn_ros.tracking.follow._VIEWS", 1)  # which views show enough depends on the objects
    found = []
    for ids in ((1,), (1, 3, 5)):
        one = tracker(in_torch)
        frame = dataclasses.replace(world.frame(0, IN_A_ROW), ignored=ignored if is_ignored else None)
        with monkeypatch.context() as patch:
            waits = Waits(in_torch, patch)
            with waits:
                one.seed(world.seed(0, *ids, shapes=IN_A_ROW), frame)
        found.append(sorted(waits.said))
    assert found[0] == found[1]


def test_copies_take_all_at_once(in_torch: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [np.random.default_rng(k).random((k + 1, 3), np.float32) for k in range(3)]
    waits = Waits(in_torch, monkeypatch)
    sent = in_torch._all_up(*values)
    fetched = in_torch._all_down(sent)
    assert waits.said == ["up", "cpu"]
    for value, tensor, array in zip(values, sent, fetched, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), value)
        np.testing.assert_array_equal(array, value)


# --- half precision ---


def test_float16_computes_in_half_and_says_nearly_the_same(in_torch: TorchEngine) -> None:
    half = made(precision="float16")
    assert half.precision == "float16" and in_torch.precision == "float32"
    assert {parameter.dtype for parameter in half._frame.trunk.parameters()} == {torch.float16}
    features, exact = half.features(world.image(0)), in_torch.features(world.image(0))
    for name in ("stride8", "stride16", "columns"):
        one, other = getattr(features, name), getattr(exact, name)
        assert one.dtype == torch.float32 and not torch.equal(one, other)  # or nothing was in half
        assert (one - other).abs().mean() < 0.01 * other.abs().mean()
    pair = tracker(in_torch), tracker(half, with_values(TORCH, precision="float16"))
    one, other = (run(each, 2) for each in pair)  # a CPU is slow in it
    assert same_pixels(one, other) > 0.99
    assert pair[1].precision == "float16, decoder float32"


# --- torch.compile ---


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compile_gives_trunk_and_step_to_torch_with_its_mode(
    mode: str, in_torch: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    calls: list[str] = []
    last: list[Any] = []

    def compile_(function: Any, mode: str) -> Any:
        asked.append((function.__qualname__, mode))

        def compiled(*inputs: torch.Tensor) -> Any:
            calls.append(function.__qualname__)
            for value in last:
                value.fill_(float("nan"))  # as the replay of a CUDA graph does
            found = list(function(*inputs))
            if mode == "reduce-overhead":
                last[:] = found
            return found

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    masks = run(tracker(made(compile=mode)), 4)
    names = {"FrameFeatures.forward", "FrameStep.forward"}
    assert {name for name, _ in asked} == names == set(calls) and len(asked) == 2
    assert {mode for _, mode in asked} == {mode}
    assert same_pixels(masks, run(tracker(in_torch), 4)) > 0.999


def test_without_compile_torch_compile_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *arguments, **keywords: pytest.fail("asked"))
    run(tracker(made()), 2)


class Several(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def outputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.layer(x).relu()]


def test_what_learns_is_neither_traced_nor_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *arguments, **keywords: pytest.fail("asked"))
    layer = torch.nn.Conv2d(1, 1, 1)
    owner = Several(layer)
    out = Compiled(owner, owner.outputs, "default")(torch.ones(1, 1, 2, 2))
    out[0].sum().backward()
    assert layer.weight.grad is not None


def test_torch_compile_itself_takes_a_function_of_several_sizes() -> None:
    """The real compiler, in the backend that needs no C++ compiler."""
    layer = torch.nn.Conv2d(2, 3, 3).requires_grad_(False)
    owner = Several(layer)
    compiled = Compiled(owner, owner.outputs, "default")
    real = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, mode: real(function, backend="eager"))
        for size in (5, 9):
            x = torch.rand(1, 2, size, size)
            torch.testing.assert_close(compiled(x)[0], layer(x).relu())


# --- CUDA graphs ---


class OnOneDevice(TorchDispatchMode):
    """Notes what takes tensors of the CPU, or brings any somewhere else: neither can be captured as a CUDA graph."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.others: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        given = torch.utils._pytree.tree_leaves((args, kwargs or {}))
        # one without an axis is passed by value
        if any(isinstance(value, torch.Tensor) and value.ndim and value.device.type == "cpu" for value in given):
            self.others.append(str(function))
        return function(*args, **(kwargs or {}))


META = torch.device("meta")
"""Tensors without values: what is computed there needs none of the CPU's."""


def of_the_features(half: bool) -> tuple[Callable[..., Any], list[tuple[int, ...]]]:
    return FrameFeatures(load_trunk(TRUNK, META), half).forward, [(1, 3, 90, 160)]


def of_objects(
    module: type[FrameStep | Learn | Begin], inputs: tuple[torch.Tensor, ...]
) -> tuple[Callable[..., Any], list[tuple[int, ...]]]:
    return module(load_step(DECODER, META)).forward, [tuple(value.shape) for value in inputs]


def of_flownet() -> tuple[Callable[..., Any], list[tuple[int, ...]]]:
    flow = FlowNetFlow()
    flow._net.to("meta")
    return flow._estimated, [(1, 3, 90, 160)] * 2


def of_raft(size: str, is_pair: bool) -> tuple[Callable[..., Any], list[tuple[int, ...]]]:
    net = _Raft({"small": raft_small, "large": raft_large}[size]().eval().requires_grad_(False).to("meta"), 2)
    features, context = (128, 160) if size == "small" else (256, 256)
    shapes = [(1, features, 16, 20), (1, features, 16, 20), (1, context, 16, 20)]
    return (net._between, shapes) if is_pair else (net._described, [(1, 3, 128, 160)])


CAPTURED: dict[str, Callable[[], tuple[Callable[..., Any], list[tuple[int, ...]]]]] = {
    "features": lambda: of_the_features(False),
    "features in half": lambda: of_the_features(True),
    "step": lambda: of_objects(FrameStep, tuple(step_inputs(3, 5, 9).values())),
    "learn": lambda: of_objects(Learn, learn_inputs(2)),
    "begin": lambda: of_objects(Begin, begin_inputs(2, 5, 9)),
    "flownet": of_flownet,
    "raft, an image": lambda: of_raft("small", False),
    "raft, a pair": lambda: of_raft("small", True),
    "raft large, a pair": lambda: of_raft("large", True),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_is_captured_stays_on_the_device(name: str) -> None:
    function, shapes = CAPTURED[name]()
    inputs = [torch.zeros(shape, device="meta") for shape in shapes]
    with torch.no_grad(), OnOneDevice() as seen:
        found = function(*inputs)
    assert not seen.others and seen.calls > 20
    assert {value.device.type for value in found} == {"meta"}


def test_a_check_for_capture_sees_what_comes_from_the_cpu() -> None:
    with OnOneDevice() as seen:
        torch.zeros(3, device="meta") + torch.arange(3).to("meta")
    assert seen.others


class Counted:
    """In place of ``Captured``."""

    made: list[tuple[torch.Size, ...]] = []

    def __init__(self, function: Any, inputs: Any, pool: Any) -> None:
        type(self).made.append(tuple(value.shape for value in inputs))
        self._function = function

    def __call__(self, *inputs: torch.Tensor) -> Any:
        return ["replayed", *self._function(*inputs)]


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """A compiled function, of tensors on no CPU."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    Counted.made = []
    monkeypatch.setattr("maskrnn_ros.model.torch.compiled.Captured", Counted)
    owner = Several(torch.nn.Conv2d(1, 1, 1, device="meta").requires_grad_(False))
    compiled = Compiled(owner, owner.outputs)
    compiled.held = owner  # type: ignore[attr-defined]  # it only refers to it
    return compiled


def is_replayed(compiled: Compiled, size: int) -> bool:
    return compiled(torch.zeros(1, 1, size, size, device="meta"))[0] == "replayed"


def test_a_size_is_captured_when_it_comes_again(on_a_gpu: Compiled) -> None:
    said = [is_replayed(on_a_gpu, size) for size in (3, 3, 3, 4, 3, 5, 4, 4, 3)]
    #                          3 again; 4 once; 3 is kept; 5 once; 4 not at once again; 4 again
    assert said == [False, True, True, False, True, False, False, True, True]
    assert [shapes[0][2] for shapes in Counted.made] == [3, 4]


def test_captures_of_old_sizes_go(on_a_gpu: Compiled) -> None:
    for size in range(1, 21):
        assert [is_replayed(on_a_gpu, size) for _ in range(2)] == [False, True]
    assert len(on_a_gpu._captures) == 8
    assert is_replayed(on_a_gpu, 20) and not is_replayed(on_a_gpu, 1)


def test_the_trunk_of_a_training_is_not_captured(on_a_gpu: Compiled) -> None:
    trunk = load_lite0(device="meta")
    for _ in range(3):
        trunk.maps(torch.zeros(2, 3, 32, 32, device="meta"))
    assert not Counted.made


def test_what_cannot_be_captured_runs_without_and_says_so_once(
    on_a_gpu: Compiled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*arguments: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("maskrnn_ros.model.torch.compiled.Captured", refuses)
    assert not any(is_replayed(on_a_gpu, 3) for _ in range(5))
    (record,) = caplog.records
    assert "the networks run without: operation not permitted" in record.getMessage()


# --- the engine itself ---


@pytest.mark.parametrize("make", [load_lite0, made])
def test_a_network_is_freed_at_once(make: Callable[[], object]) -> None:
    net = make()  # torch's own tracing keeps what it traced until garbage is looked for
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_a_cuda_device_that_is_not_there_is_refused_by_name() -> None:
    absent = f"cuda:{torch.cuda.device_count() if torch.cuda.is_available() else 0}"
    with pytest.raises(RuntimeError, match=f"device '{absent}' was asked for, but torch sees"):
        choose_device(absent)
    with pytest.raises(RuntimeError, match=f"device '{absent}' was asked for, but torch sees"):
        made(device=absent)


def test_masks_of_an_object_that_stands_still_stay_in_torch_too(in_torch: TorchEngine) -> None:
    one = Tracker(TORCH, still, in_torch)
    one.seed(world.seed(0, shapes=LARGE), world.frame(0, LARGE))
    for stamp_ns in (1, 2, 3):
        tracks = one.step(dataclasses.replace(world.frame(0, LARGE), stamp_ns=world.stamp_ns(stamp_ns)))
    truth = world.labels(0, LARGE)
    assert all(((tracks.labels == i) & (truth == i)).sum() > 0.9 * (truth == i).sum() for i in (1, 2))
