# SPDX-License-Identifier: Apache-2.0
"""What ``persist_dir`` costs: one write by itself, and the stream with and without it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maskrnn_ros.benchmark.memory import World
from maskrnn_ros.benchmark.soak import Plan
from maskrnn_ros.benchmark.turns import TURNS, by_turns
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.tracking.saved import Saved, SavedSeed
from maskrnn_ros.tracking.state_file import StateFile, pictures, to_bytes

_WRITES = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteCost:
    """Time of the thread that writes, ms: what it computes, and what passes until the disk has it.

    Args:
        bytes: Of the file.
        first_cpu_ms: The first write after a seed, which makes PNGs of it.
        cpu_ms_p50: Any other write.
        wall_ms_p50: Likewise.
        wall_ms_p95: Likewise.
        put_ms_p50: What the tracker's thread needs to hand the instances over, after each image.
        writes: How many were measured.
    """

    bytes: int
    first_cpu_ms: float
    cpu_ms_p50: float
    wall_ms_p50: float
    wall_ms_p95: float
    put_ms_p50: float
    writes: int


def measure_writes(config: Config, width: int, height: int, objects: int, writes: int = _WRITES) -> WriteCost:
    """Follow a scene and write after each image, as the node does every ``persist_period`` seconds."""
    newest: list[Saved] = []
    world = World(config, width, height, objects, keep=newest.append)
    world.seed(world.scene.labels(0))
    cache: dict[SavedSeed, Any] = {}

    def encoded(seed: SavedSeed) -> Any:
        if seed not in cache:
            cache[seed] = pictures(seed)
        return cache[seed]

    cpu, wall, put = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        file = StateFile(Path(folder))
        for _ in range(writes + 1):
            world.frame()
            begin = time.thread_time()
            world.save()
            put.append((time.thread_time() - begin) * 1e3)
            begin, begin_wall = time.thread_time(), time.perf_counter()
            content = to_bytes(newest[-1], encoded)
            file.write(content)
            cpu.append((time.thread_time() - begin) * 1e3)
            wall.append((time.perf_counter() - begin_wall) * 1e3)
        file.close()
    p50, p95 = np.percentile(wall[1:], (50, 95)).tolist()
    return WriteCost(
        bytes=len(content),
        first_cpu_ms=cpu[0],
        cpu_ms_p50=float(np.median(cpu[1:])),
        wall_ms_p50=p50,
        wall_ms_p95=p95,
        put_ms_p50=float(np.median(put)),
        writes=writes,
    )


def measure_stream(config: Config, plan: Plan, turns: int = TURNS) -> list[dict[str, Any]]:
    """The real node without and with ``persist_dir``, by turns, see ``by_turns``.

    Args:
        config: Settings; ``persist_dir`` is replaced.
        plan: What each run does.
        turns: How many runs of each.
    """

    @contextlib.contextmanager
    def saving() -> Iterator[Config]:
        with tempfile.TemporaryDirectory() as folder:
            yield with_values(config, persist_dir=folder)

    plain = with_values(config, persist_dir="")
    rows = by_turns(plan, {"off": lambda: contextlib.nullcontext(plain), "on": saving}, turns)
    return [{"persist": row["way"] == "on", **row} for row in rows]


def persistence_row(cost: WriteCost) -> str:
    """As a line."""
    return (
        f"a write of {cost.bytes / 1e3:.0f} kB: {cost.wall_ms_p50:.1f} ms p50, {cost.wall_ms_p95:.1f} ms p95 in its "
        f"own thread, of which it computes {cost.cpu_ms_p50:.1f} ms ({cost.writes} writes); {cost.first_cpu_ms:.1f} "
        f"ms for the first after a seed; {cost.put_ms_p50:.2f} ms in the tracker's thread for each image"
    )
