# SPDX-License-Identifier: Apache-2.0
"""Frames, label images, DAVIS sequences and videos on disk."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrnn_ros.disk import check_plain_name
from maskrnn_ros.types import LabelArray, UInt8Array

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
RESOLUTIONS = ("", "480p", "1080p", "Full-Resolution")
"""Folders that DAVIS may put between ``JPEGImages`` (or ``Annotations``) and the sequence."""


def frame_paths(folder: Path | str) -> tuple[Path, ...]:
    """Images of a folder in the order of their names; numbers count as numbers, so 9.jpg comes before 10.jpg.

    Raises:
        ValueError: No such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"expected a folder of images, found no folder {folder}")
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
    if not found:
        raise ValueError(f"expected images ({', '.join(FRAME_SUFFIXES)}) in {folder}, found none")
    return tuple(sorted(found, key=_natural))


def _natural(path: Path) -> list[str | int]:
    # odd places of the split are the digits, so that text is never compared with a number
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", path.name))]


def read_frame(path: Path | str) -> UInt8Array:
    """Read an image; like a CompressedImage of the same bytes it is not turned by its EXIF orientation.

    Returns:
        RGB, uint8, (H, W, 3).

    Raises:
        ValueError: The file is no image.
        OSError: The file cannot be read.
    """
    data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise ValueError(f"{path}: expected an image, found {data.size} bytes that are none")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(path: Path | str) -> LabelArray:
    """Read a label image: the indices of a palette image, the values of a grey one (8 or 16 bits).

    Returns:
        int32, (H, W), 0 = background.

    Raises:
        ValueError: The file is no image, or one of colours: those say nothing of ids.
        OSError: The file cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
                raise ValueError(f"{path}: expected an indexed or grey image of ids, found {image.mode}")
            return np.asarray(image).astype(np.int32)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:  # Pillow: not an image; cut short or damaged
        raise ValueError(f"{path}: expected an indexed or grey image of ids, found none: {error}") from error


def write_labels(path: Path | str, labels: npt.NDArray[np.integer]) -> None:
    """Write a label image: 8-bit PNG with the DAVIS palette where ids reach 255, 16-bit grey PNG above.

    Args:
        path: File to write, with the suffix .png.
        labels: Integers, (H, W), 0..65535.

    Raises:
        ValueError: Other suffix, shape, dtype or range.
        OSError: The file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"label images are written as .png, got {path}")
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers (H, W), got {labels.dtype} {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"ids of a label image must lie in 0..65535, got {low}..{high}")
    image = Image.fromarray(labels.astype(np.uint8 if high <= 255 else np.uint16))
    if high <= 255:
        image.putpalette(davis_palette().tobytes())
    image.save(path)


def davis_palette() -> UInt8Array:
    """The colours of DAVIS and PASCAL VOC: bits 0, 3, 6 of the id are the high bits of red, and so on.

    >>> davis_palette()[:4].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]

    Returns:
        RGB, uint8, (256, 3).
    """
    ids = np.arange(256)[:, None]
    bits = [((ids >> (3 * k + np.arange(3))) & 1) << (7 - k) for k in range(3)]
    return np.asarray(np.bitwise_or.reduce(bits), np.uint8)


def binary_as_instance(labels: LabelArray) -> LabelArray:
    """A map of only 0 and 255 (DAVIS-2016, most public results) as one of 0 and 1; any other as it is.

    Args:
        labels: int32, (H, W).

    Returns:
        int32, (H, W).
    """
    marked = labels != 0
    return marked.astype(np.int32) if (labels[marked] == 255).all() else labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class DavisSequence:
    """Files of one sequence in the layout of DAVIS.

    Args:
        name: Name of the sequence.
        frames: Its frames, in order.
        annotations: Its label images by the stem of their frame; not every frame need have one.
    """

    name: str
    frames: tuple[Path, ...]
    annotations: Mapping[str, Path]


def davis_sequence(root: Path | str, sequence: str, annotations: str = "Annotations") -> DavisSequence:
    """Find the frames and annotations of a sequence below ``JPEGImages`` and the annotations folder.

    Both may hold the sequence itself, or a folder ``480p``, ``1080p`` or ``Full-Resolution`` that holds it.

    Args:
        root: Folder of the data set.
        sequence: Name of the sequence, e.g. "bmx-trees".
        annotations: Folder of the label images, e.g. "Annotations_instances".

    Raises:
        ValueError: A folder is absent or empty, or an annotation has no frame.
    """
    frames = frame_paths(_sequence_folder(Path(root), "JPEGImages", sequence))
    labels = {path.stem: path for path in frame_paths(_sequence_folder(Path(root), annotations, sequence))}
    stray = sorted(labels.keys() - {path.stem for path in frames})
    if stray:
        found = f"{frames[0]} .. {frames[-1].name}"
        raise ValueError(f"{labels[stray[0]]}: expected a frame of that name, found {found}")
    return DavisSequence(name=sequence, frames=frames, annotations=labels)


def _sequence_folder(root: Path, kind: str, sequence: str) -> Path:
    check_plain_name(sequence, "sequence")
    candidates = [root / kind / resolution / sequence for resolution in RESOLUTIONS]
    for folder in candidates:
        if sequence and folder.is_dir():
            return folder
    parents = [root / kind / resolution for resolution in reversed(RESOLUTIONS)]
    parent = next((folder for folder in parents if folder.is_dir()), None)
    names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent else []
    found = f"in {parent}: {', '.join(names) or 'nothing'}" if parent else f"no folder {root / kind}"
    expected = " or ".join(map(str, candidates))
    raise ValueError(f"expected the sequence {sequence!r} at {expected}, found {found}")


def iterate_video(path: Path | str) -> tuple[Iterator[UInt8Array], float]:
    """Read a video file.

    Returns:
        Its frames one by one, RGB, uint8, (H, W, 3), and their rate, frames per second.

    Raises:
        ValueError: No such file, or one that OpenCV cannot read as a video with a frame rate.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a video file, found no file {path}")
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
    if not 0 < fps < 100_000:
        capture.release()
        raise ValueError(f"{path}: expected a video that OpenCV reads, found none (frame rate {fps:g})")
    return _frames_of(capture), fps


def _frames_of(capture: cv2.VideoCapture) -> Iterator[UInt8Array]:
    try:
        while True:
            is_read, image = capture.read()
            if not is_read:
                return
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


class VideoWriter:
    """Writes RGB frames to a video file; use it in a ``with`` statement.

    Args:
        path: File to write; the suffix names the container: .mp4, with VP80 .webm.
        fps: Frames per second.
        codec: Four characters. "mp4v" (MPEG-4) takes 5 ms for a 480p frame on one core, but browsers do not
            play it. "vp09" (VP9) plays in browsers too and takes 300 ms, "VP80" in a .webm 90 ms. H.264 is
            not in pip's OpenCV.

    Raises:
        ValueError: The frame rate or the codec is none.
    """

    def __init__(self, path: Path | str, fps: float, codec: str = "mp4v") -> None:
        if not 0 < fps < 100_000:
            raise ValueError(f"fps must be > 0 and < 100000, got {fps:g}")
        if len(codec) != 4:
            raise ValueError(f"codec must have four characters, got {codec!r}")
        self._path, self._fps, self._codec = Path(path), fps, codec
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, image: UInt8Array) -> None:
        """Append a frame; the codecs need even sizes, so an odd last row or column is left out.

        Args:
            image: RGB, uint8, (H, W, 3), all of one size.

        Raises:
            ValueError: Another dtype or shape than that, or than the first frame's.
            OSError: The file cannot be opened with this codec.
        """
        shape = image.shape
        if image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 2:
            raise ValueError(f"a frame must be uint8 (H, W, 3) of 2 x 2 or more, got {image.dtype} {shape}")
        height, width = shape[:2]
        if self._writer is None:
            self._size = (height, width)
            self._writer = self._open(height - height % 2, width - width % 2)
        if self._size != (height, width):
            raise ValueError(f"frames of {self._path} are {self._size}, got {(height, width)}")
        even = image[: height - height % 2, : width - width % 2]
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def _open(self, height: int, width: int) -> cv2.VideoWriter:
        fourcc = cv2.VideoWriter.fourcc(*self._codec)
        writer = cv2.VideoWriter(str(self._path), fourcc, self._fps, (width, height))
        if not writer.isOpened():
            known = "pip's OpenCV has mp4v and vp09 for .mp4, vp09 and VP80 for .webm"
            raise OSError(f"cannot write {self._path} with codec {self._codec}; {known}")
        return writer
