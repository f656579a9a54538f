# SPDX-License-Identifier: Apache-2.0
"""The tracker with all its parts: when networks run, what they leave behind, objects that vanish and come back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import world
from shipped import CONFIG, LARGE, engine, overlap, tracker

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.engine import Features, Keys, Lesson, Looked, Summed
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking import build as module
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.types import Frame, InstanceState, UInt8Array


class Counting:
    """The engine; notes what it is called for, and for how many objects."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(engine(), name)

    def features(self, image: UInt8Array) -> Features:
        self.calls.append(("features", 1))
        return engine().features(image)

    def begin(self, features: Features, boxes: np.ndarray, *rest: np.ndarray) -> Summed:
        self.calls.append(("begin", len(boxes)))
        return engine().begin(features, boxes, *rest)

    def step(self, features: Features, around: object, objects: object) -> Looked:
        self.calls.append(("step", len(objects.boxes)))  # type: ignore[attr-defined]
        return engine().step(features, around, objects)  # type: ignore[arg-type]

    def learn(self, looked: Looked, lesson: Lesson, newest: Keys) -> Summed:
        self.calls.append(("learn", len(lesson.which)))
        return engine().learn(looked, lesson, newest)


IN_A_ROW = tuple(world.Shape(2 * k + 1, 4 + 40 * k, 8 + 20 * k, 32, 36, 2, 0) for k in range(3))
"""Of odd ids: all enter their memories on the same frames."""


@pytest.mark.parametrize("ids", [(1,), (1, 3, 5)])
def test_before_any_seed_no_network_runs_and_then_once_per_frame_for_all(ids: tuple[int, ...]) -> None:
    counting = Counting()
    one = Tracker(CONFIG, world.ExactFlow(IN_A_ROW), counting)
    for number in range(3):
        one.step(world.frame(number, IN_A_ROW))
    assert not counting.calls
    one.seed(world.seed(3, *ids, shapes=IN_A_ROW), world.frame(3, IN_A_ROW))
    seeded = list(counting.calls)
    assert {name for name, _ in seeded} == {"features", "begin"} and {count for _, count in seeded} == {1, len(ids)}
    expected = [("features", 1), ("step", len(ids))]
    for number, learns in ((4, []), (5, [("learn", len(ids))])):  # every second image is due
        counting.calls.clear()
        one.step(world.frame(number, IN_A_ROW))
        assert counting.calls == expected + learns


def test_a_seed_of_many_runs_the_networks_as_often_as_one_of_one() -> None:
    calls = []
    for ids in ((1,), (1, 3, 5)):
        counting = Counting()
        one = Tracker(CONFIG, world.ExactFlow(IN_A_ROW), counting)
        one.seed(world.seed(0, *ids, shapes=IN_A_ROW), world.frame(0, IN_A_ROW))
        calls.append([name for name, _ in counting.calls])
    assert calls[0].count("features") <= calls[1].count("features") <= 8, "a view is seen once for all objects"


def test_features_are_computed_once_held_while_they_are_needed_and_not_in_the_buffer() -> None:
    counting = Counting()
    one = Tracker(CONFIG, world.ExactFlow(LARGE), counting)
    buffer = FrameBuffer(Config().buffer)
    prepared = one.prepare(world.frame(0, LARGE))
    buffer.add(prepared)
    assert buffer.nbytes == 3 * world.HEIGHT * world.WIDTH
    assert prepared.features is prepared.features and counting.calls == [("features", 1)]
    assert buffer.nbytes == 3 * world.HEIGHT * world.WIDTH, "they do not stay"
    one.advance(prepared)
    assert prepared.features is not None and len(counting.calls) == 1
    one.advance(one.prepare(world.frame(1, LARGE)))
    assert prepared._features is None
    _ = prepared.features  # a late seed asks again
    assert counting.calls.count(("features", 1)) == 2


def test_a_frame_prepared_without_networks_has_no_features() -> None:
    with pytest.raises(RuntimeError, match="without networks: it has no features"):
        _ = world.exact_tracker(world.WARP_ONLY).prepare(world.frame(0)).features


def test_without_networks_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_engine", lambda config: pytest.fail("weights were loaded"))
    one = build_tracker(world.WARP_ONLY)
    assert (one.engine, one.device, one.precision, one.adaptation) == ("", "cpu", "float32", "off")


def test_a_tracker_says_what_runs_it() -> None:
    one = build_tracker(CONFIG)
    assert (one.engine, one.device, one.precision, one.adaptation) == ("onnxruntime", "cpu", "float32", "recursive")


def hidden_world(number: int) -> tuple[Frame, np.ndarray]:
    """A bright disk on a dull background; a wall hides it on frames 4 to 9."""
    image = (world.texture(0, 96, 128) // 4).astype(np.uint8)
    rows, columns = np.mgrid[:96, :128]
    seen = (rows - 48) ** 2 + (columns - 24 - 4 * number) ** 2 < 14**2
    image[seen] = (250, 40, 30)
    if 4 <= number < 10:
        image[:, 20:100] = 60
        seen[:, 20:100] = False
    return Frame(stamp_ns=world.stamp_ns(number), image=image), seen.astype(np.int32)


def test_an_object_behind_a_wall_is_occluded_then_lost_and_found_again() -> None:
    """With the flow that is estimated."""
    config = with_values(CONFIG, presence__lost_after_frames=3)
    one = tracker(config, flow=build_flow(config.flow))
    frame, labels = hidden_world(0)
    one.seed(dataclasses.replace(world.seed(0, 1), labels=labels * 7), frame)
    states, masks = [], []
    for number in range(1, 14):
        frame, seen = hidden_world(number)
        tracks = one.step(frame)
        (track,) = tracks.tracks
        assert track.instance_id == 7
        states.append(track.state)
        masks.append(tracks.labels > 0)
    assert states[:3] == [InstanceState.TRACKING] * 3
    assert states[3:9] == [InstanceState.OCCLUDED] * 3 + [InstanceState.LOST] * 3
    assert not any(mask.any() for mask in masks[3:9])
    assert states[-1] == InstanceState.TRACKING
    assert overlap(masks[-1], seen > 0) > 0.6
