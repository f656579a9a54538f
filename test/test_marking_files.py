# SPDX-License-Identifier: Apache-2.0
"""`maskrnn track --point` and `--box`: what is marked on the first frame is what ``prompts.backend`` makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import world
from PIL import Image
from prompt_bench import weights

from maskrnn_ros.cli import main
from maskrnn_ros.config import to_flat, with_values
from maskrnn_ros.labels import read_labels
from maskrnn_ros.model.torch.weights import load_trunk
from maskrnn_ros.prompts import GrabCut, Point, Prompt
from maskrnn_ros.prompts.learned import LearnedPrompts
from maskrnn_ros.prompts.torch.graph import load_prompts
from maskrnn_ros.prompts.torch.net import TorchLook
from maskrnn_ros.types import Box

BOX = Box.of_mask(world.labels(0) == 1)
assert BOX is not None
MIDDLE = (BOX.x0 + BOX.x1) / 2, (BOX.y0 + BOX.y1) / 2


@pytest.fixture
def track(tmp_path: Path) -> Callable[..., int]:
    """Runs the command with settings of ``prompts``; the tracker is carried by the flow alone."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(world.image(number)).save(folder / f"{number:05d}.png")

    def run(*arguments: str, **prompts: object) -> int:
        config = tmp_path / "config.yaml"
        changes = {f"prompts__{name}": value for name, value in prompts.items()}
        values = to_flat(with_values(world.WARP_ONLY, device="cpu", **changes))
        config.write_text(json.dumps({"/**": {"ros__parameters": values}}))
        common = ["--frames", str(folder), "--out", str(tmp_path / "out"), "--config", str(config)]
        return main(["track", *common, *arguments])

    return run


def test_grabcut_takes_a_box_and_points(track: Callable[..., int], tmp_path: Path) -> None:
    box = f"{BOX.x0},{BOX.y0},{BOX.x1},{BOX.y1}"
    assert track("--box", box, "--point", f"{MIDDLE[0]},{MIDDLE[1]}", backend="grabcut") == 0
    expected = GrabCut()(world.image(0), Prompt(box=BOX, points=(Point(x=MIDDLE[0], y=MIDDLE[1]),)))
    assert expected.any()
    np.testing.assert_array_equal(read_labels(tmp_path / "out/00000.png") == 1, expected)


def test_the_learned_one_is_named_by_the_settings(
    track: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = weights(tmp_path / "weights")
    point = "--point", f"{MIDDLE[0]},{MIDDLE[1]}"
    learned = {"backend": "learned", "weights": str(file)}
    assert track(*point, **learned, zoom="whole", min_confidence=0.0) == 0
    look = TorchLook(load_prompts(file), load_trunk())
    expected = LearnedPrompts(look, "whole")(world.image(0), Prompt(points=(Point(x=MIDDLE[0], y=MIDDLE[1]),)))
    found = read_labels(tmp_path / "out/00000.png") == 1
    assert 0 < expected.sum() < expected.size and (found != expected).mean() < 0.01
    assert track(*point, "--overwrite", **learned, min_confidence=1.0) == 2
    assert "instance 1: point (" in (said := capsys.readouterr().err) and "unsure (0." in said
    assert "click again or draw" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --seed-mask, or --point and --box, got neither"),
        (["--seed-mask", "a.png", "--point", "1,2"], "expected --seed-mask, or --point and --box, got both"),
        (["--point", "1,2", "--threshold", "9"], "--threshold is for --seed-mask, got --point or --box"),
        (["--point", "1000,2"], r"points must lie inside the"),
        (["--box", "5,5,5,9"], "a box must hold a pixel, got x 5..5"),
    ],
)
def test_what_marks_nothing_is_refused(
    track: Callable[..., int], arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert track(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "nan,1"])
def test_a_point_is_two_numbers(track: Callable[..., int], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        track("--point", text)
    assert f"expected X,Y, pixels, got '{text}'" in capsys.readouterr().err
