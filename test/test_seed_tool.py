# SPDX-License-Identifier: Apache-2.0
"""The seeding tool, driven as RViz2 and rqt_image_view would: synthetic feedback over real topics and services."""

from __future__ import annotations

import array
import doctest
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import world
from seed_bench import TIMEOUT_S, TOOL, SeedBench  # skips where ROS is absent, hence first

# isort: split

import rclpy
from geometry_msgs.msg import Point
from matplotlib.path import Path
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from visualization_msgs.msg import (
    InteractiveMarkerControl,
    InteractiveMarkerFeedback,
    InteractiveMarkerUpdate,
    Marker,
    MarkerArray,
)

from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult
from maskrnn_ros.ros import image_plane, seed_markers
from maskrnn_ros.ros.images import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.ros.qos import client_node, reliable, spin_until
from maskrnn_ros.ros.seed_menu import ENTRIES, chosen, menu
from maskrnn_ros.ros.seed_tool import INTERFACES, SeedTool
from maskrnn_ros.srv import AddInstances, RemoveInstances

WIDTH, HEIGHT = world.WIDTH, world.HEIGHT
TRIANGLE = ((10.3, 12.6), (100.2, 30.1), (40.7, 88.4))


def inside(vertices) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], 1)
    return Path([*vertices, vertices[0]]).contains_points(centres).reshape(HEIGHT, WIDTH)


class FakeTracker:
    """The tracker's services, and what they were asked."""

    def __init__(self) -> None:
        self.added: list = []
        self.removed: list = []
        self.resets = 0
        self.refuse = ""

    def subscribe(self, node) -> None:
        self.answer = self._add
        node.create_service(AddInstances, "/tracker/add_instances", lambda *both: self.answer(*both))
        node.create_service(RemoveInstances, "/tracker/remove_instances", self._remove)
        node.create_service(Trigger, "/tracker/reset", self._reset)
        self.instances = node.create_publisher(InstanceMaskArray, "/tracker/instances", reliable(10))
        self.results = node.create_publisher(SeedResult, "/tracker/seed_result", reliable(10))

    def live(self, bench, **names) -> None:
        live = [InstanceMask(id=int(i[1:]), label=name, state=2) for i, name in names.items()]
        gone = InstanceMask(id=99, state=InstanceMask.STATE_REMOVED)
        bench.wait(self.instances.get_subscription_count)
        self.instances.publish(InstanceMaskArray(instances=[*live, gone]))
        bench.wait(lambda: bench.node._tracker.instances.keys() == {instance.id for instance in live})

    def result(self, request, status, reason="", ids=(7,)) -> None:
        self.results.publish(SeedResult(header=request.mask.header, status=status, reason=reason, ids=list(ids)))

    def _add(self, request, response):
        self.added.append(request)
        response.success, response.message, response.ids = not self.refuse, self.refuse, [7]
        return response

    def _remove(self, request, response):
        self.removed.append(list(request.ids))
        response.success, response.message = not self.refuse, self.refuse
        return response

    def _reset(self, request, response):
        self.resets += 1
        response.success = True
        return response


@pytest.fixture
def tracker():
    return FakeTracker()


@pytest.fixture
def bench(tracker):
    with SeedBench(tracker.subscribe) as bench:
        client = bench.node._tracker
        bench.wait(lambda: all(c.service_is_ready() for c in (client._add, client._remove, client._reset)))
        bench.wait(tracker.results.get_subscription_count)
        yield bench


# --- what RViz2 gets ---


def test_examples() -> None:
    for module in (image_plane, seed_markers):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)


def test_plane_and_pixels_are_each_other_s_inverse() -> None:
    columns, rows = np.array([0.0, 13.7, 128.0]), np.array([0.0, 50.2, 96.0])
    x, y = image_plane.to_plane(columns, rows, 128)
    assert (x.max(), y.min(), y.max()) == (1.0, -0.75, 0.0)
    np.testing.assert_allclose(image_plane.to_pixel(x, y, 128), (columns, rows))


def sampled(marker, column: float, row: float) -> np.ndarray:
    """The colour RViz2 would show at that pixel position: by triangle, barycentric uv, and the texture, v down."""
    picture = cv2.cvtColor(cv2.imdecode(np.array(marker.texture.data), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    point = np.array([column / WIDTH, -row / WIDTH, 1.0])
    for first in range(0, len(marker.points), 3):
        corners = np.array([[p.x, p.y, 1.0] for p in marker.points[first : first + 3]]).T
        weights = np.linalg.solve(corners, point)
        if (weights >= -1e-9).all():
            uv = weights @ np.array([[c.u, c.v] for c in marker.uv_coordinates[first : first + 3]])
            return picture[int(uv[1] * picture.shape[0]), int(uv[0] * picture.shape[1])].astype(int)
    raise AssertionError("no triangle covers the point")


def test_the_frozen_image_is_a_textured_quad_field_by_field(bench) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)  # every quarter in a colour of its own
    picture[:48, :64], picture[:48, 64:] = (250, 0, 0), (0, 250, 0)
    picture[48:, :64], picture[48:, 64:] = (0, 0, 250), (250, 250, 0)
    sent = bench.image(picture, 5_000_000_123)
    bench.wait(lambda: bench.updates and bench.updates[-1].markers[0].controls[0].markers[0].texture_resource)
    update = bench.updates[-1]
    (marker,) = update.markers
    assert (update.type, list(update.poses), list(update.erases)) == (InteractiveMarkerUpdate.UPDATE, [], [])
    assert (marker.name, marker.description, marker.scale) == ("image", "", 1.0)
    assert (marker.header.frame_id, stamp_to_ns(marker.header.stamp)) == ("maskrnn_image", 0)
    assert (marker.pose.orientation.w, marker.pose.position) == (1.0, Point())
    (control,) = marker.controls
    assert (control.name, control.interaction_mode) == ("image", InteractiveMarkerControl.BUTTON)
    assert (control.always_visible, control.orientation_mode) == (True, InteractiveMarkerControl.INHERIT)
    (quad,) = control.markers
    assert (quad.type, quad.action, quad.header.frame_id) == (Marker.TRIANGLE_LIST, Marker.ADD, "")
    assert (quad.scale.x, quad.scale.y, quad.scale.z) == (1.0, 1.0, 1.0)
    assert (quad.color.r, quad.color.g, quad.color.b, quad.color.a) == (1.0, 1.0, 1.0, 1.0)
    assert len(quad.colors) == 0 and quad.pose.orientation.w == 1.0
    assert quad.texture_resource == "embedded://frozen_5_000000123"
    assert (quad.texture.format, quad.texture.header) == ("jpeg", sent.header)
    corners = [(p.x, p.y, p.z) for p in quad.points]
    assert len(corners) == len(quad.uv_coordinates) == 6
    assert set(corners) == {(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, -0.75, 0.0), (1.0, -0.75, 0.0)}
    for first in (0, 3):
        a, b, c = np.array(corners[first : first + 3])
        assert np.cross(b - a, c - a)[2] > 0  # towards the viewer above
    for corner, uv in zip(corners, quad.uv_coordinates, strict=True):
        assert (uv.u, uv.v) == (corner[0], -corner[1] / 0.75)
    for column, row in ((20, 20), (100, 20), (20, 80), (100, 80), (3, 93), (125, 3)):
        assert np.abs(sampled(quad, column, row) - picture[row, column]).max() < 12  # JPEG


def test_the_menu_is_there_before_the_first_image(bench) -> None:
    marker, number = bench.marker()
    assert number >= 1
    assert [e.title for e in marker.menu_entries if not e.parent_id] == [entry.title for entry in ENTRIES]
    quad = marker.controls[0].markers[0]
    assert (quad.texture_resource, len(quad.points), len(quad.uv_coordinates)) == ("", 6, 0)
    assert bench.text[-1] == "waiting for images on /image"
    bench.choose("Freeze newest")
    bench.wait(lambda: bench.text[:1] == ["there is no image on /image yet"])


def test_updates_are_numbered_without_a_gap_and_the_service_gives_the_latest(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.live(bench, i1="", i2="cup")
    tracker.live(bench, i2="cup")
    bench.image(world.image(1), world.stamp_ns(1))
    assert bench.trigger("freeze").success
    marker, number = bench.marker()
    bench.wait(lambda: bench.updates[-1].seq_num == number)
    numbers = [update.seq_num for update in bench.updates]
    assert numbers == list(range(numbers[0], number + 1)) and len(numbers) >= 4
    assert marker == bench.updates[-1].markers[0]
    # no keep-alive: RViz2 expects none
    assert {update.type for update in bench.updates} == {InteractiveMarkerUpdate.UPDATE}


def test_the_menu_has_a_submenu_entry_for_every_live_instance(bench, tracker) -> None:
    tracker.live(bench, i3="", i12="cup")
    bench.wait(lambda: len(bench.updates[-1].markers[0].menu_entries) == len(ENTRIES) + 4)
    entries = bench.updates[-1].markers[0].menu_entries
    ids = [entry.id for entry in entries]
    assert len(set(ids)) == len(ids) and 0 not in ids
    for entry in entries:
        assert entry.parent_id in [0, *ids[: ids.index(entry.id)]]  # parents come first
    parents = {entry.id: entry.title for entry in entries}
    children = [(parents[entry.parent_id], entry.title) for entry in entries if entry.parent_id]
    expected = [(t, name) for t in ("Correct instance", "Remove instance") for name in ("3", "12 cup")]
    assert children == expected


def test_menu_ids_tell_the_entry_and_the_instance() -> None:
    known = {entry.id: entry for entry in menu({1: "1", 65535: "65535"})}
    for menu_id, entry in known.items():
        found, instance_id = chosen(menu_id)
        assert str(instance_id or found.title) == entry.title
    for stranger in (0, 5, (len(ENTRIES) + 1) << 20):
        with pytest.raises(ValueError, match="menu_entry_id"):
            chosen(stranger)


def test_every_menu_entry_is_a_trigger_service_and_is_in_the_interfaces(bench) -> None:
    triggers = {i.name for i in INTERFACES if (i.type, i.kind) == ("std_srvs/Trigger", "serves")}
    assert triggers == {f"~/{entry.name}" for entry in ENTRIES}
    served = dict(bench.client.get_service_names_and_types_by_node("rviz_seed_tool", "/"))
    for name in triggers:
        assert served[name.replace("~", TOOL)] == ["std_srvs/srv/Trigger"]


def test_the_interfaces_are_those_of_the_node(bench) -> None:
    def asked(kind) -> set[tuple[str, str]]:
        found = set()
        for interface in (i for i in INTERFACES if i.kind == kind):
            package, _, name = interface.type.partition("/")
            folder = "srv" if kind in ("serves", "calls") else "msg"
            full = interface.name.replace("~", TOOL) if interface.name[0] == "~" else f"/{interface.name}"
            found.add((full, f"{package}/{folder}/{name}"))
        return found

    def there(names_and_types) -> set[tuple[str, str]]:
        rest = ("/rosout", "/parameter_events", "/clock")
        pairs = {(name, kinds[0]) for name, kinds in names_and_types if name not in rest}
        return {(name, kind) for name, kind in pairs if "rcl_interfaces" not in kind and "type_description" not in kind}

    who = ("rviz_seed_tool", "/")
    node = bench.client
    bench.wait(lambda: there(node.get_client_names_and_types_by_node(*who)) == asked("calls"))
    assert there(node.get_subscriber_names_and_types_by_node(*who)) == asked("subscribes")
    assert there(node.get_publisher_names_and_types_by_node(*who)) == asked("publishes")
    assert there(node.get_service_names_and_types_by_node(*who)) == asked("serves")


# --- drawing ---


def test_the_first_image_is_frozen_and_later_ones_wait_for_freeze(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.image(world.image(1), world.stamp_ns(1))
    resource = "embedded://frozen_{}_{:09d}"
    bench.wait(lambda: bench.updates[-1].markers[0].controls[0].markers[0].texture_resource)
    shown = bench.updates[-1].markers[0].controls[0].markers[0].texture_resource
    assert shown == resource.format(*divmod(world.stamp_ns(0), 10**9))
    bench.corners((5, 5), width=WIDTH)
    bench.choose("Freeze newest")
    wanted = resource.format(*divmod(world.stamp_ns(1), 10**9))
    bench.wait(lambda: bench.updates[-1].markers[0].controls[0].markers[0].texture_resource == wanted)
    bench.wait(lambda: not bench.vertices)


def test_a_click_of_rviz_is_one_vertex_where_it_was_clicked(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.press(0.25, -0.5)
    bench.press(0.5, -0.125)
    bench.wait(lambda: len(bench.vertices) >= 2)
    bench.press(0.5, -0.125, valid=False)
    bench.wait(lambda: "click again" in bench.text[0])
    assert [(p.x, p.y) for p in bench.vertices] == [(0.25, -0.5), (0.5, -0.125)]
    assert bench.node._drawing.vertices == ((32.0, 64.0), (64.0, 16.0))


def test_clicks_beside_the_image_and_on_strange_markers_do_nothing(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    stranger = InteractiveMarkerFeedback(marker_name="other", event_type=InteractiveMarkerFeedback.BUTTON_CLICK)
    stranger.mouse_point_valid = True
    bench.feedback.publish(stranger)
    bench.press(1.01, -0.5)
    bench.wait(lambda: bench.text[:1] == ["vertex must lie in the 128x96 image, got (129.3, 64.0)"])
    assert bench.vertices == []
    bench.feedback.publish(
        InteractiveMarkerFeedback(marker_name="image", event_type=InteractiveMarkerFeedback.MENU_SELECT)
    )
    bench.wait(lambda: bench.text[:1] == ["menu_entry_id must be one of the menu's, got 0"])


def test_clicks_of_rqt_are_pixels(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.clicks.publish(Point(x=32.0, y=64.0))
    bench.wait(lambda: bench.vertices)
    assert [(p.x, p.y) for p in bench.vertices] == [(0.25, -0.5)]


def test_the_drawing_is_shown_in_the_frame_of_the_image(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 32), (96, 64), width=WIDTH)
    bench.wait(lambda: bench.shown("line"))
    latest = bench.arrays[-1].markers
    assert latest[0].action == Marker.DELETEALL
    assert len({(marker.ns, marker.id) for marker in latest}) == len(latest)
    for marker in latest:
        assert (marker.header.frame_id, marker.pose.orientation.w) == ("maskrnn_image", 1.0)
        assert stamp_to_ns(marker.header.stamp) == 0
    (line,), (dots,) = bench.shown("line"), bench.shown("vertices")
    assert (line.type, dots.type) == (Marker.LINE_STRIP, Marker.SPHERE_LIST)
    for marker in (line, dots):
        assert [(p.x, p.y) for p in marker.points] == [(0.25, -0.25), (0.75, -0.25), (0.75, -0.5)]
        assert all(p.z > 0 for p in marker.points) and marker.scale.x > 0 and marker.color.a == 1.0
    assert bench.text[-1].startswith("3 corners")
    assert all(marker.pose.position.y > 0 for marker in bench.shown("text"))  # above the image, not on it
    refused = bench.trigger("rectangle")  # the last two are on one column
    assert (refused.success, refused.message) == (False, "the rectangle holds no pixel")
    assert bench.trigger("undo").success
    bench.wait(lambda: len(bench.vertices) == 2)


def test_the_outline_of_a_rectangle_is_its_border(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 64), width=WIDTH)
    bench.choose("Rectangle")
    bench.wait(lambda: bench.shown("mask"))
    (outline,) = bench.shown("mask")
    pairs = [tuple((p.x, p.y) for p in outline.points[i : i + 2]) for i in range(0, len(outline.points), 2)]
    left, right, top, bottom = 0.25, 0.75, -0.25, -0.5
    assert set(pairs) == {
        ((left, top), (right, top)),
        ((left, bottom), (right, bottom)),
        ((left, top), (left, bottom)),
        ((right, top), (right, bottom)),
    }
    assert bench.text[-1].startswith(f"{64 * 32} pixels marked")


def test_who_subscribes_late_gets_the_drawing(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((5, 5), width=WIDTH)
    late: list = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.client.create_subscription(MarkerArray, f"{TOOL}/markers", late.append, latched)
    bench.wait(lambda: late)
    assert late[0] == bench.arrays[-1]


def test_the_picture_for_rqt_shows_image_and_drawing(bench) -> None:
    sent = bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((40, 60), (100, 60), width=WIDTH)
    bench.wait(lambda: bench.pictures and (image_to_rgb(bench.pictures[-1])[60, 70] == (255, 230, 0)).all())
    picture = bench.pictures[-1]
    assert (picture.header, picture.encoding) == (sent.header, "rgb8")
    np.testing.assert_array_equal(image_to_rgb(picture)[70:], world.image(0)[70:])


# --- what the tracker gets ---


def test_a_polygon_becomes_a_new_instance_on_the_frozen_image(bench, tracker) -> None:
    sent = bench.image(world.image(0), world.stamp_ns(0), "optical")
    bench.image(world.image(1), world.stamp_ns(1))  # not frozen
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.choose("Close polygon")
    bench.wait(lambda: bench.shown("mask"))
    bench.choose("New instance")
    bench.wait(lambda: tracker.added)
    (request,) = tracker.added
    assert stamp_to_ns(request.stamp) == world.stamp_ns(0)
    assert request.image.header == sent.header
    np.testing.assert_array_equal(image_to_rgb(request.image), world.image(0))
    labels = labels_from_image(request.mask)
    assert request.mask.encoding == "mono16"
    np.testing.assert_array_equal(labels, np.where(inside(TRIANGLE), 255, 0))  # 255: the tracker gives the id
    x, y = np.array(TRIANGLE).T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert (labels > 0).sum() == pytest.approx(area, rel=0.01)
    bench.wait(lambda: bench.masks)
    assert bench.masks[-1].header == sent.header
    np.testing.assert_array_equal(labels_from_image(bench.masks[-1]), np.where(inside(TRIANGLE), 7, 0))
    bench.wait(lambda: not bench.shown("mask"))  # ready for the next


def test_open_vertices_are_closed_when_sent(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    assert bench.trigger("new_instance").message == f"sent {inside(TRIANGLE).sum()} pixels as a new instance"
    bench.wait(lambda: tracker.added)
    np.testing.assert_array_equal(labels_from_image(tracker.added[0].mask) > 0, inside(TRIANGLE))


def test_results_are_shown_and_a_rejected_drawing_comes_back(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: bench.masks and not bench.shown("mask"))
    request = tracker.added[0]
    foreign = AddInstances.Request()
    foreign.mask.header.frame_id = "seed_of_another"
    tracker.result(foreign, SeedResult.STATUS_REJECTED, "not ours")
    tracker.result(request, SeedResult.STATUS_PENDING, "catches up 3 images")
    bench.wait(lambda: bench.text[:1] == ["instance 7: catches up 3 images"])
    tracker.result(request, SeedResult.STATUS_REJECTED, "the image is too old")
    bench.wait(lambda: bench.text[:1] == ["rejected: the image is too old"])
    bench.wait(lambda: bench.shown("mask"))
    np.testing.assert_array_equal(bench.node._drawing.mask, inside(TRIANGLE))
    bench.trigger("new_instance")
    bench.wait(lambda: len(bench.masks) == 2)
    tracker.result(tracker.added[1], SeedResult.STATUS_APPLIED)
    bench.wait(lambda: bench.text[:1] == ["instance 7 is tracked"])
    assert not bench.shown("mask")


def test_a_result_may_overtake_the_service_s_answer(bench, tracker) -> None:
    answer = tracker._add

    def result_first(request, response):
        tracker.result(request, SeedResult.STATUS_APPLIED)
        deadline = time.monotonic() + TIMEOUT_S
        while bench.node._answer != "instance 7 is tracked" and time.monotonic() < deadline:
            time.sleep(0.01)
        return answer(request, response)

    tracker.answer = result_first
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: tracker.added and bench.masks and not bench.shown("mask"))
    bench.corners((5, 5), width=WIDTH)
    assert len(bench.masks) == 1


def test_a_rejected_drawing_does_not_disturb_the_next(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.trigger("new_instance")
    bench.wait(lambda: bench.masks and not bench.shown("mask"))
    bench.corners((5, 5), width=WIDTH)
    tracker.result(tracker.added[0], SeedResult.STATUS_REJECTED, "too old")
    bench.wait(lambda: bench.text[:1] == ["rejected: too old"])
    assert len(bench.vertices) == 1 and not bench.shown("mask")


def test_what_the_tracker_refuses_is_shown_and_the_drawing_stays(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners(*TRIANGLE, width=WIDTH)
    tracker.refuse = "expected at most 20 instances"
    bench.choose("New instance")
    bench.wait(lambda: bench.text[:1] == ["refused: expected at most 20 instances"])
    np.testing.assert_array_equal(bench.node._drawing.mask, inside(TRIANGLE))
    assert bench.masks == []


def test_a_correction_carries_the_id_by_menu_and_by_service(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.live(bench, i3="", i12="cup")
    bench.wait(lambda: len(bench.updates[-1].markers[0].menu_entries) == len(ENTRIES) + 4)
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.choose("Correct instance", "12 cup")
    bench.wait(lambda: bench.masks)
    bench.corners(*TRIANGLE, width=WIDTH)
    refused = bench.trigger("correct_instance")
    assert (refused.success, refused.message) == (
        False,
        "instance_id must be one of the live instances [3, 12], got 0",
    )
    bench.node.set_parameters([Parameter("instance_id", value=3)])
    assert bench.trigger("correct_instance").success
    bench.wait(lambda: len(tracker.added) == 2)
    for request, instance_id in zip(tracker.added, (12, 3), strict=True):
        np.testing.assert_array_equal(labels_from_image(request.mask), np.where(inside(TRIANGLE), instance_id, 0))


def test_remove_and_reset_go_to_the_tracker(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.live(bench, i3="", i12="cup")
    bench.wait(lambda: len(bench.updates[-1].markers[0].menu_entries) == len(ENTRIES) + 4)
    bench.choose("Remove instance", "3")
    bench.wait(lambda: bench.text[:1] == ["removed 3"])
    bench.node.set_parameters([Parameter("instance_id", value=12)])
    assert bench.trigger("remove_instance").success
    bench.wait(lambda: tracker.removed == [[3], [12]])
    tracker.refuse = "id 3 is unknown"
    bench.choose("Remove instance", "3")
    bench.wait(lambda: bench.text[:1] == ["refused: id 3 is unknown"])
    bench.corners((5, 5), width=WIDTH)
    bench.choose("Reset the tracker")
    bench.wait(lambda: tracker.resets == 1 and bench.text[:1] == ["the tracker is reset"])
    assert bench.vertices == []


def test_grabcut_cuts_the_object_out_of_the_box(bench, tracker) -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(rng.normal(60, 6, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    truth = inside(((45, 30), (85, 34), (80, 70), (42, 66)))
    picture[truth] = (220, 90, 40)
    bench.image(picture, world.stamp_ns(0))
    bench.corners((36, 24), (92, 76), width=WIDTH)
    bench.choose("Cut out (GrabCut)")
    bench.wait(lambda: bench.shown("mask"))
    found = bench.node._drawing.mask
    assert (found & truth).sum() / (found | truth).sum() > 0.95


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_without_a_tracker_and_an_image_every_service_says_what_is_missing(name) -> None:
    with SeedBench() as bench:
        bench.node.set_parameters([Parameter("instance_id", value=1)])
        answer = bench.trigger(name)
        assert not answer.success
        expected = {
            "correct_instance": "instance_id must be one of the live instances [], got 1",
            "remove_instance": "instance_id must be one of the live instances [], got 1",
            "reset": "nobody serves /tracker/reset: start the tracker, or remap to its name",
        }
        assert answer.message == expected.get(name, "there is no image on /image yet")
        if name == "new_instance":
            bench.image(world.image(0), world.stamp_ns(0))
            bench.corners(*TRIANGLE, width=WIDTH)
            assert "nobody serves /tracker/add_instances" in bench.trigger(name).message
            assert bench.shown("mask") or bench.vertices  # nothing is lost


def test_instance_255_and_a_frozen_image_without_a_stamp_are_refused(bench, tracker) -> None:
    bench.image(world.image(0), 0)
    tracker.live(bench, i255="")
    bench.corners(*TRIANGLE, width=WIDTH)
    bench.node.set_parameters([Parameter("instance_id", value=255)])
    assert "instance 255 cannot be corrected" in bench.trigger("correct_instance").message
    assert "stamp of the frozen image must be > 0 ns" in bench.trigger("new_instance").message
    assert tracker.added == []


def test_compressed_images_and_those_that_cannot_be_read() -> None:
    with SeedBench(compressed=True) as bench:
        bench.stamped(CompressedImage(format="jpeg", data=array.array("B", b"no jpeg")), 5)
        bench.wait(lambda: bench.text and "cannot decode" in bench.text[0])
        done, data = cv2.imencode(".png", world.image(0)[..., ::-1])
        bench.stamped(CompressedImage(format="png", data=array.array("B", data.tobytes())), world.stamp_ns(0))
        bench.wait(lambda: bench.node._drawing is not None)
        np.testing.assert_array_equal(bench.node._drawing.image, world.image(0))


def test_an_image_that_cannot_be_read_does_not_take_the_frozen_one_away(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((5, 5), width=WIDTH)
    bench.stamped(Image(encoding="nonsense", width=1, height=1, step=1), 9)
    assert "encoding must be one of" in bench.trigger("freeze").message
    assert len(bench.vertices) == 1
    np.testing.assert_array_equal(bench.node._drawing.image, world.image(0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_reliability", "often", "image_reliability must be one of auto, reliable, best_effort, got 'often'"),
        ("prompt_backend", "magic", "prompt backend must be grabcut, got 'magic'"),
        ("compressed", 3, "compressed"),
    ],
)
def test_a_bad_parameter_stops_the_start(name, value, message) -> None:
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        with pytest.raises(ValueError, match=message):
            SeedTool(context=context, parameter_overrides=[Parameter(name, value=value)])
    finally:
        rclpy.shutdown(context=context)


SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "rviz_seed_tool"


def test_the_script_ends_cleanly_at_a_double_ctrl_c() -> None:
    with client_node("watcher") as (node, executor):
        command = [sys.executable, str(SCRIPT), "--ros-args", "-r", "__ns:=/left"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        name = "/left/rviz_seed_tool/seed/update"
        assert spin_until(executor, lambda: node.count_publishers(name) > 0, TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")


def test_the_script_says_in_one_line_why_it_cannot_start() -> None:
    command = [sys.executable, str(SCRIPT), "--ros-args", "-p", "prompt_backend:=magic"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    line = "rviz_seed_tool: prompt backend must be grabcut, got 'magic'\n"
    assert (result.returncode, result.stderr) == (1, line)
