# SPDX-License-Identifier: Apache-2.0
"""~/events over real topics."""

from __future__ import annotations

import world
from node_bench import NodeBench  # skips where ROS is absent, hence first

# isort: split

from std_srvs.srv import Trigger

from maskrnn_ros.msg import InstanceEvent, InstanceMask
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.srv import RemoveInstances


def test_the_values_are_those_of_the_mask_message() -> None:
    states = [getattr(InstanceMask, f"STATE_{name}") for name in ("SEEDED", "TRACKING", "OCCLUDED", "LOST", "REMOVED")]
    assert InstanceEvent.STATE_NONE not in states


def test_the_life_of_instances_is_told_with_the_images_header() -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        events: list[InstanceEvent] = []
        bench.client.create_subscription(InstanceEvent, "/tracker/events", events.append, reliable(100))
        bench.wait(lambda: bench.client.count_publishers("/tracker/events"))
        bench.wait(lambda: bench.node.count_subscribers("/tracker/events"))
        bench.seed(world.labels(1), world.stamp_ns(1))
        for number in range(4):
            bench.image(number)
        bench.call(RemoveInstances, "remove_instances", RemoveInstances.Request(ids=[1]))
        bench.image(4)
        bench.call(Trigger, "reset", Trigger.Request())
        last = bench.image(5)
        bench.wait(lambda: len(events) >= 6)
        headers = [message.header for message in bench.instances]
        told = [(e.id, e.before, e.after, e.session) for e in events]
        seeded, tracking, removed = (getattr(InstanceMask, f"STATE_{n}") for n in ("SEEDED", "TRACKING", "REMOVED"))
        assert told == [
            (1, InstanceEvent.STATE_NONE, seeded, 1),
            (2, InstanceEvent.STATE_NONE, seeded, 1),
            (1, seeded, tracking, 1),
            (2, seeded, tracking, 1),
            (1, tracking, removed, 1),
            (2, tracking, removed, 1),
        ]
        assert [headers.index(e.header) for e in events] == [1, 1, 2, 2, 4, 5]
        assert events[5].header == last.header
        assert {e.run_id for e in events} == {last.run_id} != {""}
