# SPDX-License-Identifier: Apache-2.0
"""The node behind the seed editor: what it hears of the tracker, and what it asks of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import compressed_to_rgb, image_to_rgb, ns_to_stamp
from maskrnn_ros.masks import label_image
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.prompts import build_prompts
from maskrnn_ros.ros.image_source import ImageSource
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.messages import mask_prompt
from maskrnn_ros.ros.qos import POLL_S, client_node, reliable
from maskrnn_ros.ros.tracker_client import TrackerCalls, seed_request
from maskrnn_ros.seed_ui.pictures import Scene
from maskrnn_ros.seed_ui.recent import FrameStore, Held
from maskrnn_ros.seed_ui.server import SeedServer
from maskrnn_ros.seed_ui.watch import STATES, Health, Seeds, instance_rows
from maskrnn_ros.srv import RemoveInstances
from maskrnn_ros.types import BoolArray, Box, LabelArray, UInt8Array

INTERFACES: tuple[Interface, ...] = (
    Interface(
        name="image",
        type="sensor_msgs/Image",
        kind="subscribes",
        text="what the tracker subscribes to, or `--image`; CompressedImage likewise; only while a page is open",
    ),
    Interface(
        name="/tracker/instances",
        type="maskrnn_ros/InstanceMaskArray",
        kind="subscribes",
        text="masks to show; only while a page is open",
    ),
    Interface(
        name="/tracker/seed_result",
        type="maskrnn_ros/SeedResult",
        kind="subscribes",
        text="what became of a seed",
    ),
    Interface(name="/tracker/status", type="maskrnn_ros/TrackerStatus", kind="subscribes", text="how the tracker is"),
)
"""With ``--tracker /tracker``. It calls the tracker's services add_instances, remove_instances and reset."""

_LOOK_PERIOD_S = 0.5
_IDLE_S = 5.0
"""Without a request for this long no page is open, and costly subscriptions are dropped, seconds."""
_ANSWER_S = 5.0
_FOUND_S = 2.0


class TrackerLink:
    """``server.Link`` over topics and services; its callbacks run in the thread that spins ``executor``.

    Args:
        node: A node of its own.
        executor: Spins the node, in another thread than those that call the methods.
        tracker: Full name of the tracker's node.
        image_topic: Empty: what the tracker subscribes to.
    """

    def __init__(self, node: Any, executor: Any, tracker: str, image_topic: str = "") -> None:
        self._node, self._executor, self._tracker = node, executor, tracker
        self._frames = FrameStore()
        self._depth = BitDepth()
        self._health = Health(node, tracker, image_topic)
        self._seeds = Seeds()
        self._touched_s = float("-inf")
        self._instances: bytes | None = None
        self._source: ImageSource | None = None
        self._decoded: tuple[Held, UInt8Array] | None = None  # the last one: clicks come several to a picture
        self._masks: Any = None
        node.create_subscription(TrackerStatus, f"{tracker}/status", self._on_status, reliable(10))
        node.create_subscription(SeedResult, f"{tracker}/seed_result", self._seeds.on_result, reliable(50))
        self._calls = TrackerCalls(node, tracker)
        node.create_timer(_LOOK_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # --- in the node's thread ---

    def _look(self) -> None:
        """Subscribe while somebody looks, to the topic that the tracker has now."""
        self._health.look()
        if not self._health.speaks:
            self._instances = None  # another tracker counts its sessions from 1 again
        wanted = self._health.image if time.monotonic() - self._touched_s < _IDLE_S else None
        have = (self._source.topic, self._health.subscribed_compressed) if self._source else None
        if have == wanted:
            return
        self._unsubscribe()
        if wanted is not None:
            self._subscribe(*wanted)

    def _subscribe(self, topic: str, compressed: bool) -> None:
        self._source = ImageSource(
            self._node, compressed=compressed, reliability="auto", callback=self._on_image, topic=topic, raw=True
        )
        self._health.subscribed_compressed = compressed
        name = f"{self._tracker}/instances"
        self._masks = self._node.create_subscription(
            InstanceMaskArray, name, self._on_instances, reliable(10), raw=True
        )

    def _unsubscribe(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
            self._node.destroy_subscription(self._masks)
            self._health.no_images()
            self._frames.clear()

    def _on_status(self, message: Any) -> None:
        self._health.on_status(message)
        self._seeds.on_run(message.run_id)

    def _on_image(self, data: bytes) -> None:
        self._health.on_image()
        self._frames.put_image(cdr_stamp(data), data)

    def _on_instances(self, data: bytes) -> None:
        self._instances = data
        self._frames.put_instances(cdr_stamp(data), data)

    # --- in those of the web server ---

    def touch(self) -> None:
        """See ``server.Link``."""
        self._touched_s = time.monotonic()

    def state(self) -> dict[str, Any]:
        """See ``server.Link``."""
        newest = self._instances
        message = deserialize_message(newest, InstanceMaskArray) if newest is not None else None
        status = self._health.status if self._health.speaks else None
        return {
            **self._health.report(),
            "instances": instance_rows(message, status),
            "seeds": self._seeds.report(),
        }

    def wait(self, after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        """See ``server.Link``."""
        held = self._frames.wait(after_ns, with_masks, timeout_s)
        return held.stamp_ns if held is not None else None

    def freeze(self, stamp_ns: int) -> None:
        """See ``server.Link``."""
        self._frames.freeze(stamp_ns)

    def image(self, stamp_ns: int) -> UInt8Array:
        """See ``server.Link``."""
        return self._rgb(self._frames.at(stamp_ns))

    def scene(self, stamp_ns: int) -> Scene | None:
        """See ``server.Link``."""
        data = self._frames.at(stamp_ns).instances
        return None if data is None else _scene(deserialize_message(data, InstanceMaskArray))

    def seed(self, stamp_ns: int, mask: BoolArray, target: int, name: str) -> dict[str, Any]:
        """See ``server.Link``; the image goes along, so that the tracker need not have processed it."""
        header = Header()
        ns_to_stamp(stamp_ns, header.stamp)
        request = seed_request([mask_prompt(mask, target, name)], header, self.image(stamp_ns))
        self._seeds.sent(request.token)
        try:
            response = self._call(request)
        except (ValueError, ConnectionError):
            self._seeds.forget(request.token)
            raise
        return {"token": request.token, "ids": list(response.ids)}

    def remove(self, instance_id: int) -> None:
        """See ``server.Link``."""
        self._call(RemoveInstances.Request(ids=[instance_id]))

    def reset(self) -> None:
        """See ``server.Link``."""
        self._call(Trigger.Request())

    def _call(self, request: Any) -> Any:
        """Call a service of the tracker, and wait.

        Raises:
            ValueError: It refused; the message is its own.
            ConnectionError: It does not answer.
        """
        name = self._calls.name_of(request)
        if not self._calls.is_served(request, _FOUND_S):
            raise ConnectionError(f"nobody serves {name}: is the tracker running?")
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        # rclpy's clients belong to the thread that spins
        self._executor.create_task(self._calls.ask, request, answer.set_result, answer.set_exception)
        try:
            response = answer.result(_ANSWER_S)
        except concurrent.futures.TimeoutError as error:
            raise ConnectionError(f"no answer of {name} within {_ANSWER_S:g} s") from error
        if not response.success:
            raise ValueError(response.message)
        return response

    def _rgb(self, held: Held) -> UInt8Array:
        decoded = self._decoded
        if decoded is not None and decoded[0] is held:
            return decoded[1]
        assert held.image is not None  # FrameStore gives no other
        if self._health.subscribed_compressed:
            rgb = compressed_to_rgb(deserialize_message(held.image, CompressedImage), self._depth)
        else:
            rgb = image_to_rgb(deserialize_message(held.image, Image), self._depth)
        self._decoded = held, rgb
        return rgb


def _scene(message: Any) -> Scene:
    seen = [instance for instance in message.instances if instance.area]
    labels: LabelArray = np.zeros((message.image_height, message.image_width), np.int32)
    if all(instance.encoding != InstanceMask.ENCODING_NONE for instance in seen):
        labels = label_image(message)
    return Scene(
        labels=labels,
        titles={i.id: f"{i.id} {i.label}".strip() + _suffix(i.state) for i in seen},
        boxes={i.id: _box(i.box) for i in seen},
    )


def _suffix(state: int) -> str:
    return "" if state in (InstanceMask.STATE_TRACKING, InstanceMask.STATE_SEEDED) else f" {STATES.get(state, '')}"


def _box(region: Any) -> Box:
    return Box(region.x_offset, region.y_offset, region.x_offset + region.width, region.y_offset + region.height)


@contextlib.contextmanager
def editor(
    tracker: str, image_topic: str, port: int, rate: float, config: Config | None = None
) -> Iterator[tuple[SeedServer, Any]]:
    """The web server, which runs in a thread of its own, and the executor of its node, which the caller spins.

    Args:
        tracker: Full name of the tracker's node.
        image_topic: Empty: what the tracker subscribes to.
        port: On 127.0.0.1; 0: any free one.
        rate: Most pictures a second.
        config: Says what makes masks of boxes and points; None: the defaults.

    Raises:
        OSError: The port is taken.
        ValueError: What makes masks cannot be made.
    """
    config = config or Config()
    prompts = build_prompts(config.prompts, config.trunk.weights)
    with client_node("maskrnn_seed_ui") as (node, executor):
        link = TrackerLink(node, executor, tracker, node.resolve_topic_name(image_topic) if image_topic else "")
        with SeedServer(link, prompts, port, rate) as server:
            thread = threading.Thread(target=server.serve_forever, name="seed-ui", daemon=True)
            thread.start()
            warming = threading.Thread(target=server.warm, name="seed-ui-warm", daemon=True)
            warming.start()
            try:
                yield server, executor
            finally:
                server.shutdown()
                warming.join()


def serve(tracker: str, image_topic: str, port: int, rate: float, config: Config | None = None) -> int:
    """Run ``editor`` until Ctrl-C; returns the exit status."""
    try:
        with editor(tracker, image_topic, port, rate, config) as (server, executor):
            print(f"seed editor: {server.url} (this machine only; Ctrl-C ends it)", flush=True)
            while True:
                executor.spin_once(timeout_sec=POLL_S)
    except KeyboardInterrupt:
        return 0
