# SPDX-License-Identifier: Apache-2.0
"""Plays a bag in real time to the real node, over real topics, and notes when which masks came."""

from __future__ import annotations

import bisect
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from maskrnn_ros import parameter_file
from maskrnn_ros.bags.read import cdr_stamp
from maskrnn_ros.bags.topics import COMPRESSED_SUFFIX
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.evaluation.bag_clip import BagClip
from maskrnn_ros.evaluation.online.score import OnlineRun
from maskrnn_ros.evaluation.online.stock_player import StockPlayer
from maskrnn_ros.evaluation.streaming import Timeline
from maskrnn_ros.image_messages import NS_PER_S, fill_image, label_image_data, ns_to_stamp
from maskrnn_ros.masks import label_image
from maskrnn_ros.msg import InstanceMaskArray, SeedResult
from maskrnn_ros.ros.node_process import Listener, child_process, node_command, use_large_segments
from maskrnn_ros.ros.qos import reliable
from maskrnn_ros.types import LabelArray, Seed

PLAYERS = ("maskrnn", "ros2bag")
_DEPTH = 100
_LAST_TIMEOUT_S = 10.0


def check_online(clip: BagClip, config: Config, player: str) -> None:
    """Refuse what cannot run, before anything is done.

    Raises:
        ValueError: The settings publish no masks, there are too few images, no ``ros2 bag``, or no such player.
    """
    if config.mask_encoding == "none":
        raise ValueError("mask_encoding must not be none: there would be nothing to score")
    if len(clip) < 2:
        raise ValueError(f"expected 2 images or more from the seed on in {clip.path}, found {len(clip)}")
    if player not in PLAYERS:
        raise ValueError(f"--player must be one of {', '.join(PLAYERS)}, got {player!r}")
    if player != "ros2bag":
        return
    ros2 = shutil.which("ros2")
    if ros2 is None or subprocess.run([ros2, "bag", "play", "--help"], capture_output=True).returncode:
        raise ValueError(
            "--player ros2bag needs the command `ros2 bag`, found none; install rosbag2, or --player maskrnn"
        )
    _stock_player(clip, "", {clip.images.name: "", clip.seeds.name: ""})


def run_online(clip: BagClip, seed: Seed, config: Config, *, rate: float = 1.0, player: str = "maskrnn") -> OnlineRun:
    """Start the node, play the clip's bag to it, and collect its masks until the last image has its own.

    The node is sent the seed when the message that holds it comes in the bag, with the stamp of frame 0: a seed that
    was drawn late comes late.

    Args:
        clip: The bag.
        seed: What to follow, on frame 0; its stamp does not matter.
        config: Settings of the node. ``compressed`` follows the bag.
        rate: Speed of the player, 1 = as recorded.
        player: See ``PLAYERS``.

    Raises:
        ValueError: See ``check_online``.
        RuntimeError: The node or the player fails.
    """
    check_online(clip, config, player)
    use_large_segments()
    namespace = f"/maskrnn_evaluate_{os.getpid()}"  # others may run beside it
    collector = _Collector(clip, seed, namespace)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "node.yaml"
        values = to_flat(with_values(config, compressed=clip.is_compressed))
        parameter_file.write(file, values)
        node = node_command(namespace, "--params-file", str(file))
        stock = _stock_player(clip, namespace, collector.remap) if player == "ros2bag" else None
        play = _player_command(stock, clip, collector.remap, rate, Path(scratch))

        def subscribe(node: Any) -> None:
            collector.subscribe(node)
            if stock is not None:
                stock.subscribe(node)

        with (
            child_process(node) as process,
            Listener(process, f"{namespace}/tracker", subscribe) as listener,
            child_process(play, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as playing,
            tqdm(total=len(clip), desc=f"online, rate {rate:g}", unit="frame") as bar,
        ):

            def is_over() -> bool:
                bar.update(collector.played - bar.n)
                if stock is not None:
                    stock.check()
                return playing.poll() is not None

            listener.wait_until(is_over, float("inf"))
            if playing.returncode:
                raise RuntimeError(f"the player ended with exit status {playing.returncode}, see above")
            # the newest image is never dropped, so its masks come last; where it was lost on the way none do
            listener.wait_until(collector.has_last, _LAST_TIMEOUT_S)
    return collector.result(rate)


def _stock_player(clip: BagClip, namespace: str, remap: Mapping[str, str]) -> StockPlayer:
    return StockPlayer(namespace, f"{namespace}/tracker", (remap[clip.images.name], remap[clip.seeds.name]))


def _player_command(
    stock: StockPlayer | None, clip: BagClip, remap: Mapping[str, str], rate: float, scratch: Path
) -> list[str]:
    rules = [f"{name}:={other}" for name, other in remap.items()]
    common = [str(clip.path), "--rate", str(rate)]
    if stock is not None:
        return stock.command(common, rules, list(remap), scratch)
    topics = ["--topics", *remap, "--remap", *rules, "--image-topic", clip.images.name, "--seed-topic", clip.seeds.name]
    both = ["--subscribers", "2"]  # the node, and we
    return [sys.executable, "-m", "maskrnn_ros", "bag", "play", *common, *topics, *both]


class _Collector:
    """Notes when images and masks come, and sends the seed.

    An image counts from when a subscription beside the node's gets it: that works with any player, and both get it at
    the same time, while the times at which the player meant to publish are late by what the machine is loaded with.
    """

    def __init__(self, clip: BagClip, seed: Seed, namespace: str) -> None:
        self._clip, self._seed = clip, seed
        self._image_topic = f"{namespace}/image" + COMPRESSED_SUFFIX * clip.is_compressed
        self._trigger_topic = f"{namespace}/seed_in_bag"
        self._tracker = f"{namespace}/tracker"
        self.remap = {clip.images.name: self._image_topic, clip.seeds.name: self._trigger_topic}
        if clip.ignores is not None:
            self.remap[clip.ignores.name] = f"{self._tracker}/ignore_mask"
        self._numbers = {clip.stamp_ns(number): number for number in range(len(clip))}
        self._arrived_s: dict[int, float] = {}
        self._answers: dict[int, tuple[float, bytes]] = {}
        self._seeding: Any = None
        self._rejected = ""
        self._is_applied = False

    def subscribe(self, node: Any) -> None:
        """See ``Listener``."""
        kind = CompressedImage if self._clip.is_compressed else Image
        self._seeding = node.create_publisher(Image, f"{self._tracker}/seed_mask", reliable(1))
        node.create_subscription(kind, self._image_topic, self._on_image, reliable(_DEPTH), raw=True)
        node.create_subscription(Image, self._trigger_topic, self._on_trigger, reliable(_DEPTH), raw=True)
        node.create_subscription(SeedResult, f"{self._tracker}/seed_result", self._on_seed_result, reliable(1))
        topic = f"{self._tracker}/instances"
        node.create_subscription(InstanceMaskArray, topic, self._on_instances, reliable(_DEPTH), raw=True)

    @property
    def played(self) -> int:
        """Images that have come."""
        return len(self._arrived_s)

    def has_last(self) -> bool:
        """Whether the last image has its masks, and the seed its verdict."""
        return len(self._clip) - 1 in self._answers and (self._is_applied or bool(self._rejected))

    def _on_image(self, data: bytes) -> None:
        now_s, number = time.monotonic(), self._numbers.get(cdr_stamp(data))
        if number is not None:
            self._arrived_s[number] = now_s

    def _on_trigger(self, data: bytes) -> None:
        stamp_ns = self._clip.stamp_ns(0)
        if cdr_stamp(data) != stamp_ns or self._seeding is None:
            return
        message = Image()
        encoding = "mono8" if max(self._seed.ids) <= 255 else "mono16"
        fill_image(message, label_image_data(self._seed.labels, encoding), encoding)
        ns_to_stamp(stamp_ns, message.header.stamp)
        self._seeding.publish(message)
        self._seeding = None  # only the first

    def _on_seed_result(self, message: Any) -> None:
        self._is_applied |= message.status == SeedResult.STATUS_APPLIED
        if message.status == SeedResult.STATUS_REJECTED:
            self._rejected = message.reason

    def _on_instances(self, data: bytes) -> None:
        now_s, number = time.monotonic(), self._numbers.get(cdr_stamp(data))
        if number is not None:
            self._answers[number] = now_s, zlib.compress(data, 1)  # a hundredth; bags are long

    def result(self, rate: float) -> OnlineRun:
        """What was collected.

        Raises:
            RuntimeError: The first image or the seed did not arrive, or the node rejected the seed: scores would be
                those of the way to the node.
        """
        if self._rejected:
            raise RuntimeError(f"expected the node to follow the seed, it rejected it: {self._rejected}")
        if not self._arrived_s:
            raise RuntimeError(f"expected images on {self._image_topic}, got none")
        if 0 not in self._arrived_s:
            first = min(self._arrived_s)
            raise RuntimeError(f"the first image did not arrive on {self._image_topic}, the first that came is {first}")
        if not self._is_applied:
            sent = (
                "its seed was sent, and not applied"
                if self._seeding is None
                else "the message of its seed did not come"
            )
            raise RuntimeError(f"expected the node to follow the seed: {sent}")
        masks = _Masks({number: data for number, (_, data) in self._answers.items()}, self._seed.labels)
        return OnlineRun(
            line=Timeline(
                period_s=self._clip.played_period_s / rate,
                arrived_s=self._arrivals(rate),
                out_s={number: self._answers[number][0] for number in masks},
            ),
            masks=masks,
            rate=rate,
        )

    def _arrivals(self, rate: float) -> tuple[float, ...]:
        """When each image came; one that was lost on its way to us by the nearest that was not, and the recording."""
        known, found = sorted(self._arrived_s), []
        for number in range(len(self._clip)):
            near = known[max(0, bisect.bisect_right(known, number) - 1)]
            apart_s = (self._clip.log_ns(number) - self._clip.log_ns(near)) / NS_PER_S
            found.append(self._arrived_s[near] + apart_s / rate)
        return tuple(found)


class _Masks(Mapping[int, LabelArray]):
    """Labels by number of the frame, decoded when asked for.

    A message without instances was written before the seed was applied; it counts for frame 0 only, as the seed.
    """

    def __init__(self, packed: Mapping[int, bytes], seed: LabelArray) -> None:
        self._seed = seed
        self._packed = {n: data for n, data in sorted(packed.items()) if not n or _message(data).instances}

    def __getitem__(self, number: int) -> LabelArray:
        return label_image(_message(self._packed[number])) if number else self._seed

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def _message(data: bytes) -> Any:
    return deserialize_message(zlib.decompress(data), InstanceMaskArray)
