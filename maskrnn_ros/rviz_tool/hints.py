# SPDX-License-Identifier: Apache-2.0
"""What to do next, in one line for people."""

from __future__ import annotations

from maskrnn_ros.rviz_tool.drawing import Drawing, corners


def hint(drawing: Drawing, draws: bool, *, in_rviz: bool) -> str:
    """What can be done with a drawing.

    Args:
        drawing: What is drawn so far.
        draws: A click is a corner, not a point on an object.
        in_rviz: There are the button and the menu. Else there are clicks in a viewer of images, and services.
    """
    count = len(drawing.vertices)
    if drawing.reach:
        return f"{corners(count)}; click the first one to close" + (", or right-click" if in_rviz else "")
    if count:
        return f"{corners(count)}; click the next one" + (", or right-click: rectangle, cut out" if in_rviz else "")
    if drawing.mask is not None:
        mend = "" if draws else "click what is missing or too much, or "
        send = "click 'add', or right-click it to correct" if in_rviz else "call new_instance or correct_instance"
        return f"{int(drawing.mask.sum())} pixels marked; {mend}{send}"
    return f"click {'the corners of an object' if draws else 'an object'}" + (
        ", or drag a box around it" if in_rviz else ""
    )
