# SPDX-License-Identifier: Apache-2.0
"""Masks of all objects at the size of the input, refined and merged on the device.

What ``model.refinement`` and ``tracking.merge`` do one object after the other is done for all at once: the lines at the
working size, then the pixels of all boxes in tiles, so that small objects cost what they cover. Every pixel goes to the
highest key of probability and place in the order. How many kernels that takes does not depend on the number of objects,
and nothing is waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from maskrnn_ros.model.engine import Drafts

_TILE = 32
"""Pixels of a tile in each direction."""

_AT_ONCE = 2**23
"""Most pixels, of working images or of tiles, that are worked on at once: 32 MB a map, and some ten of them."""

_HALF = 0x3F000000
"""0.5 as float32, bit by bit; of positive numbers the order of the bits is that of the numbers."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """The pixels of K boxes in tiles, object by object.

    Args:
        table: float32 (N, 3): which object, and the first column and row.
        boxes: float32 (K, 4): those of the input that are cut into them, x0 y0 x1 y1.
        counts: Tiles of each object, (K,).
    """

    table: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]

    @staticmethod
    def of(boxes: npt.NDArray[np.int64], size: tuple[int, int], to: tuple[int, int]) -> Tiles:
        """Of the pixels of the input that boxes (K, 4) of the working image touch; both sizes as (h, w)."""
        scale = np.array([to[1] / size[1], to[0] / size[0]] * 2)
        low, high = np.floor(boxes * scale)[:, :2], np.ceil(boxes * scale)[:, 2:]
        high = np.minimum(high, to[::-1])
        across, down = np.ceil((high - low) / _TILE).astype(np.int64).T
        counts = across * down
        which = np.repeat(np.arange(len(boxes)), counts)
        number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        x, y = number % across[which], number // across[which]
        table = np.stack([which, low[which, 0] + x * _TILE, low[which, 1] + y * _TILE], axis=1)
        return Tiles(table.astype(np.float32), np.concatenate([low, high], axis=1).astype(np.float32), counts)


@dataclasses.dataclass(frozen=True, eq=False)
class Uploaded:
    """What of ``Drafts`` the device is told, float32 where nothing else is said.

    Args:
        values: (M,): one draft after the other.
        boxes: (K, 4): theirs, pixels of the working image.
        targets: (K, 4): those of the tiles.
        tiles: (N, 3), see ``Tiles``.
        ids: (K,).
        smoothness: (1,).
        working: Brightness of the working image, uint8 (h, w); None: edges are not followed.
        full: That of the input, uint8 (H, W), likewise.
        ignored: 1 where no object may be, uint8 (H, W); None: nowhere.
    """

    values: Tensor
    boxes: Tensor
    targets: Tensor
    tiles: Tensor
    ids: Tensor
    smoothness: Tensor
    working: Tensor | None
    full: Tensor | None
    ignored: Tensor | None


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some of the objects, from one of them to another, and what of ``values`` and ``tiles`` is theirs."""

    objects: slice
    values: slice
    tiles: slice


def parts(drafts: Drafts, tiles: Tiles) -> Iterator[Part]:
    """As many objects at a time as memory shall be taken for, at least one."""
    whole = drafts.size_of_work[0] * drafts.size_of_work[1]
    costs = np.maximum(tiles.counts * _TILE * _TILE, whole)
    values, found = (np.cumsum([0, *counts]) for counts in ((len(v.ravel()) for v in drafts.values), tiles.counts))
    first, sum_ = 0, 0
    for k, cost in enumerate(costs.tolist()):
        if k > first and sum_ + cost > _AT_ONCE:
            yield _part(first, k, values, found)
            first, sum_ = k, 0
        sum_ += cost
    yield _part(first, len(costs), values, found)


def _part(first: int, last: int, values: npt.NDArray[np.int64], tiles: npt.NDArray[np.int64]) -> Part:
    return Part(slice(first, last), *(slice(int(ends[first]), int(ends[last])) for ends in (values, tiles)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Pixels:
    """Pixels of some tiles; what can be made again is, so that many large objects hold 4 bytes a pixel.

    Args:
        object: (N,): whose they are.
        x: (N, TILE), columns; those beyond a box are its last one again.
        y: Likewise, rows.
        is_own: bool (2, N, TILE): False for columns and rows that are there again.
        value: (N, TILE, TILE), probability.
    """

    object: Tensor
    x: Tensor
    y: Tensor
    is_own: Tensor
    value: Tensor

    def place(self, width: int) -> Tensor:
        """In the input, row by row, (N, TILE, TILE)."""
        return (self.y * width)[:, :, None] + self.x[:, None, :]

    def key(self, count: int) -> Tensor:
        """What the highest of wins a pixel, (N, TILE, TILE): of equal ones the first; 0 where it is less than 0.5."""
        above = (self.value.view(torch.int32) - _HALF).long()
        return torch.where(above >= 0, above * count + (count - self.object)[:, None, None], 0)

    @property
    def once(self) -> Tensor:
        """False for pixels that are there again, (N, TILE, TILE)."""
        return self.is_own[1][:, :, None] & self.is_own[0][:, None, :]


def merged(
    given: Uploaded,
    some: Sequence[Part],
    size_of_work: tuple[int, int],
    size: tuple[int, int],
    radius: int,
    kind: torch.dtype = torch.int16,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, sums and labels.

    Args:
        given: Everything.
        some: All objects, in parts.
        size_of_work: (h, w).
        size: (H, W).
        radius: Of the filter, pixels of the working image.
        kind: Of the labels.

    Returns:
        int32 (K, 4): boxes of the masks, x0 y0 x1 y1; x1 <= x0 where there is none.
        float32 (N, 3): of each tile the pixels of the mask, the sum of the probability in it, and in its box.
        ``kind`` (H, W): ids, 0 = background.
    """
    count, width = len(given.ids), size[1]
    best = torch.zeros(size[0] * size[1], dtype=torch.int64, device=given.ids.device)
    found = []
    guide = None if given.working is None else _Guide.of(given.working, radius)
    for part in some:
        lines = _lines(_maps(given, part, size_of_work), guide, given.smoothness, radius)
        pixels = _pixels(given, part, lines, size_of_work, size)
        best.scatter_reduce_(0, pixels.place(width).flatten(), pixels.key(count).flatten(), "amax")
        found.append(pixels)
    which = count - 1 - (best - 1).remainder(count)  # 0 where nothing won, and not looked at there
    labels = torch.where(best > 0, given.ids[which], 0).to(kind).reshape(size)
    boxes = torch.full((count, 4), float(max(size)), device=best.device)
    won = [_won(pixels, best, count, width) for pixels in found]
    for mask, pixels in zip(won, found, strict=True):
        boxes.scatter_reduce_(0, pixels.object[:, None].expand(-1, 4), _extremes(mask, pixels, max(size)), "amin")
    boxes = torch.cat([boxes[:, :2], 1 - boxes[:, 2:]], dim=1)
    sums = torch.cat([_sums(mask, pixels, boxes) for mask, pixels in zip(won, found, strict=True)])
    return boxes.to(torch.int32), sums, labels


def _maps(given: Uploaded, part: Part, size: tuple[int, int]) -> Tensor:
    """Probabilities of some objects in the whole working image, (K, h, w)."""
    values, boxes = given.values[part.values], given.boxes[part.objects].long()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ends = (width * height).cumsum(0)
    number = torch.arange(len(values), device=values.device)
    k = torch.searchsorted(ends, number, right=True)
    number = number - (ends - width * height)[k]
    x, y = boxes[k, 0] + number % width[k], boxes[k, 1] + number // width[k]
    whole = torch.zeros(len(boxes) * size[0] * size[1], device=values.device)
    return whole.scatter_(0, (k * size[0] + y) * size[1] + x, values).reshape(len(boxes), *size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Guide:
    """Brightness of the working image, (h, w), with its mean and variance in the windows."""

    value: Tensor
    mean: Tensor
    variance: Tensor

    @staticmethod
    def of(brightness: Tensor, radius: int) -> _Guide:
        """Of brightness as uint8."""
        value = brightness.float() / 255
        mean, square = _means(torch.stack([value, value * value])[None], radius)[0]
        return _Guide(value, mean, (square - mean * mean).clamp(min=0))


def _lines(maps: Tensor, guide: _Guide | None, smoothness: Tensor, radius: int) -> Tensor:
    """Slope and value at brightness 0 for every pixel, see ``refinement.line_of``; (K, h, w, 2)."""
    if guide is None:
        return torch.stack([torch.zeros_like(maps), maps], dim=-1)
    mean, product = _means(torch.stack([maps, maps * guide.value], dim=1), radius).unbind(1)
    slope = (product - guide.mean * mean) / (guide.variance + smoothness)
    return _means(torch.stack([slope, mean - slope * guide.mean], dim=1), radius).permute(0, 2, 3, 1).contiguous()


def _means(planes: Tensor, radius: int) -> Tensor:
    """Means over windows, planes (N, C, h, w); at the border the windows are filled by reflection."""
    side = 2 * radius + 1
    rows, columns = (_reflected(length, radius, planes.device) for length in planes.shape[-2:])
    down = functional.avg_pool2d(planes[:, :, rows], (side, 1), stride=1)
    return functional.avg_pool2d(down[..., columns], (1, side), stride=1)


def _reflected(length: int, radius: int, device: torch.device) -> Tensor:
    """Places -radius to length + radius as OpenCV reflects them: the outermost twice."""
    place = torch.arange(-radius, length + radius, device=device).remainder(2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def _pixels(given: Uploaded, part: Part, lines: Tensor, size: tuple[int, int], to: tuple[int, int]) -> _Pixels:
    """Probabilities at the pixels of the tiles of some objects."""
    tiles = given.tiles[part.tiles].long()
    own = tiles[:, 0]
    box = given.targets[own].long()
    steps = torch.arange(_TILE, device=own.device)
    x, y = tiles[:, 1, None] + steps, tiles[:, 2, None] + steps
    is_own = torch.stack([x < box[:, 2, None], y < box[:, 3, None]])
    x, y = torch.minimum(x, box[:, 2, None] - 1), torch.minimum(y, box[:, 3, None] - 1)
    slope, value = _enlarged(lines, own - part.objects.start, x, y, size, to).unbind(-1)
    pixels = _Pixels(own, x, y, is_own, value)
    place = pixels.place(to[1])
    if given.full is not None:
        value = slope * (given.full.flatten()[place].float() / 255) + value
    value = value.clamp(0, 1)
    if given.ignored is not None:
        value = value.masked_fill(given.ignored.flatten()[place] != 0, 0)
    return dataclasses.replace(pixels, value=value)


def _won(pixels: _Pixels, best: Tensor, count: int, width: int) -> Tensor:
    """Which of them their object has won, each counted once."""
    key = pixels.key(count)
    return (best[pixels.place(width)] == key) & (key > 0) & pixels.once


def _enlarged(lines: Tensor, own: Tensor, x: Tensor, y: Tensor, size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Lines (K, h, w, 2) at columns and rows (N, TILE) of the input, bilinear; (N, TILE, TILE, 2)."""
    flat = lines.reshape(-1, 2)
    (left, right, across), (top, bottom, down) = (
        _between(places, length, length_to) for places, length, length_to in ((x, size[1], to[1]), (y, size[0], to[0]))
    )
    rows = [((own[:, None] * size[0] + row) * size[1])[:, :, None] for row in (top, bottom)]
    weight = across[:, None, :, None]
    upper, lower = (torch.lerp(flat[row + left[:, None, :]], flat[row + right[:, None, :]], weight) for row in rows)
    return torch.lerp(upper, lower, down[:, :, None, None])


def _between(places: Tensor, length: int, to: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two places of the working image that one of the input lies between, and the weight of the second.

    OpenCV's warp knows 32nds of a pixel; masks are the same if it is so here.
    """
    at = (((places + 0.5) * (length / to) - 0.5) * 32).add(0.5).floor().div(32).clamp(0, length - 1)
    low = at.floor()
    first = low.long()
    return first, (first + 1).clamp(max=length - 1), at - low


def _extremes(won: Tensor, pixels: _Pixels, far: int) -> Tensor:
    """Of each tile the least column and row that were won, and minus the largest; (N, 4)."""
    columns, rows = won.any(1), won.any(2)
    some = [
        torch.where(hit, sign * place, far).amin(1)
        for sign in (1, -1)
        for hit, place in ((columns, pixels.x), (rows, pixels.y))
    ]
    return torch.stack(some, dim=1).float()


def _sums(won: Tensor, pixels: _Pixels, boxes: Tensor) -> Tensor:
    """See ``merged``, (N, 3)."""
    box = boxes[pixels.object][:, :, None]
    columns = (pixels.x >= box[:, 0]) & (pixels.x < box[:, 2])
    rows = (pixels.y >= box[:, 1]) & (pixels.y < box[:, 3])
    around = pixels.once & rows[:, :, None] & columns[:, None, :]
    planes = won.float(), pixels.value * won, pixels.value * around
    return torch.stack([plane.sum((1, 2)) for plane in planes], dim=1)
