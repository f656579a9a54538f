# SPDX-License-Identifier: Apache-2.0
"""The live picture: chosen, drawn and encoded once, however many pages look."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Protocol

from maskrnn_ros.seed_ui.pictures import Scene, picture
from maskrnn_ros.types import UInt8Array

_KEEP_S = 1.0
"""How long a picture is good for others: the masks of a frame may change after a correction."""
_KEEP = 16
_WIDTH_STEP = 64
"""Widths are rounded up to a multiple, so that windows of about the same size share a picture."""


class Frames(Protocol):
    """Where frames come from; called from several threads."""

    def wait(self, after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        """Stamp of the newest frame, once it is another one; None after the timeout."""

    def image(self, stamp_ns: int) -> UInt8Array:
        """RGB of a frame, uint8 (H, W, 3)."""

    def scene(self, stamp_ns: int) -> Scene | None:
        """Its instances; None where nothing is known of that frame."""


class _Choice:
    """The frame that all pages are shown at the moment."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # one looks for the next frame, the others take what it finds
        self.stamp_ns: int | None = None
        self.at_s = -float("inf")


class LivePictures:
    """Pictures for the pages.

    Args:
        frames: Where they come from.
        rate: Most frames a second; each page may get them all.
    """

    def __init__(self, frames: Frames, rate: float) -> None:
        self._frames = frames
        self._period_s = 1.0 / rate
        self._choices = {False: _Choice(), True: _Choice()}
        self._book = threading.Lock()
        self._made: dict[tuple[int, bool, int, int], tuple[float, Future[tuple[bytes, str]]]] = {}

    def newest(self, after_ns: int, with_masks: bool, timeout_s: float) -> int | None:
        """Stamp of the frame to show, once it is not that of ``after_ns``; None after about the timeout.

        Args:
            after_ns: Stamp that the page has; 0: none.
            with_masks: One that has its masks, where there are any.
            timeout_s: Longest wait beside that for the rate, seconds.
        """
        choice = self._choices[with_masks]
        if not choice.lock.acquire(timeout=timeout_s):
            return None
        try:
            due_s = choice.at_s + self._period_s
            now_s = time.monotonic()
            if now_s < due_s:
                if choice.stamp_ns != after_ns:
                    return choice.stamp_ns
                time.sleep(due_s - now_s)
            found = self._frames.wait(after_ns, with_masks, timeout_s)
            if found is not None:
                choice.stamp_ns, choice.at_s = found, time.monotonic()
            return found
        finally:
            choice.lock.release()

    def jpeg(self, stamp_ns: int, with_masks: bool, without: int, width: int) -> tuple[bytes, str]:
        """A frame as JPEG, and the size of its image as ``WIDTHxHEIGHT``.

        Args:
            stamp_ns: Of the frame.
            with_masks: Draw its masks.
            without: Id of an instance that is not drawn; 0: none.
            width: About the largest width, pixels; 0: that of the image.

        Raises:
            ValueError: The frame is not held any more.
        """
        width = -(-width // _WIDTH_STEP) * _WIDTH_STEP
        key = (stamp_ns, with_masks, without, width)
        with self._book:
            now_s = time.monotonic()
            fresh = {k: made for k, made in self._made.items() if now_s - made[0] < _KEEP_S}
            self._made = dict(list(fresh.items())[-_KEEP:])
            is_mine = key not in self._made
            if is_mine:
                self._made[key] = (now_s, Future())
            future = self._made[key][1]
        if is_mine:
            try:
                future.set_result(self._draw(key))
            except BaseException as error:
                future.set_exception(error)
                self._forget(key)
        return future.result()

    def _draw(self, key: tuple[int, bool, int, int]) -> tuple[bytes, str]:
        stamp_ns, with_masks, without, width = key
        image = self._frames.image(stamp_ns)
        scene = self._frames.scene(stamp_ns) if with_masks else None
        if scene is None and with_masks:
            self._forget(key)  # the masks may come yet
        if scene is not None and without:
            scene = scene.without(without)
        return picture(image, scene, width), f"{image.shape[1]}x{image.shape[0]}"

    def _forget(self, key: tuple[int, bool, int, int]) -> None:
        with self._book:
            self._made.pop(key, None)
