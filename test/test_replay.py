# SPDX-License-Identifier: Apache-2.0
"""Replay and seed client against a tracker of wood: real topics, one process."""

import os
import signal
import threading

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from test_bags import TWO, write_tree

from maskrnn_ros.bags import BagReader, from_davis
from maskrnn_ros.bags.convert import RELIABLE, _Channel
from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.labels import write_labels

pytest.importorskip("rclpy", reason="needs rclpy")
msg = pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from rclpy.executors import ExternalShutdownException  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from maskrnn_ros.commands.seed import APPLIED, REJECTED, TIMEOUT, publish_seed  # noqa: E402
from maskrnn_ros.image_messages import labels_from_image, stamp_to_ns  # noqa: E402
from maskrnn_ros.replay.player import message_class, play  # noqa: E402
from maskrnn_ros.ros.qos import client_node, reliable  # noqa: E402

TIMEOUT_S = 30.0
REMAP = {"/camera/seed_mask": "/tracker/seed_mask"}


class WoodenTracker:
    """Answers every image and seed, after one turn of a timer: what comes meanwhile is seen in ``events``."""

    def __init__(self, image_type=Image, image_topic="/camera/image_raw", on_image=None, seed_statuses=()):
        self.events = []
        self.seeds = []
        self.raw = []
        self._on_image = on_image or (lambda stamp_ns: True)
        self._statuses = seed_statuses or (msg.SeedResult.STATUS_APPLIED,)
        self._to_answer = []
        self._ready = threading.Event()
        self._client = client_node("tracker")
        self.node, self._executor = self._client.__enter__()
        self._instances = self.node.create_publisher(msg.InstanceMaskArray, "/tracker/instances", reliable(10))
        self._results = self.node.create_publisher(msg.SeedResult, "/tracker/seed_result", reliable(10))
        self._status = self.node.create_publisher(msg.TrackerStatus, "/tracker/status", reliable(10))
        self.node.create_subscription(image_type, image_topic, self._image, reliable(10), raw=True)
        self.node.create_subscription(Image, "/tracker/seed_mask", self._seed, reliable(10))
        self.node.create_timer(0.01, self._turn)
        self._is_open = True
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self):
        while self._is_open:
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return

    def _image(self, data):
        self.events.append(("image", cdr_stamp(data)))
        self.raw.append(data)
        if self._on_image(cdr_stamp(data)):
            self._to_answer.append(cdr_stamp(data))

    def _seed(self, message):
        self.events.append(("seed", stamp_to_ns(message.header.stamp)))
        self.seeds.append(message)
        for status in self._statuses:
            self._results.publish(msg.SeedResult(header=message.header, status=status, reason="because", ids=[1, 2]))

    def _turn(self):
        self._status.publish(msg.TrackerStatus())
        for stamp_ns in self._to_answer:
            answer = msg.InstanceMaskArray()
            answer.header.stamp.sec, answer.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            self.events.append(("answer", stamp_ns))
            self._instances.publish(answer)
        self._to_answer.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._is_open = False
        self._thread.join()
        self._client.__exit__(*exc_info)


@pytest.fixture
def bag(tmp_path):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", fps=10.0)
    return tmp_path / "bag"


STAMPS = [10**9 + i * 10**8 for i in range(5)]


def in_lockstep(stamps):
    return [event for stamp in stamps for event in (("image", stamp), ("answer", stamp))]


def test_lockstep_has_one_image_in_flight_and_the_seed_first(bag):
    with WoodenTracker() as tracker:
        report = play(bag, lockstep=True, remap=REMAP, timeout_s=TIMEOUT_S)
    assert tracker.events == [("seed", STAMPS[0]), *in_lockstep(STAMPS)]
    assert report.published == {"/camera/image_raw": 5, "/camera/ground_truth": 5, "/tracker/seed_mask": 1}
    assert not report.interrupted and not report.skipped and not report.rejected_seeds
    np.testing.assert_array_equal(labels_from_image(tracker.seeds[0]), TWO[0])


def test_lockstep_plays_compressed_images_and_loops(tmp_path):
    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", fps=10.0, compressed=True, storage="sqlite3")
    with WoodenTracker(CompressedImage, "/camera/image_raw/compressed") as tracker:
        report = play(tmp_path / "bag", lockstep=True, remap=REMAP, loops=2, timeout_s=TIMEOUT_S)
    assert tracker.events == [("seed", STAMPS[0]), *in_lockstep(STAMPS)] * 2
    assert report.published["/camera/image_raw/compressed"] == 10


def test_lockstep_goes_on_after_a_rejected_seed_and_reports_it(bag):
    with WoodenTracker(seed_statuses=(msg.SeedResult.STATUS_REJECTED,)) as tracker:
        report = play(bag, lockstep=True, remap=REMAP, timeout_s=TIMEOUT_S)
    assert tracker.events[1:] == in_lockstep(STAMPS)
    assert report.rejected_seeds == ("seed at 1.000000000 s: because",)


def test_answer_that_does_not_come_is_an_error_that_names_the_stamp(bag):
    with WoodenTracker(on_image=lambda stamp_ns: stamp_ns < STAMPS[2]) as tracker:
        with pytest.raises(
            TimeoutError, match=r"no answer on /tracker/instances to .*1\.200000000 s; waited 4"
        ) as caught:
            play(bag, lockstep=True, remap=REMAP, timeout_s=4.0)
    assert "\n" not in str(caught.value)
    assert tracker.events == [("seed", STAMPS[0]), *in_lockstep(STAMPS[:2]), ("image", STAMPS[2])]


def test_messages_arrive_byte_for_byte_in_real_time(bag):
    with WoodenTracker() as tracker:
        report = play(bag, rate=5.0, remap=REMAP, timeout_s=TIMEOUT_S)
        with BagReader(bag) as reader:
            recorded = [message.data for message in reader.messages(["/camera/image_raw"])]
        # every publication was acknowledged before play returned; the callbacks may still run
        assert wait_for(lambda: len(tracker.raw) == 5)
    assert tracker.raw == recorded
    assert report.published["/camera/ground_truth"] == 5 and report.late_ms_max >= report.late_ms_p95 >= 0


def wait_for(condition):
    tick, left = threading.Event(), 200
    while not condition() and left:
        tick.wait(0.05)
        left -= 1
    return condition()


def test_topics_can_be_left_out(bag):
    with WoodenTracker() as tracker:
        report = play(bag, lockstep=True, topics=(), timeout_s=TIMEOUT_S)
    assert report.published == {"/camera/image_raw": 5}
    assert tracker.events == in_lockstep(STAMPS)


def test_clock_runs_with_the_bag(bag):
    times = []
    with WoodenTracker() as tracker:
        tracker.node.create_subscription(
            Clock, "/clock", lambda clock: times.append(stamp_to_ns(clock.clock)), reliable(10)
        )
        play(bag, lockstep=True, remap=REMAP, publish_clock=True, timeout_s=TIMEOUT_S)
    # /clock is nobody's condition for the start: its first ticks may go by
    assert times and times == STAMPS[-len(times) :]


def test_ctrl_c_ends_it_with_a_report(bag):
    def interrupt(stamp_ns):
        if stamp_ns == STAMPS[3]:
            for _ in range(2):  # launch and timeout send it twice
                os.kill(os.getpid(), signal.SIGINT)
        return True

    with WoodenTracker(on_image=interrupt):
        report = play(bag, lockstep=True, remap=REMAP, loops=0, timeout_s=TIMEOUT_S)
    assert report.interrupted and report.published["/camera/image_raw"] >= 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"timeout_s": 0.2}, TimeoutError, "nobody subscribes to /camera/image_raw; waited 0.2 s"),
        ({"rate": 0.0}, ValueError, "rate must be > 0 and finite, got 0"),
        ({"rate": float("inf")}, ValueError, "rate must be"),
        ({"loops": -1}, ValueError, "loops must be >= 0, got -1"),
        ({"timeout_s": 0.0}, ValueError, "timeout must be > 0 s"),
        ({"image_topic": "/rgb"}, ValueError, "no topic /rgb; its topics are"),
        ({"topics": ("/rgb",)}, ValueError, "no topic /rgb"),
        ({"remap": {"/rgb": "/a"}}, ValueError, "no topic /rgb"),
        (
            {"lockstep": True, "remap": {"/camera/ground_truth": "/tracker/instances"}},
            ValueError,
            "/camera/ground_truth cannot be played in lockstep",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(bag, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        play(bag, **changes)
    assert "\n" not in str(caught.value)


def test_lockstep_without_a_tracker_names_its_topic(bag):
    with client_node("viewer") as (node, _):
        node.create_subscription(Image, "/camera/image_raw", lambda message: None, reliable(10))
        with pytest.raises(TimeoutError, match="nobody publishes /other/instances"):
            play(bag, lockstep=True, tracker="/other", topics=(), timeout_s=4.0)


def test_type_that_is_not_installed_has_no_class():
    assert message_class("sensor_msgs/msg/Image") is Image
    assert message_class("no_such_msgs/msg/Image") is None
    assert message_class("sensor_msgs/msg/NoSuch") is None


@pytest.mark.parametrize(("order", "flag"), [("little", 1), ("big", 0)])
def test_stamp_is_read_in_both_byte_orders(order, flag):
    data = bytes([0, flag, 0, 0]) + (7).to_bytes(4, order) + (8).to_bytes(4, order)
    assert cdr_stamp(data) == 7_000_000_008


@pytest.fixture
def mask_path(tmp_path):
    write_labels(tmp_path / "mask.png", TWO[0])
    return tmp_path / "mask.png"


@pytest.mark.parametrize(
    ("statuses", "code", "printed"),
    [
        ((msg.SeedResult.STATUS_APPLIED,), APPLIED, "applied: ids 1, 2"),
        ((msg.SeedResult.STATUS_PENDING, msg.SeedResult.STATUS_APPLIED), APPLIED, "pending: because\napplied"),
        ((msg.SeedResult.STATUS_REJECTED,), REJECTED, "rejected: because\n"),
    ],
)
def test_seed_client_says_what_became_of_the_seed(mask_path, capsys, statuses, code, printed):
    with WoodenTracker(seed_statuses=statuses) as tracker:
        assert publish_seed(mask_path, stamp_ns=STAMPS[1], timeout_s=TIMEOUT_S) == code
    assert capsys.readouterr().out.startswith(printed)
    assert tracker.events == [("seed", STAMPS[1])]
    np.testing.assert_array_equal(labels_from_image(tracker.seeds[0]), TWO[0])


def test_seed_client_waits_for_a_final_result(mask_path, capsys):
    with WoodenTracker(seed_statuses=(msg.SeedResult.STATUS_PENDING,)):
        assert publish_seed(mask_path, timeout_s=3.0) == TIMEOUT
    assert capsys.readouterr().out == "pending: because\ntimeout: no result on /tracker/seed_result; waited 3 s\n"


def test_seed_client_without_a_tracker_runs_out_of_time(mask_path, capsys):
    assert publish_seed(mask_path, timeout_s=0.2) == TIMEOUT
    assert capsys.readouterr().out == "timeout: nobody subscribes to /tracker/seed_mask; waited 0.2 s\n"


def test_seed_client_does_not_take_the_result_of_another(mask_path, capsys):
    with WoodenTracker() as tracker:
        answer = tracker._results.publish

        def both(result):
            foreign = msg.SeedResult(status=msg.SeedResult.STATUS_REJECTED, reason="not yours")
            foreign.header.stamp = result.header.stamp
            answer(foreign)
            answer(result)

        tracker._results.publish = both
        assert publish_seed(mask_path, stamp_ns=STAMPS[0], timeout_s=TIMEOUT_S) == APPLIED
    assert capsys.readouterr().out.startswith("applied")


def test_ids_above_255_go_as_mono16(tmp_path):
    write_labels(tmp_path / "mask.png", TWO[0] * 300)
    with WoodenTracker() as tracker:
        publish_seed(tmp_path / "mask.png", timeout_s=TIMEOUT_S)
    assert tracker.seeds[0].encoding == "mono16"
    np.testing.assert_array_equal(labels_from_image(tracker.seeds[0]), TWO[0] * 300)


def test_mask_without_an_instance_is_refused_before_the_tracker_is_asked(tmp_path):
    write_labels(tmp_path / "mask.png", np.zeros((4, 4), np.int32))
    with pytest.raises(ValueError, match="must mark at least one pixel"):
        publish_seed(tmp_path / "mask.png", timeout_s=TIMEOUT_S)


def test_tf_static_is_latched_whatever_the_bag_says(tmp_path):
    """Recorders in Python write no offer; then no listener takes it (rviz, issue 916; rosbag2, issue 1237)."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for name in ("/tf_static", "/robot/tf_static", "/tf"):
            writer.add_connection(name, "tf2_msgs/msg/TFMessage", typestore=store)
    with BagReader(tmp_path / "bag") as reader:
        assert {name: topic.is_latched for name, topic in reader.topics.items()} == {
            "/tf_static": True,
            "/robot/tf_static": True,
            "/tf": False,
        }


def test_messages_of_one_time_are_played_in_their_order(tmp_path):
    """As recorded with a simulator's clock (rosbag2, issue 2173)."""
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        images = _Channel(writer, "/camera/image_raw", "sensor_msgs/msg/Image")
        for stamp in STAMPS:
            images._write = lambda _, message: writer.write(
                images._connection, STAMPS[0], images._store.serialize_cdr(message, "sensor_msgs/msg/Image")
            )
            images.write_image(stamp, np.zeros((4, 4, 3), np.uint8), "rgb8")
    with BagReader(tmp_path / "bag") as reader:
        assert list(reader.times("/camera/image_raw")) == [(stamp, STAMPS[0]) for stamp in STAMPS]
    with WoodenTracker() as tracker:
        play(tmp_path / "bag", timeout_s=TIMEOUT_S)
        assert wait_for(lambda: len(tracker.raw) == 5)
    assert [cdr_stamp(data) for data in tracker.raw] == STAMPS


def test_topics_that_were_latched_are_latched_again(tmp_path):
    """As stock `ros2 bag play` does: who subscribes to /tf_static in mid-bag gets it."""
    latched = RELIABLE._replace(durability=QosDurability.TRANSIENT_LOCAL, depth=40)
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        notes = writer.add_connection(
            "/notes", "std_msgs/msg/String", typestore=store, offered_qos_profiles=[RELIABLE, latched]
        )
        images = _Channel(writer, "/camera/image_raw", "sensor_msgs/msg/Image")
        note = store.types["std_msgs/msg/String"]("kept")
        writer.write(notes, STAMPS[0], store.serialize_cdr(note, "std_msgs/msg/String"))
        for stamp in STAMPS:
            images.write_image(stamp, np.zeros((4, 4, 3), np.uint8), "rgb8")
    with BagReader(tmp_path / "bag") as reader:
        assert reader.topics["/notes"].is_latched and reader.topics["/notes"].depth == 40
        assert not reader.topics["/camera/image_raw"].is_latched
    offered = {}

    def look(stamp_ns):
        for topic in ("/notes", "/camera/image_raw"):
            for info in tracker.node.get_publishers_info_by_topic(topic):
                offered[topic] = info.qos_profile.durability
        return True

    with WoodenTracker(on_image=look) as tracker:
        play(tmp_path / "bag", lockstep=True, timeout_s=TIMEOUT_S)
    assert offered["/notes"] == QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert offered["/camera/image_raw"] == QoSDurabilityPolicy.VOLATILE
