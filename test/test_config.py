# SPDX-License-Identifier: Apache-2.0
"""Settings refuse nonsense by name, and files, fields and parameters agree."""

import dataclasses
import math
from pathlib import Path

import pytest
import yaml

from maskrnn_ros import setting
from maskrnn_ros.config import Config, from_flat, settings, to_flat, with_values
from maskrnn_ros.locator.locate import LocatorConfig
from maskrnn_ros.parameter_file import load
from maskrnn_ros.sections import BufferConfig
from maskrnn_ros.setting import Value, renewed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gate.enlarge", 0.5, r"gate.enlarge must be >= 1, got 0.5"),
        ("gate.enlarge", 0, r"gate.enlarge must be >= 1, got 0"),
        ("gate.enlarge", 10**400, r"gate.enlarge must be <= 10, got a number of 1329 bits"),
        ("gate.enlarge", "1.5", "gate.enlarge must be float, got str '1.5'$"),
        ("gate.enlarge", True, "gate.enlarge must be float, got bool True$"),
        ("gate.enlarge", [1.0] * 1000, r"gate.enlarge must be float, got list \[1.0, .*\] \(920 more\)$"),
        ("gate.enlarge", float("nan"), "gate.enlarge must be finite, got nan"),
        ("buffer.megabytes", 0, "buffer.megabytes must be >= 1, got 0"),
        ("buffer.megabytes", True, "buffer.megabytes must be int, got bool True"),
        ("buffer.seconds", 1e9, "buffer.seconds must be <= 600, got 1000000000.0"),
        ("working_size", 63, r"working_size must be >= 64 \(or 0\), got 63"),
        ("working_size", 512.0, "working_size must be int, got float 512.0"),
        ("flow.preset", "best", "flow.preset must be one of auto, ultrafast, fast, medium, got 'best'"),
        ("flow.preset", "x" * 1000, r"got 'x{80}' \(920 more\)$"),
        (
            "compile",
            False,
            "compile must be one of off, default, reduce-overhead, got bool False: YAML reads off as a boolean; "
            'write "off" in quotes, for a shell \'"off"\'',
        ),
        ("mask_encoding", True, "got bool True: YAML reads on, off, yes and no as a boolean; write a word in quotes"),
        ("device", 0, "device must be str, got int 0: write it in quotes"),
        ("device", "gpu", "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("flow.presets", 1, "unknown setting 'flow.presets'; did you mean flow.preset?"),
        ("q", 1, "unknown setting 'q'; all settings: docs/reference.md"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_flat({name: value})


def test_flat_and_nested_are_the_same_settings() -> None:
    changed = with_values(Config(), gate__enlarge=2.0, device="cpu")
    assert (changed.gate.enlarge, changed.device) == (2.0, "cpu")
    assert from_flat(to_flat(changed)) == changed
    assert [name for name, _, _ in settings()] == list(to_flat(changed))


def test_every_setting_has_a_sentence_and_every_number_a_range() -> None:
    for name, default, known in settings():
        assert known.help.endswith("."), name
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            assert known.low is not None and known.high is not None, name


def test_an_integer_will_do_for_every_double_and_becomes_one() -> None:
    for section in (Config, LocatorConfig):
        for name, default, known in settings(section):
            assert type(default) is not float or type(known.take(name, default, float)) is float
            whole = math.ceil(known.low or 0)
            if type(default) is float and whole <= known.high:
                assert (type(known.take(name, whole, float)), known.take(name, whole, float)) == (float, whole), name
    assert to_flat(from_flat({"buffer.seconds": 60}))["buffer.seconds"] == 60.0
    assert type(BufferConfig(seconds=3).seconds) is float


def test_a_number_will_do_where_the_words_are_numbers() -> None:
    assert from_flat({"mono16_bits": 12}) == from_flat({"mono16_bits": "12"})
    with pytest.raises(ValueError, match="mono16_bits must be one of auto, 8, 9"):
        from_flat({"mono16_bits": 7})


def test_what_was_replaced_is_refused_with_the_name_of_its_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        setting.Replaced(name="gate.size", by="write gate.enlarge instead"),
        setting.Replaced(name="compile", value="off", by="write compile: none instead"),
    )
    monkeypatch.setattr(setting, "REPLACED", rows)
    with pytest.raises(ValueError, match="^gate.size is no setting any more: write gate.enlarge instead$"):
        from_flat({"gate.size": 1.0})
    for value in ("off", False):  # YAML reads the one as the other
        with pytest.raises(ValueError, match="^compile: off is no value any more: write compile: none instead$"):
            from_flat({"compile": value})
    assert from_flat({"compile": "default", "gate.enlarge": 1.0}).compile == "default"


def test_the_old_word_for_no_adaptation_is_taken_wherever_settings_come_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    none = with_values(Config(), adaptation__method="none")
    for value in ("off", False):
        assert from_flat({"adaptation.mode": value}) == none
    assert with_values(Config(), adaptation__mode="off") == none
    file = tmp_path / "old.yaml"
    for word in ('"off"', "off"):
        caplog.clear()
        file.write_text(f"/**:\n  ros__parameters:\n    adaptation:\n      mode: {word}\n")
        assert load(file) == none
        assert caplog.messages == [
            f"{file}: adaptation.mode: off is no value any more, taken as adaptation.method: none"
        ]
    assert "adaptation.mode" not in renewed({"adaptation.mode": "off"}, lambda line: None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        # at once and the same every time, which is what blocking asked for; nothing is in the background
        (
            {"adaptation.mode": "blocking"},
            "adaptation.mode is no setting any more, ignored: adaptation.method: recursive",
        ),
        ({"adaptation.mode": "background"}, "adaptation.mode is no setting any more, ignored: adaptation.method:"),
        (
            {"matching.enabled": True},
            "matching.enabled: True is no value any more, ignored: the network always matches",
        ),
        (
            {"network.matching": True},
            "network.matching: True is no value any more, ignored: the network always matches",
        ),
        ({"max_latency_ms": 0.0}, "max_latency_ms: 0.0 is no value any more, ignored: quality is chosen at configure"),
        ({"max_latency_ms": 0}, "max_latency_ms: 0.0 is no value any more, ignored: quality is chosen at configure"),
    ],
)
def test_what_an_old_file_said_and_is_so_anyway_is_ignored_with_one_warning(
    values: dict[str, Value], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert from_flat({**values, "working_size": 320}) == with_values(Config(), working_size=320)
    (line,) = caplog.messages
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"network.weights": "streams"},
            "network.weights: streams is no value any more: the two-stream network is gone",
        ),
        ({"trunk.weights": "streams"}, "trunk.weights: streams is no value any more: the two-stream network is gone"),
        ({"trunk.weights": "imagenet"}, "trunk.weights: imagenet is no value any more: .* write shipped"),
        ({"matching.enabled": False}, "matching.enabled is no setting any more: the network always matches"),
        ({"network.matching": False}, "network.matching is no setting any more: the network always matches"),
        ({"matching.top_k": 5}, "matching.top_k is no setting any more: the network always matches"),
        ({"prior.weight": 1.0}, "prior.weight is no setting any more: the network weighs its parts itself"),
        ({"adaptation.weight": 0.5}, "adaptation.weight is no setting any more: the network weighs its parts itself"),
        ({"max_latency_ms": 40.0}, "max_latency_ms is no setting any more: quality is chosen at configure"),
        (
            {"max_latency_ms": False},
            "max_latency_ms is no setting any more: quality is chosen at configure and stays; ",
        ),
        ({"quality": "low"}, "quality: low is no value any more: write medium; with few pixels set working_size"),
        ({"adaptation.views": 5}, "adaptation.views is no setting any more: the views .* are no settings"),
    ],
)
def test_what_an_old_file_said_and_nobody_does_any_more_is_refused_with_what_to_write(
    values: dict[str, Value], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    for read in (lambda: from_flat(values), lambda: load(file)):
        with pytest.raises(ValueError, match=said) as refused:
            read()
        assert "\n" not in str(refused.value)


def test_no_setting_that_was_replaced_still_exists() -> None:
    known = {name for name, _, _ in settings()}
    for row in setting.REPLACED:
        if row.value is None:
            assert row.name not in known
        elif row.name in known:
            section, _, field = row.name.rpartition(".")
            with pytest.raises(ValueError, match="must be"):
                dataclasses.replace(getattr(Config(), section) if section else Config(), **{field: row.value})
