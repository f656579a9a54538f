# SPDX-License-Identifier: Apache-2.0
"""Writes the generated tables into README.md and docs/, between their markers: tools/readme_tables.py [--check]."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from maskrnn_ros.config import Config, settings
from maskrnn_ros.locate import LocatorConfig
from maskrnn_ros.quality import LEVELS, SET_BY_LEVELS
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.setting import Setting, Value

ROOT = Path(__file__).resolve().parent.parent


def parameters() -> str:
    """The tracker's parameters."""
    rows = ["| parameter | default | allowed | live | what it does |", "|---|---|---|---|---|"]
    rows.append("| `autostart` | `true` | true, false | no | The node configures and activates itself at its start. |")
    for name, default, known in settings():
        live = "yes" if known.live else "no"
        rows.append(f"| `{name}` | `{_literal(default)}` | {_allowed(default, known)} | {live} | {known.help} |")
    return "\n".join(rows)


def _literal(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(default: Value, known: Setting) -> str:
    if known.choices:
        return ", ".join(known.choices)
    if known.low is not None and known.high is not None:
        return f"{known.low:g} .. {known.high:g}" + ("" if known.automatic is None else f", {known.automatic}")
    return "true, false" if isinstance(default, bool) else "text"


def levels() -> str:
    """What the levels of quality set, the fastest first."""
    rows = [f"| `quality` | {' | '.join(f'`{name}`' for name in SET_BY_LEVELS)} |"]
    rows.append("|---" * (1 + len(SET_BY_LEVELS)) + "|")
    for level, values in LEVELS.items():
        default = " (default)" if level == Config().quality else ""
        rows.append(f"| `{level}`{default} | {' | '.join(f'`{values[name]}`' for name in SET_BY_LEVELS)} |")
    return "\n".join(rows)


def locator_parameters() -> str:
    """Those of the locator; none is live."""
    rows = ["| parameter | default | allowed | what it does |", "|---|---|---|---|"]
    for name, default, known in settings(LocatorConfig):
        rows.append(f"| `{name}` | `{_literal(default)}` | {_allowed(default, known)} | {known.help} |")
    return "\n".join(rows)


def interfaces(module: str) -> str:
    """Topics and services of the node in a module, by its ``INTERFACES``."""
    known: tuple[Interface, ...] = importlib.import_module(f"maskrnn_ros.ros.{module}").INTERFACES
    blocks = ["\n".join(_rows(known, "topic", ("subscribes", "publishes")))]
    if any(interface.kind in ("serves", "calls") for interface in known):
        blocks.append("\n".join(_rows(known, "service", ("serves", "calls"))))
    return "\n\n".join(blocks)


def _rows(interfaces: tuple[Interface, ...], title: str, kinds: tuple[str, ...]) -> Iterator[str]:
    yield f"| {title} | type | |"
    yield "|---|---|---|"
    ways = {"subscribes": "in: ", "publishes": "out: ", "serves": "", "calls": "called: "}
    for interface in interfaces:
        if interface.kind in kinds:
            where = f" (where {interface.needs} is installed)" if interface.needs else ""
            yield f"| `{interface.name}` | {interface.type} | {ways[interface.kind]}{interface.text}{where} |"


TABLES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "topics", partial(interfaces, "tracker_interfaces")),
    ("README.md", "parameters", parameters),
    ("docs/tuning.md", "levels", levels),
    ("docs/seeding.md", "seed tool", partial(interfaces, "seed_tool")),
    ("docs/positions.md", "locator", partial(interfaces, "locator")),
    ("docs/positions.md", "locator parameters", locator_parameters),
)
"""File, name between the markers, and what makes the table."""


def rendered(text: str, name: str, table: str) -> str:
    """A page with a table as it should be."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"there is no {begin} ... {end}")
    return f"{head}{begin}\n{table}\n{end}{tail}"


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where a page differs, write nothing")
    args = parser.parse_args()
    differs = 0
    for file, name, table in TABLES:
        text = (ROOT / file).read_text()
        right = rendered(text, name, table())
        if args.check and right != text:
            print(f"{file}: the table {name!r} is not that of the code")
            differs = 1
        elif not args.check:
            (ROOT / file).write_text(right)
    return differs


if __name__ == "__main__":
    sys.exit(main())
