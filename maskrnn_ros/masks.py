# SPDX-License-Identifier: Apache-2.0
"""The crop masks of ``maskrnn_ros/msg/InstanceMask``: arrays to bytes and back, without ROS.

Who receives an ``InstanceMaskArray`` asks it for an instance, and that for what is needed:

    cup = find(message, 3)                      # None where it is not there
    full = full_mask(message, cup)              # bool (H, W)
    cutout = crop(image, cup, background=0)     # its part of an image, black around it

These read the fields of the message and need no ROS: a message that was read from a bag will do.

All encodings go row by row from the top left pixel; `InstanceMask.msg` defines them with a numpy recipe each.
"""

from __future__ import annotations

import array
import enum
from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.limits import check_size
from maskrnn_ros.types import BoolArray, LabelArray, UInt8Array

Data: TypeAlias = "bytes | bytearray | memoryview | array.array[int] | UInt8Array"
"""What holds the bytes of a mask: rclpy gives an array.array, rosbags an ndarray, ``encode`` bytes."""


class MaskEncoding(enum.IntEnum):
    """How the bytes hold the mask; the values are those of ``InstanceMask.encoding``."""

    NONE = 0
    MONO8 = 1
    BITS = 2
    RLE = 3
    PROB8 = 4


def encode(mask: BoolArray, probability: npt.NDArray[np.float32] | None, encoding: int) -> bytes:
    """Bytes of a crop mask, for ``InstanceMask.data``.

    >>> encode(np.array([[False, True, True]]), None, MaskEncoding.RLE).hex()
    '0100000002000000'

    Args:
        mask: bool, (h, w); any size, (0, 0) included.
        probability: float32, (h, w), in [0, 1]; read by PROB8 alone.
        encoding: A ``MaskEncoding`` or its value.

    Raises:
        ValueError: The mask is no bool (h, w), the encoding is unknown, or PROB8 is asked for without a
            probability of the mask's shape.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"mask must be bool (h, w), got {mask.dtype} {mask.shape}")
    match _known(encoding):
        case MaskEncoding.NONE:
            return b""
        case MaskEncoding.MONO8:
            return np.multiply(mask, 255, dtype=np.uint8).tobytes()
        case MaskEncoding.BITS:
            return np.packbits(mask).tobytes()
        case MaskEncoding.RLE:
            return _run_lengths(mask.ravel()).tobytes()
        case MaskEncoding.PROB8:
            if probability is None or probability.shape != mask.shape:
                got = "none" if probability is None else str(probability.shape)
                raise ValueError(f"PROB8 needs a probability of the mask's shape {mask.shape}, got {got}")
            return _quantized(mask, probability).tobytes()


def decode(data: Data, height: int, width: int, encoding: int) -> BoolArray:
    """Mask of the crop, bool (height, width).

    A message without a mask (NONE) is not one with an empty mask, so it is refused: check ``encoding`` first
    where NONE may come.

    >>> decode(bytes([0b1010_0000]), 1, 3, MaskEncoding.BITS)
    array([[ True, False,  True]])

    Args:
        data: ``InstanceMask.data``.
        height: Rows of the crop.
        width: Columns of the crop.
        encoding: A ``MaskEncoding`` or its value.

    Raises:
        ValueError: The encoding is NONE or unknown, the mask is larger than any image may be, the length of the data
            is wrong, or runs do not sum to height * width.
    """
    known = _known(encoding)
    if known != MaskEncoding.NONE:
        check_size(height, width, "mask")  # runs of some bytes may say any size
    match known:
        case MaskEncoding.NONE:
            raise ValueError("encoding NONE holds no mask to decode")
        case MaskEncoding.MONO8:
            return _plane(data, height, width, "MONO8").astype(np.bool_)
        case MaskEncoding.BITS:
            return _from_bits(data, height, width)
        case MaskEncoding.RLE:
            return _from_runs(data, height, width)
        case MaskEncoding.PROB8:
            return _plane(data, height, width, "PROB8") >= 128


def decode_probability(data: Data, height: int, width: int) -> npt.NDArray[np.float32]:
    """Probability of the crop, float32 (height, width) in [0, 1], from PROB8 data.

    It is exact to 1/510, except where the merge decided otherwise than 0.5 would: pixels of the mask are at
    least 128/255, all others at most 127/255.

    >>> decode_probability(bytes([0, 255]), 1, 2)
    array([[0., 1.]], dtype=float32)

    Args:
        data: ``InstanceMask.data`` with ``encoding`` PROB8.
        height: Rows of the crop.
        width: Columns of the crop.

    Raises:
        ValueError: The length of the data is not height * width.
    """
    return np.divide(_plane(data, height, width, "PROB8"), 255, dtype=np.float32)


def paste(mask: BoolArray, x: int, y: int, height: int, width: int) -> BoolArray:
    """Mask of the full image, bool (height, width): the crop at its place, False elsewhere.

    Args:
        mask: bool, (h, w): the crop.
        x: First column of the crop in the image.
        y: First row of the crop in the image.
        height: Rows of the image.
        width: Columns of the image.

    Raises:
        ValueError: The crop does not lie inside the image.
    """
    rows, columns = mask.shape
    _check_inside(rows, columns, x, y, height, width)
    full = np.zeros((height, width), np.bool_)
    full[y : y + rows, x : x + columns] = mask
    return full


def _check_inside(rows: int, columns: int, x: int, y: int, height: int, width: int) -> None:
    if x < 0 or y < 0 or x + columns > width or y + rows > height:
        raise ValueError(
            f"crop must lie inside the image, columns 0..{width} and rows 0..{height}, "
            f"got columns {x}..{x + columns} and rows {y}..{y + rows}"
        )


def find(message: Any, instance_id: int) -> Any | None:
    """The instance of that id in an InstanceMaskArray, whatever its state; None where it is not there.

    >>> from types import SimpleNamespace as Message
    >>> find(Message(instances=[Message(id=2), Message(id=7)]), 7).id
    7
    """
    return next((instance for instance in message.instances if instance.id == instance_id), None)


def mask_of(instance: Any) -> BoolArray:
    """Mask of an InstanceMask inside its box, bool (h, w); (0, 0) where the instance is not seen.

    >>> from types import SimpleNamespace as Message
    >>> box = Message(x_offset=0, y_offset=0, width=2, height=1)
    >>> mask_of(Message(area=1, box=box, encoding=MaskEncoding.MONO8, data=bytes([0, 255])))
    array([[False,  True]])

    Raises:
        ValueError: The data contradict the message, or the tracker was told to leave the masks out.
    """
    if not instance.area:
        return np.zeros((0, 0), np.bool_)
    if instance.encoding == MaskEncoding.NONE:
        raise ValueError("the message holds no masks: expected mask_encoding mono8, bits, rle or prob8, got none")
    return decode(instance.data, instance.box.height, instance.box.width, instance.encoding)


def full_mask(message: Any, instance: Any) -> BoolArray:
    """Mask of an instance in the image of its InstanceMaskArray, bool (H, W); all False where it is not seen.

    >>> from types import SimpleNamespace as Message
    >>> box = Message(x_offset=1, y_offset=0, width=1, height=1)
    >>> cup = Message(id=1, area=1, box=box, encoding=MaskEncoding.MONO8, data=bytes([255]))
    >>> full_mask(Message(image_height=1, image_width=3, instances=[cup]), cup)
    array([[False,  True, False]])

    Raises:
        ValueError: As in ``mask_of``, or the crop does not lie inside the image.
    """
    size = message.image_height, message.image_width
    check_size(*size)
    if not instance.area:
        return np.zeros(size, np.bool_)
    box = instance.box
    _check_inside(box.height, box.width, box.x_offset, box.y_offset, *size)
    return paste(mask_of(instance), box.x_offset, box.y_offset, *size)


def label_image(message: Any) -> LabelArray:
    """Ids by pixel of an InstanceMaskArray, int32 (H, W), 0 = background; what ``~/label_image`` shows.

    >>> from types import SimpleNamespace as Message
    >>> box = Message(x_offset=1, y_offset=0, width=1, height=1)
    >>> cup = Message(id=5, area=1, box=box, encoding=MaskEncoding.MONO8, data=bytes([255]))
    >>> label_image(Message(image_height=1, image_width=3, instances=[cup]))
    array([[0, 5, 0]], dtype=int32)

    Raises:
        ValueError: As in ``full_mask``.
    """
    check_size(message.image_height, message.image_width)
    labels: LabelArray = np.zeros((message.image_height, message.image_width), np.int32)
    for instance in message.instances:
        labels[full_mask(message, instance)] = instance.id
    return labels


def crop(image: npt.NDArray[Any], instance: Any, background: int | Sequence[int] | None = None) -> npt.NDArray[Any]:
    """An instance cut out of an image by its box, (h, w) or (h, w, C), a copy; no pixel where it is not seen.

    >>> from types import SimpleNamespace as Message
    >>> box = Message(x_offset=1, y_offset=0, width=2, height=1)
    >>> cup = Message(area=1, box=box, encoding=MaskEncoding.MONO8, data=bytes([0, 255]))
    >>> crop(np.array([[7, 8, 9]]), cup), crop(np.array([[7, 8, 9]]), cup, background=0)
    (array([[8, 9]]), array([[0, 9]]))

    Args:
        image: The image of the message, (H, W) or (H, W, C): colour, or depth of the same view.
        instance: InstanceMask.
        background: What pixels beside the mask become, a value or one for each channel; None leaves them.

    Raises:
        ValueError: The box does not lie inside the image, or as in ``mask_of`` if there is a background.
    """
    box, (height, width) = instance.box, image.shape[:2]
    right, bottom = box.x_offset + box.width, box.y_offset + box.height
    if right > width or bottom > height:
        raise ValueError(f"box must lie inside the image of {width}x{height} pixels, got its end at {right}, {bottom}")
    cutout: npt.NDArray[Any] = image[box.y_offset : bottom, box.x_offset : right].copy()
    if background is not None and instance.area:
        cutout[~mask_of(instance)] = background
    return cutout


def outlines(instance: Any) -> list[npt.NDArray[np.int32]]:
    """Outer contours of an InstanceMask, the largest first: int32 (n, 2), (x, y) of border pixels in the image.

    Holes are not in them, so a polygon made of them covers at least the mask.

    >>> from types import SimpleNamespace as Message
    >>> box = Message(x_offset=10, y_offset=20, width=3, height=2)
    >>> cup = Message(area=6, box=box, encoding=MaskEncoding.MONO8, data=bytes([255] * 6))
    >>> outlines(cup)[0].tolist()
    [[10, 20], [10, 21], [12, 21], [12, 20]]

    Raises:
        ValueError: As in ``mask_of``.
    """
    if not instance.area:
        return []
    found, _ = cv2.findContours(mask_of(instance).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    offset = np.array([instance.box.x_offset, instance.box.y_offset], np.int32)
    return [contour[:, 0] + offset for contour in sorted(found, key=cv2.contourArea, reverse=True)]


def _known(encoding: int) -> MaskEncoding:
    if encoding not in set(MaskEncoding):
        known = ", ".join(f"{item.value} ({item.name})" for item in MaskEncoding)
        raise ValueError(f"encoding must be one of {known}, got {encoding}")
    return MaskEncoding(encoding)


def _plane(data: Data, height: int, width: int, name: str) -> UInt8Array:
    """The bytes of an encoding that has one for each pixel, (height, width)."""
    found = np.frombuffer(data, np.uint8)
    if found.size != height * width:
        expected = f"{height} x {width} = {height * width}"
        raise ValueError(f"{name} data must hold {expected} bytes, got {found.size}")
    return found.reshape(height, width)


def _from_bits(data: Data, height: int, width: int) -> BoolArray:
    found = np.frombuffer(data, np.uint8)
    if found.size != (height * width + 7) // 8:
        expected = f"{(height * width + 7) // 8} bytes for {height} x {width} pixels"
        raise ValueError(f"BITS data must hold {expected}, got {found.size}")
    return np.unpackbits(found, count=height * width).reshape(height, width).view(np.bool_)


def _run_lengths(flat: BoolArray) -> npt.NDArray[np.uint32]:
    """Zeros and ones in turn, beginning with the zeros (perhaps 0); no run at all for no pixel."""
    if not flat.size:
        return np.zeros(0, "<u4")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # a mask that begins with a one begins with a run of no zeros: its first bound stands there twice
    start = (0, 0) if flat[0] else (0,)
    return np.diff(np.concatenate((start, changes, (flat.size,)))).astype("<u4")


def _from_runs(data: Data, height: int, width: int) -> BoolArray:
    """Runs of ENCODING_RLE, uint32, the first of them outside the mask, to a mask; refuses what does not sum up."""
    found = np.frombuffer(data, np.uint8)
    if found.size % 4:
        raise ValueError(f"RLE data must hold 4 bytes a run, got {found.size} bytes")
    runs = found.view("<u4")
    total = int(runs.sum(dtype=np.uint64))
    if total != height * width:
        raise ValueError(f"RLE runs must sum to {height} x {width} = {height * width} pixels, got {total}")
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(height, width)


def _quantized(mask: BoolArray, probability: npt.NDArray[np.float32]) -> UInt8Array:
    """Probability in 255ths, held to the side of 128 that the mask says."""
    levels: UInt8Array = np.rint(probability * np.float32(255)).astype(np.uint8)
    np.maximum(levels, 128, out=levels, where=mask)
    np.minimum(levels, 127, out=levels, where=~mask)
    return levels
