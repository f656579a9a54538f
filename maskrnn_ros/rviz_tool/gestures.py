# SPDX-License-Identifier: Apache-2.0
"""What the mouse did in RViz2, out of the feedback of interactive markers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from visualization_msgs.msg import InteractiveMarkerFeedback

from maskrnn_ros.rviz_tool.markers import BUTTON, NEWEST

_STILL = 0.012
"""A mouse that moves further between press and release has dragged, metres: 10 pixels in the shipped view."""

Place = tuple[float, float]
"""A point (x, y) in the plane of the image, metres."""


@dataclasses.dataclass(frozen=True)
class Click:
    """On the picture, or on what is drawn on it."""

    at: Place


@dataclasses.dataclass(frozen=True)
class Drag:
    """Over the picture, with the left button."""

    begin: Place
    end: Place


@dataclasses.dataclass(frozen=True)
class Press:
    """A click on one of the buttons beside the picture."""

    name: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """Of the menu."""

    menu_entry_id: int


class GestureReader:
    """Reads feedback message by message.

    A click is POSE_UPDATE and MOUSE_DOWN when the button goes down, and BUTTON_CLICK, POSE_UPDATE and MOUSE_UP when it
    goes up again (rviz 14.3.1, interactive_marker_control.cpp): BUTTON_CLICK counts, and a drag gives one, too. What
    has the focus when the button goes down gets the rest.
    """

    def __init__(self) -> None:
        self._down: tuple[str, Place] | None = None

    def read(self, feedback: Any, shown: str) -> Click | Drag | Press | Choice | None:
        """What was done with that message; None: nothing yet.

        Args:
            feedback: The InteractiveMarkerFeedback.
            shown: Name of the controls of the newest freeze.

        Raises:
            ValueError: RViz2 shows another picture than that, or does not know where the click was.
        """
        kind = InteractiveMarkerFeedback
        # z is not looked at: seen from far above, it is as coarse as RViz2's depth image
        place = (feedback.mouse_point.x, feedback.mouse_point.y)
        if feedback.event_type == kind.MOUSE_DOWN:
            self._down = (feedback.client_id, place) if feedback.mouse_point_valid else None
        if feedback.event_type not in (kind.BUTTON_CLICK, kind.MENU_SELECT):
            return None
        down, self._down = self._down, None
        if feedback.control_name != shown:
            raise ValueError("that was for an earlier image than the frozen one: look again, then click or choose")
        if feedback.event_type == kind.MENU_SELECT:
            return Choice(feedback.menu_entry_id)
        if feedback.marker_name in (BUTTON, NEWEST):
            return Press(feedback.marker_name)
        if not feedback.mouse_point_valid:
            raise ValueError("RViz2 does not know where on the image that click was: click again")
        if down is not None and down[0] == feedback.client_id and math.dist(down[1], place) > _STILL:
            return Drag(down[1], place)
        return Click(place)
