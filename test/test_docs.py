# SPDX-License-Identifier: Apache-2.0
"""The pages in docs/ name what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from maskrnn_ros.config import Config, from_flat, settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {str(file.relative_to(DOCS)): file.read_text() for file in sorted(DOCS.rglob("*.md"))}
SOURCES = "\n".join(file.read_text() for file in (ROOT / "maskrnn_ros").rglob("*.py")) + (ROOT / "Makefile").read_text()
SECTIONS = {name.partition(".")[0] for name, _, _ in settings() if "." in name}
NAMES = {name for name, _, _ in settings()}


def code(page: str) -> list[str]:
    """What a page has in backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)\)", PAGES[name]):
        assert "://" in link or (DOCS / name).parent.joinpath(link).exists(), link


def anchors(page: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*PAGES, "README.md", "tools/README.md"])
def test_every_link_to_a_section_finds_it(name: str) -> None:
    file = DOCS / name if name in PAGES else ROOT / name
    for target, section in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", file.read_text()):
        there = file.parent / target if target else file
        assert section in anchors(there.read_text()), f"{target}#{section}"


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_that_is_named_is_one(name: str) -> None:
    for text in code(PAGES[name]):
        section = text.partition(".")[0]
        if (
            section in SECTIONS
            and re.fullmatch(r"[a-z_]+\.[a-z_]+", text)
            and not text.endswith((".py", ".safetensors"))
        ):
            assert text in NAMES, text


@pytest.mark.parametrize("name", PAGES)
def test_every_value_that_is_recommended_is_allowed(name: str) -> None:
    tried = {}
    for text in code(PAGES[name]):
        key, found, value = text.partition(": ")
        if found and key in NAMES and not re.search(r"[A-Z/]", value):
            tried[key] = yaml.safe_load(value)
            beside = {"trunk.weights": tried[key]} if key == "network.weights" else {}  # they learned together
            assert isinstance(from_flat({**beside, key: tried[key]}), Config), text
    assert len(tried) >= (15 if name == "tuning.md" else 0)


def test_the_reasons_that_are_explained_are_those_of_the_code() -> None:
    page = re.sub(r"`[^`\n]+`", "", PAGES["troubleshooting.md"]).replace("**", "")
    quotes = re.findall(r"(?<!\S)\*(\S[^*\n]*\S)\*", page)
    pieces = [
        piece.strip() for quote in quotes for piece in re.split(r"\.\.\.|WxH|\[n\]|\b0\b|32|255|mono8|;|'", quote)
    ]
    spoken = [piece for piece in pieces if len(piece.split()) >= 3]
    assert len(spoken) >= 12
    joined = re.sub(r"\"\s*\n\s*f?\"", "", SOURCES)  # texts that are written in two lines
    filled = re.sub(r"\{[^{}]*\}", "{}", joined)

    def is_said(piece: str) -> bool:
        """As it stands, or with what is filled in: numbers, and the name of the thing at its beginning."""
        numbers = re.sub(r"\d+", "{}", piece)
        named = "{} " + numbers.partition(" ")[2]
        counted = re.sub(r"^expected at most \{\} .* (in a second|at a time)$", r"expected at most {} {} \1", numbers)
        return piece in joined or any(text in filled for text in (numbers, named, counted))

    assert [piece for piece in spoken if not is_said(piece)] == []
    assert not is_said("expected at least 1000 wishes at a time"), "the test can fail"


def test_every_argument_for_several_cameras_is_explained() -> None:
    body = ast.parse((ROOT / "launch" / "cameras.launch.py").read_text()).body
    named = {node.targets[0].id: node.value for node in body if isinstance(node, ast.Assign)}
    arguments = {key.value for key in named["ARGUMENTS"].keys} | set(ast.literal_eval(named["PASSED_ON"]))
    rows = "\n".join(re.findall(r"^\| (`[^|]+) \|", PAGES["cameras.md"], flags=re.MULTILINE))
    assert arguments <= set(code(rows))


def test_every_page_and_folder_of_the_architecture_is_there() -> None:
    folders = "|".join(path.name for path in (ROOT / "maskrnn_ros").iterdir() if path.is_dir())
    paths = re.findall(rf"(?<![\w./])((?:{folders})/(?:\w+/)*(?:\w+\.py)?)", PAGES["architecture.md"])
    assert {"tracker_node/inbox.py", "model/torch/frame_step.py"} <= set(paths)
    for path in paths:
        assert (ROOT / "maskrnn_ros" / path).exists(), path
    for path in ("types.py", "masks.py", "events.py", "config.py"):
        assert path in PAGES["architecture.md"] and (ROOT / "maskrnn_ros" / path).exists()


def test_every_tool_is_listed_once_and_is_there() -> None:
    tools = ROOT / "tools"
    listed = re.findall(r"`(\w+\.(?:py|sh))`", (tools / "README.md").read_text())
    assert set(listed) == {file.name for file in tools.iterdir() if file.suffix in (".py", ".sh")}


def test_the_tests_that_faults_are_named_with_exist() -> None:
    known = set(re.findall(r"def (test_\w+)", "".join(file.read_text() for file in (ROOT / "test").glob("test_*.py"))))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))
    assert named and not named - known
