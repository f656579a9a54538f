# SPDX-License-Identifier: Apache-2.0
"""The seeding tool and the real tracker: what is drawn on a frozen image is tracked on the newest."""

from __future__ import annotations

import numpy as np
import pytest
import world
from node_bench import NodeBench  # skips where ROS is absent, hence first
from seed_bench import SeedBench

# isort: split

from maskrnn_ros.image_messages import image_to_rgb, labels_from_image, stamp_to_ns
from maskrnn_ros.msg import InstanceMask, SeedResult

CUP, BOX = world.TWO


def connect(tracker: NodeBench, tool: SeedBench) -> None:
    """Wait until the two see each other; the bench listens to the tracker, too."""
    tracker.wait(lambda: tracker.images.get_subscription_count() == 2)
    for topic in ("/tracker/instances", "/tracker/seed_result"):
        tracker.wait(lambda topic=topic: tracker.listeners(topic) == 2)
    tool.wait(lambda: tool.node._tracker.is_connected)


def draw(tool: SeedBench, shape: world.Shape, number: int) -> None:
    """Mark a shape of the world where it is on a frame."""
    x, y = shape.x + shape.dx * number, shape.y + shape.dy * number
    tool.corners((x, y), (x + shape.width, y + shape.height), width=world.WIDTH)
    tool.choose("Rectangle")
    tool.wait(lambda: tool.shown("mask"))


def frozen_ns(tool: SeedBench) -> int:
    tool.wait(lambda: tool.pictures and tool.node._newest is not None)
    return stamp_to_ns(tool.node._frozen.header.stamp)


@pytest.mark.parametrize("seconds", [10.0, 0.1], ids=["held by the tracker", "older than its buffer"])
def test_a_seed_starts_on_the_frozen_image_and_reaches_the_newest(seconds: float) -> None:
    settings = {"catch_up__mode": "exact", "buffer__seconds": seconds}
    with NodeBench(world.exact_or_still_tracker, **settings) as tracker, SeedBench(joins=True) as tool:
        connect(tracker, tool)
        tracker.image(0)
        assert frozen_ns(tool) == world.stamp_ns(0)
        for number in range(1, 6):
            tracker.image(number)
        draw(tool, CUP, 0)
        tool.choose("New instance")
        tracker.wait(lambda: tracker.results)
        tracker.image(6)
        tracker.wait(lambda: tracker.results[-1].status == SeedResult.STATUS_APPLIED)
        result = tracker.results[-1]
        assert (stamp_to_ns(result.header.stamp), list(result.ids)) == (world.stamp_ns(0), [1])
        tool.wait(lambda: tool.text[:1] == ["instance 1 is tracked"])
        tracker.image(7)
        np.testing.assert_array_equal(tracker.labels, np.where(world.labels(7) == 1, 1, 0))
        tool.wait(lambda: tool.masks)
        assert stamp_to_ns(tool.masks[-1].header.stamp) == world.stamp_ns(0)
        np.testing.assert_array_equal(labels_from_image(tool.masks[-1]), np.where(world.labels(0) == 1, 1, 0))


def test_freeze_correct_remove_and_reset_with_the_real_tracker() -> None:
    with NodeBench(world.exact_or_still_tracker, catch_up__mode="exact") as tracker, SeedBench(joins=True) as tool:
        connect(tracker, tool)
        tracker.image(0)
        frozen_ns(tool)
        tool.corners((2, 2), (9, 2), (9, 9), width=world.WIDTH)  # a wrong start
        tool.choose("New instance")
        tool.wait(lambda: tool.text[:1] == ["instance 1 is tracked"])
        draw(tool, BOX, 0)
        tool.choose("New instance")
        tool.wait(lambda: tool.text[:1] == ["instance 2 is tracked"])
        tracker.image(1)
        tool.wait(lambda: len([e for e in tool.button.menu_entries if e.parent_id]) == 4)
        tool.wait(lambda: stamp_to_ns(tool.node._newest.header.stamp) == world.stamp_ns(1))
        tool.choose("Freeze newest")
        tool.wait(lambda: np.array_equal(tool.node._drawing.image, world.image(1)))
        draw(tool, CUP, 1)
        tool.choose("Correct instance", "1")
        tracker.wait(lambda: len([r for r in tracker.results if r.status == SeedResult.STATUS_APPLIED]) == 3)
        tracker.image(2)
        np.testing.assert_array_equal(tracker.labels, world.labels(2))
        tool.choose("Remove instance", "2")
        tool.wait(lambda: tool.text[:1] == ["removed 2"])
        message = tracker.image(3)
        states = {instance.id: instance.state for instance in message.instances}
        assert states == {1: InstanceMask.STATE_TRACKING, 2: InstanceMask.STATE_REMOVED}
        tool.wait(lambda: list(tool.node._tracker.instances) == [1])
        tool.choose("Reset the tracker")
        tool.wait(lambda: tool.text[:1] == ["the tracker is reset"])
        assert list(tracker.image(4).instances) == []
        tool.wait(lambda: tool.node._tracker.instances == {})
        assert [e.parent_id for e in tool.served()[0]["add"].menu_entries if e.parent_id] == []


def test_what_the_real_tracker_refuses_is_said() -> None:
    with NodeBench(world.exact_or_still_tracker) as tracker, SeedBench(joins=True) as tool:
        connect(tracker, tool)
        tracker.image(0)
        frozen_ns(tool)
        draw(tool, CUP, 0)
        tool.choose("New instance")
        tool.wait(lambda: tool.text[:1] == ["instance 1 is tracked"])
        tool.wait(lambda: (image_to_rgb(tool.pictures[-1])[70:] == world.image(0)[70:]).all())
        tracker.image(1)
        tool.wait(lambda: list(tool.node._tracker.instances) == [1])
        draw(tool, BOX, 0)
        tool.choose("Remove instance", "1")
        tool.wait(lambda: tool.text[:1] == ["removed 1"])
        tool.choose("Correct instance", "1")  # the menu may lag behind the tracker
        tool.wait(lambda: "was removed in this session" in tool.text[0])
        assert tool.shown("mask")
