# SPDX-License-Identifier: Apache-2.0
"""The networks in torch: on a GPU, in half precision, compiled, and where there are no graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.config import Config
from maskrnn_ros.model.engine import (
    Around,
    Drafts,
    Features,
    Floats,
    Keys,
    Lesson,
    Looked,
    Merge,
    Merged,
    Objects,
    Summed,
)
from maskrnn_ros.model.torch.compiled import Compiled
from maskrnn_ros.model.torch.frame_step import Begin, FrameFeatures, FrameStep, Learn
from maskrnn_ros.model.torch.full_size import Tiles, Uploaded, merged, parts
from maskrnn_ros.model.torch.weights import load_step, load_trunk
from maskrnn_ros.runtime import cores
from maskrnn_ros.types import UInt8Array


def choose_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        RuntimeError: cuda was asked for by name and is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RuntimeError(
            f"device {name!r} was asked for, but torch sees {count} cuda devices; use device auto or cpu"
        )
    return device


class TorchEngine:
    """An ``Engine``.

    What a step needs of the host goes up in one copy for the frame and one for the objects; what the host needs of it
    comes down in one.

    Args:
        config: Device, precision, compile, threads.
        trunk: Weights of the trunk.
        weights: Weights of the decoder.

    Raises:
        RuntimeError: The device is not there, or weights cannot be read.
    """

    name = "torch"

    def __init__(self, config: Config, trunk: Path, weights: Path) -> None:
        self._device = choose_device(config.device)
        self.device = str(self._device)
        self._is_far = self._device.type != "cpu"  # each copy is a wait
        if not self._is_far:
            torch.set_num_threads(config.threads or len(cores()))
        self.precision = "float16" if config.precision == "float16" else "float32"
        self.decoder_precision = "float32"
        self._frame = FrameFeatures(load_trunk(trunk, self._device), self.precision == "float16")
        self._features = Compiled(self._frame, self._frame.forward, config.compile)
        net = load_step(weights, self._device)
        self.ridge = float(net.ridge)
        self._held = FrameStep(net)  # ``Compiled`` only refers to it
        self._step = Compiled(self._held, self._held.forward, config.compile, is_traced=False)
        self._learn, self._begin = Learn(net), Begin(net)

    @torch.no_grad()
    def features(self, image: UInt8Array) -> Features:
        """See ``Engine``."""
        pixels = self._up(image).permute(2, 0, 1)[None]
        stride8, stride16, columns = self._features(pixels)
        return Features(stride8, stride16, columns, pixels)

    @torch.no_grad()
    def scores(self, features: Features, coefficients: Floats) -> Floats:
        """See ``Engine``."""
        (weights,) = self._all_up(np.ascontiguousarray(coefficients[..., 0]))
        columns = features.columns[0]
        found = weights[:, :-1] @ columns.flatten(1) + weights[:, -1:]
        return self._all_down([found.reshape(-1, *columns.shape[1:])])[0]

    @torch.no_grad()
    def begin(self, features: Features, boxes: Floats, share: Floats, others: Floats, known: Floats) -> Summed:
        """See ``Engine``."""
        masks = self._all_up(boxes, share, others, known)
        return self._summed(self._begin(features.columns, features.stride8, features.stride16, *masks))

    @torch.no_grad()
    def step(self, features: Features, around: Around, objects: Objects) -> Looked:
        """See ``Engine``."""
        flow, ignored, beside, switches = self._all_up(around.flow, around.ignored, around.beside, around.switches)
        probability, boxes, coefficients, sought = self._all_up(
            objects.probability[:, None], objects.boxes, objects.coefficients, objects.sought
        )
        keys = objects.seed.code, objects.seed.values, objects.newest.code, objects.newest.values
        shared = features.image, features.columns, features.stride8, features.stride16
        own = probability, boxes, objects.hidden, coefficients, *keys
        found = self._step(*shared, flow, ignored, beside, switches, sought, *own)
        placed, (hidden, code, matched, columns) = found[:6], found[6:]
        where, crops, looked, log_odds, deltas, presence, likeness = self._all_down([*placed, matched])
        return Looked(where, crops, looked, log_odds, deltas, presence, hidden, code, likeness, columns)

    @torch.no_grad()
    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        """See ``Engine``."""
        masks = (plane[:, None] for plane in (lesson.share, lesson.rivals, lesson.known))
        seen = np.ones((1, 1), np.float32) if lesson.seen is None else lesson.seen
        numbers, weight, *planes = self._all_up(np.array(lesson.which, np.float32), seen[:, None], *masks)
        which = numbers.long()
        columns, code = (part.index_select(0, which) for part in (looked.columns, looked.code))
        square, target, *keys = self._learn(columns, code, *planes)
        parts = zip((newest.code, newest.values), keys, strict=True)
        return self._summed([square, target, *(held.index_copy(0, which, new * weight) for held, new in parts)])

    @property
    def merge(self) -> Merge | None:
        """See ``Engine``."""
        return self.merge_here if self._is_far else None

    @torch.no_grad()
    def merge_here(self, drafts: Drafts) -> Merged:
        """Merge on the device, whatever it is.

        Three copies up, four with an ignore mask, and one down.
        """
        tiles = Tiles.of(drafts.shown, drafts.size_of_work, drafts.size)
        values, boxes, targets, table, ids, smoothness = self._all_up(
            np.concatenate([values.ravel() for values in drafts.values]),
            drafts.boxes.astype(np.float32),
            tiles.boxes,
            tiles.table,
            np.array(drafts.ids, np.float32),
            np.array([drafts.smoothness], np.float32),
        )
        ignored = None if drafts.ignored is None else drafts.ignored.view(np.uint8)
        working, full = drafts.guides or (None, None)
        planes = [None if plane is None else self._up(plane) for plane in (working, full, ignored)]
        given = Uploaded(values, boxes, targets, table, ids, smoothness, planes[0], planes[1], planes[2])
        is_short = drafts.ids[-1] < 256  # half as much to copy
        found = merged(
            given,
            list(parts(drafts, tiles)),
            drafts.size_of_work,
            drafts.size,
            drafts.radius,
            torch.uint8 if is_short else torch.int16,
        )
        whole = torch.cat([value.flatten().view(torch.uint8) for value in found]).cpu().numpy()
        ends = np.cumsum([value.numel() * value.element_size() for value in found])
        found_boxes, sums, labels = np.split(whole, ends[:-1])
        # by object in float64, in this order: sums of a GPU's own come in any
        first = np.cumsum(tiles.counts) - tiles.counts
        each = sums.view(np.float32).reshape(-1, 3).astype(np.float64)
        pixels, inside, around = np.add.reduceat(each, first).T
        small = labels.view(np.uint8 if is_short else np.int16).reshape(drafts.size)
        return Merged(
            small.astype(np.int32), found_boxes.view(np.int32).reshape(-1, 4), pixels.astype(np.int64), inside, around
        )

    def stack(self, arrays: Sequence[Tensor]) -> Tensor:
        """See ``Engine``."""
        return torch.stack(list(arrays))

    def without(self, batch: Tensor, which: Sequence[int]) -> Tensor:
        """See ``Engine``."""
        for k in which:  # a list of numbers would have to go up
            batch[k].zero_()
        return batch

    def zeros(self, *shape: int) -> Tensor:
        """See ``Engine``."""
        return torch.zeros(shape, device=self._device)

    def times(self, array: Tensor, factors: Floats) -> Tensor:
        """See ``Engine``."""
        return array * self._up(factors)

    def _summed(self, found: Sequence[Tensor]) -> Summed:
        square, target, code, values = found
        sums = self._all_down([square, target])
        return Summed(sums[0], sums[1], code, values)

    def _up(self, array: Floats | UInt8Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _all_up(self, *arrays: Floats) -> list[Tensor]:
        """Arrays of float32 on the device, by one copy."""
        if not self._is_far:
            return [self._up(array) for array in arrays]
        whole = self._up(np.concatenate([array.ravel() for array in arrays]))
        parts = torch.split(whole, [array.size for array in arrays])
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]

    def _all_down(self, values: Sequence[Tensor]) -> list[Floats]:
        """Tensors of float32 as arrays, by one copy."""
        if not self._is_far:
            return [value.numpy() for value in values]
        whole = torch.cat([value.flatten() for value in values]).cpu().numpy()
        parts = np.split(whole, np.cumsum([value.numel() for value in values])[:-1])
        return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]
