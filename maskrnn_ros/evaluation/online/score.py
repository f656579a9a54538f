# SPDX-License-Identifier: Apache-2.0
"""Scores of the real node on a bag that was played to it in real time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from maskrnn_ros.datasets.clips import Clip
from maskrnn_ros.evaluation.results import OnlineResult, StreamingResult
from maskrnn_ros.evaluation.scoring import score_shown, score_streaming, seeds_of
from maskrnn_ros.evaluation.streaming import Timeline
from maskrnn_ros.labels import write_labels
from maskrnn_ros.metrics.davis import Convention
from maskrnn_ros.types import LabelArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineRun:
    """What came of playing a clip to the node.

    Args:
        line: When its images and their masks came to a listener beside the node. The masks of frame 0 are the seed.
        masks: Labels int32 (H, W) of the frames that have masks, by number.
        rate: Speed of the player, 1 = as recorded.
    """

    line: Timeline
    masks: Mapping[int, LabelArray]
    rate: float


def score_online(clip: Clip, convention: Convention, run: OnlineRun) -> tuple[StreamingResult, OnlineResult]:
    """Scores by what was out in time, and by each frame's own masks, the last ones where it was dropped."""
    line = run.line
    spent_s = max(line.out_s.values(), default=0.0) - line.arrived_s[0]
    online = OnlineResult(
        objects=score_shown(clip, convention, line.held(), run.masks),
        played=len(line.arrived_s),
        processed=len(line.out_s),
        rate=run.rate,
        ages_ms=line.ages_ms,
        fps=len(line.out_s) / spent_s if spent_s > 0 else None,
    )
    return score_streaming(clip, convention, line, run.masks), online


def write_online(clip: Clip, convention: Convention, run: OnlineRun, folder: Path) -> None:
    """Write the masks that ``OnlineResult`` scores: ``folder/<stem>.png`` for every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = seeds_of(clip, convention)[0].labels
    for number, source in enumerate(run.line.held()):
        write_labels(folder / f"{clip.stem(number)}.png", seed if source is None else run.masks[source])
