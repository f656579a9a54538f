# SPDX-License-Identifier: Apache-2.0
"""Frozen modules compiled: traced or captured for the sizes that they see, or by ``torch.compile``."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SIZES = 8
"""Compiled graphs that are kept: a few sizes of images, or numbers of objects."""

_logger = logging.getLogger(__name__)


class Compiled:
    """A function of a module; on a CPU traced, with the weights as constants: up to twice as fast.

    On a GPU it is captured as a CUDA graph: hundreds of kernels, each as short as its launch, are launched as one. The
    results of the trace are the function's own, bit by bit; a graph replays the same kernels. What learns is not
    compiled: its weights change.

    Args:
        owner: The module whose weights the function uses.
        function: A method of it: takes tensors, returns several.
        mode: As the setting ``compile``; unless it is off, ``torch.compile`` takes the place of trace and capture.
        is_traced: Whether it is, on a CPU.
        is_captured: Whether it is, on a GPU: what it needs in between stays allocated.
    """

    def __init__(
        self,
        owner: nn.Module,
        function: Callable[..., Sequence[Tensor]],
        mode: str = "off",
        *,
        is_traced: bool = True,
        is_captured: bool = True,
    ) -> None:
        self.mode = mode
        self._is_traced, self._is_captured = is_traced, is_captured
        self._optimised: Callable[..., Sequence[Tensor]] | None = None
        # the owner holds this: a reference back would keep weights until the garbage is looked for, sessions later
        self._weak_owner = weakref.ref(owner)
        self._weak_function = weakref.WeakMethod(function)
        self._graphs: dict[tuple[torch.Size, ...], Callable[..., Sequence[Tensor]]] = {}
        self._captures: dict[tuple[torch.Size, ...], Captured | None] = {}
        self._last: tuple[torch.Size, ...] = ()
        self._pool: Any = None
        self._lock = threading.Lock()

    @property
    def _owner(self) -> nn.Module:
        owner = self._weak_owner()
        assert owner is not None  # it is who calls
        return owner

    @property
    def _function(self) -> Callable[..., Sequence[Tensor]]:
        function = self._weak_function()
        assert function is not None
        return function

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """What the function says of them."""
        if next(self._owner.parameters()).requires_grad:  # all of them learn, or none: a walk takes longer than a graph
            return self._function(*inputs)
        if self.mode != "off":
            return self._optimise(inputs)
        if inputs[0].device.type == "cpu":
            return self._traced(inputs)(*inputs) if self._is_traced else self._function(*inputs)
        if not self._is_captured:
            return self._function(*inputs)
        with self._lock:  # a graph has one place for its inputs and outputs
            return (self._captured(inputs) or self._function)(*inputs)

    def _optimise(self, inputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        with self._lock:
            if self._optimised is None:
                self._optimised = torch.compile(self._function, mode=self.mode)
        found = self._optimised(*inputs)
        # the next replay of a CUDA graph writes over its outputs, and features and hidden states are kept
        return [value.clone() for value in found] if self.mode == "reduce-overhead" else found

    def _traced(self, inputs: tuple[Tensor, ...]) -> Callable[..., Sequence[Tensor]]:
        shapes = tuple(tensor.shape for tensor in inputs)
        with self._lock:  # a thread that adapts a head may come at the same time
            if shapes not in self._graphs:
                call = AsModule(self._owner.eval(), self._function)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the tracer warns of sizes that become constants, as they shall
                    traced = torch.jit.trace(call.eval(), inputs, check_trace=False)  # type: ignore[no-untyped-call]
                    self._graphs[shapes] = torch.jit.freeze(traced)
                _forget_oldest(self._graphs)
            return self._graphs[shapes]

    def _captured(self, inputs: tuple[Tensor, ...]) -> Captured | None:
        """The CUDA graph for such inputs; None: there is none.

        Shapes that come but once, as those of a catch-up do, are not worth a capture.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        is_new, self._last = shapes != self._last, shapes
        if is_new or shapes in self._captures:
            return self._captures.get(shapes)
        with torch.cuda.device(inputs[0].device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                self._captures[shapes] = Captured(self._function, inputs, self._pool)
            except RuntimeError as error:
                self._captures[shapes] = None
                _logger.warning("a CUDA graph could not be captured, the networks run without: %s", error)
        _forget_oldest(self._captures)
        return self._captures[shapes]


def _forget_oldest(graphs: dict[tuple[torch.Size, ...], Any]) -> None:
    while len(graphs) > _SIZES:
        del graphs[next(iter(graphs))]


class Captured:
    """A function as a CUDA graph, for inputs of the same shapes. One call at a time.

    Args:
        function: Takes tensors, returns several; on the device alone, without a word from the host.
        inputs: What it is captured with.
        pool: Memory that graphs share which never run at the same time.

    Raises:
        RuntimeError: The function cannot be captured.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], pool: Any) -> None:
        self._inputs = [value.clone() for value in inputs]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate and select their kernels on the first call of a stream
            function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate meanwhile
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._outputs = list(function(*self._inputs))

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """What the function says of them."""
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value)
        self._graph.replay()
        return [value.clone() for value in self._outputs]  # the next replay writes over them, and callers keep them


class AsModule(nn.Module):
    """A function of a module as a module, which is what can be traced, frozen and exported."""

    def __init__(self, owner: nn.Module, function: Callable[..., Sequence[Tensor]]) -> None:
        super().__init__()
        self.owner = owner
        self._function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._function(*inputs))
