# SPDX-License-Identifier: Apache-2.0
"""Boxes of a detector, clicks and box prompts, over the real node's topics; and what it is all listed as."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from node_bench import NodeBench  # skips where ROS is absent, hence first

# isort: split

import world
from geometry_msgs.msg import Point, PointStamped
from rviz_scene import COARSE_Z, DEPTH_RESOLUTION, FIXED_FRAME, text_width
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import ns_to_stamp
from maskrnn_ros.msg import Prompt as PromptMessage
from maskrnn_ros.msg import SeedResult
from maskrnn_ros.prompts import Prompt
from maskrnn_ros.ros.image_plane import FRAME, to_pixel
from maskrnn_ros.ros.optional import optional
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.srv import AddInstances
from maskrnn_ros.tracker_node.node import INTERFACES
from maskrnn_ros.tracker_node.prompt_inputs import PromptInputs
from maskrnn_ros.tracking import Tracker
from maskrnn_ros.tracking.prompted import PromptedInstance, PromptSeed
from maskrnn_ros.types import Box, InstanceState, Seed

APPLIED, REJECTED = SeedResult.STATUS_APPLIED, SeedResult.STATUS_REJECTED
HEIGHT, WIDTH = 120, 160
RED, BLUE = Box(20, 30, 60, 70), Box(100, 40, 140, 100)
MATRIX = [100.0, 0.0, 80.0, 0.0, 100.0, 60.0, 0.0, 0.0, 1.0]


def still_tracker(config: Config) -> Tracker:
    """Nothing moves."""
    return Tracker(world.unrefined(config), lambda now, _: np.zeros((2, *now.shape[:2]), np.float32))


def picture() -> np.ndarray:
    """Two plain objects on a grey that is a little uneven."""
    noise = np.random.default_rng(0).integers(0, 12, (HEIGHT, WIDTH, 3))
    image = (110 + noise).astype(np.uint8)
    image[RED.slices] = (200, 30, 30)
    image[BLUE.slices] = (30, 30, 200)
    return image


class Bench(NodeBench):
    def __init__(self, **parameters: Any) -> None:
        # GrabCut goes by colours, of which these pictures are made
        super().__init__(still_tracker, **{"prompts.backend": "grabcut", "seed_timeout": 30.0, **parameters})

    def __enter__(self) -> Bench:
        super().__enter__()
        self._number = 0
        return self

    def show(self) -> Any:
        """Publish the picture again and wait for its masks."""
        self._number += 1
        before = len(self.instances)
        self.publish(self.images, picture(), "rgb8", self._number * 10_000_000)
        self.wait(lambda: len(self.instances) > before and len(self.label_images) > before)
        return self.instances[-1]

    def publisher(self, kind: Any, topic: str) -> Any:
        publisher = self.client.create_publisher(kind, topic, reliable(10))
        self.wait(publisher.get_subscription_count)
        return publisher

    def outcome(self, status: int, text: str = "") -> Any:
        """Wait for a result that was not asked for before."""

        def found() -> list[Any]:
            return [r for r in self.results if r.status == status and text in r.reason]

        self.wait(found)
        (result,) = found()
        self.results.remove(result)
        return result

    def iou(self, instance_id: int, box: Box) -> float:
        wanted = np.zeros((HEIGHT, WIDTH), bool)
        wanted[box.slices] = True
        found = self.labels == instance_id
        return float((found & wanted).sum() / (found | wanted).sum())


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as started:
        yield started


def clicked(x: float, y: float, z: float = 0.0, frame_id: str = "camera", stamp_ns: int = 0) -> PointStamped:
    message = PointStamped(point=Point(x=x, y=y, z=z))
    message.header.frame_id = frame_id
    ns_to_stamp(stamp_ns, message.header.stamp)
    return message


def test_boxes_and_points_of_one_request_become_the_objects_they_are_on(bench: Bench) -> None:
    request = AddInstances.Request(
        prompts=[
            PromptMessage(name="blue", box=RegionOfInterest(x_offset=95, y_offset=35, width=50, height=70)),
            PromptMessage(name="red", x=[40.5], y=[50.5]),
        ]
    )
    answer = bench.call(AddInstances, "add_instances", request)
    assert (answer.success, list(answer.ids)) == (True, [1, 2])
    message = bench.show()
    assert [(i.id, i.label) for i in message.instances] == [(1, "blue"), (2, "red")]
    assert bench.iou(1, BLUE) > 0.95 and bench.iou(2, RED) > 0.95
    assert list(bench.outcome(APPLIED).ids) == [1, 2]


def test_the_cut_runs_in_the_worker_and_services_answer_meanwhile(bench: Bench) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        inside.set()
        assert threading.current_thread().name == "tracker" and go_on.wait(60)
        mask = np.zeros(image.shape[:2], bool)
        mask[prompt.box.slices] = True
        return mask

    bench.node._session._prompts = slow
    prompt = PromptMessage(box=RegionOfInterest(x_offset=20, y_offset=30, width=40, height=40))
    request = AddInstances.Request(prompts=[prompt])
    assert list(bench.call(AddInstances, "add_instances", request).ids) == [1]
    bench.publish(bench.images, picture(), "rgb8", 5)
    assert inside.wait(60)
    prompt.box.x_offset = 90
    assert list(bench.call(AddInstances, "add_instances", request).ids) == [2]
    assert not bench.instances
    go_on.set()
    bench.outcome(APPLIED)
    bench.show()
    assert bench.iou(1, RED) == 1


def test_a_click_starts_what_it_is_on_and_not_twice(bench: Bench) -> None:
    click = bench.publisher(Point, "/tracker/click")
    bench.show()
    click.publish(Point(x=40.0, y=50.0))
    bench.outcome(SeedResult.STATUS_PENDING)
    click.publish(Point(x=42.0, y=50.0))  # a shaky double click: the first has no mask yet
    bench.outcome(SeedResult.STATUS_PENDING)
    bench.show()
    assert bench.iou(1, RED) > 0.95
    assert list(bench.outcome(APPLIED).ids) == [1]
    assert "instance 1 is there already" in bench.outcome(REJECTED).reason
    click.publish(Point(x=30.0, y=60.0))
    assert "click (30, 60) lies on instance 1, which is followed already" in bench.outcome(REJECTED).reason
    click.publish(Point(x=161.0, y=5.0))
    assert "points must lie inside the 160x120 image, got (161, 5)" in bench.outcome(REJECTED).reason
    assert bench.call(Trigger, "reset", Trigger.Request()).success
    click.publish(Point(x=30.0, y=60.0))  # nothing is there any more
    bench.outcome(SeedResult.STATUS_PENDING)
    bench.show()
    assert bench.iou(1, RED) > 0.95


def test_a_stamped_click_is_a_pixel_or_a_point_of_the_world(bench: Bench) -> None:
    click = bench.publisher(PointStamped, "/tracker/click_stamped")
    infos = bench.publisher(CameraInfo, "/camera_info")
    click.publish(clicked(40.0, 50.0))
    assert "needs an image before it" in bench.outcome(REJECTED).reason
    bench.show()
    bench.show()
    sent = clicked(40.0, 50.0, stamp_ns=10_000_000)
    click.publish(sent)  # on an image of the past
    assert bench.outcome(APPLIED).header == sent.header
    click.publish(clicked(0.8, 0.2, 2.0, stamp_ns=77))
    assert "needs a camera_info, none came on /camera_info" in bench.outcome(REJECTED).reason
    infos.publish(CameraInfo(width=WIDTH, height=HEIGHT, k=MATRIX))
    bench.wait(lambda: bench.node._inputs._info)
    click.publish(clicked(0.8, 0.2, -2.0))
    assert "in front of the camera (z > 0), got (0.8, 0.2, -2)" in bench.outcome(REJECTED).reason
    if optional("tf2_ros") is None:
        click.publish(clicked(0.8, 0.2, 2.0, frame_id="map"))
        assert "a point in frame 'map' needs tf2_ros" in bench.outcome(REJECTED).reason
    sent = clicked(0.8, 0.2, 2.0, stamp_ns=77)  # column 100 * 0.8 / 2 + 80, row 100 * 0.2 / 2 + 60
    click.publish(sent)
    bench.show()
    assert bench.outcome(APPLIED).header == sent.header
    assert bench.iou(2, BLUE) > 0.95


def test_a_point_in_the_plane_of_the_markers_is_a_pixel_of_the_next_image(bench: Bench) -> None:
    """As RViz2's Publish Point gives it: with a coarse z, and the time of the click, which is that of no image."""
    click = bench.publisher(PointStamped, "/tracker/click_stamped")
    bench.show()
    column, row = 30.0, 60.0  # on RED
    sent = clicked(column / WIDTH, -row / WIDTH, COARSE_Z, stamp_ns=77, frame_id=FIXED_FRAME)
    click.publish(sent)
    assert "waits for the next image" in bench.outcome(SeedResult.STATUS_PENDING).reason
    bench.show()
    assert bench.outcome(APPLIED).header == sent.header
    assert bench.iou(1, RED) > 0.95
    click.publish(clicked(1.5, -0.1, COARSE_Z, frame_id=FIXED_FRAME))
    assert "points must lie inside the 160x120 image" in bench.outcome(REJECTED).reason


def test_a_point_in_another_frame_goes_by_its_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.sqrt(0.5)

    class Buffer:
        def lookup_transform(self, target: str, source: str, time: Any) -> Any:
            assert (target, time.nanoseconds) == ("camera", 0)
            if source != "map":
                raise LookupError(f"{source} does\nnot exist")
            turn = types.SimpleNamespace(x=0.0, y=0.0, z=half, w=half)  # x to y, y to -x
            return types.SimpleNamespace(
                transform=types.SimpleNamespace(rotation=turn, translation=types.SimpleNamespace(x=0.5, y=0.0, z=1.0))
            )

    class Listener:
        def __init__(self, buffer: Buffer, node: Any) -> None: ...
        def unregister(self) -> None: ...

    fake = types.ModuleType("tf2_ros")
    fake.__dict__.update(Buffer=Buffer, TransformListener=Listener, TransformException=LookupError)
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    with Bench() as bench:
        click = bench.publisher(PointStamped, "/tracker/click_stamped")
        bench.publisher(CameraInfo, "/camera_info").publish(CameraInfo(width=WIDTH, height=HEIGHT, k=MATRIX))
        bench.wait(lambda: bench.node._inputs._info)
        bench.show()
        click.publish(clicked(0.2, -0.3, 1.0, frame_id="lost"))
        assert "no transform from 'lost' to 'camera': lost does not exist" in bench.outcome(REJECTED).reason
        click.publish(clicked(0.2, -0.3, 1.0, frame_id="map"))  # (0.3 + 0.5, 0.2, 2) in the camera's frame
        bench.show()
        bench.outcome(APPLIED)
        assert bench.iou(1, BLUE) > 0.95


def test_markers_outline_the_mask_in_the_plane_of_the_image(bench: Bench) -> None:
    arrays: list[Any] = []
    bench.client.create_subscription(MarkerArray, "/tracker/markers", arrays.append, reliable(10))
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[RED.slices] = 3
    labels[45:55, 35:45] = 0  # a hole
    bench.publish_seed(labels, 0)
    bench.wait(lambda: bench.results)
    published = {publisher.topic_name: publisher for publisher in bench.node.publishers}
    bench.wait(published["/tracker/markers"].get_subscription_count)
    message = bench.show()
    bench.wait(lambda: arrays)
    clear, outline, label = arrays[-1].markers
    assert clear.action == Marker.DELETEALL
    assert (outline.type, label.type, label.text) == (Marker.LINE_LIST, Marker.TEXT_VIEW_FACING, "3")
    assert text_width(label) < 0.5 and label.scale.x > 0
    for marker in (outline, label):
        assert marker.pose.position.z > 10 * DEPTH_RESOLUTION  # seen from anywhere before the picture
        assert (marker.header.frame_id, marker.header.stamp) == (FRAME, message.header.stamp)
        assert (marker.id, marker.color.a, marker.pose.orientation.w) == (3, 1.0, 1.0)
    corners = {to_pixel(point.x, point.y, (HEIGHT, WIDTH)) for point in outline.points}
    assert {(round(x, 6), round(y, 6)) for x, y in corners} >= {(20.5, 30.5), (59.5, 30.5), (59.5, 69.5), (20.5, 69.5)}
    assert sum(35 < x < 45 or 45 < y < 55 for x, y in corners) >= 4  # the hole's
    assert all(-HEIGHT / WIDTH <= point.y <= 0 <= point.x <= 1 and point.z == 0 for point in outline.points)


def test_markers_are_made_only_while_somebody_listens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    arrays: list[Any] = []
    monkeypatch.setattr(
        "maskrnn_ros.tracker_node.outputs.marker_array", lambda *given: made.append(given) or MarkerArray()
    )
    bench.show()
    assert not made
    bench.client.create_subscription(MarkerArray, "/tracker/markers", arrays.append, reliable(10))
    published = {publisher.topic_name: publisher for publisher in bench.node.publishers}
    bench.wait(published["/tracker/markers"].get_subscription_count)
    bench.show()
    bench.wait(lambda: arrays)
    assert len(made) == 1


def test_what_counts_as_there_for_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrnn_ros.tracker_node.prompt_inputs.Frames", lambda node: None)
    node = types.SimpleNamespace(create_subscription=lambda *_: None)
    live = {1, 2, 3, 4}
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[RED.slices] = 3
    box = PromptedInstance(prompt=Prompt(box=BLUE), instance_id=4)
    marked = [Seed(stamp_ns=0, labels=labels), PromptSeed(stamp_ns=0, prompted=(box,))]
    inputs = PromptInputs(
        node, take=print, reject=print, live=lambda: tuple(live), marked=lambda: marked, config=Config
    )

    def seen(*tracks: tuple[int, Box | None, InstanceState]) -> None:
        found = [types.SimpleNamespace(instance_id=i, box=box, state=status) for i, box, status in tracks]
        inputs.newest = types.SimpleNamespace(tracks=types.SimpleNamespace(tracks=found))

    assert inputs._occupied() == [RED, BLUE]
    one, two = Box(0, 0, 9, 9), Box(20, 0, 29, 9)
    seen((1, one, InstanceState.TRACKING), (2, two, InstanceState.TRACKING))
    assert inputs._occupied() == [one, two, RED, BLUE]
    seen((1, None, InstanceState.OCCLUDED), (2, None, InstanceState.LOST), (4, BLUE, InstanceState.SEEDED))
    assert inputs._occupied() == [one, BLUE, RED]  # where it was hidden; one that is lost may be anywhere
    live.clear()
    assert inputs._occupied() == []


def detections(*found: tuple[Box, str, float], stamp_ns: int = 0) -> Any:
    messages = pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")
    out = messages.Detection2DArray()
    ns_to_stamp(stamp_ns, out.header.stamp)
    out.header.frame_id = "detector"
    for box, name, score in found:
        detection = messages.Detection2D()
        detection.bbox.center.position.x, detection.bbox.center.position.y = (
            (box.x0 + box.x1) / 2,
            (box.y0 + box.y1) / 2,
        )
        detection.bbox.size_x, detection.bbox.size_y = float(box.width), float(box.height)
        hypothesis = messages.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = name, score
        detection.results = [hypothesis]
        out.detections.append(detection)
    return out


def test_a_detector_starts_each_object_once_and_gets_boxes_back() -> None:
    messages = pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")
    around = Box(RED.x0 - 3, RED.y0 - 3, RED.x1 + 3, RED.y1 + 3)
    with Bench(prompts__min_score=0.4) as bench:
        arrays: list[Any] = []
        bench.client.create_subscription(messages.Detection2DArray, "/tracker/detections", arrays.append, reliable(10))
        boxes = bench.publisher(messages.Detection2DArray, "/tracker/seed_box")
        bench.show()
        first = detections((around, "red", 0.9), (BLUE, "blue", 0.3))
        boxes.publish(first)
        assert bench.outcome(SeedResult.STATUS_PENDING).header == first.header
        boxes.publish(detections((RED, "red", 0.8)))  # the first one waits still
        boxes.publish(detections((Box(300, 30, 310, 40), "outside", 0.9)))
        assert "box must overlap the 160x120 image" in bench.outcome(REJECTED).reason
        message = bench.show()
        assert list(bench.outcome(APPLIED).ids) == [1] and bench.iou(1, RED) > 0.95
        boxes.publish(detections((RED, "red", 0.9), (BLUE, "blue", 0.5)))
        bench.outcome(SeedResult.STATUS_PENDING)
        message = bench.show()
        assert list(bench.outcome(APPLIED).ids) == [2] and not bench.results
        assert [(i.id, i.label) for i in message.instances] == [(1, "red"), (2, "blue")]
        bench.wait(lambda: arrays and len(arrays[-1].detections) == 2)
        assert arrays[-1].header == message.header
        for detection, instance in zip(arrays[-1].detections, message.instances, strict=True):
            assert detection.id == str(instance.id) and detection.header == message.header
            assert detection.results[0].hypothesis.class_id == instance.label
            assert detection.bbox.center.position.x == instance.box.x_offset + instance.box.width / 2
            assert detection.bbox.size_y == instance.box.height


STANDARD = ("rcl_interfaces/", "lifecycle_msgs/", "rosgraph_msgs/", "type_description_interfaces/")
"""Types of what rclpy gives every node."""


def test_the_node_has_what_its_table_says(bench: Bench) -> None:
    def found(names_and_types: list[tuple[str, Any]]) -> set[tuple[str, str]]:
        slim = {(name, f"{kind.__module__.partition('.')[0]}/{kind.__name__}") for name, kind in names_and_types}
        return {(name, kind) for name, kind in slim if not kind.startswith(STANDARD)}

    def listed(kind: str) -> set[tuple[str, str]]:
        there = [i for i in INTERFACES if i.kind == kind and (not i.needs or optional(i.needs) is not None)]
        return {(bench.node.resolve_topic_name(i.name), i.type) for i in there}

    # its handles, not the graph: in that the node of an earlier test may still be seen
    node = bench.node
    assert found([(p.topic_name, p.msg_type) for p in node.publishers]) == listed("publishes")
    assert found([(s.topic_name, s.msg_type) for s in node.subscriptions]) == listed("subscribes")
    assert found([(node.resolve_service_name(s.srv_name), s.srv_type) for s in node.services]) == listed("serves")
