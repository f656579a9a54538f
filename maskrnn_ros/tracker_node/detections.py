# SPDX-License-Identifier: Apache-2.0
"""Detections of vision_msgs, where that is installed: those of a detector in, the instances' boxes out."""

from __future__ import annotations

import math
from typing import Any

from maskrnn_ros.ros.optional import optional
from maskrnn_ros.types import Box, Tracks

vision_msgs: Any | None = optional("vision_msgs.msg")
"""The messages; None where they are not installed."""


def detection_array(tracks: Tracks, header: Any) -> Any:
    """A Detection2DArray: box, id, name and score of every instance that is seen.

    A box from column x0 to x1 has its centre at (x0 + x1) / 2.
    """
    assert vision_msgs is not None  # who calls has made a publisher of it
    message = vision_msgs.Detection2DArray(header=header)
    for track in tracks.tracks:
        if track.box is None:
            continue
        detection = vision_msgs.Detection2D(header=header, id=str(track.instance_id))
        detection.bbox.center.position.x = (track.box.x0 + track.box.x1) / 2
        detection.bbox.center.position.y = (track.box.y0 + track.box.y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = float(track.box.width), float(track.box.height)
        hypothesis = vision_msgs.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = track.name, track.score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


def box_and_class(detection: Any, min_score: float) -> tuple[Box, str] | None:
    """Box and best class of a Detection2D; None where its score is too low.

    A detector that gives no hypothesis says nothing of its score: its box is taken. Of a turned box the upright one
    around it is taken.

    Raises:
        ValueError: The box is not finite, or holds no pixel.
    """
    hypotheses = [result.hypothesis for result in detection.results]
    best = max(hypotheses, key=lambda hypothesis: float(hypothesis.score), default=None)
    if best is not None and not best.score >= min_score:
        return None
    centre, width, height = detection.bbox.center, detection.bbox.size_x, detection.bbox.size_y
    x, y, theta = centre.position.x, centre.position.y, centre.theta
    if not all(map(math.isfinite, (x, y, theta, width, height))) or width <= 0 or height <= 0:
        raise ValueError(f"a box must be finite and hold a pixel, got centre ({x}, {y}), size {width} x {height}")
    across = (abs(width * math.cos(theta)) + abs(height * math.sin(theta))) / 2
    down = (abs(width * math.sin(theta)) + abs(height * math.cos(theta))) / 2
    x0, y0, x1, y1 = (round(edge) for edge in (x - across, y - down, x + across, y + down))
    return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), "" if best is None else str(best.class_id)
