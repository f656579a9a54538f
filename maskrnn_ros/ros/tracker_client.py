# SPDX-License-Identifier: Apache-2.0
"""The tracker as a seeding tool sees it: live instances, seeds sent and what became of them."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from maskrnn_ros.image_messages import fill_image, stamp_to_ns
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.srv import AddInstances, RemoveInstances
from maskrnn_ros.types import BoolArray, UInt8Array

INTERFACES = (
    Interface(
        name="tracker/instances",
        type="maskrnn_ros/InstanceMaskArray",
        kind="subscribes",
        text="Which instances there are to correct and to remove.",
    ),
    Interface(
        name="tracker/seed_result",
        type="maskrnn_ros/SeedResult",
        kind="subscribes",
        text="What became of the masks sent.",
    ),
    Interface(name="tracker/status", type="maskrnn_ros/TrackerStatus", kind="subscribes", text="How the stream is."),
    Interface(name="tracker/add_instances", type="maskrnn_ros/AddInstances", kind="calls", text="Takes the masks."),
    Interface(
        name="tracker/remove_instances", type="maskrnn_ros/RemoveInstances", kind="calls", text="Removes instances."
    ),
    Interface(name="tracker/reset", type="std_srvs/Trigger", kind="calls", text="Removes all instances."),
)

LOST = "the tracker was started again"
"""Why a seed that waited in an earlier run of the tracker has no other end."""

_KEPT = 16
"""Masks whose end is waited for: what becomes of one may be lost on its way."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sent:
    """A mask on its way.

    Args:
        mask: Bool (H, W).
        header: Of the image that it was drawn on.
        context: The sender's.
    """

    mask: BoolArray
    header: Any
    context: Any


class TrackerCalls:
    """The services of a tracker, for whoever marks objects; answers come as callbacks of the node's executor.

    Args:
        node: The rclpy node.
        tracker: Name of the tracker's node, relative or full.
    """

    def __init__(self, node: Any, tracker: str = "tracker") -> None:
        self._name = node.resolve_service_name
        kinds = (AddInstances, "add_instances"), (RemoveInstances, "remove_instances"), (Trigger, "reset")
        self._clients = {kind.Request: node.create_client(kind, f"{tracker}/{name}") for kind, name in kinds}

    def name_of(self, request: Any) -> str:
        """Full name of the service that takes a request."""
        return str(self._name(self._clients[type(request)].srv_name))

    @property
    def are_served(self) -> bool:
        """Whether somebody serves all of them."""
        return all(client.service_is_ready() for client in self._clients.values())

    def is_served(self, request: Any, timeout_s: float = 0.0) -> bool:
        """Whether somebody serves it by then."""
        client = self._clients[type(request)]
        return bool(client.service_is_ready() or (timeout_s and client.wait_for_service(timeout_s)))

    def ask(self, request: Any, on_answer: Callable[[Any], None], on_failure: Callable[[Exception], None]) -> None:
        """Send a request; only in the thread that spins the node."""

        def done(future: Any) -> None:
            if future.exception() is not None:
                on_failure(future.exception())
            else:
                on_answer(future.result())

        self._clients[type(request)].call_async(request).add_done_callback(done)


def seed_request(prompts: list[Any], header: Any, image: UInt8Array | None = None) -> Any:
    """A request to start or correct instances, with a token by which its result is told from another client's.

    Args:
        prompts: Messages, one per object.
        header: Of the image that is meant; without an image its stamp counts alone.
        image: RGB, uint8 (H, W, 3): it goes along, so that the tracker need not have processed it or hold it still.
    """
    request = AddInstances.Request(token=uuid.uuid4().hex, stamp=header.stamp, prompts=prompts)
    if image is not None:
        request.image = Image(header=header)
        fill_image(request.image, image, "rgb8")
    return request


class TrackerClient:
    """Calls the tracker without waiting for it: its answers come as callbacks of the node's executor.

    Masks go by the service, not by the topic ``~/seed_mask``. The service answers with the id that a new instance
    got, or with what is wrong. And it takes the image along: a mask takes seconds to draw, meanwhile the tracker may
    have dropped that image unprocessed or have let go of it.

    The seed editor keeps its own list (``seed_ui.watch.Seeds``): this tells of each step of its own masks and forgets
    them with their end, that one is asked from several threads for the last results of all clients.

    Args:
        node: The rclpy node.
        on_taken: Called with a ``Sent`` and its ids: the tracker works on it.
        on_end: Called with a ``Sent`` that was applied (True) or not (False), and one line.
        on_waits: Called with one line: a mask waits, and what for.
        on_line: Called with one line for people about anything else, and whether it says that it was refused.
        on_status: Called with each TrackerStatus.
        on_instances: Called when the titles of the live instances change.
    """

    def __init__(
        self,
        node: Any,
        *,
        on_taken: Callable[[Sent, tuple[int, ...]], None],
        on_end: Callable[[Sent, bool, str], None],
        on_waits: Callable[[str], None],
        on_line: Callable[[str, bool], None],
        on_status: Callable[[Any], None],
        on_instances: Callable[[], None],
    ) -> None:
        self.instances: dict[int, str] = {}
        self._on_taken, self._on_end, self._on_waits = on_taken, on_end, on_waits
        self._on_line, self._on_instances = on_line, on_instances
        self._sent: dict[str, Sent] = {}  # until the end of each is known
        self._asked: dict[str, Sent] = {}  # until it is known whether the tracker took it
        self._runs: dict[str, str] = {}  # the run of the tracker in which it waits, where that was said
        self._calls = TrackerCalls(node)
        newest_only = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        node.create_subscription(InstanceMaskArray, "tracker/instances", self._take_instances, newest_only)
        node.create_subscription(SeedResult, "tracker/seed_result", self._take_result, reliable(10))
        node.create_subscription(TrackerStatus, "tracker/status", on_status, newest_only)

    @property
    def is_connected(self) -> bool:
        """Whether the tracker serves what is asked of it."""
        return self._calls.are_served

    def send(self, sent: Sent, image: UInt8Array, instance_id: int = 0) -> None:
        """Send a mask with its image.

        Args:
            sent: The mask.
            image: What it was drawn on, RGB, uint8 (H, W, 3).
            instance_id: The instance to correct; 0 = a new one.

        Raises:
            ValueError: Nobody serves, or the image has no stamp.
        """
        if stamp_to_ns(sent.header.stamp) == 0:
            raise ValueError("stamp of the frozen image must be > 0 ns, got 0: the tracker matches seeds by it")
        request = seed_request([mask_prompt(sent.mask, instance_id)], sent.header, image)
        self._check(request)
        token = request.token
        self._sent[token] = self._asked[token] = sent
        if len(self._sent) > _KEPT:
            self._forget(next(iter(self._sent)))
        self._call(request, lambda response: self._sent_answer(token, response))

    def remove(self, instance_id: int) -> None:
        """Remove an instance.

        Raises:
            ValueError: Nobody serves.
        """
        request = RemoveInstances.Request(ids=[instance_id])
        self._call(request, lambda response: self._plain_answer(f"removed {instance_id}", response))

    def reset(self) -> None:
        """Remove all instances.

        Raises:
            ValueError: Nobody serves.
        """
        self._call(Trigger.Request(), lambda response: self._plain_answer("the tracker is reset", response))

    def _call(self, request: Any, on_answer: Callable[[Any], None]) -> None:
        self._check(request)
        name = self._calls.name_of(request)
        self._calls.ask(request, on_answer, lambda error: self._on_line(f"{name}: {error}", True))

    def _check(self, request: Any) -> None:
        if not self._calls.is_served(request):
            raise ValueError(f"nobody serves {self._calls.name_of(request)}: start the tracker, or remap to its name")

    def _plain_answer(self, done: str, response: Any) -> None:
        self._on_line(done if response.success else f"refused: {response.message}", not response.success)

    def _sent_answer(self, token: str, response: Any) -> None:
        if response.success:
            self._taken(token, response.ids)
        elif token in self._sent:
            self._on_end(self._forget(token), False, f"refused: {response.message}")

    def _forget(self, token: str) -> Sent:
        self._asked.pop(token, None)
        self._runs.pop(token, None)
        return self._sent.pop(token)

    def _taken(self, token: str, ids: Any) -> None:
        """Say so once: the result may overtake the service's answer."""
        if token in self._asked:
            self._on_taken(self._asked.pop(token), tuple(ids))

    def _take_result(self, result: Any) -> None:
        token = result.token
        if token not in self._sent:
            return  # another client's
        if result.status != SeedResult.STATUS_REJECTED:
            self._taken(token, result.ids)
        ids = ", ".join(map(str, result.ids))
        if result.status == SeedResult.STATUS_PENDING:
            self._runs[token] = result.run_id
            self._on_waits(f"instance {ids}: {result.reason}")
            return
        applied = result.status == SeedResult.STATUS_APPLIED
        line = f"instance {ids} is tracked" if applied else f"rejected: {result.reason}"
        self._on_end(self._forget(token), applied, line)

    def _take_instances(self, message: Any) -> None:
        for token in [token for token, run_id in self._runs.items() if run_id != message.run_id]:
            self._on_end(self._forget(token), False, f"rejected: {LOST}")
        live = {
            instance.id: f"{instance.id} {instance.label}".strip()
            for instance in message.instances
            if instance.state != InstanceMask.STATE_REMOVED
        }
        if live != self.instances:
            self.instances = live
            self._on_instances()


def labels_message(sent: Sent, instance_id: int) -> Any:
    """The label mask of a mask that the tracker took: mono16, with the header of its image."""
    message = Image(header=sent.header)
    fill_image(message, np.where(sent.mask, np.uint16(instance_id), np.uint16(0)), "mono16")
    return message
