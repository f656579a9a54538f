# SPDX-License-Identifier: Apache-2.0
"""Command lines from dataclasses: a field is said once, with type, default and help, and is a flag of its name.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
root: Path = flag(help="data set")                    # --root, required
workers: int = flag(1, help="sequences in parallel", metavar="N")
reader: Literal["davis", "segtrack"] = flag("davis", help="layout of the data set")
force: bool = flag(False, help="overwrite")           # without a value
stills: tuple[Path, ...] = flag((), help="folders", many="+")
ours: int = 7                                         # no flag
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

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
    many: Literal["+", "*", "append"] | None = None,
    positional: bool = False,
) -> Any:
    """A field that is a flag.

    Args:
        default: Without one it must be given.
        help: For people.
        metavar: What stands for the value in the help.
        read: Makes the value of its text, by default that which the field's type says.
        made: Makes the field of the value that was read, or of the default.
        many: The field is a tuple of values: one and more behind the flag, any number, or one for each time that the
            flag is given.
        positional: The value stands alone, without a flag before it.
    """
    own = {"help": help, "metavar": metavar, "read": read, "made": made, "many": many, "positional": positional}
    metadata = {_FLAG: own}
    if made is not None and default is not dataclasses.MISSING:
        return dataclasses.field(default_factory=lambda: made(default), metadata={**metadata, "given": default})
    return dataclasses.field(default=default, metadata=metadata)


def with_default(kind: type, name: str, default: Any) -> Any:
    """The flag of a base class with another default."""
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


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


def write_report(report: Any, file: Path | None) -> None:
    """Write a dataclass as JSON, if a file is given."""
    if file is not None:
        write_text(file, json.dumps(dataclasses.asdict(report), indent=2, default=str) + "\n")


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add the flags of a dataclass, in the order of its fields."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if _FLAG in field.metadata:
            is_positional = field.metadata[_FLAG]["positional"]
            name = field.name if is_positional else f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, **_argument(field, hints[field.name]))


def _argument(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """What ``add_argument`` is told of a flag."""
    own = field.metadata[_FLAG]
    if hint is bool:
        return {"action": "store_true", "help": own["help"]}
    found: dict[str, Any] = {"help": own["help"], "metavar": own["metavar"], **_presence(field), **_number(own["many"])}
    of = _without_none(hint)
    if own["many"] is not None:
        of = typing.get_args(of)[0]
    if typing.get_origin(of) is typing.Literal:
        found["choices"] = typing.get_args(of)
        of = type(found["choices"][0])
    return {**found, "type": own["read"] or of}


def _presence(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Whether a flag must be given, or its default."""
    own = field.metadata[_FLAG]
    default = field.metadata.get("given", field.default)
    if own["positional"]:
        return {}
    if default is dataclasses.MISSING:
        return {"required": True}
    if own["many"] is not None:
        return {"default": None if default is None else list(default)}
    return {"default": "" if default == () else default}  # what a text is read of stands in the help


def _number(many: str | None) -> dict[str, Any]:
    """How many values a flag takes."""
    return {} if many is None else {"action": "append"} if many == "append" else {"nargs": many}


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
            own, value = field.metadata[_FLAG], getattr(args, field.name)
            value = tuple(value) if own["many"] is not None and value is not None else value
            values[field.name] = value if own["made"] is None else own["made"](value)
    return kind(**values)
