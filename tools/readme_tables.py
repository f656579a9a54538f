# SPDX-License-Identifier: Apache-2.0
"""Writes the generated tables into README.md, between their markers: python tools/readme_tables.py [--check]."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from maskrnn_ros.config import Setting, Value, settings
from maskrnn_ros.ros.interfaces import Interface

README = Path(__file__).resolve().parent.parent / "README.md"
NODES = {"tracker": "maskrnn_ros.ros.tracker_interfaces"}
"""Name of a node, and the module with its ``INTERFACES``; every one gets its tables."""


def parameters() -> str:
    """The table of parameters."""
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
        return f"{known.low:g} .. {known.high:g}"
    return "true, false" if isinstance(default, bool) else "text"


def topics() -> str:
    """The tables of topics and services, node by node."""
    blocks = []
    for node, module in NODES.items():
        interfaces: tuple[Interface, ...] = importlib.import_module(module).INTERFACES
        blocks.append("\n".join([f"Node `{node}`:", "", *_rows(interfaces, "topic", ("subscribes", "publishes"))]))
        if any(interface.kind == "serves" for interface in interfaces):
            blocks.append("\n".join(_rows(interfaces, "service", ("serves",))))
    return "\n\n".join(blocks)


def _rows(interfaces: tuple[Interface, ...], title: str, kinds: tuple[str, ...]) -> Iterator[str]:
    yield f"| {title} | type | |"
    yield "|---|---|---|"
    ways = {"subscribes": "in: ", "publishes": "out: ", "serves": ""}
    for interface in interfaces:
        if interface.kind in kinds:
            where = f" (where {interface.needs} is installed)" if interface.needs else ""
            yield f"| `{interface.name}` | {interface.type} | {ways[interface.kind]}{interface.text}{where} |"


TABLES = {"parameters": parameters, "topics": topics}


def rendered(text: str) -> str:
    """The README with its generated tables as they should be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- /{name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"README.md has no {begin} ... {end}")
        text = f"{head}{begin}\n{table()}\n{end}{tail}"
    return text


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where the README differs, write nothing")
    args = parser.parse_args()
    text = README.read_text()
    if args.check:
        return int(rendered(text) != text)
    README.write_text(rendered(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
