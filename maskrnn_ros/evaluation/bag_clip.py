# SPDX-License-Identifier: Apache-2.0
"""A recorded bag with ground truth as a sequence to score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from maskrnn_ros.bags.read import BagReader, Topic
from maskrnn_ros.bags.topics import COMPRESSED_TYPE, IMAGE_TOPIC, IMAGE_TYPE, SEED_TOPIC, TRUTH_TOPIC
from maskrnn_ros.evaluation.readers import check_size
from maskrnn_ros.files import binary_as_instance
from maskrnn_ros.ros.images import NS_PER_S
from maskrnn_ros.types import LabelArray, UInt8Array

T = TypeVar("T")


class BagClip:
    """A bag as a ``Clip``; use it in a ``with`` statement.

    Frame 0 is the image of the first seed, and images before it are not part of it. Its ground truth is that seed: the
    objects that are scored are those that the tracker was told of, and frame 0 is scored by no convention. Where the
    bag has no seed, the first ground truth is the seed. Later seeds are not used (``notes`` says so). From frame 1 on
    ground truth belongs to the image with its stamp, and every image must have one.

    Frames are read one after another and none is held, so bags may be larger than the memory. Going back begins again
    at the start of the bag.

    Args:
        path: Folder of the bag, or a .mcap or .db3 file.
        image_topic: The images, or what goes before /compressed.
        truth_topic: Their ground truth, label images.
        seed_topic: The seeds; None: ``SEED_TOPIC`` where the bag has it.

    Raises:
        ValueError: The bag cannot be read, a topic is absent or empty, or stamps do not match.
    """

    def __init__(
        self,
        path: Path,
        image_topic: str = IMAGE_TOPIC,
        truth_topic: str = TRUTH_TOPIC,
        seed_topic: str | None = None,
    ) -> None:
        self._bag = BagReader(path)
        try:
            self.images = self._bag.find_images(image_topic)
            self.truths = self._bag.find(truth_topic, IMAGE_TYPE)
            seeds = self._bag.find(seed_topic, IMAGE_TYPE) if seed_topic else self._bag.topics.get(SEED_TOPIC)
            self.seeds = seeds if seeds is not None and seeds.count else self.truths
            stamps = self._rising_stamps(self.images)
            places = {stamp: place for place, stamp in enumerate(self._rising_stamps(self.truths))}
            self._first, self._seed = self._begin(stamps)
            self._stamps = stamps[self._first :]
            self._truth_places = self._match(stamps, places)
        except BaseException:
            self.close()
            raise
        topic = self.images.name
        self._image = _Cursor(lambda: (frame.image for frame in self._bag.frames(topic)))
        self._truth = _Cursor(lambda: (found.labels for found in self._bag.labels(truth_topic)))

    def __enter__(self) -> BagClip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._bag.close()

    @property
    def path(self) -> Path:
        """The bag."""
        return self._bag.path

    @property
    def is_compressed(self) -> bool:
        """Whether the images are CompressedImage."""
        return self.images.msgtype == COMPRESSED_TYPE

    @property
    def name(self) -> str:
        """Name of the bag's folder, or of the file without its suffix."""
        return self.path.resolve().stem if self.path.is_file() else self.path.resolve().name

    @property
    def period_s(self) -> float:
        """Time between two frames by their stamps, the median, seconds; 0 where there is one frame only."""
        return float(np.median(np.diff(self._stamps))) / NS_PER_S if len(self) > 1 else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the bag is not used, a line each."""
        lines = []
        if self._first:
            lines.append(f"{self.path}: begins at image {self._first}, that of the first seed")
        if self.seeds is self.truths:
            lines.append(f"{self.path}: no seed; the first ground truth is the seed")
        elif self.seeds.count > 1:
            lines.append(f"{self.path}: {self.seeds.count} seeds on {self.seeds.name}; only the first is used")
        return tuple(lines)

    def __len__(self) -> int:
        """See ``Clip``."""
        return len(self._stamps)

    def stem(self, number: int) -> str:
        """See ``Clip``; the seed's image is 00000."""
        return f"{number:05d}"

    def place(self, number: int) -> str:
        """See ``Clip``."""
        return f"message {self._first + number} on {self.images.name} in {self.path}"

    def stamp_ns(self, number: int) -> int:
        """See ``Clip``."""
        return self._stamps[number]

    def image(self, number: int) -> UInt8Array:
        """See ``Clip``."""
        return self._image.at(self._first + number)

    def truth(self, number: int) -> LabelArray:
        """See ``Clip``; that of frame 0 is the seed."""
        return self._truth.at(self._truth_places[number]) if number else self._seed

    def check(self) -> frozenset[int]:
        """See ``Clip``."""
        size = self.image(0).shape[:2]
        values: set[int] = set()
        for number in range(len(self)):
            labels, name = self.truth(number), self.truths.name if number else self.seeds.name
            check_size(f"{name} for {self.place(number)}", labels.shape, self.place(0), size)
            values.update(np.flatnonzero(np.bincount(labels.ravel())).tolist())
        return frozenset(values)

    def _rising_stamps(self, topic: Topic) -> list[int]:
        if not topic.count:
            raise ValueError(f"expected messages on {topic.name} in {self.path}, found none")
        stamps = list(self._bag.stamps(topic.name))
        for place, (before, now) in enumerate(zip(stamps, stamps[1:], strict=False), start=1):
            if now <= before:
                found = f"{_seconds(now)} after {_seconds(before)} (message {place})"
                raise ValueError(f"{topic.name} in {self.path}: expected stamps that rise, found {found}")
        return stamps

    def _begin(self, stamps: list[int]) -> tuple[int, LabelArray]:
        """Number of the first seed's image in the bag, and the seed."""
        seed = next(self._bag.labels(self.seeds.name))
        if seed.stamp_ns not in stamps:
            raise ValueError(self._stray(self.seeds, seed.stamp_ns, stamps))
        # a mask of 0 and 255 means one new instance to the node; of ground truth the convention tells what it means
        labels = seed.labels if self.seeds is self.truths else binary_as_instance(seed.labels)
        return stamps.index(seed.stamp_ns), labels

    def _match(self, stamps: list[int], places: dict[int, int]) -> list[int]:
        """For each frame the place of its ground truth on the topic; frame 0 needs none."""
        stray = sorted(places.keys() - set(stamps))
        if stray:
            raise ValueError(self._stray(self.truths, stray[0], stamps))
        for number, stamp in enumerate(self._stamps[1:], start=1):
            if stamp not in places:
                expected = f"expected one for every image from the seed on, {len(self)}"
                raise ValueError(f"{self.truths.name} in {self.path}: {expected}, found none for {self.place(number)}")
        return [places.get(stamp, -1) for stamp in self._stamps]

    def _stray(self, topic: Topic, stamp: int, stamps: list[int]) -> str:
        near = min(stamps, key=lambda other: abs(other - stamp))
        found = f"{_seconds(stamp)}, the nearest is {_seconds(near)}"
        return f"{topic.name} in {self.path}: expected the stamp of an image on {self.images.name}, found {found}"


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // NS_PER_S}.{stamp_ns % NS_PER_S:09d} s"


class _Cursor(Generic[T]):
    """Items of a stream by their place: forwards it reads on, backwards it begins again."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin
        self._items = begin()
        self._held: list[T] = []  # the newest item
        self._place = -1

    def at(self, place: int) -> T:
        if place < self._place:
            self._items, self._place = self._begin(), -1
        while self._place < place:
            self._held = [next(self._items)]
            self._place += 1
        return self._held[0]
