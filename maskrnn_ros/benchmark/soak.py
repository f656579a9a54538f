# SPDX-License-Identifier: Apache-2.0
"""Does a node stay as it is for an hour? The real node, a camera, and what the kernel says of the node's process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray

from maskrnn_ros import parameter_file
from maskrnn_ros.benchmark.scene import FRAMES, Scene
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.image_messages import stamp_to_ns
from maskrnn_ros.masks import label_image
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.ros.node_process import Listener, child_process, node_command, use_large_segments
from maskrnn_ros.ros.qos import reliable

SAMPLE_S = 5.0
CHANGE_S = 10.0
"""Between two requests: an instance is added, one is corrected, the added one is removed."""

_DEPTH = 100
_VERDICT_TIMEOUT_S = 30.0
_LEVELS = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR", b"\x03": "STALE"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        objects: How many are followed throughout; another one comes and goes.
        rate: Images a second.
        seconds: How long.
        sample_s: Time between two samples, seconds.
        change_s: Time between two requests, seconds; 0: none are made.
    """

    width: int
    height: int
    objects: int
    rate: float
    seconds: float
    sample_s: float = SAMPLE_S
    change_s: float = CHANGE_S


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """The node at a moment, and its masks since the sample before.

    Args:
        t_s: Since the first image, seconds.
        rss_mb: Resident memory of its process, MB (10^6 bytes).
        threads: Of its process.
        descriptors: That its process holds open.
        cpu_s: Time that its process has computed since its start, seconds.
        sent: Images that were published.
        masks: InstanceMaskArrays that came.
        age_ms: Age of the masks when they were received, p50 and p95; None: none came.
        step_ms_p50: What the node says of its steps; None: nothing yet.
        instances: How many there were in the newest message.
        iou: Of their masks with the exact ones, mean; None: no message whose image is known.
    """

    t_s: float
    rss_mb: float
    threads: int
    descriptors: int
    cpu_s: float
    sent: int
    masks: int
    age_ms: tuple[float, float] | None
    step_ms_p50: float | None
    instances: int
    iou: float | None


@dataclasses.dataclass(kw_only=True)
class Soak:
    """A run; it grows while the run lasts.

    Args:
        plan: What was to be done.
        samples: In order of time.
        ages: Of all masks: (seconds since the first image, ms).
        asked: Kind of every request, by its token.
        answered: What the services answered, by token: "taken", or why not.
        verdicts: What ``~/seed_result`` said in the end, by token: "applied", or why not.
        lost: How often an instance became LOST.
        lost_images: On how many images one was.
        diagnoses: How often the node's level in /diagnostics was OK, WARN, ERROR, STALE.
        reasons: The newest line of each level but OK.
        last_error: What ``~/status`` said last.
        exit_status: Of the node; None while it runs.
        failure: Why the run ended early; empty where it did not.
    """

    plan: Plan
    samples: list[Sample] = dataclasses.field(default_factory=list)
    ages: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    asked: dict[str, str] = dataclasses.field(default_factory=dict)
    answered: dict[str, str] = dataclasses.field(default_factory=dict)
    verdicts: dict[str, str] = dataclasses.field(default_factory=dict)
    lost: int = 0
    lost_images: int = 0
    diagnoses: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    last_error: str = ""
    exit_status: int | None = None
    failure: str = ""


def run_soak(config: Config, plan: Plan, sampled: Callable[[Soak], None] = lambda soak: None) -> Soak:
    """Play the scene to the real node and look at its process all the while; Ctrl-C ends it early.

    Args:
        config: Settings of the node.
        plan: What to do.
        sampled: Called with all that there is after every sample.

    Raises:
        RuntimeError: The node or the camera does not start.
    """
    use_large_segments()
    namespace = f"/maskrnn_benchmark_{os.getpid()}"  # others may run beside it
    soak = Soak(plan=plan)
    hears = _Ears(f"{namespace}/tracker", soak)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = scratch / "node.yaml"
        parameter_file.write(settings, to_flat(with_values(config, compressed=False)))
        command = node_command(namespace, "--params-file", str(settings), "--log-level", "warn")
        process = stack.enter_context(child_process(command))
        listener = stack.enter_context(Listener(process, hears.tracker, hears.subscribe))
        try:
            with _camera(namespace, plan, scratch / "camera") as (camera, log):
                _watch(soak, hears, _Watched(process.pid, listener, camera, log), sampled)
        except KeyboardInterrupt:
            pass  # what there is counts
        except RuntimeError as error:
            if not soak.samples:
                raise
            soak.failure = str(error)
    soak.exit_status = process.returncode
    return soak


@contextlib.contextmanager
def _camera(namespace: str, plan: Plan, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], TextIO]]:
    """The camera's process and what it prints; a pipe would fill up."""
    command = [sys.executable, "-m", "maskrnn_ros.benchmark.soak_camera", "--namespace", namespace]
    command += ["--scene", str(plan.width), str(plan.height), str(plan.objects)]
    command += ["--rate", str(plan.rate), "--seconds", str(plan.seconds), "--every", str(plan.change_s)]
    with (
        log.open("wb") as writing,
        log.open() as reading,
        child_process(command, stdout=writing, stdin=subprocess.DEVNULL) as process,
    ):
        yield process, reading


@dataclasses.dataclass(frozen=True)
class _Watched:
    """Process id of the node, who listens to it, the camera and its log."""

    pid: int
    listener: Listener
    camera: subprocess.Popen[bytes]
    log: TextIO


def _watch(soak: Soak, hears: _Ears, watched: _Watched, sampled: Callable[[Soak], None]) -> None:
    """Take samples until the camera ends, then wait for the verdicts that are owed."""
    log = _Log(watched.log, soak)
    truth = _Truth(soak.plan)

    def is_playing() -> bool:
        log.read()
        return bool(log.sent) or watched.camera.poll() is not None

    watched.listener.wait_until(is_playing, float("inf"))
    begin = hears.begin()
    due = begin
    while watched.camera.poll() is None:
        due += soak.plan.sample_s
        watched.listener.wait_until(
            lambda due=due: watched.camera.poll() is not None or time.monotonic() >= due,  # type: ignore[misc]
            float("inf"),
        )
        if time.monotonic() < due - soak.plan.sample_s / 2 and soak.samples:
            break  # the camera has ended, and so little says nothing of a rate
        log.read()
        soak.samples.append(_sample(soak, watched.pid, time.monotonic() - begin, log, hears, truth))
        sampled(soak)
    if watched.camera.returncode:
        raise RuntimeError(f"the camera ended with exit status {watched.camera.returncode}, see above")
    hears.end()
    watched.listener.wait_until(lambda: not owed(soak), _VERDICT_TIMEOUT_S)


def owed(soak: Soak) -> list[str]:
    """Requests whose outcome was not said: without an answer, or taken as a seed and without a verdict."""
    return [
        token
        for token, kind in soak.asked.items()
        if token not in soak.answered
        or (kind != "remove" and soak.answered[token] == "taken" and token not in soak.verdicts)
    ]


class _Log:
    """What the camera printed."""

    def __init__(self, file: TextIO, soak: Soak) -> None:
        self._file, self._soak = file, soak
        self._rest = ""
        self.sent = 0
        self.numbers: dict[int, int] = {}
        """Number of an image by its stamp; of the latest."""

    def read(self) -> None:
        """Read what is new."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            if line.startswith("{"):
                self._request(json.loads(line))
                continue
            stamp_ns, number = map(int, line.split())
            self.sent += 1
            self.numbers[stamp_ns] = number
            if len(self.numbers) > 1_000:
                del self.numbers[next(iter(self.numbers))]

    def _request(self, entry: dict[str, Any]) -> None:
        if "asked" in entry:
            self._soak.asked[entry["asked"]] = entry["kind"]
        else:
            self._soak.answered[entry["answered"]] = "taken" if entry["success"] else entry["message"]


class _Ears:
    """Hears the node, in the listener's thread."""

    def __init__(self, tracker: str, soak: Soak) -> None:
        self.tracker = tracker
        self._soak = soak
        self._lost: set[int] = set()
        self._begin_s = time.monotonic()
        self._is_on = False
        self.newest: Any = None
        self.step_ms_p50: float | None = None

    def begin(self) -> float:
        """Count from now on; the monotonic time."""
        self._soak.ages.clear()
        self._begin_s, self._is_on = time.monotonic(), True
        return self._begin_s

    def end(self) -> None:
        """The camera has ended: a diagnosis that says so is none of the node's."""
        self._is_on = False

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        qos = reliable(_DEPTH)
        node.create_subscription(InstanceMaskArray, f"{self.tracker}/instances", self.on_instances, qos)
        node.create_subscription(SeedResult, f"{self.tracker}/seed_result", self.on_result, qos)
        node.create_subscription(TrackerStatus, f"{self.tracker}/status", self._on_status, qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos)

    def on_instances(self, message: Any) -> None:
        """Count one message."""
        age_ms = (time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e6
        self._soak.ages.append((time.monotonic() - self._begin_s, age_ms))
        lost = {instance.id for instance in message.instances if instance.state == InstanceMask.STATE_LOST}
        self._soak.lost += len(lost - self._lost)
        self._soak.lost_images += bool(lost)
        self._lost, self.newest = lost, message

    def on_result(self, message: Any) -> None:
        """Note a verdict."""
        if message.status == SeedResult.STATUS_APPLIED and message.token:
            self._soak.verdicts[message.token] = "applied"
        elif message.status == SeedResult.STATUS_REJECTED and message.token:
            self._soak.verdicts[message.token] = message.reason

    def _on_status(self, message: Any) -> None:
        self._soak.last_error = message.last_error
        self.step_ms_p50 = None if math.isnan(message.step_ms_p50) else message.step_ms_p50

    def _on_diagnostics(self, message: Any) -> None:
        for entry in message.status:
            if entry.name == f"{self.tracker[1:]}: tracker" and self._is_on:
                level = _LEVELS[entry.level]
                self._soak.diagnoses[level] += 1
                if level != "OK":
                    self._soak.reasons[level] = entry.message


class _Truth:
    """What the masks should be."""

    def __init__(self, plan: Plan) -> None:
        self._scene = Scene(plan.width, plan.height, plan.objects + 1)

    def iou(self, message: Any, number: int) -> float | None:
        """Of the masks of a message with the exact ones, mean; None: there is no instance."""
        found, true = label_image(message), self._scene.labels(number % FRAMES)
        each = []
        for instance in message.instances:
            if instance.state != InstanceMask.STATE_REMOVED:
                one, other = found == instance.id, true == min(instance.id, self._scene.objects)
                each.append(np.count_nonzero(one & other) / np.count_nonzero(one | other))
        return float(np.mean(each)) if each else None


def _sample(soak: Soak, pid: int, t_s: float, log: _Log, hears: _Ears, truth: _Truth) -> Sample:
    newest = hears.newest
    masks = [age for _, age in soak.ages[sum(sample.masks for sample in soak.samples) :]]
    number = log.numbers.get(stamp_to_ns(newest.header.stamp)) if newest is not None else None
    p50, p95 = np.percentile(masks, (50, 95)).tolist() if masks else (0.0, 0.0)
    return Sample(
        t_s=t_s,
        **process_figures(pid),
        sent=log.sent - sum(sample.sent for sample in soak.samples),
        masks=len(masks),
        age_ms=(p50, p95) if masks else None,
        step_ms_p50=hears.step_ms_p50,
        instances=len(newest.instances) if newest is not None else 0,
        iou=None if number is None else truth.iou(newest, number),
    )


def process_figures(pid: int) -> dict[str, Any]:
    """Memory, threads, descriptors and time of a process by Linux's /proc, as ``Sample`` names them.

    Raises:
        RuntimeError: There is no such process any more.
    """
    folder = Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        fields = (folder / "stat").read_text().rpartition(")")[2].split()  # a program's name may have spaces
        descriptors = len(os.listdir(folder / "fd"))
    except OSError as error:
        raise RuntimeError(f"the node's process has ended: {error}") from error
    return {
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": int(fields[17]),
        "descriptors": descriptors,
        "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    }
