# SPDX-License-Identifier: Apache-2.0
"""What DAVIS does not ask and a robot does: was another object followed, was a mask claimed where nothing was?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrnn_ros.metrics.davis import Convention, mask_of, scored_frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Mistakes of one object over its scored frames.

    Args:
        id_switches: Frames where the mask overlaps another object's truth more than its own.
        absent: Frames without the object.
        claimed: Those of them in which a mask is claimed.
    """

    id_switches: int
    absent: int
    claimed: int

    @property
    def absent_false_rate(self) -> float | None:
        """Share of the frames without the object in which a mask is claimed; None where it is never absent."""
        return self.claimed / self.absent if self.absent else None


class IdentityEvaluator:
    """Counts the mistakes of one sequence frame by frame; it keeps numbers, no images.

    >>> evaluator = IdentityEvaluator((1, 2), "davis2017")
    >>> for prediction in ([1, 1, 2], [0, 2, 2], [2, 2, 2], [1, 0, 2]):
    ...     evaluator.add(np.array([prediction]), np.array([[1, 1, 0]]))
    >>> evaluator.results()[2]
    Identity(id_switches=2, absent=2, claimed=2)

    Args:
        instance_ids: As of ``metrics.Evaluator``.
        convention: See ``metrics.Convention``; in davis2016 there is no other object to be followed.
        starts: As of ``metrics.Evaluator``.
    """

    def __init__(
        self, instance_ids: tuple[int, ...], convention: Convention, starts: Mapping[int, int] | None = None
    ) -> None:
        self._convention = convention
        self._starts = dict(starts or {})
        self._number = 0
        self._frames: dict[int, list[tuple[bool, bool, bool]]] = {i: [] for i in instance_ids}

    def add(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        """Take the next frame; both are integer labels (H, W) of one shape."""
        for instance_id, frames in self._frames.items():
            if self._number >= self._starts.get(instance_id, 0):
                frames.append(self._look(prediction, truth, instance_id))
        self._number += 1

    def results(self) -> dict[int, Identity]:
        """Mistakes by object over the frames added that are scored.

        Raises:
            ValueError: There is none.
        """
        return {i: _count(scored_frames(frames, self._convention)) for i, frames in self._frames.items()}

    def _look(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any], instance_id: int) -> tuple[bool, bool, bool]:
        """Is another object followed, is this one absent, is a mask claimed nevertheless?"""
        predicted, true = (mask_of(labels, instance_id, self._convention) for labels in (prediction, truth))
        absent = not true.any()
        is_other = ~true & (truth != 0)  # nothing in davis2016
        followed = int(np.bincount(truth[predicted & is_other]).max(initial=0))
        is_switched = followed > int(np.count_nonzero(predicted & true))
        return is_switched, bool(absent), bool(absent and predicted.any())


def _count(frames: Sequence[tuple[bool, bool, bool]]) -> Identity:
    switched, absent, claimed = (sum(frame[k] for frame in frames) for k in range(3))
    return Identity(id_switches=switched, absent=absent, claimed=claimed)
