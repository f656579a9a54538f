# SPDX-License-Identifier: Apache-2.0
"""What is published of an image, in order of time, whichever thread it comes from."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maskrnn_ros.tracker_node.inbox import Arrival
from maskrnn_ros.tracking.prediction import Prediction
from maskrnn_ros.types import InstanceState, Track, Tracks, UInt8Array

_WINDOW = 100
"""Images over which the percentiles of times are taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One processed image.

    Args:
        message: The image message.
        image: Its pixels, RGB, uint8 (H, W, 3).
        tracks: What was found on it.
        session: Number of the session.
        frame_index: Images processed in this session before.
        frames_skipped: Images dropped since the previous result.
    """

    message: Any
    image: UInt8Array
    tracks: Tracks
    session: int
    frame_index: int
    frames_skipped: int


class Results:
    """Publishes one result at a time.

    Args:
        publish: Called with every result.
        session: Number of the session.
        index: Images processed in it before.
    """

    def __init__(self, publish: Callable[[Result], None], session: int, index: int) -> None:
        self._publish = publish
        self.session, self._index = session, index
        self._lock = threading.Lock()
        self._newest = (-1, 0)  # era and stamp
        self._skipped = 0
        self._gone: list[Track] = []
        self._predict = Prediction()
        self._times = Times()
        self.published_s: float | None = None

    @property
    def index(self) -> int:
        """Images processed in the newest session."""
        return self._index

    @property
    def age_ms(self) -> tuple[float, float]:
        """From the arrival of an image to the publication of its masks, p50 and p95."""
        return self._times.percentiles

    def skipped(self, images: int) -> None:
        """So many were dropped since the image before."""
        with self._lock:
            self._skipped += images

    def removed(self, tracks: Sequence[Track], session: int) -> None:
        """Say of those that are REMOVED with the next result of their session: what they came with is not published."""
        with self._lock:
            gone = [one for one in tracks if one.state == InstanceState.REMOVED]
            if session > self.session and gone:
                self._begin(session)
            if session == self.session:
                self._gone += gone

    def take_removed(self) -> list[Track]:
        """Those that were not said yet."""
        with self._lock:
            gone, self._gone = self._gone, []
            return gone

    def put(self, arrival: Arrival, image: UInt8Array, tracks: Tracks, session: int) -> bool:
        """Publish what was found on an image; False where one of a newer image or session is out already."""
        with self._lock:
            newest = arrival.era, arrival.stamp_ns
            if session < self.session or (session == self.session and newest <= self._newest):
                return False
            if session != self.session:
                self._begin(session)
            self._newest = newest
            self._publish(
                Result(
                    message=arrival.message,
                    image=image,
                    tracks=self._predict(self._with_gone(tracks)),
                    session=session,
                    frame_index=self._index,
                    frames_skipped=self._skipped,
                )
            )
            self._index += 1
            self._skipped = 0
            self.published_s = time.monotonic()
            self._times.add((self.published_s - arrival.arrived) * 1e3)
            return True

    def _begin(self, session: int) -> None:
        self.session, self._index = session, 0
        self._gone.clear()
        self._predict.clear()

    def _with_gone(self, tracks: Tracks) -> Tracks:
        said = {one.instance_id for one in tracks.tracks if one.state == InstanceState.REMOVED}
        there = {one.instance_id for one in tracks.tracks} - said  # these masks were begun before the removal
        more = [one for one in self._gone if one.instance_id not in there | said]
        self._gone = [one for one in self._gone if one.instance_id in there]
        if not more:
            return tracks
        everyone = sorted((*tracks.tracks, *more), key=lambda track: track.instance_id)
        return dataclasses.replace(tracks, tracks=tuple(everyone))


class Times:
    """The last 100 durations, milliseconds; one thread adds, any reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: deque[float] = deque(maxlen=_WINDOW)

    def add(self, value: float) -> None:
        """Take one more."""
        with self._lock:
            self._values.append(value)

    @property
    def percentiles(self) -> tuple[float, float]:
        """p50 and p95; NaN where there is nothing yet."""
        with self._lock:
            values = list(self._values)
        if not values:
            return math.nan, math.nan
        p50, p95 = np.percentile(values, (50, 95)).tolist()
        return p50, p95
