# SPDX-License-Identifier: Apache-2.0
"""Where a hidden instance would be: its last box, moved by its last velocity."""

from __future__ import annotations

import dataclasses

from maskrnn_ros.types import Box, InstanceState, Track, Tracks


@dataclasses.dataclass(frozen=True)
class _Sight:
    """Where an instance was seen last: stamp (ns), box (pixels), velocity (pixels per second; None: unknown)."""

    stamp_ns: int
    box: Box
    velocity: tuple[float, float] | None

    def box_at(self, stamp_ns: int, size: tuple[int, int]) -> Box | None:
        """The box at another time, cut at the border of the image (H, W); None where it has left it."""
        x, y = self.velocity or (0.0, 0.0)
        seconds = (stamp_ns - self.stamp_ns) * 1e-9
        moved = self.box.moved(round(x * seconds), round(y * seconds))
        return moved.intersection(Box(0, 0, size[1], size[0]))


class Prediction:
    """Remembers where instances were seen last, and gives those that are OCCLUDED a ``predicted_box``.

    An instance whose velocity is not known is expected where it was seen.
    """

    def __init__(self) -> None:
        self._sights: dict[int, _Sight] = {}

    def __call__(self, tracks: Tracks) -> Tracks:
        """The same tracks with their predicted boxes; to be called with those of every image, in order of time."""
        known = {}
        for track in tracks.tracks:
            if track.box is not None:
                known[track.instance_id] = _Sight(tracks.stamp_ns, track.box, track.velocity)
            elif track.instance_id in self._sights:
                known[track.instance_id] = self._sights[track.instance_id]
        # a jump back in time that keeps the instances: what was seen later says nothing of now
        self._sights = {i: sight for i, sight in known.items() if sight.stamp_ns <= tracks.stamp_ns}
        return dataclasses.replace(tracks, tracks=tuple(self._predicted(track, tracks) for track in tracks.tracks))

    def _predicted(self, track: Track, tracks: Tracks) -> Track:
        sight = self._sights.get(track.instance_id)
        if sight is None or track.state != InstanceState.OCCLUDED:
            return track
        return dataclasses.replace(track, predicted_box=sight.box_at(tracks.stamp_ns, tracks.size))

    def clear(self) -> None:
        """A new session: nothing was seen."""
        self._sights.clear()
