# SPDX-License-Identifier: Apache-2.0
"""Bags (mcap or sqlite3) to frames and label maps, or to messages as they were recorded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rosbags.interfaces import QosDurability, QosHistory
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from maskrnn_ros.bags.topics import (
    COMPRESSED_SUFFIX,
    COMPRESSED_TYPE,
    IGNORE_TOPIC,
    IMAGE_TOPIC,
    IMAGE_TYPE,
    SEED_TOPIC,
    TRUTH_TOPIC,
)
from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.disk import regular_file
from maskrnn_ros.image_messages import (
    NS_PER_S,
    compressed_to_rgb,
    ignore_pixels,
    image_to_rgb,
    labels_from_image,
    stamp_to_ns,
)
from maskrnn_ros.labels import check_labels
from maskrnn_ros.types import BoolArray, Frame, LabelArray

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic of a bag.

    Args:
        name: Its name in the bag.
        msgtype: Type of its messages, e.g. "sensor_msgs/msg/Image".
        count: How many there are.
        is_latched: Whether a publisher kept its last messages for who comes later (transient local), as on /tf_static.
        depth: How many a publisher kept, the largest; 0 where the bag does not say or all are kept.
    """

    name: str
    msgtype: str
    count: int
    is_latched: bool = False
    depth: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawMessage:
    """A message as it was recorded.

    Args:
        topic: Topic in the bag.
        msgtype: Type, e.g. "sensor_msgs/msg/Image".
        log_ns: When it was recorded, ns.
        data: The message in CDR, encapsulation header included.
    """

    topic: str
    msgtype: str
    log_ns: int
    data: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StampedLabels:
    """A label map of a bag: truth, seed or prediction.

    Args:
        stamp_ns: Stamp of the image that it belongs to, ns.
        labels: int32, (H, W), the values as they stand in the message.
    """

    stamp_ns: int
    labels: LabelArray


class BagReader:
    """Reads a bag; use it in a ``with`` statement.

    Messages come in the order in which they were recorded. The iterators are independent of one another.

    Args:
        path: Folder of the bag, or a .mcap or .db3 file.

    Raises:
        ValueError: There is no bag, it was not finished, or it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        _check_finished(self.path)
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        with self._readable():
            self._reader = Reader(self.path)
            self._reader.open()
        self.topics = {
            name: _topic(name, info.msgtype or "several types", info.msgcount, info.connections)
            for name, info in self._reader.topics.items()
        }
        """The topics by name."""

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; a second time it does nothing."""
        if self._reader.is_open:
            self._reader.close()

    def find(self, topic: str, *msgtypes: str) -> Topic:
        """A topic by name.

        Args:
            topic: Its name in the bag.
            msgtypes: Types that it may have; none for any.

        Raises:
            ValueError: The bag has no such topic, or it is of another type.
        """
        if topic not in self.topics:
            names = ", ".join(self.topics) or "none"
            raise ValueError(f"{self.path} has no topic {topic}; its topics are: {names}")
        found = self.topics[topic]
        if msgtypes and found.msgtype not in msgtypes:
            expected = " or ".join(msgtypes)
            raise ValueError(f"{topic} in {self.path} must be {expected}, found {found.msgtype}")
        return found

    def find_images(self, topic: str = IMAGE_TOPIC) -> Topic:
        """The topic of the images: ``topic`` itself, or where the bag has only that ``topic``/compressed.

        Raises:
            ValueError: The bag has neither, or it is of another type.
        """
        compressed = topic + COMPRESSED_SUFFIX
        name = compressed if topic not in self.topics and compressed in self.topics else topic
        return self.find(name, IMAGE_TYPE, COMPRESSED_TYPE)

    def difference(self, topic: str) -> str:
        """Why the messages of a topic must not be read as the type of that name that is installed; empty: they may be.

        Raises:
            ValueError: The bag has no such topic.
        """
        self.find(topic)
        from maskrnn_ros.bags.definitions import difference  # needs a ROS installation

        found = (difference(connection) for connection in self._reader.connections if connection.topic == topic)
        return next(filter(None, found), "")

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages as they were recorded, of all topics or the named ones.

        Raises:
            ValueError: The bag has not one of the topics, or it is damaged.
        """
        names = list(self.topics) if topics is None else [self.find(topic).name for topic in topics]
        connections = [found for found in self._reader.connections if found.topic in names]
        return self._messages(connections)

    def _messages(self, connections: list[Any]) -> Iterator[RawMessage]:
        if not connections:  # for rosbags that means all
            return
        with self._readable():
            for found, log_ns, data in self._reader.messages(connections):
                yield RawMessage(topic=found.topic, msgtype=found.msgtype, log_ns=log_ns, data=bytes(data))

    def frames(
        self, topic: str = IMAGE_TOPIC, places: Collection[int] | None = None, mono16_bits: str = "auto"
    ) -> Iterator[Frame]:
        """The images of a topic, raw or compressed (see ``find_images``).

        Args:
            topic: The topic.
            places: Numbers of the messages on it that are wanted; the others are not decoded. None: all.
            mono16_bits: How images of 16 bits are read, see ``BitDepth``.

        Raises:
            ValueError: No such topic, or an image that cannot be used; the message names it.
        """
        found = self.find_images(topic)
        to_rgb: Any = compressed_to_rgb if found.msgtype == COMPRESSED_TYPE else image_to_rgb
        depth = BitDepth(mono16_bits)
        return self._converted(found, lambda stamp_ns, msg: Frame(stamp_ns=stamp_ns, image=to_rgb(msg, depth)), places)

    def labels(self, topic: str) -> Iterator[StampedLabels]:
        """The label images of a topic.

        Raises:
            ValueError: No such topic, or an image that holds no labels or is a soft mask; the message names it.
        """
        found = self.find(topic, IMAGE_TYPE)

        def convert(stamp_ns: int, message: Any) -> StampedLabels:
            labels = labels_from_image(message)
            check_labels(labels)
            return StampedLabels(stamp_ns=stamp_ns, labels=labels)

        return self._converted(found, convert)

    def stamps(self, topic: str) -> Iterator[int]:
        """Stamps of the messages of a topic whose type begins with a Header, ns; pixels are not decoded.

        Raises:
            ValueError: No such topic, or a message without a stamp; the message names it.
        """
        return (stamp_ns for stamp_ns, _ in self.times(topic))

    def times(self, topic: str) -> Iterator[tuple[int, int]]:
        """Likewise (stamp, when it was recorded), ns.

        Raises:
            ValueError: See ``stamps``.
        """
        for index, raw in enumerate(self.messages([topic])):
            try:
                yield cdr_stamp(raw.data), raw.log_ns
            except ValueError as error:
                raise ValueError(f"message {index} on {topic} in {self.path}: {error}") from error

    def truth(self, topic: str = TRUTH_TOPIC) -> Iterator[StampedLabels]:
        """The ground truth; see ``labels``."""
        return self.labels(topic)

    def seeds(self, topic: str = SEED_TOPIC) -> Iterator[StampedLabels]:
        """The seed masks; see ``labels``. A mask of only 0 and 255 is left for the tracker to number."""
        return self.labels(topic)

    def ignore_masks(self, topic: str = IGNORE_TOPIC) -> Iterator[BoolArray]:
        """The ignore masks of a topic, bool (H, W), True where no object can be.

        Raises:
            ValueError: No such topic, or a message that is no such mask; the message names it.
        """
        return self._converted(self.find(topic, IMAGE_TYPE), lambda stamp_ns, message: ignore_pixels(message) != 0)

    def _converted(
        self, topic: Topic, convert: Callable[[int, Any], T], places: Collection[int] | None = None
    ) -> Iterator[T]:
        """What ``convert`` makes of the messages of a topic; ``places`` are numbers in the topic, None: all."""
        for index, raw in enumerate(self.messages([topic.name])):
            if places is not None and index not in places:
                continue
            try:
                message: Any = self._types.deserialize_cdr(raw.data, raw.msgtype)
                converted = convert(stamp_to_ns(message.header.stamp), message)
            except (ValueError, SerdeError) as error:
                raise ValueError(f"message {index} on {topic.name} in {self.path}: {error}") from error
            yield converted

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a damaged bag makes rosbags, SQLite and the decompressors raise of all kinds
            kind = "" if isinstance(error, (ReaderError, ValueError)) else f"{type(error).__name__} "
            raise ValueError(f"cannot read {self.path}: {kind}{' '.join(str(error).split())}") from error


def cdr_stamp(data: bytes) -> int:
    """Stamp of a serialized message that begins with a Header (or a Time), ns.

    >>> cdr_stamp(bytes([0, 1, 0, 0,  2, 0, 0, 0,  5, 0, 0, 0]))
    2000000005

    Raises:
        ValueError: It is too short to hold one.
    """
    if len(data) < 12:
        raise ValueError(f"expected a stamp in the first 12 bytes, got {len(data)} bytes")
    order = "little" if data[1] & 1 else "big"  # of the CDR encapsulation
    seconds = int.from_bytes(data[4:8], order, signed=True)  # type: ignore[arg-type]
    return seconds * NS_PER_S + int.from_bytes(data[8:12], order)  # type: ignore[arg-type]


def _topic(name: str, msgtype: str, count: int, connections: Collection[Any]) -> Topic:
    offers = [offer for connection in connections for offer in connection.ext.offered_qos_profiles]
    return Topic(
        name=name,
        msgtype=msgtype,
        count=count,
        # recorders in Python and converters leave the offer out; tf2 listeners take no /tf_static that is not latched
        is_latched=name.endswith("/tf_static") or any(o.durability == QosDurability.TRANSIENT_LOCAL for o in offers),
        depth=max((offer.depth for offer in offers if offer.history != QosHistory.KEEP_ALL), default=0),
    )


def _check_finished(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"expected a bag, found no {path}")
    if not path.is_dir():
        regular_file(path)
        return
    files = [file for file in path.iterdir() if file.suffix in (".mcap", ".db3", ".zstd", ".yaml")]
    for file in files:
        regular_file(file)
    if (path / "metadata.yaml").exists():
        return
    if any(file.suffix in (".mcap", ".db3") for file in files):
        cure = f"`ros2 bag reindex {path}` writes it"
        raise ValueError(f"{path} was not finished: metadata.yaml is missing; {cure}")
    raise ValueError(f"expected a bag, found no metadata.yaml in {path}")
