# SPDX-License-Identifier: Apache-2.0
"""Random inputs of the graphs, by which they are traced and compared with torch."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrnn_ros.model.engine import PLACE_INPUTS, PLACE_OUTPUTS
from maskrnn_ros.model.shapes import CHANNELS, CODES, COLUMNS, CROP, FINE, HIDDEN, KEYS, STRIDES, TARGET
from maskrnn_ros.model.torch.frame_step import FrameStep

SAMPLES = 4
"""Random inputs, of several sizes, on which a graph is compared with torch."""


def sizes() -> list[tuple[int, int]]:
    """Of working images, in cells of stride 16."""
    return [(5 + 2 * k, 9 + 3 * k) for k in range(SAMPLES)]


@torch.no_grad()
def look_inputs(step: FrameStep, sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the first part of a step says of its inputs, and crops there."""
    found = dict(zip(PLACE_OUTPUTS, step.place(*(sample[name] for name in PLACE_INPUTS)), strict=True))
    count = len(found["crops"])
    image = torch.randint(0, 256, (count, FINE, FINE, 3), dtype=torch.uint8)
    return {**found, "image": image, "columns": torch.rand(count, CROP, CROP, COLUMNS)}


def random_maps(h: int, w: int) -> tuple[Tensor, ...]:
    """Features of an image that ends within cells of strides 16 and 8."""
    sizes = [(16 // stride * h - (stride == 4), 16 // stride * w - (stride == 4)) for stride in STRIDES]
    return tuple(torch.randn(1, channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True))


def step_inputs(count: int, h: int, w: int) -> dict[str, Tensor]:
    """Inputs of both parts of a step: objects with masks in their crops, the first of them lost and looked for."""
    maps = random_maps(h, w)
    rows, columns = maps[0].shape[2:]
    corner = torch.rand(count, 2) * 16 * torch.tensor([w / 2, h / 2])
    probability = torch.rand(count, 1, FINE, FINE)
    probability[0] = 0
    sought = torch.full((count, 4), torch.nan)
    sought[0] = torch.tensor([8.0, 4.0, 60.0, 44.0])
    made = {
        "image": torch.randint(0, 256, (1, 3, 4 * rows, 4 * columns), dtype=torch.uint8),
        "columns": torch.rand(1, COLUMNS, rows, columns),
        "stride8": maps[1],
        "stride16": maps[2],
        "flow": torch.randn(1, 2, rows, columns) * 3,
        "ignored": (torch.rand(1, rows, columns) > 0.9).float(),
        "beside": torch.rand(1, rows, columns) * 0.3,
        "switches": torch.ones(4),
        "sought": sought,
        "probability": probability,
        "boxes": torch.cat([corner, corner + 40 + 30 * torch.rand(count, 1)], dim=1),
        "hidden": torch.rand(count, HIDDEN, CROP // 2, CROP // 2) * 2 - 1,
        "coefficients": torch.randn(count, COLUMNS + 1, TARGET) * 0.1,
    }
    for kind in ("seed", "newest"):
        made[f"{kind}_code"] = torch.randn(count, CODES, KEYS) * CODES**-0.5
        made[f"{kind}_values"] = torch.rand(count, 2, KEYS)
    return made


def learn_inputs(count: int) -> tuple[Tensor, ...]:
    masks = (torch.rand(count, 1, CROP, CROP) for _ in range(3))
    return (torch.rand(count, CROP, CROP, COLUMNS), torch.randn(count, CODES, CROP // 2, CROP // 2), *masks)


def begin_inputs(count: int, h: int, w: int) -> tuple[Tensor, ...]:
    maps = random_maps(h, w)
    rows, columns = maps[0].shape[2:]
    corner = torch.rand(count, 2) * 32
    boxes = torch.cat([corner, corner + 20 + 30 * torch.rand(count, 2)], dim=1)
    masks = (torch.rand(count, rows, columns) for _ in range(3))
    return (torch.rand(1, COLUMNS, rows, columns), maps[1], maps[2], boxes, *masks)
