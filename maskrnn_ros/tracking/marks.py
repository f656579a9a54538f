# SPDX-License-Identifier: Apache-2.0
"""What a seed marks on its frame, and what lies around that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from maskrnn_ros.model.shapes import STRIDE
from maskrnn_ros.tracking.cells import Floats, resized
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.zoom import at_work
from maskrnn_ros.types import Seed


def around_of(
    shares: Mapping[int, Floats],
    seed: Seed,
    frame: PreparedFrame,
    covered: Floats | None,
    followed: Mapping[int, InstanceMemory],
) -> dict[int, Floats]:
    """What else is marked or followed around a seed's instances, float32 like their shares, by id.

    Args:
        shares: Share of each pixel that each covers, float32 (h, w), by id.
        seed: Marks them.
        frame: The frame that it was drawn on.
        covered: What other instances cover there, float32 (h4, w4) at its cells of stride 4; None: see ``followed``.
        followed: Others that are followed there.
    """
    height, width = frame.size_of_work
    live = np.zeros((height, width), np.float32)
    if covered is not None:
        live = covered.repeat(STRIDE, 0).repeat(STRIDE, 1)[:height, :width]
    for i, state in followed.items():
        patch = at_work(state, frame).patch
        if i not in shares and patch.box is not None:
            live[patch.box.slices] = np.maximum(live[patch.box.slices], patch.values)
    around = {}
    for i, share in shares.items():
        size = share.shape[0], share.shape[1]
        rest = resized(((seed.labels != i) & (seed.labels != 0)).astype(np.float32), size)
        around[i] = np.maximum(rest, resized(live, size)) * (1 - share)
    return around


def check_size_of(what: str, actual: tuple[int, int], expected: tuple[int, int]) -> None:
    """Refuse another size (H, W) than that of the video.

    Raises:
        ValueError: It is another.
    """
    if actual != expected:
        raise ValueError(
            f"{what} must be {expected[1]}x{expected[0]} (width x height) like the video, got {actual[1]}x{actual[0]}"
        )


def outside(seed: Seed, frame: PreparedFrame) -> Seed:
    """The seed of a frame without what is ignored there.

    Raises:
        ValueError: Its size is not that of the frame, or all of an instance is ignored.
    """
    check_size_of("seed", seed.size, frame.size)
    return seed.outside(frame.ignored.full if frame.ignored is not None else None)
