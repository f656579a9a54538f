# SPDX-License-Identifier: Apache-2.0
"""The main job once through: the real node as a process, a clip over real topics, masks and a score at the end."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from maskrnn_ros import parameter_file
from maskrnn_ros.bags.convert import from_davis, stamp_of
from maskrnn_ros.bags.topics import IMAGE_TOPIC, SEED_TOPIC
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.datasets.clips import FileClip, objects_of
from maskrnn_ros.datasets.davis import CLIP_NAME, CLIP_ROOT
from maskrnn_ros.datasets.readers import davis_clip
from maskrnn_ros.datasets.video import VideoWriter
from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.labels import write_labels
from maskrnn_ros.masks import label_image
from maskrnn_ros.metrics.davis import Evaluator
from maskrnn_ros.msg import InstanceMaskArray, TrackerStatus
from maskrnn_ros.overlay import contact_sheet, overlay_labels
from maskrnn_ros.parameter_file import load
from maskrnn_ros.replay.player import play
from maskrnn_ros.ros.interfaces import propagated
from maskrnn_ros.ros.node_process import Listener, child_process, node_command
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.types import LabelArray

_NAMESPACE = "/maskrnn_demo"  # a robot's own tracker may run beside it
_TRACKER = f"{_NAMESPACE}/tracker"
_FPS = 24.0
_ANSWER_TIMEOUT_S = 600.0
"""Far longer than a slow and busy machine takes to load the networks."""
_LAST_TIMEOUT_S = 10.0
_STATUS_PERIOD_S = 0.1
_SHEET_PICTURES = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo measured.

    Args:
        lockstep: Every image waited for its masks; else they came at the rate of the clip, as from a camera.
        frames: Images played.
        dropped: Those that gave no masks, since a newer one came first; each is scored by the masks before it.
        propagated: Those that have the masks of an earlier one, carried there by flow.
        scores: By instance id: J mean and F mean, fractions.
        j_mean: Mean J over the instances.
        f_mean: Mean F over the instances.
        start_s: From the start of the node's process until it was active, seconds.
        step_ms_p50: Time of one image in the worker, milliseconds.
        age_ms_p50: From the arrival of an image to its masks, milliseconds.
        age_ms_p95: Likewise, 95th percentile.
        frames_per_second: Images played per second.
        rss_mb: Memory of the node's process at the end, MB (10^6 bytes).
        files: What was written.
    """

    lockstep: bool
    frames: int
    dropped: int
    propagated: int
    scores: dict[int, dict[str, float]]
    j_mean: float
    f_mean: float
    start_s: float
    step_ms_p50: float
    age_ms_p50: float
    age_ms_p95: float
    frames_per_second: float
    rss_mb: float
    files: tuple[str, ...]


def run_demo(
    out: Path,
    *,
    root: Path = CLIP_ROOT,
    sequence: str = CLIP_NAME,
    config: Path | None = None,
    lockstep: bool = False,
) -> DemoReport:
    """Play a DAVIS sequence (default: the shipped clip) through the real node; write what it found.

    Images come at 24 per second, as from a camera. In lockstep every image waits for its masks, so the score does not
    depend on the speed of the machine.

    Args:
        out: Folder for ``masks/*.png``, ``overlay.mp4`` and ``contact_sheet.png``.
        root: Data set in the DAVIS layout.
        sequence: Its sequence.
        config: ROS parameter file for the node.
        lockstep: Whether images wait.

    Raises:
        ValueError: The clip cannot be read.
        RuntimeError: The node does not start.
        TimeoutError: The node does not answer.
    """
    clip = davis_clip(root, sequence)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        bag = Path(scratch) / "bag"
        from_davis(root, sequence, bag, fps=_FPS)
        collector = _Collector()
        command = _node_command(Path(scratch), load(config) if config else Config())
        with child_process(command) as process, Listener(process, _TRACKER, collector.subscribe) as node:
            remap = {topic: _NAMESPACE + topic for topic in (IMAGE_TOPIC, SEED_TOPIC)}
            report = play(
                bag, lockstep=lockstep, tracker=_TRACKER, remap=remap, topics=[SEED_TOPIC], timeout_s=_ANSWER_TIMEOUT_S
            )
            if not node.wait_until(lambda: collector.has_all(len(clip)), _LAST_TIMEOUT_S):
                raise TimeoutError(f"expected masks or drops of {len(clip)} images, got {collector.account}")
            rss_mb = _rss_mb(process.pid)
    predictions = collector.held([stamp_of(number, _FPS) for number in range(len(clip))], clip.image(0).shape[:2])
    scores = _score(clip, predictions)
    return DemoReport(
        lockstep=lockstep,
        frames=len(predictions),
        dropped=len(predictions) - len(collector.labels),
        propagated=collector.propagated,
        scores=scores,
        j_mean=float(np.mean([score["j_mean"] for score in scores.values()])),
        f_mean=float(np.mean([score["f_mean"] for score in scores.values()])),
        start_s=collector.active_s,
        step_ms_p50=collector.step_ms_p50,
        age_ms_p50=collector.age_ms[0],
        age_ms_p95=collector.age_ms[1],
        frames_per_second=len(predictions) / report.seconds,
        rss_mb=rss_mb,
        files=_write(out, clip, predictions),
    )


def _node_command(scratch: Path, config: Config) -> list[str]:
    """The node with these settings; a file may be for a node of another name."""
    remap = ["-r", f"image:={_NAMESPACE}{IMAGE_TOPIC}", "-r", f"~/seed_mask:={_NAMESPACE}{SEED_TOPIC}"]
    # the first status tells when the node is active
    settings = with_values(config, compressed=False, status_period=_STATUS_PERIOD_S)
    file = scratch / "node.yaml"
    parameter_file.write(file, to_flat(settings))
    return node_command(_NAMESPACE, *remap, "--params-file", str(file))


class _Collector:
    """Gathers the tracker's masks and what its status says."""

    def __init__(self) -> None:
        self.labels: dict[int, LabelArray] = {}
        self.active_s = float("nan")
        self.step_ms_p50 = float("nan")
        self.age_ms = float("nan"), float("nan")
        self.account = "none"
        self.propagated = 0
        self._status: Any = None
        self._begin = time.monotonic()

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        node.create_subscription(InstanceMaskArray, f"{_TRACKER}/instances", self._on_instances, reliable(100))
        node.create_subscription(TrackerStatus, f"{_TRACKER}/status", self._on_status, reliable(10))

    def _on_instances(self, message: Any) -> None:
        self.labels[stamp_to_ns(message.header.stamp)] = label_image(message)

    def _on_status(self, message: Any) -> None:
        if np.isnan(self.active_s):
            self.active_s = time.monotonic() - self._begin
        if not np.isnan(message.step_ms_p50):
            self.step_ms_p50 = float(message.step_ms_p50)
            self.age_ms = float(message.age_ms_p50), float(message.age_ms_p95)
        self._status, self.propagated = message, propagated(message)
        self.account = f"{message.processed} with masks, {message.dropped} dropped, {message.waiting} waiting"

    def has_all(self, count: int) -> bool:
        """Whether this many images were received and processed, and their masks have arrived."""
        status = self._status
        if status is None or status.received < count or status.waiting:
            return False
        return len(self.labels) >= int(status.processed)

    def held(self, stamps: Sequence[int], size: tuple[int, ...]) -> list[LabelArray]:
        """Masks for each of some images of (H, W): where one has none, those of the last that has."""
        found = list[LabelArray]()
        for stamp in stamps:
            found.append(self.labels.get(stamp, found[-1] if found else np.zeros(size, np.int32)))
        return found


def _score(clip: FileClip, predictions: Sequence[LabelArray]) -> dict[int, dict[str, float]]:
    evaluator = Evaluator(objects_of(clip.truth(0), "davis2017"), "davis2017")
    for number, prediction in enumerate(predictions):
        evaluator.add(prediction, clip.truth(number))
    return {
        i: {"j_mean": scores.jaccard_statistics.mean, "f_mean": scores.boundary_f_statistics.mean}
        for i, scores in evaluator.scores().items()
    }


def _write(out: Path, clip: FileClip, predictions: Sequence[LabelArray]) -> tuple[str, ...]:
    (out / "masks").mkdir(exist_ok=True)
    shown = set(np.linspace(0, len(predictions) - 1, _SHEET_PICTURES).round().astype(int).tolist())
    pictures = []
    with VideoWriter(out / "overlay.mp4", _FPS) as video:
        for number, labels in enumerate(predictions):
            write_labels(out / "masks" / f"{clip.stem(number)}.png", labels)
            picture = overlay_labels(clip.image(number), labels)
            video.write(picture)
            if number in shown:
                pictures.append((f"{number / _FPS:.1f} s", picture))
    sheet = out / "contact_sheet.png"
    PIL.Image.fromarray(contact_sheet(pictures)).save(sheet)
    return tuple(str(out / name) for name in ("masks", "overlay.mp4", sheet.name))


def _rss_mb(pid: int) -> float:
    """Resident memory of a process by Linux's /proc, MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
