# SPDX-License-Identifier: Apache-2.0
"""What a GPU would run, on the CPU: instances in one batch, one transfer each way, half precision, torch.compile."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import world
from engine_bench import CPU, HEADS, SHAPES, least_overlap, models, run, tracker
from torch.utils._python_dispatch import TorchDispatchMode

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.compiled import Compiled
from maskrnn_ros.model.network import FastNet
from maskrnn_ros.model.trunk import TrainedTrunk, net_of
from maskrnn_ros.model.weights import DECODER, load_lite0, load_step, load_trunk
from maskrnn_ros.tracking import Tracker, estimate, follow, gate, outputs, view
from maskrnn_ros.tracking import patch as patch_module
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.types import Box


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("localization", [False, True])
def test_a_batch_says_what_one_by_one_says(engine: str, localization: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    found = models(engine=engine, precision="float32")
    looked: list[int] = []
    streams = type(found.network).streams
    monkeypatch.setattr(
        type(found.network),
        "streams",
        lambda net, seen, *others: looked.append(len(seen)) or streams(net, seen, *others),
    )
    pair = [tracker(found, together=together) for together in (False, True)]
    for one in pair:
        one.config = with_values(one.config, network__localization=localization)
    alone = run(pair[0])
    assert looked == [1] * 15
    looked.clear()
    at_once = run(pair[1])
    assert looked == [3] * 5
    assert least_overlap(alone, at_once) > 0.995
    for i in (1, 2, 3):
        one, other = (each.states[i] for each in pair)
        torch.testing.assert_close(one.probability, other.probability, atol=1e-2, rtol=0)
        torch.testing.assert_close(one.hidden.state, other.hidden.state, atol=1e-2, rtol=0)


def test_in_a_batch_each_keeps_its_own_hidden_state_also_one_that_begins_anew() -> None:
    found = models(engine="torch")
    alone, at_once = (tracker(found, together=together) for together in (False, True))
    for one in (alone, at_once):
        one.seed(world.seed(0, 1, 2, shapes=SHAPES), world.frame(0, SHAPES))
        one.step(world.frame(1, SHAPES))
        one.seed(world.seed(2, 3, shapes=SHAPES), world.frame(2, SHAPES))
        one.step(world.frame(3, SHAPES))
    for i in (1, 2, 3):
        torch.testing.assert_close(
            alone.states[i].hidden.state, at_once.states[i].hidden.state, atol=1e-3, rtol=0
        )  # 3 had none, 1 and 2 had


def test_masks_are_fetched_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[torch.Size] = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: fetched.append(tensor.shape) or cpu(tensor))
    values = {i: torch.rand(i + 2, 5 * i) for i in (1, 4, 9)}
    found = outputs._fetched_at_once(values)
    assert len(fetched) == 1
    assert list(found) == [1, 4, 9]
    assert all(np.array_equal(found[i], values[i].numpy()) for i in values)
    # and it is what is taken where the patches are not on the CPU
    monkeypatch.setattr(outputs, "_fetched_at_once", lambda values: {i: np.zeros(v.shape) for i, v in values.items()})
    patch = Patch(torch.empty(4, 4, device="meta"), Box(0, 0, 4, 4), (8, 8))
    assert outputs.enlarge({7: patch}, (8, 8))[7].probability.shape == (5, 5)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 1.0])
def test_a_box_that_is_read_at_once_is_the_box(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for size in ((1, 1), (7, 30), (31, 8), (40, 60)):
        for _ in range(10):
            values = torch.rand(size, generator=generator)
            assert gate.box_at_once(values < share) == Box.of_mask((values < share).numpy())


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors one by one: on a GPU each is a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero")
        return func(*args, **(kwargs or {}))


def test_few_numbers_are_read_for_each_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    found, reads = models(engine="torch"), Reads()
    monkeypatch.setattr(Compiled, "__call__", lambda compiled, *inputs: compiled._function(*inputs))
    for module in (estimate, patch_module, view):
        monkeypatch.setattr(module, "box_of", lambda values, at=0.5: gate.box_at_once(values >= at))
    tolist = torch.Tensor.tolist

    def noted(tensor: torch.Tensor) -> Any:
        reads.count += 1
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", noted)
    counts = []
    for ids in ((1,), (1, 2, 3)):
        one = tracker(found, together=True)
        one.seed(world.seed(0, *ids, shapes=SHAPES), world.frame(0, SHAPES))
        prepared = one.prepare(world.frame(1, SHAPES))
        reads.count = 0
        with reads:
            one.advance(prepared)
        assert all(state.frames_unseen == 0 for state in one.states.values())
        counts.append(reads.count)
    assert counts[1] - counts[0] <= 2 * 9 and counts[0] <= 9 + 2, counts


IN_A_ROW = tuple(world.Shape(2 * k + 1, 4 + 40 * k, 8 + 20 * k, 32, 36, 2, 0) for k in range(3))
"""Of odd ids: all enter their memories on the same frames."""


def decoding(*ids: int) -> Tracker:
    """The decoder that ships, after two frames."""
    trunk = load_trunk()
    assert isinstance(trunk, TrainedTrunk)
    following = follow.Following(load_step(DECODER), trunk)
    found = Tracker(Config(), world.ExactFlow(IN_A_ROW), CPU, trunk, following=following)
    found.seed(world.seed(0, *ids, shapes=IN_A_ROW), world.frame(0, IN_A_ROW))
    found.step(world.frame(1, IN_A_ROW))
    return found


def in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow.Following, "_groups", staticmethod(lambda count, device: [slice(0, count)]))


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_decoder_reads_no_more_for_many_objects_than_for_one(
    is_ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one_batch(monkeypatch)
    monkeypatch.setattr(Compiled, "__call__", lambda compiled, *inputs: compiled._function(*inputs))
    reads = Reads()

    def noted(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            reads.count += 1
            return function(*args, **kwargs)

        return called

    for name in ("tolist", "cpu", "new_tensor"):  # what is sent waits, too
        monkeypatch.setattr(torch.Tensor, name, noted(getattr(torch.Tensor, name)))
    monkeypatch.setattr(torch, "tensor", noted(torch.tensor))
    ignored = np.zeros(world.image(0, IN_A_ROW).shape[:2], np.bool_)
    ignored[:4] = True
    counts = []
    for ids in ((1,), (1, 3), (1, 3, 5)):
        one = decoding(*ids)
        before = {i: state.known for i, state in one.states.items()}
        prepared = one.prepare(dataclasses.replace(world.frame(2, IN_A_ROW), ignored=ignored if is_ignored else None))
        reads.count = 0
        with reads:
            one.advance(prepared)
        counts.append(reads.count)
        for i, state in one.states.items():
            assert state.frames_unseen == 0 and before[i] is not None and state.known is not None
            assert state.known.memory.recent is not before[i].memory.recent, "it learned"
    assert counts[0] == counts[1] == counts[2] <= 10, counts


def test_a_batch_of_the_decoder_says_what_one_by_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, at_once = decoding(1, 3, 5), decoding(1, 3, 5)
    for number in (2, 3):
        found = alone.step(world.frame(number, IN_A_ROW))
        with monkeypatch.context() as patched:
            in_one_batch(patched)
            other = at_once.step(world.frame(number, IN_A_ROW))
        assert len(np.unique(found.labels)) == 4 and (found.labels != other.labels).mean() < 0.001
    for i in (1, 3, 5):
        one, other_state = alone.states[i], at_once.states[i]
        torch.testing.assert_close(one.probability, other_state.probability, atol=1e-3, rtol=0)
        assert one.known is not None and other_state.known is not None
        torch.testing.assert_close(one.known.weights, other_state.known.weights, atol=1e-2, rtol=1e-2)
        assert one.velocity == pytest.approx(other_state.velocity, rel=1e-3)


def test_a_frame_is_sent_to_the_device_once_and_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU: nothing can be fetched from it at all."""
    frame = world.frame(0)
    away = Tracker(world.WARP_ONLY, world.ExactFlow(), torch.device("meta"))
    sent: list[str] = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *where: sent.append(str(*where)) or to(tensor, *where))
    prepared = away.prepare(frame)
    assert sent == ["meta"] and prepared.image.device.type == "meta"
    assert np.array_equal(prepared.pixels, frame.image)
    assert prepared.nbytes == 2 * frame.image.nbytes  # both are held
    here = Tracker(world.WARP_ONLY, world.ExactFlow(), CPU).prepare(frame)
    assert here.host is None and np.array_equal(here.pixels, frame.image) and here.nbytes == frame.image.nbytes


def test_float16_computes_in_half_and_says_nearly_the_same() -> None:
    exact, half = models(engine="torch"), models(precision="float16")
    assert half.engine == "torch" and isinstance(half.network, FastNet)
    for parameter in (*net_of(half.trunk).parameters(), *half.network.parameters()):
        assert parameter.dtype == torch.float16
    assert {value.dtype for value in half.trunk.start.state_dict().values()} == {torch.float32}  # heads are trained
    pair = [tracker(exact), tracker(half, together=True)]
    one, other = (run(each) for each in pair)
    assert least_overlap(one, other) > 0.97
    state = pair[1].states[1]
    assert state.probability.dtype == state.hidden.state.dtype == torch.float32
    assert not torch.equal(state.hidden.state, pair[0].states[1].hidden.state)  # or nothing was in half


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compile_gives_every_frozen_function_to_torch_with_its_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = models(compile=mode)
    assert found.engine == "torch"
    masks = run(tracker(found, together=True))
    names = {"Lite0.forward", "FastNet.encoded", "FastNet.streamed"}
    assert {name for name, _ in asked} == names == set(calls) and len(asked) == 3
    assert {mode for _, mode in asked} == {mode}
    assert least_overlap(masks, run(tracker(models(engine="torch"), together=True))) > 0.995


def test_without_compile_torch_compile_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *arguments, **keywords: pytest.fail("asked"))
    run(tracker(models(engine="torch")), 2)


class Several(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def outputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.layer(x).relu()]


def test_a_network_is_freed_at_once() -> None:
    net = load_lite0()  # as beside ONNX Runtime: torch's own tracing keeps what it traced until garbage is looked for
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


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


def test_several_threads_refine_the_masks_that_one_refines() -> None:
    found = models(engine="torch")
    flow = world.ExactFlow(SHAPES)
    shared = Tracker(HEADS, flow, CPU, found.trunk, found.network, threads=1, refiners=3)
    alone, many = run(tracker(found, threads=1)), run(shared)
    assert all(np.array_equal(one.labels, other.labels) for one, other in zip(alone, many, strict=True))
