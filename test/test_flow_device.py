# SPDX-License-Identifier: Apache-2.0
"""Flow and states stay on their device while instances are carried."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from world import WARP_ONLY, WITHOUT_NETWORK, frame, network, seed

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.model.compiled import Compiled
from maskrnn_ros.model.weights import load_trunk
from maskrnn_ros.tracking import Tracker

CPU = torch.device("cpu")


class DeviceCopies(TorchDispatchMode):
    """Notes every copy between devices that torch itself is asked for."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, Tensor)]
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and len({value.device for value in (*tensors, out)}) > 1:
            self.seen.append(name)
        return out


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Also what is no copy where the device is the CPU already, but would be one on a GPU.

    The networks run as they do on a GPU: traced, they are one call in which nothing could be seen.
    """
    monkeypatch.setattr(Compiled, "__call__", lambda compiled, *inputs: compiled._function(*inputs))
    seen: list[str] = []
    for name in ("cpu", "numpy", "__array__"):
        original = getattr(Tensor, name)

        def noted(tensor: Tensor, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            if tensor.ndim:
                seen.append(_name)
            return _original(tensor, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, noted)
    return seen


def still(current: Tensor, previous: Tensor) -> Tensor:
    """A flow backend that is torch alone."""
    return (current.float() - previous.float())[:2] * 0.0


def bouncing(current: Tensor, previous: Tensor) -> Tensor:
    return torch.from_numpy(still(current, previous).cpu().numpy())


def through_meta(current: Tensor, previous: Tensor) -> Tensor:
    still(current, previous).to("meta")
    return still(current, previous)


def carried(config: Config, flow: Any, seen: list[str], parts: bool, together: bool = False) -> Tracker:
    """A tracker after a step, watched from the first operation on the prepared frame to the last before the merge."""
    trunk, net = (load_trunk("streams"), network(0.05)) if parts else (None, None)
    tracker = Tracker(config, flow, CPU, trunk, net, together=together)
    tracker.seed(seed(0), frame(0))
    prepared = tracker.prepare(frame(1))
    seen.clear()
    with DeviceCopies(seen):
        tracker.advance(prepared)
    return tracker


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in a batch"])
@pytest.mark.parametrize("parts", [False, True], ids=["flow alone", "all parts"])
def test_nothing_leaves_the_device_while_instances_are_carried(parts: bool, together: bool, seen: list[str]) -> None:
    config = with_values(WITHOUT_NETWORK, adaptation__method="none") if parts else WARP_ONLY
    tracker = carried(config, still, seen, parts, together)
    assert len(tracker.states) == 2
    assert all(state.probability.max() > 0.5 for state in tracker.states.values())
    assert seen == []


def test_a_flow_that_goes_through_the_cpu_is_noticed(seen: list[str]) -> None:
    carried(WARP_ONLY, bouncing, seen, parts=False)
    assert seen == ["cpu", "numpy"]


def test_a_copy_to_another_device_is_noticed(seen: list[str]) -> None:
    carried(WARP_ONLY, through_meta, seen, parts=False)
    assert seen == ["_to_copy"]
