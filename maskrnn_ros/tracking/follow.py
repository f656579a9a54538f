# SPDX-License-Identifier: Apache-2.0
"""The decoder at work in the tracker: begins objects on their seeds, carries all of them to the next frame at once.

Objects meet in two places only: each is shown where the others' warped masks are, and a frame that enters its memory
has the others as negatives. What one decides on a frame never depends on what another decides on it. Where others are
that are not carried along, ``Beside`` says.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.config import Config
from maskrnn_ros.flow.warp import warp
from maskrnn_ros.model.backbone import Features
from maskrnn_ros.model.engine import Step
from maskrnn_ros.model.memory import RATE, TRUSTED, Memory, Sums, coefficients, remember, seed_keys, seed_sums, sums_of
from maskrnn_ros.model.network import apply_deltas, crop, paste, scale_boxes, scaled
from maskrnn_ros.model.step import (
    CODES,
    COLUMNS,
    CROP,
    FINE,
    HIDDEN,
    KEYS,
    STRIDE,
    TARGET,
    Carried,
    Keys,
    Output,
    Seen,
    Shared,
    crops_around,
    place,
    see,
)
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.tracking.adaptation import augment
from maskrnn_ros.tracking.crew import Crew
from maskrnn_ros.tracking.gate import boxes_at_once, clip
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.recognition import Measured, is_seen, measured, resemblance, usually, without_strays
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame
from maskrnn_ros.types import Box

_VIEWS = 8
"""Views of a seed that its target model is fitted to, itself and augmentations, see ``AdaptationConfig``. On the held
out clips, closed form alone, by the trunk of the streams, J / F with 1, 8 and 40: 0.753 / 0.707, 0.766 / 0.725, 0.763 /
0.721."""

_LEFT = 0.25
"""Share of an object that a view must show to count."""

_EVERY = 2
"""Which images may enter a memory, with as much weight as all together: by a profile a sixth of an object's time goes
there. On the held out clips, J / F with every one, every second, of the decoder before: 0.803 / 0.780, 0.802 / 0.780;
on those of layers 0.879 / 0.933, 0.881 / 0.935."""

_THIN = 0.1
"""Share of a cell from which a warped mask may be somewhere: a thin object fills none, and is looked for where it was,
not searched for. It is for such objects alone: J / F of the five held out clips stay the same; of the decoder before,
those of layers are 0.884 / 0.943 without it and 0.884 / 0.944 with it."""

_RIVAL = 0.1
"""Score in the target model from which a lost object may be somewhere."""


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of one object beside its mask (K = 1).

    Args:
        carried: Mask and hidden state in its crop.
        memory: Its target model.
        weights: Coefficients of that, (1, COLUMNS + 1, TARGET).
        likeness: How much its cells usually resemble those of its seed, -1..1; None until it was seen once more.
    """

    carried: Carried
    memory: Memory
    weights: Tensor
    likeness: float | None = None

    def after(self, carried: Carried, likeness: float | None, learned: tuple[Memory, Tensor] | None) -> Known:
        """On the next frame, with memory and coefficients where it learned.

        What did not change since the frame before is not there twice: states of many frames are held.
        """
        if learned is None:
            return dataclasses.replace(self, carried=carried, likeness=likeness)
        memory = dataclasses.replace(learned[0], seed=self.memory.seed, seed_keys=self.memory.seed_keys)
        return Known(carried, memory, learned[1], likeness)


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Objects that are shown to others and not carried along: what they cover, float32 (h4, w4), 0..1.

    Args:
        before: On the frame before; None: nothing.
        now: On the frame; None: nothing.
    """

    before: Tensor | None = None
    now: Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """What a group of objects is looked at with.

    Args:
        states: On the frame before, all with ``known``.
        frame: The frame.
        shared: What all objects of it share.
        config: All settings.
        beside: Other objects.
    """

    states: Sequence[InstanceState]
    frame: PreparedFrame
    shared: Shared
    config: Config
    beside: Beside


@dataclasses.dataclass(frozen=True, eq=False)
class _Places:
    """Where K objects are looked for.

    Args:
        boxes: float32, (K, 4): of their warped masks, or of where a lost one may be, pixels.
        crops: Around them, likewise.
        corners: The crops as numbers.
        looked: Whether there is anything to look at.
        others: Most of the warped masks of the others, float32, (K, h4, w4).
    """

    boxes: Tensor
    crops: Tensor
    corners: Sequence[Sequence[float]]
    looked: Sequence[bool]
    others: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class _Decided:
    """What is decided of a group of objects, before any of them is told of the others.

    Args:
        carried: Masks and hidden states in the crops.
        columns: Of the crops, see ``Seen``.
        code: Descriptors of the crops, see ``Output``.
        covered: Share of each cell that an ignore mask covers, float32 (K, 1, FINE, FINE); None without one.
        patches: Masks at the pixels of the working image.
        measured: What they are like.
        sees: Whether each is there.
        likenesses: See ``Known``.
    """

    carried: Carried
    columns: Tensor
    code: Tensor
    covered: Tensor | None
    patches: Sequence[Patch]
    measured: Sequence[Measured]
    sees: Sequence[bool]
    likenesses: Sequence[float | None]


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
    """Runs the decoder.

    On a CPU each object is a batch of its own: threads share the objects out, and no object's numbers depend on how
    many there are. On a GPU all are one batch, and what is read of them is read for all of them at once.

    Args:
        net: The decoder and what belongs to it, frozen.
        trunk: Trained: the columns come from the first layer of its heads, and it sees the views of a seed.
    """

    def __init__(self, net: Step, trunk: Trunk) -> None:
        assert trunk.start is not None
        self._net = net
        self._aside = net.aside()
        self._trunk = trunk
        self._start = trunk.start

    def columns(self, features: Features) -> Tensor:
        """What the target models are linear in, float32 (1, COLUMNS, h4, w4)."""
        return functional.relu(self._start.head.hidden([map_[None].float() for map_ in features.maps]))

    def begin(
        self, frame: PreparedFrame, shares: Mapping[int, Tensor], around: Mapping[int, Tensor], config: Config
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
        masks, others = (torch.stack(list(part.values())) for part in (shares, around))
        boxes = _boxes_of(masks)
        if config.adaptation.method == "none":
            memory = _nothing(len(boxes), masks.device)
            weights = memory.seed.target
        else:
            memory = self._memory(frame, masks, others, boxes, config)
            weights = coefficients(self._net, memory)
        crops = crops_around(boxes)
        probability = crop(masks[:, None], _rois(crops), FINE, 1.0)
        hidden = crops.new_zeros(len(crops), HIDDEN, CROP // 2, CROP // 2)
        carried = Carried(probability, crops, hidden)
        return {i: Known(carried[k], memory[k], weights[k]) for i, k in zip(shares, _each(weights), strict=True)}

    def _memory(self, frame: PreparedFrame, masks: Tensor, others: Tensor, boxes: Tensor, config: Config) -> Memory:
        """Of K objects on the frame that they were marked on; masks and others are (K, h, w), boxes (K, 4)."""
        which = torch.zeros(len(boxes), dtype=torch.int64, device=masks.device)
        features = frame.features
        share, rest = _cells(masks, features), _cells(others, features)
        maps = features.stride8[None].float(), features.stride16[None].float()
        keys = seed_keys(self._net, *maps, which, boxes, share, rest)
        keys = self._uncovered(keys, _in_crops(frame, crops_around(boxes)))
        ignored = [] if frame.unknown is None else [frame.unknown[None].to(masks.dtype)]
        sums, count = self._sums(features, share, rest, boxes, *ignored), masks.new_ones(len(boxes))
        random = np.random.default_rng(config.adaptation.seed)
        image = frame.image.permute(1, 2, 0).cpu().numpy()
        planes = torch.cat([masks.amax(dim=0, keepdim=True), masks, others, *ignored]).permute(1, 2, 0).cpu().numpy()
        for _ in range(_VIEWS - 1):
            changed, moved = augment(image, planes, config.adaptation, random)
            every = torch.from_numpy(moved).to(masks.device).permute(2, 0, 1)[1:]
            seen, around = every[: 2 * len(masks)].chunk(2)
            hidden = [every[-1:]] if ignored else []
            counts = (seen.sum(dim=(1, 2)) >= _LEFT * masks.sum(dim=(1, 2))).to(masks.dtype)
            features = self._trunk.features(torch.from_numpy(changed).to(masks.device).permute(2, 0, 1))
            count = count + counts
            cells = _cells(seen, features), _cells(around, features)
            sums = sums.blend(self._sums(features, *cells, _boxes_of(seen), *hidden), counts / count)
        return Memory(sums, sums, keys, keys)

    def _sums(
        self, features: Features, share: Tensor, others: Tensor, boxes: Tensor, ignored: Tensor | None = None
    ) -> Sums:
        """Share and others (K, h4, w4), ignored (1, h, w)."""
        which = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        known = torch.ones_like(share) if ignored is None else (1 - _cells(ignored, features)).expand_as(share)
        return seed_sums(self._net, self.columns(features), which, boxes, share, others, known)

    def _uncovered(self, keys: Keys, covered: Tensor | None) -> Keys:
        """Keys without those of cells that an ignore mask covers, (K, 1, FINE, FINE): they are like nothing."""
        if covered is None:
            return keys
        share = functional.avg_pool2d(covered, 2 * FINE // CROP)
        seen = (self._net.matcher.keys(share, share, share).code < 0.5).to(share.dtype)
        return Keys(keys.code * seen, keys.values * seen)

    def advance(
        self,
        states: Mapping[int, InstanceState],
        frame: PreparedFrame,
        flow: Tensor,
        config: Config,
        crew: Crew,
        beside: Beside | None = None,
    ) -> dict[int, Found]:
        """All objects on the next frame.

        Args:
            states: On the frame before.
            frame: The frame.
            flow: Backward flow between the two, float32 (2, h, w), pixels.
            config: All settings.
            crew: Shares the objects out.
            beside: Other objects, that are shown to these; None: there are none.
        """
        on = _Frame(list(states.values()), frame, self._share(frame, flow), config, beside or Beside())
        places = self._places(on)
        groups = self._groups(len(states), flow.device)
        decided = crew.map(lambda group: self._decided(on, group, places), groups)
        found = _all_carried([one.carried for one in decided])
        learned = crew.map(lambda pair: self._learned(on, *pair, found, places), zip(groups, decided, strict=True))
        return {i: one for i, one in zip(states, itertools.chain(*learned), strict=True)}

    @staticmethod
    def _groups(count: int, device: torch.device) -> list[slice]:
        """Which of so many objects are looked at in one batch."""
        return [slice(k, k + 1) for k in range(count)] if device.type == "cpu" else [slice(0, count)]

    def _places(self, on: _Frame) -> _Places:
        config, shared = on.config, on.shared
        carried = _all_carried([_known(state).carried for state in on.states])
        which = torch.zeros(len(on.states), dtype=torch.int64, device=shared.flow.device)
        warped = config.prior.source == "warped"
        moved = shared.flow if warped else torch.zeros_like(shared.flow)
        prior4 = place(carried, moved, which)
        if config.prior.source == "none":
            prior4 = torch.zeros_like(prior4)
        ignored = _ignored(on.frame, shared.columns)
        prior4 = prior4 * (ignored < 0.5)
        boxes = _prior_boxes(prior4)
        for k, state in enumerate(on.states):
            if boxes[k] is None:
                weights = _known(state).weights[0]
                boxes[k] = self._searched(shared.columns, weights, state.usual_area, ignored, config)
        there = prior4.new_tensor([box or (math.nan,) * 4 for box in boxes])
        around, others = torch.where(there.isnan(), carried.boxes, there), most_of_others(prior4)
        if on.beside.before is not None and config.prior.source != "none":
            beside = warp(on.beside.before[None], moved[0] / STRIDE)
            others = torch.maximum(others, beside * (ignored < 0.5))
        crops = crops_around(around)
        return _Places(around, crops, crops.tolist(), [box is not None for box in boxes], others)

    def _share(self, frame: PreparedFrame, flow: Tensor) -> Shared:
        columns = self.columns(frame.features)
        down, right = (STRIDE * columns.shape[k + 2] - flow.shape[k + 1] for k in (0, 1))
        padded = functional.pad(flow[None], (0, right, 0, down), mode="replicate") if down or right else flow[None]
        features = frame.features
        return Shared(
            image=scaled(frame.image[None]),
            columns=columns,
            stride8=features.stride8[None].float(),
            stride16=features.stride16[None].float(),
            flow=functional.avg_pool2d(padded, STRIDE),
        )

    def _searched(
        self, columns: Tensor, weights: Tensor, usual: float, ignored: Tensor, config: Config
    ) -> tuple[float, float, float, float] | None:
        """Where a lost object may be: the piece of the frame with the highest sum of its score."""
        score = (weights[:-1, 0] @ columns[0].flatten(1) + weights[-1, 0]).reshape(columns.shape[2:]).cpu().numpy()
        score = cv2.blur(score, (3, 3))
        score[(ignored >= 0.5).cpu().numpy()] = 0.0
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((score > _RIVAL).astype(np.uint8))
        if count < 2:
            return None
        sums = np.bincount(pieces.ravel(), np.clip(score, 0, None).ravel(), minlength=count)
        best = int(sums[1:].argmax()) + 1
        if stats[best, cv2.CC_STAT_AREA] * STRIDE * STRIDE < config.presence.return_share * usual:
            return None
        x, y, width, height = (float(v) * STRIDE for v in stats[best, :4])
        least = 0.6 * usual**0.5
        side = max(width, least), max(height, least)
        centre = x + width / 2, y + height / 2
        return centre[0] - side[0] / 2, centre[1] - side[1] / 2, centre[0] + side[0] / 2, centre[1] + side[1] / 2

    def _looked(self, on: _Frame, group: slice, places: _Places) -> tuple[Seen, Output]:
        knowns = [_known(state) for state in on.states[group]]
        memory = _joined([known.memory for known in knowns])
        carried = _all_carried([known.carried for known in knowns])
        crops, shared = places.crops[group], on.shared
        which = torch.zeros(len(crops), dtype=torch.int64, device=crops.device)
        still = on.config.prior.source != "warped"
        moved = dataclasses.replace(shared, flow=torch.zeros_like(shared.flow)) if still else shared
        seen = see(moved, which, crops, carried, places.others[group])
        seen = _switched(seen, shared, which, crops, on.config)
        weights = torch.cat([known.weights for known in knowns])
        net = self._net if len(crops) == len(on.states) else self._aside
        return seen, net.look(seen, weights, memory.seed_keys, memory.newest_keys)

    def _decided(self, on: _Frame, group: slice, places: _Places) -> _Decided:
        seen, output = self._looked(on, group, places)
        frame, config, crops = on.frame, on.config, places.crops[group]
        log_odds = output.log_odds
        if config.gate.enabled and config.network.localization:
            inside = _gates(output.deltas, places.boxes[group], crops, config)
            log_odds = torch.where(inside > 0, log_odds, -8.0)
        covered = _in_crops(frame, crops)
        if covered is not None:
            log_odds = log_odds.masked_fill(covered[:, 0] >= 0.5, -8.0)
        usuals = [_known(state).likeness for state in on.states[group]]
        clean = without_strays(log_odds, output.matched[:, [2, 0]], usuals)
        probability = clean.sigmoid()
        patches = [patch.without(frame.unknown) for patch in _patches(clean, places, group, frame)]
        found = measured(output.presence.sigmoid(), resemblance(clean, output.matched), probability, patches)
        sees: list[bool] = []
        likenesses: list[float | None] = []
        for state, looked, one in zip(on.states[group], places.looked[group], found, strict=True):
            usual = _known(state).likeness
            sees.append(looked and is_seen(one, usual, state, config))
            likenesses.append(usually(usual, one.likeness) if sees[-1] else usual)
        there = crops.new_tensor([float(sees_it) for sees_it in sees])[:, None, None, None]
        carried = Carried(probability[:, None] * there, crops, output.hidden * there)
        nothing = Patch.nothing(patches[0].size, crops.device)
        patches = [patch if sees_it else nothing for patch, sees_it in zip(patches, sees, strict=True)]
        return _Decided(carried, seen.columns, output.code, covered, patches, found, sees, likenesses)

    def _learned(self, on: _Frame, group: slice, decided: _Decided, found: Carried, places: _Places) -> list[Found]:
        """The objects with this frame in their memories, where it can be trusted; ``found`` has all objects of it."""
        knowns = [_known(state) for state in on.states[group]]
        rates = [self._rate(on, state, decided, n) for n, state in enumerate(on.states[group])]
        learned: list[tuple[Memory, Tensor] | None] = [None] * len(knowns)
        each = _each(decided.code)
        if any(rates):
            memory = _joined([known.memory for known in knowns])
            sums, keys = self._sums_on(on, group, decided, found, places)
            memory = remember(memory, sums, keys, sums.square.new_tensor(rates))
            weights = coefficients(self._net, memory)
            learned = [(memory[k], weights[k]) if rate else None for k, rate in zip(each, rates, strict=True)]
        return [
            Found(
                decided.patches[n],
                known.after(decided.carried[k], decided.likenesses[n], learned[n]),
                decided.measured[n].area,
                decided.sees[n],
            )
            for n, (k, known) in enumerate(zip(each, knowns, strict=True))
        ]

    def _rate(self, on: _Frame, state: InstanceState, decided: _Decided, n: int) -> float:
        """With what weight the frame enters the memory of one object: 0 where it is not to be trusted."""
        is_due = (state.age + state.instance_id) % _EVERY == 0  # not all objects on the same frame
        if on.config.adaptation.method == "none" or not decided.sees[n] or not is_due:
            return 0.0
        found = decided.measured[n]
        ratio = found.area / max(state.usual_area, 1.0)
        return (1 - (1 - RATE) ** _EVERY) * (found.inside >= TRUSTED[0] and TRUSTED[1] < ratio < TRUSTED[2])

    def _sums_on(
        self, on: _Frame, group: slice, decided: _Decided, found: Carried, places: _Places
    ) -> tuple[Sums, Keys]:
        share = functional.avg_pool2d(decided.carried.probability, 2)
        rivals = self._rivals(group, found, places.corners)
        if on.beside.now is not None:
            every = on.beside.now.expand(len(share), 1, -1, -1)
            rivals = torch.maximum(rivals, crop(every, _rois(decided.carried.boxes), CROP, 1 / STRIDE))
        sure = ((share - 0.5).abs() * 2).clamp(min=0.1)
        if decided.covered is not None:
            sure = sure * (1 - functional.avg_pool2d(decided.covered, 2))
        own = share * (1 - rivals * (rivals > share))
        sums = sums_of(self._net, decided.columns, own, rivals, sure)
        half = functional.avg_pool2d(torch.cat([own, rivals], dim=1), 2)
        keys = self._net.matcher.keys(decided.code, half[:, :1], half[:, 1:])
        return sums, self._uncovered(keys, decided.covered)

    def _rivals(self, group: slice, found: Carried, corners: Sequence[Sequence[float]]) -> Tensor:
        """What the others are found to cover in each object's crop, (K, 1, CROP, CROP)."""
        everyone = range(len(corners))
        near = [[o for o in everyone if o != k and _meet(corners[k], corners[o])] for k in everyone[group]]
        others = torch.tensor(list(itertools.chain(*near)), dtype=torch.int64, device=found.boxes.device)
        parts = others.split_with_sizes([len(one) for one in near])
        rivals = found.probability.new_zeros(len(near), 1, CROP, CROP)
        for n, (k, which) in enumerate(zip(everyone[group], parts, strict=True)):
            if near[n]:
                grid = _seen_from(found.boxes[k : k + 1], found.boxes[which])
                rivals[n] = functional.grid_sample(found.probability[which], grid, align_corners=False).amax(dim=0)
        return rivals


def _known(state: InstanceState) -> Known:
    assert state.known is not None  # a decoder has begun it
    return state.known


def _all_carried(parts: Sequence[Carried]) -> Carried:
    return Carried(
        torch.cat([part.probability for part in parts]),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.hidden for part in parts]),
    )


def most_of_others(maps: Tensor) -> Tensor:
    """At every place the most of what the other maps have there, 0..1, (K, a, b)."""
    after = [torch.zeros_like(maps[0])]
    for map_ in maps.flip(0)[:-1]:
        after.append(torch.maximum(after[-1], map_))
    most, before = [], after[0]
    for map_, rest in zip(maps, reversed(after), strict=True):
        most.append(torch.maximum(before, rest))
        before = torch.maximum(before, map_)
    return torch.stack(most)


def _switched(seen: Seen, shared: Shared, which: Tensor, crops: Tensor, config: Config) -> Seen:
    """The same without the parts that are off."""
    changes: dict[str, Tensor] = {}
    if config.prior.source == "none":
        changes["prior"] = torch.zeros_like(seen.prior)
    elif config.prior.source == "unwarped":
        rois = torch.cat([which[:, None].to(crops.dtype), crops], dim=1)
        changes["flow"] = functional.avg_pool2d(crop(shared.flow, rois, CROP, 1 / STRIDE), 2)
    if not config.network.flow_stream:
        changes["flow"] = torch.zeros_like(seen.flow)
    if not config.network.hidden:
        changes["hidden"] = torch.zeros_like(seen.hidden)
    return dataclasses.replace(seen, **changes)


def _ignored(frame: PreparedFrame, columns: Tensor) -> Tensor:
    """Share of each cell of stride 4 that is ignored, float32 (h4, w4)."""
    return columns.new_zeros(columns.shape[2:]) if frame.ignored is None else frame.ignored.cells(STRIDE)


def _in_crops(frame: PreparedFrame, crops: Tensor) -> Tensor | None:
    """The same in crops, float32 (K, 1, FINE, FINE); None without an ignore mask."""
    if frame.unknown is None:
        return None
    whole = frame.unknown.to(crops.dtype).expand(len(crops), 1, -1, -1)
    return crop(whole, _rois(crops), FINE, 1.0)


def _gates(deltas: Tensor, boxes: Tensor, crops: Tensor, config: Config) -> Tensor:
    """1 inside the enlarged boxes that the localization net predicts (MaskRNN), (K, FINE, FINE)."""
    corners = scale_boxes(apply_deltas(boxes, deltas), config.gate.enlarge)
    if config.gate.spans_prior:
        grown = scale_boxes(boxes, config.gate.enlarge)
        corners = torch.cat(
            [torch.minimum(corners[:, :2], grown[:, :2]), torch.maximum(corners[:, 2:], grown[:, 2:])], 1
        )
    steps = (torch.arange(FINE, device=crops.device) + 0.5) / FINE
    x, y = (crops[:, k, None] + steps * (crops[:, k + 2] - crops[:, k])[:, None] for k in (0, 1))
    across = (x >= corners[:, 0:1]) & (x < corners[:, 2:3])
    down = (y >= corners[:, 1:2]) & (y < corners[:, 3:4])
    return (down[:, :, None] & across[:, None, :]).float()


def _patches(log_odds: Tensor, places: _Places, group: slice, frame: PreparedFrame) -> list[Patch]:
    """Crops (K, n, n) at the pixels that they cover; empty where there was nothing to look at."""
    size, crops = (frame.image.shape[1], frame.image.shape[2]), places.crops[group]
    local = crops - crops[:, :2].floor().clamp(min=0).repeat(1, 2)  # in the boxes that clip makes of the same numbers
    found = []
    for k, (looked, corners) in enumerate(zip(places.looked[group], places.corners[group], strict=True)):
        box = clip(corners, size) if looked else None
        if box is None:
            found.append(Patch.nothing(size, crops.device))
        else:
            here = paste(log_odds[k : k + 1], local[k : k + 1], (box.height, box.width))
            found.append(Patch(here[0].sigmoid(), box, size))
    return found


def _each(of: Tensor) -> tuple[Tensor, ...]:
    """Indices of the objects of a batch, one by one, already where they are needed."""
    return torch.arange(len(of), device=of.device)[:, None].unbind()


def _joined(memories: Sequence[Memory]) -> Memory:
    def sums(part: str) -> Sums:
        every: list[Sums] = [getattr(memory, part) for memory in memories]
        return Sums(torch.cat([one.square for one in every]), torch.cat([one.target for one in every]))

    def keys(part: str) -> Keys:
        every: list[Keys] = [getattr(memory, part) for memory in memories]
        return Keys(torch.cat([one.code for one in every]), torch.cat([one.values for one in every]))

    return Memory(sums("seed"), sums("recent"), keys("seed_keys"), keys("newest_keys"))


def _nothing(count: int, device: torch.device) -> Memory:
    """A memory that knows nothing."""
    square, target = (torch.zeros(count, COLUMNS + 1, side, device=device) for side in (COLUMNS + 1, TARGET))
    code, values = (torch.zeros(count, side, KEYS, device=device) for side in (CODES, 2))
    return Memory(Sums(square, target), Sums(square, target), Keys(code, values), Keys(code, values))


def _cells(planes: Tensor, features: Features) -> Tensor:
    """Planes (K, h, w) at the cells of stride 4 of a frame's features, (K, h4, w4)."""
    down, right = (STRIDE * features.maps[0].shape[k] - planes.shape[k] for k in (1, 2))
    return functional.avg_pool2d(functional.pad(planes[:, None], (0, right, 0, down)), STRIDE)[:, 0]


def _prior_boxes(priors: Tensor) -> list[tuple[float, float, float, float] | None]:
    """Boxes of warped masks, (K, h4, w4), 0..1: of their likely cells, or of the likeliest where one fills none."""
    least = (0.5 * priors.amax(dim=(1, 2), keepdim=True)).clamp(_THIN, 0.5)
    found = boxes_at_once(priors >= least)
    return [None if box is None else _in_pixels(box) for box in found]


def _in_pixels(cells: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(edge * STRIDE) for edge in (cells.x0, cells.y0, cells.x1, cells.y1))
    return x0, y0, x1, y1


def _boxes_of(masks: Tensor) -> Tensor:
    """Boxes of what is at least 0.5 in (K, h, w), or of the most there is, (K, 4)."""
    found = boxes_at_once(masks >= masks.amax(dim=(1, 2), keepdim=True).clamp(max=0.5))
    return masks.new_tensor([(box.x0, box.y0, box.x1, box.y1) for box in found if box is not None])


def _rois(boxes: Tensor) -> Tensor:
    own = torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes.dtype)
    return torch.cat([own, boxes], dim=1)


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(max(one[k], other[k]) < min(one[k + 2], other[k + 2]) for k in (0, 1))


def _seen_from(boxes: Tensor, others: Tensor) -> Tensor:
    """Cells of crops in the coordinates of other crops, for ``grid_sample``, (K, CROP, CROP, 2)."""
    steps = (torch.arange(CROP, device=boxes.device) + 0.5) / CROP
    x, y = (boxes[:, k, None] + steps * (boxes[:, k + 2] - boxes[:, k])[:, None] for k in (0, 1))
    points = torch.stack([x[:, None, :].expand(-1, CROP, -1), y[:, :, None].expand(-1, -1, CROP)], dim=-1)
    return (points - others[:, None, None, :2]) / (others[:, 2:] - others[:, :2])[:, None, None] * 2 - 1


__all__ = ["Beside", "Box", "Following", "Found", "Known", "most_of_others"]
