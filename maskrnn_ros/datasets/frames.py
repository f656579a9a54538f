# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: a folder of images, a video file, the image topic of a bag (``bags.frames``).

Every source knows how many frames there are, numbers them by their position in the video, not by the order in which
they could be decoded, and gives them one size.
"""

from __future__ import annotations

import abc
import io
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from maskrnn_ros.bit_depth import BitDepth, scale_to_8
from maskrnn_ros.disk import regular_file
from maskrnn_ros.image_header import check_encoded, read_encoded
from maskrnn_ros.limits import check_fps
from maskrnn_ros.types import UInt8Array

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

FPS = 24.0
"""Frames per second of DAVIS and of other folders of images, which do not say."""

_EXIF_ORIENTATION = 0x0112


class FrameSource(abc.ABC):
    """Frames by number, from 0; those that are lost have a number, too.

    Args:
        fps: Frames per second.
        lost: Numbers of the frames that cannot be had.
    """

    def __init__(self, fps: float, lost: Sequence[int] = ()) -> None:
        check_fps(fps)
        self.fps = fps
        self.lost = tuple(lost)
        self._size: tuple[int, int] | None = None

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many frames there are, the lost ones included."""

    @abc.abstractmethod
    def stem(self, number: int) -> str:
        """Name of the frame, for the file of its mask."""

    @abc.abstractmethod
    def place(self, number: int) -> str:
        """Where the frame comes from, for people."""

    @abc.abstractmethod
    def _read(self, number: int) -> UInt8Array:
        """The frame as it is found, RGB, uint8 (H, W, 3)."""

    @property
    def numbers(self) -> list[int]:
        """Numbers of the frames that can be had, ascending."""
        lost = set(self.lost)
        return [number for number in range(len(self)) if number not in lost]

    def stamp_ns(self, number: int) -> int:
        """Stamp of the frame, ns, > 0: its position at the frame rate."""
        return round((number + 1) * 1e9 / self.fps)

    def image(self, number: int) -> UInt8Array:
        """The frame, RGB, uint8 (H, W, 3).

        Raises:
            ValueError: It cannot be decoded, or has another size than the first one read.
        """
        image = self._read(number)
        size = image.shape[0], image.shape[1]
        if self._size is None:
            self._size = size
        check_size(self.place(number), size, "the frames before", self._size)
        return image


class FolderFrames(FrameSource):
    """The images of a folder.

    Args:
        paths: The files, in order.
        fps: Frames per second.
        mono16_bits: How images of 16 bits are read, see ``BitDepth``.
        begin: Number of the first frame that will be read.
    """

    def __init__(self, paths: Sequence[Path], *, fps: float = FPS, mono16_bits: str = "auto", begin: int = 0) -> None:
        super().__init__(fps)
        self.paths = tuple(paths)
        self._depth = BitDepth(mono16_bits)
        self._bits = [0] * begin  # of each frame so far: as a stream has it that begins there

    @staticmethod
    def of(folder: Path | str, *, fps: float = FPS, mono16_bits: str = "auto") -> FolderFrames:
        """The images of this folder, see ``frame_paths``; their sizes are compared before any is decoded.

        Raises:
            ValueError: No such folder, no image in it, or images of several sizes.
        """
        source = FolderFrames(frame_paths(folder), fps=fps, mono16_bits=mono16_bits)
        source.check()
        return source

    def __len__(self) -> int:
        """See ``FrameSource``."""
        return len(self.paths)

    def stem(self, number: int) -> str:
        """See ``FrameSource``."""
        return self.paths[number].stem

    def place(self, number: int) -> str:
        """See ``FrameSource``."""
        return str(self.paths[number])

    def check(self) -> tuple[int, int]:
        """Compare the sizes that the files' headers tell; returns (H, W).

        Raises:
            ValueError: They differ, or a file is no image.
        """
        sizes = [_header_size(path) for path in self.paths]
        for path, size in zip(self.paths, sizes, strict=True):
            check_size(path, size, self.paths[0], sizes[0])
        return sizes[0]

    def stored(self, number: int) -> npt.NDArray[np.uint8 | np.uint16]:
        """The frame with the depth of its file, upright: uint8 (H, W, 3) RGB, or uint16 (H, W) or (H, W, 3) RGB."""
        return _decoded(self.paths[number])

    def _read(self, number: int) -> UInt8Array:
        pixels = self.stored(number)
        if pixels.dtype != np.uint16:
            return np.asarray(pixels, np.uint8)
        while len(self._bits) <= number:
            earlier = len(self._bits)
            stored = pixels if earlier == number else self.stored(earlier)
            self._bits.append(self._depth.observe(stored) if stored.dtype == np.uint16 else 0)
        return _as_rgb(scale_to_8(pixels, self._bits[number]))


def read_frame(path: Path | str, mono16_bits: str = "auto") -> UInt8Array:
    """Read one image, turned as its EXIF orientation says.

    (A CompressedImage of the same bytes is not turned: camera_info and every other reader of a topic mean its pixels as
    they are stored.)

    Returns:
        RGB, uint8, (H, W, 3).

    Raises:
        ValueError: The file is no image.
        OSError: The file cannot be read.
    """
    return _as_rgb(BitDepth(mono16_bits).to_8(_decoded(Path(path))))


def frame_paths(folder: Path | str) -> tuple[Path, ...]:
    """Images of a folder in the order of their names; numbers count as numbers, so 9.jpg comes before 10.jpg.

    A number with one point is a decimal, 0.45 before 0.5, unless what follows the points counts up from one image to
    the next (a.9, a.10). Hidden files are none of them, nor are the ``._`` files of macOS.

    Raises:
        ValueError: No such folder, no image in it, or two images of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"expected a folder of images, found no folder {folder}")
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != "."]
    if not found:
        raise ValueError(f"expected images ({', '.join(FRAME_SUFFIXES)}) in {folder}, found none")
    by_stem: dict[str, Path] = {}
    for path in sorted(found):
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(f"{folder}: expected one image of a name, found {other.name} and {path.name}")
    counting = _counts_up([path.stem for path in found])
    return tuple(sorted(found, key=lambda path: (_natural(path.name, counting), path.name)))


def _counts_up(stems: Sequence[str]) -> bool:
    """Whether the digits after a point are numbers of their own: without gaps, and none begins with 0."""
    after = [match[1] for stem in stems if (match := re.search(r"\d\.(\d+)$", stem))]
    numbers = sorted(int(digits) for digits in after)
    plain = all(digits == str(int(digits)) for digits in after)
    return plain and len(after) == len(stems) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _natural(name: str, counting: bool) -> list[str | tuple[Decimal, ...]]:
    # odd places of the split are the numbers, so that text is never compared with one
    def number(text: str) -> tuple[Decimal, ...]:
        parts = text.split(".")
        return (Decimal(text),) if len(parts) == 2 and not counting else tuple(map(Decimal, parts))

    return [number(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+(?:\.\d+)*)", name))]


def check_size(path: Path | str, found: tuple[int, ...], other: Path | str, expected: tuple[int, ...]) -> None:
    """Refuse an image of another size than it should have.

    Raises:
        ValueError: The sizes (H, W) differ.
    """
    if tuple(found) != tuple(expected):
        raise ValueError(f"{path}: expected {expected[1]}x{expected[0]} like {other}, found {found[1]}x{found[0]}")


def orientation_of(data: bytes) -> int:
    """How an image file is to be turned, by EXIF: 1, upright, to 8."""
    if b"Exif" not in data and b"eXIf" not in data:  # most have none, and Pillow would decode a PNG to find out
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):
        return 1
    return int(found) if found in range(1, 9) else 1


def _turned(pixels: npt.NDArray[np.uint8 | np.uint16], orientation: int) -> npt.NDArray[np.uint8 | np.uint16]:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _header_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image as its header and its EXIF orientation tell."""
    data = regular_file(path).read_bytes()
    check_encoded(data, str(path))
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: expected an image, found {len(data)} bytes that are none") from error
    return (width, height) if orientation_of(data) >= 5 else (height, width)


def _decoded(path: Path) -> npt.NDArray[np.uint8 | np.uint16]:
    """Pixels, upright: uint8 (H, W, 3) RGB, or uint16 (H, W) or (H, W, 3) RGB."""
    data = read_encoded(path)
    buffer = np.frombuffer(data, np.uint8)
    deep = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(buffer, deep | cv2.IMREAD_COLOR) if buffer.size else None
    if image is not None and image.dtype == np.uint16:
        image = cv2.imdecode(buffer, deep | cv2.IMREAD_ANYCOLOR)  # grey stays grey
    if image is None or image.dtype not in (np.uint8, np.uint16):
        kind = f"{buffer.size} bytes that are none" if image is None else f"pixels of {image.dtype}"
        raise ValueError(f"{path}: expected an image, found {kind}")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    orientation = orientation_of(data)
    return np.asarray(image) if orientation == 1 else _turned(np.asarray(image), orientation)


def _as_rgb(pixels: UInt8Array) -> UInt8Array:
    return pixels if pixels.ndim == 3 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
