# SPDX-License-Identifier: Apache-2.0
"""A tracker with its engine and its flow, as the config describes them."""

from __future__ import annotations

import logging

import cv2
import numpy as np

from maskrnn_ros.config import Config, to_flat
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.load import load_engine
from maskrnn_ros.quality import resolved
from maskrnn_ros.runtime import cores
from maskrnn_ros.tracking.tracker import Tracker
from maskrnn_ros.types import Frame, Seed

_LOG = logging.getLogger(__name__)

_OF_THE_PAPER = ("adaptation.steps", "adaptation.rate", "adaptation.decay")
"""Settings that the tracker does not know, though they are there."""


def build_tracker(config: Config) -> Tracker:
    """The tracker that the config describes; node, replay and command line get theirs here.

    Raises:
        RuntimeError: The device asked for by name is not there, the weights cannot be read, or the config asks for what
            the paper's networks alone do.
    """
    config = resolved(config)
    if config.adaptation.method == "finetune":
        raise RuntimeError(
            "adaptation.method finetune is for `maskrnn evaluate --profile paper` alone: the tracker takes recursive "
            "(in closed form, at once) or none"
        )
    if idle := [name for name in _OF_THE_PAPER if to_flat(config)[name] != to_flat(Config())[name]]:
        _LOG.warning("%s: no effect, the paper's fine-tuning alone knows them", ", ".join(idle))
    _start_opencv_threads()
    engine = load_engine(config) if config.network.enabled else None
    flow = build_flow(config.flow, "cpu" if engine is None else engine.device)
    return Tracker(config, flow, engine, threads=config.threads or len(cores()))


def _start_opencv_threads() -> None:
    """In a thread that gives way, or stays on a core, they would inherit that: they are born here."""
    cv2.resize(np.zeros((1024, 1024, 3), np.uint8), (600, 600), interpolation=cv2.INTER_AREA)


def warm_up(tracker: Tracker) -> None:
    """Run small frames through, so that the first images do not pay for what is set up lazily.

    With two objects, which two threads look at, and with the one that is left when the other has gone.
    """
    frames = [Frame(stamp_ns=stamp, image=np.zeros((64, 64, 3), np.uint8)) for stamp in (1, 2, 3, 4)]
    labels = np.zeros((64, 64), np.int32)
    labels[8:56, 8:32], labels[8:56, 32:56] = 1, 2
    tracker.seed(Seed(stamp_ns=1, labels=labels), frames[0])
    tracker.step(frames[1])
    tracker.remove([2])
    for frame in frames[2:]:
        tracker.step(frame)
