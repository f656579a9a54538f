# SPDX-License-Identifier: Apache-2.0
"""The tracker over files: frames and a seed mask in, label images and an overlay video out."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
from PIL import Image
from tqdm import tqdm

from maskrnn_ros.config import Config
from maskrnn_ros.datasets.frames import FPS, FolderFrames, FrameSource
from maskrnn_ros.datasets.ignore_folder import IgnoreFolder
from maskrnn_ros.datasets.video import VideoFrames, VideoWriter
from maskrnn_ros.labels import davis_palette, read_labels, write_labels
from maskrnn_ros.overlay import overlay_tracks
from maskrnn_ros.prompts import Prompt, build_prompts
from maskrnn_ros.runtime import set_threads
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.prompted import PromptedInstance, PromptSeed
from maskrnn_ros.types import Frame, Seed, UInt8Array

OVERLAY_NAME = "overlay.mp4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackReport:
    """What ``track_files`` did.

    Args:
        frames: Frames tracked.
        ids: Instances of the seed.
        ms_per_frame: Mean time inside the tracker, milliseconds.
        final_states: State of each instance on the last frame, by id.
        lost: Numbers of the frames that could not be decoded, those of a video.
        overlay_error: Why there is no overlay video, or not all of it; empty where there is.
        ignored: Frames tracked that have an ignore mask.
    """

    frames: int
    ids: tuple[int, ...]
    ms_per_frame: float
    final_states: dict[int, str]
    lost: tuple[int, ...] = ()
    overlay_error: str = ""
    ignored: int = 0


def track_files(
    frames: Path,
    marked: Path | Prompt,
    out: Path,
    config: Config,
    *,
    fps: float | None = None,
    overwrite: bool = False,
    allow_gaps: bool = False,
    threshold: int | None = None,
    ignore_masks: Path | None = None,
) -> TrackReport:
    """Track what is marked on the first frame through a folder of images or a video.

    Adaptation in the background becomes blocking: the result must not depend on the speed of the machine. All that can
    be known of the frames, their number, sizes and gaps, is checked before anything is written.

    Args:
        frames: Folder of images, in the order of their names, or a video file.
        marked: Label image: value = id, 0 = background; only 0 and 255 = one instance. Or a prompt for one object:
            it becomes a mask by ``prompts.backend``, as in the node.
        out: Folder for one indexed PNG per frame, named as the frame (of a video: by its number), and ``overlay.mp4``.
        config: All settings.
        fps: Frames per second; default that of the video, 24 for a folder.
        overwrite: Replace the results that a folder holds already.
        allow_gaps: Take a damaged video; the masks of its frames keep their numbers.
        threshold: For a soft mask of one object, see ``labels.read_labels``.
        ignore_masks: Folder of ``<frame's stem>.png`` for some of the frames: nonzero where no object can be.

    Raises:
        ValueError: Nothing to read, frames are lost, a seed of another size, results in the way, no object found where
            one is said to be, an ignore mask of no frame or of another size.
        RuntimeError: The device asked for is not there.
        OSError: A file cannot be read or written.
    """
    old = _results_in(out, frames, overwrite)
    source = open_frames(frames, fps=fps, allow_gaps=allow_gaps, mono16_bits=config.mono16_bits)
    set_threads(config.threads)
    tracker = build_tracker(config)
    numbers = source.numbers
    seed = _seed(marked, source, config, threshold)
    ignores = IgnoreFolder({})
    if ignore_masks is not None:
        ignores = IgnoreFolder.of(ignore_masks, {source.stem(number) for number in numbers})
        ignores.check(seed.size)  # that of the frames, or the first one refuses it
    spent_s, states, written = 0.0, {}, 0
    with _new_folder(out) as is_begun, _Overlay(out / OVERLAY_NAME, source.fps) as overlay:
        for number in tqdm(numbers, desc="track", unit="frame"):
            image = source.image(number)
            ignored = ignores.mask(source.stem(number), (image.shape[0], image.shape[1]))
            frame = Frame(stamp_ns=source.stamp_ns(number), image=image, ignored=ignored)
            begin = time.perf_counter()
            tracks = tracker.step(frame) if written else tracker.seed(seed, frame)
            spent_s += time.perf_counter() - begin
            if not written:
                for path in old:  # now that the first frame is done, nothing but the disk can fail
                    path.unlink()
            write_labels(out / f"{source.stem(number)}.png", tracks.labels)
            is_begun.append(True)
            written += 1
            overlay.write(overlay_tracks(image, tracks))
            states = {track.instance_id: track.state.name for track in tracks.tracks}
    return TrackReport(
        frames=written,
        ids=tuple(states),
        ms_per_frame=1e3 * spent_s / written,
        final_states=states,
        lost=source.lost,
        overlay_error=overlay.error,
        ignored=len(ignores.paths),
    )


def _seed(marked: Path | Prompt, source: FrameSource, config: Config, threshold: int | None) -> Seed:
    """What is marked as a seed of the first frame, by the rules of the node."""
    if not isinstance(marked, Prompt):
        return IdBook().admit(Seed(stamp_ns=0, labels=read_labels(marked, threshold)), config).seed
    image = source.image(source.numbers[0])
    prompted = PromptSeed(stamp_ns=0, prompted=(PromptedInstance(prompt=marked),))
    backend = build_prompts(config.prompts, config.trunk.weights)
    return IdBook().admit(prompted, config).seed.cut(image, image.shape[:2], backend)


def open_frames(
    frames: Path, *, fps: float | None = None, allow_gaps: bool = False, mono16_bits: str = "auto"
) -> FrameSource:
    """The frames of a folder or a video, see ``FolderFrames.of`` and ``VideoFrames``.

    Raises:
        ValueError: Nothing to read, several sizes, no frame rate, or frames are lost.
    """
    if frames.is_dir():
        return FolderFrames.of(frames, fps=FPS if fps is None else fps, mono16_bits=mono16_bits)
    return VideoFrames(frames, fps=fps, allow_gaps=allow_gaps)


def _results_in(out: Path, frames: Path, overwrite: bool) -> list[Path]:
    """Masks and the video of an earlier run, which the new one replaces.

    Raises:
        ValueError: There are some, and they are not to be replaced; or the frames are in that folder.
    """
    if not out.is_dir():
        return []
    if frames.resolve() == out.resolve():
        raise ValueError(f"{out} holds the frames; give another folder for the masks")
    pictures = sorted(out.glob("*.png"))
    if pictures and not overwrite:
        raise ValueError(f"{out} holds results already; give another folder or --overwrite")
    return [*filter(_is_mask, pictures), *out.glob(OVERLAY_NAME)]


def _is_mask(path: Path) -> bool:
    """Whether a PNG is one that ``write_labels`` wrote: other pictures of a folder are left alone."""
    try:
        with Image.open(path) as image:
            if image.mode != "P":
                return image.mode == "I;16"
            return image.getpalette() == davis_palette().ravel().tolist()
    except (OSError, SyntaxError):
        return False


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[list[bool]]:
    """The folder of the results; where nothing was begun in it, it is not left behind half made."""
    is_new, begun = not out.is_dir(), list[bool]()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield begun
    except BaseException:
        if is_new and not begun:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


class _Overlay:
    """The video for people: what goes wrong with it must not cost the masks."""

    def __init__(self, path: Path, fps: float) -> None:
        self.error = ""
        self._path, self._fps = path, fps
        self._video: VideoWriter | None = None

    def __enter__(self) -> _Overlay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            self._video.__exit__(kind, error, trace)
            if not self.error and error is None and not (self._path.is_file() and self._path.stat().st_size):
                self._fail(f"{self._path} was not written")

    def write(self, picture: UInt8Array) -> None:
        """Append a picture, unless one failed before."""
        if self.error:
            return
        try:
            if self._video is None:
                self._video = VideoWriter(self._path, self._fps)
            self._video.write(picture)
        except (ValueError, OSError, cv2.error) as error:
            self._fail(" ".join(str(error).split()))

    def _fail(self, line: str) -> None:
        self.error = line
        print(f"warning: no overlay video, the masks go on: {line}", file=sys.stderr)
