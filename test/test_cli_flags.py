# SPDX-License-Identifier: Apache-2.0
"""Every flag of the command line is used by a test, and every ``--json`` gives a file that can be read."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
from test_bags import TWO, write_tree

from maskrnn_ros import __version__
from maskrnn_ros.arguments import from_flags
from maskrnn_ros.bags import BagReader, from_davis
from maskrnn_ros.bags.options import FromDavisOptions, PlayOptions, ToFramesOptions
from maskrnn_ros.cli import _parser, main
from maskrnn_ros.commands.options import SeedOptions, TrackOptions
from maskrnn_ros.evaluation.options import Options, ScoreOptions
from maskrnn_ros.labels import write_labels
from maskrnn_ros.paper.options import RecurrentOptions, StillOptions
from maskrnn_ros.training.options import DecoderOptions, FlowOptions, PromptOptions, TrunkOptions

TESTS = Path(__file__).resolve().parent
NOT_RUN = {
    "train trunk": "a data set; test_trunk.py calls what it calls",
    "train decoder": "a data set",
    "train prompts": "a data set; test_prompt_training.py gives most of them",
    "train flow": "a data set; test_flownet.py calls what it calls",
    "export --seed": "of the pictures of --calibrate, which takes minutes",
    "evaluate --tuned": "tracks a dozen times; test_ablation.py calls what it calls",
    "weights convert-vgg16 --onnx": "a graph of 500 MB",
    "seed-ui --tracker": "test_seed_ui_node.py makes the node with these options",
    "seed-ui --image": "likewise",
    "seed-ui --config": "likewise",
}
"""Flags that no test gives on a command line, and why."""


DEFAULTS = {
    "demo": "--out=demo_out",
    "track": "--frames! --out!",
    "evaluate": "--reader=davis --profile=fast --workers=1",
    "benchmark": ("--objects=1,2,4,8,16 --size=854x480,1280x720,1920x1080 --seconds=10.0 --rates=15,24,30 --threads=1"),
    "bag from-davis": (
        "--root! --sequence! --out! --annotations=Annotations --fps=24.0 --storage=mcap "
        "--image-topic=/camera/image_raw --truth-topic=/camera/ground_truth "
        "--seed-topic=/camera/seed_mask"
    ),
    "bag to-frames": "bag! --out! --image-topic=/camera/image_raw --every=1",
    "bag play": (
        "bag! --rate=1.0 --tracker=/tracker --image-topic=/camera/image_raw "
        "--seed-topic=/camera/seed_mask --ignore-topic=/camera/ignore_mask --subscribers=1 --loops=1 "
        "--timeout=60.0"
    ),
    "seed": (
        "--id=0 --topic=/tracker/seed_mask --service=/tracker/add_instances "
        "--result-topic=/tracker/seed_result --stamp=0 --timeout=10.0"
    ),
    "seed-ui": "--port=8765 --tracker=/tracker --image=auto --rate=10.0",
    "train trunk": (
        "--out! --steps=1700 --batch=8 --rate=0.0002 --validate-every=100 --threads=0 --seed=0 --data! "
        "--terms=research --processes=0 --device=cpu"
    ),
    "train decoder": (
        "--out! --steps=2000 --batch=4 --rate=0.001 --validate-every=200 --threads=0 --seed=0 --data! "
        "--terms=research --processes=1 --device=cpu --trunk=shipped --trunk-rate=0.0"
    ),
    "train prompts": (
        "--out! --steps=6000 --batch=8 --rate=0.001 --validate-every=500 --threads=0 --seed=0 --data! "
        "--terms=research --processes=1 --device=cpu --trunk=shipped --validate-on=40 --fine=0.0"
    ),
    "train still": (
        "--out! --steps=1000 --batch=4 --rate=1e-05 --validate-every=500 --threads=0 --seed=0 "
        "--profile=paper --init=torchvision --box-weight=0.2 --size=854x480 --device=auto"
    ),
    "train recurrent": (
        "--out! --steps=4000 --batch=4 --rate=1e-05 --validate-every=500 --threads=0 --seed=0 "
        "--profile=paper --init=torchvision --box-weight=0.2 --size=854x480 --device=auto"
    ),
    "train flow": "--out! --steps=4000 --batch=4 --rate=0.0006 --validate-every=250 --threads=0 --seed=0",
    "train score": "--root!",
    "export": "--seed=0",
    "weights digests": "",
    "weights halve": "file! --out!",
    "weights convert-vgg16": "--onnx! --out!",
    "weights convert-lite0": "--source! --out!",
}
"""Of every command: what must be given (!), and the defaults that are something. Others measure with them."""

MADE = {
    "track": TrackOptions,
    "seed": SeedOptions,
    "evaluate": Options,
    "bag from-davis": FromDavisOptions,
    "bag to-frames": ToFramesOptions,
    "bag play": PlayOptions,
    "train trunk": TrunkOptions,
    "train decoder": DecoderOptions,
    "train prompts": PromptOptions,
    "train still": StillOptions,
    "train recurrent": RecurrentOptions,
    "train flow": FlowOptions,
    "train score": ScoreOptions,
}
"""Commands whose flags are the fields of a dataclass."""


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, other in action.choices.items():
            yield from commands(other, f"{name} {word}".strip())
    if not below:
        yield name, parser


def defaults(parser: argparse.ArgumentParser) -> str:
    words = []
    for action in parser._actions:
        name = action.option_strings[-1] if action.option_strings else action.dest
        if action.required:
            words.append(f"{name}!")
        elif action.default not in (None, argparse.SUPPRESS, "", []) and action.default is not False:
            words.append(f"{name}={action.default}")
    return " ".join(words)


def test_no_flag_lost_its_default() -> None:
    assert {name: defaults(parser) for name, parser in commands(_parser())} == DEFAULTS


@pytest.mark.parametrize("command", MADE)
def test_what_the_command_line_makes_is_what_python_makes(command: str) -> None:
    (parser,) = (parser for name, parser in commands(_parser()) if name == command)
    given = {"root": "R"} if command == "evaluate" else {}  # or --bag
    given |= {action.dest: action.dest for action in parser._actions if action.required}
    lone = [value for name, value in given.items() if f"--{name}" not in parser._option_string_actions]
    words = [word for name, value in given.items() if value not in lone for word in (f"--{name}", value)]
    made = from_flags(MADE[command], parser.parse_args([*lone, *words]))
    kinds = typing.get_type_hints(MADE[command])
    assert made == MADE[command](
        **{name: Path(value) if "Path" in str(kinds[name]) else value for name, value in given.items()}
    )


@pytest.mark.parametrize(
    ("function", "kind", "renamed"),
    [
        (from_davis, FromDavisOptions, {}),
        ("maskrnn_ros.bags.pictures.to_frames", ToFramesOptions, {}),
        ("maskrnn_ros.replay.player.play", PlayOptions, {"publish_clock": "clock", "timeout_s": "timeout"}),
    ],
    ids=["from-davis", "to-frames", "play"],
)
def test_functions_have_the_defaults_of_their_flags(function: object, kind: type, renamed: dict[str, str]) -> None:
    if isinstance(function, str):
        if "replay" in function:
            needs_ros()
        function = pkgutil.resolve_name(function)
    found = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    given = {name: default for name, default in found.items() if default is not inspect.Parameter.empty}
    names = {renamed.get(name, name): default for name, default in given.items()}
    own = {field.name: field.default for field in dataclasses.fields(kind) if field.name in names}
    remap = {"remap": None} if kind is PlayOptions else {}  # pairs there, FROM:=TO here
    assert own and {name: names[name] for name in own} == {**own, **remap}


def flags(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, other in action.choices.items():
                yield from flags(other, f"{command} {name}".strip())
        elif action.option_strings and "--help" not in action.option_strings:
            yield command, action.option_strings[-1]


def test_every_flag_is_given_by_some_test() -> None:
    texts = [path.read_text() for path in TESTS.glob("test_*.py")]
    used = {flag for _, flag in flags(_parser()) if any(f'"{flag}"' in text or f"{flag} " in text for text in texts)}
    missing = {f"{command} {flag}" for command, flag in flags(_parser()) if flag not in used}
    assert missing <= {name for name in missing if name in NOT_RUN or name.rpartition(" ")[0] in NOT_RUN}, missing


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--compressed", "--storage", "sqlite3", "--fps", "10", "--overwrite"]])
def test_bag_from_davis_writes_its_figures(tmp_path: Path, more: list[str]) -> None:
    write_tree(tmp_path, TWO)
    out, file = tmp_path / "bag", tmp_path / "f.json"
    topics = ["--image-topic", "/a", "--truth-topic", "/b", "--seed-topic", "/c", "--annotations", "Annotations"]
    command = [
        "bag",
        "from-davis",
        "--root",
        str(tmp_path),
        "--sequence",
        "ball",
        "--out",
        str(out),
        "--json",
        str(file),
    ]
    assert main([*command, *topics, *more]) == 0
    found = json.loads(file.read_text())
    image = "/a/compressed" if more else "/a"
    assert found == {
        "path": str(out),
        "counts": {image: 5, "/b": 5, "/c": 1},
        "ids": [1, 2],
        "label_encoding": "mono8",
        "labels": "values are ids, 255 does not occur",
        "late": {},
    }
    with BagReader(out) as bag:
        assert {name: topic.count for name, topic in bag.topics.items()} == found["counts"]


def needs_ros() -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")


def test_bag_play_takes_all_its_flags_and_writes_its_figures(tmp_path: Path) -> None:
    needs_ros()
    from test_replay import REMAP, WoodenTracker

    write_tree(tmp_path, TWO)
    from_davis(tmp_path, "ball", tmp_path / "bag", fps=10.0)
    rules = [f"{name}:={other}" for name, other in REMAP.items()]
    command = ["bag", "play", str(tmp_path / "bag"), "--json", str(tmp_path / "f.json"), "--remap", *rules]
    options = [
        "--lockstep",
        "--tracker",
        "/tracker",
        "--subscribers",
        "1",
        "--loops",
        "2",
        "--clock",
        "--timeout",
        "60",
    ]
    topics = [
        "--image-topic",
        "/camera/image_raw",
        "--seed-topic",
        "/camera/seed_mask",
        "--topics",
        "/camera/seed_mask",
    ]
    with WoodenTracker() as tracker:
        assert main([*command, *options, *topics, "--rate", "2"]) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["published"] == {"/camera/image_raw": 10, "/tracker/seed_mask": 2}
    assert len([event for event in tracker.events if event[0] == "image"]) == 10


def test_seed_takes_all_its_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_ros()
    from test_replay import STAMPS, WoodenTracker

    write_labels(tmp_path / "mask.png", TWO[0])
    topics = ["--topic", "/tracker/seed_mask", "--result-topic", "/tracker/seed_result"]
    with WoodenTracker() as tracker:
        command = ["seed", "--mask", str(tmp_path / "mask.png"), *topics, "--stamp", str(STAMPS[1]), "--timeout", "60"]
        assert main(command) == 0
    assert tracker.events == [("seed", STAMPS[1])] and capsys.readouterr().out.startswith("applied")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--topic", "a b", "Invalid topic name"),
        ("--topic", "", "Invalid topic name"),
        ("--result-topic", "//x//", "Invalid topic name"),
        ("--timeout", "nan", "timeout must be >= 0 s and finite, got nan"),
        ("--timeout", "inf", "timeout must be >= 0 s and finite, got inf"),
    ],
)
def test_seed_refuses_what_is_no_topic_and_no_time_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, message: str
) -> None:
    needs_ros()
    write_labels(tmp_path / "mask.png", TWO[0])
    assert main(["seed", "--mask", str(tmp_path / "mask.png"), flag, value]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
