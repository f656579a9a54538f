# SPDX-License-Identifier: Apache-2.0
"""What is shown of the instances on a frame, at the size of the input: labels, and box and score of each.

On the CPU instances are enlarged and refined in their own boxes, side by side in one array (``full_size``); an engine
that lies on another device does it there, and labels come back in one copy. Both give the same masks but for rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Merge
from maskrnn_ros.model.refinement import brightness
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.full_size import drafts_of, enlarge, enlarge_along_edges
from maskrnn_ros.tracking.merge import Likely, merge
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.score import calibrated, ratio
from maskrnn_ros.tracking.sheet import ONE, bounds, parts
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import BoolArray, Box, LabelArray, UInt8Array

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """An instance that has won pixels.

    Args:
        box: Around them.
        mask: bool, (box.height, box.width).
        probability: float32, likewise, before the merge; or what makes it.
        score: See ``Track``.
    """

    box: Box
    mask: BoolArray
    probability: Floats | Callable[[], Floats]
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
    """K that are followed.

    Args:
        ids: Ascending.
        patches: Probabilities at the working size, or at that of the frame's larger image; nothing of what is not seen.
        seeds: Of those that were seeded on the frame, the seeds themselves, bool (H, W), by id: they are shown to the
            pixel, and nothing of them is in ``patches``.
        frame: The frame.
        image: As it came, RGB, uint8 (H, W, 3), along whose edges masks shall end; None: along no edges.
        config: Of the filter.
    """

    ids: Sequence[int]
    patches: Patches
    seeds: Mapping[int, BoolArray]
    frame: PreparedFrame
    image: UInt8Array | None
    config: RefinementConfig

    def shown(self, merge: Merge | None, pool: ThreadPool) -> tuple[LabelArray, dict[int, Shown]]:
        """Labels, int32 (H, W), and those that have won pixels, by id.

        Args:
            merge: Merges on the engine's device; None: that is the CPU.
            pool: Shares out what is done for each instance on the CPU.
        """
        here = self.patches.of_size(self.frame.size_of_work)
        # seeds come at the size of the input, and not on many frames; in a zoom there are maps of two sizes
        apart = bool(self.seeds) or not np.array_equal(here.boxes, self.patches.boxes)
        return self._on_cpu(pool) if merge is None or apart else self._on_device(here, merge)

    def _likely(self, pool: ThreadPool) -> Likely:
        likely = Likely.joined([*self._enlarged(pool), *(_marked(i, mask) for i, mask in self.seeds.items())])
        if self.frame.ignored is None:
            return likely
        allowed = ~self.frame.ignored.full  # edges were refined, and the working size is coarser
        windows = zip(likely.planes, likely.boxes.tolist(), strict=True)
        return Likely(likely.ids, likely.boxes, [one * allowed[y0:y1, x0:x1] for one, (x0, y0, x1, y1) in windows])

    def _enlarged(self, pool: ThreadPool) -> Iterator[Likely]:
        for guide in (self.frame.image, self.frame.fine):
            if guide is None:
                continue
            own = self.patches.of_size((guide.shape[0], guide.shape[1]))
            if self.image is None:
                yield enlarge(self.ids, own, self.frame.size)
            else:
                yield enlarge_along_edges(self.ids, own, guide, self.image, self.config, pool)

    def _on_cpu(self, pool: ThreadPool) -> tuple[LabelArray, dict[int, Shown]]:
        likely = self._likely(pool)
        labels = merge(likely, self.frame.size)
        windows = zip(likely.ids.tolist(), likely.boxes.tolist(), strict=True)
        masks = [(labels[y0:y1, x0:x1] == i) * ONE for i, (x0, y0, x1, y1) in windows]
        return labels, _won(likely, masks)

    def _on_device(self, patches: Patches, merge_there: Merge) -> tuple[LabelArray, dict[int, Shown]]:
        guides = None if self.image is None else (brightness(self.frame.image), brightness(self.image))
        ignored = None if self.frame.ignored is None else self.frame.ignored.full
        drafts = drafts_of(self.ids, patches, self.frame.size, guides, self.config, ignored)
        if drafts is None:
            return np.zeros(self.frame.size, np.int32), {}
        merged = merge_there(drafts)
        own = dataclasses.replace(self, image=None if guides is None else guides[1])  # the other is the caller's
        which = np.flatnonzero(merged.pixels)
        sums = merged.pixels[which].astype(np.float64), merged.inside[which], merged.around[which]
        found = {}
        for k, score in zip(which.tolist(), calibrated(ratio(*sums)).tolist(), strict=True):
            i, box = drafts.ids[k], Box(*merged.boxes[k].tolist())
            found[i] = Shown(box, merged.labels[box.slices] == i, partial(own._probability, i, box), score)
        return merged.labels, found

    def _probability(self, i: int, box: Box) -> Floats:
        """Of one instance in a box, made on the CPU: hardly anybody asks for it, and the labels are all that came."""
        out = np.zeros((box.height, box.width), np.float32)
        own = dataclasses.replace(self, patches=self.patches.only(np.array(self.ids) == i))
        likely = own._likely(ThreadPool(1))
        for one, corners in zip(likely.planes, likely.boxes.tolist(), strict=True):
            there = Box(*corners)
            both = there.intersection(box)
            if both is not None:
                out[both.moved(-box.x0, -box.y0).slices] = one[both.moved(-there.x0, -there.y0).slices]
        return out


def _won(likely: Likely, masks: Sequence[UInt8Array]) -> dict[int, Shown]:
    """Those that have won pixels, by id; masks are 1 where they have, in the boxes of ``likely``."""
    boxes = bounds(masks, likely.boxes)
    own, planes = parts(masks, likely.boxes, boxes), parts(likely.planes, likely.boxes, boxes)
    sums = [
        (cv2.countNonZero(mask), cv2.sumElems(one * mask)[0], cv2.sumElems(one)[0]) if mask.size else (1, 0.0, 0.0)
        for mask, one in zip(own, planes, strict=True)
    ]
    scores = calibrated(ratio(*np.array(sums, np.float64).reshape(-1, 3).T)).tolist()
    columns = zip(likely.ids.tolist(), boxes.tolist(), own, planes, scores, strict=True)
    return {i: Shown(Box(*box), mask != 0, one, score) for i, box, mask, one, score in columns if mask.size}


def _marked(i: int, mask: BoolArray) -> Likely:
    x0, y0, x1, y1 = corners = bounds([mask * ONE], np.zeros((1, 4), np.int64))[0].tolist()
    return Likely(np.array([i]), np.array([corners]), [mask[y0:y1, x0:x1].astype(np.float32)])
