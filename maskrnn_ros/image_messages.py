# SPDX-License-Identifier: Apache-2.0
"""Images and times of ROS messages to arrays and back, in numpy and OpenCV.

The functions read attributes only, so they take the messages of rclpy and those of rosbags alike; no ROS
package is imported. They honour ``step`` and ``is_bigendian`` and refuse a message that contradicts itself
with a ValueError of one line.

Not by cv_bridge: pip has none with its C++ part, it refuses 8UC1, 8UC3 and 16UC1 as colour, does not know uyvy and
yuyv, and fails on big-endian images with NumPy 2. What both read is equal to the last bit (``test_cv_bridge.py``).

Where the source allows it the result is a view of the message's buffer: treat it as read-only, and do not
resize the buffer while the result lives.
"""

from __future__ import annotations

import array
import dataclasses
import re
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.image_header import check_encoded
from maskrnn_ros.limits import check_size, quoted
from maskrnn_ros.timeline import NS_PER_S as NS_PER_S
from maskrnn_ros.types import LabelArray, UInt8Array


class ImageMessage(Protocol):
    """What is read of a sensor_msgs/Image; ``data`` gives its bytes through the buffer protocol."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def encoding(self) -> str:
        """Name of the pixel format."""

    @property
    def is_bigendian(self) -> int:
        """1 where samples of more than one byte have the high byte first."""

    @property
    def step(self) -> int:
        """Bytes from one row to the next."""

    @property
    def data(self) -> Any:
        """array.array, bytes or ndarray of uint8, at least step * height of them."""


class CompressedImageMessage(Protocol):
    """What is read of a sensor_msgs/CompressedImage."""

    @property
    def format(self) -> str:
        """Codec, perhaps with the encodings before and after it: "jpeg", "rgb8; png compressed bgr8"."""

    @property
    def data(self) -> Any:
        """array.array, bytes or ndarray of uint8."""


class StampMessage(Protocol):
    """What is read of a builtin_interfaces/Time."""

    @property
    def sec(self) -> int:
        """Seconds."""

    @property
    def nanosec(self) -> int:
        """Nanoseconds beyond the seconds, 0 .. 999999999."""


@dataclasses.dataclass(frozen=True)
class _Format:
    """Layout of a pixel, and OpenCV's code for its way to RGB (None: it is RGB)."""

    dtype: type[np.generic]
    channels: int
    to_rgb: int | None


# OpenCV names a Bayer pattern by the second and third pixel of the second row, ROS by the first two of the
# first row: hence RGGB is BayerBG, and so on round.
_BAYER = {
    "bayer_rggb8": _Format(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Format(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Format(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Format(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
}
_BAYER |= {name[:-1] + "16": _Format(np.uint16, 1, known.to_rgb) for name, known in list(_BAYER.items())}
_YUV422 = {
    "yuv422": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    # the names that sensor_msgs gives the same two from Iron on
    "uyvy": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}
_IMAGES = {
    "rgb8": _Format(np.uint8, 3, None),
    "bgr8": _Format(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": _Format(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Format(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Format(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Format(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Format(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Format(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Format(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "16UC1": _Format(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Format(np.uint16, 3, None),
    "bgr16": _Format(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "16UC3": _Format(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": _Format(np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": _Format(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "16UC4": _Format(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    **_BAYER,
    **_YUV422,
}
_LABELS = {
    "mono8": _Format(np.uint8, 1, None),
    "8UC1": _Format(np.uint8, 1, None),
    "mono16": _Format(np.uint16, 1, None),
    "16UC1": _Format(np.uint16, 1, None),
    "32SC1": _Format(np.int32, 1, None),
}
_IGNORED = {name: _LABELS[name] for name in ("mono8", "8UC1")}
_DEPTHS = {"16UC1": _Format(np.uint16, 1, None), "32FC1": _Format(np.float32, 1, None)}
_LABEL_DTYPES: dict[str, type[np.uint8 | np.uint16]] = {"mono8": np.uint8, "mono16": np.uint16}


def image_to_rgb(msg: ImageMessage, depth: BitDepth | None = None) -> UInt8Array:
    """RGB image of a sensor_msgs/Image.

    8UC3 and 8UC4 are read as bgr8 and bgra8, 8UC1 as mono8, 16UC1, 16UC3 and 16UC4 as mono16, bgr16 and bgra16;
    alpha is dropped. 16 bits become 8 by the depth that the stream has, see ``BitDepth``; with 16 that is value / 257,
    rounded to the nearest, so that 65535 is 255. Bayer is interpolated bilinearly, yuv422 is BT.601.

    Args:
        msg: The message.
        depth: Of the stream; None: of this image alone.

    Returns:
        uint8, (H, W, 3), C-contiguous; for rgb8 without padded rows a view of ``msg.data``.

    Raises:
        ValueError: The encoding is unknown, the size is zero, the step is smaller than a row, the data is
            shorter than step * height, a yuv422 width is odd, or a Bayer image is smaller than 3 x 3.
    """
    pixels = _pixels(msg, _IMAGES)
    if msg.encoding in _YUV422 and msg.width % 2:
        raise ValueError(f"{msg.encoding} needs an even width, got {msg.width}")
    return _to_rgb(pixels, msg.encoding, depth)


def compressed_to_rgb(msg: CompressedImageMessage, depth: BitDepth | None = None) -> UInt8Array:
    """RGB image of a sensor_msgs/CompressedImage, JPEG or PNG (or what else this OpenCV decodes).

    The file's own header says how it is to be decoded, and its pixels are taken as they are stored: 16 bits
    become 8 as in ``image_to_rgb``, alpha is dropped, EXIF rotation is not applied. ``format`` is heeded as
    compressed_image_transport's subscriber does: of "<encoding>; <codec> compressed <stored encoding>"

    * a colour encoding without "compressed bgr" says that the file holds red and blue exchanged;
    * a Bayer encoding says that a file of one channel holds the mosaic, unless it was stored as mono8.

    A JPEG that was cut short is decoded as far as it goes; OpenCV tells nobody.

    Args:
        msg: The message.
        depth: As of ``image_to_rgb``.

    Returns:
        uint8, (H, W, 3), C-contiguous.

    Raises:
        ValueError: The data cannot be decoded, or not to 1, 3 or 4 channels of 8 or 16 bits.
    """
    stored = _decoded(msg)
    encoding, _, codec = msg.format.partition(";")
    if stored.ndim == 2:
        is_mosaic = encoding in _BAYER and codec and "compressed mono" not in codec
        return _to_rgb(stored, encoding if is_mosaic else "mono8", depth)
    is_color = encoding.startswith(("rgb", "bgr"))
    is_rgb = is_color and codec and "compressed bgr" not in codec
    return _to_rgb(stored, {3: "rgb8", 4: "rgba8"}[stored.shape[2]] if is_rgb else f"8UC{stored.shape[2]}", depth)


def labels_from_image(msg: ImageMessage) -> LabelArray:
    """Label map of a seed mask or ground truth image: the values are ids, not grey levels.

    Whether it is one is for ``labels.check_labels`` to say.

    Args:
        msg: sensor_msgs/Image in mono8, 8UC1, mono16, 16UC1 or 32SC1. Negative ids of 32SC1 are passed on:
            ``types.Seed`` refuses them.

    Returns:
        int32, (H, W), C-contiguous.

    Raises:
        ValueError: Another encoding, or a message that contradicts itself as in ``image_to_rgb``.
    """
    return _pixels(msg, _LABELS).astype(np.int32)


def ignore_pixels(msg: ImageMessage) -> UInt8Array:
    """Pixels of an ignore mask: nonzero where no object can be.

    Args:
        msg: sensor_msgs/Image in mono8 or 8UC1.

    Returns:
        uint8, (H, W), C-contiguous; without padded rows a view of ``msg.data``.

    Raises:
        ValueError: Another encoding, or a message that contradicts itself as in ``image_to_rgb``.
    """
    pixels: UInt8Array = _pixels(msg, _IGNORED)
    return pixels


def depth_to_metres(msg: ImageMessage, unit: float) -> npt.NDArray[np.float32]:
    """Depth of a sensor_msgs/Image, REP 118: 16UC1 in steps of ``unit``, or 32FC1 in metres.

    Args:
        msg: The message.
        unit: Metres in one step of 16UC1, usually 0.001.

    Returns:
        float32, (H, W), metres; what is missing stays what it was: 0, NaN or infinite.

    Raises:
        ValueError: Another encoding, or a message that contradicts itself as in ``image_to_rgb``.
    """
    pixels = _pixels(msg, _DEPTHS)
    return pixels if pixels.dtype == np.float32 else np.multiply(pixels, unit, dtype=np.float32)


def label_image_data(labels: LabelArray, encoding: str) -> npt.NDArray[np.uint8 | np.uint16]:
    """The pixels of a label image, for ``fill_image``.

    >>> label_image_data(np.array([[0, 300]], np.int32), "mono16")
    array([[  0, 300]], dtype=uint16)

    Args:
        labels: int32, (H, W): ids, 0 = background.
        encoding: "mono8" (ids up to 255) or "mono16" (up to 65535).

    Returns:
        uint8 or uint16, (H, W).

    Raises:
        ValueError: Another encoding, or an id that it cannot hold.
    """
    if encoding not in _LABEL_DTYPES:
        raise ValueError(f"label image encoding must be one of {_names(_LABEL_DTYPES)}, got {encoding!r}")
    dtype = _LABEL_DTYPES[encoding]
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > np.iinfo(dtype).max:
        raise ValueError(f"{encoding} holds ids 0..{np.iinfo(dtype).max}, got {low}..{high}")
    return labels.astype(dtype)


def fill_image(msg: Any, pixels: npt.NDArray[Any], encoding: str) -> None:
    """Write an array into a sensor_msgs/Image: all fields but the header, without padding, little endian.

    The bytes go through an ``array.array``: rclpy takes it as it is (0.4 ms at 1080p), but checks an ndarray
    value by value (431 ms).

    Args:
        msg: The message to fill.
        pixels: (H, W) or (H, W, channels) of the encoding's dtype.
        encoding: One that ``image_to_rgb`` or ``labels_from_image`` reads.

    Raises:
        ValueError: The encoding is unknown, or the array does not fit it.
    """
    known = _IMAGES | _LABELS
    if encoding not in known:
        raise ValueError(f"encoding must be one of {_names(known)}, got {encoding!r}")
    expected = known[encoding]
    channels = () if expected.channels == 1 else (expected.channels,)
    fits = pixels.dtype == expected.dtype and pixels.ndim == 2 + len(channels)
    if not fits or pixels.shape[2:] != channels or not pixels.size:
        shape = ", ".join(["H", "W", *map(str, channels)])
        wanted = f"{expected.dtype.__name__} ({shape})"
        raise ValueError(f"{encoding} needs an array of {wanted}, got {pixels.dtype} {pixels.shape}")
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data.cast("B"))
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = msg.width * expected.channels * pixels.itemsize
    msg.data = data


def stamp_to_ns(stamp: StampMessage) -> int:
    """Time of a builtin_interfaces/Time in integer ns.

    Args:
        stamp: ``header.stamp`` or the like.

    Raises:
        ValueError: The seconds are negative, or the nanoseconds a second or more.
    """
    if stamp.sec < 0:
        raise ValueError(f"stamp.sec must be >= 0, got {stamp.sec}")
    if not 0 <= stamp.nanosec < NS_PER_S:
        raise ValueError(f"stamp.nanosec must lie in 0..{NS_PER_S - 1}, got {stamp.nanosec}")
    return stamp.sec * NS_PER_S + stamp.nanosec


def ns_to_stamp(stamp_ns: int, stamp: Any) -> None:
    """Write a time into a builtin_interfaces/Time.

    Args:
        stamp_ns: Time, ns, below 2**31 s.
        stamp: The message to fill.

    Raises:
        ValueError: The time does not fit the message.
    """
    if not 0 <= stamp_ns < 2**31 * NS_PER_S:
        raise ValueError(f"stamp must lie in 0..{2**31 * NS_PER_S - 1} ns, got {stamp_ns}")
    stamp.sec, stamp.nanosec = divmod(stamp_ns, NS_PER_S)


def _pixels(msg: ImageMessage, known: dict[str, _Format]) -> npt.NDArray[Any]:
    """Pixels of the message as sent, (H, W) or (H, W, channels), contiguous, native; a view if possible."""
    if msg.encoding not in known:
        raise ValueError(f"encoding must be one of {_names(known)}, got {quoted(msg.encoding)}")
    if msg.height < 1 or msg.width < 1:
        raise ValueError(f"image must have at least 1 x 1 pixel, got height {msg.height}, width {msg.width}")
    check_size(msg.height, msg.width)
    layout = known[msg.encoding]
    dtype = np.dtype(layout.dtype)
    row_bytes = msg.width * layout.channels * dtype.itemsize
    if msg.step < row_bytes:
        raise ValueError(f"step of {msg.width} pixels {msg.encoding} must be >= {row_bytes}, got {msg.step}")
    if len(msg.data) < msg.step * msg.height:
        expected = f"{msg.step} x {msg.height} = {msg.step * msg.height}"
        raise ValueError(f"data must hold step x height = {expected} bytes, got {len(msg.data)}")
    rows = np.frombuffer(msg.data, np.uint8, count=msg.step * msg.height).reshape(msg.height, msg.step)
    sent_dtype = dtype.newbyteorder(">" if msg.is_bigendian else "<")
    sent = np.ascontiguousarray(rows[:, :row_bytes]).view(sent_dtype)
    # no copy where the samples are native already and aligned as OpenCV needs them
    samples: npt.NDArray[Any] = np.require(sent, dtype, ["C", "A"])
    return samples if layout.channels == 1 else samples.reshape(msg.height, msg.width, layout.channels)


def _decoded(msg: CompressedImageMessage) -> npt.NDArray[Any]:
    """Pixels of the file as OpenCV stores them: grey, BGR or BGRA of 8 or 16 bits."""
    buffer = np.frombuffer(msg.data, np.uint8)
    refusal = f"cannot decode CompressedImage of format {quoted(msg.format)} with {buffer.size} bytes"
    if not check_encoded(buffer, "CompressedImage"):
        raise ValueError(refusal)
    try:
        stored: npt.NDArray[Any] | None = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(refusal) from error
    if stored is None:
        raise ValueError(refusal)
    if stored.dtype not in (np.uint8, np.uint16) or stored.shape[2:] not in ((), (3,), (4,)):
        wanted = "1, 3 or 4 channels of 8 or 16 bits"
        raise ValueError(f"CompressedImage must decode to {wanted}, got {stored.dtype} {stored.shape}")
    return stored


def _to_rgb(pixels: npt.NDArray[Any], encoding: str, depth: BitDepth | None) -> UInt8Array:
    """RGB of pixels in the layout of an encoding, of 8 or 16 bits."""
    if encoding in _BAYER and min(pixels.shape) < 3:
        # OpenCV would return black
        raise ValueError(f"{encoding} needs at least 3 x 3 pixels, got {pixels.shape[0]} x {pixels.shape[1]}")
    pixels = (depth or BitDepth()).to_8(pixels)
    code = _IMAGES[encoding].to_rgb
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _names(known: dict[str, Any]) -> str:
    """The encodings, mosaics in short: what was got must not be cut off in a status."""
    return ", ".join(dict.fromkeys(re.sub("bayer_[a-z]+", "bayer_*", name) for name in known))
