# SPDX-License-Identifier: Apache-2.0
"""What each cell of a crop looks like among cells that are known: attention with labels for values (STM, ICCV 2019)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from maskrnn_ros.model.shapes import CHANNELS, CODES, MATCHED
from maskrnn_ros.model.torch.crops import double

FLOOR = 0.02
"""How near to 0 and 1 a share may come before its log-odds are taken."""


@dataclasses.dataclass(frozen=True, eq=False)
class Keys:
    """Cells that K objects are known by.

    Args:
        code: float32, (K, CODES, KEYS).
        values: float32, (K, 2, KEYS): share of the object and of the others, 0..1; all 0: nothing is known.
    """

    code: Tensor
    values: Tensor

    def __getitem__(self, which: Tensor) -> Keys:
        return Keys(self.code[which], self.values[which])

    def replaced(self, others: Keys, where: Tensor) -> Keys:
        """Those of the others where bool (K,) says so."""
        chosen = where[:, None, None]
        return Keys(torch.where(chosen, others.code, self.code), torch.where(chosen, others.values, self.values))


class Matcher(nn.Module):
    """Compares cells of stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(CHANNELS[1], CODES, 1)
        self.coarse = nn.Conv2d(CHANNELS[2], CODES, 1)
        self.sharpness = nn.Parameter(torch.tensor(3.7))
        """Log of what similarities are multiplied by."""

    @torch.no_grad()
    def standardise(self, stride8: Tensor, stride16: Tensor) -> None:
        """Begin with the principal components of standardised features (N, C, ., .): they keep most of similarity."""
        both = [double(stride16), stride8]
        cells = torch.cat([map_.transpose(0, 1).flatten(1) for map_ in both]).double()  # (C16 + C8, cells)
        mean, deviation = cells.mean(dim=1, keepdim=True), cells.std(dim=1, keepdim=True) + 1e-3
        parts = torch.tensor([CHANNELS[2]] * CHANNELS[2] + [CHANNELS[1]] * CHANNELS[1], device=cells.device)
        scale = deviation * parts[:, None].sqrt()  # both strides count the same
        spread = (cells - mean) / scale
        main = torch.linalg.eigh(spread @ spread.T).eigenvectors[:, -CODES:].T  # (CODES, C16 + C8)
        weight = main / scale.T
        shift = -(weight @ mean)[:, 0]
        self.coarse.weight.copy_(weight[:, : CHANNELS[2], None, None])
        self.fine.weight.copy_(weight[:, CHANNELS[2] :, None, None])
        self.fine.bias.copy_(shift)  # type: ignore[union-attr]
        self.coarse.bias.zero_()  # type: ignore[union-attr]

    def describe(self, stride8: Tensor, stride16: Tensor) -> Tensor:
        """Descriptors of length 1, float32 (K, CODES, n, n), of features at strides 8 and 16."""
        raw: Tensor = self.fine(stride8) + double(self.coarse(stride16))
        height, width = (int(side) for side in raw.shape[2:])  # numbers, for the tracer
        cells = raw.reshape(-1, CODES, height * width)
        # a product, not a sum: ONNX Runtime sums in another order where there is only one object
        square = torch.ones(1, CODES, device=raw.device, dtype=raw.dtype) @ cells.square()
        return (cells / square.clamp(min=1e-12).sqrt()).reshape(-1, CODES, height, width)

    def keys(self, code: Tensor, share: Tensor, others: Tensor) -> Keys:
        """What K objects are known by, from descriptors and shares, float32 (K, 1, n, n), of the same cells."""
        values = torch.cat([share, others], dim=1)
        return Keys(_chessboard(code), _chessboard(values))

    def match(self, code: Tensor, *known: Keys) -> Tensor:
        """Log-odds / 4 of the object, share of the others, similarity of what is most similar: 3 planes for each keys.

        float32, (K, 3 M, n, n) for M keys.
        """
        count = int(code.shape[-1])  # a number, for the tracer
        sharp = self.sharpness.exp()  # enters with the cells: products are more than both
        cells = (sharp * code).reshape(-1, CODES, count * count).transpose(1, 2)
        planes = []
        for keys in known:  # one after the other: the products of both at once would be too many for a core's cache
            similar = cells @ keys.code  # (K, n n, KEYS)
            said = similar.softmax(dim=-1) @ keys.values.transpose(1, 2)
            planes += [said, similar.amax(dim=-1, keepdim=True)]
        # plane by plane before anything else: a runtime is slow where an axis of 1 or 2 is the last
        found = torch.cat(planes, dim=-1).transpose(1, 2).reshape(-1, len(known), MATCHED, count * count)
        own = quarter_log_odds(found[:, :, :1])
        there = torch.stack([keys.values[:, :1].amax(dim=-1, keepdim=True) for keys in known], dim=1) > 0
        found = torch.cat([own, found[:, :, 1:2], found[:, :, 2:] / sharp], dim=2) * there.to(code.dtype)
        return found.reshape(-1, MATCHED * len(known), count, count)


def quarter_log_odds(shares: Tensor) -> Tensor:
    """Log-odds / 4 of shares, which come no nearer to 0 and 1 than ``FLOOR``: planes of the size of all others."""
    kept = shares.clamp(FLOOR, 1 - FLOOR)
    return (kept / (1 - kept)).log() * 0.25


def _chessboard(planes: Tensor) -> Tensor:
    """Every second cell of (K, C, n, n), (K, C, n n / 2)."""
    even, odd = planes[:, :, ::2, ::2], planes[:, :, 1::2, 1::2]
    return torch.cat([even.flatten(2), odd.flatten(2)], dim=2)
