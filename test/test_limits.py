# SPDX-License-Identifier: Apache-2.0
"""What is too large is refused by what it says of itself: before it is looked at, copied or unpacked."""

from __future__ import annotations

import gc
import os
import struct
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from maskrnn_ros import masks
from maskrnn_ros.config import Config, with_values
from maskrnn_ros.datasets.frames import read_frame
from maskrnn_ros.datasets.video import VideoWriter
from maskrnn_ros.image_header import check_encoded
from maskrnn_ros.image_messages import compressed_to_rgb, depth_to_metres, image_to_rgb, labels_from_image
from maskrnn_ros.labels import read_labels, read_mask, write_labels
from maskrnn_ros.limits import (
    MAX_FRAME_ID,
    MAX_PIXELS,
    MAX_POINTS,
    MAX_PROMPTS,
    MAX_SIDE,
    Rate,
    check_frame_id,
    check_number,
    check_size,
)
from maskrnn_ros.masks import MaskEncoding
from maskrnn_ros.ros.messages import seed_from_message
from maskrnn_ros.tracker_node.requests import seed_from_request
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.types import Seed


class Untouched:
    """So many values that nobody may look at."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _fail(self, *_: object) -> Any:
        raise AssertionError("the values were looked at")

    __iter__ = __getitem__ = __buffer__ = __array__ = _fail


def image(height: int, width: int, encoding: str = "mono8", count: int | None = None) -> Any:
    stamp = SimpleNamespace(sec=1, nanosec=0)
    header = SimpleNamespace(stamp=stamp, frame_id="camera")
    data = Untouched(height * width * 4 if count is None else count)
    return SimpleNamespace(
        header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=width * 4, data=data
    )


def prompt(points: int = 0, mask: Any = None) -> Any:
    box = SimpleNamespace(x_offset=0, y_offset=0, width=2, height=2)
    long = Untouched(points)
    return SimpleNamespace(id=0, name="", box=box, x=long, y=long, positive=long, mask=mask or image(0, 0))


def request(*prompts: Any, picture: Any = None) -> Any:
    stamp = SimpleNamespace(sec=0, nanosec=0)
    return SimpleNamespace(token="", stamp=stamp, prompts=prompts, image=picture or image(0, 0))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(prompt(32_768)), f"expected at most {MAX_POINTS} points at a time, got 32768"),
        (request(prompt(1_000_000)), "got 1000000"),
        (request(prompt(MAX_POINTS // 2), prompt(MAX_POINTS // 2 + 1)), f"got {MAX_POINTS + 1}"),
        (request(*[prompt()] * (MAX_PROMPTS + 1)), f"expected at most {MAX_PROMPTS} prompts at a time"),
        (request(prompt(mask=image(10_000, 10_000))), r"prompts.0.: mask must have at most 34000000 pixels"),
        (request(prompt(), prompt(mask=image(31, 40))), r"prompts.1.: mask must be 40x30 .* like the image, got 40x31"),
        (request(prompt(), picture=image(10_000, 10_000, "rgb8")), "image must have at most 34000000 pixels"),
        (request(prompt(mask=image(30, 40)), picture=image(20, 40)), "mask must be 40x20 .* got 40x30"),
    ],
)
def test_a_request_is_refused_by_lengths_and_sizes_alone(asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_from_request(asked, (30, 40))


@pytest.mark.parametrize(
    "read", [image_to_rgb, labels_from_image, seed_from_message, lambda m: depth_to_metres(m, 1.0)]
)
@pytest.mark.parametrize("size", [(10_000, 10_000), (2**32 - 1, 2**32 - 1), (1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)])
def test_a_message_is_refused_by_the_size_that_it_says(read: Callable[[Any], Any], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"must have at most {MAX_PIXELS} pixels .* got {size[0]} x {size[1]}"):
        read(image(*size, encoding="16UC1"))


def test_a_seed_of_another_size_than_the_stream_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="mask must be 640x480 .* like the image, got 641x480"):
        seed_from_message(image(480, 641), (480, 640))


def test_the_largest_image_that_is_taken_is_8k() -> None:
    check_size(4320, 7680)
    assert MAX_PIXELS < 4320 * 7680 * 1.1


def test_runs_of_eight_bytes_make_no_mask_of_gigabytes() -> None:
    data = np.array([0, 2**32 - 2], "<u4").tobytes()
    with pytest.raises(ValueError, match=r"mask must have at most 34000000 pixels .* got 2147483647 x 2"):
        masks.decode(data, 2**31 - 1, 2, MaskEncoding.RLE)
    box = SimpleNamespace(x_offset=0, y_offset=0, width=2, height=2**31 - 1)
    cup = SimpleNamespace(id=1, area=1, box=box, encoding=MaskEncoding.RLE, data=data)
    for size, said in (((480, 640), "crop must lie inside the image"), ((2**32 - 1, 2), "image must have at most")):
        message = SimpleNamespace(image_height=size[0], image_width=size[1], instances=[cup])
        for read in (masks.label_image, lambda message: masks.full_mask(message, cup)):
            with pytest.raises(ValueError, match=said):
                read(message)


def png(height: int, width: int) -> bytes:
    """The beginning of a PNG; zeros of any number would follow, a thousand to a byte."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(30_000, 30_000), (6000, 6000), (1, 20_000), (2**31 - 1, 2**31 - 1)])
def test_an_encoded_image_is_refused_by_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", Untouched(0)._fail)
    message = SimpleNamespace(format="png", data=png(*size))
    with pytest.raises(ValueError, match=f"CompressedImage must have at most {MAX_PIXELS} pixels"):
        compressed_to_rgb(message)


@pytest.mark.parametrize("size", [(30_000, 30_000), (6000, 6000)])
def test_a_file_is_refused_by_its_header(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "00000.png").write_bytes(png(*size))
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(cv2, "imdecode", Untouched(0)._fail)
    for read in (read_frame, read_labels, read_mask):
        with pytest.raises(ValueError, match=f"00000.png must have at most {MAX_PIXELS} pixels"):
            read(tmp_path / "00000.png")
        with pytest.raises(OSError, match="expected a regular file, found a pipe"):
            read(tmp_path / "pipe.png")


def test_masks_and_videos_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.ones((20, 30), np.int32)
    write_labels(tmp_path / "00000.png", labels)
    before = (tmp_path / "00000.png").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.Image.save", full)
        with pytest.raises(OSError, match="No space left"):
            write_labels(tmp_path / "00000.png", labels + 1)
    assert (tmp_path / "00000.png").read_bytes() == before
    frame = np.zeros((20, 30, 3), np.uint8)
    with VideoWriter(tmp_path / "whole.mp4", 10.0) as video:
        video.write(frame)
    with pytest.raises(OSError, match="torn.mp4: what was written is no video; is the disk full"):
        with VideoWriter(tmp_path / "torn.mp4", 10.0) as video:
            video.write(frame)
            _emptied_at_release(video)
    with pytest.raises(ValueError, match="stop"), VideoWriter(tmp_path / "stopped.mp4", 10.0) as video:
        video.write(frame)
        raise ValueError("stop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "whole.mp4"]


def _emptied_at_release(video: VideoWriter) -> None:
    """As on a full disk: nothing of the file arrives, and OpenCV says nothing."""
    writer, part = video._writer, video._part
    assert writer is not None

    def release() -> None:
        writer.release()
        part.write_bytes(b"")

    video._writer = SimpleNamespace(release=release)  # type: ignore[assignment]


def test_a_chunk_of_a_png_that_says_more_than_there_is_is_not_made_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = cv2.imencode(".png", np.zeros((10, 30), np.uint8))
    assert check_encoded(data) and check_encoded(data.tobytes() + b"and more behind its end")
    place = data.tobytes().index(b"IDAT") - 4
    data[place] = 0x7F
    monkeypatch.setattr(cv2, "imdecode", Untouched(0)._fail)
    with pytest.raises(ValueError, match="cannot decode CompressedImage"):
        compressed_to_rgb(SimpleNamespace(format="png", data=data.tobytes()))


def test_an_encoded_image_of_a_usual_size_passes_and_what_is_none_is_told() -> None:
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 30)
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff", ".pgm"):
        written, data = cv2.imencode(suffix, pixels)
        assert written and check_encoded(data), suffix
    for data in (b"", b"nothing", png(10, 10)[:20]):
        assert not check_encoded(data)


def test_numbers_and_frame_ids_have_limits() -> None:
    check_number("ids", range(3), 3)
    with pytest.raises(ValueError, match="expected at most 3 ids at a time, got 4"):
        check_number("ids", Untouched(4), 3)
    check_frame_id("x" * MAX_FRAME_ID)
    with pytest.raises(ValueError, match="frame_id must have at most 256 characters, got 10000000"):
        check_frame_id("x" * 10_000_000)


def test_seeds_that_are_remembered_are_so_without_their_masks() -> None:
    book, config = IdBook(), with_values(Config(), max_instances=1000)
    held = []
    for number in range(1, 301):
        labels = np.zeros((10, 10), np.int32)
        labels[number % 10, 3] = number
        held.append(weakref.ref(book.admit(Seed(stamp_ns=number, labels=labels), config).seed))
    gc.collect()
    assert not any(seed() for seed in held)
    assert [known.ids for known in book._known.values()] == [(number,) for number in range(45, 301)]


@pytest.mark.parametrize("value", [255, 7])
def test_a_seed_that_comes_again_gets_the_same_ids_though_it_is_not_held(value: int) -> None:
    book, config = IdBook(), Config()
    labels = np.zeros((10, 10), np.int32)
    labels[3:5, 3:5] = value
    first = book.admit(Seed(stamp_ns=1, labels=labels), config)
    book.confirm(first)
    again = book.admit(Seed(stamp_ns=1, labels=labels.copy()), config)
    assert again.is_duplicate and again.known is first.known and not again.added
    assert again.seed.ids == first.seed.ids == ((1,) if value == 255 else (7,))
    np.testing.assert_array_equal(again.seed.labels, first.seed.labels)
    book.release(again)  # a duplicate's end takes nothing from the first
    assert book.live == first.seed.ids and book.knows(again)


def test_requests_come_at_a_rate_with_bursts_of_twice_as_many() -> None:
    now = 0.0
    rate = Rate(10, clock=lambda: now)

    def taken() -> int:
        for count in range(1000):
            try:
                rate.check("requests")
            except ValueError as error:
                assert str(error) == "expected at most 10 requests in a second, got more"
                return count
        raise AssertionError("no limit")

    assert taken() == 20
    now = 0.05
    assert taken() == 0
    now = 1.05
    assert taken() == 10
    now = 100.0
    assert taken() == 20
