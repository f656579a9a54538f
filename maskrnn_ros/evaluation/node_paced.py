# SPDX-License-Identifier: Apache-2.0
"""Play a clip in time to what the node runs: its inbox, its threads, its session, without ROS.

Images are decoded and in memory before the first one comes; converting, sending and publishing messages are left out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from maskrnn_ros.config import Config
from maskrnn_ros.datasets.clips import Clip, frame_of
from maskrnn_ros.evaluation.results import StreamingResult
from maskrnn_ros.evaluation.scoring import score_streaming, seeds_of
from maskrnn_ros.evaluation.streaming import Timeline
from maskrnn_ros.metrics.davis import Convention
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.tracker_node.inbox import Inbox
from maskrnn_ros.tracker_node.results import Result
from maskrnn_ros.tracker_node.worker import Worker
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ahead import Ahead
from maskrnn_ros.tracking.build import warm_up
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedOutcome, SeedRequest, SeedStatus, Session
from maskrnn_ros.types import Frame, LabelArray, Seed

_POLL_S = 0.002


@dataclasses.dataclass(frozen=True, eq=False)
class _Message:
    """What the inbox needs of an image message."""

    number: int
    frame: Frame
    data: bytes = b""


def stream_node(
    clip: Clip, convention: Convention, config: Config, fps: float, advance: Callable[[], object] = lambda: None
) -> StreamingResult:
    """Play a clip to the node's worker and score what was out in time.

    Args:
        clip: The clip; its images and masks are held meanwhile, 7 bytes a pixel and frame.
        convention: How it is scored.
        config: Settings of the node.
        fps: Frames per second, > 0.
        advance: Called for every frame of the clip.

    Raises:
        RuntimeError: A seed was rejected, or an image was not understood.
        ValueError: See ``Clip``.
    """
    frames = [frame_of(clip, number) for number in range(len(clip))]
    line, masks = play(frames, seeds_of(clip, convention), config, 1 / fps, advance)
    return score_streaming(clip, convention, line, masks)


def play(
    frames: Sequence[Frame],
    seeds: Mapping[int, Seed],
    config: Config,
    period_s: float,
    advance: Callable[[], object] = lambda: None,
) -> tuple[Timeline, dict[int, LabelArray]]:
    """Play frames to the node's worker.

    Args:
        frames: The frames; the first comes at once.
        seeds: By number of the frame that it is drawn on, 0 among them; each comes just before its frame.
        config: Settings of the node.
        period_s: Time between two frames, seconds.
        advance: Called for every frame.

    Returns:
        When what was out, and the labels by number of the frame.

    Raises:
        RuntimeError: A seed was rejected, or an image was not understood.
    """
    set_threads(config.threads)
    warm_up(build_tracker(config))
    bench = _Bench(config)
    bench.worker.start()
    try:
        begin_s = time.monotonic()
        arrived_s = tuple(begin_s + number * period_s for number in range(len(frames)))
        for number, frame in enumerate(frames):
            while (wait_s := arrived_s[number] - time.monotonic()) > 0:
                time.sleep(wait_s)
            if number in seeds:
                bench.seed(seeds[number])
            bench.inbox.put_image(_Message(number, frame), frame.stamp_ns)
            advance()
        while bench.inbox.counts.waiting:
            time.sleep(_POLL_S)
    finally:
        bench.worker.stop()
    if bench.failed:
        raise RuntimeError(bench.failed[0])
    return Timeline(period_s=period_s, arrived_s=arrived_s, out_s=bench.out_s), bench.masks


class _Bench:
    """The worker of a node, and what it says."""

    def __init__(self, config: Config) -> None:
        self._config, self._ids = config, IdBook()
        self.out_s: dict[int, float] = {}
        self.masks: dict[int, LabelArray] = {}
        self.failed: list[str] = []
        self._session = Session(config, build_tracker, self._ids, self._heard)
        self.inbox = Inbox(0, wanted=self._session.seeds.wants)
        self.worker = Worker(
            self._session,
            self.inbox,
            convert=lambda message: message.frame.image,
            publish=self._published,
            reject=self.failed.append,
            crash=self.failed.append,
            ahead=Ahead(config) if config.while_busy == "propagate" else None,
        )

    def seed(self, seed: Seed) -> None:
        """Admit a seed and hand it to the worker."""
        admission = self._ids.admit(seed, self._config)
        request = SeedRequest(ticket=None, admission=admission, arrived=time.monotonic())
        self._session.seeds.arrive(request)
        self.inbox.put_request(lambda: self._session.seed(request))

    def _heard(self, outcome: SeedOutcome) -> None:
        if outcome.status == SeedStatus.REJECTED:
            self.failed.append(f"the seed was rejected: {outcome.reason}")

    def _published(self, result: Result) -> None:
        number = result.message.number
        self.out_s[number], self.masks[number] = time.monotonic(), result.tracks.labels
