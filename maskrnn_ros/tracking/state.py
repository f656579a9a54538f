# SPDX-License-Identifier: Apache-2.0
"""What is known of a frame and of an instance between two steps."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Engine, Features
from maskrnn_ros.tracking.ignored import Ignored
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.target import Known
from maskrnn_ros.types import BoolArray, InstanceState, Track, UInt8Array


@dataclasses.dataclass(eq=False, kw_only=True)
class PreparedFrame:
    """A frame at the working size; all instances share it.

    Args:
        stamp_ns: Stamp of the image, ns.
        size: (H, W) of the input image, pixels.
        image: RGB, uint8, (h, w, 3), the working image, not to be written to.
        engine: Computes the features when they are first asked for: before any seed no network runs.
        ignored: Where surely is no object; None: nowhere.
        fine: The larger image that small instances are looked at in, likewise, see ``zoom``; None: there is no zoom.
    """

    stamp_ns: int
    size: tuple[int, int]
    image: UInt8Array
    engine: Engine | None = None
    ignored: Ignored | None = None
    fine: UInt8Array | None = None
    _features: Features | None = dataclasses.field(default=None, init=False, repr=False)

    @property
    def size_of_work(self) -> tuple[int, int]:
        """(h, w) of the working image."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def unknown(self) -> BoolArray | None:
        """Where nothing may be found or learned, bool (h, w); None: nowhere."""
        return None if self.ignored is None else self.ignored.working

    @property
    def features(self) -> Features:
        """Features of the working image, computed when they are asked for and held until ``forget``."""
        if self._features is None:
            if self.engine is None:
                raise RuntimeError("this frame was prepared without networks: it has no features")
            self._features = self.engine.features(self.image)
        return self._features

    def forget(self) -> None:
        """Let go of the features; a late seed that needs them computes them again.

        They are five times as large as the image that they come from, and hardly any frame is asked for them twice.
        """
        self._features = None

    @property
    def nbytes(self) -> int:
        """Memory that it holds for long, bytes."""
        more = (0 if part is None else part.nbytes for part in (self.fine, self.ignored))
        return int(self.image.nbytes) + sum(more)


class Still(NamedTuple):
    """What an instance's next image is compared with, see ``rest``.

    Args:
        picture: Cells of the image since which nothing has changed around it, see ``rest.picture_of``; not to be
            written to: it is shared.
        looks: Of the networks since then, counted until it may rest.
        age: Of the instance at the last of them.
        among: Who was there, see ``rest.among``: with others beside it, or marked anew, it is looked at.
        most: Largest difference of a cell around it on those, grey levels.
        square: Mean square difference of the cells around it on those, grey levels squared.
    """

    picture: npt.NDArray[np.float32]
    looks: int
    age: int
    among: bytes
    most: float
    square: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class InstanceMemory:
    """All that is carried for one instance.

    Args:
        instance_id: Public id, >= 1.
        name: Name given with the seed, may be empty.
        patch: Its probability before the merge, after the instance's own gate: at the working size, or, where it is
            small and there is a zoom, at the pixels of the larger image, as are its areas.
        state: State on the newest frame.
        seeded_ns: Stamp of the image that its last seed was drawn on, ns.
        age: Images since then.
        frames_unseen: Images since it was last seen.
        area: Pixels with probability >= 0.5, of the patch.
        usual_area: Slow mean of the area while seen, likewise.
        velocity: (x, y), pixels of the input per second; None where unknown.
        seed_mask: bool, (H, W), at the size of the input: the seed itself, on the seeded frame only.
        known: What the networks carry of it; None where there are none.
        still: What its surroundings are compared with, see ``rest``; None: nothing yet, so it is looked at.
    """

    instance_id: int
    name: str
    patch: Patch
    state: InstanceState
    seeded_ns: int
    age: int
    frames_unseen: int
    area: int
    usual_area: float
    velocity: tuple[float, float] | None
    seed_mask: BoolArray | None
    known: Known | None = None
    still: Still | None = None

    @property
    def probability(self) -> npt.NDArray[np.float32]:
        """Its probability, float32 (h, w) of the patch."""
        return self.patch.full

    @property
    def removed_track(self) -> Track:
        """What is said once of an instance that was removed."""
        return Track(
            instance_id=self.instance_id,
            name=self.name,
            state=InstanceState.REMOVED,
            age=self.age,
            frames_unseen=self.frames_unseen,
            score=0.0,
            visibility=0.0,
            box=None,
            mask=np.zeros((0, 0), np.bool_),
            probability=np.zeros((0, 0), np.float32),
            velocity=None,
        )
