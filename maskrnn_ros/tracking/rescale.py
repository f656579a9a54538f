# SPDX-License-Identifier: Apache-2.0
"""Frames and states at another working size, so that instances go on when it changes between two frames.

Whatever is counted in pixels of the working image is carried over; what was learned (heads, hidden states) stays as it
is, for the networks are convolutional. Seeds are made anew from the size at which they were marked, so that going down
and up again loses nothing of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.matching import describe
from maskrnn_ros.model.network import Hidden
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.tracking.adaptation import SeedView
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.state import InstanceState, PreparedFrame


def rescaled_frame(frame: PreparedFrame, size: tuple[int, int]) -> PreparedFrame:
    """A frame of which only the working image is at hand, at another working size; features are computed anew."""
    image = _image(frame.image, size)
    host = None if frame.host is None else image.permute(1, 2, 0).cpu().numpy()
    ignored = None if frame.ignored is None else frame.ignored.at(size)
    return dataclasses.replace(frame, image=image, host=host, ignored=ignored)


def rescaled_states(
    states: Mapping[int, InstanceState], size: tuple[int, int], trunk: Trunk | None
) -> dict[int, InstanceState]:
    """States by id at another working size.

    The references of recent frames are left out; these come anew with the next frames.

    Args:
        states: All of one working size.
        size: The new one, (h, w).
        trunk: Describes the seeds, once for all instances that were marked on the same frame.
    """
    seeds = _Seeds(size, trunk)
    return {i: _state(state, size, seeds) for i, state in states.items()}


class _Seeds:
    """Seeds at a size; instances that were marked on one frame share its image and what describes it."""

    def __init__(self, size: tuple[int, int], trunk: Trunk | None) -> None:
        self._size = size
        self._trunk = trunk
        self._shared: dict[int, tuple[Tensor, Tensor]] = {}

    def view(self, seed: SeedView) -> SeedView:
        origin = seed.origin or seed
        if origin.share.shape == self._size:
            return origin
        image, descriptors = self._described(origin.image)
        others = None if origin.others is None else _share(origin.others, self._size)
        share = _share(origin.share, self._size)
        ignored = None if origin.ignored is None else _share(origin.ignored, self._size)
        return SeedView(origin.stamp_ns, image, share, descriptors, others, origin, ignored)

    def _described(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if id(image) not in self._shared:
            assert self._trunk is not None  # without one there are no seeds
            resized = _image(image, self._size)
            self._shared[id(image)] = resized, describe(self._trunk.features(resized))
        return self._shared[id(image)]


def _state(state: InstanceState, size: tuple[int, int], seeds: _Seeds) -> InstanceState:
    old = state.patch.size
    across, down = size[1] / old[1], size[0] / old[0]
    patch = _patch(state.patch, size)
    hidden = state.hidden
    if hidden is not None:
        hidden = Hidden(hidden.state, hidden.boxes * hidden.boxes.new_tensor([across, down, across, down]))
    known = state.known
    if known is not None:  # the target model stays: features hardly change with the size
        carried = known.carried
        boxes = carried.boxes * carried.boxes.new_tensor([across, down, across, down])
        known = dataclasses.replace(known, carried=dataclasses.replace(carried, boxes=boxes))
    return dataclasses.replace(
        state,
        patch=patch,
        area=int((patch.values >= 0.5).sum()),
        usual_area=max(1.0, state.usual_area * across * down),
        seeds=tuple(seeds.view(seed) for seed in state.seeds),
        recent=(),
        hidden=hidden,
        known=known,
    )


def _patch(patch: Patch, size: tuple[int, int]) -> Patch:
    return Patch.nothing(size, patch.values.device) if patch.box is None else Patch.of(_share(patch.full, size))


def _share(whole: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of probabilities or shares (h, w) at another size; where it shrinks, every pixel still counts."""
    found: Tensor = functional.interpolate(whole[None, None], size, mode="bilinear", antialias=True)[0, 0]
    return found.clamp(0, 1)


def _image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """RGB, uint8, (3, h, w), resized as ``Tracker.prepare`` does."""
    height, width = size
    shrinks = height * width < image.shape[1] * image.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    pixels = cv2.resize(image.permute(1, 2, 0).cpu().numpy(), (width, height), interpolation=method)
    return torch.from_numpy(pixels).to(image.device).permute(2, 0, 1).contiguous()
