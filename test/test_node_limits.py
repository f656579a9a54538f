# SPDX-License-Identifier: Apache-2.0
"""What is too much for the node is answered at once, in few words, and disturbs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import world
from node_bench import Gate, NodeBench  # first: it skips where there is no ROS
from std_srvs.srv import Trigger

from maskrnn_ros.image_messages import ns_to_stamp
from maskrnn_ros.limits import MAX_FRAME_ID, MAX_IDS, MAX_PER_S, MAX_TEXT, MAX_WAITING  # noqa: I001
from maskrnn_ros.msg import Prompt, SeedResult
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.srv import AddInstances, RemoveInstances

pytestmark = pytest.mark.timeout(200)


def add(number: int, stamp_ns: int) -> Any:
    mask = np.zeros((world.HEIGHT, world.WIDTH), bool)
    mask[number % 90, 1 + number // 90] = True
    request = AddInstances.Request(prompts=[mask_prompt(mask)])
    ns_to_stamp(stamp_ns, request.stamp)
    return request


def test_large_requests_and_long_texts_are_refused_in_one_short_line() -> None:
    many = [float(i % 50) for i in range(32_768)]
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        for kind, name, request, text in (
            (RemoveInstances, "remove_instances", RemoveInstances.Request(ids=range(1_000_000)), "got 1000000"),
            (RemoveInstances, "remove_instances", RemoveInstances.Request(ids=range(1, MAX_IDS + 1)), "among [1, 2]"),
            (AddInstances, "add_instances", AddInstances.Request(prompts=[Prompt(x=many, y=many)]), "got 32768"),
        ):
            answer = bench.call(kind, name, request)
            assert not answer.success and text in answer.message, answer.message
            status = bench.counts()
            assert len(answer.message) <= MAX_TEXT and len(status.last_error) <= MAX_TEXT
            assert all(len(entry.value) <= MAX_TEXT for entry in bench.diagnostics[-1].status[0].values)
        long = "x" * 100_000
        bench.publish(bench.images, world.image(1), "rgb8", world.stamp_ns(1), long)
        bench.wait(lambda: bench.statuses[-1].rejected == 1)
        assert "frame_id must have at most 256 characters, got 100000" in bench.statuses[-1].last_error
        bench.publish(bench.seeds, world.labels(1).astype(np.uint16), "mono16", world.stamp_ns(1), long)
        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_REJECTED)
        assert bench.results[-1].header.frame_id == "x" * MAX_FRAME_ID
        assert [instance.id for instance in bench.image(1).instances] == [1, 2]


def test_seeds_that_wait_are_limited_and_room_comes_back() -> None:
    gate = Gate()
    gate.is_open = True
    with NodeBench(gate.build, max_instances=1000) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        gate.is_open = False
        bench.publish_image(1)
        assert gate.entered.acquire(timeout=60)  # the worker is busy, and ends only when we say
        answers = [bench.call(AddInstances, "add_instances", add(i, world.stamp_ns(2))) for i in range(MAX_WAITING + 3)]
        assert [answer.success for answer in answers] == [True] * MAX_WAITING + [False] * 3
        assert answers[-1].message == f"expected at most {MAX_WAITING} seeds and requests that wait, got one more"
        assert bench.call(RemoveInstances, "remove_instances", RemoveInstances.Request(ids=[2])).success
        assert bench.call(Trigger, "reset", Trigger.Request()).success
        gate.open()
        bench.wait(lambda: not (bench.node._inbox.requests_waiting or bench.node._worker.snapshot.seeds_waiting))
        assert bench.call(AddInstances, "add_instances", add(0, world.stamp_ns(1))).success


def test_a_flood_of_requests_is_answered_and_the_stream_goes_on() -> None:
    now = 0.0
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.node._rate = type(bench.node._rate)(clock=lambda: now)
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        answers = [bench.call(Trigger, "reset", Trigger.Request()) for _ in range(2 * MAX_PER_S + 1)]
        assert not answers[-1].success and all(answer.success for answer in answers[: 2 * MAX_PER_S - 1])
        assert answers[-1].message == f"expected at most {MAX_PER_S} seeds and requests in a second, got more"
        bench.publish_seed(world.labels(1), world.stamp_ns(1))
        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_REJECTED)
        bench.image(1)
        now = 1.0
        assert bench.call(Trigger, "reset", Trigger.Request()).success


def test_a_mask_of_another_size_than_the_stream_is_not_even_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    with NodeBench(world.exact_or_still_tracker) as bench:
        bench.seed(world.labels(0), world.stamp_ns(0))
        bench.image(0)
        monkeypatch.setattr("maskrnn_ros.ros.messages.labels_from_image", lambda message: pytest.fail("converted"))
        message = bench.publish(bench.seeds, np.ones((40, 50), np.uint16), "mono16", world.stamp_ns(0))
        bench.wait(lambda: bench.results[-1].status == SeedResult.STATUS_REJECTED)
        assert bench.results[-1].header == message.header
        assert "mask must be 128x96 (width x height) like the image, got 50x40" in bench.results[-1].reason
