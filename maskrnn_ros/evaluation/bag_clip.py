# SPDX-License-Identifier: Apache-2.0
"""A recorded bag with ground truth as a sequence to score."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from maskrnn_ros.bags.read import BagReader, Topic
from maskrnn_ros.bags.topics import COMPRESSED_TYPE, IGNORE_TOPIC, IMAGE_TOPIC, IMAGE_TYPE, SEED_TOPIC, TRUTH_TOPIC
from maskrnn_ros.config import Config
from maskrnn_ros.datasets.frames import check_size
from maskrnn_ros.image_messages import NS_PER_S
from maskrnn_ros.labels import LabelRule, binary_as_instance, values_of
from maskrnn_ros.newest import Newest
from maskrnn_ros.timeline import StampOrder, TimeRule
from maskrnn_ros.types import BoolArray, LabelArray, UInt8Array

T = TypeVar("T")


class BagClip:
    """A bag as a ``Clip``; use it in a ``with`` statement.

    Frame 0 is the image of the first seed, and images before it are not part of it. Its ground truth is that seed: the
    objects that are scored are those that the tracker was told of, and frame 0 is scored by no convention. Where the
    bag has no seed, the first ground truth is the seed. Later seeds are used for ids that no earlier one has, not for
    corrections (``notes`` says so). From frame 1 on ground truth belongs to the image with its stamp, and every image
    must have one.

    Images whose stamps the tracker would refuse - late ones, wild ones, the same again - are not part of it, nor is
    their ground truth (``notes`` says so): stamps are read as the node reads them.

    Frames are read one after another and none is held, so bags may be larger than the memory. Going back begins again
    at the start of the bag.

    Args:
        path: Folder of the bag, or a .mcap or .db3 file.
        image_topic: The images, or what goes before /compressed.
        truth_topic: Their ground truth, label images.
        seed_topic: The seeds; None: ``SEED_TOPIC`` where the bag has it.
        rule: What a jump in time is; None: that of the settings' defaults.
        mono16_bits: How images of 16 bits are read.
        ignore_topic: The ignore masks; None: ``IGNORE_TOPIC`` where the bag has it.
        ignore_s: How much older than its image one may be, seconds; None: that of the settings' defaults.

    Raises:
        ValueError: The bag cannot be read, a topic is absent or empty, stamps do not match, or time jumps back.
    """

    def __init__(
        self,
        path: Path,
        image_topic: str = IMAGE_TOPIC,
        truth_topic: str = TRUTH_TOPIC,
        seed_topic: str | None = None,
        rule: TimeRule | None = None,
        mono16_bits: str = "auto",
        ignore_topic: str | None = None,
        ignore_s: float | None = None,
    ) -> None:
        self._bag = BagReader(path)
        try:
            self.images = self._bag.find_images(image_topic)
            self.truths = self._bag.find(truth_topic, IMAGE_TYPE)
            seeds = self._bag.find(seed_topic, IMAGE_TYPE) if seed_topic else self._bag.topics.get(SEED_TOPIC)
            self.seeds = seeds if seeds is not None and seeds.count else self.truths
            self._left_out: list[tuple[int, str]] = []  # stamp, why
            self._size: tuple[int, ...] | None = None
            shots = self._usable(rule or TimeRule.of(Config()))
            self._first, self._seed = self._begin([shot.stamp_ns for shot in shots])
            self._shots = shots[self._first :]
            self._truth_places = self._match(shots)
            found = self._bag.find(ignore_topic, IMAGE_TYPE) if ignore_topic else self._bag.topics.get(IGNORE_TOPIC)
            self.ignores = found if found is not None and found.count else None
            self._ignore_places = self._ignored(Config().ignore_mask_timeout if ignore_s is None else ignore_s)
        except BaseException:
            self.close()
            raise
        topic, places = self.images.name, frozenset(shot.place for shot in self._shots)
        self._image = _Cursor(lambda: (frame.image for frame in self._bag.frames(topic, places, mono16_bits)))
        self._truth = _Cursor(lambda: (found.labels for found in self._bag.labels(truth_topic)))
        if self.ignores is not None:
            ignores = self.ignores.name
            self._ignore = _Cursor(lambda: self._bag.ignore_masks(ignores))

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
        return _median_s([shot.stamp_ns for shot in self._shots])

    @property
    def played_period_s(self) -> float:
        """Likewise when the bag is played: a player goes by the times at which messages were recorded."""
        return _median_s([shot.log_ns for shot in self._shots]) or self.period_s

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the bag is not used, a line each."""
        lines = []
        if self._left_out:
            stamp, reason = self._left_out[0]
            which = f"{len(self._left_out)} of {self.images.count} images are"
            lines.append(
                f"{self.path}: {which} not used, as the tracker refuses them, the first at {stamp} ns: {reason}"
            )
        if self._first:
            lines.append(f"{self.path}: begins at image {self._first}, that of the first seed")
        if self.seeds is self.truths:
            lines.append(f"{self.path}: no seed; the first ground truth is the seed")
        elif unused := self.seeds.count - len(set(self.starts.values())):
            lines.append(f"{self.path}: {unused} of {self.seeds.count} seeds on {self.seeds.name} mark no new object")
        if self.ignores is not None:
            masked = sum(place is not None for place in self._ignore_places)
            lines.append(f"{self.path}: {masked} of {len(self)} images have an ignore mask on {self.ignores.name}")
        return tuple(lines)

    def __len__(self) -> int:
        """See ``Clip``."""
        return len(self._shots)

    def stem(self, number: int) -> str:
        """See ``Clip``; the seed's image is 00000."""
        return f"{number:05d}"

    def place(self, number: int) -> str:
        """See ``Clip``."""
        return f"message {self._shots[number].place} on {self.images.name} in {self.path}"

    def stamp_ns(self, number: int) -> int:
        """See ``Clip``."""
        return self._shots[number].stamp_ns

    def log_ns(self, number: int) -> int:
        """When the frame was recorded, ns."""
        return self._shots[number].log_ns

    def image(self, number: int) -> UInt8Array:
        """See ``Clip``."""
        image = self._image.at(number)
        self._size = self._size or (image.shape[0], image.shape[1])
        check_size(self.place(number), image.shape[:2], "the images before", self._size)
        return image

    def ignored(self, number: int) -> BoolArray | None:
        """See ``Clip``: the mask that the node would use if all came in time."""
        place = self._ignore_places[number]
        if place is None or self.ignores is None:
            return None
        mask = self._ignore.at(place)
        check_size(
            f"{self.ignores.name} for {self.place(number)}", mask.shape, "the image", self.image(number).shape[:2]
        )
        return mask

    def truth(self, number: int) -> LabelArray:
        """See ``Clip``; that of frame 0 is the seed."""
        return self.rule.apply(self._found(number))

    def _found(self, number: int) -> LabelArray:
        """Ground truth as it was recorded; of frame 0 the seed, in which 255 alone is an id already."""
        return self._truth.at(self._truth_places[number]) if number else self._seed

    @functools.cached_property
    def _values(self) -> tuple[frozenset[int], dict[int, int]]:
        """All values from frame 1 on, and the first frame of each with the seed's, from one pass over it."""
        size = self.image(0).shape[:2]
        values, first = set[int](), dict[int, int]()
        for number in range(len(self)):
            labels, name = self._found(number), self.truths.name if number else self.seeds.name
            check_size(f"{name} for {self.place(number)}", labels.shape, self.place(0), size)
            for value in values_of(labels):
                first.setdefault(value, number)
                if number:
                    values.add(value)
        return frozenset(values), first

    @functools.cached_property
    def rule(self) -> LabelRule:
        """See ``Clip``."""
        return LabelRule.of(self._values[0] if self._is_numbered else self.check())

    @functools.cached_property
    def _later(self) -> dict[int, LabelArray]:
        """Seeds of new ids by number of their frame, frame 0 among them."""
        found = {0: self.truth(0)}
        known = set(values_of(found[0]))
        if self.seeds is self.truths:
            for instance_id, number in self._values[1].items():
                if instance_id in self.rule.ids and instance_id not in known:
                    labels = self.truth(number)
                    new = {i for i in values_of(labels) if i in self.rule.ids} - known
                    found[number] = np.where(np.isin(labels, list(new)), labels, 0).astype(np.int32)
                    known |= new
            return found
        numbers = {self.stamp_ns(number): number for number in range(len(self))}
        for seed in self._bag.labels(self.seeds.name):
            number = numbers.get(seed.stamp_ns, 0)
            labels = binary_as_instance(seed.labels, max(known) + 1)
            new = set(values_of(labels)) - known
            if number and new:
                check_size(self.seeds.name, labels.shape, self.place(0), found[0].shape)
                found[number] = np.where(np.isin(labels, list(new)), labels, found.get(number, 0)).astype(np.int32)
                known |= new
        return found

    @property
    def starts(self) -> dict[int, int]:
        """See ``Clip``."""
        return {i: number for number, labels in self._later.items() for i in values_of(labels) if i}

    def seed(self, number: int) -> LabelArray:
        """See ``Clip``."""
        return self._later[number]

    def check(self) -> frozenset[int]:
        """See ``Clip``."""
        return frozenset(self._values[1])

    def _usable(self, rule: TimeRule) -> list[_Shot]:
        """The images that the tracker takes, in its order."""
        _check_any(self.images, self.path)
        order, found = StampOrder[_Shot](rule), list[_Shot]()
        for place, (stamp_ns, log_ns) in enumerate(self._bag.times(self.images.name)):
            ruling = order.put(stamp_ns, _Shot(place, stamp_ns, log_ns))
            self._left_out += [(refusal.stamp_ns, refusal.reason) for refusal in ruling.refused]
            if ruling.went_back:
                first = ruling.passed[0].item
                jump = f"from {_seconds(found[-1].stamp_ns)} to {_seconds(first.stamp_ns)} (message {first.place})"
                cure = "the tracker begins a new session there: score the parts of the bag one by one"
                raise ValueError(f"{self.images.name} in {self.path}: time jumps back {jump}; {cure}")
            found += [entry.item for entry in ruling.passed]
        self._left_out += [(refusal.stamp_ns, refusal.reason) for refusal in order.drop_held()]
        return found

    def _begin(self, stamps: list[int]) -> tuple[int, LabelArray]:
        """Number of the first seed's image in the bag, and the seed."""
        seed = next(self._bag.labels(self.seeds.name))
        if seed.stamp_ns not in stamps:
            raise ValueError(self._stray(self.seeds, seed.stamp_ns, stamps))
        # a mask of 0 and 255 means one new instance to the node; of ground truth the convention tells what it means
        labels = seed.labels if self.seeds is self.truths else binary_as_instance(seed.labels)
        self._is_numbered = labels is not seed.labels  # 255 alone has become an id
        return stamps.index(seed.stamp_ns), labels

    def _match(self, shots: list[_Shot]) -> list[int]:
        """For each frame the place of its ground truth on the topic; frame 0 needs none."""
        _check_any(self.truths, self.path)
        places: dict[int, int] = {}
        for place, stamp in enumerate(self._bag.stamps(self.truths.name)):
            if places.setdefault(stamp, place) != place:
                raise ValueError(f"{self.truths.name} in {self.path}: expected one for {_seconds(stamp)}, found more")
        stamps = [shot.stamp_ns for shot in shots]
        stray = sorted(places.keys() - set(stamps) - {stamp for stamp, _ in self._left_out})
        if stray:
            raise ValueError(self._stray(self.truths, stray[0], stamps))
        for number, shot in enumerate(self._shots[1:], start=1):
            if shot.stamp_ns not in places:
                expected = f"expected one for every image from the seed on, {len(self)}"
                raise ValueError(f"{self.truths.name} in {self.path}: {expected}, found none for {self.place(number)}")
        return [places.get(shot.stamp_ns, -1) for shot in self._shots]

    def _ignored(self, within_s: float) -> list[int | None]:
        """For each frame the place of its ignore mask on the topic; None where it has none."""
        masks = Newest[int]()
        for place, stamp_ns in enumerate(self._bag.stamps(self.ignores.name) if self.ignores is not None else ()):
            masks.put(stamp_ns, place)
        found = [masks.at(shot.stamp_ns, round(within_s * NS_PER_S)) for shot in self._shots]
        return [None if mask is None else mask[1] for mask in found]

    def _stray(self, topic: Topic, stamp: int, stamps: list[int]) -> str:
        near = min(stamps, key=lambda other: abs(other - stamp))
        found = f"{_seconds(stamp)}, the nearest is {_seconds(near)}"
        return f"{topic.name} in {self.path}: expected the stamp of an image on {self.images.name}, found {found}"


@dataclasses.dataclass(frozen=True)
class _Shot:
    """An image: its place on the topic, its stamp, when it was recorded, ns."""

    place: int
    stamp_ns: int
    log_ns: int


def _check_any(topic: Topic, path: Path) -> None:
    if not topic.count:
        raise ValueError(f"expected messages on {topic.name} in {path}, found none")


def _median_s(times_ns: list[int]) -> float:
    return float(np.median(np.diff(times_ns))) / NS_PER_S if len(times_ns) > 1 else 0.0


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
