# SPDX-License-Identifier: Apache-2.0
"""Both stages of the training of the ``paper`` profile, on pictures.

Stage 1 looks at single frames, whose previous mask is the truth, perturbed. Stage 2 goes through 7 frames, from one to
the next by the network's own mask, warped, and back-propagates through all of them. The loss is the class-balanced
cross entropy, and smooth-L1 for the box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskrnn_ros.disk import regular_file
from maskrnn_ros.model.torch.crops import apply_deltas, deltas_of, scale_boxes, warp
from maskrnn_ros.model.torch.engine import choose_device
from maskrnn_ros.model.torch.weights import load_into
from maskrnn_ros.paper.network import PaperNet, PaperOutput, PaperParts, start_from_vgg16
from maskrnn_ros.paper.options import PaperOptions
from maskrnn_ros.paper.vgg import load_vgg16
from maskrnn_ros.paper.windows import PaperWindow, Windows
from maskrnn_ros.training import losses
from maskrnn_ros.training.boxes import boxes_of
from maskrnn_ros.training.runs import train_steps

WEIGHTS = "network.safetensors"

ENLARGE = 1.25
"""Of the box gate."""


@dataclasses.dataclass(frozen=True, eq=False)
class PaperLook:
    """One frame of an unrolled window.

    Args:
        output: Of the network.
        boxes: Of the prior, float32, (1, 4), pixels.
        probability: What is carried on, inside the gate, float32, (H, W).
    """

    output: PaperOutput
    boxes: Tensor
    probability: Tensor


def load_paper(path: str, device: torch.device) -> PaperNet:
    """The trained network.

    Raises:
        RuntimeError: The file is missing, or holds other names or shapes than the network.
    """
    net = PaperNet()
    load_into(net, path)
    return net.to(device)


def begin_paper(path: str, device: torch.device) -> PaperNet:
    """The network to train: from its own file, or as VGG-16's weights let it begin.

    Raises:
        RuntimeError: The file is missing, or is neither.
    """
    if path != "torchvision" and "features.0.weight" not in _names(path):
        return load_paper(path, device)
    net = PaperNet()
    start_from_vgg16(net, load_vgg16(path))
    return net.to(device)


def _names(path: str) -> list[str]:
    try:
        with safe_open(regular_file(path), "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise RuntimeError(f"weights {path} cannot be read: {' '.join(str(error).split())}") from error


def gated(probability: Tensor, boxes: Tensor, enlarge: float = ENLARGE) -> Tensor:
    """The probability (H, W) inside the enlarged box (1, 4), 0 outside; the box itself gets no gradient from it."""
    x0, y0, x1, y1 = scale_boxes(boxes.detach(), enlarge)[0]
    x = torch.arange(probability.shape[1], device=boxes.device) + 0.5
    y = (torch.arange(probability.shape[0], device=boxes.device) + 0.5)[:, None]
    inside: Tensor = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    return probability * inside


def look(
    net: PaperNet, image: Tensor, prior: Tensor, magnitudes: Tensor, parts: PaperParts, enlarge: float = ENLARGE
) -> PaperLook:
    """Look at one object in one frame.

    Args:
        net: The network.
        image: RGB, uint8, (3, H, W).
        prior: Float32, (H, W). Where nothing of it reaches 0.5, the box is the whole image.
        magnitudes: Float32, (2, H, W).
        parts: Which parts are on; without localization there is no gate.
        enlarge: Of the gate.
    """
    whole = torch.tensor([[0.0, 0.0, prior.shape[1], prior.shape[0]]], device=prior.device)
    boxes = boxes_of(prior.detach()[None], whole)
    output = net(image[None], prior[None], magnitudes[None], boxes, parts)
    probability = output.log_odds[0].sigmoid()
    if output.deltas is not None:
        probability = gated(probability, apply_deltas(boxes, output.deltas), enlarge)
    return PaperLook(output, boxes, probability)


def unroll_paper(net: PaperNet, window: PaperWindow, *, detach: bool = False) -> Iterator[PaperLook]:
    """Carry the first mask through the window: each frame's own, gated mask, warped, is the next one's prior.

    Args:
        net: The network.
        window: One object, T frames.
        detach: The prior is data, not a result: no gradient goes back in time.
    """
    last = window.mask
    for image, back, magnitudes in zip(window.images, window.back, window.magnitudes, strict=True):
        prior = warp((last.detach() if detach else last)[None], back)[0]
        found = look(net, image, prior, magnitudes, PaperParts())
        last = found.probability
        yield found


def loss_of(found: PaperLook, truth: Tensor) -> dict[str, Tensor]:
    """Losses of mask and box against the truth (H, W), 0..1; no loss of the box where there is none."""
    mask = losses.balanced_cross_entropy(found.output.log_odds, truth[None]).mean()
    if found.output.deltas is None:
        return {"mask": mask, "box": torch.zeros_like(mask)}
    true = boxes_of(truth[None], found.boxes)
    present = (truth.max() >= 0.5).float()[None]
    return {"mask": mask, "box": losses.box(found.output.deltas, deltas_of(true, found.boxes), present).mean()}


def train_paper(options: PaperOptions) -> Path:
    """Train and write, in one process; returns the file of the weights.

    Raises:
        ValueError: The data or the checkpoint do not fit.
        RuntimeError: The weights to begin with do not fit.
    """
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    windows = Windows(options.root, options.stills, options.held_out, options.size, options.length, options.seed)
    net = begin_paper(options.init, device).train()
    if options.channels_last:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.groups(options.rate, options.new), fused=True)
    return train_steps(
        options, net, optimizer, lambda step: _step(net, optimizer, windows, options, step, device), WEIGHTS
    )


def _step(
    net: PaperNet,
    optimizer: torch.optim.Optimizer,
    windows: Windows,
    options: PaperOptions,
    step: int,
    device: torch.device,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    sums = {"loss": 0.0, "mask": 0.0, "box": 0.0}
    for number in range(options.batch):
        window = windows.draw(step * options.batch + number).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.autocast):
            looks = list(unroll_paper(net, window, detach=options.detach))
        found = [loss_of(one, truth) for one, truth in zip(looks, window.truth, strict=True)]
        mask, box = (torch.stack([parts[key] for parts in found]).mean() for key in ("mask", "box"))
        loss = (mask + options.box_weight * box) / options.batch
        loss.backward()  # type: ignore[no-untyped-call]
        for key, value in {"loss": loss, "mask": mask / options.batch, "box": box / options.batch}.items():
            sums[key] += float(value.detach())
    sums["norm"] = float(torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0))
    optimizer.step()
    return sums
