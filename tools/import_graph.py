# SPDX-License-Identifier: Apache-2.0
"""Draws who imports whom, room by room, as docs/rooms.svg; says lines by room and what points upwards.

    python tools/import_graph.py
    python tools/import_graph.py --at COMMIT --rooms base,flow,model,... --out FILE.svg   # of another time

A room is a folder of maskrnn_ros/; "base" are the modules beside them, "cli" is the command line. A row says what a
room imports: blue is of a room below it, red is of one above. Generated modules (msg, srv) are not counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"

ORDER = (
    ("base",),
    ("metrics", "model"),
    ("prompts", "flow"),
    ("tracking",),
    ("datasets",),
    ("bags", "training"),
    ("paper",),
    ("ros",),
    ("tracker_node", "locator", "rviz_tool", "seed_ui", "replay"),
    ("evaluation",),
    ("benchmark",),
    ("commands",),
    ("cli",),
)
"""Rooms from the lowest to the highest, as docs/architecture.md says: each imports lower ones, never one beside it."""

OLD_NAMES = frozenset({"maskrnn_ros.ros.__main__", "maskrnn_ros.ros.images"})
"""Names that are kept for what was written before the rooms; they lead to new ones."""

Arrow = tuple[str, str]
"""A module, and one that it imports."""


class Package:
    """The modules of a package and the arrows between them.

    Args:
        folder: The package's folder.
        order: Rooms from the lowest to the highest, those of a level together.
    """

    def __init__(self, folder: Path, order: Sequence[Sequence[str]] = ORDER) -> None:
        self.folder = folder
        self.level = {room: level for level, rooms in enumerate(order) for room in rooms}
        self.modules = {self._name(path): path for path in sorted(folder.rglob("*.py"))}
        generated = tuple(f"{folder.name}.{name}." for name in ("msg", "srv"))
        self.modules = {name: path for name, path in self.modules.items() if not f"{name}.".startswith(generated)}

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def room(self, module: str) -> str:
        """The room of a module."""
        parts = module.split(".")
        if parts[1:] in (["cli"], ["__main__"]):
            return "cli"
        return parts[1] if len(parts) > 1 and (self.folder / parts[1]).is_dir() else "base"

    def arrows(self, module: str, source: str) -> set[Arrow]:
        """The modules of other rooms that a module with this source imports."""
        own, package = self.room(module), self.folder.name
        names = {name for name in imported(source) if name in self.modules and name != package}
        return {(module, name) for name in names if self.room(name) != own}

    def upward(self, module: str, source: str) -> list[Arrow]:
        """Those of them that do not point to a lower room."""
        level = self.level[self.room(module)]
        return sorted(arrow for arrow in self.arrows(module, source) if self.level[self.room(arrow[1])] >= level)

    def all_arrows(self) -> set[Arrow]:
        """All arrows between rooms, but for those of old names."""
        return {
            arrow
            for name, path in self.modules.items()
            if name not in OLD_NAMES
            for arrow in self.arrows(name, path.read_text())
        }

    def lines(self) -> Counter[str]:
        """Lines of Python by room."""
        found: Counter[str] = Counter()
        for name, path in self.modules.items():
            found[self.room(name)] += path.read_text().count("\n")
        return found


def imported(source: str) -> Iterator[str]:
    """Modules that a text imports, wherever in it; of ``from a import b`` both, for b may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def drawn(package: Package) -> str:
    """The picture as SVG: a square for each pair of rooms, with the number of imports."""
    rooms = [room for room, _ in sorted(package.level.items(), key=lambda item: -item[1])]
    lines, side, left, top = package.lines(), 30, 150, 120
    counts = Counter((package.room(module), package.room(name)) for module, name in package.all_arrows())
    place = {room: index for index, room in enumerate(rooms)}
    width, height = left + side * len(rooms) + 10, top + side * len(rooms) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for room, index in place.items():
        x, y = left + side * index, top + side * index
        parts += [
            f'<text x="{left - 8}" y="{y + 20}" text-anchor="end">{room} ({lines[room]})</text>',
            f'<text transform="translate({x + 20} {top - 8}) rotate(-60)">{room}</text>',
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#ddd"/>',
        ]
    for (importer, room), count in sorted(counts.items()):
        x, y = left + side * place[room], top + side * place[importer]
        downward = package.level[room] < package.level[importer]
        parts += [
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{"#cfe2f3" if downward else "#e06666"}"/>',
            f'<text x="{x + side / 2:g}" y="{y + 20}" text-anchor="middle">{count}</text>',
        ]
    for index in range(len(rooms) + 1):
        x, y = left + side * index, top + side * index
        ends = left + side * len(rooms), top + side * len(rooms)
        parts.append(f'<path d="M{left} {y}H{ends[0]}M{x} {top}V{ends[1]}" stroke="#bbb" stroke-width="0.5"/>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--at", metavar="COMMIT", help="the package as it was then")
    parser.add_argument("--rooms", metavar="A,B", help="rooms of then, from the lowest to the highest")
    parser.add_argument("--out", type=Path, default=PICTURE, metavar="SVG")
    args = parser.parse_args()
    order = tuple((room,) for room in args.rooms.split(",")) if args.rooms else ORDER
    with tempfile.TemporaryDirectory() as scratch:
        if args.at:
            command = ["git", "-C", str(ROOT), "archive", args.at, "maskrnn_ros"]
            with tarfile.open(fileobj=io.BytesIO(subprocess.check_output(command))) as archive:
                archive.extractall(scratch, filter="data")
        package = Package((Path(scratch) if args.at else ROOT) / "maskrnn_ros", order)
        args.out.write_text(drawn(package))
        report(package)
    return 0


def report(package: Package) -> None:
    """Prints lines by room and the arrows that point upwards."""
    for room, count in sorted(package.lines().items(), key=lambda item: -item[1]):
        print(f"{count:6d}  {room}")
    arrows = package.all_arrows()
    upward = [a for a in sorted(arrows) if package.level[package.room(a[1])] >= package.level[package.room(a[0])]]
    print(f"{len(arrows)} imports between rooms, {len(upward)} of them upwards")
    print(*(f"  {a} -> {b}" for a, b in upward), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
