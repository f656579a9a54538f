# SPDX-License-Identifier: Apache-2.0
"""The locator over real topics: masks, depth and camera_info in, positions out, and what does not fit reported."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

import rclpy  # noqa: E402
import simple_filters  # noqa: E402
import solid_world as solids  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from maskrnn_ros.image_messages import ns_to_stamp, stamp_to_ns  # noqa: E402
from maskrnn_ros.locator.locate import LocatorConfig, locate  # noqa: E402
from maskrnn_ros.locator.node import INTERFACES, LocatorNode  # noqa: E402
from maskrnn_ros.masks import MaskEncoding, encode  # noqa: E402
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, InstancePositionArray  # noqa: E402
from maskrnn_ros.overlay import colour  # noqa: E402
from maskrnn_ros.ros.messages import region_of_interest  # noqa: E402
from maskrnn_ros.ros.qos import client_node, reliable, spin_until  # noqa: E402
from maskrnn_ros.types import Box  # noqa: E402

TIMEOUT_S = 20.0
MS = 1_000_000
SCENE = solids.cast()
FRAME_ID = "camera_color_optical_frame"


@pytest.fixture(params=["simple", "real"])
def filters(request):
    if request.param == "simple":
        return simple_filters
    return pytest.importorskip("message_filters", reason="needs the ROS package message_filters")


def stamped(message, stamp_ns, frame_id=FRAME_ID):
    ns_to_stamp(stamp_ns, message.header.stamp)
    message.header.frame_id = frame_id
    return message


def depth_image(stamp_ns, pixels=None, encoding="16UC1", **changes):
    """Written byte by byte: what fills an image is no oracle for what reads it."""
    pixels = np.round(SCENE.depth * 1000).astype("<u2") if pixels is None else pixels
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.shape[1] * pixels.itemsize
    message.data = array.array("B", pixels.tobytes())
    return stamped(message, stamp_ns, **changes)


def camera_info(stamp_ns, **changes):
    known = solids.camera_info()
    message = CameraInfo(width=known.width, height=known.height, k=known.k, p=known.p, d=known.d)
    message.distortion_model = known.distortion_model
    return stamped(message, stamp_ns, **changes)


def masks(stamp_ns, encoding=MaskEncoding.RLE, height=solids.HEIGHT, **changes):
    """The ball, the box, and an instance that is not seen."""
    message = InstanceMaskArray(image_height=height, image_width=solids.WIDTH, run_id="this run", session=3)
    for instance_id, name in ((solids.BALL, "ball"), (solids.BOX, "")):
        mask = SCENE.labels == instance_id
        box = Box.of_mask(mask)
        instance = InstanceMask(id=instance_id, label=name, state=InstanceMask.STATE_TRACKING, area=int(mask.sum()))
        instance.encoding = int(encoding)
        if encoding != MaskEncoding.NONE:
            instance.box = region_of_interest(box)
            instance.data = array.array("B", encode(mask[box.slices], None, encoding))
        message.instances.append(instance)
    hidden = InstanceMask(id=7, label="cup", state=InstanceMask.STATE_OCCLUDED, encoding=int(encoding))
    message.instances.append(hidden)
    return stamped(message, stamp_ns, **changes)


class Bench:
    """The node in a thread, and a client; use it in a ``with`` statement."""

    def __init__(self, filters, best_effort=False, **parameters):
        names = {"status_period": 0.05, **parameters}
        self._filters = filters
        self._overrides = [Parameter(name, value=value) for name, value in names.items()]
        policy = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
        self._qos = QoSProfile(depth=20, reliability=policy)
        self.positions, self.diagnostics = [], []

    def __enter__(self):
        self._client = client_node("bench")
        self.client, self.executor = self._client.__enter__()
        create = self.client.create_publisher
        self.masks = create(InstanceMaskArray, "/instances", reliable(20))
        self.depth = create(Image, "/depth", self._qos)
        self.info = create(CameraInfo, "/camera_info", self._qos)
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = LocatorNode(self._filters, context=self._context, parameter_overrides=self._overrides)
        self._spinner = SingleThreadedExecutor(context=self._context)
        self._spinner.add_node(self.node)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self.subscribe(InstancePositionArray, "/locator/positions", self.positions)
        self.subscribe(DiagnosticArray, "/diagnostics", self.diagnostics)
        for publisher in (self.masks, self.depth, self.info):
            self.wait(publisher.get_subscription_count)
        self.settle()
        return self

    def settle(self):
        """Until the node asks for what is offered, and its answers come."""
        wanted = self._qos.reliability
        self.wait(lambda: self.qos_of("/depth") == self.qos_of("/camera_info") == [wanted])
        self.wait(lambda: self.diagnostics)

    def qos_of(self, topic):
        return [info.qos_profile.reliability for info in self.client.get_subscriptions_info_by_topic(topic)]

    def _spin(self):
        while not self._stopped.is_set():
            self._spinner.spin_once(timeout_sec=0.05)

    def __exit__(self, *error):
        self._stopped.set()
        self._thread.join()
        self._spinner.shutdown()
        self.node.close()
        rclpy.shutdown(context=self._context)
        self._client.__exit__(None, None, None)

    def subscribe(self, kind, topic, into):
        self.client.create_subscription(kind, topic, into.append, reliable(50))
        # the node has to know, too: it publishes some topics for subscribers only
        self.wait(lambda: any(p.topic_name == topic and p.get_subscription_count() for p in self.node.publishers))

    def wait(self, is_done):
        assert spin_until(self.executor, lambda: bool(is_done()), TIMEOUT_S), "waited in vain"

    def values(self):
        """The newest diagnostics as a dict; written after this call."""
        before = len(self.diagnostics)
        self.wait(lambda: len(self.diagnostics) > before + 1)
        return {pair.key: pair.value for pair in self.diagnostics[-1].status[0].values}

    def send(self, stamp_ns=1000 * MS, mask_message=None, depth=None, info=None):
        """Publish a set."""
        self.depth.publish(depth or depth_image(stamp_ns))
        self.info.publish(info or camera_info(stamp_ns))
        self.masks.publish(mask_message or masks(stamp_ns))

    def located(self, **what):
        """Publish a set and wait for its positions."""
        before = len(self.positions)
        self.send(**what)
        self.wait(lambda: len(self.positions) > before)
        return self.positions[-1]

    def refused(self, **what):
        """Publish a set that is refused; the reason."""
        before = int(self.values()["refused"])
        self.send(**what)
        self.wait(lambda: int(self.values()["refused"]) > before)
        levels = {entry.level for array in self.diagnostics for entry in array.status}
        assert DiagnosticStatus.WARN in levels
        return self.values()["last error"]


def xyz(point):
    return np.array([point.x, point.y, point.z])


def test_positions_are_those_of_the_scene_and_markers_and_points_show_them(filters):
    with Bench(filters) as bench:
        markers, clouds = [], []
        bench.subscribe(MarkerArray, "/locator/markers", markers)
        bench.subscribe(PointCloud2, "/locator/points", clouds)
        sent = masks(1234 * MS + 567)
        found = bench.located(stamp_ns=1234 * MS + 567, mask_message=sent)
        bench.wait(lambda: markers and clouds)
    assert found.header == sent.header
    assert found.session == 3
    assert [(i.id, i.label, i.state) for i in found.instances] == [(1, "ball", 2), (2, "", 2), (7, "cup", 3)]
    for instance in found.instances[:2]:
        truth = solids.surface(instance.id)
        assert np.linalg.norm(xyz(instance.centroid) - truth.mean(axis=0)) < 0.006, "metres"
        assert abs(instance.depth - np.median(truth[:, 2])) < 0.006
        depth = (np.round(SCENE.depth * 1000) / 1000).astype(np.float32)
        expected = locate(SCENE.labels == instance.id, 0, 0, depth, solids.camera(), LocatorConfig())
        assert np.allclose(xyz(instance.centroid), expected.centroid, atol=1e-6)
        assert np.allclose([xyz(instance.extent_min), xyz(instance.extent_max)], expected.extent, atol=1e-6)
        assert np.allclose(np.reshape(instance.covariance, (3, 3)), expected.covariance, atol=1e-9)
        assert (instance.area, instance.points) == (expected.area, len(expected.points))
        assert instance.inlier_share == pytest.approx(expected.inlier_share)
        assert not instance.reason
    check_hidden(found.instances[2])
    check_markers(markers[0], found)
    check_cloud(clouds[0], found)


def check_hidden(instance):
    assert (instance.area, instance.points) == (0, 0)
    assert "OCCLUDED" in instance.reason
    values = [instance.depth, *xyz(instance.centroid), *xyz(instance.extent_min), *instance.covariance]
    assert np.isnan(values).all()


def check_markers(message, found):
    first, *markers = message.markers
    assert first.action == Marker.DELETEALL
    assert [(m.ns, m.id, m.type) for m in markers] == [
        ("boxes", 1, Marker.CUBE),
        ("labels", 1, Marker.TEXT_VIEW_FACING),
        ("boxes", 2, Marker.CUBE),
        ("labels", 2, Marker.TEXT_VIEW_FACING),
    ]
    for marker in (first, *markers):
        assert marker.header == found.header
    for instance, box, text in zip(found.instances, markers[::2], markers[1::2], strict=False):
        low, high = xyz(instance.extent_min), xyz(instance.extent_max)
        assert np.allclose(xyz(box.pose.position) - xyz(box.scale) / 2, low)
        assert np.allclose(xyz(box.pose.position) + xyz(box.scale) / 2, high)
        assert 0 < text.scale.x < text.scale.z  # a space is no wider than a letter is high
        assert (box.pose.orientation.w, text.pose.orientation.w) == (1.0, 1.0)
        rgb = np.array([box.color.r, box.color.g, box.color.b])
        assert np.allclose(rgb * 255, colour(instance.id), atol=0.01)
        assert 0 < box.color.a < 1
        assert text.text == f"{instance.id} {instance.label} {instance.depth:.3f} m".replace("  ", " ")
        assert text.pose.position.y < low[1], "above it: y points down"
        assert text.scale.z > 0


def check_cloud(cloud, found):
    assert cloud.header == found.header
    kinds = {7: "<f4", 5: "<i4"}  # PointField.FLOAT32, INT32
    layout = {"names": [], "formats": [], "offsets": [], "itemsize": cloud.point_step}
    for field in cloud.fields:
        layout["names"].append(field.name)
        layout["formats"].append(kinds[field.datatype])
        layout["offsets"].append(field.offset)
    points = np.frombuffer(bytes(cloud.data), np.dtype(layout))
    assert len(points) == cloud.width * cloud.height == sum(i.points for i in found.instances)
    for instance in found.instances[:2]:
        own = points[points["id"] == instance.id]
        assert len(own) == instance.points
        mean = [own[axis].astype(float).mean() for axis in "xyz"]
        assert np.allclose(mean, xyz(instance.centroid), atol=1e-5)


def test_depth_in_metres_and_a_unit_give_the_same(filters):
    with Bench(filters) as bench:
        millimetres = bench.located(stamp_ns=10 * MS)
        rounded = (np.round(SCENE.depth * 1000) / 1000).astype("<f4")
        rounded[SCENE.labels == 0] = np.nan
        metres = bench.located(stamp_ns=20 * MS, depth=depth_image(20 * MS, rounded, "32FC1"))
    with Bench(filters, depth_unit=0.0002) as bench:
        steps = (np.round(SCENE.depth * 1000) * 5).astype("<u2")
        fifths = bench.located(stamp_ns=10 * MS, depth=depth_image(10 * MS, steps))
    for other in (metres, fifths):
        for one, two in zip(millimetres.instances[:2], other.instances[:2], strict=True):
            assert np.allclose(xyz(one.centroid), xyz(two.centroid), atol=1e-6)


def test_what_does_not_fit_is_refused_and_said_and_the_stream_goes_on():
    with Bench(simple_filters) as bench:
        line = bench.refused(stamp_ns=10 * MS, mask_message=masks(10 * MS, MaskEncoding.NONE))
        assert "id 1 comes without its mask (encoding NONE): set the tracker's parameter mask_encoding" in line
        line = bench.refused(stamp_ns=20 * MS, mask_message=masks(20 * MS, height=200))
        assert line == "depth must have the size of the masks 320 x 200, got 320 x 180"
        half = camera_info(30 * MS)
        half.binning_x = half.binning_y = 2
        line = bench.refused(stamp_ns=30 * MS, info=half)
        assert line == "camera_info must have the size of the masks 320 x 180, got 160 x 90"
        line = bench.refused(stamp_ns=40 * MS, depth=depth_image(40 * MS, frame_id="camera_depth_optical_frame"))
        assert "depth must be in the frame of the masks 'camera_color_optical_frame', got 'camera_depth_" in line
        line = bench.refused(stamp_ns=50 * MS, depth=depth_image(50 * MS, encoding="rgb8"))
        assert "encoding must be one of 16UC1, 32FC1, got 'rgb8'" in line
        bent = camera_info(60 * MS)
        bent.d = [0.1, 0.0, 0.0, 0.0, 0.0]
        assert "set distortion to rectified" in bench.refused(stamp_ns=60 * MS, info=bent)
        short = masks(70 * MS)
        short.instances[0].data = short.instances[0].data[:-4]
        assert "RLE runs must sum to" in bench.refused(stamp_ns=70 * MS, mask_message=short)
        assert stamp_to_ns(bench.located(stamp_ns=80 * MS).header.stamp) == 80 * MS
        assert len(bench.positions) == 1
        values = bench.values()
        assert (values["located"], values["refused"], values["internal errors"]) == ("1", "7", "0")


def test_stamps_that_never_meet_are_reported(filters):
    with Bench(filters, queue_size=2) as bench:
        for number in range(1, 5):
            bench.depth.publish(depth_image(number * 33 * MS))
            bench.info.publish(camera_info(number * 33 * MS))
            bench.masks.publish(masks(number * 33 * MS + 4 * MS))
        bench.wait(lambda: bench.values()["instances received"] == "4")
        bench.wait(lambda: any("none of" in array.status[0].message for array in bench.diagnostics))
        said = [array.status[0] for array in bench.diagnostics if "none of" in array.status[0].message]
        assert said[-1].level == DiagnosticStatus.WARN
        bench.wait(lambda: bench.values()["depth received"] == bench.values()["camera_info received"] == "4")
        values = bench.values()
        for name in ("instances", "depth", "camera_info"):
            assert [values[f"{name} {what}"] for what in ("received", "matched", "unmatched", "waiting")] == list(
                "4022"
            )
        assert bench.node.pairing.explain("instances").startswith("the nearest depth is -4.000 ms off")
        assert not bench.positions


def test_approximate_stamps_meet_and_the_masks_header_goes_out(filters):
    with Bench(filters, sync="approximate", slop=0.01) as bench:
        sent = masks(104 * MS)
        found = bench.located(mask_message=sent, depth=depth_image(100 * MS), info=camera_info(101 * MS))
        assert found.header == sent.header


def test_best_effort_publishers_are_heard_and_a_jump_back_is_survived(filters):
    with Bench(filters, best_effort=True, queue_size=3) as bench:
        for stamp in (5000, 5033, 5100, 5067, 5133):  # one is late
            bench.located(stamp_ns=stamp * MS)
        assert bench.values()["jumps in time"] == "0"
        for stamp in (10, 43, 76):
            bench.send(stamp_ns=stamp * MS)
        bench.wait(lambda: stamp_to_ns(bench.positions[-1].header.stamp) == 76 * MS)
        values = bench.values()
        assert (values["jumps in time"], values["instances matched"]) == ("1", "8")


def test_an_empty_array_is_answered():
    with Bench(simple_filters) as bench:
        empty = masks(10 * MS)
        empty.instances = []
        assert not bench.located(stamp_ns=10 * MS, mask_message=empty).instances
        assert bench.values()["refused"] == "0"


def test_the_interfaces_are_those_of_the_node():
    with Bench(simple_filters) as bench:
        name, space = bench.node.get_name(), bench.node.get_namespace()
        subscribed = dict(bench.node.get_subscriber_names_and_types_by_node(name, space))
        published = dict(bench.node.get_publisher_names_and_types_by_node(name, space))
        for found, kind in ((subscribed, "subscribes"), (published, "publishes")):
            own = {topic: types[0] for topic, types in found.items() if topic not in ("/parameter_events", "/rosout")}
            listed = {i.name: i.type.replace("/", "/msg/") for i in INTERFACES if i.kind == kind}
            assert {bench.node.resolve_topic_name(topic): type_ for topic, type_ in listed.items()} == own


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"erosion": -1}, "erosion"),
        ({"depth_min": 3.0, "depth_max": 2.0}, "depth_min must be < depth_max, got 3 and 2"),
        ({"sync": "nearest"}, "sync must be one of exact, approximate, got 'nearest'"),
        ({"slop": "soon"}, "slop"),
    ],
)
def test_a_bad_parameter_stops_the_start(parameters, message):
    context = Context()
    rclpy.init(args=[], context=context)
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    try:
        with pytest.raises(ValueError, match=message):
            LocatorNode(simple_filters, context=context, parameter_overrides=overrides)
    finally:
        rclpy.shutdown(context=context)


def test_without_message_filters_it_ends_with_one_line():
    code = (
        "import sys; sys.modules['message_filters'] = None\nfrom maskrnn_ros.locator.node import main\nsys.exit(main())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "locator: the ROS package message_filters is missing" in result.stderr


def test_it_imports_no_torch():
    code = "import sys, maskrnn_ros.locator.node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60).returncode == 0
