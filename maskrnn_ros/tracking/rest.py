# SPDX-License-Identifier: Apache-2.0
"""Which objects rest: they keep their masks without a look of the networks while nothing changes around them.

Before a still camera most things stand still on most images, and a look at one says what the last one said. An object
rests once it was looked at a few times in a row while its crop stayed as it was. Its crop is compared with the image
since which nothing has changed, not with the last one, so that what changes slowly adds up. What changes is noticed on
that very image, and the networks look at it as if it had never rested: its mask is where it was on the image before.
All the same each is looked at now and then.

Two things are a change. One cell that differs much: a finger enters, an edge moves. And all cells of the crop together
when they differ by more than they used to: what has little contrast moves, the light changes. How much they used to is
learned of each object while it stands still: that is the noise of the camera and of the codec, there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from maskrnn_ros.sections import RestConfig
from maskrnn_ros.tracking.cells import Floats, cells_of
from maskrnn_ros.tracking.state import PreparedFrame, Still
from maskrnn_ros.tracking.states import Numbers, States
from maskrnn_ros.types import BoolArray

_CELL = 8
"""Pixels of the working image per cell. Larger ones average more noise, but an edge that moves changes less of them."""

_LOOKS = 4
"""Looks in a row without a change before an object may rest: its mask settles."""

_EVERY, _APART = 15, 3
"""After how many images at most a resting object is looked at all the same; how many lie between those of two ids."""

_SETTLING = 1 / 6
"""Share of the tolerance that all cells may differ by, root of the mean square, while the noise is not known."""

_MORE, _SURE = 1.5, 6.0
"""What is no change: so much more than the noise at the noisiest cell; of n cells, a mean square of 1 + this / sqrt(n)
times that of the noise."""

_LEAST = 3.0, 0.35
"""What is no change however little noise there was: of a cell, and mean square. Codecs let pictures wander by that."""

_IGNORED = np.float32(255)
"""What an ignore mask counts as in the picture that is compared."""


Stills = tuple[Still | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Watched:
    """K objects' surroundings on an image, against what they were when each was first looked at as it is.

    Args:
        picture: Cells of the image, see ``picture_of``.
        most: Largest difference of a cell of the crop, grey levels, (K,); infinite with nothing to compare.
        square: Mean square of the differences of all its cells, likewise; of RGB and the ignored share together.
        is_same: Whether nothing changed, bool (K,).
        rests: Who needs no look, bool (K,).
        age: Of each on this image, int64, (K,).
        among: Who is there, see ``among``.
    """

    picture: Floats
    most: Floats
    square: Floats
    is_same: BoolArray
    rests: BoolArray
    age: npt.NDArray[np.int64]
    among: bytes

    @staticmethod
    def of(states: States, there: bytes, frame: PreparedFrame, images: int, config: RestConfig) -> Watched:
        """Of all objects of a table, that the networks have begun.

        Args:
            states: On the image before.
            there: Who is there beside them, too, see ``among``.
            frame: The image.
            images: How many images later it is.
            config: The settings.
        """
        picture = picture_of(frame)
        most, square, cells = _differences(states, picture)
        looks, looked, is_among, allowed = _until_now(states, there, cells, config)
        is_same = is_among & (most <= allowed[0]) & (square <= allowed[1])
        age = states.age + images
        numbers = _APART * np.array(states.ids)  # not all are due on the same image
        is_due = (age + numbers) // _EVERY != (looked + numbers) // _EVERY
        rests = (looks >= _LOOKS) & is_same & ~is_due & (states.frames_unseen == 0)
        return Watched(picture, most, square, is_same, np.asarray(rests, np.bool_), age, there)

    def after(self, before: Stills, sees: BoolArray) -> Stills:
        """What is known of them from this image on.

        Args:
            before: What was known on the image before.
            sees: Which of them are there, bool (K,).
        """
        columns = self.rests, sees, self.is_same, self.most, self.square, self.age
        anew = {age: Still(self.picture, 0, age, self.among, 0.0, 0.0) for age in set(self.age.tolist())}
        stills: list[Still | None] = []
        for still, rests, seen, same, most, square, age in zip(before, *(c.tolist() for c in columns), strict=True):
            if rests:
                stills.append(still)
            elif not seen:
                stills.append(None)
            else:
                stills.append(anew[age] if still is None or not same else _after(still, most, square, age))
        return tuple(stills)


def _until_now(
    states: States, there: bytes, cells: npt.NDArray[np.intp], config: RestConfig
) -> tuple[Numbers, Numbers, BoolArray, tuple[Numbers, Numbers]]:
    """Of each object: looks, age at the last, whether the same others are there, and what differences are no change."""
    rows = [(0, 0, 0.0, 0.0) if one is None else (one.looks, one.age, one.most, one.square) for one in states.stills]
    looks, looked, most, square = np.array(rows, np.float64).T
    is_among = np.array([one is not None and one.among == there for one in states.stills], np.bool_)
    noise = square * (1 + _SURE / np.sqrt(np.maximum(cells, 1)))
    known = np.maximum(most * _MORE, _LEAST[0]), np.maximum(noise, _LEAST[1])
    unknown = config.tolerance, (config.tolerance * _SETTLING) ** 2
    # the same image once more, as cameras send it in the dark, says nothing of the noise
    is_known = (square > 0) | (looks >= _LOOKS)
    first, second = (np.where(is_known, *pair) for pair in zip(known, unknown, strict=True))
    return looks, looked, is_among, (first, second)


def _after(still: Still, most: float, square: float, age: int) -> Still:
    """What is known of an object that was looked at and around which nothing has changed."""
    if still.looks >= _LOOKS:  # the noise is known, and what changes slowly must not become noise
        return still._replace(age=age)
    looks = still.looks + 1
    most = max(still.most, most)
    square = square if still.square == 0 else still.square + (square - still.square) / looks
    return still._replace(looks=looks, age=age, most=most, square=square)


def _differences(states: States, picture: Floats) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
    """Of the cells in the crop of each object: the largest, the mean square, infinite where unknown; their number."""
    most, square = np.full((2, len(states)), np.inf, np.float32)
    inside = _inside(states.begun.carried.crop, (picture.shape[0], picture.shape[1]))
    cells = np.count_nonzero(inside, axis=(1, 2))
    known = [(k, still.picture) for k, still in enumerate(states.stills) if still is not None and cells[k]]
    if known:
        which = [k for k, _ in known]
        apart = (np.array([before for _, before in known]) - picture) * inside[which, :, :, None]
        most[which] = np.abs(apart).max(axis=(1, 2, 3))
        square[which] = np.square(apart).sum(axis=(1, 2, 3)) / (cells[which] * picture.shape[2])
    return most, square, cells


def among(states: States) -> bytes:
    """Who is there: ids, and when they were marked."""
    return np.array([states.ids, states.seeded_ns], np.int64).tobytes()


def awake(states: States) -> States:
    """The same objects, none of which rests before it was looked at some times more."""
    return dataclasses.replace(states, stills=(None,) * len(states))


def picture_of(frame: PreparedFrame) -> Floats:
    """What is compared of a frame: the means of its cells, RGB and the ignored share, float32 (h8, w8, 4), 0..255."""
    height, width = (-(-side // _CELL) for side in frame.size_of_work)
    picture = np.zeros((height, width, 4), np.float32)
    picture[..., :3] = cells_of(frame.image.astype(np.float32), _CELL)
    if frame.unknown is not None:
        picture[..., 3] = cells_of(frame.unknown.astype(np.float32), _CELL) * _IGNORED
    return picture


def _inside(crops: Floats, size: tuple[int, int]) -> BoolArray:
    """Cells that crops (K, 4), pixels of the working image, touch: bool (K, h8, w8)."""
    first, last = np.floor(crops[:, :2] / _CELL), np.ceil(crops[:, 2:] / _CELL)
    rows, columns = (
        (np.arange(count) >= first[:, axis, None]) & (np.arange(count) < last[:, axis, None])
        for axis, count in ((1, size[0]), (0, size[1]))
    )
    return np.asarray(rows[:, :, None] & columns[:, None], np.bool_)
