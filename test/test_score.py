# SPDX-License-Identifier: Apache-2.0
"""The score of a mask, and the command that fits its constants."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest

from maskrnn_ros.cli import main
from maskrnn_ros.evaluation import score_fit as tool
from maskrnn_ros.tracking import score as module
from maskrnn_ros.tracking.score import calibrated, expected_iou


def score(probability: np.ndarray, mask: np.ndarray) -> float:
    return float(calibrated(expected_iou(probability, mask)))


def test_the_expected_iou_is_that_over_many_truths_drawn_by_the_probabilities() -> None:
    random = np.random.default_rng(0)
    probability = random.random((20, 30)).astype(np.float32)
    mask = probability >= 0.5
    mask[0] = False  # another instance has won them
    truths = random.random((2000, 20, 30)) < probability
    intersections = (truths & mask).sum(axis=(1, 2))
    unions = (truths | mask).sum(axis=(1, 2))
    assert expected_iou(probability, mask) == pytest.approx(intersections.mean() / unions.mean(), abs=2e-3)


def test_a_seed_is_right_and_a_surer_mask_scores_higher() -> None:
    mask = np.ones((4, 5), bool)
    scores = [score(np.full((4, 5), p, np.float32), mask) for p in (0.5, 0.6, 0.8, 0.95, 1.0)]
    assert scores == sorted(scores) and len(set(scores)) == 5
    assert scores[0] < 0.6 and scores[-1] == pytest.approx(1.0, abs=1e-4)


def test_what_is_likely_beside_the_mask_lowers_the_score() -> None:
    mask = np.array([[True, True, False]])
    alone, doubted = (np.array([[0.9, 0.9, p]], np.float32) for p in (0.0, 0.45))
    assert score(doubted, mask) < score(alone, mask)


def test_scores_lie_between_0_and_1_whatever_is_expected() -> None:
    assert [0 <= calibrated(value) <= 1 for value in (0.0, 1e-9, 0.5, 1.0)] == [True] * 4


def test_the_tool_finds_the_constants_that_made_its_data() -> None:
    expected = np.linspace(0.2, 0.98, 50)
    truths = 1 / (1 + np.exp(0.7 - 1.8 * np.log(expected / (1 - expected))))
    offset, slope = tool.fit(expected, truths, np.linspace(1, 2, 50))
    assert (offset, slope) == (pytest.approx(-0.7), pytest.approx(1.8))


def test_every_clip_counts_the_same_in_the_fit() -> None:
    def row(clip: str, frame: int, expected: float, j: float):
        return tool.Measured(clip=clip, frame=frame, mean=0.9, expected=expected, j=j)

    short = [row("a", n, e, 0.9 * e) for n, e in enumerate((0.3, 0.6, 0.9))]
    long = [row("b", n, e, e**2) for n, e in enumerate((0.4, 0.7, 0.95))]
    assert tool.fit_rows([*short, *long * 5]) == pytest.approx(tool.fit_rows([*short, *long]))


def test_the_calibration_error_does_not_cancel_between_bins() -> None:
    estimates, truths = np.array([0.15, 0.95]), np.array([0.35, 0.75])
    assert tool.calibration_error(estimates, truths) == pytest.approx(0.2)
    assert tool.calibration_error(truths, truths) == 0
    assert tool.calibration_error(np.array([1.0]), np.array([1.0])) == 0


def test_the_command_fits_tabulates_and_draws_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep, plot = tmp_path / "kept.json", tmp_path / "score.png"
    expected = (0.3, 0.6, 0.9)
    truths = [1 / (1 + np.exp(-(0.5 + 1.2 * np.log(e / (1 - e))))) for e in expected]
    row = {"frame": 1, "mean": 0.9}
    rows = [
        {**row, "clip": clip, "expected": e, "j": j} for clip in "ab" for e, j in zip(expected, truths, strict=True)
    ]
    keep.write_text(json.dumps(rows))
    arguments = ["train", "score", "--root", str(tmp_path), "--keep", str(keep), "--fit", "--plot", str(plot)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "OFFSET, SLOPE = 0.50, 1.20" in said
    assert f"{'all':24}{6:7}{np.mean(truths):7.3f}" in said
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_the_examples_of_the_docstrings_run() -> None:
    for one in (module, tool):
        found = doctest.testmod(one)
        assert found.attempted and not found.failed
