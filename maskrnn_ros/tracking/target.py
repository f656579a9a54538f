# SPDX-License-Identifier: Apache-2.0
"""The target models of K objects: what the cells of each have in common, in closed form, from its seed on.

``model.torch.target`` is the same on tensors, with gradients, for training. Ridge regression from the columns of a
frame to target channels needs two sums, columns times columns and columns times targets. They are all that is kept: a
trusted frame is added to those of the recent frames, which fade; the seed keeps its share for ever, so that nothing
drifts away from it. A solve has no place in a graph; in float64 it is the same on every machine to well below what
decides.

What is known of K objects is one array for each thing that is known, its first axis the objects. Nobody writes into
them, so that what did not change is shared by all frames that hold it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Engine, Keys, Objects, Opaque, Summed
from maskrnn_ros.model.shapes import CODES, COLUMNS, CROP, HIDDEN, KEYS, SEED_SHARE, TARGET

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

UNKNOWN = -np.inf
"""Usual likeness of an object that was not seen again yet: whatever is found is as like its seed as that."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Of K regressions.

    Args:
        square: float32, (K, COLUMNS + 1, COLUMNS + 1).
        target: float32, (K, COLUMNS + 1, TARGET).
    """

    square: Floats
    target: Floats

    def blend(self, other: Sums, share: float | npt.NDArray[np.float64]) -> Sums:
        """(1 - share) of these and share of the others; a share may be (K,)."""
        weight = np.asarray(share, np.float32)[..., None, None]
        return Sums(
            self.square + weight * (other.square - self.square), self.target + weight * (other.target - self.target)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """What is known of K objects: from their seeds, and from recent frames.

    Args:
        seed: Of the target models.
        recent: Likewise.
        seed_keys: Cells that are matched.
        newest_keys: Those of the newest frame that could be trusted; of the seed until there is one.
    """

    seed: Sums
    recent: Sums
    seed_keys: Keys
    newest_keys: Keys

    def after(self, which: Sequence[int], found: Summed, rates: npt.NDArray[np.float64]) -> Memory:
        """The same with a new frame in it.

        Args:
            which: Those that learn from it.
            found: Sums of those, keys of all.
            rates: With what weight, (number of those,).
        """
        old = taken(self.recent, which).blend(Sums(found.square, found.target), rates)
        recent = Sums(self.recent.square.copy(), self.recent.target.copy())
        recent.square[which], recent.target[which] = old.square, old.target
        return dataclasses.replace(self, recent=recent, newest_keys=Keys(found.code, found.values))

    def coefficients(self, ridge: float, which: Sequence[int]) -> Floats:
        """Of the target models of some, n, float32 (n, COLUMNS + 1, TARGET); the ridge is ``Engine.ridge``."""
        sums = taken(self.recent, which).blend(taken(self.seed, which), SEED_SHARE)
        square, target = sums.square.astype(np.float64), sums.target.astype(np.float64)
        diagonal = np.ascontiguousarray(np.diagonal(square, axis1=1, axis2=2))
        weights = math.exp(ridge) * diagonal.mean(axis=1) + 1e-6
        return np.linalg.solve(square + weights[:, None, None] * np.eye(square.shape[1]), target).astype(np.float32)

    @staticmethod
    def nothing(count: int, engine: Engine) -> Memory:
        """Memories that know nothing."""
        sums = Sums(
            np.zeros((count, COLUMNS + 1, COLUMNS + 1), np.float32), np.zeros((count, COLUMNS + 1, TARGET), np.float32)
        )
        keys = Keys(engine.zeros(count, CODES, KEYS), engine.zeros(count, 2, KEYS))
        return Memory(sums, sums, keys, keys)


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """What K objects take with them from a frame to the next.

    Args:
        probability: float32, (K, FINE, FINE): in their crops, gated, before the merge; 0 where one is not seen.
        crop: float32, (K, 4), x0 y0 x1 y1, pixels of the working image.
        hidden: (K, HIDDEN, CROP / 2, CROP / 2), the engine's; 0 where one is not seen.
    """

    probability: Floats
    crop: Floats
    hidden: Opaque

    @staticmethod
    def begun(probability: Floats, crop: Floats, engine: Engine) -> Carried:
        """Of objects as they are marked."""
        return Carried(probability, crop, engine.zeros(len(crop), HIDDEN, CROP // 2, CROP // 2))


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of K objects beside their masks; of one it is the same without K.

    Args:
        carried: Masks and hidden states in their crops.
        memory: Their target models.
        weights: Coefficients of those, float32, (K, COLUMNS + 1, TARGET).
        likeness: How much the cells of each usually resemble those of its seed, float64, (K,), -1..1; ``UNKNOWN`` until
            it was seen once more.
        alike: Where else something looks like it, see ``look_alikes``, float32, (K, GRID, GRID).
    """

    carried: Carried
    memory: Memory
    weights: Floats
    likeness: npt.NDArray[np.float64]
    alike: Floats

    def told(self, sought: Floats) -> Objects:
        """What a step is given of them; where they may be if they are lost, boxes (K, 4), is not known here."""
        return Objects(
            probability=self.carried.probability,
            boxes=self.carried.crop,
            hidden=self.carried.hidden,
            coefficients=self.weights,
            seed=self.memory.seed_keys,
            newest=self.memory.newest_keys,
            sought=sought,
        )


def taken(value: T, which: int | Sequence[int]) -> T:
    """Of what is known of K objects that of one, which shares the arrays, or of some, in arrays of their own."""
    index: Any = (which, ...) if isinstance(which, int) else list(which)
    return _mapped(lambda array: array[index], value)


def stacked(values: Sequence[T], engine: Engine) -> T:
    """What is known of single objects as of all of them."""

    def stack(*arrays: Any) -> Any:
        return np.stack(arrays) if isinstance(arrays[0], np.ndarray) else engine.stack(arrays)

    return _mapped(stack, *values)


def replaced(value: T, which: Sequence[int], some: T, by: T, engine: Engine) -> T:
    """What is known of K objects, with that of some in its place.

    Args:
        value: Of K objects.
        which: Numbers of the some.
        some: Of those, taken from the value.
        by: What comes in its place; arrays that are still those of ``some`` leave the value's as it is.
        engine: Stacks its arrays.
    """
    at = {k: j for j, k in enumerate(which)}

    def put(array: Any, before: Any, after: Any) -> Any:
        if after is before:
            return array
        if not isinstance(array, np.ndarray):
            return engine.stack([after[at[k]] if k in at else array[k] for k in range(len(array))])
        array = array.copy()
        array[list(which)] = after
        return array

    return _mapped(put, value, some, by)


def _mapped(function: Callable[..., Any], *values: T) -> T:
    """A function of each array of values that are built alike."""
    first: Any = values[0]
    if not dataclasses.is_dataclass(first):
        found: T = function(*values)
        return found
    parts = (tuple(getattr(value, field.name) for value in values) for field in dataclasses.fields(first))
    made: Any = type(first)
    whole: T = made(*(_mapped(function, *part) for part in parts))
    return whole
