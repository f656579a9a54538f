# SPDX-License-Identifier: Apache-2.0
"""Masks drawn by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from matplotlib.path import Path

from maskrnn_ros.prompts import Point, Prompt, UnsureError
from maskrnn_ros.rviz_tool import drawing as module
from maskrnn_ros.rviz_tool.drawing import Drawing, fill_polygon
from maskrnn_ros.types import Box

TRIANGLE = ((3.2, 1.7), (28.4, 6.1), (9.9, 22.3))
CONCAVE = ((2.0, 2.0), (30.0, 4.0), (16.3, 10.1), (28.4, 21.2), (3.0, 20.0))


def blank(height: int = 24, width: int = 32) -> Drawing:
    return Drawing(np.zeros((height, width, 3), np.uint8))


def shoelace(vertices) -> float:
    x, y = np.array(vertices).T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("vertices", [TRIANGLE, TRIANGLE[::-1], CONCAVE], ids=["clockwise", "other way", "concave"])
def test_a_polygon_holds_the_pixels_whose_centre_is_inside(vertices) -> None:
    mask = fill_polygon(vertices, 24, 32)
    rows, columns = np.mgrid[:24, :32] + 0.5
    expected = Path([*vertices, vertices[0]]).contains_points(np.stack([columns.ravel(), rows.ravel()], 1))
    np.testing.assert_array_equal(mask, expected.reshape(24, 32))
    assert mask.sum() == pytest.approx(shoelace(vertices), abs=12)


def test_the_area_of_a_large_polygon_is_the_analytic_one() -> None:
    vertices = tuple((500 + 400 * np.cos(a), 500 + 300 * np.sin(a)) for a in np.linspace(0, 6, 9))
    assert fill_polygon(vertices, 1000, 1000).sum() == pytest.approx(shoelace(vertices), rel=1e-3)


def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none() -> None:
    left = fill_polygon(((0.0, 0.0), (20.5, 0.0), (11.5, 24.0), (0.0, 24.0)), 24, 32)
    right = fill_polygon(((20.5, 0.0), (32.0, 0.0), (32.0, 24.0), (11.5, 24.0)), 24, 32)
    assert (left ^ right).all()


def test_a_polygon_beyond_the_image_is_cut_off() -> None:
    assert fill_polygon(((-5.0, -5.0), (50.0, -5.0), (50.0, 50.0), (-5.0, 50.0)), 24, 32).all()


def test_a_rectangle_lies_between_the_last_two_vertices() -> None:
    drawing = blank()
    for vertex in ((1.0, 1.0), (20.0, 15.0), (5.0, 10.0)):
        drawing.add(*vertex)
    drawing.rectangle()
    expected = np.zeros((24, 32), bool)
    expected[10:15, 5:20] = True
    np.testing.assert_array_equal(drawing.mask, expected)
    assert drawing.vertices == ()


def test_parts_add_up_and_undo_goes_back_step_by_step() -> None:
    drawing = blank()
    for vertex in ((0.0, 0.0), (4.0, 4.0)):
        drawing.add(*vertex)
    drawing.rectangle()
    first = drawing.mask
    for vertex in ((10.0, 10.0), (12.0, 10.0), (12.0, 12.0), (10.0, 12.0)):
        drawing.add(*vertex)
    drawing.close_polygon()
    assert drawing.mask.sum() == 16 + 4 and (drawing.mask & first).sum() == 16
    drawing.undo()
    assert len(drawing.vertices) == 4 and drawing.mask is first
    for _ in range(5):
        drawing.undo()
    assert drawing.mask is None and drawing.vertices == ((0.0, 0.0), (4.0, 4.0))
    drawing.undo(), drawing.undo()
    assert drawing.is_empty
    with pytest.raises(ValueError, match="nothing to undo"):
        drawing.undo()


def test_what_is_finished_closes_the_open_polygon() -> None:
    drawing = blank()
    for vertex in TRIANGLE:
        drawing.add(*vertex)
    np.testing.assert_array_equal(drawing.finished(), fill_polygon(TRIANGLE, 24, 32))
    drawing.undo()
    assert drawing.vertices == TRIANGLE


class Backend:
    """Marks the inner pixels of the box that it is given."""

    def __call__(self, image, prompt):
        self.box = box = prompt.box
        mask = np.zeros(image.shape[:2], bool)
        mask[box.y0 + 1 : box.y1 - 1, box.x0 + 1 : box.x1 - 1] = True
        return mask


def test_a_cut_out_looks_at_the_box_of_the_vertices_then_at_that_of_the_mask() -> None:
    drawing, backend = blank(), Backend()
    drawing.add(4.3, 5.0)
    drawing.add(20.0, 15.6)
    drawing.cut_out(backend)
    assert backend.box == Box(4, 5, 20, 16)
    assert Box.of_mask(drawing.mask) == Box(5, 6, 19, 15)
    drawing.cut_out(backend)
    assert backend.box == Box(5, 6, 19, 15)
    assert Box.of_mask(drawing.mask) == Box(6, 7, 18, 14)  # in the place of the mask before


@pytest.mark.parametrize(
    ("vertices", "action", "message"),
    [
        ((), Drawing.close_polygon, "needs 3 vertices, got 0"),
        (((1.0, 1.0), (2.0, 2.0)), Drawing.close_polygon, "needs 3 vertices, got 2"),
        (((1.0, 1.0), (2.0, 2.0), (3.0, 3.0)), Drawing.close_polygon, "polygon holds no pixel"),
        (((1.0, 1.0),), Drawing.rectangle, "needs 2 vertices, got 1"),
        (((1.0, 1.0), (9.0, 1.0)), Drawing.rectangle, "rectangle holds no pixel"),
        ((), Drawing.finished, "nothing is marked"),
        ((), lambda drawing: drawing.cut_out(Backend()), "needs 2 vertices or a polygon"),
        (((1.0, 1.0),), lambda drawing: drawing.cut_out(Backend()), "needs 2 vertices around the object, got 1"),
        (((1.0, 1.0), (2.0, 2.0)), lambda drawing: drawing.cut_out(Backend()), "cut-out holds no pixel"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(vertices, action, message) -> None:
    drawing = blank()
    for vertex in vertices:
        drawing.add(*vertex)
    with pytest.raises(ValueError, match=message):
        action(drawing)
    assert (drawing.vertices, drawing.mask) == (vertices, None)


@pytest.mark.parametrize("vertex", [(-0.1, 5.0), (32.1, 5.0), (5.0, -0.1), (5.0, 24.1), (float("nan"), 5.0)])
def test_a_vertex_outside_the_image_is_refused(vertex) -> None:
    drawing = blank()
    with pytest.raises(ValueError, match="vertex must lie in the 32x24 image"):
        drawing.add(*vertex)
    drawing.add(32.0, 24.0)  # the very corner belongs to it


def test_a_click_on_the_first_vertex_closes_the_polygon() -> None:
    drawing = blank(240, 320)
    for vertex in ((100.0, 100.0), (200.0, 100.0)):
        drawing.corner(*vertex)
        assert drawing.reach == 0.0
    drawing.corner(100.0, 100.0)  # two vertices enclose nothing: a third one, wherever it lies
    assert len(drawing.vertices) == 3
    drawing.undo()
    drawing.corner(200.0, 200.0)
    assert drawing.reach == pytest.approx(3.2)  # a hundredth of 320
    drawing.corner(103.0, 101.5)  # just beside
    assert len(drawing.vertices) == 4
    drawing.undo()
    drawing.corner(102.0, 102.0)
    assert drawing.vertices == () and drawing.mask is not None
    np.testing.assert_array_equal(drawing.mask, fill_polygon(((100, 100), (200, 100), (200, 200)), 240, 320))


def test_a_double_click_is_one_corner_also_where_corners_are_close() -> None:
    drawing = blank(480, 640)
    for corner in ((100, 100), (105, 100)):
        drawing.corner(*corner)
        with pytest.raises(ValueError, match="there is a corner already"):
            drawing.corner(corner[0] + 0.8, corner[1] - 0.8)
    drawing.corner(105, 108)
    assert drawing.vertices == ((100, 100), (105, 100), (105, 108))
    drawing.corner(100, 101)  # on the first one
    assert drawing.mask is not None and not drawing.vertices


def test_small_objects_have_room_for_corners() -> None:
    drawing = blank(1080, 1920)
    octagon = [(500 + 6 * np.cos(a), 500 + 6 * np.sin(a)) for a in np.linspace(0, 1.75 * np.pi, 8)]
    for vertex in octagon:
        drawing.corner(*vertex)
    assert len(drawing.vertices) == 8
    drawing.corner(*octagon[0])
    assert drawing.mask is not None and drawing.mask.sum() > 80


def test_a_prompt_marks_its_object_unless_a_polygon_is_open() -> None:
    drawing = blank()
    asked: list[Prompt] = []

    def backend(image, prompt):
        asked.append(prompt)
        return fill_polygon(TRIANGLE, *image.shape[:2])

    prompt = Prompt(box=Box(1, 1, 30, 23))
    drawing.box(backend, prompt.box)
    assert asked == [prompt]
    np.testing.assert_array_equal(drawing.mask, fill_polygon(TRIANGLE, 24, 32))
    drawing.corner(1.0, 1.0)
    with pytest.raises(ValueError, match="first close the polygon of 1 corner, or undo it"):
        drawing.box(backend, prompt.box)


class Disks:
    """Marks a disk about each point on the object, without disks about those beside it, beside the mask before."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []
        self.unsure = False

    def __call__(self, image, prompt):
        self.asked.append(prompt)
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        mask = np.zeros(image.shape[:2], bool) if prompt.mask is None else prompt.mask.copy()
        if prompt.box is not None:
            mask[prompt.box.slices] = True
        for point in prompt.points:
            mask[np.hypot(columns - point.x, rows - point.y) < (6 if point.on_object else 3)] = point.on_object
        if self.unsure:
            raise UnsureError(mask, 0.3, 0.5)
        return mask


def test_clicks_mark_an_object_and_say_what_is_missing_or_too_much() -> None:
    drawing, backend = blank(), Disks()
    assert drawing.point(backend, 10, 10) == ""
    assert drawing.mask[10, 10] and not drawing.mask[10, 20] and len(drawing.points) == 1
    drawing.point(backend, 20.0, 10.0)  # not marked: missing
    drawing.point(backend, 10.0, 12.5)  # marked: too much
    first, second, third = (Point(x=10, y=10), Point(x=20, y=10), Point(x=10, y=12.5, on_object=False))
    assert backend.asked[-1] == Prompt(points=(first, second, third)) and backend.asked[-1].mask is None
    assert drawing.mask[10, 20] and not drawing.mask[12, 10] and drawing.points == (first, second, third)
    drawing.undo()
    assert drawing.mask[12, 10] and drawing.points == (first, second)


def test_a_double_click_does_not_take_away_what_the_first_one_marked() -> None:
    drawing, backend = blank(240, 320), Disks()
    drawing.point(backend, 100, 100)
    with pytest.raises(ValueError, match="there is a click already: click elsewhere, or undo it"):
        drawing.point(backend, 102, 102)  # within a hundredth of 320
    assert drawing.mask[100, 100] and len(drawing.points) == len(backend.asked) == 1
    drawing.point(backend, 104, 100)
    assert drawing.points[1] == Point(x=104, y=100, on_object=False)


def test_clicks_mend_what_was_boxed_or_drawn() -> None:
    drawing, backend = blank(), Disks()
    drawing.box(backend, Box(2, 2, 8, 8))
    drawing.point(backend, 20, 12)
    assert backend.asked[-1] == Prompt(box=Box(2, 2, 8, 8), points=(Point(x=20, y=12),))
    drawing = blank()
    for corner in ((2, 2), (12, 2), (12, 12), (2, 12)):
        drawing.corner(*corner)
    with pytest.raises(ValueError, match="first close the polygon of 4 corners, or undo it"):
        drawing.point(backend, 20, 12)
    drawing.close_polygon()
    drawing.point(backend, 5, 5)  # inside it: too much
    assert backend.asked[-1].points == (Point(x=5, y=5, on_object=False),)
    assert backend.asked[-1].mask.sum() == 100 and not drawing.mask[5, 5] and drawing.mask[10, 10]
    drawing.corner(20, 20)
    assert drawing.points == () and not drawing.mask[5, 5]


def test_what_was_there_beside_a_box_is_mended_by_clicks_on_it() -> None:
    drawing, backend = blank(), Disks()
    for corner in ((2, 2), (6, 2), (6, 6), (2, 6)):
        drawing.corner(*corner)
    drawing.close_polygon()
    drawing.box(backend, Box(20, 4, 28, 12))
    drawing.point(backend, 24, 8)  # of the box: the polygon stays
    assert drawing.mask[4, 4] and not drawing.mask[8, 24]
    drawing.point(backend, 4, 4)
    assert not drawing.mask[4, 4] and drawing.mask[5, 27]


def test_a_mask_that_the_backend_does_not_believe_in_is_shown_with_its_words() -> None:
    drawing, backend = blank(), Disks()
    backend.unsure = True
    words = "unsure (0.30, below 0.5): click again or draw"
    assert drawing.point(backend, 10, 10) == words and drawing.mask[10, 10]
    assert drawing.box(backend, Box(20, 4, 28, 12)) == words and drawing.mask[5, 25]
    assert drawing.cut_out(backend) == words


@pytest.mark.parametrize("place", [(-0.1, 5.0), (32.6, 5.0), (5.0, -0.1), (5.0, 25.0), (float("nan"), 5.0)])
def test_a_point_outside_the_image_is_refused(place) -> None:
    drawing = blank()
    with pytest.raises(ValueError, match="points must lie inside the 32x24 image"):
        drawing.point(Disks(), *place)
    drawing.point(Disks(), 32, 24)  # as viewers say it that round
    assert drawing.points == (Point(x=31.5, y=23.5),)
