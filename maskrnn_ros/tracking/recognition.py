# SPDX-License-Identifier: Apache-2.0
"""Is what the decoder found the object? Which pieces of a mask are stray, what it is measured by, whether it counts.

All of it for K objects at once; what is said of one does not depend on the others.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.cells import Floats, halved
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.pieces import Pieces
from maskrnn_ros.types import BoolArray

Numbers = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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

_NEXT_TO_NOTHING = 1e-9
"""What is divided by where there is no mask: 0 stays 0."""


class Measured(NamedTuple):
    """What decides about K objects, (K,) each.

    Args:
        presence: See ``Output``, 0..1.
        likeness: See ``target.Known``.
        agreement: What the matching with the seed says of its mask, log-odds / 4; 0 without a mask.
        inside: Mean probability of its mask in its crop; 0 without a mask.
        area: Pixels of the working image with probability of at least 0.5.
        sure: Their mean probability, likewise.
    """

    presence: Numbers
    likeness: Numbers
    agreement: Numbers
    inside: Numbers
    area: Ints
    sure: Numbers


def usually(usual: Numbers, likeness: Numbers) -> Numbers:
    """The usual likeness with one more frame in it, (K,)."""
    is_first = usual < -1
    return np.where(is_first, likeness, usual + _LIKENESS_RATE * (likeness - np.where(is_first, 0, usual)))


def are_seen(found: Measured, usual: Numbers, was_seen: BoolArray, usual_area: Numbers, config: Config) -> BoolArray:
    """Whether what was found is the object, bool (K,).

    A mask that is not sure counts where it looks like the seed and the network is certain that the object is there:
    a thin object, or one of which little is seen, has hardly anything but edges. What is found again must look like
    it, and the network be certain, however sure the mask is. What was beside the object on its seed is not it.

    Args:
        found: What was found.
        usual: Usual likeness, see ``Known``.
        was_seen: Whether it was seen on the frame before.
        usual_area: See ``InstanceMemory``.
        config: All settings.
    """
    settings = config.presence
    share = np.where(was_seen, settings.min_share, settings.return_share)
    counts = (found.area >= np.maximum(settings.min_pixels, share * usual_area)) & (found.agreement >= _BACKGROUND)
    is_like = found.likeness >= _LIKE * usual
    is_certain = is_like & (found.presence >= max(settings.threshold, _CERTAIN))
    is_sure = (found.sure >= settings.min_probability) & (found.presence >= settings.threshold)
    returns = (found.sure >= settings.return_probability) & is_certain
    return np.asarray(counts & np.where(was_seen, is_sure | is_certain, returns), np.bool_)


def strays(masks: BoolArray, alike: Floats, own: Floats, usual: Numbers) -> BoolArray:
    """Pieces of each mask beside its largest one that are small and far from it, or unlike the seed, (K, n, n).

    Args:
        masks: bool, (K, n, n).
        alike: How much each cell resembles some of the seed, (K, m, m).
        own: And how much it is those of the object, likewise.
        usual: See ``Known.likeness``, (K,).
    """
    found = np.zeros(masks.shape, np.bool_)
    pieces = Pieces.of(masks)
    which = np.flatnonzero(pieces.counts > 1)
    if not which.size:
        return found
    largest = pieces.largest(pieces.areas)
    mine = largest[pieces.owners]
    is_apart = np.arange(len(mine)) != mine
    is_unlike = (pieces.means(alike, which) < _PIECE[0] * usual[pieces.owners]) & (pieces.means(own, which) < _PIECE[1])
    is_stray = is_apart & is_unlike
    is_small = is_apart & ~is_stray & (pieces.areas < _STRAY_SHARE * pieces.areas[mine])
    for k in sorted(set(pieces.owners[is_small].tolist())):
        away = cv2.distanceTransform((pieces.map[k] != largest[k] + 1).astype(np.uint8), cv2.DIST_L2, 3)
        reach = _STRAY_REACH * float(pieces.areas[largest[k]]) ** 0.5
        for piece in np.flatnonzero(is_small & (pieces.owners == k)).tolist():
            is_stray[piece] = away[pieces.map[k] == piece + 1].min() > reach
    found[which] = np.concatenate([[False], is_stray])[pieces.map[which]]
    return found


def measured(log_odds: Floats, probability: Floats, patches: Patches, presence: Numbers, matched: Floats) -> Measured:
    """Measure K objects.

    Likeness is how much the cells of its mask resemble any of the seed's crop, -1..1, agreement whether it is those of
    the object that they resemble.

    Args:
        log_odds: In their crops, (K, n, n).
        probability: Likewise.
        patches: The same at pixels.
        presence: 0..1, (K,).
        matched: What the matching said of their crops, (K, 6, m, m), see ``step.Output``.
    """
    count = len(log_odds)
    share = inside = (log_odds >= 0).astype(np.float32)
    while share.shape[1:] != matched.shape[2:]:
        share = halved(share)
    cells = share.reshape(count, -1)
    total = cells.sum(axis=1, dtype=np.float64)
    likeness, agreement = (
        (matched[:, k].reshape(count, -1) * cells).sum(axis=1) / np.maximum(total, _NEXT_TO_NOTHING) for k in (2, 0)
    )
    area, sums = patches.areas, patches.sums(np.where(patches.values >= 0.5, patches.values, np.float64(0)))
    masses = (probability * inside).reshape(count, -1).sum(axis=1)
    return Measured(
        presence=presence,
        likeness=likeness,
        agreement=agreement,
        inside=masses / np.maximum(inside.reshape(count, -1).sum(axis=1), 1),
        area=area,
        sure=sums / np.maximum(area, 1),
    )
