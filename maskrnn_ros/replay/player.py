# SPDX-License-Identifier: Apache-2.0
"""Plays a bag over real topics: at its own pace, or in lockstep with the tracker, one image at a time."""

from __future__ import annotations

import dataclasses
import importlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from maskrnn_ros.bags.options import PlayOptions
from maskrnn_ros.bags.read import BagReader, RawMessage, cdr_stamp
from maskrnn_ros.config import Config
from maskrnn_ros.image_messages import NS_PER_S, ns_to_stamp, stamp_to_ns
from maskrnn_ros.msg import InstanceMaskArray, SeedResult, TrackerStatus
from maskrnn_ros.replay.image_news import ImageNews, in_seconds
from maskrnn_ros.ros.qos import client_node, reliable, spin_until, wait_for_answers, wait_for_subscribers
from maskrnn_ros.timeline import StampOrder, TimeRule

DEPTH = 20
"""Messages that a publisher holds for a subscriber that lags."""

IGNORE_TIMEOUT = "ignore_mask_timeout"
"""Parameter of the tracker that lockstep with ignore masks asks for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayReport:
    """What was played.

    Args:
        published: Messages by topic, as published.
        skipped: Topics of the bag that were left out, with the reason: this machine lacks their type, or has
            another one of that name.
        rejected_seeds: With lockstep: why the tracker rejected seeds, one line each.
        rejected_images: With lockstep: why it refused images, likewise.
        held_images: With lockstep: images that it held back to the end, since time may have jumped before them.
        seconds: From the first message to the last.
        late_ms_p95: Without lockstep: how late messages were, milliseconds, 95th percentile.
        late_ms_max: The same, largest.
        interrupted: Ctrl-C ended it.
    """

    published: Mapping[str, int]
    skipped: Mapping[str, str]
    rejected_seeds: tuple[str, ...]
    rejected_images: tuple[str, ...]
    held_images: int
    seconds: float
    late_ms_p95: float
    late_ms_max: float
    interrupted: bool


def play(
    bag: Path | str,
    *,
    rate: float = PlayOptions.rate,
    lockstep: bool = PlayOptions.lockstep,
    tracker: str = PlayOptions.tracker,
    remap: Mapping[str, str] | None = None,
    image_topic: str = PlayOptions.image_topic,
    seed_topic: str = PlayOptions.seed_topic,
    ignore_topic: str = PlayOptions.ignore_topic,
    topics: Collection[str] | None = PlayOptions.topics,
    subscribers: int = PlayOptions.subscribers,
    loops: int = PlayOptions.loops,
    publish_clock: bool = PlayOptions.clock,
    timeout_s: float = PlayOptions.timeout,
) -> PlayReport:
    """Publish the messages of a bag, byte for byte, reliably, once somebody subscribes to images and seeds.

    In real time a message goes out when its log time comes, on a clock that never jumps. In lockstep, before
    each image go the other messages whose stamp is not later; after a seed any SeedResult with its stamp is
    waited for, after an image the InstanceMaskArray with its stamp, or the TrackerStatus that says that it was refused
    or is held back: no image is dropped, and the result does not depend on the speed of the machine (a seed that is
    late needs ``catch_up.mode: exact`` for that). Ignore masks go before the image of their stamp and count for it
    alone, in whatever order they were recorded.

    Topics that were latched (transient local) when they were recorded are so again. All are offered reliably, which
    serves best effort subscriptions, too.

    Args:
        bag: Folder of the bag, or a .mcap or .db3 file.
        rate: Speed, 1 = as recorded; without effect in lockstep.
        lockstep: Wait for the tracker's answer to every image and seed.
        tracker: Name of the tracker's node.
        remap: Other names to publish under, by the name in the bag.
        image_topic: The images in the bag, or what goes before /compressed there.
        seed_topic: The seed masks in the bag, where it has any.
        ignore_topic: The ignore masks in the bag, likewise.
        topics: What to play beside the images, by the names in the bag; None for all.
        subscribers: How many the images wait for.
        loops: How often to play it; 0 = until Ctrl-C. Stamps go back at the start of each.
        publish_clock: Publish the log times on /clock, for nodes with use_sim_time.
        timeout_s: Longest wait for subscribers, and for each answer in lockstep, seconds.

    Raises:
        ValueError: A setting is wrong, the bag cannot be played, or in lockstep the tracker's masks depend on time.
        TimeoutError: Nobody subscribes, or an answer does not come; one line that names topic and stamp.
    """
    _check_settings(rate, subscribers, loops, timeout_s)
    with BagReader(bag) as reader, client_node("maskrnn_play") as (node, executor):
        names = _names(reader, image_topic, topics)
        player = _Player(reader, node, executor, timeout_s)
        try:
            player.offer(names, remap or {}, publish_clock)
            if lockstep:
                player.subscribe(tracker)
            answering = [seed_topic, ignore_topic] if lockstep else [seed_topic]
            player.wait(names[0], answering, tracker if lockstep else None, subscribers)
            if lockstep and ignore_topic in names:
                check_deterministic(node, executor, tracker, timeout_s)
            for _ in _rounds(loops):
                if lockstep:
                    player.play_lockstep(names[0], seed_topic, ignore_topic)
                else:
                    player.play_at_rate(rate)
            player.finish()
        except KeyboardInterrupt:
            return player.report(interrupted=True)
        return player.report(interrupted=False)


def _check_settings(rate: float, subscribers: int, loops: int, timeout_s: float) -> None:
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be > 0 and finite, got {rate:g}")
    if subscribers < 1:
        raise ValueError(f"subscribers must be >= 1, got {subscribers}")
    if loops < 0:
        raise ValueError(f"loops must be >= 0, got {loops}")
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout must be > 0 s and finite, got {timeout_s:g}")


def _names(reader: BagReader, image_topic: str, topics: Collection[str] | None) -> list[str]:
    """Topics of the bag to play, that of the images first."""
    images = reader.find_images(image_topic)
    if not images.count:
        raise ValueError(f"{images.name} in {reader.path} has no message")
    others = reader.topics if topics is None else [reader.find(topic).name for topic in topics]
    return [images.name, *(name for name in others if name != images.name)]


def _rounds(loops: int) -> Iterator[int]:
    done = 0
    while not loops or done < loops:
        yield done
        done += 1


def message_class(msgtype: str) -> Any:
    """The Python class of a message type such as "sensor_msgs/msg/Image"; None where it is not installed."""
    package, _, name = msgtype.replace("/msg/", "/").partition("/")
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError:
        return None
    return getattr(module, name, None)


def check_deterministic(node: Node, executor: SingleThreadedExecutor, tracker: str, timeout_s: float) -> None:
    """Refuse a tracker that takes the ignore mask that has come so far: its results depend on the speed of the machine.

    Raises:
        ValueError: Its ``ignore_mask_timeout`` is not 0.
        TimeoutError: It does not say.
    """
    service = f"{tracker}/get_parameters"
    client = node.create_client(GetParameters, service)
    try:
        if not spin_until(executor, client.service_is_ready, timeout_s):
            raise TimeoutError(f"no service {service}; waited {timeout_s:g} s")
        answer = client.call_async(GetParameters.Request(names=[IGNORE_TIMEOUT]))
        if not spin_until(executor, answer.done, timeout_s):
            raise TimeoutError(f"no answer of {service}; waited {timeout_s:g} s")
        values = answer.result().values
    finally:
        node.destroy_client(client)
    ignore_s = values[0].double_value if values else 0.0  # a tracker that does not know it has no such part
    if ignore_s:
        raise ValueError(
            f"lockstep needs a tracker with {IGNORE_TIMEOUT} 0 for ignore masks, {tracker} has {ignore_s:g}: its masks "
            "depend on the speed of the machine"
        )


class _Player:
    """The publishers of a bag, and what the tracker answered."""

    def __init__(self, reader: BagReader, node: Node, executor: SingleThreadedExecutor, timeout_s: float) -> None:
        self._reader, self._node, self._executor, self._timeout_s = reader, node, executor, timeout_s
        self._publishers: dict[str, Any] = {}  # by the name in the bag
        self._counts: dict[str, int] = {}  # by the name that is published
        self._skipped: dict[str, str] = {}
        self._has_header: set[str] = set()
        self._clock: Any = None
        self._clock_ns = -1
        self._answers: set[tuple[str, int]] = set()
        self._answer_topics: tuple[str, str] = ("", "")
        self._rejected: list[str] = []
        self._images = ImageNews()
        self._late_s: list[float] = []
        self._begin_s = self._end_s = 0.0

    def offer(self, names: list[str], remap: Mapping[str, str], publish_clock: bool) -> None:
        """Make the publishers, the images first."""
        for name in remap:
            self._reader.find(name)
        for name in names:
            msgtype = self._reader.topics[name].msgtype
            kind = message_class(msgtype)
            why = f"no Python package for {msgtype}" if kind is None else self._reader.difference(name)
            if why:
                self._node.get_logger().error(f"{name} is not played: {why}")
                self._skipped[name] = why
                continue
            if "std_msgs/Header" in list(kind.get_fields_and_field_types().values())[:1]:
                self._has_header.add(name)
            topic = self._reader.topics[name]
            qos = reliable(max(DEPTH, topic.depth), is_latched=topic.is_latched)
            publisher = self._node.create_publisher(kind, remap.get(name, name), qos)
            self._publishers[name] = publisher
            self._counts[publisher.topic_name] = 0
        if publish_clock:
            self._clock = self._node.create_publisher(Clock, "/clock", reliable(DEPTH))

    def subscribe(self, tracker: str) -> None:
        """Listen to the tracker's answers."""
        self._answer_topics = instances, results = f"{tracker}/instances", f"{tracker}/seed_result"
        for name, publisher in self._publishers.items():
            if publisher.topic_name in self._answer_topics:
                answer = f"it would pass for the tracker's answer on {publisher.topic_name}"
                raise ValueError(f"{name} cannot be played in lockstep: {answer}; leave it out or remap it")
        # only the stamp is of interest: the masks need not be decoded
        self._node.create_subscription(InstanceMaskArray, instances, self._on_instances, reliable(DEPTH), raw=True)
        self._node.create_subscription(SeedResult, results, self._on_result, reliable(DEPTH))
        self._node.create_subscription(TrackerStatus, f"{tracker}/status", self._on_status, reliable(DEPTH))

    def _on_instances(self, data: bytes) -> None:
        self._answers.add((self._answer_topics[0], cdr_stamp(data)))

    def _on_status(self, message: TrackerStatus) -> None:
        for line in self._images.hear(message):
            self._node.get_logger().warning(line)

    def _on_result(self, message: SeedResult) -> None:
        self._answers.add((self._answer_topics[1], stamp_to_ns(message.header.stamp)))
        if message.status == SeedResult.STATUS_REJECTED:
            seed = f"seed at {in_seconds(stamp_to_ns(message.header.stamp))}"
            self._rejected.append(f"{seed}: {message.reason}")
            self._node.get_logger().warning(f"{seed} was rejected: {message.reason}")

    def wait(self, images: str, others: Sequence[str], tracker: str | None, subscribers: int) -> None:
        """Wait for subscribers of images and others that are played, seeds first; in lockstep for the tracker, too."""
        if images not in self._publishers:
            raise ValueError(f"{images} cannot be played: {self._skipped[images]}")
        played = [name for name in others if name in self._publishers and self._reader.topics[name].count]
        needed = [images, *played]
        wait_for_subscribers(self._executor, [self._publishers[images]], self._timeout_s, subscribers)
        wait_for_subscribers(self._executor, [self._publishers[name] for name in needed[1:]], self._timeout_s)
        if tracker is not None:
            topics = self._answer_topics if others[0] in needed else self._answer_topics[:1]
            status = f"{tracker}/status"
            wait_for_answers(self._node, self._executor, (*topics, status), tracker, self._timeout_s)
            if not spin_until(self._executor, lambda: self._images.has_heard, self._timeout_s):
                raise TimeoutError(f"no message on {status}; waited {self._timeout_s:g} s")

    def play_at_rate(self, rate: float) -> None:
        """Publish every message when its log time comes."""
        first_ns, begin_s = -1, 0.0
        for message in self._reader.messages(self._publishers):
            if first_ns < 0:  # from here, so that opening the bag makes nothing late
                first_ns, begin_s = message.log_ns, time.monotonic()
            due_s = begin_s + (message.log_ns - first_ns) / NS_PER_S / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._late_s.append(time.monotonic() - due_s)
            self._publish(message)

    def play_lockstep(self, images: str, seeds: str, ignores: str) -> None:
        """Publish image by image, each preceded by what belongs to it or to earlier ones."""
        instances, results = self._answer_topics
        others = self._reader.messages([name for name in self._publishers if name not in (images, ignores)])
        waiting = next(others, None)
        masks = self._reader.messages([name for name in self._publishers if name == ignores])
        mask = next(masks, None)
        order = StampOrder[None](TimeRule.of(Config()))  # one wild stamp does not bring forward what belongs to later
        for image in self._reader.messages([images]):
            order.put(self._stamp(image), None)
            while waiting is not None and self._stamp(waiting) <= (order.newest_ns or 0):
                self._publish(waiting, results if waiting.topic == seeds else None)
                waiting = next(others, None)
            while mask is not None and self._stamp(mask) <= (order.newest_ns or 0):
                self._publish(mask)
                self._deliver(ignores)
                mask = next(masks, None)
            self._images.sends(self._stamp(image))
            self._publish(image, instances)
        while waiting is not None:
            self._publish(waiting, results if waiting.topic == seeds else None)
            waiting = next(others, None)

    def _stamp(self, message: RawMessage) -> int:
        return cdr_stamp(message.data) if message.topic in self._has_header else message.log_ns

    def _publish(self, message: RawMessage, answer_topic: str | None = None) -> None:
        """Publish a message and, where an answer topic is given, wait for the answer with its stamp."""
        if self._clock is not None and message.log_ns != self._clock_ns:
            clock = Clock()
            ns_to_stamp(message.log_ns, clock.clock)
            self._clock.publish(clock)
            self._clock_ns = message.log_ns
        self._answers.clear()
        publisher = self._publishers[message.topic]
        self._begin_s = self._begin_s or time.monotonic()
        publisher.publish(message.data)
        self._counts[publisher.topic_name] += 1
        if answer_topic is not None:
            expected = (answer_topic, self._stamp(message))
            is_image = answer_topic == self._answer_topics[0]

            def is_answered() -> bool:
                return expected in self._answers or (is_image and self._images.is_decided)

            if not spin_until(self._executor, is_answered, self._timeout_s):
                what = f"message on {publisher.topic_name} with stamp {in_seconds(expected[1])}"
                raise TimeoutError(f"no answer on {answer_topic} to the {what}; waited {self._timeout_s:g} s")
        self._end_s = time.monotonic()

    def finish(self) -> None:
        """Wait until the subscribers have everything: what is not delivered dies with the node.

        The last image may have decided about some that were held back before it, and its masks come before that is
        said.
        """
        for name in self._publishers:
            self._deliver(name)
        spin_until(self._executor, lambda: not self._images.held or self._images.is_settled, self._timeout_s)

    def _deliver(self, name: str) -> None:
        """Wait until the subscribers of a topic have all of it."""
        publisher = self._publishers[name]
        if not publisher.wait_for_all_acked(Duration(seconds=self._timeout_s)):
            self._node.get_logger().warning(f"a subscriber of {publisher.topic_name} does not take the last messages")

    def report(self, *, interrupted: bool) -> PlayReport:
        """What was played so far."""
        late_ms = sorted(1e3 * late for late in self._late_s) or [0.0]
        return PlayReport(
            published=self._counts,
            skipped=self._skipped,
            rejected_seeds=tuple(self._rejected),
            rejected_images=tuple(self._images.refused),
            held_images=len(self._images.held),
            seconds=self._end_s - self._begin_s,
            late_ms_p95=late_ms[int(0.95 * (len(late_ms) - 1))],
            late_ms_max=late_ms[-1],
            interrupted=interrupted,
        )
