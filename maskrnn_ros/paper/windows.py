# SPDX-License-Identifier: Apache-2.0
"""What the ``paper`` profile is trained on: short windows of one object, from video or from moved stills."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.datasets.clips import Clip
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.flow import FlowEstimator, build_flow
from maskrnn_ros.labels import VOID
from maskrnn_ros.sections import FlowConfig
from maskrnn_ros.training.perturbation import perturb_mask
from maskrnn_ros.training.sizes import fit_image, fit_labels
from maskrnn_ros.training.stills import Unsuitable, moving_still, read_still, still_paths
from maskrnn_ros.types import UInt8Array

_CAUSAL = 0.5
"""Share of the windows in which the flow to the next image is not known."""

_SMALLEST = 100
"""Pixels that an object must have on the frame before the window."""

_TRIES = 100


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PaperWindow:
    """T frames and one object.

    Args:
        images: RGB, uint8, (T, 3, H, W).
        truth: float32, (T, H, W), 0 or 1.
        back: Flow t -> t-1, pixels, float32, (T, 2, H, W).
        magnitudes: Length of the flow t -> t-1 and t -> t+1, pixels, float32, (T, 2, H, W).
        mask: On the frame before the first, perturbed, float32, (H, W).
    """

    images: Tensor
    truth: Tensor
    back: Tensor
    magnitudes: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> PaperWindow:
        """The same on a device."""
        return PaperWindow(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def magnitudes_of(back: Tensor, ahead: Tensor | None = None) -> Tensor:
    """Lengths of both flows, (2, H, W).

    Where the next image is not known, the motion is taken to go on as it was: the length of ``back`` twice.
    """
    return torch.stack([back.norm(dim=0), (back if ahead is None else ahead).norm(dim=0)])


def window_of(
    images: UInt8Array, masks: np.ndarray, flow: FlowEstimator, random: np.random.Generator, *, is_causal: bool
) -> PaperWindow:
    """A window from T + 2 frames.

    Args:
        images: RGB, uint8, (T + 2, H, W, 3): the frame before, those that are looked at, the frame after.
        masks: Of the object, bool, (T + 2, H, W).
        flow: Computes the flow.
        random: Random numbers of the perturbation.
        is_causal: The flow to the next image is not known.
    """
    pictures = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    shown = range(1, len(images) - 1)
    back = [torch.from_numpy(flow(images[t], images[t - 1])) for t in shown]
    ahead = [None if is_causal else torch.from_numpy(flow(images[t], images[t + 1])) for t in shown]
    return PaperWindow(
        images=pictures[1:-1],
        truth=torch.from_numpy(masks[1:-1].astype(np.float32)),
        back=torch.stack(back),
        magnitudes=torch.stack([magnitudes_of(*pair) for pair in zip(back, ahead, strict=True)]),
        mask=torch.from_numpy(perturb_mask(masks[0], random).astype(np.float32)),
    )


class Windows:
    """Draws windows: of clips and stills, half of each where there are both.

    Args:
        davis: Data set in the layout of DAVIS, or None.
        stills: Folders of still images.
        held_out: Clips that are left alone.
        size: (h, w), pixels.
        length: T.
        seed: Of the random numbers: the same number gives the same window.

    Raises:
        ValueError: There is nothing to draw from, or a held out clip is not there.
    """

    def __init__(
        self,
        davis: Path | None,
        stills: Sequence[Path],
        held_out: Sequence[str],
        size: tuple[int, int],
        length: int,
        seed: int,
    ) -> None:
        clips = [] if davis is None else find_clips(davis, "davis", None, (), "")
        unknown = sorted(set(held_out) - {clip.name for clip in clips})
        if unknown:
            raise ValueError(f"expected the held out clip {unknown[0]} in {davis}, found {len(clips)} others")
        kept = [clip for clip in clips if clip.name not in held_out]
        self._clips = [clip for clip in kept if len(clip) >= length + 2]
        self._stills = [pair for folder in stills for pair in still_paths(folder)]
        if not self._clips and not self._stills:
            raise ValueError(f"expected clips of {length + 2} frames (--root) or stills (--stills), found none")
        self._size, self._frames, self._seed = size, length + 2, seed
        self._flow = build_flow(FlowConfig(preset="medium"))

    def draw(self, number: int) -> PaperWindow:
        """The window of this number.

        Raises:
            ValueError: A file cannot be read, or no object is large enough in 100 tries.
        """
        random = np.random.default_rng((self._seed, number))
        for _ in range(_TRIES):
            is_still = not self._clips or (bool(self._stills) and random.random() < 0.5)
            try:
                images, labels = self._still(random) if is_still else self._video(random)
            except Unsuitable:
                continue
            ids = [i for i in np.unique(labels[0]) if i and np.count_nonzero(labels[0] == i) >= _SMALLEST]
            if ids:
                masks = labels == ids[random.integers(len(ids))]
                return window_of(images, masks, self._flow, random, is_causal=random.random() < _CAUSAL)
        raise ValueError(f"expected an object of {_SMALLEST} pixels at {self._size[1]}x{self._size[0]}, found none")

    def _still(self, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        one, other = (read_still(*self._stills[k]) for k in random.integers(len(self._stills), size=2))
        return moving_still(one, other, self._size, random, self._frames)

    def _video(self, random: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        clip: Clip = self._clips[random.integers(len(self._clips))]
        begin = int(random.integers(len(clip) - self._frames + 1))
        numbers = range(begin, begin + self._frames)
        images = np.stack([fit_image(clip.image(number), self._size) for number in numbers])
        return images, np.stack([self._labels(clip, number) for number in numbers])

    def _labels(self, clip: Clip, number: int) -> UInt8Array:
        labels = clip.truth(number)
        if labels.max() >= VOID:
            raise ValueError(f"{clip.place(number)}: expected ids up to {VOID - 1}, found {labels.max()}")
        return fit_labels(labels, self._size)
