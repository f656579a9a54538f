# SPDX-License-Identifier: Apache-2.0
"""The last frames, held for seeds that come late."""

from __future__ import annotations

import bisect

from maskrnn_ros.config import BufferConfig
from maskrnn_ros.tracking.rescale import rescaled_frame
from maskrnn_ros.tracking.state import PreparedFrame


class FrameBuffer:
    """Frames by ascending stamp, bounded in time and memory; the newest always stays.

    They are held at the working size, as the tracker saw them, with the features that were computed. Flow between them
    is not held: it is a function of two frames that is needed only if a late seed comes, and would take nearly three
    times the memory of the images. After a change of the working size older frames are brought to the new one when they
    are asked for.
    """

    def __init__(self, config: BufferConfig) -> None:
        self.config = config
        self._frames: list[PreparedFrame] = []

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Memory held, bytes; summed anew, for frames grow when a late seed asks for their features."""
        return sum(frame.nbytes for frame in self._frames)

    @property
    def oldest(self) -> PreparedFrame | None:
        """The oldest frame held, of whatever size."""
        return self._frames[0] if self._frames else None

    def add(self, frame: PreparedFrame) -> None:
        """Append the newest frame and drop what is too old or too much."""
        self._frames.append(frame)
        held = self.nbytes
        horizon = frame.stamp_ns - round(self.config.seconds * 1e9)
        limit = self.config.megabytes * 1_000_000
        drop = 0
        while drop < len(self._frames) - 1 and (self._frames[drop].stamp_ns < horizon or held > limit):
            held -= self._frames[drop].nbytes
            drop += 1
        del self._frames[:drop]

    def replace_newest(self, frame: PreparedFrame) -> None:
        """Hold the newest frame at another size, which becomes that of all."""
        if self._frames:
            self._frames[-1] = frame

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def at(self, stamp_ns: int) -> PreparedFrame | None:
        """The frame with that very stamp."""
        position = bisect.bisect_left(self._frames, stamp_ns, key=_stamp)
        found = position < len(self._frames) and self._frames[position].stamp_ns == stamp_ns
        return self._at_size(position) if found else None

    def count_after(self, stamp_ns: int) -> int:
        """How many frames are later than that stamp."""
        return len(self._frames) - bisect.bisect_right(self._frames, stamp_ns, key=_stamp)

    def following(self, stamp_ns: int, images: int) -> PreparedFrame:
        """The frame that many images after that stamp; there must be as many."""
        return self._at_size(bisect.bisect_right(self._frames, stamp_ns, key=_stamp) + images - 1)

    def _at_size(self, position: int) -> PreparedFrame:
        frame, newest = self._frames[position], self._frames[-1]
        if frame.image.shape != newest.image.shape:
            frame = self._frames[position] = rescaled_frame(frame, (newest.image.shape[1], newest.image.shape[2]))
        return frame

    def nearest(self, stamp_ns: int) -> int | None:
        """The stamp held that is nearest to that one."""
        stamps = [frame.stamp_ns for frame in self._frames]
        return min(stamps, key=lambda held: abs(held - stamp_ns), default=None)


def _stamp(frame: PreparedFrame) -> int:
    return frame.stamp_ns
