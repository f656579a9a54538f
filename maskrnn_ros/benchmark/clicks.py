# SPDX-License-Identifier: Apache-2.0
"""What somebody who clicks costs the stream: an editor makes a mask of each click on the same machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from maskrnn_ros.benchmark.scene import Scene
from maskrnn_ros.benchmark.soak import Plan
from maskrnn_ros.benchmark.turns import TURNS, by_turns
from maskrnn_ros.config import Config
from maskrnn_ros.prompts import Point, Prompt, UnsureError, build_prompts

CLICK_S = 1.0
"""From one click to the next; a mask of a click is also made where the mouse rests."""

_ENDS_S = 30.0


def measure_clicks(config: Config, plan: Plan, turns: int = TURNS) -> list[dict[str, Any]]:
    """The real node without and with clicks beside it, by turns; likewise ``by_turns``, ``clicks`` and their ms added.

    Args:
        config: Settings of the node, and ``prompts.*`` for the clicks.
        plan: What each run does.
        turns: How many runs of each.
    """
    said: list[list[float]] = []

    @contextlib.contextmanager
    def clicking() -> Iterator[Config]:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        ends = context.Event()
        process = context.Process(target=_click, args=(config, plan, there, ends), daemon=True)
        process.start()
        try:
            yield config
            ends.set()
            if not here.poll(_ENDS_S):
                raise RuntimeError(f"the clicks did not end within {_ENDS_S:g} s")
            said.append(here.recv())
        finally:
            process.terminate()
            process.join()

    rows = by_turns(plan, {"none": lambda: contextlib.nullcontext(config), "clicks": clicking}, turns)
    for row, ms in zip([row for row in rows if row["way"] == "clicks"], said, strict=True):
        row |= {"clicks": len(ms), "click_ms_p50": float(np.median(ms)) if ms else None}
    return rows


def clicks_row(rows: list[dict[str, Any]]) -> str:
    """How many clicks there were and what they took, as a line."""
    made = [row for row in rows if row["way"] == "clicks"]
    times = ", ".join("none" if row["click_ms_p50"] is None else f"{row['click_ms_p50']:.0f} ms" for row in made)
    return f"{' and '.join(str(row['clicks']) for row in made)} clicks, one every {CLICK_S:g} s; p50 of a mask {times}"


def _click(config: Config, plan: Plan, tell: Any, ends: Any) -> None:
    """Click on one object after the other until it ends; says the ms of each."""
    backend = build_prompts(config.prompts, config.trunk.weights)
    scene = Scene(plan.width, plan.height, plan.objects)
    image, labels = scene.image(0), scene.labels(0)
    prompts = []
    for i in np.unique(labels[labels > 0]).tolist():
        rows, columns = np.nonzero(labels == i)
        prompts.append(Prompt(points=(Point(x=float(np.median(columns)), y=float(np.median(rows))),)))
    ms: list[float] = []
    due = time.monotonic()
    while not ends.wait(max(0.0, due - time.monotonic())):
        begin = time.perf_counter()
        with contextlib.suppress(UnsureError):
            backend(image, prompts[len(ms) % len(prompts)])
        ms.append((time.perf_counter() - begin) * 1e3)
        due = max(due + CLICK_S, time.monotonic())
    tell.send(ms)
