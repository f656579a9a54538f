# SPDX-License-Identifier: Apache-2.0
"""How soon the first mask is there after a seed, and how long images take then."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.config import Config
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.build import warm_up
from maskrnn_ros.types import Frame, Seed

_SEEDED, _AFTER = 3, 60
"""Image of the seed, and images that are timed after it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedRun:
    """Times, ms.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many were marked at once.
        first_mask_ms: From the seed and its image to the masks.
        after_ms_mean: Of the images after that.
        after_ms_p95: Likewise.
    """

    width: int
    height: int
    objects: int
    first_mask_ms: float
    after_ms_mean: float
    after_ms_p95: float


def after_seed(config: Config, width: int, height: int, objects: int) -> SeedRun:
    """Mark all objects of the scene on its fourth image, as fast as images are taken."""
    scene = Scene(width, height, objects)
    warm_up(build_tracker(config))
    tracker = build_tracker(config)
    ms: list[float] = []
    for number in range(_SEEDED + 1 + _AFTER):
        frame = Frame(stamp_ns=(number + 1) * 40_000_000, image=scene.image(number))
        seed = Seed(stamp_ns=frame.stamp_ns, labels=scene.labels(number)) if number == _SEEDED else None
        start = time.perf_counter()
        if seed is not None:
            tracker.seed(seed, frame)
        else:
            tracker.step(frame)
        ms.append((time.perf_counter() - start) * 1e3)
    after = ms[_SEEDED + 1 :]
    return SeedRun(
        width=width,
        height=height,
        objects=objects,
        first_mask_ms=ms[_SEEDED],
        after_ms_mean=float(np.mean(after)),
        after_ms_p95=float(np.percentile(after, 95)),
    )


def seed_row(run: SeedRun) -> str:
    """The times in words."""
    return (
        f"from the seed to the first mask ({run.width}x{run.height}, {run.objects} objects): {run.first_mask_ms:.0f} "
        f"ms; images after it: {run.after_ms_mean:.1f} ms on average, {run.after_ms_p95:.1f} ms p95"
    )
