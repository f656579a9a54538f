# SPDX-License-Identifier: Apache-2.0
"""Video files: frames by their position, also where some are damaged, and a writer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from maskrnn_ros.datasets.frames import FrameSource
from maskrnn_ros.limits import check_fps
from maskrnn_ros.types import UInt8Array

_FASTEST = 1000.0
"""Frames per second that a file is believed; above it tells the unit of its clock, 90000 or the like."""

_PATIENCE = 50
"""Packets in a row that may be damaged before what is left of a file is given up."""

_ROUNDED = 0.05
"""By how much the rate of the header may differ from that of the times, which are whole ms in some files."""

_ODD = 0.3
"""By how much of a period a frame's time may differ from its position."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scan:
    """What a first pass over a file found.

    Args:
        times_ms: Time of each frame that can be decoded, ms.
        count: Frames by the header; None where it does not say.
        fps: Frames per second by the header.
        has_times: Frames have times of their own; an AVI counts those that it finds.
        is_counted: The count is one of an index, not an estimate by the duration.
    """

    times_ms: tuple[float, ...]
    count: int | None
    fps: float
    has_times: bool
    is_counted: bool


class VideoFrames(FrameSource):
    """The frames of a video file, read one after another.

    A first pass, in which nothing is converted, counts them: what a damaged file lost is known before any work is done.
    Frames are numbered by their times, so those after a hole keep their numbers.

    Args:
        path: The file.
        fps: Frames per second; None: as the file says.
        allow_gaps: Take a file of which frames are lost.

    Raises:
        ValueError: No such file, no video, no frame rate, or frames are lost.
    """

    def __init__(self, path: Path | str, *, fps: float | None = None, allow_gaps: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"expected a folder of images or a video file, found no file {path}")
        scan = _scan(self.path)
        self._times_ms = scan.times_ms
        positions, count = _positions(self.path, scan)
        self._place_of = {position: place for place, position in enumerate(positions)}
        self._count = count
        lost = sorted(set(range(count)) - set(positions))
        if lost and not allow_gaps:
            raise ValueError(
                f"{path}: expected {count} frames, {len(positions)} can be decoded; lost are {ranges(lost)}; "
                "--allow-gaps takes the others"
            )
        super().__init__(_rate(self.path, scan) if fps is None else fps, lost)
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def __len__(self) -> int:
        """See ``FrameSource``."""
        return self._count

    def stem(self, number: int) -> str:
        """See ``FrameSource``."""
        return f"{number:05d}"

    def place(self, number: int) -> str:
        """See ``FrameSource``."""
        return f"frame {number} of {self.path}"

    def _read(self, number: int) -> UInt8Array:
        place = self._place_of.get(number)
        if place is None:
            raise ValueError(f"{self.place(number)} is lost")
        if self._capture is None or place < self._next:
            self.close()
            self._capture, self._next = _opened(self.path), 0
        while True:
            misses = 0
            while not self._capture.grab():
                misses += 1
                if misses > _PATIENCE:
                    raise ValueError(f"{self.place(number)}: expected to be decoded as at the first pass, found none")
            self._next += 1
            if self._next > place:
                break
        time_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        is_read, image = self._capture.retrieve()
        if not is_read or time_ms != self._times_ms[place]:
            expected = f"expected at {self._times_ms[place]:.1f} ms as at the first pass"
            raise ValueError(f"{self.place(number)}: {expected}, found {f'{time_ms:.1f} ms' if is_read else 'none'}")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Close the file; it is opened again when a frame is asked for."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def ranges(numbers: list[int]) -> str:
    """Ascending numbers in short.

    >>> ranges([3, 4, 5, 9])
    '3..5, 9'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}..{b}" if a < b else f"{a}" for a, b in parts)


def _opened(path: Path) -> cv2.VideoCapture:
    # an absolute path: FFmpeg takes what stands before a colon in a relative one for a protocol
    capture = cv2.VideoCapture(str(path.absolute()))
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"{path}: expected a video that OpenCV reads, found none")
    return capture


def _scan(path: Path) -> _Scan:
    """Go through all frames without decoding them: which there are, and when."""
    capture = _opened(path)
    header = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    count = int(header) if 0 < header < 2**31 else None
    times: list[float] = []
    misses = 0
    while misses <= _PATIENCE:
        if capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
            misses = 0
        elif count is None or len(times) >= count:
            break
        else:
            misses += 1  # a damaged packet: frames may follow
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if not times:
        raise ValueError(f"{path}: expected a video, found no frame in it that can be decoded")
    with path.open("rb") as file:
        begin = file.read(12)
    is_avi = begin[:4] == b"RIFF" and begin[8:] == b"AVI "
    return _Scan(
        times_ms=tuple(times), count=count, fps=fps, has_times=not is_avi, is_counted=is_avi or begin[4:8] == b"ftyp"
    )


def _rate(path: Path, scan: _Scan) -> float:
    """Frames per second: what the header says, or else the times of the frames."""
    for rate in (scan.fps, _native_rate(scan)):
        if 0 < rate <= _FASTEST:
            return rate
    raise ValueError(f"{path}: expected a frame rate up to {_FASTEST:g} per second, found {scan.fps:g}; give --fps")


def _native_rate(scan: _Scan) -> float:
    """Frames per second by the usual time between two frames; 0 where their times do not tell."""
    steps = np.diff(scan.times_ms)
    step = float(np.median(steps)) if steps.size else 0.0
    return 1e3 / step if step > 0 else 0.0


def _positions(path: Path, scan: _Scan) -> tuple[list[int], int]:
    """The number of every frame that can be decoded, and how many there are with those that are lost.

    Raises:
        ValueError: Frames are lost, and it cannot be told which.
    """
    found, count = len(scan.times_ms), scan.count
    in_order = list(range(found))
    if count is not None and found >= count:
        return in_order, found
    rate = _native_rate(scan)
    if not rate or abs(scan.fps / rate - 1) < _ROUNDED:
        rate = scan.fps
    exact = np.array(scan.times_ms) * rate / 1e3
    by_time = np.rint(exact).astype(int)
    is_regular = bool((np.diff(by_time) > 0).all() and (np.abs(exact - by_time) < _ODD).all())
    if count is None:
        return (by_time.tolist(), int(by_time[-1]) + 1) if is_regular else (in_order, found)
    if scan.has_times and is_regular and by_time[-1] < count:
        is_whole = by_time[-1] == found - 1
        if is_whole and not scan.is_counted and count - found == 1:
            return in_order, found  # a count by the duration may be one too many
        return by_time.tolist(), count
    reason = "its frames come at irregular times" if scan.has_times else "an AVI has no times of its frames"
    raise ValueError(
        f"{path}: expected {count} frames, {found} can be decoded, and which ones are lost cannot be told: {reason}"
    )


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
        check_fps(fps)
        if len(codec) != 4:
            raise ValueError(f"codec must have four characters, got {codec!r}")
        self._path, self._fps, self._codec = Path(path), fps, codec
        self._part = self._path.with_name(f".{self._path.stem}.part{self._path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if error is not None and isinstance(error, Exception):  # after Ctrl-C there is the video so far
            self._part.unlink(missing_ok=True)
            return
        whole = cv2.VideoCapture(str(self._part.absolute()))
        is_whole = whole.isOpened()
        whole.release()
        if not is_whole:  # OpenCV tells nobody that the disk is full
            self._part.unlink(missing_ok=True)
            raise OSError(f"cannot write {self._path}: what was written is no video; is the disk full?")
        self._part.replace(self._path)

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
        writer = cv2.VideoWriter(str(self._part.absolute()), fourcc, self._fps, (width, height))
        if not writer.isOpened():
            if not self._path.parent.is_dir():
                raise OSError(f"cannot write {self._path}: there is no folder {self._path.parent}")
            known = "pip's OpenCV has mp4v and vp09 for .mp4, vp09 and VP80 for .webm"
            raise OSError(f"cannot write {self._path} with codec {self._codec} at {self._fps:g} fps; {known}")
        return writer
