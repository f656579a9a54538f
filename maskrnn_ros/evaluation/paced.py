# SPDX-License-Identifier: Apache-2.0
"""Play a clip in time: which masks a robot would have had, and when.

The clip plays at its rate whether the follower keeps up or not, and the follower always takes the newest frame that has
come, as the node does (``tracker_node.inbox``: the latest wins); what came in between is dropped. Time is the clock's:
between frames the follower waits, so a head that is trained in the background takes from it what it takes on the robot.

It is the node without ROS. The images are decoded and in memory before the first one "comes", for the node is given
decoded images; converting, sending and publishing messages are left out, as are the session's late seeds, for there are
none: its calls on the tracker are the follower's.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Mapping, Sequence

from maskrnn_ros.datasets.clips import Clip, frame_of
from maskrnn_ros.evaluation.followers import Follower
from maskrnn_ros.evaluation.results import StreamingResult
from maskrnn_ros.evaluation.scoring import score_streaming, seeds_of
from maskrnn_ros.evaluation.streaming import Timeline
from maskrnn_ros.metrics.davis import Convention
from maskrnn_ros.types import Frame, LabelArray, Seed


def stream_clip(
    clip: Clip,
    convention: Convention,
    follower: Callable[[], Follower],
    fps: float,
    advance: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> StreamingResult:
    """Play a clip to a new follower and score what was out in time.

    Args:
        clip: The clip; its images and masks are held meanwhile, 7 bytes a pixel and frame.
        convention: How it is scored.
        follower: Makes the follower. It should have run before in this process: what is set up at the first use
            (the node warms up before it takes images) counts otherwise.
        fps: Frames per second, > 0.
        advance: Called for every frame of the clip.
        clock: Monotonic time, seconds.
        sleep: Waits that many seconds of the clock.

    Raises:
        ValueError: See ``Clip`` and ``Follower``.
    """
    seeds = seeds_of(clip, convention)
    frames = [frame_of(clip, number) for number in range(len(clip))]
    line, masks = play(frames, seeds, follower(), 1 / fps, advance=advance, clock=clock, sleep=sleep)
    return score_streaming(clip, convention, line, masks)


def play(
    frames: Sequence[Frame],
    seeds: Mapping[int, Seed],
    follower: Follower,
    period_s: float,
    *,
    advance: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Timeline, dict[int, LabelArray]]:
    """Play frames to a follower.

    Args:
        frames: The frames; the first comes at once.
        seeds: By number of the frame that it is drawn on, 0 among them; those frames are not dropped.
        follower: Sees the first seed, then the newest frame whenever it is free.
        period_s: Time between two frames, seconds.
        advance: See ``stream_clip``.
        clock: Likewise.
        sleep: Likewise.

    Returns:
        When what was out, and the labels by number of the frame.
    """
    begin = clock()
    arrived_s = tuple(begin + number * period_s for number in range(len(frames)))
    out_s: dict[int, float] = {}
    masks: dict[int, LabelArray] = {}
    done = -1
    while done + 1 < len(frames):
        while (wait_s := arrived_s[done + 1] - clock()) > 0:
            sleep(wait_s)
        newest = bisect.bisect_right(arrived_s, clock()) - 1 if masks else 0
        newest = min((number for number in seeds if done < number < newest), default=newest)
        seed = seeds.get(newest)
        masks[newest] = follower.step(frames[newest]) if seed is None else follower.seed(seed, frames[newest])
        out_s[newest] = clock()
        for _ in range(newest - done):
            advance()
        done = newest
    return Timeline(period_s=period_s, arrived_s=arrived_s, out_s=out_s), masks
