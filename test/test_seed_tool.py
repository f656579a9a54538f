# SPDX-License-Identifier: Apache-2.0
"""The seeding tool, driven as RViz2 and rqt_image_view would: synthetic feedback over real topics and services."""

from __future__ import annotations

import doctest
import itertools

import cv2
import numpy as np
import pytest
import world
from seed_bench import TOOL, FakeTracker, connected  # skips where ROS is absent, hence first

# isort: split

from geometry_msgs.msg import Point, PointStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rviz_scene import DEPTH_RESOLUTION, text_width
from std_msgs.msg import Header
from visualization_msgs.msg import (
    InteractiveMarkerControl,
    InteractiveMarkerFeedback,
    InteractiveMarkerUpdate,
    Marker,
    MarkerArray,
)

from maskrnn_ros.image_messages import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.msg import TrackerStatus
from maskrnn_ros.overlay import folded
from maskrnn_ros.ros import image_plane
from maskrnn_ros.rviz_tool import markers as seed_markers
from maskrnn_ros.rviz_tool.drawing import Drawing, fill_polygon
from maskrnn_ros.rviz_tool.frozen import Freezer
from maskrnn_ros.rviz_tool.hints import hint
from maskrnn_ros.rviz_tool.markers import painted
from maskrnn_ros.rviz_tool.menu import ENTRIES, chosen, menu
from maskrnn_ros.rviz_tool.node import INTERFACES

WIDTH, HEIGHT = world.WIDTH, world.HEIGHT


@pytest.fixture
def tracker():
    return FakeTracker()


@pytest.fixture
def bench(tracker):
    with connected(tracker) as bench:
        yield bench


# --- what RViz2 gets ---


def test_examples() -> None:
    for module in (image_plane, seed_markers):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)


def test_plane_and_pixels_are_each_other_s_inverse() -> None:
    columns, rows = np.array([0.0, 13.7, 128.0]), np.array([0.0, 50.2, 96.0])
    x, y = image_plane.to_plane(columns, rows, (96, 128))
    assert (x.max(), y.min(), y.max()) == (1.0, -0.75, 0.0)
    np.testing.assert_allclose(image_plane.to_pixel(x, y, (96, 128)), (columns, rows))


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
    bench.wait(lambda: bench.updates and bench.frozen.controls[0].markers[0].texture_resource)
    update = [u for u in bench.updates if any(m.name == "image" for m in u.markers)][-1]
    (marker,) = update.markers
    assert (update.type, list(update.poses), list(update.erases)) == (InteractiveMarkerUpdate.UPDATE, [], [])
    assert (marker.name, marker.description, marker.scale) == ("image", "", 1.0)
    assert (marker.header.frame_id, stamp_to_ns(marker.header.stamp)) == ("maskrnn_image", 0)
    assert (marker.pose.orientation.w, marker.pose.position) == (1.0, Point())
    (control,) = marker.controls
    name = bench.node._frozen.name
    assert (control.name, control.interaction_mode) == (f"image {name}", InteractiveMarkerControl.BUTTON)
    assert (control.always_visible, control.orientation_mode) == (True, InteractiveMarkerControl.INHERIT)
    (quad,) = control.markers
    assert (quad.type, quad.action, quad.header.frame_id) == (Marker.TRIANGLE_LIST, Marker.ADD, "")
    assert (quad.scale.x, quad.scale.y, quad.scale.z) == (1.0, 1.0, 1.0)
    assert (quad.color.r, quad.color.g, quad.color.b, quad.color.a) == (1.0, 1.0, 1.0, 1.0)
    assert len(quad.colors) == 0 and quad.pose.orientation.w == 1.0
    assert quad.texture_resource == f"embedded://frozen_{name}"
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
    markers, number = bench.served()
    assert number >= 1 and set(markers) == {"image", "add", "newest"}
    assert [e.title for e in markers["add"].menu_entries if not e.parent_id] == [entry.title for entry in ENTRIES]
    quad = markers["image"].controls[0].markers[0]
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
    markers, number = bench.served()
    bench.wait(lambda: bench.updates[-1].seq_num == number)
    numbers = [update.seq_num for update in bench.updates]
    assert numbers == list(range(numbers[0], number + 1)) and len(numbers) >= 4
    newest = {marker.name: marker for update in bench.updates for marker in update.markers}
    assert {name: newest[name] for name in markers} == markers
    # no keep-alive: RViz2 expects none
    assert {update.type for update in bench.updates} == {InteractiveMarkerUpdate.UPDATE}


def test_the_menu_has_a_submenu_entry_for_every_live_instance(bench, tracker) -> None:
    tracker.live(bench, i3="", i12="cup")
    bench.wait(lambda: len(bench.button.menu_entries) == len(ENTRIES) + 4)
    entries = bench.button.menu_entries
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
    bench.wait(lambda: bench.frozen.controls[0].markers[0].texture_resource)
    assert stamp_to_ns(bench.frozen.controls[0].markers[0].texture.header.stamp) == world.stamp_ns(0)
    bench.corners((5, 5), width=WIDTH)
    bench.choose("Freeze newest", on="image")
    bench.wait(lambda: stamp_to_ns(bench.frozen.controls[0].markers[0].texture.header.stamp) == world.stamp_ns(1))
    bench.wait(lambda: not bench.vertices)


def test_a_click_of_rviz_is_one_vertex_where_it_was_clicked(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.draw()
    bench.press(0.25, -0.5)
    bench.press(0.5, -0.125)
    bench.wait(lambda: len(bench.vertices) >= 2)
    bench.press(0.5, -0.125, valid=False)
    bench.wait(lambda: "click again" in bench.text[0])
    assert [(p.x, p.y) for p in bench.vertices] == [(0.25, -0.5), (0.5, -0.125)]
    assert bench.node._drawing.vertices == ((32.0, 64.0), (64.0, 16.0))


def test_clicks_beside_the_image_and_on_strange_markers_do_nothing(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.draw()
    stranger = InteractiveMarkerFeedback(marker_name="other", event_type=InteractiveMarkerFeedback.BUTTON_CLICK)
    stranger.mouse_point_valid = True
    bench.feedback.publish(stranger)
    assert not bench.press(1.01, -0.5)  # RViz2 moves the view
    bench.mouse("image", bench.control, (1.01, -0.5), (1.01, -0.5))  # as when it lies within a pixel of the edge
    bench.wait(lambda: bench.text[:1] == ["vertex must lie in the 128x96 image, got (129.3, 64.0)"])
    assert bench.vertices == []
    strange = InteractiveMarkerFeedback(marker_name="image", event_type=InteractiveMarkerFeedback.MENU_SELECT)
    strange.control_name = bench.frozen.controls[0].name
    bench.feedback.publish(strange)
    bench.wait(lambda: bench.text[:1] == ["menu_entry_id must be one of the menu's, got 0"])


def test_clicks_of_rqt_are_pixels(bench) -> None:
    picture, truth = blob()
    bench.image(picture, world.stamp_ns(0))
    bench.clicks.publish(Point(x=62.0, y=50.0))
    bench.wait(lambda: bench.shown("mask"))
    assert iou(bench.node._drawing.mask, truth) > 0.9
    bench.wait(lambda: bench.pictures and (image_to_rgb(bench.pictures[-1])[50, 62] == (50, 255, 75)).all())
    assert bench.trigger("undo").success
    bench.draw()
    bench.clicks.publish(Point(x=32.0, y=64.0))
    bench.wait(lambda: bench.vertices)
    assert [(p.x, p.y) for p in bench.vertices] == [(0.25, -0.5)]


def test_the_drawing_is_shown_in_the_frame_of_the_image(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 32), (96, 64), width=WIDTH)
    bench.wait(lambda: bench.shown("line"))
    latest = bench.arrays[-1].markers
    assert len({(marker.ns, marker.id) for marker in latest}) == len(latest)
    for marker in (*latest, *bench.scene.interactive.values()):
        assert (marker.header.frame_id, stamp_to_ns(marker.header.stamp)) == ("maskrnn_image", 0)
        assert marker.pose.orientation.w == 1.0
    (line,), (dots,) = bench.shown("line"), bench.shown("vertices")
    assert (line.type, dots.type) == (Marker.LINE_LIST, Marker.SPHERE_LIST)
    corners = [(0.25, -0.25), (0.75, -0.25), (0.75, -0.5)]
    assert [(p.x, p.y) for p in dots.points] == corners
    assert [(p.x, p.y) for p in line.points] == [corners[0], corners[1], corners[1], corners[2]]
    for marker in (line, dots):
        assert all(p.z > DEPTH_RESOLUTION for p in marker.points) and marker.scale.x > 0 and marker.color.a == 1.0
        assert marker.header.frame_id == "" and marker.pose.orientation.w == 1.0
    assert dots.points[0].z - line.points[0].z > DEPTH_RESOLUTION
    assert dots.points[0].z < 0.03  # seen from the side a dot is beside the click by as much
    texts = [*bench.shown("text"), *bench.shown("status")]
    assert all(text_width(marker) < 1.1 for marker in texts)  # of a picture that is 1 wide
    bench.wait(lambda: bench.text[-1].startswith("3 corners"))
    for marker in texts:  # over and under the picture, not on it
        assert not -0.75 - marker.scale.z / 2 < marker.pose.position.y < marker.scale.z / 2
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
    bench.wait(lambda: bench.text[-1].startswith(f"{64 * 32} pixels marked"))


def test_what_was_drawn_is_gone_when_it_is_undone_and_when_another_image_is_frozen(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 64), width=WIDTH)
    for _ in range(2):
        assert bench.trigger("undo").success
    bench.wait(lambda: not bench.vertices and not bench.shown("line"))
    bench.corners((32, 32), (96, 64), width=WIDTH)
    bench.choose("Rectangle")
    bench.wait(lambda: bench.shown("mask") and not bench.vertices)
    assert bench.trigger("freeze").success
    bench.wait(lambda: not bench.shown("mask"))
    assert set(bench.scene.interactive) == {"image", "add", "newest"}


def test_the_text_of_before_is_taken_away(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.press(0.5, -0.25, valid=False)  # refused: two lines
    bench.wait(lambda: len(bench.text) == 2)
    bench.corners((5, 5), width=WIDTH)
    bench.wait(lambda: bench.text == ["1 corner; click the next one, or right-click: rectangle, cut out"])


def test_a_click_on_what_is_drawn_counts_and_has_the_menu(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 32), (96, 64), width=WIDTH)
    bench.wait(lambda: len(bench.vertices) == 3)
    for place in ((0.75, -0.25), (0.5, -0.25)):  # on the second corner, on the line
        assert bench.scene.focus(*place) == ("drawing", bench.control)
        before = len(bench.vertices)
        bench.press(*place)
        bench.wait(lambda before=before: len(bench.vertices) == before + 1)
    assert bench.scene.interactive["drawing"].menu_entries == bench.button.menu_entries


def test_two_gestures_mark_an_object_and_more_clicks_mend_it(bench, tracker) -> None:
    picture, truth = blob()
    sent = bench.image(picture, world.stamp_ns(0))
    bench.wait(lambda: bench.text == ["click an object, or drag a box around it"])
    assert bench.press(62 / WIDTH, -50 / WIDTH)
    bench.wait(lambda: bench.shown("mask") and len(bench.text) == 1)
    assert "click what is missing or too much, or click 'add'" in bench.text[-1]
    assert iou(bench.node._drawing.mask, truth) > 0.9
    (dots,) = bench.shown("on")
    assert [(p.x, p.y) for p in dots.points] == [pytest.approx((62 / WIDTH, -50 / WIDTH))] and not bench.shown("off")
    assert bench.press(10 / WIDTH, -10 / WIDTH)  # missing
    bench.wait(lambda: len(bench.shown("on")[0].points) == 2)
    assert bench.press(48 / WIDTH, -36 / WIDTH)  # too much
    bench.wait(lambda: bench.shown("off"))
    assert len(bench.shown("on")[0].points) == 2
    bench.trigger("undo"), bench.trigger("undo")
    bench.wait(lambda: not bench.shown("off") and len(bench.shown("on")[0].points) == 1)
    assert bench.click_add()
    bench.wait(lambda: tracker.added)
    (request,) = tracker.added
    assert (request.image.header, [prompt.id for prompt in request.prompts]) == (sent.header, [0])
    assert iou(labels_from_image(request.prompts[0].mask) > 0, truth) > 0.9
    bench.wait(lambda: not bench.shown("mask") and not bench.shown("on"))


def test_draw_and_click_change_what_a_click_is_and_nothing_else(bench) -> None:
    picture, truth = blob()
    bench.image(picture, world.stamp_ns(0))
    bench.press(62 / WIDTH, -50 / WIDTH)
    bench.wait(lambda: bench.shown("mask"))
    bench.choose("Draw", on="image")
    bench.wait(lambda: bench.text[-1].endswith("pixels marked; click 'add', or right-click it to correct"))
    marked = bench.node._drawing.mask
    bench.corners((5, 5), (20, 5), (20, 20), width=WIDTH)
    bench.choose("Click")
    bench.press(62 / WIDTH, -50 / WIDTH)
    bench.wait(lambda: bench.text[:1] == ["first close the polygon of 3 corners, or undo it"])
    bench.choose("Close polygon")
    bench.wait(lambda: not bench.vertices)
    assert (bench.node._drawing.mask & marked).sum() == marked.sum()
    assert bench.trigger("freeze").success
    bench.wait(lambda: bench.text == ["click an object, or drag a box around it"])


def test_a_double_click_is_one_corner(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 32), width=WIDTH)
    before = bench.node._drawing.vertices
    assert bench.press(96 / WIDTH, -32 / WIDTH)
    bench.wait(lambda: bench.text[:1] == ["there is a corner already: click the next one, or undo it"])
    assert bench.node._drawing.vertices == before


def test_three_gestures_draw_an_object(bench, tracker) -> None:
    sent = bench.image(world.image(0), world.stamp_ns(0))
    corners = ((32.0, 32.0), (96.0, 32.0), (96.0, 64.0))
    bench.corners(*corners, width=WIDTH)
    bench.wait(lambda: "click the first one to close" in bench.text[-1])
    (goal,) = bench.shown("first")
    assert bench.press(goal.points[0].x + 0.4 * goal.scale.x, goal.points[0].y)  # within what is drawn there
    bench.wait(lambda: bench.shown("mask") and not bench.vertices)
    np.testing.assert_array_equal(bench.node._drawing.mask, fill_polygon(corners, HEIGHT, WIDTH))
    bench.wait(lambda: bench.text[-1].endswith("click 'add', or right-click it to correct"))
    assert tracker.added == []
    assert bench.click_add()
    bench.wait(lambda: tracker.added)
    (request,) = tracker.added
    assert (request.image.header, [prompt.id for prompt in request.prompts]) == (sent.header, [0])
    labels = labels_from_image(request.prompts[0].mask)
    np.testing.assert_array_equal(labels > 0, fill_polygon(corners, HEIGHT, WIDTH))


def test_a_click_beside_the_first_corner_is_a_corner(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((32, 32), (96, 32), (96, 64), width=WIDTH)
    bench.wait(lambda: bench.shown("first"))
    (goal,) = bench.shown("first")
    bench.press(goal.points[0].x + 0.6 * goal.scale.x, goal.points[0].y)
    bench.wait(lambda: len(bench.vertices) == 4)


def controls(bench) -> set[str]:
    """The names of the controls of all that RViz2 shows."""
    return {marker.controls[0].name for marker in bench.scene.interactive.values()}


def test_the_buttons_lie_beside_the_picture_and_nothing_covers_them(bench, tracker) -> None:
    for name, other in (("newest", "draw_mode"), ("add", "click_mode")):
        assert bench.click_button(name)
        bench.wait(lambda: bench.text[:1] == ["there is no image on /image yet"])
        assert bench.trigger(other).success
        bench.wait(lambda: len(bench.text) == 1)
    bench.image(world.image(0), world.stamp_ns(0))
    bench.wait(lambda: bench.text[-1].startswith("click an object"))  # it is frozen
    for size in ((96, 128), (128, 96), (60, 128), (100, 100)):
        bench.image(np.zeros((*size, 3), np.uint8), world.stamp_ns(size[0]))
        bench.refresh()  # of two topics, the text may have come before the picture
        before = bench.control
        assert bench.click_button("newest")
        bench.wait(lambda before=before: before not in (names := controls(bench)) and len(names) == 1)
        assert bench.node._frozen.size == size
        assert bench.click_add()
        bench.wait(lambda: bench.text[:1] == ["nothing is marked: click the object first"])
        right = max(p.x for p in bench.frozen.controls[0].markers[0].points)
        lower = 1.0
        for name in ("add", "newest"):
            face, title = bench.scene.interactive[name].controls[0].markers
            edges = min(p.x for p in face.points), max(p.x for p in face.points)
            assert edges[0] > right + DEPTH_RESOLUTION
            assert title.text == name and text_width(title) < edges[1] - edges[0]
            assert title.pose.position.z - face.points[0].z > DEPTH_RESOLUTION
            assert max(p.y for p in face.points) < lower
            lower = min(p.y for p in face.points)
    grey = bench.button.controls[0].markers[0].color
    bench.corners((32, 32), (90, 32), (90, 64), width=100 / 0.75)
    bench.wait(lambda: bench.button.controls[0].markers[0].color != grey)


def test_an_old_picture_says_its_age_until_another_one_is_frozen(bench) -> None:
    bench.image(world.image(0), 10_000_000_000)
    bench.image(world.image(0), 14_000_000_000)
    bench.trigger("undo")
    bench.wait(lambda: bench.text[:1] == ["there is nothing to undo"])
    assert "old" not in bench.status[0]
    bench.image(world.image(0), 96_400_000_000)
    bench.wait(lambda: bench.status[0].endswith("; picture 86 s old"))
    bench.click_button("newest")
    bench.wait(lambda: "old" not in bench.status[0])


def test_portrait_and_wide_pictures_fit_the_view(bench) -> None:
    for height, width in ((128, 72), (72, 128), (96, 128), (100, 100)):
        bench.image(np.zeros((height, width, 3), np.uint8), world.stamp_ns(height))
        assert bench.trigger("freeze").success
        bench.refresh()
        points = bench.frozen.controls[0].markers[0].points
        right, bottom = max(p.x for p in points), min(p.y for p in points)
        assert right <= 1 and bottom >= -0.75 and (right == 1 or bottom == -0.75)
        assert right / -bottom == pytest.approx(width / height)
        bench.draw()
        bench.press(right / 2, bottom / 2)
        bench.wait(lambda: bench.node._drawing.vertices)
        assert bench.node._drawing.vertices[0] == pytest.approx((width / 2, height / 2))


def blob() -> tuple[np.ndarray, np.ndarray]:
    """A picture with a plain object, and its mask."""
    rng = np.random.default_rng(0)
    picture = np.clip(rng.normal(60, 6, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    truth = fill_polygon(((45, 30), (85, 34), (80, 70), (42, 66)), HEIGHT, WIDTH)
    picture[truth] = (220, 90, 40)
    return picture, truth


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_drag_is_a_box_around_the_object_and_no_corner(bench) -> None:
    picture, truth = blob()
    bench.image(picture, world.stamp_ns(0))
    bench.press(36 / WIDTH, -24 / WIDTH, to=(92 / WIDTH, -76 / WIDTH))
    bench.wait(lambda: bench.shown("mask"))
    assert iou(bench.node._drawing.mask, truth) > 0.95
    bench.wait(lambda: len(bench.text) == 1)
    # before the work begins it is said
    said = [marker.text for array in bench.arrays for marker in array.markers if marker.ns == "text"]
    assert "cutting the object out ..." in said
    bench.trigger("undo")
    bench.wait(lambda: not bench.shown("mask"))
    bench.press(36 / WIDTH, -24 / WIDTH, to=(1.2, -1.0))  # let go beyond the picture
    bench.wait(lambda: bench.shown("mask"))
    bench.trigger("undo")
    bench.corners((5, 5), width=WIDTH)
    bench.press(36 / WIDTH, -24 / WIDTH, to=(92 / WIDTH, -76 / WIDTH))
    bench.wait(lambda: bench.text[:1] == ["first close the polygon of 1 corner, or undo it"])
    assert len(bench.vertices) == 1 and not bench.shown("mask")


def test_a_hand_that_trembles_clicks(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.draw()
    bench.press(0.25, -0.25, to=(0.255, -0.253))
    bench.wait(lambda: bench.vertices)
    assert [(p.x, p.y) for p in bench.vertices] == [pytest.approx((0.255, -0.253))]


def test_publish_point_marks_the_object_there(bench) -> None:
    bench.publish_point(0.5, -0.3)
    bench.wait(lambda: bench.text[:1] == ["there is no image on /image yet"])
    picture, truth = blob()
    bench.image(picture, world.stamp_ns(0))
    assert not bench.publish_point(0.5, -1.5)  # nothing lies there
    assert bench.publish_point(62 / WIDTH, -50 / WIDTH)
    bench.wait(lambda: bench.shown("mask"))
    assert iou(bench.node._drawing.mask, truth) > 0.9
    elsewhere = PointStamped()
    elsewhere.header.frame_id = "map"
    bench.points.publish(elsewhere)
    bench.wait(lambda: bench.text[:1] == ["a point must be in the frame maskrnn_image, got 'map'"])


def test_what_is_meant_for_an_earlier_freeze_is_refused_also_of_the_same_image(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((5, 5), width=WIDTH)
    earlier = bench.control
    assert bench.trigger("freeze").success  # the same image
    bench.wait(lambda: bench.control != earlier)
    events = (InteractiveMarkerFeedback.BUTTON_CLICK, InteractiveMarkerFeedback.MENU_SELECT)
    for row, (name, event) in enumerate((name, event) for name in ("image", "add", "newest") for event in events):
        late = InteractiveMarkerFeedback(marker_name=name, control_name=earlier, event_type=event, menu_entry_id=1)
        late.mouse_point_valid = True
        late.mouse_point.x, late.mouse_point.y = 0.5, -0.25
        bench.feedback.publish(late)
        bench.wait(lambda: "earlier image" in bench.text[0])
        bench.corners((9, 9 + 9 * row), width=WIDTH)  # the answer to it takes the place of the refusal
    assert len(bench.vertices) == 6 and tracker.added == []


def test_no_two_freezes_have_a_name_in_common() -> None:
    header, image = Header(), np.zeros((4, 4, 3), np.uint8)
    tools = [Freezer(), Freezer()]  # the second one was started again, while RViz2 lived on
    assert len({tool.freeze(header, image).name for tool in tools for _ in range(3)}) == 6


def test_the_picture_is_sent_only_when_another_one_is_frozen(bench, tracker) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.wait(lambda: bench.scene.textures)
    before = list(bench.scene.textures)
    bench.corners((32, 32), (96, 64), width=WIDTH)
    bench.choose("Rectangle")
    bench.wait(lambda: bench.shown("mask"))
    tracker.live(bench, i1="", i2="cup")
    tracker.live(bench, i2="cup")
    bench.wait(lambda: [e.title for e in bench.button.menu_entries if e.parent_id] == ["2 cup"] * 2)
    bench.trigger("undo")
    bench.wait(lambda: not bench.shown("mask"))
    sent = [m for u in bench.updates for m in u.markers if m.controls[0].markers[0].texture_resource]
    assert len(sent) == 1 and set(before) == set(bench.scene.textures)
    assert bench.trigger("freeze").success
    bench.wait(lambda: len(set(bench.scene.textures)) == 2)


def test_large_pictures_are_sent_small_and_seeds_are_as_large_as_the_image(bench, tracker) -> None:
    picture = np.zeros((1080, 1920, 3), np.uint8)
    picture[:, 960:] = 200
    bench.image(picture, world.stamp_ns(0))
    bench.wait(lambda: bench.scene.textures)
    quad = bench.frozen.controls[0].markers[0]
    texture = cv2.imdecode(np.array(quad.texture.data), cv2.IMREAD_COLOR)
    assert texture.shape == (720, 1280, 3)
    assert texture[300, 600].max() < 20 and texture[300, 680].min() > 180
    bench.corners((900, 400), (1000, 400), (1000, 500), width=1920)
    assert bench.node._drawing.vertices[1] == pytest.approx((1000, 400))
    assert bench.trigger("new_instance").success
    bench.wait(lambda: tracker.added)
    assert (tracker.added[0].image.width, tracker.added[0].prompts[0].mask.width) == (1920, 1920)


def test_outlines_of_live_instances_take_clicks_and_are_off_in_the_shipped_layout(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.refresh()
    line = Marker(ns="outline", type=Marker.LINE_LIST, points=[Point(x=0.2, y=-0.3), Point(x=0.6, y=-0.3)])
    line.scale.x, line.pose.position.z = 0.003, 0.05
    bench.scene.take_array(MarkerArray(markers=[line]))
    assert bench.scene.focus(0.4, -0.3) == ("", "")
    assert not bench.press(0.4, -0.3)


def test_the_state_of_the_stream_and_of_the_last_seed_stand_under_the_picture(bench, tracker) -> None:
    bench.wait(lambda: bench.status == ["tracker: not heard of yet", "last seed: none"])
    bench.image(world.image(0), world.stamp_ns(0))
    tracker.status.publish(TrackerStatus(enabled=True, image_age=0.1, age_ms_p50=35.2, ids=[1, 2]))
    bench.wait(lambda: bench.status[0] == "tracker: 2 instances, masks after 35 ms")
    bench.corners((32, 32), (96, 32), (96, 64), width=WIDTH)
    tracker.refuse = "too many"
    assert bench.click_add()
    bench.wait(lambda: bench.status[1] == "last seed: refused: too many")
    bench.corners((5, 5), width=WIDTH)  # what is said of that takes nothing away
    assert bench.status[1] == "last seed: refused: too many"


def test_text_that_was_lost_on_its_way_comes_again(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.wait(lambda: bench.text)
    bench.arrays.clear()
    bench.scene.markers.clear()
    bench.wait(lambda: bench.arrays and bench.text)
    assert not any(marker.action == Marker.DELETEALL for array in bench.arrays for marker in array.markers)


def test_who_subscribes_late_gets_the_text(bench) -> None:
    bench.image(world.image(0), world.stamp_ns(0))
    bench.corners((5, 5), width=WIDTH)
    bench.wait(lambda: bench.text and bench.text[-1].startswith("1 corner"))
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


def test_who_clicks_on_the_picture_for_rqt_is_told_of_services_and_not_of_a_button(bench) -> None:
    picture, _ = blob()
    drawing = Drawing(picture)
    for draws, count in itertools.product((False, True), (0, 1, 3, 4)):
        if count == 4:
            drawing.close_polygon()
        elif count:
            while len(drawing.vertices) < count:
                drawing.add(*((30, 30), (90, 30), (90, 80))[len(drawing.vertices)])
        for_rviz, for_rqt = (hint(drawing, draws, in_rviz=in_rviz) for in_rviz in (True, False))
        assert any(word in for_rviz for word in ("'add'", "drag", "right-click"))
        assert not any(word in for_rqt for word in ("'add'", "drag", "right-click"))
    bench.image(picture, world.stamp_ns(0))
    bench.clicks.publish(Point(x=62.0, y=50.0))
    bench.wait(lambda: bench.shown("mask"))
    answer = bench.trigger("click_mode").message
    assert answer.endswith("; click what is missing or too much, or call new_instance or correct_instance")
    expected = painted(bench.node._drawing, ("", answer))
    bench.wait(lambda: (image_to_rgb(bench.pictures[-1]) == expected).all())


HINT = "10094 pixels marked; click what is missing or too much, or click 'add', or right-click it to correct"


def test_words_with_a_hyphen_stay_whole() -> None:
    hint = HINT.removeprefix("100")  # so that the end of a line would fall behind "right-"
    shown = seed_markers.text_markers((HINT, hint, "a " + HINT), (), None).markers
    assert all(marker.text.count("\n") == 1 and "right-\n" not in marker.text for marker in shown)
    rows = [row for width in range(400, 640, 8) for row in folded(HINT, width)]
    assert not any(row.endswith("right-") for row in rows)


@pytest.mark.parametrize(("height", "width"), [(640, 360), (1080, 1920), (480, 640), (96, 128)])
def test_text_and_dots_of_the_picture_for_rqt_fit_it_and_grow_with_it(height: int, width: int) -> None:
    drawing = Drawing(np.full((height, width, 3), 90, np.uint8))
    drawing.corner(width / 2, 0.8 * height)
    changed = (painted(drawing, ("instance 1 is tracked", HINT)) != 90).any(-1)
    margin = round(0.02 * width)
    text, dot = changed[: round(0.6 * height)], changed[round(0.6 * height) :]
    rows, columns = np.nonzero(text)
    assert columns.max() < width - margin  # nothing is cut off
    assert rows.max() < 0.45 * height
    radius = round(3 * max(1, max(height, width) / 640))
    assert np.ptp(np.nonzero(dot)[1]) + 1 == pytest.approx(2 * radius + 1, abs=1)
    if height == 1080:  # as large as on a picture of a third of that size
        small = Drawing(np.full((360, 640, 3), 90, np.uint8))
        small_rows, small_columns = np.nonzero((painted(small, ("instance 1 is tracked", HINT)) != 90).any(-1))
        assert rows.max() == pytest.approx(3 * small_rows.max(), abs=6)
        assert columns.max() == pytest.approx(3 * small_columns.max(), rel=0.05)
