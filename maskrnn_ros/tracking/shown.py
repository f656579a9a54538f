# SPDX-License-Identifier: Apache-2.0
"""What is shown of the instances on a frame, at the size of the input: labels, and box and score of each.

On the CPU one instance after the other is enlarged and refined in its own box (``full_size``); an engine that lies on
another device does it there for all of them at once, and labels come back in one copy. Both give the same masks but for
rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from maskrnn_ros.model.engine import Drafts, Merge, Merged
from maskrnn_ros.model.refinement import brightness
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking.full_size import drafts_of, enlarge, enlarge_along_edges
from maskrnn_ros.tracking.merge import Likely, merge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.score import calibrated, ratio, score
from maskrnn_ros.tracking.state import PreparedFrame
from maskrnn_ros.types import BoolArray, Box, LabelArray, UInt8Array

Floats = npt.NDArray[np.float32]


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
    """All that are seen on a frame.

    Args:
        patches: Probabilities at the working size, or at that of the frame's larger image, by id.
        seeds: Of those that were seeded on it, the seeds themselves, bool (H, W): they are shown to the pixel.
        frame: The frame.
        image: As it came, RGB, uint8 (H, W, 3), along whose edges masks shall end; None: along no edges.
        config: Of the filter.
    """

    patches: Mapping[int, Patch]
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
        # seeds come at the size of the input, and not on many frames; in a zoom there are maps of two sizes
        apart = bool(self.seeds) or any(one.size != self.frame.size_of_work for one in self.patches.values())
        return self._on_cpu(pool) if merge is None or apart else self._on_device(merge)

    def _likely(self, patches: Mapping[int, Patch], image: UInt8Array | None, pool: ThreadPool) -> dict[int, Likely]:
        if image is None:
            likely = enlarge(patches, self.frame.size)
        else:
            likely = {}
            for guide in (self.frame.image, self.frame.fine):
                own = {} if guide is None else {i: one for i, one in patches.items() if one.size == guide.shape[:2]}
                if guide is not None and own:
                    likely |= enlarge_along_edges(own, guide, image, self.config, pool)
        likely |= {i: _marked(mask) for i, mask in self.seeds.items()}
        if self.frame.ignored is not None and likely:  # edges were refined, and the working size is coarser
            allowed = ~self.frame.ignored.full
            likely = {i: Likely(one.box, one.probability * allowed[one.box.slices]) for i, one in likely.items()}
        return likely

    def _on_cpu(self, pool: ThreadPool) -> tuple[LabelArray, dict[int, Shown]]:
        likely = self._likely(self.patches, self.image, pool)
        labels = merge(likely, self.frame.size)
        found = {}
        for i, one in likely.items():
            won = labels[one.box.slices] == i
            box = Box.of_mask(won)
            if box is not None:
                mask, probability = won[box.slices].copy(), one.probability[box.slices]
                found[i] = Shown(box.moved(one.box.x0, one.box.y0), mask, probability, score(probability, mask))
        return labels, found

    def _on_device(self, merge_there: Merge) -> tuple[LabelArray, dict[int, Shown]]:
        guides = None if self.image is None else (brightness(self.frame.image), brightness(self.image))
        ignored = None if self.frame.ignored is None else self.frame.ignored.full
        drafts = drafts_of(self.patches, self.frame.size, guides, self.config, ignored)
        if drafts is None:
            return np.zeros(self.frame.size, np.int32), {}
        merged = merge_there(drafts)
        own = dataclasses.replace(self, image=None)  # that is the caller's, and tracks may be kept
        return merged.labels, {
            i: own._shown(i, k, drafts, merged) for k, i in enumerate(drafts.ids) if merged.pixels[k]
        }

    def _shown(self, i: int, k: int, drafts: Drafts, merged: Merged) -> Shown:
        box = Box(*merged.boxes[k].tolist())
        sums = float(merged.pixels[k]), float(merged.inside[k]), float(merged.around[k])
        image = None if drafts.guides is None else drafts.guides[1]
        return Shown(
            box,
            np.asarray(merged.labels[box.slices] == i),
            partial(self._probability, i, box, image),
            calibrated(ratio(*sums)),
        )

    def _probability(self, i: int, box: Box, image: UInt8Array | None) -> Floats:
        """Of one instance in a box, made on the CPU: hardly anybody asks for it, and the labels are all that came."""
        out = np.zeros((box.height, box.width), np.float32)
        one = self._likely({i: self.patches[i]}, image, ThreadPool(1)).get(i)
        both = None if one is None else one.box.intersection(box)
        if one is not None and both is not None:
            values = one.probability[both.moved(-one.box.x0, -one.box.y0).slices]
            out[both.moved(-box.x0, -box.y0).slices] = values
        return out


def _marked(mask: BoolArray) -> Likely:
    box = Box.of_mask(mask)
    assert box is not None  # a seed marks what its ids are
    return Likely(box, mask[box.slices].astype(np.float32))
