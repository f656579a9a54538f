# SPDX-License-Identifier: Apache-2.0
"""Scores of one clip from the masks that were shown: offline, or by a timeline, which says what was out by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from maskrnn_ros.datasets.clips import Clip, scored_objects
from maskrnn_ros.datasets.frames import check_size
from maskrnn_ros.evaluation.results import ObjectResult, StreamingResult
from maskrnn_ros.evaluation.streaming import SLACKS, Timeline
from maskrnn_ros.metrics.davis import Convention, Evaluator, mask_of
from maskrnn_ros.metrics.identity import IdentityEvaluator
from maskrnn_ros.metrics.temporal import TemporalStability
from maskrnn_ros.types import LabelArray, Seed


class ClipScorer:
    """Scores one pass over a clip, frame by frame; it keeps numbers, no images.

    Args:
        clip: The clip; its ground truth is read as frames are added.
        convention: How it is scored.

    Raises:
        ValueError: There is no object in the first annotation.
    """

    def __init__(self, clip: Clip, convention: Convention) -> None:
        starts = scored_objects(clip, convention)
        self._clip = clip
        self._convention = convention
        self._scores = Evaluator(tuple(starts), convention, starts)
        self._identity = IdentityEvaluator(tuple(starts), convention, starts)
        self._stability = TemporalStability()
        self._frames = 0

    def add(self, labels: LabelArray) -> None:
        """Take the labels of the next frame, int32 (H, W).

        Raises:
            ValueError: They are not of the size of the ground truth.
        """
        number, self._frames = self._frames, self._frames + 1
        truth = self._clip.truth(number)
        check_size(f"ground truth of {self._clip.place(number)}", truth.shape, "its mask", labels.shape)
        self._scores.add(labels, truth)
        self._identity.add(labels, truth)
        if self._convention == "davis2016":
            self._stability.add(mask_of(labels if number else truth, 1, self._convention))

    def objects(self) -> tuple[ObjectResult, ...]:
        """Scores of every object over the frames so far.

        Raises:
            ValueError: No frame is scored yet.
        """
        found = self._identity.results()
        return tuple(
            ObjectResult(
                sequence=self._clip.name,
                instance_id=i,
                j=scores.jaccard,
                f=scores.boundary_f,
                t=self._stability.values,
                **dataclasses.asdict(found[i]),
            )
            for i, scores in self._scores.scores().items()
        )


def seeds_of(clip: Clip, convention: Convention) -> dict[int, Seed]:
    """What a follower is told of, by number of the frame: every object on the frame where it is marked.

    In davis2016 that is the one object on the first frame, whatever its ids are.

    Raises:
        ValueError: There is no object in the first annotation.
    """
    if convention == "davis2016":
        return {0: Seed(stamp_ns=0, labels=(clip.truth(0) != 0).astype(np.int32))}
    numbers = sorted({0, *clip.starts.values()})
    return {number: Seed(stamp_ns=0, labels=clip.seed(number)) for number in numbers}


def score_shown(
    clip: Clip, convention: Convention, shown: Sequence[int | None], masks: Mapping[int, LabelArray]
) -> tuple[ObjectResult, ...]:
    """Scores of a clip of which not every frame has masks of its own.

    Args:
        clip: The clip.
        convention: How it is scored.
        shown: For each frame the number of the frame whose masks count for it; None is the seed, which is held.
        masks: Labels by number of the frame, integer (H, W).

    Raises:
        ValueError: Labels are not of the size of the ground truth.
    """
    scorer, held = ClipScorer(clip, convention), seeds_of(clip, convention)[0].labels
    for source in shown:
        scorer.add(held if source is None else masks[source])
    return scorer.objects()


def score_streaming(
    clip: Clip, convention: Convention, line: Timeline, masks: Mapping[int, LabelArray]
) -> StreamingResult:
    """Both figures of a clip that was played in time.

    Args:
        clip: The clip.
        convention: How it is scored.
        line: When its frames came, and when masks were out.
        masks: Labels of the frames that were not dropped, integer (H, W), by number.

    Raises:
        ValueError: Labels are not of the size of the ground truth.
    """
    slack0, slack1 = (score_shown(clip, convention, line.shown(slack), masks) for slack in SLACKS)
    return StreamingResult(
        slack0=slack0,
        slack1=slack1,
        dropped=line.dropped,
        frames=len(line.arrived_s),
        ages_ms=line.ages_ms,
        fps=1 / line.period_s,
    )
