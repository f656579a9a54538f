# SPDX-License-Identifier: Apache-2.0
"""A mask that is drawn step by step: clicks, polygons and rectangles by their vertices, cut-outs, and undo."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from maskrnn_ros.prompts import Point, Prompt, PromptBackend, UnsureError, clicked
from maskrnn_ros.types import BoolArray, Box, UInt8Array

Vertex = tuple[float, float]
"""Pixel position (x, y); the first pixel covers 0 .. 1."""
_CORNERS = 3
"""Vertices that a polygon needs."""
_REACH = 0.01
"""How near a click is to be on a dot, such as the first vertex, as a share of the image's longer side: what a hand
hits."""
_DOUBLE = 0.002
"""The same of the second click of a double click, for which the mouse stays: corners may be nearer than a hand hits."""
_REACH_OF_POLYGON = 0.25
"""The same as a share of the polygon's longer side: within a small object there must be room for corners."""


def fill_polygon(vertices: tuple[Vertex, ...], height: int, width: int) -> BoolArray:
    """The pixels whose centre lies inside a polygon, bool (height, width).

    Where the polygon crosses itself the even-odd rule holds. Polygons that share an edge share no pixel, which
    OpenCV's fillPoly, made for pictures, does not promise.

    >>> fill_polygon(((0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0)), 2, 3).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])

    Args:
        vertices: At least three; the last is joined to the first.
        height: Rows of the image.
        width: Columns of the image.
    """
    inside = np.zeros((height, width), np.bool_)
    centres = np.arange(width) + 0.5
    for (x0, y0), (x1, y1) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        first, last = (math.ceil(y - 0.5) for y in sorted((y0, y1)))  # rows whose centre is in [y0, y1)
        rows = np.arange(max(first, 0), min(last, height))
        if rows.size:
            crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= centres >= crossings[:, None]
    return inside


def corners(count: int) -> str:
    """``1 corner``, ``2 corners``."""
    return f"{count} corner{'s' * (count != 1)}"


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    vertices: tuple[Vertex, ...]
    mask: BoolArray | None
    prompt: Prompt | None = None  # made the mask, beside what lay there before
    before: BoolArray | None = None


class Drawing:
    """A mask in the making over one image.

    Args:
        image: RGB, uint8 (H, W, 3); not changed.
    """

    def __init__(self, image: UInt8Array) -> None:
        self.image = image
        self._steps = [_Step((), None)]

    @property
    def vertices(self) -> tuple[Vertex, ...]:
        """The vertices that no polygon has taken up yet."""
        return self._steps[-1].vertices

    @property
    def mask(self) -> BoolArray | None:
        """What is marked so far, bool (H, W); None before the first polygon."""
        return self._steps[-1].mask

    @property
    def points(self) -> tuple[Point, ...]:
        """The clicks that the mask was made of; none where something else was done since."""
        prompt = self._steps[-1].prompt
        return () if prompt is None else prompt.points

    @property
    def is_empty(self) -> bool:
        """Whether nothing is drawn."""
        return not self.vertices and self.mask is None

    @property
    def reach(self) -> float:
        """How near to the first vertex a click closes the polygon, pixels; 0 before there are three vertices."""
        if len(self.vertices) < _CORNERS:
            return 0.0
        xs, ys = zip(*self.vertices, strict=True)
        extent: float = max(max(xs) - min(xs), max(ys) - min(ys))
        return min(_REACH * max(self._size), _REACH_OF_POLYGON * extent)

    def corner(self, x: float, y: float) -> None:
        """Add a vertex; on the first one, close the polygon.

        Raises:
            ValueError: It lies outside the image or on the last vertex, or the polygon holds no pixel.
        """
        if self.reach and math.dist((x, y), self.vertices[0]) <= self.reach:
            self.close_polygon()
        elif self.vertices and math.dist((x, y), self.vertices[-1]) <= _DOUBLE * max(self._size):
            raise ValueError("there is a corner already: click the next one, or undo it")
        else:
            self.add(x, y)

    def add(self, x: float, y: float) -> None:
        """Add a vertex.

        Raises:
            ValueError: It lies outside the image.
        """
        height, width = self.image.shape[:2]
        if not (0 <= x <= width and 0 <= y <= height):  # NaN is refused, too
            raise ValueError(f"vertex must lie in the {width}x{height} image, got ({x:.1f}, {y:.1f})")
        self._steps.append(_Step((*self.vertices, (x, y)), self.mask))

    def close_polygon(self) -> None:
        """Mark what the vertices enclose, beside what is marked already: an object may show in several parts.

        Raises:
            ValueError: There are fewer than three vertices, or they enclose no pixel.
        """
        if len(self.vertices) < _CORNERS:
            raise ValueError(f"a polygon needs {_CORNERS} vertices, got {len(self.vertices)}")
        self._mark(fill_polygon(self.vertices, *self._size), "polygon", self.mask)

    def rectangle(self) -> None:
        """Mark the rectangle between the last two vertices; earlier ones are dropped.

        Raises:
            ValueError: There are fewer than two vertices, or no pixel between them.
        """
        if len(self.vertices) < 2:
            raise ValueError(f"a rectangle needs 2 vertices, got {len(self.vertices)}")
        (x0, y0), (x1, y1) = self.vertices[-2:]
        self._mark(fill_polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), *self._size), "rectangle", self.mask)

    def cut_out(self, backend: PromptBackend) -> str:
        """Mark the object in the box around the vertices, or where there are none, around the mask.

        Around vertices the object is marked beside what is marked already; around the mask, in its stead.

        Args:
            backend: Makes the mask.

        Returns:
            What the backend says of a mask that it does not believe in: whoever looks at it may know better. Else "".

        Raises:
            ValueError: There is no box, or the backend finds nothing in it.
        """
        return self._ask(backend, Prompt(box=self._box()), self.mask if self.vertices else None)

    def box(self, backend: PromptBackend, box: Box) -> str:
        """Mark the object in a box, beside what is marked already.

        Args:
            backend: Makes the mask.
            box: Around the object.

        Returns:
            As ``cut_out``.

        Raises:
            ValueError: It lies outside the image, there are vertices that no polygon has taken up, or the backend
                finds nothing.
        """
        self._check_closed()
        return self._ask(backend, Prompt(box=box), self.mask)

    def point(self, backend: PromptBackend, x: float, y: float) -> str:
        """Mark the object at a point; where something is marked already, mend that.

        A point that is marked is taken for one beside the object: a click says what is missing or too much. Clicks on
        what a box or clicks have marked are told to the backend together with those.

        Args:
            backend: Makes the mask.
            x: Pixels.
            y: Likewise.

        Returns:
            As ``cut_out``.

        Raises:
            ValueError: As ``box``, or there is a click on that place already.
        """
        self._check_closed()
        point = clicked(x, y, self._size)
        step = self._steps[-1]
        # a double click, or a second one in doubt about the first: taken for "too much" it would undo what that marked
        if any(math.dist((point.x, point.y), (p.x, p.y)) <= _REACH * max(self._size) for p in self.points):
            raise ValueError("there is a click already: click elsewhere, or undo it")
        if step.mask is None:
            return self._ask(backend, Prompt(points=(point,)), None)
        at = int(point.y), int(point.x)
        point = dataclasses.replace(point, on_object=not step.mask[at])
        if step.prompt is None or (step.before is not None and step.before[at]):
            return self._ask(backend, Prompt(points=(point,), mask=step.mask), None)
        return self._ask(backend, dataclasses.replace(step.prompt, points=(*step.prompt.points, point)), step.before)

    def undo(self) -> None:
        """Take back the last step.

        Raises:
            ValueError: There is none.
        """
        if len(self._steps) == 1:
            raise ValueError("there is nothing to undo")
        self._steps.pop()

    def finished(self) -> BoolArray:
        """The mask to send, bool (H, W); vertices that are still open are closed before.

        Raises:
            ValueError: Nothing is marked, or the open vertices make no polygon.
        """
        if self.vertices:
            self.close_polygon()
        if self.mask is None:
            raise ValueError("nothing is marked: click the object first")
        return self.mask

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return height, width

    def _box(self) -> Box:
        if not self.vertices:
            box = Box.of_mask(self.mask) if self.mask is not None else None
            if box is None:
                raise ValueError("cutting out needs 2 vertices or a polygon around the object, got none")
            return box
        if len(self.vertices) < 2:
            raise ValueError(f"cutting out needs 2 vertices around the object, got {len(self.vertices)}")
        xs, ys = zip(*self.vertices, strict=True)
        x0, y0 = math.floor(min(xs)), math.floor(min(ys))
        return Box(x0, y0, max(x0 + 1, math.ceil(max(xs))), max(y0 + 1, math.ceil(max(ys))))

    def _check_closed(self) -> None:
        if self.vertices:
            raise ValueError(f"first close the polygon of {corners(len(self.vertices))}, or undo it")

    def _ask(self, backend: PromptBackend, prompt: Prompt, before: BoolArray | None) -> str:
        remark = ""
        try:
            found = backend(self.image, prompt)
        except UnsureError as error:
            found, remark = error.mask, str(error)
        self._mark(found, "cut-out", before, prompt)
        return remark

    def _mark(self, found: BoolArray, what: str, before: BoolArray | None, prompt: Prompt | None = None) -> None:
        """Take up what was found, beside what was there before."""
        if not found.any():
            raise ValueError(f"the {what} holds no pixel")
        self._steps.append(_Step((), found if before is None else found | before, prompt, before))
