# SPDX-License-Identifier: Apache-2.0
"""Flags of the command line are the fields of a dataclass: said once, read by their types."""

from __future__ import annotations

import argparse
import dataclasses
import doctest
from pathlib import Path
from typing import Literal

import pytest

from maskrnn_ros import arguments
from maskrnn_ros.arguments import add_command, add_flags, config_flag, flag, from_flags, names, with_default
from maskrnn_ros.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    root: Path = flag(help="where")
    mask_topic: str | None = flag(None, help="which", metavar="TOPIC")
    workers: int = flag(1, help="how many")
    rate: float | None = flag(None, help="how fast")
    kind: Literal["one", "two"] = flag("one", help="of what kind")
    ahead: Literal[0, 1] = flag(0, help="how far")
    clips: tuple[str, ...] = flag((), help="which", read=names)
    force: bool = flag(False, help="overwrite")
    config: Config = config_flag()
    stills: tuple[Path, ...] = flag((), help="folders", many="+")
    topics: tuple[str, ...] | None = flag(None, help="topics", many="*")
    point: tuple[int, ...] = flag((), help="again and again", many="append")
    size: tuple[int, int] = flag("3x2", help="of what", read=str, made=lambda text: tuple(map(int, text.split("x"))))
    ours: int = 7  # no flag

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers must be >= 1, got {self.workers}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Further(Options):
    file: Path = flag(help="which", metavar="FILE", positional=True)
    workers: int = with_default(Options, "workers", 4)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_flags(add_command(parser.add_subparsers(), "do", lambda args: 0, "Does it."), Options)
    return parser


def read(*words: str) -> Options:
    return from_flags(Options, parser().parse_args(["do", *words]))


def test_what_is_not_given_is_the_default_of_the_field() -> None:
    assert read("--root", "here") == Options(root=Path("here"))


def test_values_are_of_the_types_of_their_fields(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("/**: {ros__parameters: {threads: 3}}")
    words = "--root x --mask-topic /m --workers 4 --rate 2 --kind two --ahead 1 --clips a,b --force --config"
    found = read(*words.split(), str(file))
    assert dataclasses.replace(found, config=Config()) == Options(
        root=Path("x"), mask_topic="/m", workers=4, rate=2.0, kind="two", ahead=1, clips=("a", "b"), force=True
    )
    assert found.config.threads == 3 and isinstance(found.rate, float)


def test_a_tuple_is_of_many_values() -> None:
    found = read(*"--root x --stills a b --topics --point 3 --point 4 --size 5x6".split())
    assert found.stills == (Path("a"), Path("b")) and found.topics == () and found.point == (3, 4)
    assert found.size == (5, 6) and read("--root", "x").size == (3, 2) and read("--root", "x").topics is None


def test_a_class_may_have_the_flag_of_its_base_with_another_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Further)
    assert from_flags(Further, parser.parse_args(["one", "--root", "x"])) == Further(file=Path("one"), root=Path("x"))
    assert Further(file=Path("one"), root=Path("x")).workers == 4
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--root", "x"])
    assert "required: FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["", "--root x --workers few", "--root x --kind three", "--root x --ahead 2", "--root x --ours 3"]
)
def test_the_command_line_refuses_what_is_none_of_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read(*words.split())
    assert capsys.readouterr().err


def test_the_dataclass_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="--workers must be >= 1, got 0"):
        read("--root", "x", "--workers", "0")


def test_the_help_says_the_defaults_that_are_something(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    said = capsys.readouterr().out
    assert "how many (default: 1)" in said and "None" not in said and "False" not in said and "()" not in said


def test_examples_run() -> None:
    assert doctest.testmod(arguments).attempted and not doctest.testmod(arguments).failed
