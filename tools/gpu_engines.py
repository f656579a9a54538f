# SPDX-License-Identifier: Apache-2.0
"""The check of ``gpu_check.py`` that compares all calls of the networks on a clip, on the device and on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from gpu_bench import Bench, Beyond, Case, Row, seeded

from maskrnn_ros.datasets.clips import FileClip
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.engine import (
    BEGIN_INPUTS,
    STEP_OUTPUTS,
    SUMS,
    Around,
    Drafts,
    Engine,
    Features,
    Floats,
    Keys,
    Lesson,
    Looked,
    Merged,
    Objects,
    Summed,
)
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.model.torch.engine import TorchEngine
from maskrnn_ros.quality import resolved
from maskrnn_ros.runtime import ThreadPool
from maskrnn_ros.sections import RefinementConfig
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.full_size import enlarge, enlarge_along_edges
from maskrnn_ros.tracking.merge import merge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.types import Box, Frame, LabelArray, UInt8Array

FRAMES = 6
"""Of the clip."""

ALLOWED = {"float32": 0.01, "float16": 0.03}
"""Mean difference of an output over its mean size, by the precision of the trunk."""

LABELS_ALLOWED = 0.0005
"""Share of the pixels of an image that may be labelled otherwise: those at edges, by rounding."""

_MAPS = ("stride8", "stride16", "columns")
_FAR = ("hidden", "code", "columns")
"""Outputs of a step that stay on the engine's device."""

_SUMS = ("square", "target", "code", "values")


class Pair:
    """An array of each of two engines."""

    def __init__(self, one: Any, other: Any) -> None:
        self.one, self.other = one, other

    def __len__(self) -> int:
        return len(self.other)

    def __getitem__(self, index: Any) -> Pair:
        return Pair(self.one[index], self.other[index])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of either."""
        return tuple(self.other.shape)

    @property
    def nbytes(self) -> int:
        """Of either."""
        return int(self.other.nbytes)


class Both:
    """An ``Engine`` that makes every call on two others, notes how far apart they are and says what the second says.

    Args:
        one: On the device.
        other: What it is compared with.
    """

    name = "both"
    precision = "float32"

    def __init__(self, one: TorchEngine, other: Engine) -> None:
        self._one, self._other = one, other
        self.device, self.ridge = other.device, other.ridge
        self.apart: dict[str, list[tuple[float, float]]] = {}
        self.relabelled: list[float] = []

    def _note(self, call: str, name: str, one: Any, other: Any) -> None:
        here, there = _on_host(one), _on_host(other)
        difference = np.abs(here - there)
        self.apart.setdefault(f"{call} {name}", []).append((float(difference.mean()), float(np.abs(there).mean())))

    def features(self, image: UInt8Array) -> Features:
        """See ``Engine``."""
        one, other = self._one.features(image), self._other.features(image)
        for name in _MAPS:
            self._note("features", name, getattr(one, name), getattr(other, name))
        maps = {name: Pair(getattr(one, name), getattr(other, name)) for name in (*_MAPS, "image")}
        return Features(**maps)

    def _both(self, make: Callable[[Engine, Callable[[Any], Any]], Any]) -> tuple[Any, Any]:
        """What each says of its own arrays."""
        return make(self._one, lambda pair: pair.one), make(self._other, lambda pair: pair.other)

    def scores(self, features: Features, coefficients: Floats) -> Floats:
        """See ``Engine``."""
        one, other = self._both(lambda engine, of: engine.scores(_features(features, of), coefficients))
        self._note("features", "scores", one, other)
        return np.asarray(other)

    def begin(self, features: Features, boxes: Floats, share: Floats, others: Floats, known: Floats) -> Summed:
        """See ``Engine``."""
        given = dict(zip(BEGIN_INPUTS[3:], (boxes, share, others, known), strict=True))
        return self._summed("begin", *self._both(lambda engine, of: engine.begin(_features(features, of), **given)))

    def step(self, features: Features, around: Around, objects: Objects) -> Looked:
        """See ``Engine``."""
        one, other = self._both(
            lambda engine, of: engine.step(_features(features, of), around, _objects(objects, of)),
        )
        for name in STEP_OUTPUTS:
            self._note("step", name, getattr(one, name), getattr(other, name))
        said = {name: getattr(other, name) for name in STEP_OUTPUTS}
        return Looked(**{**said, **{name: Pair(getattr(one, name), said[name]) for name in _FAR}})

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        """See ``Engine``."""
        return self._summed(
            "learn",
            *self._both(lambda engine, of: engine.learn(_looked(looked, of), lesson, _keys(newest, of))),
        )

    def _summed(self, call: str, one: Summed, other: Summed) -> Summed:
        for name, said in zip(_SUMS, SUMS, strict=True):
            self._note(call, said, getattr(one, name), getattr(other, name))
        return Summed(other.square, other.target, Pair(one.code, other.code), Pair(one.values, other.values))

    def merge(self, drafts: Drafts) -> Merged:
        """Masks at the full size on the device, also where that is a CPU, beside OpenCV's."""
        found = self._one.merge_here(drafts)
        self.relabelled.append(float((found.labels != _in_opencv(drafts)).mean()))
        return found

    def stack(self, arrays: Sequence[Pair]) -> Pair:
        """See ``Engine``."""
        return Pair(*self._both(lambda engine, of: engine.stack([of(array) for array in arrays])))

    def without(self, batch: Pair, which: Sequence[int]) -> Pair:
        """See ``Engine``."""
        return Pair(*self._both(lambda engine, of: engine.without(of(batch), which)))

    def zeros(self, *shape: int) -> Pair:
        """See ``Engine``."""
        return Pair(*self._both(lambda engine, of: engine.zeros(*shape)))

    def times(self, array: Pair, factors: Floats) -> Pair:
        """See ``Engine``."""
        return Pair(*self._both(lambda engine, of: engine.times(of(array), factors)))


def _features(features: Features, of: Callable[[Any], Any]) -> Features:
    return Features(**{name: of(getattr(features, name)) for name in (*_MAPS, "image")})


def _objects(objects: Objects, of: Callable[[Any], Any]) -> Objects:
    return dataclasses.replace(
        objects, hidden=of(objects.hidden), seed=_keys(objects.seed, of), newest=_keys(objects.newest, of)
    )


def _looked(looked: Looked, of: Callable[[Any], Any]) -> Looked:
    return dataclasses.replace(looked, **{name: of(getattr(looked, name)) for name in _FAR})


def _keys(keys: Keys, of: Callable[[Any], Any]) -> Keys:
    return Keys(of(keys.code), of(keys.values))


def _in_opencv(drafts: Drafts) -> LabelArray:
    boxes = [Box(*corners) for corners in drafts.boxes.tolist()]
    pairs = zip(drafts.values, boxes, strict=True)
    patches = Patches.of([Patch(values, box, drafts.size_of_work) for values, box in pairs])
    if drafts.guides is None:
        likely = enlarge(drafts.ids, patches, drafts.size)
    else:
        config = RefinementConfig(radius=drafts.radius, smoothness=drafts.smoothness)
        likely = enlarge_along_edges(drafts.ids, patches, *drafts.guides, config, ThreadPool())
    labels = merge(likely, drafts.size)
    return labels if drafts.ignored is None else np.where(drafts.ignored, 0, labels)


def _on_host(array: Any) -> Floats:
    found = array.detach().cpu().numpy() if hasattr(array, "detach") else array
    return np.nan_to_num(np.asarray(found, np.float32))


def check_engine(bench: Bench) -> Iterator[Case]:
    """Every call of the networks on the device, in the precisions of torch, beside the same call on the CPU."""
    for precision in ALLOWED:
        yield precision, partial(_compared, bench, bench.clips[0], precision)


def _compared(bench: Bench, clip: FileClip, precision: str) -> Row:
    """Mean difference over mean size, of each output where it is largest; share of pixels labelled otherwise.

    Raises:
        Beyond: One is too large.
    """
    config = bench.config(precision=precision)
    config = resolved(config)
    both = Both(load_engine(config), load_engine(bench.config(device="cpu", precision="float32")))
    tracker = Tracker(config, build_flow(config.flow), both)
    for number in range(min(FRAMES, len(clip))):
        frame = Frame(stamp_ns=clip.stamp_ns(number), image=clip.image(number))
        tracker.step(frame) if number else tracker.seed(seeded(clip, frame), frame)
    off = {name: max(apart / max(size, 1e-6) for apart, size in found) for name, found in both.apart.items()}
    relabelled = max(both.relabelled)
    row: Row = {"calls": sum(len(found) for found in both.apart.values()), **off, "labels": relabelled}
    worst = max(off, key=lambda name: off[name])
    if off[worst] > ALLOWED[precision]:
        raise Beyond(row, f"{worst} is off by {off[worst]:.4f} of its mean size, allowed {ALLOWED[precision]:g}")
    if relabelled > LABELS_ALLOWED:
        raise Beyond(row, f"{relabelled:.2%} of an image are labelled otherwise, allowed {LABELS_ALLOWED:.2%}")
    return row
