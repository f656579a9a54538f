# SPDX-License-Identifier: Apache-2.0
"""tools/make_gallery.py on a small generated data set."""

import csv
import doctest
import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from test_evaluate import evaluate, write_tree

TOOL = Path(__file__).resolve().parent.parent / "tools" / "make_gallery.py"
J = {"a": 0.3, "b": 0.9, "c": 0.1, "d": 0.8, "e": 0.5, "f": 0.7, "g": 0.2, "h": 0.6}


@pytest.fixture(scope="module")
def gallery():
    specification = importlib.util.spec_from_file_location("make_gallery", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def make(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def test_the_four_best_and_the_two_worst_by_the_mean_over_their_objects_are_chosen(gallery, tmp_path):
    with (tmp_path / "per_object.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sequence", "id", "j_mean"])
        for name, j in J.items():
            writer.writerows([[name, 1, j + 0.1], [name, 2, j - 0.1]])
    assert gallery.chosen(gallery.by_sequence(tmp_path)) == ["b", "d", "f", "h", "g", "c"]
    assert doctest.testmod(gallery).attempted and not doctest.testmod(gallery).failed


def test_the_picture_has_a_row_for_each_clip_and_is_not_overwritten(tmp_path):
    root, out, file = write_tree(tmp_path / "tree"), tmp_path / "out", tmp_path / "mine.jpg"
    assert evaluate(root, "--preset", "static", "--out", out) == 0
    common = ("--root", root, "--results", out)
    assert make(*common).returncode == 0
    height, width = cv2.imread(str(out / "gallery.jpg")).shape[:2]
    assert (height, width) == (2 * (22 + 300 * 96 // 128), 4 * 300)
    assert make(*common, "--sequences", "two", "--width", "200", "--out", file).returncode == 0
    assert cv2.imread(str(file)).shape == (22 + 150, 800, 3)
    before = file.read_bytes()
    again = make(*common, "--out", file)
    assert again.returncode == 2 and "exists already; give another file or --force" in again.stderr
    assert file.read_bytes() == before
    assert make(*common, "--out", file, "--force").returncode == 0
    assert file.read_bytes() == (out / "gallery.jpg").read_bytes()


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    root = write_tree(tmp_path / "tree", ("one",))
    none = make("--root", root, "--results", tmp_path)
    assert none.returncode == 2 and "expected the results of maskrnn evaluate --out, found no" in none.stderr
    assert evaluate(root, "--preset", "static", "--out", tmp_path / "out") == 0
    unknown = make("--root", root, "--results", tmp_path / "out", "--sequences", "three")
    assert unknown.stderr.splitlines() == ["make_gallery: expected sequences of the results, one; found 'three'"]
