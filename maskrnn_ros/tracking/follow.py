# SPDX-License-Identifier: Apache-2.0
"""The networks at work in the tracker: begins objects on their seeds, carries all of them to the next frame at once.

Objects meet in two places only: each is shown where the others' warped masks are, and a frame that enters its memory
has the others as negatives. What one decides on a frame never depends on what another decides on it. Where others are
that are not carried along, ``Beside`` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.flow.warp import warp
from maskrnn_ros.model.engine import Around, Engine, Keys, Lesson, Looked
from maskrnn_ros.model.shapes import CONTEXT, FINE, RATE, SMALLEST, STRIDE, TRUSTED
from maskrnn_ros.tracking.cells import Floats, cells_of, cut, halved
from maskrnn_ros.tracking.decide import Decided, decide
from maskrnn_ros.tracking.gate import boxes_of, whole
from maskrnn_ros.tracking.look_alikes import at_cells, moved, none_yet, seen_elsewhere
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.rivals import rivals_of
from maskrnn_ros.tracking.search import searched
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.states import Found, States
from maskrnn_ros.tracking.target import UNKNOWN, Carried, Known, Memory, Sums, taken
from maskrnn_ros.tracking.views import augment
from maskrnn_ros.types import BoolArray

_VIEWS = 8
"""Views of a seed that its target model is fitted to, itself and augmentations. On the held out clips, closed form
alone, by the trunk of an earlier network, J / F with 1, 8 and 40: 0.753 / 0.707, 0.766 / 0.725, 0.763 / 0.721."""

_LEFT = 0.25
"""Share of an object that a view must show to count."""

_EVERY = 2
"""Which images may enter a memory, with as much weight as all together. On the held out clips, J / F with every one,
every second, of the decoder before: 0.803 / 0.780, 0.802 / 0.780; on those of layers 0.879 / 0.933, 0.881 / 0.935."""


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Objects that are shown to others and not carried along: what they cover, float32 (h4, w4), 0..1.

    Args:
        before: On the frame before; None: nothing.
        now: On the frame; None: nothing.
    """

    before: Floats | None = None
    now: Floats | None = None

    def with_still(self, patches: Patches) -> Beside:
        """The same with objects that have not moved, given at the pixels of the working image."""
        plane = np.zeros(patches.size, np.float32)
        for view, (x0, y0, x1, y1) in zip(patches.views, patches.boxes.tolist(), strict=True):
            np.maximum(plane[y0:y1, x0:x1], view, out=plane[y0:y1, x0:x1])
        still = cells_of(plane, STRIDE)
        before, now = (still if one is None else np.maximum(one, still) for one in (self.before, self.now))
        return Beside(before, now)


class Following:
    """Runs the networks.

    Args:
        engine: Runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- seeds ---

    def begin(
        self, frame: PreparedFrame, shares: Mapping[int, Floats], around: Mapping[int, Floats], config: Config
    ) -> dict[int, Known]:
        """Objects as they are marked.

        Args:
            frame: The frame that they were marked on.
            shares: Share of each pixel that an object covers, float32 (h, w), by id.
            around: What other objects cover there, likewise, for the same ids.
            config: All settings.
        """
        if not shares:
            return {}
        masks, others = np.stack(list(shares.values())), np.stack(list(around.values()))
        boxes = boxes_of(masks)
        crops = _crops_around(boxes)
        if config.adaptation.method == "none":
            memory = Memory.nothing(len(masks), self._engine)
            weights = memory.seed.target
        else:
            memory = self._memory(frame, masks, others, boxes, config)
            weights = memory.coefficients(self._engine.ridge, range(len(masks)))
        numbers = np.arange(len(masks))
        everything = np.repeat(whole(frame.size_of_work)[None], len(masks), axis=0)
        carried = Carried.begun(cut(masks, everything, crops, FINE, numbers), crops, self._engine)
        known = Known(carried, memory, weights, np.full(len(masks), UNKNOWN), none_yet(len(masks)))
        return {i: taken(known, k) for k, i in enumerate(shares)}

    def _memory(self, frame: PreparedFrame, masks: Floats, others: Floats, boxes: Floats, config: Config) -> Memory:
        """Of K objects on the frame that they were marked on; masks and others are (K, h, w), boxes (K, 4)."""
        unknown = _unknown(frame)
        found = self._engine.begin(frame.features, boxes, _all_cells(masks), _all_cells(others), _known(masks, unknown))
        sums, keys = Sums(found.square, found.target), Keys(found.code, found.values)
        if unknown is not None:  # cells of keys that an ignore mask covers are like nothing
            everything = whole(frame.size_of_work)[None]
            seen = _seen(cut(unknown[None], everything, _crops_around(boxes), FINE))[:, None]
            keys = Keys(self._engine.times(keys.code, seen), self._engine.times(keys.values, seen))
        counts = np.ones(len(masks))
        random = np.random.default_rng(config.adaptation.seed)
        planes = [masks.max(axis=0), *masks, *others, *([] if unknown is None else [unknown])]
        stacked = np.stack(planes, axis=-1)
        for _ in range(_VIEWS - 1):
            image, moved = augment(frame.image, stacked, random)
            every = np.ascontiguousarray(moved.transpose(2, 0, 1))[1:]
            seen, around = every[: len(masks)], every[len(masks) : 2 * len(masks)]
            counted = seen.sum(axis=(1, 2)) >= _LEFT * masks.sum(axis=(1, 2))
            if not counted.any():
                continue
            hidden = None if unknown is None else every[-1]
            features = self._engine.features(image)
            cells = _all_cells(seen), _all_cells(around), _known(seen, hidden)
            found = self._engine.begin(features, boxes_of(seen), *cells)
            counts += counted
            sums = sums.blend(Sums(found.square, found.target), counted / counts)
        return Memory(sums, sums, keys, keys)

    def search(self, state: InstanceMemory, frame: PreparedFrame, config: Config) -> Floats:
        """Where on a frame a lost object may be: a box (4,), pixels; NaN: nowhere."""
        assert state.known is not None
        weights, alike, usual = state.known.weights[None], state.known.alike[None], np.array([state.usual_area])
        return np.asarray(self._searched(frame, weights, alike, usual, config)[0])

    def _searched(
        self, frame: PreparedFrame, weights: Floats, alike: Floats, usual: npt.NDArray[np.float64], config: Config
    ) -> Floats:
        ignored = _ignored(frame)
        hidden = at_cells(alike, (ignored.shape[0], ignored.shape[1])) | (ignored >= 0.5)
        scores = self._engine.scores(frame.features, weights)
        return searched(scores, usual, hidden, config.presence.return_share)

    # --- frames ---

    def advance(
        self,
        states: States,
        frame: PreparedFrame,
        flow: Floats,
        config: Config,
        beside: Beside | None = None,
        rests: BoolArray | None = None,
    ) -> Found:
        """All objects on the next frame.

        Args:
            states: On the frame before, all of them begun.
            frame: The frame.
            flow: Backward flow between the two, float32 (2, h, w), pixels.
            config: All settings.
            beside: Other objects, that are shown to these; None: there are none.
            rests: Which of them are as they were and are not looked at, bool (K,), see ``rest``; None: none.
        """
        beside = beside or Beside()
        if rests is None or not rests.any():
            return self._advanced(states, frame, flow, config, beside)
        which = np.flatnonzero(~rests)
        some = states.only([states.ids[k] for k in which])
        found = self._advanced(some, frame, flow, config, beside.with_still(states.patches.only(rests)))
        return states.joined(which, some, found, self._engine)

    def _advanced(self, states: States, frame: PreparedFrame, flow: Floats, config: Config, beside: Beside) -> Found:
        """Objects that are looked at."""
        cells = np.stack([cells_of(plane, STRIDE) for plane in flow])
        alike = states.begun.alike  # as the prior: a mask alone decides without one
        if config.prior.source != "unwarped":
            alike = moved(alike, cells) if config.prior.source == "warped" else none_yet(len(states))
        looked = self._look(states, frame, cells, alike, config, beside)
        decided = decide(states, looked, alike, frame, config, self._engine)
        which = _trusted(states, decided)
        known = decided.known
        if which.size and config.adaptation.method != "none":  # else there are no models to score by
            known = self._learned(known, which, decided, looked, beside)
            scores = self._engine.scores(frame.features, states.begun.weights[which])
            known = dataclasses.replace(known, alike=_seen_elsewhere(known, which, scores, frame))
        return Found(decided.patches, known, decided.measured.area, decided.sees)

    def _look(
        self, states: States, frame: PreparedFrame, flow: Floats, alike: Floats, config: Config, beside: Beside
    ) -> Looked:
        """One call of the step for all objects; the flow is given at cells of stride 4."""
        known, ignored = states.begun, _ignored(frame)
        where = np.zeros_like(ignored)
        if beside.before is not None:
            goes = flow * np.float32((config.prior.source == "warped") / STRIDE)
            where = warp(beside.before, goes)
        has_prior = config.prior.source != "none"
        switches = config.prior.source == "warped", has_prior, config.network.flow_stream, config.network.hidden
        around = Around(
            flow=flow[None],
            ignored=ignored[None],
            beside=where[None],
            switches=np.array(switches, np.float32),
        )
        sought = np.full((len(states), 4), np.nan, np.float32)
        lost = np.flatnonzero(states.frames_unseen > 0) if has_prior else np.arange(len(states))
        if lost.size:
            sought[lost] = self._searched(frame, known.weights[lost], alike[lost], states.usual_area[lost], config)
        return self._engine.step(frame.features, around, known.told(sought))

    def _learned(
        self,
        before: Known,
        which: npt.NDArray[np.intp],
        decided: Decided,
        looked: Looked,
        beside: Beside,
    ) -> Known:
        """What is known of the objects with this frame in the memories of some."""
        share = halved(before.carried.probability[which])
        rivals = rivals_of(before.carried, decided.sees, which, beside.now)
        sure = np.maximum(np.abs(share - np.float32(0.5)) * 2, np.float32(0.1))
        seen = None
        if decided.covered is not None:
            sure *= 1 - halved(decided.covered[which])
            seen = _seen(decided.covered[which])
        numbers = which.tolist()
        lesson = Lesson(numbers, share * (1 - rivals * (rivals > share)), rivals, sure, seen)
        found = self._engine.learn(looked, lesson, before.memory.newest_keys)
        rates = np.full(len(numbers), 1 - (1 - RATE) ** _EVERY)
        memory = before.memory.after(numbers, found, rates)
        weights = before.weights.copy()
        weights[which] = memory.coefficients(self._engine.ridge, numbers)
        return dataclasses.replace(before, memory=memory, weights=weights)


def _trusted(states: States, decided: Decided) -> npt.NDArray[np.intp]:
    """Numbers of the objects that are surely where their masks are, of those whose turn it is: not all at once."""
    is_due = (states.age + states.ids) % _EVERY == 0
    found = decided.measured
    ratio = found.area / np.maximum(states.usual_area, 1.0)
    is_usual = (ratio > TRUSTED[1]) & (ratio < TRUSTED[2])
    return np.flatnonzero(is_due & decided.sees & is_usual & (found.inside >= TRUSTED[0]))


def _seen_elsewhere(known: Known, which: npt.NDArray[np.intp], scores: Floats, frame: PreparedFrame) -> Floats:
    """Maps of look-alikes with this frame in those of some, whose scores are given."""
    scores = scores * (_ignored(frame) < 0.5)
    carried, maps = taken(known.carried, which.tolist()), known.alike.copy()
    maps[which] = seen_elsewhere(maps[which], scores, carried.probability, carried.crop, frame.size_of_work)
    return maps


def _crops_around(boxes: Floats) -> Floats:
    """Crops (K, 4) around boxes of masks, see ``model.torch.sight.crops_around``."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) * CONTEXT, SMALLEST)
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1).astype(np.float32)


def _unknown(frame: PreparedFrame) -> Floats | None:
    """1 where nothing may be found or learned, float32 (h, w); None: nowhere."""
    return None if frame.unknown is None else frame.unknown.astype(np.float32)


def _ignored(frame: PreparedFrame) -> Floats:
    """Share of each cell of stride 4 that is ignored, float32 (h4, w4)."""
    if frame.ignored is not None:
        return frame.ignored.cells(STRIDE)
    height, width = frame.size_of_work
    return np.zeros((-(-height // STRIDE), -(-width // STRIDE)), np.float32)


def _all_cells(planes: Floats) -> Floats:
    """Planes (K, h, w) at cells of stride 4, (K, h4, w4); what lies beyond the border is 0."""
    return np.stack([cells_of(plane, STRIDE, cv2.BORDER_CONSTANT) for plane in planes])


def _known(planes: Floats, unknown: Floats | None) -> Floats:
    """Weight of each cell for K objects, (K, h4, w4)."""
    height, width = (-(-side // STRIDE) for side in planes.shape[1:])
    one = np.ones((height, width), np.float32)
    if unknown is not None:
        one -= cells_of(unknown, STRIDE, cv2.BORDER_CONSTANT)
    return np.repeat(one[None], len(planes), axis=0)


def _seen(covered: Floats) -> Floats:
    """1 for each key of crops whose cells are not ignored, (K, KEYS); given are shares of their (FINE, FINE) cells."""
    share = halved(halved(covered))
    keys = [share[:, row::2, row::2].reshape(len(share), -1) for row in (0, 1)]  # see ``model.torch.matching``
    return (np.concatenate(keys, axis=1) < 0.5).astype(np.float32)
