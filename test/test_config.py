# SPDX-License-Identifier: Apache-2.0
"""Settings refuse nonsense by name, and files, fields and parameters agree."""

from pathlib import Path

import pytest

from maskrnn_ros.config import Config, from_flat, load, settings, to_flat, with_values

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gate.enlarge", 0.5, r"gate.enlarge must be >= 1, got 0.5"),
        ("gate.enlarge", 2, "gate.enlarge must be float, got int 2"),
        ("gate.enlarge", "1e-5", "gate.enlarge must be float, got str '1e-5' .write 1.0e-5"),
        ("gate.enlarge", float("nan"), "gate.enlarge must be finite, got nan"),
        ("buffer.megabytes", 0, "buffer.megabytes must be >= 1, got 0"),
        ("buffer.megabytes", True, "buffer.megabytes must be int, got bool True"),
        ("buffer.seconds", 1e9, "buffer.seconds must be <= 600, got 1000000000.0"),
        ("flow.preset", "best", "flow.preset must be one of ultrafast, fast, medium, got 'best'"),
        ("device", "gpu", "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("flow.speed", 1, "unknown setting 'flow.speed'; known are: device"),
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


def test_the_shipped_file_says_the_defaults() -> None:
    assert load(ROOT / "config" / "tracker.yaml") == Config()


def test_a_file_may_say_a_part(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "tracker:\n  ros__parameters:\n    use_sim_time: true\n    gate: {enlarge: 3.0}\n    flow.preset: fast\n"
    )
    assert load(file) == with_values(Config(), gate__enlarge=3.0, flow__preset="fast")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("[1]", "expected '/..: ros__parameters: ...', got list"),
        ("/**: {flow: {}}", "got no ros__parameters below /"),
        ("/**: {ros__parameters: {gate: {enlarge: 1}}}", "mine.yaml: gate.enlarge must be float, got int 1"),
        ("/**: {ros__parameters: {gaet: 1}}", "mine.yaml: unknown setting 'gaet'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(file)
