# SPDX-License-Identifier: Apache-2.0
"""The ``paper`` profile on a clip: a net of its own for each object, fine-tuned on the first frame.

The presets are settings of it: ``prior.source``, ``network.flow_stream``, ``network.localization``, ``gate.enabled``
and ``gate.enlarge``. The tracker of the node does not know these networks: 150 million weights per object and seconds
per frame are nothing for a robot.
"""

from __future__ import annotations

import copy
import dataclasses
import time

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from maskrnn_ros.config import Config
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.torch.crops import warp
from maskrnn_ros.model.torch.engine import choose_device
from maskrnn_ros.paper.network import PaperNet, PaperParts
from maskrnn_ros.paper.options import BOX_WEIGHT, NEW
from maskrnn_ros.paper.settings import check_paper
from maskrnn_ros.paper.training import load_paper, look, loss_of
from maskrnn_ros.paper.windows import magnitudes_of
from maskrnn_ros.quality import resolved, working_size
from maskrnn_ros.sections import AdaptationConfig
from maskrnn_ros.tracking.full_size import enlarge
from maskrnn_ros.tracking.merge import merge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.tracking.views import Change, augment
from maskrnn_ros.training.perturbation import perturb_mask
from maskrnn_ros.types import Frame, LabelArray, Seed, UInt8Array

_CHANGE = Change(cover=0.0, lighting=1.0)
"""The paper resizes, rotates, crops and mirrors."""


def parts_of(config: Config) -> PaperParts:
    """The parts that a preset leaves on; a mask that is not warped is MaskTrack's, which averages its streams."""
    return PaperParts(
        flow_stream=config.network.flow_stream,
        localization=config.network.localization and config.gate.enabled,
        average=config.prior.source == "unwarped",
    )


def tune(
    net: PaperNet,
    image: UInt8Array,
    share: np.ndarray,
    magnitudes: np.ndarray,
    config: Config,
    device: torch.device,
) -> None:
    """Fine-tune a net on one frame and its augmentations (resize, rotate, crop, flip), without the recurrence.

    Adam at ``adaptation.rate`` for VGG-16 and the fully connected layers, ``NEW`` times that for the others, both
    falling linearly by ``adaptation.decay``. One augmented view in a step; its previous mask is its own, perturbed.

    Args:
        net: Changed.
        image: RGB, uint8, (h, w, 3).
        share: Of the object, float32, (h, w), 0..1.
        magnitudes: Of the flow, float32, (h, w, 2); an augmentation moves them with the picture.
        config: Settings.
        device: Where the net is.
    """
    own: AdaptationConfig = config.adaptation
    random, parts = np.random.default_rng(own.seed), parts_of(config)
    parameters = net.requires_grad_(True).train().groups(own.rate, NEW)
    optimizer = torch.optim.Adam(parameters, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    planes = np.concatenate([share[..., None], magnitudes], axis=2).astype(np.float32)
    for step in tqdm(range(own.steps), desc="fine-tuning", leave=False):
        picture, moved = augment(image, planes, random, _CHANGE)
        truth = moved[..., 0]
        prior = perturb_mask(truth >= 0.5, random) if config.prior.source != "none" else np.zeros(truth.shape)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - own.decay * step / own.steps)
        mask = torch.from_numpy(prior.astype(np.float32)).to(device)
        speeds = _tensor(moved[..., 1:]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found = look(net, _tensor(picture).to(device), mask, speeds, parts)
        losses = loss_of(found, torch.from_numpy(np.ascontiguousarray(truth)).to(device))
        optimizer.zero_grad(set_to_none=True)
        (losses["mask"] + BOX_WEIGHT * losses["box"]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
    net.zero_grad(set_to_none=True)  # as much memory as the net itself
    net.requires_grad_(False).eval()


@dataclasses.dataclass(eq=False)
class _Object:
    """An object: its net, from the first step on, and its mask, float32 (h, w)."""

    mask: Tensor
    net: PaperNet | None = None


class PaperFollower:
    """Follows each object with a net of its own.

    The nets are fine-tuned when the second frame is there, since the motion of the first one is known then only. On
    later frames the flow to the next image is not known: see ``magnitudes_of``.

    Raises:
        ValueError: See ``check_paper``.
        RuntimeError: The weights do not fit.
    """

    def __init__(self, config: Config) -> None:
        check_paper(config)
        config = resolved(config)  # what is left to the level is open until then
        self._config, self._parts = config, parts_of(config)
        self._device = choose_device(config.device)
        self._base = load_paper(config.network.weights, self._device).requires_grad_(False).eval()
        if self._device.type == "cuda":
            self._base = self._base.to(memory_format=torch.channels_last)
        self._flow = build_flow(config.flow, str(self._device))
        self._image: UInt8Array = np.zeros((0, 0, 3), np.uint8)
        self._objects: dict[int, _Object] = {}
        self.tuning_s = 0.0
        """Time that the last step took for fine-tuning, seconds."""

    def seed(self, seed: Seed, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        before = self.step(frame) if self._objects else np.zeros_like(seed.labels)
        self._image = self._working(frame)
        height, width = self._image.shape[:2]
        for i in seed.ids:
            share = cv2.resize((seed.labels == i).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            self._objects[i] = _Object(torch.from_numpy(share).to(self._device))
        return np.where(seed.labels != 0, seed.labels, before).astype(np.int32)

    def step(self, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        image = self._working(frame)
        begin = time.perf_counter()
        self._tune(image)
        self.tuning_s = time.perf_counter() - begin
        back = torch.from_numpy(self._flow(image, self._image)).to(self._device)
        now = _tensor(image).to(self._device)
        for one in self._objects.values():
            one.mask = self._carried(one, now, back)
        self._image = image
        ids = sorted(self._objects)
        patches = Patches.of([Patch.of(self._objects[i].mask.cpu().numpy()) for i in ids])
        return merge(enlarge(ids, patches, frame.size), frame.size)

    @torch.no_grad()
    def _carried(self, one: _Object, image: Tensor, back: Tensor) -> Tensor:
        source = self._config.prior.source
        prior = warp(one.mask[None], back)[0] if source == "warped" else one.mask
        if source == "none":
            prior = torch.zeros_like(prior)
        assert one.net is not None
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            found = look(one.net, image, prior, magnitudes_of(back), self._parts, self._config.gate.enlarge)
        return found.probability

    def _tune(self, now: UInt8Array) -> None:
        """Give a net to every object that has none yet, with the motion to the second image."""
        new = [one for one in self._objects.values() if one.net is None]
        if not new:
            return
        magnitudes = magnitudes_of(torch.from_numpy(self._flow(self._image, now))).permute(1, 2, 0).numpy()
        for one in new:
            if self._config.adaptation.method == "none":
                one.net = self._base
                continue
            one.net = copy.deepcopy(self._base)
            tune(one.net, self._image, one.mask.cpu().numpy(), magnitudes, self._config, self._device)

    def _working(self, frame: Frame) -> UInt8Array:
        height, width = working_size(frame.size, self._config.working_size)
        return np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
