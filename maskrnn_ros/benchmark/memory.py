# SPDX-License-Identifier: Apache-2.0
"""Does memory stay flat, over many frames and over many instances? The session of the node, without its topics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from maskrnn_ros.benchmark.measure import PERIOD_NS, all_tracking, rss_mb
from maskrnn_ros.benchmark.scene import FRAMES, Scene
from maskrnn_ros.config import Config
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.saved import Saved
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.types import Frame, LabelArray, Seed, Tracks

_SAMPLES = 50
_WARM_UP = 10
_FRAMES_OF_A_CYCLE = 4
_WARM_UP_CYCLES = 5
"""Not counted: the allocator keeps what the first seeds needed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryRun:
    """Resident memory of a process while it goes on, MB (10^6 bytes), the images of the scene included.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many were followed.
        what: What ``count`` counts: "frames" or "cycles", in each of which an instance is added and removed.
        count: How many there were from the first sample on, which is taken when the buffer for late seeds is full.
        first_mb: The first sample.
        last_mb: The last one.
        peak_mb: The largest.
        slope_mb: Growth over 1000 frames, or over 100 cycles, by least squares.
        not_tracking: Frames on which not all instances were in state TRACKING; of cycles, the added one left out.
        images_mb: Of it, the images of the scene.
        buffer_mb: Of it, the buffer at the end.
        samples: (number, MB).
    """

    width: int
    height: int
    objects: int
    what: str
    count: int
    first_mb: float
    last_mb: float
    peak_mb: float
    slope_mb: float
    not_tracking: int
    images_mb: float
    buffer_mb: float
    samples: tuple[tuple[int, float], ...]


def over_frames(config: Config, width: int, height: int, objects: int, frames: int) -> MemoryRun:
    """Memory while the same instances are followed over many frames."""
    world = World(config, width, height, objects)
    world.seed(world.scene.labels(0))
    world.fill()
    samples, not_tracking = [(0, rss_mb())], 0
    for number in tqdm(range(1, frames + 1), desc="memory", unit="frame"):
        not_tracking += not all_tracking(world.frame(), objects)
        if number % max(1, frames // _SAMPLES) == 0 or number == frames:
            samples.append((number, rss_mb()))
    return _result(world, "frames", frames, samples, 1000, not_tracking)


def over_cycles(config: Config, width: int, height: int, objects: int, cycles: int) -> MemoryRun:
    """Memory while the last of the objects is added, followed for four frames and removed, each time by a new id."""
    world = World(config, width, height, objects)
    others = objects - 1
    if others:
        labels = world.scene.labels(0)
        world.seed(np.where(labels == objects, 0, labels).astype(np.int32))
    world.fill()
    samples, not_tracking = [], 0
    for number in tqdm(range(1 - _WARM_UP_CYCLES, cycles + 1), desc="cycles", unit="cycle"):
        lost = _cycle(world, others, others + _WARM_UP_CYCLES + number)
        not_tracking += lost if number > 0 else 0
        if number == 0 or number > 0 and (number % max(1, cycles // _SAMPLES) == 0 or number == cycles):
            samples.append((number, rss_mb()))
    return _result(world, "cycles", cycles, samples, 100, not_tracking)


def _cycle(world: World, others: int, added: int) -> int:
    """Add an instance, follow it, remove it; on how many frames one of the others was not TRACKING."""
    mask = world.scene.labels(world.number + 1) == others + 1
    world.seed(np.where(mask, added, 0).astype(np.int32))
    lost = 0
    for _ in range(_FRAMES_OF_A_CYCLE):
        tracks = world.frame()
        lost += not all_tracking(dataclasses.replace(tracks, tracks=tracks.tracks[:others]), others)
    world.remove(added)
    world.frame()
    return lost


class World:
    """A session that looks at a scene.

    Args:
        config: Its settings.
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many the scene has.
        keep: See ``Session``.
    """

    def __init__(
        self, config: Config, width: int, height: int, objects: int, keep: Callable[[Saved], None] | None = None
    ) -> None:
        set_threads(config.threads)
        self.scene = Scene(width, height, objects)
        self.images = self.scene.images()
        self.number = -1
        self._config = config
        self._ids = IdBook()
        self._outcome: SeedOutcome | None = None
        self.session = Session(config, build_tracker, self._ids, self._on_outcome, keep=keep)

    def frame(self) -> Tracks:
        """Process the next image."""
        self.number += 1
        image = self.images[self.number % FRAMES]
        return self.session.process(Frame(stamp_ns=(self.number + 1) * PERIOD_NS, image=image))

    def seed(self, labels: LabelArray) -> None:
        """Seed on the next image, and process it.

        Raises:
            RuntimeError: The seed was not applied.
        """
        seed = Seed(stamp_ns=(self.number + 2) * PERIOD_NS, labels=labels)
        self.session.seed(SeedRequest(ticket=None, admission=self._ids.admit(seed, self._config), arrived=0.0))
        self.frame()
        if self._outcome is None or self._outcome.status != SeedStatus.APPLIED:
            raise RuntimeError(f"expected the seed to be applied, got {self._outcome}")

    def remove(self, instance_id: int) -> None:
        """Remove an instance, as the service of the node does."""
        self._ids.remove((instance_id,))
        self.session.remove((instance_id,))

    def save(self) -> None:
        """Hand over what is to be saved, as the session does after every image."""
        self.session.keeper.save(self.session.number, self._ids.used)

    def fill(self) -> None:
        """Go on until the buffer drops images."""
        for _ in range(_WARM_UP):
            self.frame()
        while True:
            before = len(self.session.buffer)
            self.frame()
            if len(self.session.buffer) <= before:
                return

    def _on_outcome(self, outcome: SeedOutcome) -> None:
        self._outcome = outcome


def _result(
    world: World, what: str, count: int, samples: list[tuple[int, float]], per: int, not_tracking: int
) -> MemoryRun:
    numbers, values = np.array(samples).T
    return MemoryRun(
        width=world.scene.width,
        height=world.scene.height,
        objects=world.scene.objects,
        what=what,
        count=count,
        first_mb=samples[0][1],
        last_mb=samples[-1][1],
        peak_mb=float(values.max()),
        slope_mb=float(np.polyfit(numbers, values, 1)[0]) * per,
        not_tracking=not_tracking,
        images_mb=world.images.nbytes / 1e6,
        buffer_mb=world.session.buffer.nbytes / 1e6,
        samples=tuple(samples),
    )
