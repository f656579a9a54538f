# SPDX-License-Identifier: Apache-2.0
"""`maskrnn evaluate --ablate`: each row is the row before and one part more."""

import csv
import dataclasses
import doctest
import json
import re

import pytest
import world
import yaml
from test_evaluate import FRAMES, QUICK, evaluate, figures, write_tree
from test_evaluate import weights as weights  # a fixture

from maskrnn_ros.config import Config, to_flat, with_values
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.evaluation import presets, run
from maskrnn_ros.evaluation.ablation import ablate, prepare, table
from maskrnn_ros.evaluation.presets import ABLATION, TUNED, AblationRow, ablation_configs, apply_preset
from maskrnn_ros.evaluation.run import Task
from maskrnn_ros.labels import read_labels

MEASURED = ["warped mask", "+ edge refinement"]
MISSING = ["appearance only", "+ flow stream", "+ recurrence", "+ target model"]
ROWS = [MEASURED[0], *MISSING, MEASURED[1]]
NO_WEIGHTS = "none.safetensors"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Settings without a network, as a file."""
    file = tmp_path_factory.mktemp("config") / "quick.yaml"
    values = {**to_flat(QUICK), "network.enabled": False, "network.weights": NO_WEIGHTS}
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    return file


def changed(one, other):
    one, other = to_flat(one), to_flat(other)
    return {key for key in one if one[key] != other[key]}


def test_without_weights_the_rows_of_the_network_are_told_and_not_measured():
    config = with_values(Config(), working_size=320, network__enabled=False, network__weights=NO_WEIGHTS)
    configs = dict(zip([row.name for row in ABLATION], ablation_configs(config), strict=True))
    assert list(configs) == ROWS
    assert [configs[name] for name in MISSING] == [None] * 4
    assert changed(configs["warped mask"], configs["+ edge refinement"]) == {"refinement.enabled"}
    assert changed(configs["warped mask"], apply_preset("warp", config)) == {"gate.enabled"}


def test_with_weights_each_row_has_one_part_more_and_the_last_is_the_tracker_as_configured(weights):
    config = with_values(Config(), working_size=320, network__weights=weights)
    configs = dict(zip([row.name for row in ABLATION], ablation_configs(config), strict=True))
    assert list(configs) == ROWS and None not in configs.values()
    steps = [changed(configs[a], configs[b]) for a, b in zip(ROWS, ROWS[1:], strict=False)]
    assert steps == [
        {"network.enabled", "network.flow_stream", "network.hidden", "gate.enabled"},
        {"network.flow_stream"},
        {"network.hidden"},
        {"adaptation.method"},
        {"refinement.enabled"},
    ]
    assert configs["+ edge refinement"] == apply_preset("default", config)
    assert not configs["warped mask"].network.enabled and configs["appearance only"].network.enabled
    tuned = ablation_configs(config, TUNED)
    assert [one.adaptation.method for one in tuned if one] == ["none", *["recursive"] * 4]
    assert tuned[-1] == configs["+ edge refinement"]
    assert [row.name for row in TUNED] == [name for name in ROWS if name != "+ target model"]


def test_with_weights_the_rows_of_the_network_are_measured(tree, weights):
    config = with_values(QUICK, network__weights=weights)
    task = Task(convention="davis2017", preset="default", config=config)
    rows = (*ABLATION[:3], AblationRow(name="+ box loss", missing="a training run of its own"))
    found = ablate(find_clips(tree, names=["one"]), task, 1, lambda result, own: None, rows)
    assert [row.is_whole for row in found.rows] == [True] * 3 + [False]
    assert found.rows[-1].reason == "needs a training run of its own"
    assert found.last.summary()["j_mean"] > 0.4


def test_rows_have_folders_of_their_own():
    assert len({row.slug for row in ABLATION}) == len(ABLATION)
    assert not doctest.testmod(presets).failed


def test_the_table_has_every_row_and_its_figures_are_those_of_the_same_settings_alone(tree, quick, tmp_path, capsys):
    out, file, alone = tmp_path / "out", tmp_path / "ablation.json", tmp_path / "alone.json"
    assert evaluate(tree, "--ablate", "--config", quick, "--out", out, "--json", file) == 0
    printed = capsys.readouterr().out
    found = figures(file)
    assert list(found) == ["convention", "labels", "summary", "objects", "streaming", "online", "ablation"]
    rows = {row["row"]: row for row in found["ablation"]}
    assert list(rows) == ROWS
    for name in MISSING:
        reason = f"needs the network: found no weights '{NO_WEIGHTS}'"
        assert rows[name] == {"row": name, "marked": None, "summary": None, "reason": reason}
        assert re.search(rf"^{re.escape(name)} +- +- +- +- +-  {re.escape(reason)}$", printed, re.MULTILINE)
    assert {(rows[name]["marked"], rows[name]["reason"]) for name in MEASURED} == {("switched", None)}
    assert found["summary"] == rows["+ edge refinement"]["summary"]
    assert "convention davis2017" in printed
    # another way to the same settings: the default preset with a file that says them
    values = {**to_flat(QUICK), "refinement.enabled": False, "network.enabled": False}
    (tmp_path / "row.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    assert evaluate(tree, "--config", tmp_path / "row.yaml", "--out", tmp_path / "alone", "--json", alone) == 0
    expected, actual = figures(alone)["summary"], rows["warped mask"]["summary"]
    assert expected.pop("fps") and actual.pop("fps")
    assert actual == expected
    for path in (tmp_path / "alone" / "one").glob("*.png"):
        assert (read_labels(path) == read_labels(out / "warped-mask" / "one" / path.name)).all()
    check_files(out, rows)


def check_files(out, rows):
    lines = list(csv.DictReader((out / "ablation.csv").open()))
    assert [line["row"] for line in lines] == ROWS
    jf = [rows[name]["summary"]["jf_mean"] for name in MEASURED]
    gains = [float(line["gain"]) for line in lines[len(MISSING) + 1 :]]
    assert gains == pytest.approx([now - before for before, now in zip(jf, jf[1:], strict=False)], abs=1e-12)
    (alone,) = csv.DictReader((out / "edge-refinement" / "summary.csv").open())
    assert (alone["preset"], alone["marked"]) == ("+ edge refinement", "switched")
    assert {line["gain"] for line in lines[: len(MISSING) + 1]} == {""}
    page = (out / "report.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == len(MEASURED) and all((out / link).is_file() for link in links)
    assert len(list((out / "warped-mask" / "two").glob("*.png"))) == FRAMES


def test_a_row_whose_part_comes_is_measured_as_soon_as_it_says_its_values(tree):
    rows = (AblationRow(name="first", missing="a part"), AblationRow(name="second", values={"gate.enlarge": 2.0}))
    filled = (dataclasses.replace(rows[0], missing=None, values={"gate.enabled": False}), rows[1])
    task = Task(convention="davis2017", preset="default", config=world.WARP_ONLY)
    clips = find_clips(tree, names=["one"])
    before, after = (ablate(clips, task, 1, lambda result, own: None, which) for which in (rows, filled))
    assert [row.result is None for row in before.rows] == [True, False]
    assert [row.result is None for row in after.rows] == [False, False]
    assert before.gains() == [None, None] and after.gains()[1] is not None
    assert [row.reason for row in before.rows] == ["needs a part", ""]
    assert ablation_configs(world.WARP_ONLY, filled)[1] == with_values(
        world.WARP_ONLY, gate__enabled=False, gate__enlarge=2.0
    )


def test_ctrl_c_keeps_the_rows_that_are_done_and_resume_does_the_rest(tree, tmp_path, capsys, monkeypatch, weights):
    tracked, real = [], run.evaluate_clip

    def interrupted(clip, task, advance):
        tracked.append((task.row, clip.name))
        if tracked == [(row, name) for row in ROWS[:2] for name in ("one", "two")]:
            raise KeyboardInterrupt
        return real(clip, task, advance)

    monkeypatch.setattr(run, "evaluate_clip", interrupted)
    quick = tmp_path / "quick.yaml"
    values = {"flow.preset": "ultrafast", "working_size": 96, "network.weights": weights}
    quick.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    out, file = tmp_path / "out", tmp_path / "f.json"
    common = ("--ablate", "--config", quick, "--out", out, "--json", file)
    assert evaluate(tree, *common) == 130
    said = capsys.readouterr()
    assert "interrupted: 1 of 6 rows are done, missing are appearance only, + flow stream" in said.err
    assert "--resume goes on" in said.err
    rows = {row["row"]: row for row in figures(file)["ablation"]}
    assert rows["appearance only"]["reason"] == "interrupted: missing are two"
    assert rows["+ recurrence"]["summary"] is None and rows["+ recurrence"]["reason"] == "interrupted"
    lines = list(csv.DictReader((out / "ablation.csv").open()))
    gain = next(line for line in lines if line["row"] == "appearance only")["gain"]
    assert gain == "", "other sequences than in the row before"
    assert evaluate(tree, *common, "--resume", "--sequences", "one", "--convention", "davis2016") == 2
    assert "--resume expected convention = 'davis2017'" in capsys.readouterr().err
    del tracked[:]
    assert evaluate(tree, *common, "--resume") == 0
    assert [row for row, _ in tracked] == ["appearance only"] + [name for name in ROWS[2:] for _ in range(2)]
    assert json.loads(file.read_text())["ablation"][-1]["reason"] is None


def test_what_is_in_the_folder_stays_without_force_and_a_plain_run_is_not_resumed(tree, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(tree, "--preset", "static", "--out", out) == 0
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    for extra in ([], ["--resume"]):
        assert evaluate(tree, "--ablate", "--out", out, *extra) == 2
        assert "is not empty; give another folder, --force, or --resume an ablation" in capsys.readouterr().err
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    task = Task(convention="davis2017", preset="default", config=Config(), out=out)
    prepare(task, force=True, resume=False)
    assert (out / "warped-mask").is_dir()


def test_without_any_row_measured_there_is_a_table_of_reasons():
    rows = (AblationRow(name="first", missing="a part"),)
    found = ablate([], Task(convention="davis2017", preset="default", config=Config()), 1, lambda *_: None, rows)
    assert re.search(r"^first( +-){5}  needs a part$", table(found), re.MULTILINE)
    with pytest.raises(ValueError, match="expected a measured row, found none"):
        found.to_json()
