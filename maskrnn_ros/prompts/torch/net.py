# SPDX-License-Identifier: Apache-2.0
"""From a view of an image and what is said of an object to its mask: the network of the learned prompt segmenter.

The trunk's features of the view come in at their strides, points, box and the mask before at its full size
(``prompts.learned``); a U of 64, 32 and 16 cells goes back up to every pixel. Two things go beyond a U: how much each
cell looks like those under the points and under the mask before, and attention between all cells of the deepest level,
since one click has to say how far an object reaches.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maskrnn_ros.model.shapes import CHANNELS, CODES
from maskrnn_ros.model.torch.matching import Matcher
from maskrnn_ros.model.torch.trunk import TrainedTrunk
from maskrnn_ros.prompts.view import BEFORE, NEGATIVE, PLANES, POSITIVE, Floats
from maskrnn_ros.types import UInt8Array

LOG_ODDS = 12.0
"""Log-odds beyond this are cut."""

_FULL, _HALF, _FINE, _MIDDLE, _DEEP = 8, 16, 32, 64, 96
_HEADS, _BLOCKS = 4, 2
_SIMILAR = 3


class PromptNet(nn.Module):
    """See the module; about 3.5 MB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.describe8 = nn.Conv2d(CHANNELS[1], CODES, 1)
        self.describe16 = nn.Conv2d(CHANNELS[2], CODES, 1)
        self.code4 = nn.Conv2d(CHANNELS[0], 24, 1)
        self.code8 = nn.Conv2d(CHANNELS[1], 32, 1)
        self.code16 = nn.Conv2d(CHANNELS[2], 64, 1)
        # down
        self.first = _conv(3 + PLANES, _HALF, stride=2)
        self.second = _conv(_HALF, 24, stride=2)
        self.fine = _conv(24 + 24, _FINE)
        self.down8 = _conv(_FINE, 48, stride=2)
        self.middle = _conv(48 + 32 + _SIMILAR, _MIDDLE)
        self.down16 = _conv(_MIDDLE, _DEEP, stride=2)
        self.deep = _conv(_DEEP + 64, _DEEP)
        self.blocks = nn.ModuleList([_Block() for _ in range(_BLOCKS)])
        # up
        self.up8 = nn.Conv2d(_DEEP, _MIDDLE, 1)
        self.merge8 = _conv(_MIDDLE, _MIDDLE)
        self.up4 = nn.Conv2d(_MIDDLE, _FINE, 1)
        self.merge4 = _conv(_FINE, _FINE)
        self.up2 = nn.Conv2d(_FINE, _HALF, 1)
        self.merge2 = _conv(_HALF, _HALF)
        self.coarse = nn.Conv2d(_HALF, 1, 1)
        self.up1 = nn.Conv2d(_HALF, _FULL, 1)
        self.edge = _conv(_FULL + 3, _FULL)
        self.sharp = _conv(_FULL, 1)
        # how good it is
        self.judge = nn.Sequential(nn.Linear(_DEEP + _HALF + 2, 48), nn.ReLU(), nn.Linear(48, 1))
        # what likeness and the mask before say by themselves: log-odds of each, and of nothing at all
        self.told = nn.Parameter(torch.tensor([4.0, -4.0, 1.0, 4.0]))
        self.untold = nn.Parameter(torch.tensor(-2.0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        with torch.no_grad():  # the first answers are what is told, and blocks begin as hardly any
            for last in (self.coarse, self.sharp, *(one for block in self.blocks for one in (block.mix, block.out))):
                last.weight.mul_(0.1)  # type: ignore[union-attr, operator]

    def forward(
        self, image: Tensor, planes: Tensor, stride4: Tensor, stride8: Tensor, stride16: Tensor
    ) -> list[Tensor]:
        """Look at K views of S pixels, S a multiple of 16.

        Args:
            image: RGB, uint8, (K, 3, S, S).
            planes: What is said, float32, (K, PLANES, S, S), see ``View.planes``.
            stride4: The trunk's features of the view, float32, (K, 24, S / 4, S / 4).
            stride8: Likewise, (K, 40, S / 8, S / 8).
            stride16: Likewise, (K, 112, S / 16, S / 16).

        Returns:
            Log-odds of the object, float32 (K, S, S), and the IoU that their mask is thought to have, (K,), 0..1.
        """
        pixels = image.to(planes.dtype) / 127.5 - 1
        half = functional.relu(self.first(torch.cat([pixels, planes], dim=1)))
        quarter = functional.relu(self.second(half))
        fine = functional.relu(self.fine(torch.cat([quarter, functional.relu(self.code4(stride4))], dim=1)))
        similar = self._similar(planes, stride8, stride16)
        middle = [functional.relu(self.down8(fine)), functional.relu(self.code8(stride8)), similar]
        wide = functional.relu(self.middle(torch.cat(middle, dim=1)))
        deep = [functional.relu(self.down16(wide)), functional.relu(self.code16(stride16))]
        far = functional.relu(self.deep(torch.cat(deep, dim=1)))
        for block in self.blocks:
            far = block(far)
        wide = functional.relu(self.merge8(functional.relu(wide + _double(self.up8(far)))))
        fine = functional.relu(self.merge4(functional.relu(fine + _double(self.up4(wide)))))
        half = functional.relu(self.merge2(functional.relu(half + _double(self.up2(fine)))))
        rough = self.coarse(half) + self._told(planes, similar)
        edge = functional.relu(self.edge(torch.cat([_double(self.up1(half)), pixels], dim=1)))
        log_odds = (_double(rough) + self.sharp(edge))[:, 0].clamp(-LOG_ODDS, LOG_ODDS)
        return [log_odds, self._judged(far, half, rough).sigmoid()]

    @torch.no_grad()
    def standardise(self, stride8: Tensor, stride16: Tensor) -> None:
        """Begin to compare cells by the principal components of features (N, C, ., .), see ``Matcher``."""
        matcher = Matcher()
        matcher.standardise(stride8, stride16)
        self.describe8.load_state_dict(matcher.fine.state_dict())
        self.describe16.load_state_dict(matcher.coarse.state_dict())

    def _told(self, planes: Tensor, similar: Tensor) -> Tensor:
        """Log-odds, (K, 1, S / 2, S / 2), of how much a cell looks like what was said, and of the mask before."""
        coarse = (similar * self.told[:_SIMILAR, None, None]).sum(dim=1, keepdim=True)
        before = functional.avg_pool2d(planes[:, BEFORE : BEFORE + 1], 2)
        said: Tensor = functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
        return said + self.told[_SIMILAR] * before + self.untold

    def _similar(self, planes: Tensor, stride8: Tensor, stride16: Tensor) -> Tensor:
        """Cosine of each cell of stride 8 with what the points and the mask before cover, (K, _SIMILAR, n, n)."""
        code = self.describe8(stride8) + _double(self.describe16(stride16))
        code = code / code.square().sum(dim=1, keepdim=True).clamp(min=1e-6).sqrt()
        said = functional.avg_pool2d(planes, 8)
        weights = torch.stack([said[:, POSITIVE], said[:, NEGATIVE], said[:, BEFORE]], dim=1).flatten(2)
        flat = code.flatten(2)  # (K, CODES, n n)
        means = weights @ flat.transpose(1, 2) / weights.sum(dim=2, keepdim=True).clamp(min=1e-3)
        cosines: Tensor = (means @ flat).reshape(-1, _SIMILAR, *code.shape[-2:])
        return cosines

    def _judged(self, far: Tensor, half: Tensor, rough: Tensor) -> Tensor:
        """Log-odds of the IoU, (K,), from what is seen as a whole, under the mask, and how sure its pixels are."""
        share = rough.sigmoid().detach()
        area = share.sum(dim=(2, 3))
        under = (half * share).sum(dim=(2, 3)) / area.clamp(min=1.0)
        doubt = (share * (1 - share)).sum(dim=(2, 3)) / area.clamp(min=1.0)
        seen = torch.cat([far.mean(dim=(2, 3)), under, doubt, share.mean(dim=(2, 3))], dim=1)
        said: Tensor = self.judge(seen)[:, 0]
        return said


class _Block(nn.Module):
    """Attention between all cells, then a convolution that knows their neighbours; both are added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_DEEP)
        self.query_key_value = nn.Linear(_DEEP, 3 * _DEEP)
        self.out = nn.Linear(_DEEP, _DEEP)
        self.near = _conv(_DEEP, _DEEP, dilation=2)
        self.mix = _conv(_DEEP, _DEEP)

    def forward(self, cells: Tensor) -> Tensor:
        """float32 (K, _DEEP, n, n), likewise."""
        flat = self.norm(cells.flatten(2).transpose(1, 2))  # (K, n n, _DEEP)
        parts = self.query_key_value(flat).unflatten(2, (3, _HEADS, _DEEP // _HEADS))
        query, key, value = (parts[:, :, k].transpose(1, 2) for k in range(3))  # (K, heads, n n, .)
        weights = (query @ key.transpose(2, 3) * (_DEEP // _HEADS) ** -0.5).softmax(dim=-1)
        found = self.out((weights @ value).transpose(1, 2).flatten(2))
        cells = cells + found.transpose(1, 2).reshape(cells.shape)
        added: Tensor = cells + self.mix(functional.relu(self.near(cells)))
        return added


class TorchLook:
    """Looks by torch: while it is trained, and for comparison. A ``Look``.

    Args:
        net: The network.
        trunk: In torch, on the same device.
    """

    def __init__(self, net: PromptNet, trunk: TrainedTrunk) -> None:
        self._net, self._trunk = net, trunk.net

    @torch.no_grad()
    def __call__(self, view: UInt8Array, planes: Floats) -> Floats:
        """See ``Look``."""
        device = next(self._net.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))[None].to(device)
        log_odds, _ = self._net(image, torch.from_numpy(planes)[None].to(device), *self._trunk(image))
        return np.asarray(log_odds[0].cpu().numpy())


def _double(planes: Tensor) -> Tensor:
    return functional.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)


def _conv(entering: int, leaving: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, stride, padding=dilation, dilation=dilation)
