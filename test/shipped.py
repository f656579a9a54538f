# SPDX-License-Identifier: Apache-2.0
"""The networks that ship, in ONNX Runtime and float32, loaded once for all tests; and whether states are the same."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import world

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import FlowEstimator
from maskrnn_ros.model.engine import Engine
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.types import UInt8Array

CONFIG = with_values(Config(), engine="onnxruntime", precision="float32", threads=1, refinement__enabled=False)
"""As the package comes, but for numbers that are the same on every machine, and for masks as the networks give them."""

LARGE = (world.Shape(1, 12, 12, 40, 36, 2, 0), world.Shape(2, 76, 40, 40, 48, -1, 1))
"""Shapes of the world of which features see something."""


@functools.cache
def engine() -> Engine:
    """The engine of ``CONFIG``."""
    return load_engine(CONFIG)


def tracker(
    config: Config = CONFIG,
    shapes: tuple[world.Shape, ...] = LARGE,
    flow: FlowEstimator | None = None,
    threads: int = 1,
) -> Tracker:
    """A tracker with the networks and, unless another is given, with the true flow of these shapes."""
    return Tracker(config, flow or world.ExactFlow(shapes), engine(), threads=threads)


def still(current: UInt8Array, previous: UInt8Array) -> np.ndarray:
    """A flow by which nothing moves."""
    return np.zeros((2, *current.shape[:2]), np.float32)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two masks."""
    return float(np.count_nonzero(one & other) / max(1, np.count_nonzero(one | other)))


def assert_same(one: object, other: object, path: str = "") -> None:
    """Both hold the same, array for array, bit by bit."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray) and np.array_equal(one, other), path
    elif isinstance(one, Mapping):
        assert isinstance(other, Mapping) and list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, tuple):
        assert isinstance(other, tuple) and len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{number}]")
    elif dataclasses.is_dataclass(one):
        assert type(one) is type(other), path
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    else:
        assert one == other, path
