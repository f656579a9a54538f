# SPDX-License-Identifier: Apache-2.0
"""Writes the generated tables into docs/, between their markers: python tools/reference_tables.py [--check]."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from maskrnn_ros.config import Config, settings
from maskrnn_ros.locator.locate import LocatorConfig
from maskrnn_ros.quality import LEVELS, SET_BY_LEVELS
from maskrnn_ros.ros.interfaces import Interface
from maskrnn_ros.ros.parameters import AUTOSTART
from maskrnn_ros.setting import Setting, Value

ROOT = Path(__file__).resolve().parent.parent


def parameters(*, basic: bool) -> str:
    """The tracker's parameters: those that most users meet, or the advanced ones."""
    rows = ["| parameter | default | allowed | live | meaning |", "|---|---|---|---|---|"]
    for name, default, known in (("autostart", True, AUTOSTART), *settings()):
        if known.basic is basic:
            live = "yes" if known.live else "no"
            rows.append(f"| `{name}` | {_literal(default)} | {_allowed(default, known)} | {live} | {known.help} |")
    return "\n".join(rows)


def _literal(value: Value) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


def _allowed(default: Value, known: Setting) -> str:
    if known.choices:
        return ", ".join(known.choices)
    if known.low is not None and known.high is not None:
        return f"{known.low:g} .. {known.high:g}" + ("" if known.automatic is None else f", {known.automatic}")
    return "true, false" if isinstance(default, bool) else "text"


def levels() -> str:
    """What each level of quality sets, fastest first."""
    rows = [f"| `quality` | {' | '.join(f'`{name}`' for name in SET_BY_LEVELS)} |"]
    rows.append("|---" * (1 + len(SET_BY_LEVELS)) + "|")
    for level, values in LEVELS.items():
        default = " (default)" if level == Config().quality else ""
        rows.append(f"| `{level}`{default} | {' | '.join(f'`{values[name]}`' for name in SET_BY_LEVELS)} |")
    return "\n".join(rows)


def locator_parameters() -> str:
    """The locator's parameters; none is live."""
    rows = ["| parameter | default | allowed | meaning |", "|---|---|---|---|"]
    for name, default, known in settings(LocatorConfig):
        rows.append(f"| `{name}` | {_literal(default)} | {_allowed(default, known)} | {known.help} |")
    return "\n".join(rows)


def interfaces(module: str) -> str:
    """Topics and services of the node in a module, by its ``INTERFACES``."""
    known: tuple[Interface, ...] = importlib.import_module(f"maskrnn_ros.{module}").INTERFACES
    blocks = ["\n".join(_rows(known, "topic", ("subscribes", "publishes")))]
    if any(interface.kind in ("serves", "calls") for interface in known):
        blocks.append("\n".join(_rows(known, "service", ("serves", "calls"))))
    return "\n\n".join(blocks)


def _rows(interfaces: tuple[Interface, ...], title: str, kinds: tuple[str, ...]) -> Iterator[str]:
    yield f"| {title} | direction | type | meaning |" if title == "topic" else f"| {title} | type | meaning |"
    yield "|---|---|---|---|" if title == "topic" else "|---|---|---|"
    directions = {"subscribes": "in | ", "publishes": "out | ", "serves": "", "calls": ""}
    for interface in interfaces:
        if interface.kind in kinds:
            notes = ["Client."] if interface.kind == "calls" else []
            notes += [f"Needs {interface.needs}."] if interface.needs else []
            text = " ".join((interface.text, *notes))
            yield f"| `{interface.name}` | {directions[interface.kind]}{interface.type} | {text} |"


TABLES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("docs/reference.md", "topics", partial(interfaces, "tracker_node.interfaces")),
    ("docs/reference.md", "parameters", partial(parameters, basic=True)),
    ("docs/reference.md", "advanced parameters", partial(parameters, basic=False)),
    ("docs/reference.md", "locator", partial(interfaces, "locator.node")),
    ("docs/reference.md", "locator parameters", locator_parameters),
    ("docs/reference.md", "seed tool", partial(interfaces, "rviz_tool.node")),
    ("docs/tuning.md", "levels", levels),
)
"""File, name between the markers, and the function that makes the table."""


def rendered(text: str, name: str, table: str) -> str:
    """The page with this table between its markers."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- /{name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"expected {begin} ... {end} in the page, found none")
    return f"{head}{begin}\n{table}\n{end}{tail}"


def main() -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    args = parser.parse_args()
    differs = 0
    for file, name, table in TABLES:
        text = (ROOT / file).read_text()
        right = rendered(text, name, table())
        if args.check and right != text:
            print(f"{file}: the table {name!r} is out of date")
            differs = 1
        elif not args.check:
            (ROOT / file).write_text(right)
    return differs


if __name__ == "__main__":
    sys.exit(main())
