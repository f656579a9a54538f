# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in messages and requests is read, or refused in one short line; nothing else happens.

`make test` draws some hundreds of each, `make test-faults` 10,000.
"""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs sensor_msgs")
pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")

from builtin_interfaces.msg import Time  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest  # noqa: E402

from maskrnn_ros.config import Config  # noqa: E402
from maskrnn_ros.image_messages import (  # noqa: E402
    compressed_to_rgb,
    depth_to_metres,
    image_to_rgb,
    labels_from_image,
    stamp_to_ns,
)
from maskrnn_ros.limits import MAX_PIXELS, MAX_TEXT, check_frame_id, text_line  # noqa: E402
from maskrnn_ros.masks import MaskEncoding, full_mask, label_image  # noqa: E402
from maskrnn_ros.msg import InstanceMask, InstanceMaskArray, Prompt  # noqa: E402
from maskrnn_ros.prompts import GrabCut  # noqa: E402
from maskrnn_ros.ros.messages import seed_from_message  # noqa: E402
from maskrnn_ros.srv import AddInstances  # noqa: E402
from maskrnn_ros.tracker_node.requests import seed_from_request  # noqa: E402
from maskrnn_ros.tracking.ids import IdBook  # noqa: E402
from maskrnn_ros.types import Frame, Seed  # noqa: E402

SIZE = (24, 32)
MOST_BYTES = 4 * MAX_PIXELS
"""Of a label image of the largest size that is taken."""
DRAWN = pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(3600)])]
)
NUMBERS = (0, 1, 2, 3, 7, 23, 24, 31, 32, 33, 255, 1000, 16_384, 16_385, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
ENCODINGS = (
    "rgb8 bgr8 rgba8 bgra8 mono8 mono16 8UC1 8UC3 8UC4 16UC1 32SC1 32FC1 bayer_rggb8 bayer_bggr8 yuv422 yuv422_yuy2 "
    "uyvy yuyv jpeg RGB8 8UC5 64FC1"
).split()
TEXTS = ("", "cup", "x" * 64, "x" * 65, "x" * 5000, "two\nlines", "\x00", "é", "\u2028", "'; --", "%s{0}")


class Chance:
    """Draws what may be in a message: mostly what is right, or else anything."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def is_wrong(self, share: float = 0.12) -> bool:
        return bool(self.random.random() < share)

    def among(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def number(self, right: int, high: int = 2**32 - 1) -> int:
        return min(int(self.among(NUMBERS)), high) if self.is_wrong() else right

    def bytes(self, count: int) -> array.array[int]:
        kind = self.among(("noise", "few", "zero", "ones", "halves", "halves"))
        values = {
            "noise": self.random.integers(0, 256, count, np.uint8),
            "few": self.random.integers(0, 4, count, np.uint8),
            "zero": np.zeros(count, np.uint8),
            "ones": np.full(count, 255, np.uint8),
            "halves": np.repeat(np.array([0, 1], np.uint8), (count // 2, count - count // 2)),
        }
        return array.array("B", values[kind].tobytes())

    def text(self, right: str) -> str:
        return str(self.among(TEXTS)) if self.is_wrong() else right

    def stamp(self) -> Time:
        seconds = int(self.among((-(2**31), -1, 0, 2**31 - 1))) if self.is_wrong() else 5
        return Time(sec=seconds, nanosec=self.number(7))

    def image(self, encodings: Any = ENCODINGS) -> Image:
        message = Image(height=self.number(SIZE[0]), width=self.number(SIZE[1]))
        message.encoding = self.text(self.among(encodings))
        message.is_bigendian = int(self.random.integers(0, 2))
        message.step = self.number(SIZE[1] * int(self.among((1, 2, 3, 4))))
        length = min(message.step * SIZE[0], 20_000)
        message.data = self.bytes(int(self.random.integers(0, length + 2)) if self.is_wrong() else length)
        message.header.stamp = self.stamp()
        message.header.frame_id = self.text("camera")
        return message

    def compressed(self) -> CompressedImage:
        picture = self.random.integers(0, 256, (*SIZE, 3) if self.is_wrong(0.5) else SIZE, np.uint8)
        _, data = cv2.imencode(self.among((".png", ".jpg", ".webp", ".tiff", ".bmp")), picture)
        for _ in range(int(self.random.integers(0, 4))):
            place = int(self.random.integers(0, min(data.size, 64) if self.is_wrong(0.5) else data.size))
            data[place] = self.random.integers(0, 256)
        end = int(self.random.integers(0, data.size)) if self.is_wrong() else data.size
        text = self.among(("jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed mono8", "mono16"))
        return CompressedImage(format=self.text(text), data=array.array("B", data[:end].tobytes()))

    def prompt(self) -> Prompt:
        message = Prompt(id=int(self.among((-1, 0, 0, 0, 1, 2, 40_000, 2**31 - 1))), name=self.text("cup"))
        kind = self.among(("box", "points", "mask", "all", "nothing"))
        if kind in ("box", "all"):
            message.box = RegionOfInterest(
                x_offset=self.number(3), y_offset=self.number(4), width=self.number(9), height=self.number(8)
            )
        if kind in ("points", "all"):
            count = int(self.among((1, 2, 5, 1001))) if self.is_wrong() else 2
            values = np.where(self.random.random(count) < 0.05, np.nan, self.random.uniform(-2, 34, count))
            message.x = array.array("f", values.tolist())
            message.y = array.array("f", self.random.uniform(0, 24, self.number(count, 2000)).tolist())
            message.positive = self.bytes(self.number(0, 2000))
        if kind in ("mask", "all"):
            message.mask = self.image(("mono8", "mono8", "8UC1", "mono16", "rgb8"))
        return message

    def request(self) -> AddInstances.Request:
        prompts = [self.prompt() for _ in range(int(self.among((0, 1, 1, 2, 3))))]
        request = AddInstances.Request(token=self.text("mine"), stamp=self.stamp(), prompts=prompts)
        if self.is_wrong(0.2):
            request.image = self.image(("rgb8", "mono8"))
        return request

    def instances(self) -> InstanceMaskArray:
        message = InstanceMaskArray(image_height=self.number(SIZE[0]), image_width=self.number(SIZE[1]))
        for _ in range(int(self.among((0, 1, 2)))):
            box = RegionOfInterest(x_offset=self.number(2), y_offset=self.number(3), width=self.number(4), height=4)
            encoding = int(self.among((*MaskEncoding, 77)))
            data = self.bytes(int(self.among((0, 2, 8, 16)))) if self.is_wrong(0.5) else array.array("B", [0] * 16)
            message.instances.append(InstanceMask(id=5, area=self.number(3), box=box, encoding=encoding, data=data))
        return message


def drawn(count: int, make: Callable[[Chance], Any], read: Callable[[Any], Any]) -> Counter[str]:
    """Read so many; what is refused is told in one line, what is taken is of bounded size."""
    became: Counter[str] = Counter()
    for number in range(count):
        message = make(Chance(number))
        try:
            found = read(message)
        except ValueError as error:
            line = text_line(str(error))
            assert line and len(line) <= MAX_TEXT and "\n" not in line, (number, line)
            became["refused"] += 1
            continue
        except Exception as error:
            raise AssertionError(f"number {number}: {type(error).__name__}: {error}") from error
        assert isinstance(found, (int, tuple)) or found.nbytes <= MOST_BYTES, number
        became["taken"] += 1
    assert became["taken"] >= count // 20 and became["refused"] >= count // 20, became
    return became


def of_stream(message: Image) -> Any:
    """As the node reads an image."""
    check_frame_id(message.header.frame_id)
    pixels = image_to_rgb(message)
    return Frame(stamp_ns=stamp_to_ns(message.header.stamp), image=pixels).image


def seeded(message: Image) -> Any:
    """As the node reads a seed."""
    seed = seed_from_message(message, SIZE)
    assert seed.size == SIZE
    return IdBook().admit(seed, Config()).seed.ids


@DRAWN
@pytest.mark.parametrize(
    "read",
    [of_stream, labels_from_image, seeded, lambda message: depth_to_metres(message, 0.001)],
    ids=["image", "labels", "seed", "depth"],
)
def test_image_messages(count: int, read: Callable[[Any], Any]) -> None:
    labels = ("mono8", "mono16", "8UC1", "16UC1", "32SC1", "32FC1")
    drawn(count, lambda chance: chance.image(ENCODINGS if read is of_stream else labels), read)


@DRAWN
def test_compressed_messages(count: int) -> None:
    drawn(count, Chance.compressed, compressed_to_rgb)


@DRAWN
def test_requests(count: int) -> None:
    def read(request: Any) -> Any:
        seed, frame = seed_from_request(request, SIZE)
        assert frame is None or frame.size[0] * frame.size[1] <= MAX_PIXELS
        admitted = IdBook().admit(seed, Config()).seed
        assert not isinstance(admitted, Seed) and all(i >= 1 for i in admitted.ids)
        return admitted.ids

    drawn(count, Chance.request, read)


@DRAWN
def test_masks_that_others_send(count: int) -> None:
    def read(message: Any) -> Any:
        for instance in message.instances:
            full_mask(message, instance)
        return label_image(message)

    drawn(count, Chance.instances, read)


@DRAWN
def test_requests_that_are_taken_can_be_carried_out(count: int) -> None:
    """What passes the checks makes labels of the size of the image, or is refused as one thing."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    backend = GrabCut()

    def read(request: Any) -> Any:
        seed, _ = seed_from_request(request, SIZE)
        admitted: Any = IdBook().admit(seed, Config()).seed
        labels = admitted.cut(image, SIZE, backend).labels
        assert labels.shape == SIZE and set(np.unique(labels)) - {0} <= set(admitted.ids)
        return labels

    drawn(count, Chance.request, read)
