# SPDX-License-Identifier: Apache-2.0
"""The target model of one object: what its cells have in common, in closed form, from the seed on.

``model.torch.target`` is the same on tensors, with gradients, for training. Ridge regression from the columns of a
frame to target channels needs two sums, columns times columns and columns times targets. They are all that is kept: a
trusted frame is added to those of the recent frames, which fade; the seed keeps its share for ever, so that nothing
drifts away from it. A solve has no place in a graph; in float64 it is the same on every machine to well below what
decides.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Engine, Keys, Opaque, Summed
from maskrnn_ros.model.shapes import CODES, COLUMNS, CROP, FINE, HIDDEN, KEYS, SEED_SHARE, TARGET

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Of a regression.

    Args:
        square: float32, (COLUMNS + 1, COLUMNS + 1).
        target: float32, (COLUMNS + 1, TARGET).
    """

    square: Floats
    target: Floats

    @staticmethod
    def of(found: Summed, k: int) -> Sums:
        """Those of one of several objects."""
        return Sums(found.square[k].copy(), found.target[k].copy())

    def blend(self, other: Sums, share: float) -> Sums:
        """(1 - share) of these and share of the others."""
        weight = np.float32(share)
        return Sums(
            self.square + weight * (other.square - self.square), self.target + weight * (other.target - self.target)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """What is known of an object: from its seed, and from recent frames.

    Args:
        seed: Of the target model.
        recent: Likewise.
        seed_keys: Cells that are matched.
        newest_keys: Those of the newest frame that could be trusted; of the seed until there is one.
    """

    seed: Sums
    recent: Sums
    seed_keys: Keys
    newest_keys: Keys

    def after(self, sums: Sums, keys: Keys, rate: float) -> Memory:
        """The same with a new frame in it."""
        return dataclasses.replace(self, recent=self.recent.blend(sums, rate), newest_keys=keys)

    def coefficients(self, ridge: float) -> Floats:
        """Of the target model, float32 (COLUMNS + 1, TARGET); the ridge is ``Engine.ridge``."""
        sums = self.recent.blend(self.seed, SEED_SHARE)
        square, target = sums.square.astype(np.float64), sums.target.astype(np.float64)
        weight = math.exp(ridge) * float(np.diagonal(square).mean()) + 1e-6
        return np.linalg.solve(square + weight * np.eye(len(square)), target).astype(np.float32)

    @staticmethod
    def nothing(engine: Engine) -> Memory:
        """A memory that knows nothing."""
        sums = Sums(np.zeros((COLUMNS + 1, COLUMNS + 1), np.float32), np.zeros((COLUMNS + 1, TARGET), np.float32))
        keys = Keys(engine.zeros(CODES, KEYS), engine.zeros(2, KEYS))
        return Memory(sums, sums, keys, keys)


@dataclasses.dataclass(frozen=True, eq=False)
class Carried:
    """What an object takes with it from a frame to the next.

    Args:
        probability: float32, (FINE, FINE): in its crop, gated, before the merge.
        crop: float32, (4,), x0 y0 x1 y1, pixels of the working image.
        hidden: (HIDDEN, CROP / 2, CROP / 2), the engine's.
    """

    probability: Floats
    crop: Floats
    hidden: Opaque

    @staticmethod
    def nowhere(crop: Floats, engine: Engine) -> Carried:
        """Of an object that is not seen."""
        return Carried(np.zeros((FINE, FINE), np.float32), crop, engine.zeros(HIDDEN, CROP // 2, CROP // 2))


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of one object beside its mask.

    Args:
        carried: Mask and hidden state in its crop.
        memory: Its target model.
        weights: Coefficients of that, float32, (COLUMNS + 1, TARGET).
        likeness: How much its cells usually resemble those of its seed, -1..1; None until it was seen once more.
    """

    carried: Carried
    memory: Memory
    weights: Floats
    likeness: float | None = None
