# SPDX-License-Identifier: Apache-2.0
"""Command lines from dataclasses: a field is said once, with type, default and help, and is a flag of its name.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
root: Path = flag(help="data set")                            # --root, required
workers: int = flag(1, help="sequences in parallel", metavar="N")
reader: Literal["davis", "segtrack"] = flag("davis", help="layout of the data set")
force: bool = flag(False, help="overwrite")                   # without a value
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from maskrnn_ros.config import Config
from maskrnn_ros.disk import write_text
from maskrnn_ros.parameter_file import load

T = TypeVar("T")

_FLAG = "flag"

THRESHOLD = "read soft masks or probability maps of one object: values of N (of 255) and more are the object"
"""Help of --threshold, in several commands."""


def flag(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    metavar: str | None = None,
    read: Callable[[str], Any] | None = None,
    made: Callable[[Any], Any] | None = None,
) -> Any:
    """A field that is a flag.

    Args:
        default: Without one it must be given.
        help: For people.
        metavar: What stands for the value in the help.
        read: Makes the value of its text, by default that which the field's type says.
        made: Makes the field of the value that was read, or of the default.
    """
    metadata = {_FLAG: {"help": help, "metavar": metavar, "read": read, "made": made}}
    if made is not None and default is not dataclasses.MISSING:
        return dataclasses.field(default_factory=lambda: made(default), metadata={**metadata, "given": default})
    return dataclasses.field(default=default, metadata=metadata)


def config_flag(help: str = "ROS parameter file, as the node takes it") -> Any:
    """A field for the settings in a parameter file; without one the defaults."""
    return flag(None, help=help, metavar="YAML", read=Path, made=lambda file: load(file) if file else Config())


def names(text: str) -> tuple[str, ...]:
    """Names between commas.

    >>> names("a,b,"), names("")
    (('a', 'b'), ())
    """
    return tuple(name for name in text.split(",") if name)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a subcommand, whose help says the defaults."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, formatter_class=_WithDefaults
    )
    parser.set_defaults(run=run)
    return parser


class _WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says the defaults that are something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help
            if action.default is None or action.default is False or action.default in ("", (), [])
            else super()._get_help_string(action)
        )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, for ``write_report``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add --threshold, see ``labels.read_labels``."""
    parser.add_argument("--threshold", type=int, metavar="N", help=THRESHOLD)


def write_report(report: Any, file: Path | None) -> None:
    """Write a dataclass as JSON, if a file is given."""
    if file is not None:
        write_text(file, json.dumps(dataclasses.asdict(report), indent=2, default=str) + "\n")


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add the flags of a dataclass, in the order of its fields."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if _FLAG in field.metadata:
            parser.add_argument(f"--{field.name.replace('_', '-')}", **_argument(field, hints[field.name]))


def _argument(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    own = field.metadata[_FLAG]
    default = field.metadata.get("given", field.default)
    if hint is bool:
        return {"action": "store_true", "help": own["help"]}
    found: dict[str, Any] = {"help": own["help"], "metavar": own["metavar"]}
    if default is dataclasses.MISSING:
        found["required"] = True
    else:
        found["default"] = "" if default == () else default  # what a text is read of stands in the help
    if own["read"] is not None:
        return {**found, "type": own["read"]}
    of = _without_none(hint)
    if typing.get_origin(of) is typing.Literal:
        choices = typing.get_args(of)
        return {**found, "choices": choices, "type": type(choices[0])}
    return {**found, "type": of}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def from_flags(kind: type[T], args: argparse.Namespace) -> T:
    """The dataclass with what was given.

    Raises:
        ValueError: What its ``__post_init__`` or the making of a field refuses.
    """
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if _FLAG in field.metadata:
            value, made = getattr(args, field.name), field.metadata[_FLAG]["made"]
            values[field.name] = value if made is None else made(value)
    return kind(**values)
