# SPDX-License-Identifier: Apache-2.0
"""Writes config/sros2_policy.xml, what each node may do under SROS2: tools/security_policy.py [--check]."""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from maskrnn_ros.locator import node as locator
from maskrnn_ros.ros import tracker_client
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.rviz_tool import node as seed_tool
from maskrnn_ros.seed_ui import node as seed_ui
from maskrnn_ros.tracker_node import interfaces as tracker_interfaces

PATH = Path(__file__).resolve().parent.parent / "config" / "sros2_policy.xml"

EVERY_NODE: tuple[tuple[str, str], ...] = (
    ("publishes", "/rosout"),
    ("publishes", "/parameter_events"),
    ("subscribes", "/parameter_events"),
    ("subscribes", "/clock"),
    *(
        ("serves", f"~/{name}")
        for name in (
            "describe_parameters",
            "get_parameter_types",
            "get_parameters",
            "get_type_description",
            "list_parameters",
            "set_parameters",
            "set_parameters_atomically",
        )
    ),
)
"""What rclpy gives a node."""

LIFECYCLE: tuple[tuple[str, str], ...] = (
    ("publishes", "~/transition_event"),
    *(
        ("serves", f"~/{name}")
        for name in (
            "change_state",
            "get_available_states",
            "get_available_transitions",
            "get_state",
            "get_transition_graph",
        )
    ),
)
"""What it gives a lifecycle node, beside that."""

_TRACKER = "/tracker"
_CALLS = tuple((i.kind, f"/{i.name}") for i in tracker_client.INTERFACES if i.kind == "calls")


def rules(interfaces: Iterable[Interface]) -> tuple[tuple[str, str], ...]:
    """Kind and name of each; images may come compressed, too."""
    found = [(i.kind, i.name) for i in interfaces]
    return (*found, *((kind, f"{name}/compressed") for kind, name in found if name == "image"))


NODES: dict[str, tuple[tuple[str, str], ...]] = {
    "tracker": (*rules(tracker_interfaces.INTERFACES), *LIFECYCLE),
    "locator": rules(locator.INTERFACES),
    "rviz_seed_tool": rules(seed_tool.INTERFACES),
    "maskrnn_seed_ui": (*rules(seed_ui.INTERFACES), *_CALLS),
    "maskrnn_seed": (("publishes", f"{_TRACKER}/seed_mask"), ("subscribes", f"{_TRACKER}/seed_result")),
}
"""What each node does, by its name; the tests hold it against the nodes themselves."""

_GROUPS = {
    "serves": ("services", "reply", "service"),
    "calls": ("services", "request", "service"),
    "subscribes": ("topics", "subscribe", "topic"),
    "publishes": ("topics", "publish", "topic"),
}


def policy() -> str:
    """The whole file."""
    root = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(root, "enclaves")
    for node, own in NODES.items():
        enclave = ElementTree.SubElement(enclaves, "enclave", path=f"/maskrnn/{node}")
        profiles = ElementTree.SubElement(enclave, "profiles")
        profile = ElementTree.SubElement(profiles, "profile", ns="/", node=node)
        for kind, (group, way, tag) in _GROUPS.items():
            names = sorted({name for known, name in (*EVERY_NODE, *own) if known == kind})
            if names:
                element = ElementTree.SubElement(profile, group, {way: "ALLOW"})
                for name in names:
                    ElementTree.SubElement(element, tag).text = name
    ElementTree.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n'
    note = "<!-- Made by tools/security_policy.py; SECURITY.md tells how to use it. -->\n"
    return f"{head}{note}{ElementTree.tostring(root, encoding='unicode')}\n"


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where the file differs, write nothing")
    args = parser.parse_args()
    text = policy()
    if not args.check:
        PATH.write_text(text)
    elif not PATH.is_file() or PATH.read_text() != text:
        print(f"{PATH.name} differs from the nodes' tables", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
