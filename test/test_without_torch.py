# SPDX-License-Identifier: Apache-2.0
"""On a CPU nothing needs torch: commands, node and tools run where it is not installed, and never import it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ros_env  # noqa: F401  (sets the environment that rclpy reads)
import yaml

from maskrnn_ros.datasets.davis import davis_sequence
from maskrnn_ros.labels import read_labels

pytest.importorskip("onnxruntime")

CLIP = Path(__file__).resolve().parent.parent / "maskrnn_ros" / "data" / "tabletop"

BLOCKED = """
import sys

for name in ("torch", "torchvision"):
    sys.modules[name] = None
"""
"""As where they are not installed: an import of them, and of anything of them, fails."""

AFTERWARDS = """
stray = [name for name, module in sys.modules.items() if name.split(".")[0] in ("torch", "torchvision") and module]
assert not stray, stray
"""

COMMAND = f"{BLOCKED}\nfrom maskrnn_ros.cli import main\nstatus = main(sys.argv[1:])\n{AFTERWARDS}\nsys.exit(status)"

UNBLOCKED = f"import sys\nfrom maskrnn_ros.cli import main\nstatus = main(sys.argv[1:])\n{AFTERWARDS}\nsys.exit(status)"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own; it says nothing of torch."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def short_clip(root: Path, frames: int) -> Path:
    """The first frames of the shipped clip as a data set."""
    files = davis_sequence(CLIP, "tabletop")
    for path in files.frames[:frames]:
        for kind, source in (("JPEGImages", path), ("Annotations", files.annotations[path.stem])):
            place = root / kind / "tabletop" / source.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(source.read_bytes())
    return root


@pytest.mark.parametrize("script", [COMMAND, UNBLOCKED], ids=["where it is not installed", "where it is installed"])
def test_track_follows_a_clip_and_imports_no_torch(script: str, tmp_path: Path) -> None:
    root = short_clip(tmp_path / "root", 4)
    files = davis_sequence(root, "tabletop")
    seed = files.annotations[files.frames[0].stem]
    frames, out = files.frames[0].parent, tmp_path / "out"
    ended = run(script, "track", "--frames", frames, "--seed-mask", seed, "--out", out)
    assert "torch" not in ended.stderr
    expected = set(np.unique(read_labels(seed)).tolist())
    for frame in files.frames:
        assert set(np.unique(read_labels(out / f"{frame.stem}.png")).tolist()) == expected


def test_evaluate_scores_a_clip(tmp_path: Path) -> None:
    root, out = short_clip(tmp_path / "root", 3), tmp_path / "out"
    ended = run(COMMAND, "evaluate", "--root", root, "--out", out, "--json", tmp_path / "f.json")
    assert "torch" not in ended.stderr
    with (out / "per_object.csv").open(newline="") as file:
        assert np.mean([float(row["j_mean"]) for row in csv.DictReader(file)]) > 0.8


@pytest.mark.parametrize("preset", ["maskrnn", "warp", "graph", "static"])
def test_presets_and_flow_alone_need_none_either(preset: str, tmp_path: Path) -> None:
    root, quick = short_clip(tmp_path / "root", 3), tmp_path / "quick.yaml"
    quick.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"working_size": 160}}}))
    run(COMMAND, "evaluate", "--root", root, "--preset", preset, "--config", quick, "--json", tmp_path / "f.json")


def test_what_needs_torch_is_refused_in_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    script = f"{BLOCKED}\nfrom maskrnn_ros.cli import main\nsys.exit(main(sys.argv[1:]))"
    root = short_clip(tmp_path / "root", 2)
    files = davis_sequence(root, "tabletop")
    config = tmp_path / "torch.yaml"
    for values in ({"engine": "torch"}, {"flow.backend": "flownet"}, {"precision": "float16"}, {"device": "cuda"}):
        config.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
        arguments = ["track", "--frames", files.frames[0].parent, "--seed-mask", files.annotations["00000"]]
        command = [sys.executable, "-c", script, *arguments, "--out", tmp_path / "out", "--config", config]
        ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
        assert ended.returncode == 2, ended.stderr
        (line,) = [line for line in ended.stderr.splitlines() if "maskrnn" in line]
        assert "torch" in line and "pip install 'maskrnn_ros[gpu]'" in line
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "decoder", "--data", "D", "--out", "O"],
        ["export", "--out", "O"],
        ["weights", "convert-lite0", "--source", "S", "--out", "O"],
        ["evaluate", "--root", "ROOT", "--profile", "paper", "--preset", "maskrnn", "--config", "CONFIG"],
    ],
    ids=lambda words: words[0],
)
def test_commands_that_learn_or_convert_are_refused_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    script = f"{BLOCKED}\nfrom maskrnn_ros.cli import main\nsys.exit(main(sys.argv[1:]))"
    (tmp_path / "x.safetensors").touch()
    values = {"network.weights": "x.safetensors", "adaptation.method": "finetune", "adaptation.rate": 1e-5}
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    places = {"ROOT": short_clip(tmp_path / "root", 3), "CONFIG": tmp_path / "paper.yaml"}
    command = [sys.executable, "-c", script, *(str(places.get(word, word)) for word in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert "torch" in line and "pip install 'maskrnn_ros[gpu]'" in line


IMPORTS = """
import importlib

for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize(
    "modules",
    [
        [
            "maskrnn_ros.tracker_node.node",
            "maskrnn_ros.ros.node_process",
            "maskrnn_ros.tracker_node.worker",
            "maskrnn_ros.replay.player",
        ],
        ["maskrnn_ros.seed_ui.node", "maskrnn_ros.seed_ui.server", "maskrnn_ros.seed_ui.command"],
        ["maskrnn_ros.rviz_tool.node", "maskrnn_ros.rviz_tool.markers", "maskrnn_ros.tracker_node.click_point"],
        ["maskrnn_ros.locator.node", "maskrnn_ros.locator.locate", "maskrnn_ros.locator.positions"],
        ["maskrnn_ros.bags.read", "maskrnn_ros.bags.convert", "maskrnn_ros.evaluation.bag_clip"],
        [
            "maskrnn_ros.benchmark.command",
            "maskrnn_ros.benchmark.latency",
            "maskrnn_ros.commands.demo",
            "maskrnn_ros.evaluation.online.play",
        ],
    ],
    ids=["node", "seed_ui", "rviz tool", "locator", "bags", "benchmark"],
)
def test_modules_of_node_and_tools_import_no_torch(modules: list[str]) -> None:
    if "maskrnn_ros.bags.read" not in modules:
        pytest.importorskip("rclpy", reason="needs rclpy")
        pytest.importorskip("maskrnn_ros.msg", reason="needs the generated maskrnn_ros.msg: install the package")
    run(BLOCKED + IMPORTS + AFTERWARDS, *modules)


def test_the_node_builds_its_tracker_and_prompts_without_it() -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    run(
        BLOCKED
        + """
from maskrnn_ros.config import Config
from maskrnn_ros.prompts import build_prompts
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.build import warm_up

tracker = build_tracker(Config())
assert tracker.engine == "onnxruntime", tracker.engine
warm_up(tracker)
build_prompts(Config().prompts)
"""
        + AFTERWARDS
    )
