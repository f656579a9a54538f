# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy allows what the nodes do and nothing else; no DDS of the wheels can enforce it."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
import world
from node_bench import NodeBench  # skips where ROS is absent, hence first

# isort: split

from maskrnn_ros.ros.optional import optional
from maskrnn_ros.tracker_node.interfaces import INTERFACES

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "config" / "sros2_policy.xml"


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("security_policy", ROOT / "tools" / "security_policy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def allowed(node: str, group: str, way: str) -> set[str]:
    profile = ElementTree.parse(FILE).find(f"./enclaves/enclave[@path='/maskrnn/{node}']/profiles/profile")
    assert profile is not None and profile.get("node") == node and profile.get("ns") == "/"
    elements = [element for element in profile.findall(group) if element.get(way) == "ALLOW"]
    return {full(name.text or "", node) for element in elements for name in element}


def full(name: str, node: str) -> str:
    """The name of a topic or service of a node in the namespace /."""
    return name.replace("~", f"/{node}") if name.startswith("~") else f"/{name.lstrip('/')}"


def test_the_file_is_made_of_the_tables_of_the_nodes() -> None:
    assert FILE.read_text() == tool().policy(), "run: python tools/security_policy.py"


def test_nothing_is_allowed_by_a_pattern_and_nothing_is_denied() -> None:
    root = ElementTree.parse(FILE).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    names = [element.text or "" for element in root.iter() if element.tag in ("topic", "service")]
    assert len(names) > 100 and not [name for name in names if set(name) & set("*?[ ")]
    assert "DENY" not in FILE.read_text()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_tracker_does_what_it_is_allowed_and_is_allowed_what_it_does(compressed: bool) -> None:
    absent = {full(i.name, "tracker") for i in INTERFACES if i.needs and optional(i.needs) is None}
    with NodeBench(world.exact_or_still_tracker, compressed=compressed) as bench:
        node = bench.node
        published = {publisher.topic_name for publisher in node.publishers}
        subscribed = {subscription.topic_name for subscription in node.subscriptions}
        served = {node.resolve_service_name(service.srv_name) for service in node.services}
    of_rcl = {"/tracker/transition_event", "/rosout"}  # rcl's own, without a handle in rclpy
    not_now = {"/clock", "/parameter_events"} | ({"/image"} if compressed else {"/image/compressed"})
    assert published <= allowed("tracker", "topics", "publish") <= published | absent | of_rcl
    assert subscribed <= allowed("tracker", "topics", "subscribe") <= subscribed | absent | not_now
    assert served == allowed("tracker", "services", "reply")
