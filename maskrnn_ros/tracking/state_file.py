# SPDX-License-Identifier: Apache-2.0
"""Saved instances in a file: written aside and put in place whole, read without trust.

The file is in the safetensors format: a table of arrays and nothing that could be run. ``document`` is JSON, pictures
are PNG, and ``digest`` is the SHA-256 of all the rest: it tells a torn file, it is no signature.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.image_header import check_encoded
from maskrnn_ros.limits import MAX_NAME, MAX_SIDE, check_size
from maskrnn_ros.tracking.saved import MAX_SEEDS, Saved, SavedInstance, SavedSeed
from maskrnn_ros.types import MAX_INSTANCE_ID, Box, UInt8Array

FORMAT = 1
NAME = "instances.safetensors"
_MAX_BYTES = 1 << 30
_MAX_DOCUMENT = 1 << 24
_MAX_INSTANCES = 1_000


def to_bytes(saved: Saved, encode: Callable[[SavedSeed], Mapping[str, UInt8Array]] | None = None) -> bytes:
    """The content of a file.

    Args:
        saved: What is to be saved.
        encode: Gives ``pictures`` of a seed, from a cache where there is one.
    """
    from safetensors.numpy import save

    arrays: dict[str, UInt8Array] = {}
    for number, seed in enumerate(saved.seeds):
        for name, picture in (encode or pictures)(seed).items():
            arrays[f"seed.{number}.{name}"] = picture
    for instance in saved.instances:
        arrays[f"mask.{instance.instance_id}"] = np.packbits(instance.mask.ravel())
    document = {
        "format": FORMAT,
        "session": saved.session,
        "size": list(saved.size),
        "used": sorted(saved.used),
        "seeds": [{"stamp_ns": seed.stamp_ns, "working": list(seed.image.shape[:2])} for seed in saved.seeds],
        "instances": [_described(instance) for instance in saved.instances],
    }
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    arrays["digest"] = _digest(arrays)
    content: bytes = save(arrays)
    return content


def pictures(seed: SavedSeed) -> dict[str, UInt8Array]:
    """PNGs of a seed's image and labels; what takes time of a file."""
    found = {
        "image": _png(cv2.cvtColor(seed.image, cv2.COLOR_RGB2BGR)),
        "labels": _png(seed.labels.astype(np.uint16)),
    }
    if seed.ignored is not None:
        found["ignored"] = _png(np.multiply(seed.ignored, 255, dtype=np.uint8))
    return found


def from_bytes(content: bytes) -> Saved:
    """What a file says.

    Raises:
        ValueError: It was not written by ``to_bytes``, is torn, or says what cannot be.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        digest = arrays.pop("digest")
        if not np.array_equal(digest, _digest(arrays)):
            raise ValueError("its digest is not that of its content")
        _check(arrays["document"].nbytes <= _MAX_DOCUMENT, "bytes of document", arrays["document"].nbytes)
        document = json.loads(arrays["document"].tobytes())
        if document["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {document['format']!r}")
        return _saved(document, arrays)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error
    except (SafetensorError, TypeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _described(instance: SavedInstance) -> dict[str, Any]:
    box = instance.box
    return {
        "id": instance.instance_id,
        "name": instance.name[:MAX_NAME],
        "seeds": list(instance.seeds),
        "box": None if box is None else [box.x0, box.y0, box.x1, box.y1],
        "age": instance.age,
        "frames_unseen": instance.frames_unseen,
    }


def _saved(document: Mapping[str, Any], arrays: Mapping[str, UInt8Array]) -> Saved:
    size = _size(document["size"], 0)
    _check(len(document["instances"]) <= _MAX_INSTANCES, "instances", len(document["instances"]))
    seeds = tuple(_seed(number, entry, size, arrays) for number, entry in enumerate(document["seeds"]))
    stamps = [seed.stamp_ns for seed in seeds]
    _check(stamps == sorted(set(stamps)), "stamps of seeds", stamps)
    instances = tuple(_instance(entry, size, seeds, arrays) for entry in document["instances"])
    ids = [instance.instance_id for instance in instances]
    _check(ids == sorted(set(ids)), "ids", ids)
    used = frozenset(_int(i, 1, MAX_INSTANCE_ID, "used") for i in document["used"])
    return Saved(
        session=_int(document["session"], 1, 2**32 - 1, "session"),
        size=size,
        instances=instances,
        seeds=seeds,
        used=used,
    )


def _seed(number: int, entry: Mapping[str, Any], size: tuple[int, int], arrays: Mapping[str, UInt8Array]) -> SavedSeed:
    image = _picture(arrays[f"seed.{number}.image"], _size(entry["working"]), np.uint8, 3)
    labels = _picture(arrays[f"seed.{number}.labels"], size, np.uint16, 1)
    _check(int(labels.max()) <= MAX_INSTANCE_ID and bool(labels.any()), "labels", labels.max())
    ignored = arrays.get(f"seed.{number}.ignored")
    hidden = None if ignored is None else _picture(ignored, size, np.uint8, 1) != 0
    _check(hidden is None or not labels[hidden].any(), "labels", "in the ignore mask")
    return SavedSeed(
        stamp_ns=_int(entry["stamp_ns"], 1, 2**62, "stamp_ns"),
        image=np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
        labels=labels.astype(np.int32),
        ignored=hidden,
    )


def _instance(
    entry: Mapping[str, Any], size: tuple[int, int], seeds: tuple[SavedSeed, ...], arrays: Mapping[str, UInt8Array]
) -> SavedInstance:
    instance_id = _int(entry["id"], 1, MAX_INSTANCE_ID, "id")
    name = entry["name"]
    _check(isinstance(name, str) and len(name) <= MAX_NAME, "name", name)
    mine = tuple(seed.stamp_ns for seed in seeds if seed.stamp_ns in entry["seeds"])
    _check(list(mine) == entry["seeds"] and 1 <= len(mine) <= MAX_SEEDS, "seeds", entry["seeds"])
    for seed in seeds:
        _check(seed.stamp_ns not in mine or bool((seed.labels == instance_id).any()), "seeds", entry["seeds"])
    box = _box(entry["box"], size)
    shape = (box.height, box.width) if box is not None else (0, 0)
    bits = arrays[f"mask.{instance_id}"]
    _check(bits.dtype == np.uint8 and bits.shape == ((shape[0] * shape[1] + 7) // 8,), "mask", bits.shape)
    mask = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
    return SavedInstance(
        instance_id=instance_id,
        name=name,
        seeds=mine,
        box=box,
        mask=mask,
        age=_int(entry["age"], 0, 2**31 - 1, "age"),
        frames_unseen=_int(entry["frames_unseen"], 0, 2**31 - 1, "frames_unseen"),
    )


def _box(values: Any, size: tuple[int, int]) -> Box | None:
    if values is None:
        return None
    x0, y0, x1, y1 = (_int(value, 0, MAX_SIDE, "box") for value in values)
    _check(x1 <= size[1] and y1 <= size[0], "box", values)
    return Box(x0, y0, x1, y1)


def _size(values: Any, low: int = 1) -> tuple[int, int]:
    height, width = (_int(value, low, MAX_SIDE, "size") for value in values)
    check_size(height, width)
    return height, width


def _int(value: Any, low: int, high: int, name: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {str(value)[:40]}")
    return value


def _check(is_so: bool, name: str, value: object) -> None:
    if not is_so:
        raise ValueError(f"{name} make no sense: {str(value)[:40]}")


def _png(picture: npt.NDArray[Any]) -> UInt8Array:
    done, data = cv2.imencode(".png", picture, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    if not done:
        raise ValueError(f"a picture {picture.dtype} {picture.shape} cannot be written as PNG")
    return np.asarray(data, np.uint8).ravel()


def _picture(data: UInt8Array, size: tuple[int, int], dtype: type, channels: int) -> npt.NDArray[Any]:
    """A PNG whose size is known before it is decoded: some bytes may declare gigabytes."""
    if (
        data.dtype != np.uint8
        or data.ndim != 1
        or data[:8].tobytes() != b"\x89PNG\r\n\x1a\n"
        or not check_encoded(data)
    ):
        raise ValueError(f"expected a PNG, got {data.dtype} {data.shape} that is none")
    declared = tuple(int.from_bytes(data[at : at + 4].tobytes(), "big") for at in (20, 16))  # of its first chunk
    if declared != size:
        raise ValueError(f"expected a PNG of {size[1]}x{size[0]}, got {declared[1]}x{declared[0]}")
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    shape = (*size, channels) if channels > 1 else size
    if picture is None or picture.dtype != dtype or picture.shape != shape:
        found = "none" if picture is None else f"{picture.dtype} {picture.shape}"
        raise ValueError(f"expected a PNG of {np.dtype(dtype)} {shape}, got {found}")
    return np.asarray(picture)


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> UInt8Array:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        content = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {content.dtype} {content.shape}\n".encode())
        digest.update(content.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


class StateFile:
    """The file of one node in its folder, which belongs to one process at a time.

    Args:
        folder: Made where it is not there, for its owner only.

    Raises:
        ValueError: Another process uses the folder.
        OSError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = _taken(folder)

    def close(self) -> None:
        """Leave the folder to others."""
        os.close(self._lock)

    def read(self) -> tuple[Saved | None, str]:
        """What was saved, None where there is nothing; and why a file was refused and set aside, else nothing."""
        try:
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not os.path.isfile(self.path) or status.st_size > _MAX_BYTES:
                    raise ValueError(f"expected a file of at most {_MAX_BYTES} bytes, got {status.st_size}")
                return from_bytes(file.read()), ""
        except FileNotFoundError:
            return None, ""
        except (ValueError, OSError, MemoryError) as error:
            aside = self.path.with_suffix(".refused")
            with contextlib.suppress(OSError):
                os.replace(self.path, aside)
            return None, f"{self.path} is refused and set aside as {aside.name}: {error or type(error).__name__}"

    def write(self, content: bytes) -> None:
        """Put a new content in place; whoever reads, or a crash at any time, finds the old one or the new one.

        Raises:
            OSError: It cannot be written.
            ValueError: The folder was removed, and another process has made it again and uses it.
        """
        try:
            self._put(content)
        except FileNotFoundError:  # the folder was removed meanwhile
            lock = _taken(self.path.parent)
            os.close(self._lock)
            self._lock = lock
            self._put(content)

    def _put(self, content: bytes) -> None:
        temporary = self.path.with_suffix(".new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _taken(folder: Path) -> int:
    """Make a folder for its owner only, and take it for this process; gives the file that is locked.

    Raises:
        ValueError: Another process uses it.
        OSError: It cannot be made or written to.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ValueError(f"{folder} is in use by another process: give each node a name of its own") from error
    return lock


class StateWriter:
    """Writes the newest of what it is given, in a thread of its own; what is overtaken is left out.

    Args:
        file: Where to; closed by the thread at its end.
        period_s: Shortest time between two writes, seconds.
        fault: Called with one line when it cannot be written; the next one is tried all the same.
        prepare: Called once in the thread, first: gives way to others.
    """

    def __init__(
        self,
        file: StateFile,
        period_s: float,
        fault: Callable[[str], None],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = file
        self._period_s = period_s
        self._fault = fault
        self._prepare = prepare
        self._changed = threading.Condition()
        self._newest: Saved | None = None
        self._closed = False
        self.written = 0
        self._cache: WeakKeyDictionary[SavedSeed, Mapping[str, UInt8Array]] = WeakKeyDictionary()
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    def put(self, saved: Saved) -> None:
        """Take what is to be saved; it returns at once."""
        with self._changed:
            self._newest = saved
            self._changed.notify_all()

    def close(self, timeout_s: float | None = None) -> bool:
        """Write what is left and end the thread; False where that is not done in time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._prepare()
            self._write_all()
        finally:
            self._file.close()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closed)
                saved, self._newest = self._newest, None
            if saved is None:
                return
            try:
                self._file.write(to_bytes(saved, self._encoded))
                self.written += 1
            except Exception as error:  # of a disk, mostly: the stream goes on without
                self._fault(f"{self._file.path} cannot be written: {error or type(error).__name__}")
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._period_s)

    def _encoded(self, seed: SavedSeed) -> Mapping[str, UInt8Array]:
        if seed not in self._cache:
            self._cache[seed] = pictures(seed)
        return self._cache[seed]
