# SPDX-License-Identifier: Apache-2.0
"""The real node over real topics and services."""

from __future__ import annotations

import array
import itertools
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import world
from node_bench import QUICK, Gate, NodeBench  # skips where ROS is absent, hence first

# isort: split

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from maskrnn_ros.cli import main
from maskrnn_ros.config import Config, settings, to_flat
from maskrnn_ros.image_messages import fill_image, ns_to_stamp, stamp_to_ns
from maskrnn_ros.labels import write_labels
from maskrnn_ros.masks import MaskEncoding, decode, label_image
from maskrnn_ros.msg import InstanceEvent, InstanceMask, InstanceMaskArray, Prompt, SeedResult, TrackerStatus
from maskrnn_ros.ros.interfaces import propagated
from maskrnn_ros.ros.messages import mask_prompt, region_of_interest
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.srv import AddInstances, RemoveInstances
from maskrnn_ros.types import Box


def full_mask(array_message, instance) -> np.ndarray:
    out = np.zeros((array_message.image_height, array_message.image_width), bool)
    box = instance.box
    mask = decode(instance.data, box.height, box.width, instance.encoding)
    out[box.y_offset : box.y_offset + box.height, box.x_offset : box.x_offset + box.width] = mask
    return out


def states(message) -> list[tuple[int, int]]:
    return [(instance.id, instance.state) for instance in message.instances]


def add_request(labels: np.ndarray, stamp_ns: int = 0, **fields) -> AddInstances.Request:
    """One prompt for each id of a label map."""
    prompts = [mask_prompt(labels == i, i) for i in np.unique(labels[labels != 0]).astype(int).tolist()]
    request = AddInstances.Request(prompts=prompts, **fields)
    ns_to_stamp(stamp_ns, request.stamp)
    return request


def test_from_camera_to_masks_with_the_header_bit_for_bit() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        sent = bench.publish_image(0, frame_id="optical")
        bench.wait(lambda: bench.instances)
        assert list(bench.instances[0].instances) == []
        pending = bench.seed(world.labels(1), world.stamp_ns(1))
        assert (pending.status, list(pending.ids)) == (SeedResult.STATUS_PENDING, [1, 2])
        for number in range(1, 6):
            message = bench.image(number)
            np.testing.assert_array_equal(bench.labels, world.labels(number))
            assert (message.frame_index, message.session, message.frames_skipped) == (number, 1, 0)
            for instance in message.instances:
                np.testing.assert_array_equal(full_mask(message, instance), world.labels(number) == instance.id)
                box = Box.of_mask(world.labels(number) == instance.id)
                assert instance.box == region_of_interest(box)
                assert instance.predicted_box == RegionOfInterest()  # it is seen
            wanted = InstanceMask.STATE_SEEDED if number == 1 else InstanceMask.STATE_TRACKING
            assert states(message) == [(1, wanted), (2, wanted)]
        assert bench.instances[0].header == sent.header
        assert bench.label_images[0].header == sent.header
        assert bench.results[-1].status == SeedResult.STATUS_APPLIED


def test_add_correct_and_remove_in_mid_stream() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(np.where(world.labels(0) == 1, 1, 0), world.stamp_ns(0))
        bench.image(0)
        bench.image(1)
        added = bench.call(
            AddInstances, "add_instances", add_request(np.where(world.labels(2) == 2, 2, 0), world.stamp_ns(2))
        )
        assert (added.success, list(added.ids)) == (True, [2])
        assert states(bench.image(2)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_SEEDED)]
        np.testing.assert_array_equal(bench.labels, world.labels(2))
        corrected = np.zeros_like(world.labels(0))
        corrected[5:15, 90:110] = 1
        bench.seed(corrected, world.stamp_ns(3))
        message = bench.image(3)
        np.testing.assert_array_equal(full_mask(message, message.instances[0]), corrected == 1)
        np.testing.assert_array_equal(full_mask(message, message.instances[1]), world.labels(3) == 2)
        removed = bench.call(RemoveInstances, "remove_instances", RemoveInstances.Request(ids=[1]))
        assert (removed.success, list(removed.ids)) == (True, [1])
        assert states(bench.image(4)) == [(1, InstanceMask.STATE_REMOVED), (2, InstanceMask.STATE_TRACKING)]
        assert states(bench.image(5)) == [(2, InstanceMask.STATE_TRACKING)]
        np.testing.assert_array_equal(bench.labels, np.where(world.labels(5) == 2, 2, 0))
        again = bench.seed(corrected, 0)
        assert again.status == SeedResult.STATUS_REJECTED and "was removed in this session" in again.reason


def test_a_late_seed_with_exact_catch_up_equals_a_seed_in_time() -> None:
    images = []
    for seeded_before in (0, 5):
        with NodeBench(catch_up__mode="exact", **QUICK) as bench:  # real flow, all parts
            for number in range(8):
                if number == seeded_before:
                    bench.seed(world.labels(0), world.stamp_ns(0))
                    if seeded_before:  # the catch-up has ended before the next image
                        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_APPLIED)
                bench.image(number)
            images.append([bytes(image.data) for image in bench.label_images[5:]])
            applied = bench.results[-1]
            assert (applied.status, applied.frames_used) == (SeedResult.STATUS_APPLIED, 4 if seeded_before else 0)
    assert images[0] == images[1]


def test_a_late_seed_with_skip_ends_while_others_go_on() -> None:
    with NodeBench(world.exact_or_still_tracker, catch_up__mode="skip", catch_up__max_s=0.2) as bench:
        bench.seed(np.where(world.labels(0) == 1, 1, 0), world.stamp_ns(0))
        for number in range(30):
            bench.image(number)
        bench.publish_seed(np.where(world.labels(2) == 2, 2, 0), world.stamp_ns(2))
        for number in itertools.count(30):
            message = bench.image(number)
            assert 1 in [instance.id for instance in message.instances]  # the stream goes on meanwhile
            if bench.results[-1].status == SeedResult.STATUS_APPLIED and list(bench.results[-1].ids) == [2]:
                break
        assert bench.results[-1].frames_used <= number - 2
        bench.image(number + 1)
        np.testing.assert_array_equal(bench.labels, world.labels(number + 1))


def test_services_answer_while_a_step_runs() -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        gate.is_open = False
        bench.publish_image(1)
        assert gate.entered.acquire(timeout=30)  # the step has begun, and ends only when we say
        more = np.zeros_like(world.labels(0))
        more[:9, :9] = 7
        answers = [
            bench.call(AddInstances, "add_instances", add_request(more, world.stamp_ns(2))),
            bench.call(RemoveInstances, "remove_instances", RemoveInstances.Request(ids=[2])),
            bench.call(SetBool, "enable", SetBool.Request(data=True)),
        ]
        assert all(answer.success for answer in answers)
        assert len(bench.instances) == 1
        gate.open()
        bench.wait(lambda: len(bench.instances) == 2)
        assert states(bench.image(2)) == [
            (1, InstanceMask.STATE_TRACKING),
            (2, InstanceMask.STATE_REMOVED),
            (7, InstanceMask.STATE_SEEDED),
        ]


def test_unreadable_weights_fail_configure_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(adaptation__method="none") as bench:
        bench.node.trigger_deactivate()
        bench.node.trigger_cleanup()
        monkeypatch.setattr("maskrnn_ros.model.load.trunk_file", lambda name: Path("absent.safetensors"))
        assert bench.node.trigger_configure().name == "FAILURE"
        monkeypatch.undo()
        assert bench.node.trigger_configure().name == "SUCCESS"


def test_under_overload_the_latest_image_wins_and_the_counts_add_up() -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build, while_busy="drop") as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        gate.is_open = False
        for number in range(1, 31):  # three images for each that is let through
            bench.publish_image(number)
            bench.wait(lambda number=number: bench.statuses[-1].received == number + 1)
            if number % 3 == 0:
                gate.permits.release()
        gate.open()
        bench.wait(lambda: bench.statuses[-1].waiting == 0)
        for status in bench.statuses:
            assert status.received == status.processed + status.dropped + status.rejected + status.waiting
        last = bench.statuses[-1]
        assert last.received == 31 and last.rejected == 0 and last.dropped >= 10
        assert last.processed == len(bench.instances)
        assert sum(message.frames_skipped for message in bench.instances) == last.dropped
        numbers = [(stamp_to_ns(m.header.stamp) - world.START_NS) // world.PERIOD_NS for m in bench.instances]
        assert [m.frames_skipped for m in bench.instances[1:]] == [b - a - 1 for a, b in itertools.pairwise(numbers)]
        assert stamp_to_ns(bench.instances[-1].header.stamp) == world.stamp_ns(30)
        bench.wait(lambda: len(bench.label_images) == last.processed)
        np.testing.assert_array_equal(bench.labels, world.labels(30))


def test_under_overload_a_seeded_image_is_not_dropped_and_a_dropped_one_may_be_seeded() -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build, while_busy="drop") as bench:
        bench.seed(np.where(world.labels(0) == 1, 1, 0), world.stamp_ns(0))
        bench.image(0)
        gate.is_open = False
        bench.publish_image(1)
        assert gate.entered.acquire(timeout=30)
        bench.publish_seed(np.where(world.labels(2) == 2, 2, 0), world.stamp_ns(2))
        bench.wait(lambda: bench.node._session.seeds.wants(world.stamp_ns(2)))
        for number in (2, 3, 4):
            bench.publish_image(number)
            bench.wait(lambda number=number: bench.statuses[-1].received == number + 1)
        gate.open()
        bench.wait(lambda: len(bench.instances) == len(bench.label_images) == 4)  # 0, 1, 2 and 4; 3 was dropped
        assert [stamp_to_ns(m.header.stamp) for m in bench.instances] == [world.stamp_ns(n) for n in (0, 1, 2, 4)]
        np.testing.assert_array_equal(bench.labels, world.labels(4))
        third = np.zeros_like(world.labels(0))
        third[2:12, 2:12] = 3
        bench.publish_seed(third, world.stamp_ns(3))
        bench.wait(lambda: (bench.results[-1].status, list(bench.results[-1].ids)) == (SeedResult.STATUS_APPLIED, [3]))


def test_images_that_come_while_the_networks_are_at_work_have_their_masks_by_flow() -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        gate.is_open = False
        bench.publish_image(1)
        assert gate.entered.acquire(timeout=30)
        for number in range(2, 6):
            bench.publish_image(number)
            bench.wait(lambda number=number: bench.statuses[-1].received == number + 1)
        bench.wait(lambda: len(bench.instances) == 6)
        status = bench.counts()
        counts = (status.received, status.processed, status.dropped, propagated(status))
        assert counts == (6, 6, 0, 5)
        gate.open()
        bench.image(6)
        assert [stamp_to_ns(m.header.stamp) for m in bench.instances] == [world.stamp_ns(n) for n in range(7)]
        assert [(m.frame_index, m.frames_skipped) for m in bench.instances] == [(n, 0) for n in range(7)]
        for message in bench.instances[2:6]:  # by OpenCV's flow, not by the world's own
            truth = world.labels(message.frame_index)
            assert agreement(label_image(message), truth) > agreement(world.labels(0), truth)


def agreement(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean IoU of both instances."""
    return float(np.mean([((found == i) & (truth == i)).sum() / ((found == i) | (truth == i)).sum() for i in (1, 2)]))


def test_a_seed_may_bring_its_image_along() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.image(0)
        bench.image(3)
        request = add_request(world.labels(2))
        fill_image(request.image, world.image(2), "rgb8")
        ns_to_stamp(world.stamp_ns(2), request.image.header.stamp)
        request.prompts[1].name = "cup"
        request.token = "client 7"
        assert bench.call(AddInstances, "add_instances", request).success
        bench.wait(lambda: bench.results and bench.results[-1].status == SeedResult.STATUS_APPLIED)
        said = bench.results  # the token is what a client knows its results by
        assert {(r.token, r.header.frame_id, stamp_to_ns(r.header.stamp)) for r in said} == {
            ("client 7", "", world.stamp_ns(2))
        }
        assert not bench.node._session.seeds.end_all("none is left")
        message = bench.image(4)
        np.testing.assert_array_equal(bench.labels, world.labels(4))
        assert [instance.label for instance in message.instances] == ["", "cup"]


def test_the_seed_command_waits_for_the_next_image_and_its_result(tmp_path: Path) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        write_labels(tmp_path / "seed.png", world.labels(0))
        statuses: list[int] = []
        command = threading.Thread(target=lambda: statuses.append(main(["seed", "--mask", str(tmp_path / "seed.png")])))
        command.start()
        bench.wait(lambda: bench.results and bench.results[-1].status == SeedResult.STATUS_PENDING)
        bench.image(0)
        command.join()
        assert statuses == [0]
        assert states(bench.image(1)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]


def test_reset_begins_a_new_session_and_enable_false_drops() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        assert bench.call(SetBool, "enable", SetBool.Request(data=False)).success
        bench.publish_image(1)
        bench.wait(lambda: bench.statuses[-1].dropped == 1 and not bench.statuses[-1].enabled)
        assert bench.call(SetBool, "enable", SetBool.Request(data=True)).success
        assert bench.image(2).frames_skipped == 1
        np.testing.assert_array_equal(bench.labels, world.labels(2))
        assert bench.call(Trigger, "reset", Trigger.Request()).success
        message = bench.image(3)
        assert (message.session, message.frame_index, list(message.instances)) == (2, 0, [])
        assert bench.seed(world.labels(3), world.stamp_ns(3)).status == SeedResult.STATUS_APPLIED


def test_a_status_with_an_event_shows_the_state_after_it() -> None:
    with NodeBench(world.exact_or_still_tracker, status_period=50.0 / 1000) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        bench.wait(lambda: any("seed applied" in status.event for status in bench.statuses))
        applied = next(status for status in bench.statuses if "seed applied" in status.event)
        assert (list(applied.ids), applied.seeds_waiting, applied.seeds_applied) == ([1, 2], 0, 1)
        bench.call(Trigger, "reset", Trigger.Request())
        bench.wait(lambda: any("session 2 begins" in status.event for status in bench.statuses))
        begun = next(status for status in bench.statuses if "session 2 begins" in status.event)
        assert (begun.session, list(begun.ids)) == (2, [])


def test_after_a_reset_another_size_is_taken_by_images_and_services() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        bench.call(Trigger, "reset", Trigger.Request())
        bench.wait(lambda: bench.statuses[-1].session == 2)
        assert bench.call(AddInstances, "add_instances", add_request(np.ones((40, 50)))).success
        bench.publish(bench.images, np.zeros((40, 50, 3), np.uint8), "rgb8", world.stamp_ns(1))
        bench.wait(lambda: len(bench.instances) == 2)
        assert states(bench.instances[1]) == [(1, InstanceMask.STATE_SEEDED)]


def test_disabled_stays_disabled_over_a_deactivation() -> None:
    with NodeBench() as bench:
        bench.call(SetBool, "enable", SetBool.Request(data=False))
        bench.node.trigger_deactivate()
        bench.node.trigger_activate()
        bench.wait_for_images()
        bench.publish_image(0)
        bench.wait(lambda: bench.statuses[-1].dropped == 1)


def test_a_stamp_that_goes_back_begins_a_new_session() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(4), world.stamp_ns(4))
        bench.image(4)
        bench.publish_image(4 + 60)  # a jump ahead keeps all
        for number in (65, 66):
            bench.publish_image(number)
        bench.wait(lambda: len(bench.instances) == 4)
        assert states(bench.instances[-1]) and bench.instances[-1].session == 1
        for number in (0, 1):
            bench.publish_image(number)
        bench.wait(lambda: bench.statuses[-1].waiting == 2)
        message = bench.image(2)
        assert [stamp_to_ns(m.header.stamp) for m in bench.instances[-3:]] == [world.stamp_ns(n) for n in (0, 1, 2)]
        assert (message.session, list(message.instances)) == (2, [])
        assert bench.statuses[-1].rejected == 0
        bench.wait(lambda: any("session 2 begins: time went back" in status.event for status in bench.statuses))


def test_one_late_image_and_one_an_hour_ahead_are_refused_warned_of_and_everything_lives(capfd) -> None:
    hour_ns = 3600 * 10**9
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        for number in (0, 1, 3):
            bench.image(number)
        bench.publish_image(2)
        bench.wait(lambda: bench.statuses[-1].rejected == 1)
        late = f"image {world.stamp_ns(2)}: stamp {world.stamp_ns(2)} ns is 40 ms older than the newest"
        assert bench.statuses[-1].last_error.startswith(late)
        bench.publish(bench.images, world.image(4), "rgb8", world.stamp_ns(4) + hour_ns)
        bench.wait(lambda: bench.statuses[-1].waiting == 1)
        assert {v.key: v.value for v in bench.statuses[-1].details}["held_stamps"] == str(world.stamp_ns(4) + hour_ns)
        message = bench.image(5)
        np.testing.assert_array_equal(bench.labels, world.labels(5))
        assert (message.session, [i for i, _ in states(message)]) == (1, [1, 2])
        status = bench.counts()
        assert (status.received, status.processed, status.rejected, status.waiting) == (6, 4, 2, 0)
        assert "3600.04 s ahead of the newest" in status.last_error
    assert late in capfd.readouterr().err


@pytest.mark.parametrize("encoding", ["none", "mono8", "bits", "rle", "prob8"])
def test_every_mask_encoding_gives_the_same_mask(encoding: str) -> None:
    with NodeBench(world.exact_or_still_tracker, mask_encoding=encoding) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        message = bench.image(1)
        for instance in message.instances:
            assert instance.encoding == MaskEncoding[encoding.upper()]
            assert instance.area == np.count_nonzero(world.labels(1) == instance.id)
            if encoding == "none":
                assert (len(instance.data), instance.box.width > 0) == (0, True)
            else:
                np.testing.assert_array_equal(full_mask(message, instance), world.labels(1) == instance.id)


def test_compressed_images_are_taken() -> None:
    with NodeBench(compressed=True, adaptation__method="none") as bench:
        message = CompressedImage(format="jpeg")
        coded = cv2.imencode(".jpg", world.image(0)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        message.data = array.array("B", coded.tobytes())
        for number in range(2):
            ns_to_stamp(world.stamp_ns(number), message.header.stamp)
            if number == 0:
                bench.seed(world.labels(0), world.stamp_ns(0))
            bench.images.publish(message)
            bench.wait(lambda number=number: len(bench.instances) == number + 1)
        overlap = np.count_nonzero(bench.labels == world.labels(0)) / world.labels(0).size
        assert overlap > 0.97  # the same picture twice


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
def test_the_subscription_follows_what_the_publisher_offers(reliability: ReliabilityPolicy) -> None:
    with NodeBench(image_qos=QoSProfile(depth=5, reliability=reliability)) as bench:
        bench.wait(
            lambda: bench.node.get_subscriptions_info_by_topic("/image")[0].qos_profile.reliability == reliability
        )
        bench.wait_for_images()
        for number in itertools.count():  # best effort may lose the first
            bench.publish_image(number)
            bench.executor.spin_once(timeout_sec=0.1)
            if bench.instances:
                break


def test_an_offer_that_does_not_match_is_warned_of_with_what_to_set(capfd: pytest.CaptureFixture[str]) -> None:
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    printed: list[str] = []

    def warned() -> bool:
        printed.append(capfd.readouterr().err)
        return "set image_reliability to auto or best_effort" in "".join(printed)

    with NodeBench(image_qos=best_effort, matched=False, image_reliability="reliable") as bench:
        bench.wait(warned)


# --- bad input ---


def image_message(**changes) -> Image:
    message = Image()
    fill_image(message, world.image(1), "rgb8")
    ns_to_stamp(world.stamp_ns(1), message.header.stamp)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def restamped(message: Image, sec: int, nanosec: int) -> Image:
    message.header.stamp = Time(sec=sec, nanosec=nanosec)
    return message


SMALL = np.zeros((40, 50, 3), np.uint8)
BAD_IMAGES = {
    "unknown encoding": (lambda: image_message(encoding="yuv999"), "yuv999"),
    "data too short": (lambda: image_message(data=array.array("B", bytes(100))), "got 100"),
    "step too small": (lambda: image_message(step=10), "10"),
    "zero size": (lambda: image_message(height=0, data=array.array("B")), "0"),
    "zero stamp": (lambda: restamped(image_message(), 0, 0), "stamp must be > 0 ns, got 0"),
    "negative seconds": (lambda: restamped(image_message(), -1, 0), "-1"),
    "nanoseconds too large": (lambda: restamped(image_message(), 1, 1_000_000_000), "1000000000"),
    "the same stamp again": (lambda: restamped(image_message(), 1, 0), "stamp must be newer"),
    "size change": (
        lambda: image_message(height=40, width=50, step=150, data=array.array("B", SMALL.tobytes())),
        "must be 128x96 (width x height) like those before, got 50x40",
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_rejected_counted_and_named_and_the_stream_goes_on(case: str) -> None:
    make, text = BAD_IMAGES[case]
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        bench.images.publish(make())
        bench.wait(lambda: bench.statuses[-1].rejected == 1 and bench.statuses[-1].waiting == 0)
        assert text in bench.statuses[-1].last_error and "\n" not in bench.statuses[-1].last_error

        def said() -> dict[str, str]:
            return {value.key: value.value for value in bench.diagnostics[-1].status[0].values}

        bench.wait(lambda: bool(bench.diagnostics) and said()["images rejected"] == "1")
        assert bench.diagnostics[-1].status[0].level == DiagnosticStatus.WARN and text in said()["last error"]
        message = bench.image(2)
        np.testing.assert_array_equal(bench.labels, world.labels(2))
        assert (message.session, len(bench.instances)) == (1, 2)


def seed_message(labels: np.ndarray, encoding: str = "mono16", stamp_ns: int | None = None) -> Image:
    message = Image()
    fill_image(message, labels.astype(np.uint8 if encoding == "mono8" else np.uint16), encoding)
    ns_to_stamp(world.stamp_ns(0) if stamp_ns is None else stamp_ns, message.header.stamp)
    return message


def relabelled(message: Image, **changes) -> Image:
    for name, value in changes.items():
        setattr(message, name, value)
    return message


ONES = np.ones((world.HEIGHT, world.WIDTH), int)
NEGATIVE = np.full((world.HEIGHT, world.WIDTH), -4, np.int32)
BAD_SEEDS = {
    "no pixel": (lambda: seed_message(0 * ONES), "at least one pixel"),
    "another size": (
        lambda: seed_message(np.ones((40, 50), int) * 3),
        "mask must be 128x96 (width x height) like the image, got 50x40",
    ),
    "id below 1": (
        lambda: relabelled(
            seed_message(ONES), encoding="32SC1", step=4 * world.WIDTH, data=array.array("B", NEGATIVE.tobytes())
        ),
        "ids must lie in 1..32767 (0 = background), got -4..-4",
    ),
    "id too large": (lambda: seed_message(40000 * ONES), "got 40000..40000"),
    "encoding": (lambda: relabelled(seed_message(ONES), encoding="rgb8"), "rgb8"),
    "too short": (lambda: relabelled(seed_message(ONES), data=array.array("B", bytes(9))), "got 9"),
    "nanoseconds": (lambda: restamped(seed_message(ONES), 1, 2_000_000_000), "2000000000"),
    "negative seconds": (lambda: restamped(seed_message(ONES), -5, 0), "-5"),
    "not held": (lambda: seed_message(3 * ONES, stamp_ns=5), "is not held"),
    "too many": (
        lambda: seed_message(3 + 10 * (np.arange(96)[:, None] // 20) + np.arange(128) // 13),
        "at most 32 instances (max_instances)",
    ),
}


@pytest.mark.parametrize("case", BAD_SEEDS)
def test_a_bad_seed_is_rejected_with_its_reason_and_disturbs_no_other(case: str) -> None:
    make, text = BAD_SEEDS[case]
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_APPLIED)
        message = make()
        bench.seeds.publish(message)
        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_REJECTED)
        assert text in bench.results[-1].reason and "\n" not in bench.results[-1].reason
        assert bench.results[-1].header == message.header
        bench.wait(lambda: bench.statuses[-1].seeds_rejected == 1)
        bench.wait(lambda: bench.diagnostics[-1].status[0].values[6].value == "1")
        assert states(bench.image(1)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]
        np.testing.assert_array_equal(bench.labels, world.labels(1))


BAD_REQUESTS = {
    "nothing": (lambda: AddInstances.Request(), "expected at least one prompt, got none"),
    "an empty prompt": (
        lambda: AddInstances.Request(prompts=[Prompt()]),
        "prompts[0]: a prompt needs a box or a point on the object, got neither",
    ),
    "another size": (
        lambda: add_request(np.ones((40, 50))),
        "mask must be 128x96 (width x height) like the image, got 50x40",
    ),
    "name": (
        lambda: AddInstances.Request(prompts=[mask_prompt(ONES > 0, name="x" * 10_000_000)]),
        "prompts[0]: name must have at most 64 characters, got 10000000: 'xxx",
    ),
    "token": (lambda: add_request(ONES, token="x" * 65), "token must have at most 64 characters, got 65"),
    "stamp": (lambda: AddInstances.Request(stamp=Time(sec=-1), prompts=[mask_prompt(ONES > 0)]), "-1"),
    "no pixel": (lambda: AddInstances.Request(prompts=[mask_prompt(ONES == 0)]), "at least one pixel"),
}


def test_bad_requests_are_answered_with_the_reason() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        for make, text in BAD_REQUESTS.values():
            answer = bench.call(AddInstances, "add_instances", make())
            assert not answer.success and text in answer.message, answer.message
            assert len(answer.message) <= 256 and len(bench.counts().last_error) <= 256
        for ids, text in (([], "got none"), ([9], "got [9]"), ([1, 9], "among [1, 2]")):
            answer = bench.call(RemoveInstances, "remove_instances", RemoveInstances.Request(ids=ids))
            assert not answer.success and text in answer.message
        assert states(bench.image(1)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]


def test_services_of_an_inactive_node_say_so() -> None:
    with NodeBench() as bench:
        bench.node.trigger_deactivate()
        answer = bench.call(Trigger, "reset", Trigger.Request())
        assert not answer.success and "must be active" in answer.message
        bench.node.trigger_activate()
        assert bench.call(Trigger, "reset", Trigger.Request()).success


def test_after_a_cleanup_a_new_session_begins() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        first = bench.image(0)
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert getattr(bench.node, f"trigger_{transition}")().name == "SUCCESS"
        bench.wait_for_images()
        message = bench.image(1)
        assert (first.session, message.session, message.run_id) == (1, 2, first.run_id)
        assert list(message.instances) == []


def test_another_node_of_the_same_name_is_said() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.publish_image(0)
        bench.client.create_publisher(InstanceMaskArray, "/tracker/instances", reliable(1))
        bench.wait(lambda: "2 publishers of ~/instances" in bench.diagnostics[-1].status[0].message)


def test_a_cleanup_frees_what_configure_loaded() -> None:
    with NodeBench() as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        session, tracker = weakref.ref(bench.node._session), weakref.ref(bench.node._session.tracker)
        assert session() is not None and tracker() is not None
        bench.node.trigger_deactivate()
        bench.node.trigger_cleanup()
        assert session() is None and tracker() is None


def test_all_messages_of_a_run_name_it_and_another_start_is_another_run() -> None:
    runs = []
    for _ in range(2):
        with NodeBench(world.exact_or_still_tracker) as bench:
            bench.seed(world.labels(0), world.stamp_ns(0))
            message = bench.image(0)
            bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_APPLIED)  # noqa: B023
            bench.seed(0 * world.labels(0), 0)  # what cannot be a seed
            assert bench.results[-1].status == SeedResult.STATUS_REJECTED
            assert {said.run_id for said in (*bench.statuses, *bench.results)} == {message.run_id}
            runs.append(message.run_id)
    assert len(set(runs)) == 2 and all(runs)


def test_a_seed_that_waits_at_deactivation_is_rejected_and_what_is_freed_is_said_to_be_removed() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        events = []
        bench.client.create_subscription(InstanceEvent, "/tracker/events", events.append, reliable(100))
        bench.wait(lambda: bench.node.count_subscribers("/tracker/events"))
        bench.seed(world.labels(0), world.stamp_ns(0))
        last = bench.image(0)
        request = add_request(9 * (world.labels(5) == 1), world.stamp_ns(5), token="mine")
        assert bench.call(AddInstances, "add_instances", request).success
        assert bench.node.trigger_deactivate().name == "SUCCESS"
        bench.wait(lambda: len([result for result in bench.results if result.token == "mine"]) == 2)
        statuses = [result.status for result in bench.results if result.token == "mine"]
        assert statuses == [SeedResult.STATUS_PENDING, SeedResult.STATUS_REJECTED]
        assert bench.results[-1].reason == "the node was deactivated"
        assert bench.node.trigger_cleanup().name == "SUCCESS"
        removed = InstanceMask.STATE_REMOVED
        bench.wait(lambda: len([event for event in events if event.after == removed]) == 2)
        assert [(e.id, e.session, e.header) for e in events[-2:]] == [(i, 1, last.header) for i in (1, 2)]
        assert bench.node.trigger_configure().name == bench.node.trigger_activate().name == "SUCCESS"
        bench.wait_for_images()
        assert states(bench.image(1)) == []
        assert len([event for event in events if event.after == removed]) == 2  # not a second time


def test_a_seed_behind_a_step_that_does_not_end_is_rejected_when_the_node_is_stopped() -> None:
    gate = Gate()
    gate.open()
    with NodeBench(gate.build) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        while gate.entered.acquire(blocking=False) or gate.permits.acquire(blocking=False):
            pass
        gate.is_open = False
        bench.publish_image(1)
        assert gate.entered.acquire(timeout=60)
        request = add_request(world.labels(2), world.stamp_ns(2), token="mine")
        assert bench.call(AddInstances, "add_instances", request).success
        bench.node.close()
        bench.wait(lambda: any(result.token for result in bench.results))
        gate.open()
        bench.wait(lambda: not bench.node.is_working)
        said = [(result.status, result.reason) for result in bench.results if result.token == "mine"]
        assert said == [(SeedResult.STATUS_REJECTED, "the node was stopped")]


def test_who_subscribes_later_hears_what_was_said_last() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        said = bench.image(1)
        late = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        heard = []
        bench.client.create_subscription(InstanceMaskArray, "/tracker/instances", heard.append, late)
        bench.client.create_subscription(TrackerStatus, "/tracker/status", heard.append, late)
        bench.wait(lambda: len(heard) >= 2)
        assert [message for message in heard if isinstance(message, InstanceMaskArray)] == [said]
        assert [list(message.ids) for message in heard if isinstance(message, TrackerStatus)] == [[1, 2]]


def test_deactivation_keeps_the_instances() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        bench.node.trigger_deactivate()
        bench.wait(lambda: bench.images.get_subscription_count() == 0)
        bench.node.trigger_activate()
        bench.wait_for_images()
        assert states(bench.image(3)) == [(1, InstanceMask.STATE_TRACKING), (2, InstanceMask.STATE_TRACKING)]
        np.testing.assert_array_equal(bench.labels, world.labels(3))


# --- parameters ---


def set_parameter(bench: NodeBench, name: str, value) -> tuple[bool, str]:
    request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    result = bench.call(SetParametersAtomically, "set_parameters_atomically", request).result
    return result.successful, result.reason


def test_parameters_are_the_settings_with_descriptions_and_ranges() -> None:
    with NodeBench() as bench:
        flat = {**to_flat(Config()), "status_period": 0.05, "refinement.enabled": False}
        for name, default, known in settings():
            assert bench.node.get_parameter(name).value == flat[name]
            descriptor = bench.node.describe_parameter(name)
            assert descriptor.description == (known.help if known.basic else f"Advanced. {known.help}")
            ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
            if known.low is not None:
                assert ranges[0].from_value == min(known.low, default if known.automatic is not None else known.low)


def test_parameters_change_live_where_it_makes_sense() -> None:
    with NodeBench() as bench:
        assert set_parameter(bench, "mask_encoding", "rle") == (True, "")
        assert set_parameter(bench, "presence.lost_after_frames", 3)[0]
        bench.wait(lambda: bench.node._session.config.presence.lost_after_frames == 3)
        bench.seed(world.labels(0), world.stamp_ns(0))
        assert bench.image(0).instances[0].encoding == MaskEncoding.RLE
        for name, value, text in (
            ("compressed", True, "takes effect at configure only"),
            ("quality", "high", "quality takes effect at configure only"),
            ("quality", "low", "quality: low is no value any more: write medium; with few pixels set working_size"),
            ("working_size", 300, "working_size takes effect at configure only"),
            ("flow.preset", "fast", "flow.preset takes effect at configure only"),
            ("mask_encoding", "gif", "must be one of none, mono8"),
            ("gate.enlarge", 0.5, "gate.enlarge"),
            ("catch_up.max_s", "1", "catch_up.max_s must be float, got str '1'"),
            ("presence.lost_after_frames", 3.5, "presence.lost_after_frames must be int, got float 3.5"),
            ("mask_encoding", None, "mask_encoding must be one of none, mono8"),
            ("autostart", False, "read-only"),
            ("", 1.0, "a parameter needs a name, got ''"),
        ):
            successful, reason = set_parameter(bench, name, value)
            assert not successful and text in reason, reason
        bench.node.trigger_deactivate()
        bench.node.trigger_cleanup()
        assert set_parameter(bench, "working_size", 64)[0]


def test_an_integer_is_taken_where_a_double_is_wanted_and_stays_a_double() -> None:
    with NodeBench(buffer__seconds=60) as bench:
        assert bench.node._session.config.buffer.seconds == 60.0
        for name, value in (("buffer.seconds", 20), ("buffer.seconds", 30.5), ("catch_up.max_s", 4)):
            assert set_parameter(bench, name, value) == (True, "")
            parameter = bench.node.get_parameter(name)
            assert (parameter.type_, parameter.value) == (Parameter.Type.DOUBLE, value)
            assert bench.node.describe_parameter(name).type == Parameter.Type.DOUBLE.value
        bench.wait(lambda: bench.node._session.config.catch_up.max_s == 4.0)


def test_a_named_absent_device_fails_configure_and_leaves_the_node_unconfigured() -> None:
    with NodeBench() as bench:
        bench.node.trigger_deactivate()
        bench.node.trigger_cleanup()
        assert set_parameter(bench, "device", "cuda:99")[0]
        assert bench.node.trigger_configure().name == "FAILURE"
        assert set_parameter(bench, "device", "cpu")[0]
        assert bench.node.trigger_configure().name == "SUCCESS"


def test_a_soft_mask_is_no_seed() -> None:
    soft = cv2.GaussianBlur(np.where(world.labels(0) == 1, 255, 0).astype(np.uint8), (0, 0), 1.5)
    with NodeBench(world.exact_or_still_tracker) as bench:
        result = bench.seed(soft.astype(np.int32), 0)
    assert result.status == SeedResult.STATUS_REJECTED
    assert "many values along edges: not a label image" in result.reason


def test_images_of_16_bits_have_the_depth_that_the_camera_fills() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        node = bench.node
        deep = np.zeros((world.HEIGHT, world.WIDTH), np.uint16)
        deep[0, 0] = 4095
        for stamp_ns in (world.stamp_ns(0), world.stamp_ns(1)):
            message = Image()
            fill_image(message, deep, "mono16")
            ns_to_stamp(stamp_ns, message.header.stamp)
            bench.images.publish(message)
            bench.wait(lambda at=stamp_ns: any(stamp_to_ns(m.header.stamp) == at for m in bench.instances))
        assert node._depth.bits == 12
