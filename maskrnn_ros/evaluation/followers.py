# SPDX-License-Identifier: Apache-2.0
"""Who carries masks through a clip: the tracker, and two baselines that need no training."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.config import Config
from maskrnn_ros.factory import is_factory, made_by
from maskrnn_ros.flow import build_flow, warp
from maskrnn_ros.quality import resolved, working_size
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.full_size import enlarge
from maskrnn_ros.tracking.merge import merge
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.patches import Patches
from maskrnn_ros.types import Box, Frame, LabelArray, Seed, UInt8Array


class Follower(Protocol):
    """Follows the objects of one clip; ``tuning_s``, where it has that, is what of its last step was fine-tuning."""

    def seed(self, seed: Seed, frame: Frame) -> LabelArray:
        """Step to the frame, if it is not the first, and add the seed's objects; int32 labels (H, W) of that frame."""
        ...

    def step(self, frame: Frame) -> LabelArray:
        """Labels of the next frame, int32 (H, W)."""
        ...


def build_follower(name: str, config: Config, profile: str = "fast") -> Follower:
    """The follower of a preset; with the profile "paper" that of its networks.

    Args:
        name: "tracker", "static" or "graph", or "package.module:factory", which takes the config.
        config: Settings.
        profile: "fast" or "paper".

    Raises:
        ValueError: A factory makes none.
    """
    config = resolved(config)
    if profile == "paper":
        from maskrnn_ros.paper.follower import PaperFollower

        return PaperFollower(config)
    if is_factory(name):
        return _own(name, config)
    if name == "tracker":
        return TrackerFollower(config)
    return GraphFollower(config) if name == "graph" else StaticFollower()


def _own(name: str, config: Config) -> Follower:
    try:
        found: Follower = made_by(name, config)
    except ValueError as error:
        raise ValueError(f"preset {name}: {error}") from error
    if not (hasattr(found, "seed") and hasattr(found, "step")):
        raise ValueError(f"preset {name}: expected a Follower with seed and step, got {type(found).__name__}")
    return found


class TrackerFollower:
    """The tracker that the config describes."""

    def __init__(self, config: Config) -> None:
        self._tracker: Tracker = build_tracker(config)

    def seed(self, seed: Seed, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        return self._tracker.seed(seed, frame).labels

    def step(self, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        return self._tracker.step(frame).labels


class StaticFollower:
    """The seed mask stays where it is: what a clip gives away for nothing."""

    def __init__(self) -> None:
        self._labels: LabelArray = np.zeros((0, 0), np.int32)

    def seed(self, seed: Seed, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        self._labels = _added(self._labels, seed) if self._labels.size else seed.labels
        return self._labels

    def step(self, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        return self._labels


class GraphFollower:
    """Graph cut per frame and object, started from the warped mask (Rother et al., GrabCut, SIGGRAPH 2004).

    The family of the graph-based methods that MaskRNN is compared with. The mask of the frame before is warped by
    DIS flow; deep inside it is object, far from it background, and GrabCut decides the band in between by colours
    learnt from this frame. Sizes are ours: a band of 2 % of the working image's longer side to both sides.
    """

    _BAND = 0.02
    _ITERATIONS = 2

    def __init__(self, config: Config) -> None:
        self._config = config
        self._flow = build_flow(config.flow)
        self._image: UInt8Array = np.zeros((0, 0, 3), np.uint8)
        self._masks: dict[int, npt.NDArray[np.float32]] = {}

    def seed(self, seed: Seed, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        before = self.step(frame) if self._masks else np.zeros_like(seed.labels)
        self._image = self._working(frame)
        height, width = self._image.shape[:2]
        for i in seed.ids:
            share = (seed.labels == i).astype(np.float32)
            small = cv2.resize(share, (width, height), interpolation=cv2.INTER_AREA)
            self._masks[i] = np.asarray(small, np.float32)
        return _added(before, seed)

    def step(self, frame: Frame) -> LabelArray:
        """See ``Follower``."""
        image = self._working(frame)
        flow = self._flow(image, self._image)
        for i, mask in self._masks.items():
            self._masks[i] = self._cut(image, warp(mask, flow))
        self._image = image
        ids = sorted(self._masks)
        patches = Patches.of([Patch.of(self._masks[i]) for i in ids])
        return merge(enlarge(ids, patches, frame.size), frame.size)

    def _working(self, frame: Frame) -> UInt8Array:
        height, width = working_size(frame.size, self._config.working_size)
        return np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _cut(
        self, image: UInt8Array, prior: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """GrabCut around the prior (h, w); an object of which less than 8 pixels are left is gone."""
        inside = (prior >= 0.5).astype(np.uint8)
        box = Box.of_mask(inside)
        if box is None or np.count_nonzero(inside) < 8:
            return np.zeros_like(prior)
        band = max(2, round(self._BAND * max(image.shape[:2])))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
        rows = slice(max(0, box.y0 - 4 * band), box.y1 + 4 * band)
        columns = slice(max(0, box.x0 - 4 * band), box.x1 + 4 * band)
        inside = np.ascontiguousarray(inside[rows, columns])
        trimap = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        trimap[cv2.dilate(inside, kernel) == 0] = cv2.GC_BGD
        trimap[cv2.erode(inside, kernel, borderValue=0) == 1] = cv2.GC_FGD
        if not (trimap == cv2.GC_BGD).any():
            return prior
        cv2.setRNGSeed(0)  # its colour models start at random
        crop = np.ascontiguousarray(image[rows, columns])
        cv2.grabCut(crop, trimap, None, np.zeros((1, 65)), np.zeros((1, 65)), self._ITERATIONS, cv2.GC_INIT_WITH_MASK)
        found = np.zeros_like(prior)
        found[rows, columns] = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        return found


def _added(labels: LabelArray, seed: Seed) -> LabelArray:
    """Labels of a frame with the masks of a seed over them."""
    return np.where(seed.labels != 0, seed.labels, labels).astype(np.int32)
