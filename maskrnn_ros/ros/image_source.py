# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to camera topics, their reliability that of the publishers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

_LOOK_PERIOD_S = 0.5
_DEPTH = 10
"""Callbacks only hand over, so the queue is short-lived; the worker's slot does the dropping."""


class Source:
    """Subscribes to a topic while it lives.

    With reliability ``auto`` it asks for what all publishers can give: reliable when all are, else best effort. A best
    effort subscription to reliable publishers would lose most large images, a reliable one to a best effort publisher
    gets none at all.

    Args:
        node: The rclpy node.
        kind: Type of the messages.
        topic: Its name, relative names allowed.
        reliability: auto, reliable or best_effort.
        setting: The parameter that says so.
        callback: Called with every message.
        raw: The callback gets messages as they are serialized: bytes.
    """

    def __init__(
        self,
        node: Any,
        kind: Any,
        topic: str,
        *,
        reliability: str,
        setting: str,
        callback: Callable[[Any], None],
        raw: bool = False,
    ) -> None:
        self._node = node
        self._type = kind
        self._callback = callback
        self._setting = setting
        self._raw = raw
        self.topic: str = node.resolve_topic_name(topic)
        self._policy = ReliabilityPolicy.BEST_EFFORT if reliability == "best_effort" else ReliabilityPolicy.RELIABLE
        self._auto = reliability == "auto"
        if self._auto:
            self._policy = self._offered() or self._policy
        self._subscription = self._subscribe()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # with use_sim_time, /clock may not run yet
        self._timer = node.create_timer(_LOOK_PERIOD_S, self._look, clock=steady) if self._auto else None

    @property
    def publishers(self) -> int:
        """How many publishers the topic has now."""
        return int(self._node.count_publishers(self.topic))

    def close(self) -> None:
        """Unsubscribe."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self) -> Any:
        return self._node.create_subscription(
            self._type,
            self.topic,
            self._callback,
            QoSProfile(depth=_DEPTH, reliability=self._policy),
            raw=self._raw,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )

    def _offered(self) -> ReliabilityPolicy | None:
        """The best reliability that all publishers give; None where there are none."""
        offers = [info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topic)]
        if not offers:
            return None
        reliable = all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
        return ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT

    def _look(self) -> None:
        offered = self._offered()
        if offered is None or offered == self._policy:
            return
        self._policy = offered
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe()
        self._node.get_logger().info(f"{self.topic}: subscribed {offered.name.lower()}, as the publishers offer")

    def _on_incompatible(self, event: Any) -> None:
        if self._auto:
            return  # the next look mends it
        self._node.get_logger().warning(
            f"{self.topic}: a publisher offers a QoS that does not match ({event.last_policy_kind}); we ask for "
            f"{self._policy.name.lower()}: set {self._setting} to auto or best_effort"
        )


class ImageSource(Source):
    """Subscribes to ``image`` (or ``image/compressed``) while it lives, see ``Source``.

    Args:
        node: The rclpy node.
        compressed: Subscribe to CompressedImage on ``<image>/compressed``, as image_transport names it.
        reliability: auto, reliable or best_effort.
        callback: Called with every message.
        topic: Full name of another topic, taken as it is.
        raw: See ``Source``.
    """

    def __init__(
        self,
        node: Any,
        *,
        compressed: bool,
        reliability: str,
        callback: Callable[[Any], None],
        topic: str = "",
        raw: bool = False,
    ) -> None:
        super().__init__(
            node,
            CompressedImage if compressed else Image,
            topic or node.resolve_topic_name("image") + ("/compressed" if compressed else ""),
            reliability=reliability,
            setting="image_reliability",
            callback=callback,
            raw=raw,
        )
