# SPDX-License-Identifier: Apache-2.0
"""DAVIS sequences to bags that stock ``ros2 bag play`` accepts, from Humble on."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from tqdm import tqdm

from maskrnn_ros.bags.checksums import add_checksums
from maskrnn_ros.bags.options import FromDavisOptions
from maskrnn_ros.bags.topics import (
    COMPRESSED_SUFFIX,
    COMPRESSED_TYPE,
    IMAGE_TOPIC,
    IMAGE_TYPE,
)
from maskrnn_ros.datasets.davis import DavisSequence, davis_sequence
from maskrnn_ros.datasets.frames import FolderFrames, orientation_of
from maskrnn_ros.disk import regular_file
from maskrnn_ros.image_messages import NS_PER_S, fill_image, label_image_data
from maskrnn_ros.labels import LabelFiles
from maskrnn_ros.limits import check_fps
from maskrnn_ros.types import LabelArray

METADATA_VERSION: Final = 8
"""The newest version of metadata.yaml that Humble reads."""

START_NS = NS_PER_S
"""Stamp of the first frame: not 0, which means "no time" in ROS."""

FRAME_ID = "camera"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
CODECS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}

_BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite leaves beside a file."""
_MOST_METADATA = 10_000_000
"""Bytes of a metadata.yaml; a bag that was split very often has a megabyte."""

_INFINITE = QosTime(9223372036, 854775807)  # what `ros2 bag record` writes for "no deadline"
RELIABLE = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_INFINITE,
    lifespan=_INFINITE,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_INFINITE,
    avoid_ros_namespace_conventions=False,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagSummary:
    """What was written.

    Args:
        path: Folder of the bag.
        counts: Messages by topic.
        ids: Instance ids of the ground truth, ascending.
        label_encoding: Encoding of truth and seed, mono8 or mono16.
        labels: What the values of the annotations mean.
        late: Ids that begin on a later frame than the first seed, with the number of that frame.
    """

    path: Path
    counts: dict[str, int]
    ids: tuple[int, ...]
    label_encoding: str
    labels: str
    late: dict[int, int]


def from_davis(
    root: Path | str,
    sequence: str,
    out: Path | str,
    annotations: str = FromDavisOptions.annotations,
    *,
    fps: float = FromDavisOptions.fps,
    compressed: bool = FromDavisOptions.compressed,
    threshold: int | None = FromDavisOptions.threshold,
    storage: str = FromDavisOptions.storage,
    image_topic: str = FromDavisOptions.image_topic,
    truth_topic: str = FromDavisOptions.truth_topic,
    seed_topic: str = FromDavisOptions.seed_topic,
    overwrite: bool = FromDavisOptions.overwrite,
    progress: bool = False,
) -> BagSummary:
    """Write a DAVIS sequence as a bag: images, ground truth and seeds.

    Frame i has the stamp 1 s + i / fps, rounded to whole ns, and is logged at that time. The seed is the
    first annotation that marks anything (as a rule that of frame 0), with the stamp of its frame, and stands
    before it; objects that begin later have a seed of their own on their first frame. Values become ids by
    ``labels.LabelRule``, so truth and seeds have the same ids, and no tracker has to guess.

    Args:
        root: Folder of the data set, see ``davis.davis_sequence``.
        sequence: Name of the sequence.
        out: Folder to write.
        annotations: Folder of the label images below ``root``.
        fps: Frames per second.
        compressed: Put the JPEG or PNG files in unchanged, as CompressedImage on ``image_topic``/compressed;
            otherwise they are decoded to rgb8, those of 16 bits to mono16 or rgb16.
        threshold: For annotations that are soft masks of one object, see ``labels.read_labels``.
        storage: "mcap" or "sqlite3".
        image_topic: Topic of the images.
        truth_topic: Topic of the ground truth, one label image for each annotated frame.
        seed_topic: Topic of the seed.
        overwrite: Replace the bag ``out``.
        progress: Show a progress bar.

    Raises:
        ValueError: A setting is wrong, files are missing or contradict one another, or ``out`` exists.
    """
    _check_settings(fps, storage, (image_topic, truth_topic, seed_topic))
    files = davis_sequence(root, sequence, annotations)
    frames = FolderFrames(files.frames)
    size, labels = frames.check(), _labels_of(files, threshold)
    encoding = "mono8" if max(labels.rule.ids) <= 255 else "mono16"
    starts = labels.starts
    with _new_bag(Path(out), STORAGES[storage], overwrite) as writer:
        image_bag_topic = image_topic + COMPRESSED_SUFFIX * compressed
        images = _Channel(writer, image_bag_topic, COMPRESSED_TYPE if compressed else IMAGE_TYPE)
        truths, seeds = _Channel(writer, truth_topic, IMAGE_TYPE), _Channel(writer, seed_topic, IMAGE_TYPE)
        for index, path in enumerate(tqdm(files.frames, desc=sequence, unit="frame", disable=not progress)):
            stamp_ns = stamp_of(index, fps)
            truth = _truth(labels, index, frames, size)
            new = [i for i, start in starts.items() if start == index]
            if truth is not None and new:
                seed = np.where(np.isin(truth, new), truth, 0)
                seeds.write_image(stamp_ns, label_image_data(seed, encoding), encoding)
            if compressed:
                images.write_file(stamp_ns, path)
            else:
                images.write_image(stamp_ns, *_pixels(frames, index))
            if truth is not None:
                truths.write_image(stamp_ns, label_image_data(truth, encoding), encoding)
    return BagSummary(
        path=Path(out),
        counts={channel.topic: channel.count for channel in (images, truths, seeds)},
        ids=labels.rule.ids,
        label_encoding=encoding,
        labels=labels.rule.text,
        late={i: start for i, start in starts.items() if start > min(starts.values())},
    )


def _pixels(frames: FolderFrames, number: int) -> tuple[npt.NDArray[np.uint8 | np.uint16], str]:
    """A frame with the depth of its file, and its encoding."""
    pixels = frames.stored(number)
    if pixels.dtype == np.uint8:
        return pixels, "rgb8"
    return pixels, "rgb16" if pixels.ndim == 3 else "mono16"


def _check_settings(fps: float, storage: str, topics: tuple[str, ...]) -> None:
    check_fps(fps)
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")
    for topic in topics:
        if not re.fullmatch(r"(/[A-Za-z_]\w*)+", topic, re.ASCII):
            raise ValueError(f"a topic of a bag must be a full name such as {IMAGE_TOPIC}, got {topic!r}")
    if len(set(topics)) < len(topics):
        raise ValueError(f"image, truth and seed topic must differ, got {', '.join(topics)}")


def stamp_of(index: int, fps: float) -> int:
    """Stamp of a frame, ns, see ``from_davis``."""
    return START_NS + round(index * NS_PER_S / Fraction(fps))  # a float would lose ns from some hours on


def _labels_of(files: DavisSequence, threshold: int | None) -> LabelFiles:
    labels = LabelFiles([files.annotations.get(path.stem) for path in files.frames], threshold)
    if not labels.rule.ids:
        raise ValueError(f"no annotation of {files.name} marks an instance")
    return labels


def _truth(labels: LabelFiles, number: int, frames: FolderFrames, size: tuple[int, int]) -> LabelArray | None:
    truth = labels.ids(number)
    if truth is not None and truth.shape != size:
        path, frame = labels.paths[number], frames.place(number)
        raise ValueError(f"{path} must have the size of {frame}, {size} (H, W), got {truth.shape}")
    return truth


class _Channel:
    """Writes stamped messages on one topic."""

    def __init__(self, writer: Writer, topic: str, msgtype: str) -> None:
        self.topic = topic
        self.count = 0
        self._writer = writer
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._connection = writer.add_connection(topic, msgtype, typestore=self._store, offered_qos_profiles=[RELIABLE])

    def write_image(self, stamp_ns: int, pixels: Any, encoding: str) -> None:
        blank = np.empty(0, np.uint8)
        message: Any = self._store.types[IMAGE_TYPE](self._header(stamp_ns), 0, 0, "", 0, 0, blank)
        fill_image(message, pixels, encoding)
        message.data = np.frombuffer(message.data, np.uint8)  # rosbags takes arrays of numpy only
        self._write(stamp_ns, message)

    def write_file(self, stamp_ns: int, path: Path) -> None:
        codec = CODECS.get(path.suffix.lower())
        if codec is None:
            raise ValueError(f"{path}: a CompressedImage takes {', '.join(CODECS)}; write this one decoded")
        data = path.read_bytes()
        if orientation_of(data) != 1:
            turned = f"EXIF orientation {orientation_of(data)}"
            raise ValueError(f"{path}: a CompressedImage is never turned, this one has {turned}; write it decoded")
        content = np.frombuffer(data, np.uint8)
        self._write(stamp_ns, self._store.types[COMPRESSED_TYPE](self._header(stamp_ns), codec, content))

    def _header(self, stamp_ns: int) -> Any:
        stamp = self._store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, NS_PER_S))
        return self._store.types["std_msgs/msg/Header"](stamp, FRAME_ID)

    def _write(self, stamp_ns: int, message: Any) -> None:
        data = self._store.serialize_cdr(message, self._connection.msgtype)
        self._writer.write(self._connection, stamp_ns, data)
        self.count += 1


@contextlib.contextmanager
def _new_bag(out: Path, storage: StoragePlugin, overwrite: bool) -> Iterator[Writer]:
    """A writer for a bag that is there as a whole afterwards, or not at all; one that is replaced stays until then."""
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; overwrite replaces it")
    if out.exists():
        files_of_bag(out)  # refuses what is none, before the work
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        # the file is named after its folder; `ros2 bag reindex` finds <bag>_0.mcap only
        made = Path(scratch, f"{out.name}_0")
        with Writer(made, version=METADATA_VERSION, storage_plugin=storage) as writer:
            yield writer
        for file in made.glob("*.mcap"):
            add_checksums(file)
        if out.exists():
            for file in files_of_bag(out):
                file.unlink()
            out.rmdir()
        made.replace(out)


def files_of_bag(bag: Path) -> list[Path]:
    """The files of a bag, where there is nothing else in its folder: all that may be deleted with it.

    Raises:
        ValueError: It is no bag, or something else lies there.
    """
    try:
        known = yaml.safe_load(regular_file(bag / "metadata.yaml", _MOST_METADATA).read_bytes())
        names = {str(name) for name in known["rosbag2_bagfile_information"]["relative_file_paths"]}
    except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{bag} exists and is no bag (no metadata.yaml of one); it is not replaced") from error
    names |= {f"{name}{suffix}" for name in names for suffix in _BESIDE}
    found = sorted(bag.iterdir())
    strange = [path for path in found if path.name not in {"metadata.yaml", *names} or not path.is_file()]
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise ValueError(f"{bag} holds {strange[0].name}{more}, which is none of the bag's files; it is not replaced")
    return found
