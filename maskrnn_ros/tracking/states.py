# SPDX-License-Identifier: Apache-2.0
"""The table of what is known of all instances between two frames: a column for each thing, a row for each instance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Engine
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.state import InstanceMemory, Still
from maskrnn_ros.tracking.target import Known, replaced, stacked, taken
from maskrnn_ros.types import BoolArray, InstanceState

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class States(Mapping[int, InstanceMemory]):
    """States of K instances on one frame, by id; what is asked for by its id is a row, which shares the arrays.

    Nobody changes it. For the columns see ``InstanceMemory``.

    Args:
        ids: Ascending.
        names: One each.
        patches: Likewise.
        phases: ``InstanceMemory.state`` of each.
        seeded_ns: int64, (K,).
        age: int64, (K,).
        frames_unseen: int64, (K,).
        area: int64, (K,).
        usual_area: float64, (K,).
        velocity: float64, (K, 2); NaN where unknown.
        seed_masks: One each.
        known: Of all; None without networks.
        stills: One each.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    patches: Patches
    phases: tuple[InstanceState, ...]
    seeded_ns: Ints
    age: Ints
    frames_unseen: Ints
    area: Ints
    usual_area: Numbers
    velocity: Numbers
    seed_masks: tuple[BoolArray | None, ...]
    known: Known | None
    stills: tuple[Still | None, ...]

    @staticmethod
    def of(rows: Mapping[int, InstanceMemory], engine: Engine | None = None) -> States:
        """A table of states by id; the engine is that of their networks."""
        if isinstance(rows, States):
            return rows
        ids = tuple(sorted(rows))
        states = [rows[i] for i in ids]
        known = [state.known for state in states if state.known is not None]
        assert len(known) in (0, len(states))  # the networks have begun all of them, or there are none

        def column(name: str, dtype: type) -> npt.NDArray[Any]:
            return np.array([getattr(state, name) for state in states], dtype)

        velocities = [(np.nan, np.nan) if state.velocity is None else state.velocity for state in states]
        return States(
            ids=ids,
            names=tuple(state.name for state in states),
            patches=Patches.of([state.patch for state in states]),
            phases=tuple(state.state for state in states),
            seeded_ns=column("seeded_ns", np.int64),
            age=column("age", np.int64),
            frames_unseen=column("frames_unseen", np.int64),
            area=column("area", np.int64),
            usual_area=column("usual_area", np.float64),
            velocity=np.array(velocities, np.float64).reshape(-1, 2),
            seed_masks=tuple(state.seed_mask for state in states),
            known=stacked(known, engine) if known and engine is not None else None,
            stills=tuple(state.still for state in states),
        )

    @property
    def begun(self) -> Known:
        """What the networks carry of instances that they have begun."""
        assert self.known is not None
        return self.known

    @property
    def velocities(self) -> list[tuple[float, float] | None]:
        """(x, y) of each, None where unknown."""
        return [None if x != x else (x, y) for x, y in self.velocity.tolist()]

    @property
    def resting(self) -> int:
        """How many of them were not looked at on this frame, see ``rest``."""
        return sum(still is not None and still.age < age for still, age in zip(self.stills, self.age, strict=True))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __getitem__(self, instance_id: int) -> InstanceMemory:
        try:
            k = self.ids.index(instance_id)
        except ValueError:
            raise KeyError(instance_id) from None
        return InstanceMemory(
            instance_id=instance_id,
            name=self.names[k],
            patch=self.patches[k],
            state=self.phases[k],
            seeded_ns=int(self.seeded_ns[k]),
            age=int(self.age[k]),
            frames_unseen=int(self.frames_unseen[k]),
            area=int(self.area[k]),
            usual_area=float(self.usual_area[k]),
            velocity=self.velocities[k],
            seed_mask=self.seed_masks[k],
            known=None if self.known is None else taken(self.known, k),
            still=self.stills[k],
        )

    def __contains__(self, instance_id: object) -> bool:
        return instance_id in self.ids

    def only(self, ids: Sequence[int]) -> States:
        """The rows of some ids, ascending."""
        if tuple(ids) == self.ids:
            return self
        which = [self.ids.index(i) for i in ids]

        def some(column: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(column[k] for k in which)

        return States(
            ids=tuple(ids),
            names=some(self.names),
            patches=Patches.of([self.patches[k] for k in which]),
            phases=some(self.phases),
            seeded_ns=self.seeded_ns[which],
            age=self.age[which],
            frames_unseen=self.frames_unseen[which],
            area=self.area[which],
            usual_area=self.usual_area[which],
            velocity=self.velocity[which],
            seed_masks=some(self.seed_masks),
            known=None if self.known is None or not which else taken(self.known, which),
            stills=some(self.stills),
        )

    def joined(self, which: npt.NDArray[np.intp], some: States, found: Found, engine: Engine) -> Found:
        """What there is of all on the next frame, where it was looked for some only; the others are as they are here.

        Args:
            which: Numbers of those that were looked for.
            some: Their rows.
            found: What there is of them.
            engine: That of their networks.
        """
        patches = [self.patches[k] for k in range(len(self))]
        area, sees = self.area.copy(), np.ones(len(self), np.bool_)
        area[which], sees[which] = found.area, found.sees
        for j, k in enumerate(which.tolist()):
            patches[k] = found.patches[j]
        assert found.known is not None
        known = replaced(self.begun, which.tolist(), some.begun, found.known, engine)
        return Found(Patches.of(patches), known, area, sees)


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """K instances on the next frame.

    Args:
        patches: Their probabilities at the pixels of the working image; nothing of one that is not seen.
        known: What is carried on; None without networks.
        area: Pixels with probability of at least 0.5, int64 (K,).
        sees: Whether each is there, bool (K,).
    """

    patches: Patches
    known: Known | None
    area: Ints
    sees: BoolArray
