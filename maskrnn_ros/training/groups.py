# SPDX-License-Identifier: Apache-2.0
"""Objects by the frame that they are in: what needs all of a frame's objects side by side, without a loop over them."""

from __future__ import annotations

import torch
from torch import Tensor


class Groups:
    """K objects in B frames, M of them at most in one.

    Args:
        which: int64, (K,): the frame of each object; every frame from 0 on has one.
    """

    def __init__(self, which: Tensor) -> None:
        taken: dict[int, int] = {}
        places = list[int]()
        frames = which.tolist()
        for frame in frames:
            places.append(taken.setdefault(frame, 0))
            taken[frame] += 1
        self._count, self._most = len(taken), max(taken.values())
        flat = [frame * self._most + place for frame, place in zip(frames, places, strict=True)]
        self._which, self._flat = which, torch.tensor(flat, device=which.device)

    def padded(self, maps: Tensor, fill: float = 0.0) -> Tensor:
        """Maps (K, a, b) by frame, (B, M, a, b); ``fill`` where a frame has fewer objects."""
        found = maps.new_full((self._count * self._most, *maps.shape[1:]), fill)
        return found.index_copy(0, self._flat, maps).reshape(self._count, self._most, *maps.shape[1:])

    def most_of_others(self, maps: Tensor) -> Tensor:
        """At every place the most of what the other objects of the same frame have there, (K, a, b), all >= 0."""
        if self._most == 1:
            return torch.zeros_like(maps)
        first, second = self.padded(maps).topk(2, dim=1).values.unbind(1)
        first, second = first[self._which], second[self._which]
        return torch.where(maps >= first, second, first)
