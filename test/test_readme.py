# SPDX-License-Identifier: Apache-2.0
"""The README and the reference say what the code does."""

import re
import subprocess
import sys
from pathlib import Path

from maskrnn_ros.config import settings
from maskrnn_ros.tracker_node.interfaces import INTERFACES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_the_generated_tables_are_those_of_the_code() -> None:
    tool = ROOT / "tools" / "reference_tables.py"
    result = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True)
    assert result.returncode == 0, f"run: python tools/reference_tables.py\n{result.stdout}{result.stderr}"


def test_every_topic_and_service_of_the_nodes_is_in_the_readme_or_the_pages() -> None:
    code = "".join(file.read_text() for file in (ROOT / "maskrnn_ros").rglob("*.py"))
    pages = README + "".join(file.read_text() for file in (ROOT / "docs").glob("*.md"))
    names = set(re.findall(r'"(~/[a-z_]+(?:/[a-z_]+)*|/diagnostics)"', code))
    assert len(names) >= 20
    assert {name for name in names if f"`{name}`" not in pages} == set()


def test_there_is_a_row_for_every_interface_of_the_tracker() -> None:
    table = REFERENCE.partition("<!-- topics: generated -->")[2].partition("<!-- /topics -->")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (?:in \| |out \| )?(\w+/\w+) \| \S", table, re.MULTILINE)
    assert [(interface.name, interface.type) for interface in INTERFACES] == rows


def test_every_parameter_is_in_one_of_the_two_tables() -> None:
    def names(table: str) -> set[str]:
        found = REFERENCE.partition(f"<!-- {table}: generated -->")[2].partition(f"<!-- /{table} -->")[0]
        return set(re.findall(r"^\| `([^`]+)` ", found, re.MULTILINE))

    basic, advanced = names("parameters"), names("advanced parameters")
    assert 20 <= len(basic) <= 30
    assert basic & advanced == set()
    assert basic | advanced == {"autostart", *(name for name, _, _ in settings())}


def test_every_file_that_the_readme_shows_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in link:
            assert (ROOT / link).exists(), link
