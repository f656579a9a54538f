# SPDX-License-Identifier: Apache-2.0
"""What an image costs in calls of Python: a number, where a time depends on the machine and on what else runs there."""

from __future__ import annotations

import cProfile
import dataclasses
from collections.abc import Sequence

from maskrnn_ros.benchmark.measure import PERIOD_NS
from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.types import Frame, Seed

_WARM_UP, _COUNTED = 6, 4
"""Images after the seeded one that are not counted, and those that are; an object learns on every second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calls:
    """Calls of functions, in Python and from it in C, mean per image, one thread.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many were followed.
        carried: To bring the objects to the image.
        masks: To make their masks at the full size.
    """

    width: int
    height: int
    objects: int
    carried: float
    masks: float


def count_calls(config: Config, width: int, height: int, objects: int) -> Calls:
    """Follow all objects of a scene under cProfile, which counts the calls of the thread that it is started in."""
    scene = Scene(width, height, objects)
    tracker = build_tracker(with_values(config, threads=1))
    tracker.seed(Seed(stamp_ns=PERIOD_NS, labels=scene.labels(0)), Frame(stamp_ns=PERIOD_NS, image=scene.image(0)))
    carried, masks = cProfile.Profile(), cProfile.Profile()
    for number in range(1, _WARM_UP + _COUNTED + 1):
        frame = Frame(stamp_ns=(number + 1) * PERIOD_NS, image=scene.image(number))
        if number <= _WARM_UP:
            tracker.step(frame)
            continue
        prepared = tracker.prepare(frame)
        carried.runcall(tracker.advance, prepared)
        masks.runcall(tracker.tracks, frame.image)
    return Calls(
        width=width, height=height, objects=objects, carried=_calls(carried) / _COUNTED, masks=_calls(masks) / _COUNTED
    )


def _calls(profile: cProfile.Profile) -> int:
    return sum(entry.callcount for entry in profile.getstats())


def calls_rows(runs: Sequence[Calls]) -> list[str]:
    """As a table, with what each further object costs."""
    rows = ["     size  objects  calls to carry them  calls for masks"]
    for run in runs:
        size = f"{run.width}x{run.height}"
        rows.append(f"{size:>9}  {run.objects:7d}  {run.carried:19.0f}  {run.masks:15.0f}")
    few, many = (runs[0], *runs)[-2:]
    if many.objects > few.objects:
        more = many.objects - few.objects
        carried, masks = (many.carried - few.carried) / more, (many.masks - few.masks) / more
        rows.append(
            f"each further object after {few.objects}: {carried:.1f} calls to carry it, {masks:.1f} for its mask"
        )
    return rows
