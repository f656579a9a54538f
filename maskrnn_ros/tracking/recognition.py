# SPDX-License-Identifier: Apache-2.0
"""Is what the decoder found the object? Which pieces of a mask are stray, what it is measured by, whether it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import Config
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceState
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
    """What decides about one object, read from the device at once.

    Args:
        presence: See ``Output``, 0..1.
        likeness: See ``follow.Known``.
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


def is_seen(found: Measured, usual: float | None, state: InstanceState, config: Config) -> bool:
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


def without_strays(log_odds: Tensor, matched: Tensor, usual: Sequence[float | None]) -> Tensor:
    """Log-odds without the pieces of each mask that are not the object's.

    Args:
        log_odds: (K, n, n).
        matched: How much each cell resembles some of the seed, and whether those of the object, (K, 2, m, m).
        usual: See ``Known.likeness``.
    """
    masks = (log_odds >= 0).to(torch.uint8).cpu().numpy()
    strays = [_strays(*one) for one in zip(masks, matched.cpu().numpy(), usual, strict=True)]
    if not any(stray.any() for stray in strays):
        return log_odds
    gone = torch.from_numpy(np.stack(strays)).to(log_odds.device)
    return torch.where(gone, -8.0, log_odds)


def _strays(mask: UInt8Array, matched: npt.NDArray[np.float32], usual: float | None) -> BoolArray:
    """Pieces of a mask (n, n) beside the largest one that are small and far from it, or unlike the seed."""
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


def measured(presence: Tensor, resemblance: Tensor, probability: Tensor, patches: Sequence[Patch]) -> list[Measured]:
    """Of K objects, by one read: presence (K,), see ``resemblance``, probability (K, n, n) in the crops."""
    crops, pixels = _insides(probability), torch.stack([_insides(patch.values) for patch in patches])
    rows = torch.cat([presence.double()[:, None], resemblance, crops, pixels], dim=1).tolist()
    return [
        Measured(here, like, agrees, total / max(count, 1.0), int(area), sure / max(area, 1.0))
        for here, like, agrees, count, total, area, sure in rows
    ]


def _insides(probability: Tensor) -> Tensor:
    """How many of (..., a, b) are at least 0.5, and their sum, float64 (..., 2)."""
    inside = probability >= 0.5
    return torch.stack([part.sum(dim=(-2, -1), dtype=torch.float64) for part in (inside, probability * inside)], dim=-1)


def resemblance(log_odds: Tensor, matched: Tensor) -> Tensor:
    """Likeness and agreement of masks with their seeds, float64 (K, 2), see ``Measured``; 0 without a mask.

    The one is how much their cells resemble any of the seed's crop, -1..1, the other whether it is those of the object
    that they resemble.

    Args:
        log_odds: (K, n, n).
        matched: What the matching said of their crops, (K, 6, m, m), see ``Output``.
    """
    share = functional.avg_pool2d((log_odds >= 0).float()[:, None], log_odds.shape[-1] // matched.shape[-1])[:, 0]
    total = share.sum(dim=(1, 2)).double()[:, None]
    alike = (matched[:, [2, 0]] * share[:, None]).sum(dim=(2, 3)).double()
    return torch.where(total > 0, alike / total, 0.0)
