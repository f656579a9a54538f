# SPDX-License-Identifier: Apache-2.0
"""Frozen modules compiled for the sizes that they see."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_SIZES = 4
"""Compiled graphs that are kept: a few sizes of images, each perhaps with and without a hidden state."""


class Compiled:
    """A function of a module; on a CPU traced, with the weights as constants: up to twice as fast.

    The results are those of the function, bit by bit. What learns is not compiled: its weights change.

    Args:
        owner: The module whose weights the function uses.
        function: Takes tensors, returns several.
    """

    def __init__(self, owner: nn.Module, function: Callable[..., Sequence[Tensor]]) -> None:
        self._owner = owner
        self._function = function
        self._graphs: dict[tuple[torch.Size, ...], Callable[..., Sequence[Tensor]]] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """What the function says of them."""
        if inputs[0].device.type != "cpu" or any(value.requires_grad for value in self._owner.parameters()):
            return self._function(*inputs)
        return self._graph(inputs)(*inputs)

    def _graph(self, inputs: tuple[Tensor, ...]) -> Callable[..., Sequence[Tensor]]:
        shapes = tuple(tensor.shape for tensor in inputs)
        with self._lock:  # a thread that adapts a head may come at the same time
            if shapes not in self._graphs:
                call = _Call(self._owner.eval(), self._function)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the tracer warns of sizes that become constants, as they shall
                    traced = torch.jit.trace(call.eval(), inputs, check_trace=False)  # type: ignore[no-untyped-call]
                    self._graphs[shapes] = torch.jit.freeze(traced)
                while len(self._graphs) > _SIZES:
                    del self._graphs[next(iter(self._graphs))]
            return self._graphs[shapes]


class _Call(nn.Module):
    """The function as a module, which is what can be frozen."""

    def __init__(self, owner: nn.Module, function: Callable[..., Sequence[Tensor]]) -> None:
        super().__init__()
        self.owner = owner
        self._function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._function(*inputs))
