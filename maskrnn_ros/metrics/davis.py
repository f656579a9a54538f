# SPDX-License-Identifier: Apache-2.0
"""The measures of DAVIS, to the pixel: region similarity J, contour accuracy F, and their statistics.

After the evaluation code of Perazzi et al. (CVPR 2016) and Pont-Tuset et al. (2017), which is the reference.
Pure functions and one evaluator that sees a sequence frame by frame; nothing here knows a file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.types import BoolArray, UInt8Array

Convention: TypeAlias = Literal["davis2016", "davis2017", "segtrack2"]
"""How labels become masks, and which frames count.

davis2016: one object, all that is not 0. davis2017: ids. Both leave out the first frame and the last. Void is
background; ``labels.LabelRule`` says what is void.
segtrack2 (SegTrack v2): ids; only the seed, the first frame, is left out, and J is the IoU of that data set.
"""

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

RADIUS_SHARE = 0.008
"""Tolerance of F as a share of the image's diagonal."""


def jaccard(prediction: BoolArray, truth: BoolArray) -> float:
    """Region similarity J: intersection over union; 1 where both masks are empty.

    >>> jaccard(np.array([[True, True, False]]), np.array([[False, True, True]]))
    0.3333333333333333

    Args:
        prediction: bool, (H, W).
        truth: bool, (H, W).

    Raises:
        ValueError: The masks are not bool (H, W) of one shape.
    """
    _check_pair(prediction, truth)
    union = np.count_nonzero(prediction | truth)
    return float(np.count_nonzero(prediction & truth) / union) if union else 1.0


def boundary(mask: BoolArray) -> BoolArray:
    """Pixels where the mask differs from its right, lower or lower right neighbour.

    With e, s, se the mask shifted to the left, up, and both: b = (m ^ e) | (m ^ s) | (m ^ se). The last row
    looks to the right only, the last column down only, and the last corner is no boundary: a mask that
    reaches the border of the image has no boundary there.

    >>> boundary(np.array([[True, True, False], [True, True, False], [False, False, False]])).astype(int)
    array([[0, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])

    Args:
        mask: bool, (H, W), H and W at least 1.

    Returns:
        bool, (H, W).
    """
    found = np.zeros_like(mask)
    here = mask[:-1, :-1]
    found[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    found[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    found[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return found


def boundary_f(prediction: BoolArray, truth: BoolArray, radius: int | None = None) -> float:
    """Contour accuracy F: the harmonic mean of precision and recall of the boundaries.

    Precision is the share of the prediction's boundary within ``radius`` of the truth's boundary (Euclidean,
    to the pixel centre, the radius itself included), recall the other way round. F is 1 where both boundaries
    are empty, 0 where one of them is.

    Args:
        prediction: bool, (H, W), H and W at least 1.
        truth: bool, (H, W).
        radius: Tolerance in pixels, >= 0; None is that of DAVIS, ceil(0.008 * diagonal).

    Raises:
        ValueError: The masks are not bool (H, W) of one shape, or the radius is negative.
    """
    _check_pair(prediction, truth)
    if radius is None:
        radius = math.ceil(RADIUS_SHARE * math.hypot(*truth.shape))
    if radius < 0:
        raise ValueError(f"radius must be >= 0 pixels, got {radius}")
    # one pixel more on each side than the masks: boundaries reach no farther, and none is lost or made up
    x, y, width, height = cv2.boundingRect((prediction | truth).view(np.uint8))
    crop = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
    predicted, true = (boundary(mask[crop]).view(np.uint8) for mask in (prediction, truth))
    if not predicted.any() or not true.any():
        return float(not predicted.any() and not true.any())
    precision = _share_near(predicted, true, radius)
    recall = _share_near(true, predicted, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Summary of a measure over the scored frames of one object.

    Args:
        mean: Mean over the frames.
        recall: Share of the frames above 0.5.
        decay: Mean of the first quarter of the frames minus mean of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of a series.

    The quarters of the decay are the reference's: ids = round(linspace(1, n, 5) + 1e-10) - 1, quarter i is
    values[ids[i] : ids[i + 1] + 1], so neighbours share a frame. The reference holds ids in uint8, which
    wraps round from 256 frames on; here they are ints, so longer sequences get another decay than there.

    >>> statistics([1.0, 1.0, 0.5, 0.0])
    Statistics(mean=0.625, recall=0.5, decay=0.75)

    Args:
        values: One value for each scored frame, in order.

    Raises:
        ValueError: There is no value.
    """
    if not len(values):
        raise ValueError("statistics need at least one value, got none")
    series = np.asarray(values, np.float64)
    ids = np.round(np.linspace(1, series.size, 5) + 1e-10).astype(int) - 1
    first, last = series[ids[0] : ids[1] + 1], series[ids[3] : ids[4] + 1]
    return Statistics(
        mean=float(series.mean()),
        recall=float(np.mean(series > 0.5)),
        decay=float(first.mean() - last.mean()),
    )


@dataclasses.dataclass(frozen=True)
class Scores:
    """J and F of one object.

    Args:
        jaccard: J of each scored frame, in order.
        boundary_f: F of each scored frame.
    """

    jaccard: tuple[float, ...]
    boundary_f: tuple[float, ...]

    @property
    def jaccard_statistics(self) -> Statistics:
        """Mean, recall and decay of J."""
        return statistics(self.jaccard)

    @property
    def boundary_f_statistics(self) -> Statistics:
        """Mean, recall and decay of F."""
        return statistics(self.boundary_f)


class Evaluator:
    """Scores the label maps of one sequence, frame by frame; it keeps numbers, no images.

    The first frame is not scored, nor, but for segtrack2, the last: which one that is shows only when no other comes,
    so the newest frame's scores do not count until the next one is added.

    >>> evaluator = Evaluator((1, 2), "davis2017")
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> for _ in range(3):
    ...     evaluator.add(np.array([[1, 0, 0, 2]]), truth)
    >>> {instance_id: scores.jaccard for instance_id, scores in evaluator.scores().items()}
    {1: (0.5,), 2: (1.0,)}

    Args:
        instance_ids: The objects to score: those of the first annotation; in davis2016 one id, under which its only
            object is reported.
        convention: See ``Convention``.
        starts: By id the number of the frame on which an object is marked, where that is not the first: it is scored
            from the next one on.

    Raises:
        ValueError: The ids are empty, not unique, out of range or too many for the convention, or the
            convention is unknown.
    """

    def __init__(
        self, instance_ids: tuple[int, ...], convention: Convention, starts: Mapping[int, int] | None = None
    ) -> None:
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
        if not instance_ids or len(set(instance_ids)) < len(instance_ids) or min(instance_ids) < 1:
            raise ValueError(f"instance_ids must be unique and >= 1, at least one, got {instance_ids}")
        if convention == "davis2016" and len(instance_ids) != 1:
            raise ValueError(f"davis2016 scores one object, got ids {instance_ids}")
        self._starts = dict(starts or {})
        self._convention = convention
        self._frames = 0
        self._scored: dict[int, list[tuple[float, float]]] = {i: [] for i in instance_ids}

    def add(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        """Take the next frame.

        Args:
            prediction: Labels, integer or bool, (H, W). An object without a pixel has an empty mask, and
                ids that are not to be scored are background.
            truth: Labels of the annotation, integer or bool, (H, W).

        Raises:
            ValueError: The two are not (H, W) of one shape.
        """
        if prediction.ndim != 2 or prediction.shape != truth.shape:
            raise ValueError(f"labels must be (H, W) of one shape, got {prediction.shape} and {truth.shape}")
        for instance_id, pairs in self._scored.items():
            if self._frames > self._starts.get(instance_id, 0):
                pairs.append(self._score(prediction, truth, instance_id))
        self._frames += 1

    def scores(self) -> dict[int, Scores]:
        """J and F of each object over the frames added that are scored.

        Raises:
            ValueError: There is none.
        """
        seen = {i: [None, *pairs][: self._frames] for i, pairs in self._scored.items()}  # of the first frame nothing
        scored = {i: scored_frames(values, self._convention) for i, values in seen.items()}
        return {
            i: Scores(jaccard=tuple(j for j, _ in pairs), boundary_f=tuple(f for _, f in pairs))
            for i, pairs in scored.items()
        }

    def _score(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any], i: int) -> tuple[float, float]:
        predicted, true = (mask_of(labels, i, self._convention) for labels in (prediction, truth))
        return jaccard(predicted, true), boundary_f(predicted, true)


def mask_of(labels: npt.NDArray[Any], instance_id: int, convention: Convention) -> BoolArray:
    """Mask of an object in ids, bool (H, W)."""
    return np.asarray(labels != 0 if convention == "davis2016" else labels == instance_id)


def scored_frames(frames: Sequence[Any], convention: Convention) -> Sequence[Any]:
    """Those of a sequence's frames (or of their values) that are scored.

    >>> scored_frames("abcd", "davis2017"), scored_frames("abcd", "segtrack2")
    ('bc', 'bcd')

    Raises:
        ValueError: There is none.
    """
    least, left_out = (2, "the first is") if convention == "segtrack2" else (3, "first and last are")
    if len(frames) < least:
        raise ValueError(f"a sequence needs {least} frames ({left_out} not scored), got {len(frames)}")
    return frames[1:] if convention == "segtrack2" else frames[1:-1]


@functools.cache
def _disk(radius: int) -> UInt8Array:
    """All (dx, dy) with dx^2 + dy^2 <= radius^2, as a structuring element."""
    squares = np.arange(-radius, radius + 1) ** 2
    return (squares + squares[:, None] <= radius**2).astype(np.uint8)


def _share_near(boundary_pixels: UInt8Array, others: UInt8Array, radius: int) -> float:
    """Share of the boundary pixels (0 or 1, not all 0) that lie within the radius of one of the others."""
    near = cv2.dilate(others, _disk(radius))
    return float(np.count_nonzero(boundary_pixels & near) / np.count_nonzero(boundary_pixels))


def _check_pair(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
    pair = prediction, truth
    if any(m.dtype != np.bool_ or m.ndim != 2 for m in pair) or prediction.shape != truth.shape:
        got = " and ".join(f"{m.dtype} {m.shape}" for m in pair)
        raise ValueError(f"masks must be bool (H, W) of one shape, got {got}")
