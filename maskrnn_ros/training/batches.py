# SPDX-License-Identifier: Apache-2.0
"""Which frames of which clips make a training step, drawn by its number: any step can be repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrnn_ros.model.network import STRIDE
from maskrnn_ros.training.cache import TrainingClip
from maskrnn_ros.training.perturbation import perturb_mask
from maskrnn_ros.training.unroll import Window, shares_of

_SKIPS = (1, 1, 2, 3)
"""Frames from one to the next in a window: faster motion, and objects that have changed more."""

_ATTEMPTS = 10_000
"""So many draws in vain mean that there is nothing to draw."""

_LEAST = 100
"""Pixels of an object with which a window begins."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """One object in one window.

    Args:
        path: File of its clip.
        seed: Number of the seed in the clip.
        frames: Numbers of the frames.
        is_mirrored: Left and right change places.
    """

    path: Path
    seed: int
    frames: tuple[int, ...]
    is_mirrored: bool


class Batches:
    """Draws windows from clips.

    Args:
        groups: Paths of clips, by kind, and how often a kind is drawn beside the others.
        length: Frames in a window; 2 is stage 1, whose second frame has a perturbed mask for its prior.
        size: Objects in a step.
        seed: Of the random numbers.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[Path], float]], length: int, size: int, seed: int = 0) -> None:
        self._groups = [(tuple(paths), weight) for paths, weight in groups if paths]
        self._length, self._size, self._seed = length, size, seed
        self._clips: dict[Path, TrainingClip] = {}
        self._areas: dict[tuple[Path, int], list[int]] = {}

    def step(self, number: int, rank: int = 0, world: int = 1) -> Window:
        """Windows of a step; each of ``world`` processes takes its part of them, which together are the whole."""
        random = np.random.default_rng((self._seed, number))
        drawn = [(self._draw(random), int(random.integers(2**31))) for _ in range(self._size)]
        return stack([self._window(draw, np.random.default_rng(own)) for draw, own in drawn[rank::world]])

    def _draw(self, random: np.random.Generator) -> Draw:
        weights = np.array([weight for _, weight in self._groups])
        for _ in range(_ATTEMPTS):
            paths, _ = self._groups[random.choice(len(self._groups), p=weights / weights.sum())]
            path = paths[random.integers(len(paths))]
            clip = self._clip(path)
            seed = int(random.integers(len(clip.seeds)))
            skip = int(random.choice(_SKIPS)) if len(clip) > self._length else 1
            span = (self._length - 1) * skip + 1
            first = clip.seeds[seed][1]
            if len(clip) - span < first:
                continue
            start = int(random.integers(first, len(clip) - span + 1))
            if self._area(path, seed, start) >= _LEAST:
                return Draw(path, seed, tuple(range(start, start + span, skip)), bool(random.random() < 0.5))
        longest = max(
            (len(clip) - min(first for _, first, *_ in clip.seeds) for clip in self._clips.values()), default=0
        )
        raise ValueError(
            f"expected clips with an object of {_LEAST} pixels or more through {self._length} frames, found none among "
            f"{len(self._clips)}; the longest has {longest} from its first object on"
        )

    def _clip(self, path: Path) -> TrainingClip:
        if path not in self._clips:
            self._clips[path] = TrainingClip.load(path)
        return self._clips[path]

    def _area(self, path: Path, seed: int, frame: int) -> int:
        key = path, self._clip(path).seeds[seed][0]
        if key not in self._areas:
            truth = self._clip(path).truth
            self._areas[key] = (truth == key[1]).sum(dim=(1, 2)).tolist()
        return self._areas[key][frame]

    def _window(self, draw: Draw, random: np.random.Generator) -> Window:
        window = window_of(self._clip(draw.path), draw.seed, draw.frames)
        if self._length == 2:
            window = dataclasses.replace(window, given=_perturbed(self._clip(draw.path), draw, window, random))
        return mirrored(window) if draw.is_mirrored else window


def window_of(clip: TrainingClip, seed: int, frames: Sequence[int]) -> Window:
    """Some frames of a clip, for the object of one of its seeds; B is 1.

    Where frames are left out, the flow is that from frame to frame put together, and the flow ahead is not known.
    """
    whole = clip.window(frames[0], frames[-1] + 1)
    skip = frames[1] - frames[0] if len(frames) > 1 else 1
    places = [frame - frames[0] for frame in frames]
    truth = (whole.truth[places] == clip.seeds[seed][0]).float()[None]
    back = whole.back.float()
    if skip > 1:
        joined = [back[0]]
        for place in places[1:]:
            joined.append(_compose([back[place - k] for k in range(skip)]))
        back = torch.stack(joined)
    ahead = whole.ahead[places].float() if skip == 1 else torch.zeros(len(places), *back.shape[2:])
    return Window(
        images=whole.images[places][None],
        maps=(whole.stride4[places][None], whole.stride8[places][None], whole.stride16[places][None]),
        back=back[None],
        ahead=ahead[None],
        truth=truth,
        first=shares_of(truth[:, 0], (back.shape[-2], back.shape[-1])),
        matching=whole.matching[seed, places].float()[None],
        head=whole.head[seed, places].float()[None],
    )


def _compose(flows: list[Tensor]) -> Tensor:
    """Backward flow over several frames, newest first, each (2, h4, w4): p -> p + f0(p) -> ..."""
    total = flows[0]
    for flow in flows[1:]:
        height, width = flow.shape[1:]
        x = torch.arange(width) + 0.5 + total[0] / STRIDE
        y = (torch.arange(height) + 0.5)[:, None] + total[1] / STRIDE
        grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], dim=-1)
        moved = torch.nn.functional.grid_sample(flow[None], grid[None], padding_mode="border", align_corners=False)
        total = total + moved[0]
    return total


def _perturbed(clip: TrainingClip, draw: Draw, window: Window, random: np.random.Generator) -> Tensor:
    truth = clip.truth[draw.frames[-1]].numpy()
    own = clip.seeds[draw.seed][0]
    others = [truth == i for i in np.unique(truth).tolist() if i not in (0, own)]
    mask = perturb_mask(truth == own, random, others)
    size = (window.back.shape[-2], window.back.shape[-1])
    share = shares_of(torch.from_numpy(np.asarray(mask, np.float32))[None], size)
    return torch.stack([window.first, share], dim=1)


def mirrored(window: Window) -> Window:
    """The window with left and right in each other's places."""
    first, second, third = (map_.flip(-1) for map_ in window.maps)
    return Window(
        images=window.images.flip(-1),
        maps=(first, second, third),
        back=window.back.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None],
        ahead=window.ahead.flip(-1),
        truth=window.truth.flip(-1),
        first=window.first.flip(-1),
        matching=window.matching.flip(-1),
        head=window.head.flip(-1),
        given=None if window.given is None else window.given.flip(-1),
    )


def stack(windows: Sequence[Window]) -> Window:
    """Windows of the same length and size, one after the other in B."""
    return Window(
        images=torch.cat([one.images for one in windows]),
        maps=tuple(torch.cat(maps) for maps in zip(*(one.maps for one in windows), strict=True)),  # type: ignore[arg-type]
        back=torch.cat([one.back for one in windows]),
        ahead=torch.cat([one.ahead for one in windows]),
        truth=torch.cat([one.truth for one in windows]),
        first=torch.cat([one.first for one in windows]),
        matching=torch.cat([one.matching for one in windows]),
        head=torch.cat([one.head for one in windows]),
        given=None if windows[0].given is None else torch.cat([one.given for one in windows if one.given is not None]),
    )
