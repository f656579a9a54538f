# SPDX-License-Identifier: Apache-2.0
"""What a setting is: its default, its range, and how a value that is given for it is read.

A value is read here and nowhere else, whether it comes from a parameter file, the command line, ``ros2 param set`` or
from code. ``REPLACED`` is the one table of settings that are gone.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_LOG = logging.getLogger(__name__)

Value = bool | int | float | str

_WORDS = {False: ("off", "no", "n", "false"), True: ("on", "yes", "y", "true")}
"""Words that YAML reads as a boolean, as ROS reads it, too."""

_QUOTED = 80
"""Characters or items of a value that is quoted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replaced:
    """A setting that is gone, or a value of one.

    Args:
        name: Its name, with dots.
        by: What it is taken as, or why it is gone and what to write instead.
        value: Only this value of it is gone; None: the setting itself.
        means: Values by name that say the same now, which are taken with a warning; none: what it said is so anyway;
            None: it is refused.
    """

    name: str
    by: str
    value: Value | None = None
    means: Mapping[str, Value] | None = None


_WEIGHS_ITSELF = "the network weighs its parts itself"
_ALWAYS = "the network always matches"
_AT_ONCE = "adaptation.method: recursive adapts at once"
_FITTED = "the views that a target model is fitted to are no settings"
_STREAMS = "the two-stream network is gone: write shipped"
_CHOSEN_ONCE = "quality is chosen at configure and stays; for less time per image set working_size"

REPLACED: tuple[Replaced, ...] = (
    Replaced(name="adaptation.mode", value="off", by="adaptation.method: none", means={"adaptation.method": "none"}),
    Replaced(name="adaptation.mode", by=_AT_ONCE, means={}),
    Replaced(name="adaptation.weight", by=_WEIGHS_ITSELF),
    *(Replaced(name=f"adaptation.{name}", by=_FITTED) for name in ("views", "batch", "channels")),
    *(Replaced(name=f"adaptation.{name}", by=_FITTED) for name in ("resize", "rotate", "shift", "flip", "cover")),
    Replaced(name="adaptation.lighting", by=_FITTED),
    Replaced(name="max_latency_ms", value=0.0, by=_CHOSEN_ONCE, means={}),
    Replaced(name="max_latency_ms", by=_CHOSEN_ONCE),
    Replaced(name="matching.enabled", value=True, by=_ALWAYS, means={}),
    *(Replaced(name=f"matching.{name}", by=_ALWAYS) for name in ("enabled", "recent_frames", "radius", "top_k")),
    *(Replaced(name=f"matching.{name}", by=_WEIGHS_ITSELF) for name in ("weight", "weight_without_head")),
    Replaced(name="matching.temperature", by=_WEIGHS_ITSELF),
    Replaced(name="network.matching", value=True, by=_ALWAYS, means={}),
    Replaced(name="network.matching", by=_ALWAYS),
    Replaced(name="network.weights", value="streams", by=_STREAMS),
    *(Replaced(name=f"prior.{name}", by=_WEIGHS_ITSELF) for name in ("weight", "weight_without_head", "floor")),
    Replaced(name="quality", value="low", by="write medium; with few pixels set working_size"),
    Replaced(name="trunk.weights", value="streams", by=_STREAMS),
    Replaced(name="trunk.weights", value="imagenet", by="networks need a trained trunk: write shipped"),
)
"""All that was removed or renamed. A row stays for good: old files are found at any time."""


def renewed(values: Mapping[str, Any], warn: Callable[[str], object] = _LOG.warning) -> dict[str, Any]:
    """The same without what is gone: what has kept a meaning is said as it is said now, all else is refused.

    >>> renewed({"device": "cpu", "adaptation.mode": "off"}, warn=print)
    adaptation.mode: off is no value any more, taken as adaptation.method: none
    {'device': 'cpu', 'adaptation.method': 'none'}

    Args:
        values: By dotted name, as they were given.
        warn: Called with one line for each old spelling.

    Raises:
        ValueError: A name, or its value, is in ``REPLACED`` and has no meaning now; the line says what to write.
    """
    found = dict(values)
    for row in REPLACED:
        given = found.get(row.name)
        if row.name not in found or (row.value is not None and (given is None or not _means(given, row.value))):
            continue
        gone = f"{row.name} is no setting" if row.value is None else f"{row.name}: {row.value} is no value"
        if row.means is None:
            raise ValueError(f"{gone} any more: {row.by}")
        del found[row.name]
        found.update(row.means)
        warn(f"{gone} any more, taken as {row.by}" if row.means else f"{gone} any more, ignored: {row.by}")
    return found


def _means(given: Any, word: Value | None) -> bool:
    """Whether a value is that one, be it a word that YAML has read as a boolean, or an integer for a double."""
    if type(given) is bool and isinstance(word, str):
        return word in _WORDS[given]
    is_number = type(given) is int and type(word) is float
    return (is_number or type(given) is type(word)) and bool(given == word)


def no_setting(name: str, known: Iterable[str]) -> str:
    """Says that a name is no setting, and which one may be meant.

    >>> no_setting("gaet.enlarge", ["gate.enlarge", "device"])
    "unknown setting 'gaet.enlarge'; did you mean gate.enlarge?"
    """
    names = list(known)
    near = difflib.get_close_matches(name[:100], names, n=1)
    hint = f"did you mean {near[0]}?" if near else "all settings: docs/reference.md, `ros2 param list`"
    return f"unknown setting {name!r}; {hint}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of a field beside its default.

    Args:
        help: One sentence, with the unit.
        low: Smallest value allowed, None for no bound.
        high: Largest value allowed.
        choices: The values allowed, empty for any.
        live: The node takes a new value while it runs.
        basic: A parameter that most users meet; the others are listed as advanced.
        automatic: A value beside the range, which leaves the choice to something else; None: there is none.
    """

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    basic: bool = False
    automatic: Value | None = None

    def take(self, name: str, value: Any, kind: type) -> Value:
        """Read a value: an integer will do where a double is wanted.

        >>> Setting(help="", low=0.0, high=9.0).take("a", 3, float)
        3.0

        Args:
            name: The name of the setting, for error messages.
            value: As it was given, of any type.
            kind: bool, int, float or str: the type of the setting.

        Raises:
            ValueError: Wrong type, out of range, not one of the choices.
        """
        if kind is str and type(value) is int and str(value) in self.choices:
            value = str(value)  # as in mono16_bits: 12
        if type(value) is not kind and not (kind is float and type(value) is int):
            got = f"{type(value).__name__} {_short(value)}{self._hint(value, kind)}"
            raise ValueError(f"{name} must be {self._expected(kind)}, got {got}")
        given: Any = value  # mypy would know nothing of it but that it is an object
        if self.automatic is not None and value == self.automatic:
            return self.automatic
        if kind in (int, float):
            self._check_range(name, given)
        if self.choices and value not in self.choices:
            raise ValueError(f"{name} must be one of {', '.join(self.choices)}, got {_short(value)}")
        read: Value = float(given) if kind is float else given
        return read

    def _check_range(self, name: str, value: float) -> None:
        beside = "" if self.automatic is None else f" (or {self.automatic})"
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
        if self.low is not None and value < self.low:
            raise ValueError(f"{name} must be >= {self.low:g}{beside}, got {_short(value)}")
        if self.high is not None and value > self.high:
            raise ValueError(f"{name} must be <= {self.high:g}{beside}, got {_short(value)}")

    def _expected(self, kind: type) -> str:
        return f"one of {', '.join(self.choices)}" if self.choices else kind.__name__

    def _hint(self, value: Any, kind: type) -> str:
        """What to write instead, where that can be told."""
        if kind is str and type(value) is bool:
            meant = [word for word in _WORDS[value] if word in self.choices]
            word = meant[0] if meant else "the word"
            quotes = f'write "{word}" in quotes, for a shell \'"{word}"\'' if meant else "write a word in quotes"
            return f": YAML reads {word if meant else 'on, off, yes and no'} as a boolean; {quotes}"
        if kind is str and type(value) in (int, float):
            return ": write it in quotes"
        return ""


def _short(value: Any) -> str:
    """A value as Python writes it, or the beginning of that."""
    if type(value) is int and value.bit_length() > 64:  # Python refuses to write very long ones
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (list, str)) and len(value) > _QUOTED:
        return f"{value[:_QUOTED]!r} ({len(value) - _QUOTED} more)"
    return repr(value)


def setting(default: Value, text: str, **known: Any) -> Any:
    """A dataclass field with its ``Setting``."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=text, **known)})


class Checked:
    """Checks the fields of a config section when it is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if "setting" in field.metadata:
                known: Setting = field.metadata["setting"]
                value = known.take(field.name, getattr(self, field.name), type(field.default))
                object.__setattr__(self, field.name, value)  # frozen: an integer given for a double becomes one
