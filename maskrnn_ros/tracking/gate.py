# SPDX-License-Identifier: Apache-2.0
"""Box gate: an instance is only where its enlarged box is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrnn_ros.types import Box


def box_of(probability: Tensor, threshold: float = 0.5) -> Box | None:
    """Smallest box around the pixels of (h, w) that reach the threshold; None where there are none."""
    mask = probability >= threshold
    if mask.device.type != "cpu":
        return box_at_once(mask)
    columns, rows = (mask.any(dim=axis).nonzero().flatten() for axis in (0, 1))  # the mask stays on its device
    if not len(columns):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def box_at_once(mask: Tensor) -> Box | None:
    """Smallest box around what is set in (h, w); on a GPU, where each number that is read costs a wait, by one read."""
    return boxes_at_once(mask[None])[0]


def boxes_at_once(masks: Tensor) -> list[Box | None]:
    """Those of K masks, bool (K, h, w), by one read, too."""
    lines = [masks.any(dim=axis).int() for axis in (1, 2)]  # (K, w), (K, h)
    ends = [line.argmax(dim=1) for line in lines] + [line.shape[1] - line.flip(1).argmax(dim=1) for line in lines]
    rows: list[list[int]] = torch.stack([*ends, lines[0].amax(dim=1).to(ends[0].dtype)], dim=1).tolist()
    return [Box(x0, y0, x1, y1) if is_any else None for x0, y0, x1, y1, is_any in rows]


def enlarge(box: Box, factor: float, size: tuple[int, int]) -> Box:
    """Scale width and height about the centre, outwards to whole pixels, clipped to (H, W).

    MaskRNN enlarges the box of its localization net by 1.25.

    >>> enlarge(Box(10, 10, 18, 14), 1.25, (100, 100))
    Box(x0=9, y0=9, x1=19, y1=15)
    """
    margin_x, margin_y = (factor - 1) * box.width / 2, (factor - 1) * box.height / 2
    inside = clip((box.x0 - margin_x, box.y0 - margin_y, box.x1 + margin_x, box.y1 + margin_y), size)
    assert inside is not None  # the box itself lies inside
    return inside


def clip(corners: Sequence[float], size: tuple[int, int]) -> Box | None:
    """The pixels of (H, W) that x0, y0, x1, y1 touch; None where there are none.

    >>> clip((-3.0, 1.5, 4.2, 5.0), (4, 8))
    Box(x0=0, y0=1, x1=5, y1=4)
    """
    x0, y0 = max(0, math.floor(corners[0])), max(0, math.floor(corners[1]))
    x1, y1 = min(size[1], math.ceil(corners[2])), min(size[0], math.ceil(corners[3]))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
