# SPDX-License-Identifier: Apache-2.0
"""Bags that were recorded before the messages changed: told in one line, never read as what they are not."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy")

from rosbags.highlevel import AnyReader
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from test_replay import STAMPS, TIMEOUT_S, WoodenTracker, in_lockstep

from maskrnn_ros.bags import BagReader
from maskrnn_ros.bags.definitions import difference, installed_hash
from maskrnn_ros.masks import MaskEncoding, encode, label_image
from maskrnn_ros.replay.player import play

ARRAY = "maskrnn_ros/msg/InstanceMaskArray"
OLD_HASH = "RIHS01_6fc5baa6174ea76ac42018c55caaa0ed3e81caa8434ccc1d9d05c985e0d5edd3"
"""Of InstanceMaskArray before the change."""
OLD = {
    "maskrnn_ros/msg/InstanceMask": """
uint8 STATE_SEEDED=1
uint8 STATE_TRACKING=2
uint8 STATE_OCCLUDED=3
uint8 STATE_LOST=4
uint8 STATE_REMOVED=5
uint8 ENCODING_NONE=0
uint8 ENCODING_MONO8=1
uint8 ENCODING_BITS=2
uint8 ENCODING_RLE=3
uint8 ENCODING_PROB8=4
int32 id
string label
uint8 state
uint32 age
uint32 frames_unseen
float32 score
float32 visibility
sensor_msgs/RegionOfInterest box
float32 centroid_x
float32 centroid_y
uint32 area
float32 velocity_x
float32 velocity_y
uint32 x
uint32 y
uint32 width
uint32 height
uint8 encoding
uint8[] data
""",
    ARRAY: """
std_msgs/Header header
uint32 image_height
uint32 image_width
uint32 session
uint64 frame_index
uint32 frames_skipped
InstanceMask[] instances
""",
}
MASK = np.zeros((20, 30), bool)
MASK[4:9, 3:11] = True


def old_store() -> Any:
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in OLD.items():
        store.register(get_types_from_msg(text, name))
    return store


def old_message(store: Any, stamp_ns: int) -> Any:
    """One instance, as the version before said it."""
    types = store.types
    box = types["sensor_msgs/msg/RegionOfInterest"](x_offset=3, y_offset=4, height=5, width=8, do_rectify=False)
    data = np.frombuffer(encode(MASK[4:9, 3:11], None, MaskEncoding.MONO8), np.uint8)
    shape = {"x": 3, "y": 4, "width": 8, "height": 5, "encoding": int(MaskEncoding.MONO8), "data": data}
    numbers = dict.fromkeys(("age", "frames_unseen", "centroid_x", "centroid_y", "velocity_x", "velocity_y"), 0)
    seen = {"id": 7, "label": "cup", "state": 2, "score": 0.9, "visibility": 1.0, "box": box, "area": 40}
    instance = types["maskrnn_ros/msg/InstanceMask"](**seen, **numbers, **shape)
    return types[ARRAY](
        header=header(store, stamp_ns),
        image_height=20,
        image_width=30,
        session=1,
        frame_index=0,
        frames_skipped=0,
        instances=[instance],
    )


def header(store: Any, stamp_ns: int) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


@pytest.fixture(params=[(8, StoragePlugin.SQLITE3), (9, StoragePlugin.MCAP)], ids=["sqlite3", "mcap"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Images, and what the old version said of them."""
    version, storage = request.param
    store = old_store()
    image = store.types["sensor_msgs/msg/Image"]
    with Writer(tmp_path / "bag", version=version, storage_plugin=storage) as writer:
        images = writer.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=store)
        masks = writer.add_connection("/tracker/instances", ARRAY, typestore=store)
        for stamp_ns in STAMPS:
            picture = image(header(store, stamp_ns), 20, 30, "mono8", 0, 30, np.zeros(600, np.uint8))
            writer.write(images, stamp_ns, store.serialize_cdr(picture, images.msgtype))
            writer.write(masks, stamp_ns + 1, store.serialize_cdr(old_message(store, stamp_ns), ARRAY))
    return tmp_path / "bag"


def test_old_masks_in_a_bag_are_told_with_both_hashes_and_images_are_not_concerned(bag: Path) -> None:
    with BagReader(bag) as reader:
        why = reader.difference("/tracker/instances")
        assert f"another definition of {ARRAY}, {OLD_HASH[:15]}..., installed is " in why and "\n" not in why
        assert installed_hash(ARRAY)[:15] in why
        assert reader.difference("/camera/image_raw") == ""


def test_old_masks_are_not_played_under_the_new_type(bag: Path) -> None:
    with WoodenTracker() as tracker:
        report = play(bag, lockstep=True, timeout_s=TIMEOUT_S, remap={"/tracker/instances": "/old/instances"})
    assert tracker.events == in_lockstep(STAMPS)
    assert report.published == {"/camera/image_raw": 5}
    assert "another definition" in report.skipped["/tracker/instances"]


def test_what_the_bag_says_of_itself_is_read_right_without_ros(bag: Path) -> None:
    with AnyReader([bag]) as reader:
        connections = [connection for connection in reader.connections if connection.msgtype == ARRAY]
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            np.testing.assert_array_equal(label_image(message), np.where(MASK, 7, 0))


def connection(msgtype: str, digest: str = "", text: str | None = None) -> Any:
    form = MessageDefinitionFormat.NONE if text is None else MessageDefinitionFormat.MSG
    return SimpleNamespace(msgtype=msgtype, digest=digest, msgdef=MessageDefinition(form, text or ""))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (connection(ARRAY, digest=installed_hash(ARRAY)), ""),
        (connection(ARRAY, digest=OLD_HASH), "another definition"),
        (connection(ARRAY), "recorded without the definition of maskrnn_ros/msg/InstanceMaskArray"),
        (connection(ARRAY, text="not a definition"), "recorded without the definition"),
        (connection("sensor_msgs/msg/Image"), ""),  # Humble's sqlite3 says nothing of types that do not change
        (connection("sensor_msgs/msg/RegionOfInterest", text="uint32 x_offset"), "another definition"),
        (connection("no_such_msgs/msg/Image", digest=OLD_HASH), ""),  # has no class either
        (connection("sensor_msgs/msg/NoSuch", digest=OLD_HASH), ""),
    ],
)
def test_definitions_are_compared_as_far_as_they_are_known(found: Any, said: str) -> None:
    why = difference(found)
    assert said in why and bool(said) == bool(why)


def test_without_described_hashes_they_come_from_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Humble installs none; the two ways must agree."""
    described = {name: installed_hash(name) for name in (ARRAY, "maskrnn_ros/msg/TrackerStatus")}
    monkeypatch.setattr(Path, "is_file", lambda self: self.suffix != ".json")
    for name, expected in described.items():
        assert installed_hash.__wrapped__(name) == expected


def test_the_same_is_known_where_nothing_is_sourced(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv/bin/maskrnn bag play` outside of make: the wheels lie in the environment, and no variable says so."""
    names = (ARRAY, "sensor_msgs/msg/Image", "no_such_msgs/msg/Image")
    sourced = [installed_hash.__wrapped__(name) for name in names]
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    if not Path(sysconfig.get_path("data"), "share", "sensor_msgs", "package.xml").is_file():
        pytest.skip("ROS 2 is not installed as wheels")
    assert [installed_hash.__wrapped__(name) for name in names] == sourced
    assert all(sourced[:2]) and not sourced[2]
