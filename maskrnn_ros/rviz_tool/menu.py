# SPDX-License-Identifier: Apache-2.0
"""What one can ask the seeding tool for: one table for the menu in RViz2 and for the Trigger services."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from visualization_msgs.msg import MenuEntry

_PER_ENTRY = 1 << 20
"""Menu ids between two entries; above an entry's own are those of its instances."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A menu entry and a service.

    Args:
        name: Of the service, and of the tool's method.
        title: In the menu.
        text: What the service does, one line for the README.
        of_instance: It needs an instance: a submenu of all there are; the service takes the parameter instance_id.
    """

    name: str
    title: str
    text: str
    of_instance: bool = False


ENTRIES = (
    Entry(name="freeze", title="Freeze newest", text="shows the newest image and clears the drawing"),
    Entry(name="click_mode", title="Click", text="a click marks an object or mends its mask, as at the start"),
    Entry(name="draw_mode", title="Draw", text="a click is a corner of a polygon"),
    Entry(name="close_polygon", title="Close polygon", text="marks what the clicked corners enclose"),
    Entry(name="rectangle", title="Rectangle", text="marks the rectangle between the last two clicks"),
    Entry(
        name="cut_out",
        title="Cut out",
        text="marks the object in the box around the clicks, or around the mask",
    ),
    Entry(name="undo", title="Undo", text="takes back the last click, box, polygon, rectangle or cut-out"),
    Entry(name="new_instance", title="New instance", text="sends the mask as a new instance"),
    Entry(
        name="correct_instance",
        title="Correct instance",
        text="sends the mask as a correction of the instance `instance_id`",
        of_instance=True,
    ),
    Entry(name="remove_instance", title="Remove instance", text="removes the instance `instance_id`", of_instance=True),
    Entry(name="reset", title="Reset the tracker", text="removes all instances and clears the drawing"),
)


def menu(instances: Mapping[int, str] | None) -> list[Any]:
    """The MenuEntry messages; parents come before their children, as RViz2 wants it.

    Args:
        instances: Titles of the live instances by id; None leaves out what is about one of them.
    """
    found = []
    for number, entry in enumerate(ENTRIES, 1):
        if entry.of_instance and instances is None:
            continue
        own = number * _PER_ENTRY
        found.append(MenuEntry(id=own, title=entry.title, command_type=MenuEntry.FEEDBACK))
        if entry.of_instance and instances is not None:
            found += [
                MenuEntry(id=own + i, parent_id=own, title=title, command_type=MenuEntry.FEEDBACK)
                for i, title in sorted(instances.items())
            ]
    return found


def chosen(menu_entry_id: int) -> tuple[Entry, int]:
    """The entry of a menu id, and the instance; 0 where none was chosen.

    Raises:
        ValueError: There is no such entry.
    """
    number, instance_id = divmod(menu_entry_id, _PER_ENTRY)
    if not 1 <= number <= len(ENTRIES):
        raise ValueError(f"menu_entry_id must be one of the menu's, got {menu_entry_id}")
    return ENTRIES[number - 1], instance_id
