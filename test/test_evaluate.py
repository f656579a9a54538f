# SPDX-License-Identifier: Apache-2.0
"""The command `maskrnn evaluate` on small generated data sets."""

import csv
import doctest
import json
import re

import cv2
import numpy as np
import pytest
import world
import yaml
from engine_bench import copied
from jinja2 import UndefinedError
from PIL import Image

from maskrnn_ros.cli import main
from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.evaluation import report, run
from maskrnn_ros.evaluation.followers import GraphFollower
from maskrnn_ros.evaluation.pages import render
from maskrnn_ros.evaluation.presets import PRESETS, apply_preset
from maskrnn_ros.labels import read_labels, write_labels
from maskrnn_ros.metrics.davis import jaccard

FRAMES = 7
QUICK = with_values(Config(), device="cpu", flow__preset="ultrafast")
"""All parts, as the package comes."""

SUMMARY = [
    *("jf_mean", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay", "t_mean"),
    *("id_switches", "absent_false_rate", "frames", "objects", "fps"),
]


def write_tree(root, names=("one", "two"), shapes=world.TWO, binary=False):
    for name in names:
        for t in range(FRAMES):
            picture = root / "JPEGImages" / "480p" / name / f"{t:05d}.png"
            truth = root / "Annotations" / "480p" / name / f"{t:05d}.png"
            for path in (picture, truth):
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), world.image(t, shapes)[..., ::-1])
            labels = world.labels(t, shapes)
            write_labels(truth, np.where(labels > 0, 255, 0) if binary else labels)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("instances"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network of one's own, with its graphs."""
    return str(copied(tmp_path_factory.mktemp("weights")).network)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("binary"), binary=True)


def evaluate(root, *arguments):
    return main(["evaluate", "--root", str(root), *map(str, arguments)])


def figures(file):
    return json.loads(file.read_text())


def truth_as_predictions(root, folder):
    for path in (root / "Annotations" / "480p").rglob("*.png"):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("preset", ["static", "warp", "graph"])
def test_a_preset_tracks_scores_and_tells(tree, tmp_path, capsys, preset):
    out, file, config = tmp_path / "out", tmp_path / "scores.json", tmp_path / "config.yaml"
    config.write_text("/**: {ros__parameters: {flow: {preset: medium}}}")  # by the flow alone it must be exact
    assert evaluate(tree, "--preset", preset, "--config", config, "--out", out, "--json", file) == 0
    found = figures(file)
    assert list(found) == ["convention", "labels", "summary", "objects", "streaming", "online"]
    assert found["convention"] == "davis2017"
    assert found["streaming"] is None and found["online"] is None
    assert list(found["summary"]) == SUMMARY
    assert found["summary"]["frames"] == 2 * (FRAMES - 2)
    assert [(row["sequence"], row["id"]) for row in found["objects"]] == [
        (sequence, i) for sequence in ("one", "two") for i in (1, 2)
    ]
    assert found["summary"]["t_mean"] is None
    assert (found["summary"]["fps"] is None) == (preset == "static")
    # by hand, from the masks that were written
    for row in found["objects"]:
        by_hand = [
            jaccard(read_labels(out / row["sequence"] / f"{t:05d}.png") == row["id"], world.labels(t) == row["id"])
            for t in range(1, FRAMES - 1)
        ]
        assert row["j_mean"] == pytest.approx(np.mean(by_hand), abs=1e-12)
        assert 0.2 < row["j_mean"] < 0.75 if preset == "static" else row["j_mean"] > 0.8
    printed = capsys.readouterr().out
    assert "convention davis2017: first and last frame not scored" in printed
    assert ("switched" in printed) == (preset == "warp")
    assert len(list(csv.DictReader((out / "per_object.csv").open()))) == 4
    (row,) = csv.DictReader((out / "summary.csv").open())
    assert row["preset"] == preset and float(row["j_mean"]) == found["summary"]["j_mean"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and page.count("data:image/jpeg;base64,") >= 8
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page needs no other file"
    assert '<meta name="viewport"' in page


def test_scores_of_written_masks_are_those_of_tracking(binary, tmp_path, capsys):
    tracked, read = tmp_path / "tracked.json", tmp_path / "read.json"
    assert evaluate(binary, "--preset", "warp", "--out", tmp_path / "out", "--json", tracked) == 0
    assert evaluate(binary, "--predictions", tmp_path / "out", "--json", read, "--out", tmp_path / "again") == 0
    first, second = figures(tracked), figures(read)
    assert first["convention"] == "davis2016"
    assert first["summary"]["t_mean"] is not None
    assert second["summary"].pop("fps") is None and first["summary"].pop("fps") > 0
    text = "labels: 255 is the object: no other value occurs"
    assert first.pop("labels") == [text]
    assert second.pop("labels") == [text, "predictions: values are ids, 255 does not occur"]
    assert first == second
    assert "convention davis2016" in capsys.readouterr().out
    assert (tmp_path / "again" / "report.html").is_file()
    assert not list((tmp_path / "again").rglob("*.png"))


def test_truth_as_prediction_is_perfect_and_first_and_last_frame_are_not_needed(tree, tmp_path):
    folder = truth_as_predictions(tree, tmp_path / "predictions")
    for name in ("one", "two"):
        (folder / name / "00000.png").unlink()
        (folder / name / f"{FRAMES - 1:05d}.png").unlink()
    assert evaluate(tree, "--predictions", folder, "--json", tmp_path / "f.json") == 0
    summary = figures(tmp_path / "f.json")["summary"]
    assert summary["j_mean"] == summary["f_mean"] == summary["j_recall"] == 1.0
    assert summary["id_switches"] == 0


def test_swapped_ids_are_told(tree, tmp_path):
    folder = truth_as_predictions(tree, tmp_path / "predictions")
    for path in folder.rglob("*.png"):
        write_labels(path, np.array([0, 2, 1])[read_labels(path)])
    assert evaluate(tree, "--predictions", folder, "--json", tmp_path / "f.json") == 0
    assert figures(tmp_path / "f.json")["summary"]["id_switches"] == 2 * 2 * (FRAMES - 2)


def test_mean_of_t_leaves_out_what_the_public_tables_leave_out(tmp_path, capsys):
    root = write_tree(tmp_path / "tree", ("dog", "swan"), binary=True)
    folder = truth_as_predictions(root, tmp_path / "predictions")
    for path in sorted((folder / "dog").iterdir())[::2]:
        write_labels(path, np.pad(np.full((60, 30), 255), ((0, 36), (0, 98))))
    assert evaluate(root, "--predictions", folder, "--json", tmp_path / "f.json") == 0
    found = figures(tmp_path / "f.json")
    dog, swan = found["objects"]
    assert dog["t_mean"] > swan["t_mean"] == found["summary"]["t_mean"]
    assert "T: mean without dog" in capsys.readouterr().out


def test_segtrack(tmp_path, capsys):
    for t in range(3):
        for i in (1, 2):
            path = tmp_path / "GroundTruth" / "birds" / str(i) / f"b{t}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.where(world.labels(t) == i, 255, 0).astype(np.uint8))
        path = tmp_path / "JPEGImages" / "birds" / f"b{t}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), world.image(t)[..., ::-1])
    assert evaluate(tmp_path, "--reader", "segtrack", "--preset", "static", "--json", tmp_path / "f.json") == 0
    found = figures(tmp_path / "f.json")
    assert found["convention"] == "segtrack2"
    assert [row["frames"] for row in found["objects"]] == [2, 2]
    assert found["summary"]["t_mean"] is None
    printed = capsys.readouterr().out
    assert "convention segtrack2: all frames but the seed" in printed and "over sequences" in printed


def test_workers_change_nothing(tree, tmp_path):
    for workers in (1, 2):
        file = tmp_path / f"{workers}.json"
        assert evaluate(tree, "--preset", "warp", "--workers", workers, "--json", file) == 0
    first, second = figures(tmp_path / "1.json"), figures(tmp_path / "2.json")
    assert first["summary"].pop("fps") and second["summary"].pop("fps")
    assert first == second


def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest(tree, tmp_path, capsys, monkeypatch):
    whole, rest = tmp_path / "whole.json", tmp_path / "rest.json"
    assert evaluate(tree, "--preset", "static", "--json", whole) == 0
    tracked, real = [], run.evaluate_clip

    def interrupted(clip, task, advance):
        if clip.name == "two" and not tracked.count("two"):
            tracked.append("two")
            raise KeyboardInterrupt
        tracked.append(clip.name)
        return real(clip, task, advance)

    monkeypatch.setattr(run, "evaluate_clip", interrupted)
    common = ("--preset", "static", "--out", tmp_path / "out", "--json", rest)
    assert evaluate(tree, *common) == 130
    assert "interrupted: 1 of 2 sequences are done, missing are two; --resume goes on" in capsys.readouterr().err
    assert figures(rest)["summary"]["objects"] == 2
    assert "Missing: two" in (tmp_path / "out" / "report.html").read_text()
    assert evaluate(tree, *common, "--resume", "--convention", "davis2016") == 2
    assert "--resume expected convention = 'davis2017', found 'davis2016'" in capsys.readouterr().err
    assert evaluate(tree, *common, "--resume") == 0
    assert tracked == ["one", "two", "two"]
    assert figures(rest) == figures(whole)


def test_nothing_is_overwritten_without_force(tree, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "f.json"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert evaluate(tree, "--preset", "static", "--out", out) == 2
    assert "is not empty; give another folder, --force, or --resume" in capsys.readouterr().err
    file.write_text("mine")
    assert evaluate(tree, "--preset", "static", "--json", file) == 2
    assert file.read_text() == "mine" and [path.name for path in out.iterdir()] == ["mine.txt"]
    assert evaluate(tree, "--preset", "static", "--out", out, "--json", file, "--force") == 0
    assert (out / "mine.txt").read_text() == "mine"


OWN = """
import numpy as np

class Still:
    def __init__(self, config):
        self.labels = None

    def seed(self, seed, frame):
        self.labels = seed.labels if self.labels is None else np.where(seed.labels, seed.labels, self.labels)
        return self.labels

    def step(self, frame):
        return self.labels

def nothing(config):
    return None
"""


def test_a_baseline_of_ones_own_is_one_file(tree, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_baseline.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own, static = tmp_path / "own.json", tmp_path / "static.json"
    assert evaluate(tree, "--preset", "own_baseline:Still", "--json", own) == 0
    assert "own_baseline:Still (baseline" in capsys.readouterr().out
    assert evaluate(tree, "--preset", "static", "--json", static) == 0
    assert figures(own)["summary"]["j_mean"] == figures(static)["summary"]["j_mean"]
    assert figures(own)["summary"]["fps"] > 0
    for name, text in (
        ("own_baseline:nothing", "expected a Follower with seed and step, got NoneType"),
        ("own_baseline:absent", "AttributeError: module 'own_baseline' has no attribute 'absent'"),
        ("no_such_module:Still", "ModuleNotFoundError: No module named 'no_such_module'"),
    ):
        assert evaluate(tree, "--preset", name, "--json", tmp_path / "f.json") == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "maskrnn evaluate:" in line]
        assert f"preset {name}: {text}" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sequences", "three"], "expected the sequence 'three'"),
        (["--split", "val"], "expected the split 'val'"),
        (["--annotations", "Masks"], "found no such folder"),
        (["--predictions", "DIR/none"], "found no such folder"),
        (["--predictions", "DIR", "--preset", "warp"], "cannot be combined with --preset"),
        (["--sequences", "one", "--split", "val"], "not both"),
        (["--preset", "maskrnn", "--config", "DIR/no_weights.yaml"], "preset 'maskrnn' needs the network: found no"),
        (
            ["--preset", "masktrack", "--config", "DIR/no_weights.yaml"],
            "needs the network: found no weights",
        ),
        (
            ["--preset", "osvos", "--config", "DIR/no_weights.yaml"],
            "needs the network: found no weights",
        ),
        (["--profile", "paper"], "--profile paper needs --preset maskrnn, masktrack, osvos, got none"),
        (["--profile", "paper", "--preset", "maskrnn"], "profile 'paper' ships no weights"),
        (
            ["--ablate", "--preset", "warp"],
            "--ablate tracks every row of its table offline; it cannot be combined with --preset",
        ),
        (["--ablate", "--predictions", "DIR"], "it cannot be combined with --predictions"),
        (["--preset", "best"], "preset must be one of default, static,"),
        (["--workers", "0"], "--workers must be >= 1, got 0"),
        (["--resume"], "--resume needs --out"),
        (["--config", "DIR/none.yaml"], "none.yaml"),
        (["--convention", "davis2016", "--predictions", "DIR/short"], "expected a mask for every scored frame"),
        (["--predictions", "DIR/small"], "expected 128x96 like"),
        (["--predictions", "DIR/extra"], "expected ids 1, 2 of the annotations, found 7"),
        (["--predictions", "DIR/colour"], "expected an indexed or grey image of ids, found RGB"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tree, tmp_path, capsys, arguments, text):
    for name in ("short", "small", "extra", "colour"):
        truth_as_predictions(tree, tmp_path / name)
    (tmp_path / "short" / "two" / "00003.png").unlink()
    write_labels(tmp_path / "small" / "two" / "00003.png", world.labels(3)[:, :-1])
    write_labels(tmp_path / "extra" / "two" / "00003.png", np.full_like(world.labels(3), 7))
    Image.new("RGB", (128, 96), (9, 8, 7)).save(tmp_path / "colour" / "two" / "00003.png")
    (tmp_path / "no_weights.yaml").write_text("/**: {ros__parameters: {network.weights: none.safetensors}}")
    arguments = [argument.replace("DIR", str(tmp_path)) for argument in arguments]
    assert evaluate(tree, *arguments, "--json", tmp_path / "f.json") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "maskrnn evaluate:" in line]
    assert text in line
    assert not (tmp_path / "f.json").exists()


def test_presets_change_only_what_they_say():
    assert apply_preset("warp", Config()).gate == Config().gate
    assert apply_preset("default", Config()) == apply_preset("static", Config()) == Config()
    assert {preset.kind for preset in PRESETS.values()} == {"as configured", "switched", "baseline"}


def test_presets_of_the_network_are_the_settings_of_the_papers(weights):
    """The table of their differences: mask, flow stream, box gate and hidden state."""
    config = with_values(Config(), network__weights=weights)
    expected = {
        "osvos": ("none", False, False, False),
        "masktrack": ("unwarped", True, False, False),
        "maskrnn": ("warped", True, True, False),
        "default": ("warped", True, False, True),
    }
    for name, values in expected.items():
        found = apply_preset(name, config)
        network = found.network
        assert (found.prior.source, network.flow_stream, network.localization) == values[:3]
        assert found.gate.enabled == (name in ("maskrnn", "default"))
        assert found.gate.spans_prior == (name != "maskrnn")
        assert network.hidden == values[3] and network.enabled and network.weights == weights
        assert found.adaptation.method == "recursive"
    assert not apply_preset("warp", with_values(config, network__enabled=True)).network.enabled


@pytest.mark.parametrize("preset", ["maskrnn", "masktrack", "osvos"])
def test_with_weights_presets_of_the_network_follow(preset, weights, tree, tmp_path):
    config, file = tmp_path / "c.yaml", tmp_path / "f.json"
    values = {**to_flat(QUICK), "network.weights": weights}
    config.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    assert evaluate(tree, "--preset", preset, "--config", config, "--sequences", "one", "--json", file) == 0
    assert figures(file)["summary"]["j_mean"] > 0.35


def test_graph_cut_snaps_to_the_object_and_forgets_what_is_gone():
    image = np.full((120, 160, 3), (40, 90, 40), np.uint8)
    image[30:90, 40:110] = (200, 60, 60)
    image = np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    exact = np.zeros((120, 160), np.float32)
    exact[30:90, 40:110] = 1
    rough = np.zeros_like(exact)
    rough[32:92, 42:112] = 1
    found = GraphFollower(Config())._cut(image, rough)
    assert jaccard(found > 0.5, exact > 0.5) > 0.97 > jaccard(rough > 0.5, exact > 0.5)
    assert not GraphFollower(Config())._cut(image, np.zeros_like(exact)).any()


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(report).attempted
    assert not doctest.testmod(report).failed


def test_what_is_filled_into_a_page_is_escaped_and_nothing_may_lack() -> None:
    objects = {"head": ["<b>"], "rows": [["a & b"]]}
    values = {"title": "T", "notes": ["1 < 2"], "head": ["row"], "objects": objects}
    row = {"name": "<script>", "link": "", "cells": [], "remark": ""}
    page = render("ablation", **values, rows=[row])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "1 &lt; 2" in page and "<th>&lt;b&gt;</th>" in page and "a &amp; b" in page
    with pytest.raises(UndefinedError, match="rows"):
        render("ablation", **values)
