# SPDX-License-Identifier: Apache-2.0
"""Is what the decoder found the object? Which pieces of a mask are stray, what it is measured by, whether it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.cells import Floats, halved
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory
from maskrnn_ros.types import BoolArray, UInt8Array

_STRAY_SHARE, _STRAY_REACH = 0.2, 0.15
"""A piece smaller than this share of the largest one, and farther from it than this share of its root, is stray."""

_PIECE = 0.93, 0.3
"""Share of an object's usual likeness to its seed, and what the matching with it says (log-odds / 4), below which,
both, a piece apart from its mask is stray, however near. Of such pieces on the five held out clips of DAVIS less than a
hundredth of the right cells go, and a third of the wrong ones. A chair behind the box of OpenCV's box.mp4 had pieces
of the mask on 220 of 455 frames, up to 105 one after the other; with it on 84, up to 13."""

_LIKE = 0.9
"""Share of its usual likeness to the seed from which an object is taken for itself where its mask is not sure, or where
it was not seen. J of the held out clips of layers is 0.903 with it and 0.874 where all counts as like, of the rendered
ones 0.782 and 0.730; those of DAVIS stay the same."""

_CERTAIN = 0.95
"""Presence from which the network is certain, likewise. On bmx-bumps (held out) what is taken for the biker while he is
hidden has 0.94 at most, he himself 0.98 and more; of 895 masks of objects that are there, of ten held out clips, none
has less. J of bmx-bumps is 0.702 with it, 0.585 with 0.5."""

_BACKGROUND = -0.6
"""What the matching with the seed says of a mask, log-odds / 4, below which it is not the object but what was beside it
when it was marked. Of 1,307 masks of objects that are there, of 17 held out clips, none has less than -0.32. A scooter
that stood there already, where another one passes and goes behind a wall, has -0.97."""

_LIKENESS_RATE = 0.1
"""Weight of a frame in the usual likeness."""


class Measured(NamedTuple):
    """What decides about one object.

    Args:
        presence: See ``Output``, 0..1.
        likeness: See ``target.Known``.
        agreement: What the matching with the seed says of its mask, log-odds / 4; 0 without a mask.
        inside: Mean probability of its mask in its crop; 0 without a mask.
        area: Pixels of the working image with probability of at least 0.5.
        sure: Their mean probability, likewise.
    """

    presence: float
    likeness: float
    agreement: float
    inside: float
    area: int
    sure: float


def usually(usual: float | None, likeness: float) -> float:
    """The usual likeness with one more frame in it."""
    return likeness if usual is None else usual + _LIKENESS_RATE * (likeness - usual)


def is_seen(found: Measured, usual: float | None, state: InstanceMemory, config: Config) -> bool:
    """Whether what was found is the object.

    A mask that is not sure counts where it looks like the seed and the network is certain that the object is there:
    a thin object, or one of which little is seen, has hardly anything but edges. What is found again must look like
    it, and the network be certain, however sure the mask is. What was beside the object on its seed is not it.

    Args:
        found: What was found.
        usual: Its usual likeness, see ``Known``.
        state: The object on the frame before.
        config: All settings.
    """
    settings = config.presence
    is_like = usual is None or found.likeness >= _LIKE * usual
    was_seen = state.frames_unseen == 0
    share = settings.min_share if was_seen else settings.return_share
    if found.area < max(settings.min_pixels, share * state.usual_area) or found.agreement < _BACKGROUND:
        return False
    is_certain = found.presence >= max(settings.threshold, _CERTAIN)
    if not was_seen:
        return found.sure >= settings.return_probability and is_like and is_certain
    is_sure = found.sure >= settings.min_probability and found.presence >= settings.threshold
    return is_sure or (is_like and is_certain)


def strays(mask: UInt8Array, matched: Sequence[Floats], usual: float | None) -> BoolArray:
    """Pieces of a mask (n, n) beside the largest one that are small and far from it, or unlike the seed.

    Args:
        mask: 0 or 1.
        matched: How much each cell resembles some of the seed, and whether those of the object, (m, m) each.
        usual: See ``Known.likeness``.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 3:
        return np.zeros(mask.shape, np.bool_)
    areas = stats[:, cv2.CC_STAT_AREA]
    largest = int(areas[1:].argmax()) + 1
    away = cv2.distanceTransform((pieces != largest).astype(np.uint8), cv2.DIST_L2, 3)
    reach = _STRAY_REACH * float(areas[largest]) ** 0.5
    alike, own = (cv2.resize(plane, mask.shape[::-1], interpolation=cv2.INTER_NEAREST) for plane in matched)

    def is_stray(inside: BoolArray, area: int) -> bool:
        if area < _STRAY_SHARE * areas[largest] and float(away[inside].min()) > reach:
            return True
        is_unlike = usual is not None and float(alike[inside].mean()) < _PIECE[0] * usual
        return is_unlike and float(own[inside].mean()) < _PIECE[1]

    return np.isin(pieces, [k for k in range(1, count) if k != largest and is_stray(pieces == k, areas[k])])


def measured(log_odds: Floats, probability: Floats, patch: Patch, presence: float, matched: Floats) -> Measured:
    """Measure one object.

    Likeness is how much the cells of its mask resemble any of the seed's crop, -1..1, agreement whether it is those of
    the object that they resemble.

    Args:
        log_odds: In its crop, (n, n).
        probability: Likewise.
        patch: The same at pixels.
        presence: 0..1.
        matched: What the matching said of its crop, (6, m, m), see ``step.Output``.
    """
    inside = log_odds >= 0
    share = inside.astype(np.float32)
    while share.shape != matched.shape[1:]:
        share = halved(share)
    total = float(share.sum())
    likeness, agreement = (float((matched[k] * share).sum()) / total if total else 0.0 for k in (2, 0))
    count, pixels = int(np.count_nonzero(inside)), patch.values[patch.values >= 0.5]
    return Measured(
        presence=presence,
        likeness=likeness,
        agreement=agreement,
        inside=float(probability[inside].sum(dtype=np.float64)) / max(count, 1),
        area=int(pixels.size),
        sure=float(pixels.sum(dtype=np.float64)) / max(pixels.size, 1),
    )
