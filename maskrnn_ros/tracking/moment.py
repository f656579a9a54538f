# SPDX-License-Identifier: Apache-2.0
"""All that a tracker carries between two frames, held so that it can begin there again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrnn_ros.config import Config, to_flat
from maskrnn_ros.setting import Value
from maskrnn_ros.tracking.state import InstanceMemory, PreparedFrame
from maskrnn_ros.types import Seed

if TYPE_CHECKING:
    from maskrnn_ros.tracking.tracker import Tracker


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """A tracker after a frame; nobody changes it, and what did not change since an earlier one is shared with that.

    Args:
        states: By id.
        leaving: Of instances that were removed since the frame before, see ``Tracker.remove``.
        frames: How many frames there were.
        shown: On which of them an instance last won a pixel, by id.
    """

    states: Mapping[int, InstanceMemory]
    leaving: Mapping[int, InstanceMemory]
    frames: int
    shown: Mapping[int, int]

    @functools.cached_property
    def pieces(self) -> Mapping[int, int]:
        """The pieces of memory that it holds, bytes by address."""
        return dict(map(_piece, _arrays((self.states, self.leaving))))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Marking:
    """A seed as it was applied to a frame.

    Args:
        seed: Its labels.
        ids: Those of its ids that were taken from it.
        drawn_on: The image that it was drawn on, where that is none of the stream's.
    """

    seed: Seed
    ids: tuple[int, ...]
    drawn_on: PreparedFrame | None = None

    def begun(self, tracker: Tracker) -> Mapping[int, InstanceMemory]:
        """States of its ids on the newest frame of a tracker, which does not change.

        Raises:
            ValueError: See ``Tracker.start``.
        """
        newest = tracker.newest
        assert newest is not None  # seeds are applied to frames
        begun = tracker.start(self.seed, self.drawn_on or newest)
        states = {i: begun[i] for i in self.ids}
        return states if self.drawn_on is None else tracker.carry(states, self.drawn_on, newest)

    @property
    def nbytes(self) -> int:
        """Memory that it holds, bytes."""
        return int(self.seed.labels.nbytes) + (0 if self.drawn_on is None else self.drawn_on.nbytes)


def _arrays(value: Any) -> Iterator[Any]:
    """All arrays in a value, NumPy's or an engine's."""
    if hasattr(value, "nbytes"):
        yield value
    elif dataclasses.is_dataclass(value):  # a table too: its columns
        yield from _arrays(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
    elif isinstance(value, Mapping):
        yield from _arrays(tuple(value.values()))
    elif isinstance(value, tuple):
        for one in value:
            yield from _arrays(one)


def _piece(array: Any) -> tuple[int, int]:
    """Address and bytes of the memory that keeps an array alive."""
    if not isinstance(array, np.ndarray):  # torch's
        storage = array.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    whole = array if array.base is None or not isinstance(array.base, np.ndarray) else array.base
    return whole.ctypes.data, whole.nbytes


_ASIDE = (
    "buffer.",
    "catch_up.max_s",
    "ignore_mask_timeout",
    "mask_encoding",
    "max_instances",
    "on_time_jump",
    "prompts.",
    "seed_timeout",
    "time_jump_",
    "watchdog.",
)
"""How names of settings begin that change no mask."""


def needs_of(config: Config) -> dict[str, Value]:
    """The settings that must be the same all the way from a frame on for it to be run again, by dotted name."""
    return {name: value for name, value in to_flat(config).items() if not name.startswith(_ASIDE)}
