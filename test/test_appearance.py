# SPDX-License-Identifier: Apache-2.0
"""The tracker with all its parts: independent instances, late seeds, objects that vanish and come back."""

from __future__ import annotations

import dataclasses
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
import torch
import world
from test_session import Bench, assert_same_states

from maskrnn_ros.config import Config, with_values
from maskrnn_ros.flow import build_flow
from maskrnn_ros.model.backbone import Features
from maskrnn_ros.model.head import Head
from maskrnn_ros.model.trunk import Trunk
from maskrnn_ros.model.weights import load_lite0, save_weights
from maskrnn_ros.tracking import Tracker, build_tracker
from maskrnn_ros.tracking.adaptation import Cancelled
from maskrnn_ros.tracking.buffer import FrameBuffer
from maskrnn_ros.tracking.evidence import find_again
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.patch import Patch
from maskrnn_ros.tracking.session import SeedRequest, Session
from maskrnn_ros.types import Box, Frame, InstanceStatus

MODES = ["none", "recursive", "blocking", "network"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a network that has something of its own to say."""
    path = tmp_path_factory.mktemp("weights") / "noisy.safetensors"
    save_weights(world.network(noise=0.02), path)
    return str(path)


def parts(mode: str, weights: str) -> dict[str, object]:
    """Settings of a mode: that of the adaptation, or all that there is."""
    if mode in ("none", "recursive"):
        return {"adaptation__method": mode, "trunk__weights": "shipped"}
    if mode == "blocking":
        return {"adaptation__mode": mode}
    return {"adaptation__mode": "blocking", "network__enabled": True, "network__weights": weights}


def same(one: object, other: object) -> bool:
    """Equal bit by bit, whatever states are made of."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Head):
        return all(same(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return one == other


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", ["remove", "add", "correct"])
def test_changing_one_instance_leaves_the_state_of_the_others_bit_identical(
    change: str, mode: str, weights: str
) -> None:
    config = with_values(world.QUICK, **parts(mode, weights))
    alone, changed = build_tracker(config), build_tracker(config)
    for tracker in (alone, changed):  # marked together they know of each other's masks: that is all they share
        tracker.seed(world.seed(0, 1) if change == "add" else world.seed(0), world.frame(0))
    if change != "add":
        alone.remove([2])
    for number in range(1, 5):
        alone.step(world.frame(number))
        changed.step(world.frame(number))
        if number == 2 and change == "remove":
            changed.remove([2])
        if number == 2 and change in ("add", "correct"):
            changed.adopt(changed.start(world.seed(2, 2), changed.newest))
    assert same(alone.states[1], changed.states[1])
    assert alone.states[1].area > 0
    assert tuple(changed.states) == ((1,) if change == "remove" else (1, 2))


@pytest.mark.parametrize("mode", MODES)
def test_a_late_seed_with_exact_catch_up_equals_a_seed_in_time(mode: str, weights: str) -> None:
    few = {"matching__enabled": True, "adaptation__steps": 5, "adaptation__views": 3}
    in_time, late = (Bench(None, **few, **parts(mode, weights)) for _ in range(2))
    in_time.seed(world.seed(2, 2))
    for bench in (in_time, late):
        bench.seed(world.seed(0, 1))
        for number in range(5):
            bench.image(number)
    late.seed(world.seed(2, 2))
    for number in (5, 6):
        assert same(dict(in_time.session.states)[2], dict(late.session.states)[2])
        np.testing.assert_array_equal(in_time.image(number).labels, late.image(number).labels)
    assert_same_states(*(Bench().session for _ in range(2)))


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_late_correction_equals_a_correction_in_time_and_joins_the_references(mode: str, weights: str) -> None:
    few = {"matching__enabled": True, "adaptation__steps": 5, "adaptation__views": 3}
    in_time, late = (Bench(None, **few, **parts(mode, weights)) for _ in range(2))
    for bench in (in_time, late):
        bench.seed(world.seed(0))
    in_time.seed(world.seed(2, 2))
    for number in range(4):
        in_time.image(number), late.image(number)
    late.seed(world.seed(2, 2))
    one, other = in_time.session.states[2], late.session.states[2]
    assert [seed.stamp_ns for seed in other.seeds] == [world.stamp_ns(0), world.stamp_ns(2)]
    assert same(one, other)
    assert (one.hidden is not None) == (mode == "network")


def test_seeds_and_recent_references_are_bounded() -> None:
    tracker = build_tracker(with_values(world.QUICK, adaptation__method="none", matching__recent_frames=2))
    for number in range(8):
        tracker.seed(world.seed(number, 1), world.frame(number))
    kept = [seed.stamp_ns for seed in tracker.states[1].seeds]
    assert kept == [world.stamp_ns(n) for n in (0, 5, 6, 7)]
    for number in range(8, 12):
        tracker.step(world.frame(number))
    assert len(tracker.states[1].recent) == 2


def test_before_any_seed_no_network_runs_and_then_once_per_frame() -> None:
    runs: list[int] = []

    class Counting:
        trunk = load_lite0()
        start = None

        def features(self, image: torch.Tensor) -> Features:
            runs.append(1)
            return self.trunk.features(image)

        def nearest(self, queries: torch.Tensor, keys: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.trunk.nearest(queries, keys, count)

        def aside(self) -> Trunk:
            return self

    config = with_values(world.QUICK, adaptation__method="none")
    tracker = Tracker(config, world.ExactFlow(), torch.device("cpu"), Counting())
    for number in range(3):
        tracker.step(world.frame(number))
    assert not runs
    tracker.seed(world.seed(3), world.frame(3))
    for number in range(4, 7):
        tracker.step(world.frame(number))
    assert len(runs) == 4  # two instances, four frames


def test_features_count_in_the_memory_of_the_buffer() -> None:
    tracker = build_tracker(with_values(world.QUICK, adaptation__method="none"))
    buffer = FrameBuffer(Config().buffer)
    prepared = tracker.prepare(world.frame(0))
    buffer.add(prepared)
    bare = buffer.nbytes
    assert bare == 3 * world.HEIGHT * world.WIDTH
    prepared.descriptors  # noqa: B018
    cells = world.HEIGHT * world.WIDTH / 16
    assert buffer.nbytes - bare == 2 * (24 * cells + 40 * cells / 4 + 112 * cells / 16) + 152 * cells / 4


def test_background_tracks_at_once_swaps_between_frames_and_says_so() -> None:
    lines: list[str] = []
    tracker = build_tracker(with_values(world.QUICK, adaptation__mode="background"))
    tracker.announce = lines.append
    tracker.seed(world.seed(0, 1), world.frame(0))
    promise = tracker.states[1].promise
    assert promise is not None and same(
        tracker.states[1].head, tracker._first_head(tracker.states[1].seeds[-1], tracker.newest)
    )
    for number in (1, 0, 1):  # tracking goes on meanwhile
        was_done = promise.done()
        tracker.step(world.frame(number))
        assert tracker.states[1].head is not None or not was_done
    promise.result(timeout=60)
    tracker.step(world.frame(0))
    assert lines == ["instance 1: adapted head in use"]
    assert tracker.states[1].promise is None
    expected = build_tracker(world.QUICK)
    expected.seed(world.seed(0, 1), world.frame(0))
    assert same(tracker.states[1].head, expected.states[1].head)


def test_a_corrected_instance_keeps_its_head_until_the_new_one_is_trained() -> None:
    tracker = build_tracker(with_values(world.QUICK, adaptation__mode="background"))
    tracker.seed(world.seed(0, 1), world.frame(0))
    tracker.states[1].promise.result(timeout=60)
    tracker.step(world.frame(1))
    former = tracker.states[1].head
    tracker.seed(world.seed(2, 1), world.frame(2))
    assert tracker.states[1].head is former is not None
    tracker.states[1].promise.result(timeout=60)
    tracker.step(world.frame(3))
    assert tracker.states[1].head is not former and tracker.states[1].promise is None


def ends_untrained(promise: Future) -> bool:
    try:
        return isinstance(promise.exception(timeout=60), Cancelled)
    except CancelledError:  # before it began
        return True


def test_of_ten_corrections_only_the_newest_is_trained() -> None:
    tracker = build_tracker(with_values(world.QUICK, adaptation__mode="background", adaptation__steps=100_000))
    promises = []
    for number in range(10):
        tracker.seed(world.seed(number, 1), world.frame(number))
        promises.append(tracker.states[1].promise)
    other = tracker.start(world.seed(9, 2), tracker.newest)
    tracker.adopt(other)
    assert all(ends_untrained(promise) for promise in promises[:-1])
    while not promises[-1].running():
        assert not promises[-1].done()
    tracker.remove([1])
    assert ends_untrained(promises[-1])
    tracker.close()
    assert ends_untrained(other[2].promise)


@pytest.mark.parametrize("why", ["an older image", "rejected"])
def test_what_a_late_seed_began_to_train_ends_with_it_where_its_states_are_not_taken_in(why: str) -> None:
    settings = {"adaptation__mode": "background", "adaptation__steps": 100_000, "catch_up__mode": "exact"}
    config, ids, outcomes = with_values(world.QUICK, **settings), IdBook(), []
    session = Session(config, build_tracker, ids, outcomes.append)

    def mark(number: int, *instances: int) -> None:
        admission = ids.admit(world.seed(number, *instances), config)
        session.seed(SeedRequest(ticket=None, admission=admission, arrived=0.0))

    mark(0, 1)
    for number in range(5):
        session.process(world.frame(number))
    if why == "an older image":
        mark(4, 1)
    kept = session.states[1].promise
    session.interrupted.set()  # it stops half-way
    mark(2, 1)
    late = session._seedings[0].catch_up.states[1].promise
    session.interrupted.clear()
    if why == "rejected":
        session.reset("asked for")
    else:
        session.catch_up()
        assert "corrected on a later image" in outcomes[-1].reason
        assert session.states[1].promise is kept and not kept.done()
    assert ends_untrained(late)
    session.close()


def test_a_failed_adaptation_is_said_and_the_stream_goes_on() -> None:
    lines: list[str] = []
    tracker = build_tracker(with_values(world.QUICK, adaptation__mode="background"))
    tracker.fault = lines.append
    tracker.seed(world.seed(0, 1), world.frame(0))
    tracker.states[1].promise.result(timeout=60)

    class Broken:
        def done(self) -> bool:
            return True

        def exception(self) -> Exception:
            return RuntimeError("it broke")

    tracker.adopt({1: dataclasses.replace(tracker.states[1], promise=Broken())})
    tracks = tracker.step(world.frame(1))
    assert lines == ["instance 1: adaptation failed: RuntimeError: it broke"]
    assert tracks.tracks[0].box is not None


def test_without_weights_the_warp_tracker_is_built_and_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrnn_ros.model.engine.load_trunk", lambda *_: pytest.fail("weights were loaded"))
    build_tracker(world.WARP_ONLY)


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


@pytest.mark.parametrize("agrees", [None, True, False])
def test_an_object_behind_a_wall_is_occluded_then_lost_and_found_again_if_the_network_agrees(
    agrees: bool | None,
) -> None:
    config = with_values(
        world.QUICK, adaptation__steps=60, adaptation__views=8, presence__lost_after_frames=3, adaptation__channels=16
    )
    net = world.network()
    dis, cpu = build_flow(config.flow, torch.device("cpu")), torch.device("cpu")
    tracker = Tracker(config, dis, cpu, load_lite0(), None if agrees is None else net)
    frame, labels = hidden_world(0)
    tracker.seed(dataclasses.replace(world.seed(0, 1), labels=labels * 7), frame)
    states, masks = [], []
    for number in range(1, 14):
        frame, seen = hidden_world(number)
        if number == 10 and not agrees:
            net.located.bias[4] = -5.0  # from here on it says that the object is not there
        tracks = tracker.step(frame)
        (track,) = tracks.tracks
        assert track.instance_id == 7
        states.append(track.status)
        masks.append(tracks.labels > 0)
    assert states[:3] == [InstanceStatus.TRACKING] * 3
    assert states[3:9] == [InstanceStatus.OCCLUDED] * 3 + [InstanceStatus.LOST] * 3
    assert not any(mask.any() for mask in masks[3:9])
    if agrees is False:
        assert states[9:] == [InstanceStatus.LOST] * 4 and not any(mask.any() for mask in masks[9:])
        return
    assert states[-1] == InstanceStatus.TRACKING
    assert np.count_nonzero(masks[-1] & (seen > 0)) / np.count_nonzero(masks[-1] | (seen > 0)) > 0.6


@pytest.mark.parametrize(
    ("side", "value", "found"), [(20, 0.95, True), (20, 0.6, False), (3, 0.95, False), (0, 0.95, False)]
)
def test_a_return_must_be_large_and_sure(side: int, value: float, found: bool) -> None:
    probability = torch.zeros(60, 80)
    probability[10 : 10 + side, 20 : 20 + side] = value
    probability[50:52, 70:72] = 1.0  # a sure speck elsewhere is left out
    everywhere = Box(0, 0, 80, 60)
    out = find_again(Patch(probability, everywhere, (60, 80)), 400.0, world.QUICK)
    expected = probability.clone()
    expected[50:52, 70:72] = 0.0
    assert torch.equal(out.full, expected if found else torch.zeros(60, 80))
