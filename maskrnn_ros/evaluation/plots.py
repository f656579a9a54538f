# SPDX-License-Identifier: Apache-2.0
"""Plots for the report, each as the data URL of a PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from maskrnn_ros.evaluation.results import ObjectResult
from maskrnn_ros.overlay import colour


def curves(objects: Sequence[ObjectResult], last: int) -> str:
    """J and F over time.

    Args:
        objects: The objects of a clip, each in its own colour.
        last: Number of the last frame that is scored.
    """
    plot = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = plot.subplots(2, 1, sharex=True)
    for axis, name, key in zip(axes, ("J", "F"), ("j", "f"), strict=True):
        for scores in objects:
            values = getattr(scores, key)
            tone = tuple(channel / 255 for channel in colour(scores.instance_id))
            axis.plot(
                range(last + 1 - len(values), last + 1), values, color=tone, lw=1.8, label=f"{scores.instance_id}"
            )
        axis.set(ylabel=name, ylim=(-0.02, 1.02))
        _look(axis)
    axes[1].set_xlabel("frame", fontsize=14)
    if len(objects) > 1:
        axes[0].legend(title="object", fontsize=11, ncols=2)
    return _png(plot)


def age_histogram(ages_ms: Sequence[float], period_ms: float | None = None) -> str:
    """How old the masks were when they were out.

    Args:
        ages_ms: From the arrival of each frame with masks until these were out, ms; at least one.
        period_ms: Time between two frames, ms: a dashed line, for what is older is late with slack 1, too. None: no
            line.
    """
    plot = Figure(figsize=(5.6, 2.6), layout="constrained")
    axis = plot.subplots()
    red, green, blue = (channel / 255 for channel in colour(1))
    axis.hist(ages_ms, bins=30, range=(0, max(ages_ms)), color=(red, green, blue), edgecolor="white", lw=0.5)
    if period_ms is not None:
        axis.axvline(period_ms, color="#1b1f24", ls="--", lw=1.4, label="next frame")
        axis.legend(fontsize=11)
    axis.set(ylabel="frames", xlim=(0, None))
    axis.set_xlabel("age of the masks, ms", fontsize=14)
    _look(axis)
    return _png(plot)


def _look(axis: Any) -> None:
    axis.tick_params(labelsize=12)
    axis.yaxis.label.set_size(14)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)


def _png(plot: Figure) -> str:
    file = io.BytesIO()
    plot.savefig(file, format="png", dpi=140)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
