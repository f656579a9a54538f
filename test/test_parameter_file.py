# SPDX-License-Identifier: Apache-2.0
"""A parameter file means the same for the command line and for the node."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)

from maskrnn_ros.cli import main
from maskrnn_ros.config import Config, settings, to_flat, with_values
from maskrnn_ros.parameter_file import MOST_BYTES, load, parse_setting, read, write

ROOT = Path(__file__).resolve().parent.parent

SECTIONS = [
    "/**: {ros__parameters: {a: 1}}",
    "/**/tracker: {ros__parameters: {a: 1}}",
    "/*/tracker: {ros__parameters: {a: 1}}",
    "/front/tracker: {ros__parameters: {a: 1}}",
    "front/tracker: {ros__parameters: {a: 1}}",
    "/front/*: {ros__parameters: {a: 1}}",
    "/*/*: {ros__parameters: {a: 1}}",
    "front: {tracker: {ros__parameters: {a: 1}}}",
    "/front: {tracker: {ros__parameters: {a: 1, b.c: {d: 2}}}}",
    "/front/tracker: {ros__parameters: {a: 1}}\n/**: {ros__parameters: {a: 2}}",
    "/**: {ros__parameters: {a: 1}}\n/front/tracker: {ros__parameters: {a: 2}}",
    "/**/tracker: {ros__parameters: {a: 1}}\n/**: {ros__parameters: {a: 2, c: 1}}",
    "/front/camera: {ros__parameters: {a: 1}}\n/**/tracker: {ros__parameters: {b: 2}}",
    "/front/camera: {ros__parameters: {a: 1}}",
    "/**: {ros__parameters: {a: {b: {c: 1}, b.d: 2}}}",
    "",
]
WORDS = (
    "off 'off' y Y Off oFF no NO 1e5 1e-5 1E5 '5' .inf -.inf 0x10 0X1f 1_000 010 08 09.5 ~ null '' 1. .5 +1 +.5 -0 on "
    "1.5e3 yes n 2026-01-01 '1:30' 1e 0x 0b1 0o7 1.2.3 -. . e5 +-1 .e5 TRUE tRUE inf 99999999999999999999 0777 -010 "
    '1e400 INF Infinity -inf .iNf 9223372036854775807 9223372036854775808 -9223372036854775808 true "off"'
).split()


def of_ros(file: Path, namespace: str) -> dict[str, Any]:
    rclpy = pytest.importorskip("rclpy", reason="needs rclpy")
    context = rclpy.context.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    node = rclpy.create_node("tracker", namespace=namespace, context=context)
    try:
        return {name: parameter.value for name, parameter in node._parameter_overrides.items()}
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("text", SECTIONS)
def test_sections_hold_for_whom_ros_says(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    assert read(file, "tracker")[0] == of_ros(file, "/front")


def test_words_and_numbers_are_what_ros_reads(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    lines = [f"    w{number}: {word}" for number, word in enumerate(WORDS)]
    file.write_text("\n".join(["/**:", "  ros__parameters:", *lines]))
    found, expected = read(file, "tracker")[0], of_ros(file, "/")
    assert {WORDS[int(name[1:])]: repr(value) for name, value in found.items()} == {
        WORDS[int(name[1:])]: repr(value) for name, value in expected.items()
    }


def test_what_is_written_is_read_back_by_both(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    values = {
        **to_flat(with_values(Config(), adaptation__method="none", buffer__seconds=60)),
        "x.y": 'a "b" \\ é',
        "z": "1e5",
    }
    write(file, values)
    assert read(file, "tracker")[0] == values == of_ros(file, "/any/where")


def test_the_shipped_file_says_the_defaults() -> None:
    assert load(ROOT / "config" / "tracker.yaml") == Config()


def test_the_shipped_file_has_the_basic_parameters_and_no_advanced_ones() -> None:
    named = set(read(ROOT / "config" / "tracker.yaml", "tracker")[0])
    assert named == {"autostart", *(name for name, _, known in settings() if known.basic)}


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_shipped_file_has_nothing_that_is_gone_or_unknown(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(file)
    assert not caplog.messages


def test_a_file_of_an_older_version_without_adaptation_is_taken_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text('/**: {ros__parameters: {adaptation: {mode: "off"}, flow.preset: fast, matching: {enabled: true}}}')
    assert load(file) == with_values(Config(), adaptation__method="none", flow__preset="fast")
    assert caplog.messages == [
        f"{file}: adaptation.mode: off is no value any more, taken as adaptation.method: none",
        f"{file}: matching.enabled: True is no value any more, ignored: the network always matches",
    ]


def test_a_file_may_say_a_part_and_what_belongs_to_others_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "camera: {ros__parameters: {fps: 30, working_size: 640, aliases: [a, b]}}\n"
        "/front/tracker:\n  ros__parameters:\n    use_sim_time: true\n    gate: {enlarge: 3}\n    flow.preset: fast\n"
        "    qos_overrides./image.subscription.depth: 3\n    working_size: 224\n"
        "locator: {ros__parameters: {working_size: 96}}\n"
    )
    assert load(file) == with_values(Config(), gate__enlarge=3.0, flow__preset="fast", working_size=224)


def test_trackers_of_two_namespaces_must_agree(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    text = "/{}/tracker: {{ros__parameters: {{working_size: {}}}}}\n"
    file.write_text(text.format("front", 224) + text.format("rear", 224))
    assert load(file).working_size == 224
    file.write_text(text.format("front", 224) + text.format("rear", 320))
    with pytest.raises(ValueError, match="two.yaml: it has different settings for /front/tracker and /rear/tracker"):
        load(file)


def test_what_may_belong_to_another_node_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("/**: {ros__parameters: {gaet.enlarge: 3.0, use_sim_time: true, quality: high}}")
    with caplog.at_level(logging.WARNING):
        assert load(file) == with_values(Config(), quality="high")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{file}: unknown setting 'gaet.enlarge'; did you mean gate.enlarge?; it has no effect"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "mine.yaml: it is not YAML"),
        ("[1]", "expected '/..: ros__parameters: ...', got a sequence"),
        ("/**: {flow: {}}", "got no ros__parameters below /"),
        ("/**: {flow: 1}", "got no ros__parameters below /"),
        ("/**: {ros__parameters: 1}", "expected names and values below /..: ros__parameters, got a scalar"),
        ("/**: {ros__parameters: {gate: {enlarge: 0}}}", "mine.yaml: gate.enlarge must be >= 1, got 0"),
        ("/**: {ros__parameters: {device: [a]}}", "mine.yaml: device must be str, got list .'a'."),
        ("/**: {ros__parameters: {device: [{a: 1}]}}", "a list of mappings is no value"),
        ("/**: {ros__parameters: {compile: off}}", 'mine.yaml: compile .* write "off" in quotes'),
        ("tracker: {ros__parameters: {gaet: 1}}", "mine.yaml: unknown setting 'gaet'"),
        ("/**: {ros__parameters: {a: &x [1], b: *x}}", "aliases .* are not taken"),
        ("? [1, 2]\n: 3", "mine.yaml: it is not YAML: expected a name, got a sequence"),
        ("/**: {? {a: 1} : 3}", "it is not YAML: expected a name, got a mapping"),
        ("/**: {ros__parameters: {? [a] : 3}}", "it is not YAML: expected a name, got a sequence"),
        ("/**: {ros__parameters: {a: " + "[" * 100_000, "mine.yaml: it is not YAML: maximum recursion"),
        ("/**: {ros__parameters: {a: \xff}}", "mine.yaml: it is not YAML: 'utf-8' codec"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        load(file)


@pytest.mark.timeout(60)  # a pipe that is opened, or 100 MB that are read, take longer
def test_what_is_no_such_file_is_refused_before_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(100_000_000)
    for name, message in (
        ("pipe.yaml", "expected a regular file, found a pipe"),
        ("large.yaml", f"expected at most {MOST_BYTES} bytes, found 100000000"),
        ("none.yaml", "No such file"),
        ("folder", "expected a file, found a folder"),
    ):
        out = tmp_path / "out"
        frames = ROOT / "maskrnn_ros/data/tabletop/JPEGImages/tabletop"
        arguments = ["track", "--frames", frames, "--seed-mask", "x.png", "--out", out, "--config", tmp_path / name]
        assert main([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line and name in line


def test_a_setting_on_the_command_line_of_a_tool_is_read_alike() -> None:
    texts = ("gate.enlarge=2", "device=cpu", "adaptation.mode='off'", "adaptation.mode=off", "flow.weights=a=b")
    assert [parse_setting(text)[1] for text in texts] == [2, "cpu", "off", False, "a=b"]
    with pytest.raises(ValueError, match="expected NAME=VALUE, got 'device'"):
        parse_setting("device")


def test_every_default_survives_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    write(file, {name: default for name, default, _ in settings()})
    assert load(file) == Config()
