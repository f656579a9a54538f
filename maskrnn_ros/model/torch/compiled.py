# SPDX-License-Identifier: Apache-2.0
"""Frozen modules compiled: traced for the sizes that they see, or by ``torch.compile``."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_SIZES = 4
"""Compiled graphs that are kept: a few sizes of images, each perhaps with and without a hidden state."""


class Compiled:
    """A function of a module; on a CPU traced, with the weights as constants: up to twice as fast.

    The results of the traced function are its own, bit by bit. What learns is not compiled: its weights change.

    Args:
        owner: The module whose weights the function uses.
        function: A method of it: takes tensors, returns several.
        mode: As the setting ``compile``; unless it is off, ``torch.compile`` takes the place of the trace.
    """

    def __init__(self, owner: nn.Module, function: Callable[..., Sequence[Tensor]], mode: str = "off") -> None:
        self.mode = mode
        self._optimised: Callable[..., Sequence[Tensor]] | None = None
        # the owner holds this: a reference back would keep weights until the garbage is looked for, sessions later
        self._weak_owner = weakref.ref(owner)
        self._weak_function = weakref.WeakMethod(function)
        self._graphs: dict[tuple[torch.Size, ...], Callable[..., Sequence[Tensor]]] = {}
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
        if any(value.requires_grad for value in self._owner.parameters()):
            return self._function(*inputs)
        if self.mode != "off":
            return self._optimise(inputs)
        if inputs[0].device.type != "cpu":
            return self._function(*inputs)
        return self._graph(inputs)(*inputs)

    def _optimise(self, inputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        with self._lock:
            if self._optimised is None:
                self._optimised = torch.compile(self._function, mode=self.mode)
        found = self._optimised(*inputs)
        # the next replay of a CUDA graph writes over its outputs, and features and hidden states are kept
        return [value.clone() for value in found] if self.mode == "reduce-overhead" else found

    def _graph(self, inputs: tuple[Tensor, ...]) -> Callable[..., Sequence[Tensor]]:
        shapes = tuple(tensor.shape for tensor in inputs)
        with self._lock:  # a thread that adapts a head may come at the same time
            if shapes not in self._graphs:
                call = AsModule(self._owner.eval(), self._function)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the tracer warns of sizes that become constants, as they shall
                    traced = torch.jit.trace(call.eval(), inputs, check_trace=False)  # type: ignore[no-untyped-call]
                    self._graphs[shapes] = torch.jit.freeze(traced)
                while len(self._graphs) > _SIZES:
                    del self._graphs[next(iter(self._graphs))]
            return self._graphs[shapes]


class AsModule(nn.Module):
    """A function of a module as a module, which is what can be traced, frozen and exported."""

    def __init__(self, owner: nn.Module, function: Callable[..., Sequence[Tensor]]) -> None:
        super().__init__()
        self.owner = owner
        self._function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._function(*inputs))
