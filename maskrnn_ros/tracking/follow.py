# SPDX-License-Identifier: Apache-2.0
"""The networks at work in the tracker: begins objects on their seeds, carries all of them to the next frame at once.

Objects meet in two places only: each is shown where the others' warped masks are, and a frame that enters its memory
has the others as negatives. What one decides on a frame never depends on what another decides on it. Where others are
that are not carried along, ``Beside`` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.model.engine import Around, Engine, Features, Keys, Looked, Objects, Summed
from maskrnn_ros.model.shapes import CONTEXT, CROP, FINE, HIDDEN, RATE, SMALLEST, STRIDE, TRUSTED
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.tracking.cells import Floats, cells_of, cut, halved
from maskrnn_ros.tracking.decide import Decided, decide, known_of
from maskrnn_ros.tracking.gate import boxes_of, whole
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.tracking.target import Carried, Known, Memory, Sums
from maskrnn_ros.tracking.views import augment

_VIEWS = 8
"""Views of a seed that its target model is fitted to, itself and augmentations. On the held out clips, closed form
alone, by the trunk of an earlier network, J / F with 1, 8 and 40: 0.753 / 0.707, 0.766 / 0.725, 0.763 / 0.721."""

_LEFT = 0.25
"""Share of an object that a view must show to count."""

_EVERY = 2
"""Which images may enter a memory, with as much weight as all together. On the held out clips, J / F with every one,
every second, of the decoder before: 0.803 / 0.780, 0.802 / 0.780; on those of layers 0.879 / 0.933, 0.881 / 0.935."""

_RIVAL = 0.1
"""Score in the target model from which a lost object may be somewhere."""

_NOWHERE = np.full(4, np.nan, np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Objects that are shown to others and not carried along: what they cover, float32 (h4, w4), 0..1.

    Args:
        before: On the frame before; None: nothing.
        now: On the frame; None: nothing.
    """

    before: Floats | None = None
    now: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """One object on a frame.

    Args:
        patch: Its probability at the pixels of the working image; empty where it is not seen.
        known: What is carried on.
        area: Pixels with probability of at least 0.5.
        is_seen: Whether it is there.
    """

    patch: Patch
    known: Known
    area: int
    is_seen: bool


class Following:
    """Runs the networks.

    Args:
        engine: Runs them.
        pool: Shares out what is done for each object on the CPU.
    """

    def __init__(self, engine: Engine, pool: ThreadPool) -> None:
        self._engine = engine
        self._pool = pool

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
            memories = [Memory.nothing(self._engine)] * len(masks)
            weights = [memory.seed.target for memory in memories]
        else:
            memories = self._memories(frame, masks, others, boxes, config)
            weights = [memory.coefficients(self._engine.ridge) for memory in memories]
        everything = whole(frame.size_of_work)
        hidden = self._engine.zeros(HIDDEN, CROP // 2, CROP // 2)
        return {
            i: Known(Carried(cut(masks[k], everything, crops[k], FINE), crops[k], hidden), memories[k], weights[k])
            for k, i in enumerate(shares)
        }

    def _memories(
        self, frame: PreparedFrame, masks: Floats, others: Floats, boxes: Floats, config: Config
    ) -> list[Memory]:
        """Of K objects on the frame that they were marked on; masks and others are (K, h, w), boxes (K, 4)."""
        unknown = _unknown(frame)
        found = self._engine.begin(frame.features, boxes, _all_cells(masks), _all_cells(others), _known(masks, unknown))
        sums = [Sums.of(found, k) for k in range(len(masks))]
        covered = None
        if unknown is not None:
            covered = [cut(unknown, whole(frame.size_of_work), crop, FINE) for crop in _crops_around(boxes)]
        keys = self._keys(found, covered)
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
            sums = [one.blend(Sums.of(found, k), 1 / counts[k]) if counted[k] else one for k, one in enumerate(sums)]
        return [Memory(one, one, key, key) for one, key in zip(sums, keys, strict=True)]

    def _keys(self, found: Summed, covered: Sequence[Floats] | None) -> list[Keys]:
        """Those of each object; cells that an ignore mask covers are like nothing.

        Args:
            found: Of K objects.
            covered: Share of each cell of their crops that is ignored, (FINE, FINE) each; None: nothing is.
        """
        code, values = found.code, found.values
        if covered is not None:  # of all at once: each call waits for a GPU
            shares = halved(halved(np.stack(covered)))
            seen = np.stack([_chessboard(share) < 0.5 for share in shares]).astype(np.float32)[:, None]
            code, values = self._engine.times(code, seen), self._engine.times(values, seen)
        return [Keys(self._engine.one(code, k), self._engine.one(values, k)) for k in range(len(code))]

    # --- frames ---

    def advance(
        self,
        states: Mapping[int, InstanceMemory],
        frame: PreparedFrame,
        flow: Floats,
        config: Config,
        beside: Beside | None = None,
    ) -> dict[int, Found]:
        """All objects on the next frame.

        Args:
            states: On the frame before, all of them begun.
            frame: The frame.
            flow: Backward flow between the two, float32 (2, h, w), pixels.
            config: All settings.
            beside: Other objects, that are shown to these; None: there are none.
        """
        beside = beside or Beside()
        looked = self._look(list(states.values()), frame, flow, config, beside)
        numbers = range(len(states))
        before = list(states.values())
        unknown = _unknown(frame)
        decided = self._pool.map(lambda k: decide(before[k], looked, k, frame, unknown, config, self._engine), numbers)
        learned = self._learned(before, decided, looked, config, beside)
        return {
            i: Found(
                one.patch,
                dataclasses.replace(known, carried=one.carried, likeness=one.likeness),
                one.measured.area,
                one.sees,
            )
            for i, one, known in zip(states, decided, learned, strict=True)
        }

    def _look(
        self, states: Sequence[InstanceMemory], frame: PreparedFrame, flow: Floats, config: Config, beside: Beside
    ) -> Looked:
        """One call of the step for all objects."""
        knowns = [known_of(state) for state in states]
        features = frame.features
        ignored = _ignored(frame)
        before = np.zeros_like(ignored) if beside.before is None else beside.before
        switches = (
            config.prior.source == "warped",
            config.prior.source != "none",
            config.network.flow_stream,
            config.network.hidden,
        )
        around = Around(
            flow=np.stack([cells_of(plane, STRIDE) for plane in flow])[None],
            ignored=ignored[None],
            beside=before[None],
            switches=np.array(switches, np.float32),
        )
        has_prior = config.prior.source != "none"
        sought = [
            _NOWHERE
            if has_prior and state.frames_unseen == 0
            else _searched(features, known.weights, state.usual_area, ignored, config)
            for state, known in zip(states, knowns, strict=True)
        ]
        objects = Objects(
            probability=[known.carried.probability for known in knowns],
            boxes=[known.carried.crop for known in knowns],
            hidden=[known.carried.hidden for known in knowns],
            coefficients=[known.weights for known in knowns],
            seed=[known.memory.seed_keys for known in knowns],
            newest=[known.memory.newest_keys for known in knowns],
            sought=sought,
        )
        return self._engine.step(features, around, objects)

    def _learned(
        self,
        states: Sequence[InstanceMemory],
        decided: Sequence[Decided],
        looked: Looked,
        config: Config,
        beside: Beside,
    ) -> list[Known]:
        """What is known of the objects with this frame in their memories, where it can be trusted."""
        knowns = [known_of(state) for state in states]
        rates = [_rate(state, one, config) for state, one in zip(states, decided, strict=True)]
        which = [k for k, rate in enumerate(rates) if rate]
        if not which:
            return knowns
        share = halved(np.stack([decided[k].carried.probability for k in which]))
        rivals = np.stack([_rivals(decided, k, beside.now) for k in which])
        known = np.maximum(np.abs(share - np.float32(0.5)) * 2, np.float32(0.1))
        for n, k in enumerate(which):
            covered = decided[k].covered
            if covered is not None:
                known[n] *= 1 - halved(covered)
        own = share * (1 - rivals * (rivals > share))
        engine = self._engine
        columns, code = engine.some(looked.columns, which), engine.some(looked.code, which)
        found = engine.learn(columns, code, own[:, None], rivals[:, None], known[:, None])
        ignored = [one for one in (decided[k].covered for k in which) if one is not None]  # of all objects, or of none
        keys = self._keys(found, ignored or None)
        for n, k in enumerate(which):
            memory = knowns[k].memory.after(Sums.of(found, n), keys[n], rates[k])
            knowns[k] = dataclasses.replace(knowns[k], memory=memory, weights=memory.coefficients(engine.ridge))
        return knowns


def _rate(state: InstanceMemory, decided: Decided, config: Config) -> float:
    """With what weight the frame enters the memory of one object: 0 where it is not to be trusted."""
    is_due = (state.age + state.instance_id) % _EVERY == 0  # not all objects on the same frame
    if config.adaptation.method == "none" or not decided.sees or not is_due:
        return 0.0
    found = decided.measured
    ratio = found.area / max(state.usual_area, 1.0)
    return (1 - (1 - RATE) ** _EVERY) * (found.inside >= TRUSTED[0] and TRUSTED[1] < ratio < TRUSTED[2])


def _rivals(decided: Sequence[Decided], k: int, now: Floats | None) -> Floats:
    """What the others are found to cover in an object's crop, (CROP, CROP)."""
    crop = decided[k].carried.crop
    rivals = np.zeros((CROP, CROP), np.float32)
    for other in (one.carried for o, one in enumerate(decided) if o != k and one.sees):
        if _meet(crop, other.crop):
            np.maximum(rivals, cut(other.probability, other.crop, crop, CROP), out=rivals)
    if now is not None:
        everything = whole((now.shape[0] * STRIDE, now.shape[1] * STRIDE))
        np.maximum(rivals, cut(now, everything, crop, CROP), out=rivals)
    return rivals


def _searched(features: Features, weights: Floats, usual: float, ignored: Floats, config: Config) -> Floats:
    """Where a lost object may be: box of the piece of the frame with the highest sum of its score; NaN: nowhere."""
    columns = features.host()[0]
    score = (weights[:-1, 0] @ columns.reshape(len(columns), -1) + weights[-1, 0]).reshape(columns.shape[1:])
    score = np.asarray(cv2.blur(score, (3, 3)))
    score[ignored >= 0.5] = 0.0
    count, pieces, stats, _ = cv2.connectedComponentsWithStats((score > _RIVAL).astype(np.uint8))
    if count < 2:
        return _NOWHERE
    sums = np.bincount(pieces.ravel(), np.clip(score, 0, None).ravel(), minlength=count)
    best = int(sums[1:].argmax()) + 1
    if stats[best, cv2.CC_STAT_AREA] * STRIDE * STRIDE < config.presence.return_share * usual:
        return _NOWHERE
    x, y, width, height = (float(v) * STRIDE for v in stats[best, :4])
    least = 0.6 * usual**0.5
    side = max(width, least), max(height, least)
    centre = x + width / 2, y + height / 2
    return np.array(
        [centre[0] - side[0] / 2, centre[1] - side[1] / 2, centre[0] + side[0] / 2, centre[1] + side[1] / 2], np.float32
    )


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


def _chessboard(plane: Floats) -> Floats:
    """Every second cell of (n, n), see ``model.torch.matching``: (n n / 2,)."""
    return np.concatenate([plane[::2, ::2].ravel(), plane[1::2, 1::2].ravel()])


def _meet(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    return bool((np.maximum(one[:2], other[:2]) < np.minimum(one[2:], other[2:])).all())
