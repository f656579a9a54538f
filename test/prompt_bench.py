# SPDX-License-Identifier: Apache-2.0
"""Weights of a prompt network with its graph, and pictures that it can learn in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from maskrnn_ros.model.digests import digest_of
from maskrnn_ros.model.torch.weights import TRUNK, save_weights
from maskrnn_ros.prompts import Prompt
from maskrnn_ros.prompts.learned import TRUNK_DIGEST, LearnedPrompts
from maskrnn_ros.prompts.torch.graph import export_prompts
from maskrnn_ros.prompts.torch.net import PromptNet
from maskrnn_ros.prompts.view import FINE, PLANES, POSITIVE, SIDE, Floats


def weights(folder: Path, seed: int = 0, trunk: Path = TRUNK) -> Path:
    """A file of random weights that answers are not zero with, and its graph beside it."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.safetensors"
    save_weights(PromptNet(), file, {TRUNK_DIGEST: digest_of(trunk)})
    export_prompts(file)
    return file


class Reddish:
    """A look that takes what is red in a view for the object where a point is on something red; it remembers."""

    def __init__(self, log_odds: float = 5.0) -> None:
        self.seen: list[tuple[np.ndarray, Floats]] = []
        self.log_odds = np.float32(log_odds)

    def __call__(self, view: np.ndarray, planes: Floats) -> Floats:
        pixels = len(view)
        assert pixels in (SIDE, FINE) and view.shape == (pixels, pixels, 3) and view.dtype == np.uint8
        assert planes.shape == (PLANES, pixels, pixels) and planes.dtype == np.float32
        self.seen.append((view, planes.copy()))
        red = view[..., 0].astype(int) - view[..., 1] > 60
        return np.where(red, self.log_odds, -self.log_odds)


def clicked_at(planes: Floats, plane: int = POSITIVE) -> tuple[float, float]:
    """Middle of the disks of a plane, (x, y) in pixels of the view."""
    rows, columns = np.nonzero(planes[plane])
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def reddish() -> LearnedPrompts:
    """A backend that a setting can name: it finds what is red."""
    return LearnedPrompts(Reddish())


def nothing() -> Callable[[np.ndarray, Prompt], np.ndarray]:
    """A backend that finds nothing."""
    return lambda image, prompt: np.zeros(image.shape[:2], bool)
