# SPDX-License-Identifier: Apache-2.0
"""The last frames, held for seeds that come late."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.sections import BufferConfig
from maskrnn_ros.tracking.moment import Marking, Moment
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import LabelArray


@dataclasses.dataclass(eq=False)
class Held:
    """A frame, and what was known and done there as far as late seeds need it.

    Args:
        frame: The frame.
        moment: The tracker after it and the seeds that were applied to it; None: nothing begins here again.
        markings: Those seeds, in their order.
        removed: Ids that were removed after it, before the next.
        cells: Ids that were published, uint16, (h4, w4), at its cells of stride 4; None: not held.
    """

    frame: PreparedFrame
    moment: Moment | None = None
    markings: list[Marking] = dataclasses.field(default_factory=list)
    removed: set[int] = dataclasses.field(default_factory=set)
    cells: npt.NDArray[np.uint16] | None = None

    @property
    def stamp_ns(self) -> int:
        """Stamp of the frame, ns."""
        return self.frame.stamp_ns

    @property
    def nbytes(self) -> int:
        """Memory that it holds now, bytes, but for its moment."""
        markings = sum(marking.nbytes for marking in self.markings)
        return self.frame.nbytes + markings + (0 if self.cells is None else self.cells.nbytes)

    @property
    def pieces(self) -> Mapping[int, int]:
        """Memory of its moment, bytes by address: what moments share is there once."""
        return {} if self.moment is None else self.moment.pieces


class FrameBuffer:
    """Frames by ascending stamp, bounded in time and memory; the newest always stays.

    They are held as working images, as the tracker saw them. Features and flow are computed again where a late seed
    needs them: they would take eight times the memory of the images, and hardly any seed is late.

    A late seed needs more than images (see ``Tracker``). Beside a frame is held the tracker after it and what was done
    there, so that all can be run again from it (``Replay``), or the ids that were published.
    """

    def __init__(self, config: BufferConfig) -> None:
        self.config = config
        self._held: list[Held] = []

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Memory held, bytes; summed anew, for frames grow when a late seed asks for their features."""
        pieces: dict[int, int] = {}
        for held in self._held:
            pieces |= held.pieces
        return sum(held.nbytes for held in self._held) + sum(pieces.values())

    @property
    def stamps(self) -> tuple[int, ...]:
        """Stamps of the frames held, ns, ascending."""
        return tuple(held.stamp_ns for held in self._held)

    @property
    def oldest(self) -> PreparedFrame | None:
        """The oldest frame held."""
        return self._held[0].frame if self._held else None

    @property
    def newest(self) -> Held | None:
        """The newest frame and what belongs to it."""
        return self._held[-1] if self._held else None

    @property
    def replays_from_ns(self) -> int | None:
        """Stamp of the oldest frame from which all instances can be run again; None: there is none."""
        return next((held.stamp_ns for held in self._held if held.moment is not None), None)

    def add(self, frame: PreparedFrame, moment: Moment | None = None) -> None:
        """Append the newest frame, and the tracker after it where that is held; drop what is too old or too much."""
        self._held.append(Held(frame, moment))
        total = self.nbytes
        uses = Counter(piece for held in self._held for piece in held.pieces)
        horizon = frame.stamp_ns - round(self.config.seconds * 1e9)
        limit = self.config.megabytes * 1_000_000
        drop = 0
        while drop < len(self._held) - 1 and (self._held[drop].stamp_ns < horizon or total > limit):
            held = self._held[drop]
            total -= held.nbytes + sum(nbytes for piece, nbytes in held.pieces.items() if uses[piece] == 1)
            uses.subtract(held.pieces.keys())
            drop += 1
        del self._held[:drop]

    def publish(self, labels: LabelArray) -> None:
        """Hold the ids that were published on the newest frame, int32 (H, W), at its cells of stride 4."""
        frame = self._held[-1].frame
        rows, columns = (
            np.minimum((np.arange(count) + 0.5) * STRIDE * full / working, full - 1).astype(np.intp)
            for count, working, full in zip(_cells(frame), frame.size_of_work, labels.shape, strict=True)
        )
        self._held[-1].cells = labels[rows[:, None], columns].astype(np.uint16)

    def others(self, stamp_ns: int, ids: Collection[int]) -> npt.NDArray[np.float32] | None:
        """What others than these ids covered on a frame by what was published, float32 (h4, w4), 0 or 1.

        None where that is not held.
        """
        held = self.held(stamp_ns)
        if held is None or held.cells is None:
            return None
        covered = (held.cells != 0) & ~np.isin(held.cells, list(ids))
        return np.asarray(covered, np.float32)

    def removed(self, ids: Iterable[int]) -> None:
        """These ids were removed after the newest frame."""
        if self._held:
            self._held[-1].removed.update(ids)

    def renew(self, moment: Moment | None) -> None:
        """Hold the tracker as it is now, and nothing of it before: no way leads from there to here any more."""
        for held in self._held:
            held.moment = None
            held.markings.clear()
            held.removed.clear()
        if self._held:
            self._held[-1].moment = moment

    def clear(self) -> None:
        """Forget all frames."""
        self._held.clear()

    def at(self, stamp_ns: int) -> PreparedFrame | None:
        """The frame with that very stamp."""
        held = self.held(stamp_ns)
        return None if held is None else held.frame

    def held(self, stamp_ns: int) -> Held | None:
        """The same with what belongs to it."""
        position = bisect.bisect_left(self._held, stamp_ns, key=_stamp)
        found = position < len(self._held) and self._held[position].stamp_ns == stamp_ns
        return self._held[position] if found else None

    def count_after(self, stamp_ns: int) -> int:
        """How many frames are later than that stamp."""
        return len(self._held) - bisect.bisect_right(self._held, stamp_ns, key=_stamp)

    def following(self, stamp_ns: int, images: int) -> Held:
        """The frame that many images after that stamp, with what belongs to it; there must be as many."""
        return self._held[bisect.bisect_right(self._held, stamp_ns, key=_stamp) + images - 1]


def _cells(frame: PreparedFrame) -> tuple[int, int]:
    """Rows and columns of a frame's cells."""
    height, width = frame.size_of_work
    return -(-height // STRIDE), -(-width // STRIDE)


def _stamp(held: Held) -> int:
    return held.stamp_ns
