# SPDX-License-Identifier: Apache-2.0
"""tools/measure_prompts.py: figures of several backends on the same objects."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from training_bench import write_picture, write_still

TOOL = Path(__file__).resolve().parent.parent / "tools" / "measure_prompts.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_prompts", TOOL)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "measure_prompts", found)  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


def red_box(number: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.full((90, 120, 3), 90, np.uint8)
    mask = np.zeros((90, 120), np.uint8)
    mask[20 + number : 60, 30:80] = 255
    image[mask > 0] = (220, 40, 40)
    return image, mask


def test_backends_are_measured_on_the_same_objects(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_still(tmp_path / "set", number, *red_box(number))
    backends = ["--backend", "prompt_bench:reddish", "--backend", "prompt_bench:nothing"]
    file = tmp_path / "figures.json"
    common = ["--root", str(tmp_path / "set"), "--images", "2", "--clicks", "3", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["measure_prompts.py", *common, *backends])
    tool.main()
    found = json.loads(file.read_text())["set"]
    good, bad = found["prompt_bench:reddish"], found["prompt_bench:nothing"]
    assert set(good) == set(bad) and {"1 click", "2 clicks", "3 clicks", "box", "NoC@85"} <= set(good)
    assert all(row["objects"] == 2 for row in good.values())
    assert good["1 click"]["mean"] > 0.95 and good["box"]["median"] > 0.95 and good["NoC@85"]["mean"] == 1
    assert bad["3 clicks"]["mean"] == 0 and bad["NoC@85"]["mean"] == 3
    assert "set, prompt_bench:nothing: 2 objects" in capsys.readouterr().out


def test_of_the_training_data_only_what_is_held_out_is_taken(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    pictures = [cv2.resize(random.integers(0, 255, (9, 12, 3), np.uint8), (120, 90)) for _ in range(4)]
    from maskrnn_ros.training.split import Split, picture_hash

    for number, picture in enumerate(pictures):
        write_still(tmp_path / "ecssd", number, picture, red_box(0)[1])
    for clip in ("held_a", "b"):
        write_picture(tmp_path / "rendered/JPEGImages" / clip / "00000.png", red_box(0)[0])
        (tmp_path / "rendered/Annotations" / clip).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / "rendered/Annotations" / clip / "00000.png"), red_box(0)[1] // 255)
    held = Split(clips=(), motion=(), stills={"ecssd": (picture_hash(pictures[2]).tobytes().hex(),)})
    monkeypatch.setattr(tool, "read_split", lambda: held)
    args = type("Args", (), {"root": None, "data": tmp_path, "sets": "ecssd,rendered", "images": 10})()
    sets = {name: list(found) for name, found in tool._sets(args).items()}
    assert [len(found) for found in sets.values()] == [1, 1]
    np.testing.assert_array_equal(sets["ecssd"][0].image, pictures[2])
    args.sets = "pennfudan"
    with pytest.raises(ValueError, match="expected stills of the set pennfudan, found none"):
        tool._sets(args)


def test_objects_are_tracked_from_their_truth_a_click_and_a_box(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        image, mask = red_box(number)
        write_picture(tmp_path / f"rendered/JPEGImages/held_a/{number:05d}.png", image)
        write_picture(tmp_path / f"rendered/JPEGImages/other/{number:05d}.png", image)
        for name in ("held_a", "other"):
            (tmp_path / "rendered/Annotations" / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / f"rendered/Annotations/{name}/{number:05d}.png"), mask // 255)
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["measure_prompts.py", "--data", str(tmp_path), "--track", "--json", str(file)])
    tool.main()
    found = json.loads(file.read_text())
    assert {way: list(clips) for way, clips in found.items()} == {way: ["held_a"] for way in ("exact", "click", "box")}
    assert all(0.5 < found[way]["held_a"]["J"] <= 1 for way in found)
    assert "rendered" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected held out clips"):
        tool.track_clips(tmp_path / "none", 10)


def test_the_confidence_of_one_that_has_any_is_reported(tool: ModuleType) -> None:
    from prompt_bench import Reddish, reddish

    from maskrnn_ros.prompts.learned import LearnedPrompts

    image, mask = red_box(0)
    backends = {"unsure": LearnedPrompts(Reddish(log_odds=0.4), min_confidence=1.0), "other": reddish()}
    found = tool.measure([tool.Picture(image, (mask > 0).astype(np.int32))], backends, clicks=1)
    assert found["unsure"]["confidence"]["prompts"] == 4 and found["unsure"]["confidence"]["unsure"] == 1
    assert "confidence" not in found["other"]


def test_the_seed_of_a_way_is_what_its_prompts_find(tool: ModuleType) -> None:
    from prompt_bench import nothing, reddish

    image, mask = red_box(0)
    truth = (mask > 0).astype(np.int32)
    np.testing.assert_array_equal(tool.marked(image, truth, "exact", nothing()), truth)
    for way in ("click", "box"):
        assert ((tool.marked(image, truth, way, reddish()) > 0) == (truth > 0)).mean() > 0.98
        assert not tool.marked(image, truth, way, nothing()).any()


def test_a_confidence_is_held_against_the_truth(tool: ModuleType) -> None:
    right = tool._belief([(0.2, 0.1), (0.9, 0.8), (0.6, 0.7), (0.4, 0.3)])
    assert right["correlation"] > 0.9 and right["error"] == pytest.approx(0.1)
    assert (right["unsure"], right["bad"], right["unsure_of_bad"], right["bad_of_unsure"]) == (0.5, 0.5, 1, 1)
    wrong = tool._belief([(0.9, 0.1), (0.2, 0.8), (float("nan"), 0.0)])
    assert (
        wrong["prompts"] == 2
        and wrong["correlation"] < -0.9
        and (wrong["unsure_of_bad"], wrong["bad_of_unsure"]) == (0, 0)
    )
