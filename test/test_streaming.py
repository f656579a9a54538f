# SPDX-License-Identifier: Apache-2.0
"""Clips that are played in time: what was out by then, and its scores. Only those of the node look at a real clock."""

import csv
import dataclasses
import doctest
import json
from functools import partial

import numpy as np
import pytest
import world
from test_evaluate import FRAMES, QUICK, evaluate, figures, write_tree

from maskrnn_ros.evaluation import node_paced, run, streaming
from maskrnn_ros.evaluation.followers import TrackerFollower
from maskrnn_ros.evaluation.paced import play, stream_clip
from maskrnn_ros.evaluation.results import ClipResult, streaming_figures
from maskrnn_ros.labels import read_labels
from maskrnn_ros.metrics.davis import boundary_f, jaccard
from maskrnn_ros.tracking import build_tracker
from maskrnn_ros.tracking.ids import IdBook
from maskrnn_ros.tracking.session import SeedRequest, Session

ONE = world.TWO[:1]


class FakeTime:
    """A clock that moves when someone works or sleeps."""

    def __init__(self, nap=None):
        self.now = 100.0
        self.nap = nap
        self.on_sleep = lambda now: None

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds if self.nap is None else min(seconds, self.nap)
        self.on_sleep(self.now - 100.0)

    def kwargs(self):
        return {"clock": self.clock, "sleep": self.sleep}


class Working:
    """A follower that takes exactly so long; without another one to ask it knows the truth."""

    def __init__(self, time, seconds, follower=None, shapes=world.TWO):
        self.time, self.seconds, self.follower, self.shapes = time, seconds, follower, shapes
        self.seen = []

    def seed(self, seed, frame):
        self.seen.append(frame.stamp_ns)
        self.time.now += self.seconds
        return self.follower.seed(seed, frame) if self.follower else seed.labels

    def step(self, frame):
        self.seen.append(frame.stamp_ns)
        self.time.now += self.seconds
        if self.follower:
            return self.follower.step(frame)
        (number,) = (t for t in range(20) if world.stamp_ns(t) == frame.stamp_ns)
        return world.labels(number, self.shapes)


class WorldClip:
    """The synthetic world as a clip."""

    name = "world"

    def __init__(self, frames, shapes=world.TWO):
        self.frames, self.shapes = frames, shapes

    def __len__(self):
        return self.frames

    def stem(self, number):
        return f"{number:05d}"

    def place(self, number):
        return f"frame {number} of the world"

    def stamp_ns(self, number):
        return world.stamp_ns(number)

    def image(self, number):
        return world.image(number, self.shapes)

    def ignored(self, number):
        return None

    def truth(self, number):
        return world.labels(number, self.shapes)

    seed = truth

    @property
    def starts(self):
        return {shape.instance_id: 0 for shape in self.shapes}

    def check(self):
        return frozenset({0, *(shape.instance_id for shape in self.shapes)})


def frames(count):
    return [world.frame(t) for t in range(count)]


# --- the timeline ---


@pytest.mark.parametrize(
    ("seconds", "expected", "slack0", "slack1", "dropped"),
    [
        # the seed is out at 2.5, then frames 2, 5 (which came at that very moment), 7 and 8 at 5, 7.5, 10 and 12.5
        (2.5, [0, 2, 5, 7, 8], [None, None, None, 0, 0, 2, 2, 2, 5], [None, None, 0, 0, 2, 2, 2, 5, 5], 4),
        (0.5, list(range(9)), [None, 0, 1, 2, 3, 4, 5, 6, 7], list(range(9)), 0),
        (1.0, list(range(9)), [None, 0, 1, 2, 3, 4, 5, 6, 7], list(range(9)), 0),
        # never free before the clip has ended: frame 8 is late for all
        (50.0, [0, 8], [None] * 9, [None] * 9, 7),
    ],
)
def test_the_newest_frame_is_taken_whenever_the_follower_is_free(seconds, expected, slack0, slack1, dropped):
    time = FakeTime()
    follower = Working(time, seconds)
    line, masks = play(frames(9), {0: world.seed(0)}, follower, 1.0, **time.kwargs())
    assert follower.seen == [world.stamp_ns(t) for t in expected]
    assert list(line.shown(0)) == slack0
    assert list(line.shown(1)) == slack1
    assert line.dropped == dropped
    assert sorted(masks) == expected
    assert all((masks[t] == world.labels(t)).all() for t in expected)


def test_ages_count_from_the_arrival_and_not_from_the_taking():
    time = FakeTime()
    line, _ = play(frames(5), {0: world.seed(0)}, Working(time, 2.5), 1.0, **time.kwargs())
    # frames 0, 2 and 4 came at 0, 2 and 4 and were out at 2.5, 5 and 7.5
    assert line.ages_ms == (2500.0, 3000.0, 3500.0)


def test_a_sleep_that_ends_early_takes_no_frame_before_it_comes():
    time = FakeTime(nap=0.25)
    line, _ = play(frames(6), {0: world.seed(0)}, Working(time, 0.125), 1.0, **time.kwargs())
    assert line.ages_ms == (125.0,) * 6
    assert line.dropped == 0


def test_the_frame_of_the_seed_is_never_dropped():
    time = FakeTime()

    def clock():  # a machine so slow that frames have come before the first is looked at
        time.now += 3.0
        return time.now

    follower = Working(time, 0.0)
    play(frames(9), {0: world.seed(0)}, follower, 1.0, clock=clock, sleep=time.sleep)
    assert follower.seen[0] == world.stamp_ns(0)
    assert follower.seen[-1] == world.stamp_ns(8)


def test_progress_counts_every_frame_dropped_or_not():
    for seconds in (0.5, 2.5, 50.0):
        time, count = FakeTime(), []
        follower = Working(time, seconds)
        play(frames(9), {0: world.seed(0)}, follower, 1.0, advance=partial(count.append, 1), **time.kwargs())
        assert len(count) == 9


# --- scores ---


def test_each_frame_is_scored_with_what_was_shown_and_the_seed_is_held_before():
    time = FakeTime()
    result = stream_clip(WorldClip(9), "davis2017", lambda: Working(time, 2.5), 1.0, **time.kwargs())
    shown = {"slack0": [0, 0, 0, 0, 0, 2, 2, 2, 5], "slack1": [0, 0, 0, 0, 2, 2, 2, 5, 5]}
    for key, sources in shown.items():
        for scores in getattr(result, key):
            pairs = [
                (world.labels(source) == scores.instance_id, world.labels(t) == scores.instance_id)
                for t, source in enumerate(sources)
            ][1:-1]
            assert scores.j == tuple(jaccard(*pair) for pair in pairs)
            assert scores.f == tuple(boundary_f(*pair) for pair in pairs)
    assert (result.dropped, result.frames, result.fps) == (4, 9, 1.0)


def test_masks_that_stand_still_have_no_t():
    time = FakeTime()
    clip = WorldClip(9, ONE)
    result = stream_clip(clip, "davis2016", lambda: Working(time, 2.5, shapes=ONE), 1.0, **time.kwargs())
    assert result.slack0[0].t == (0.0,) * 7  # a shape that only shifts is steady, too
    assert stream_clip(WorldClip(9), "davis2017", lambda: Working(time, 0.5), 1.0, **time.kwargs()).slack0[0].t == ()


def test_switches_are_counted_on_what_was_shown():
    # 1 runs over where 2 was: the held seed of 1 lies on 2 from frame 4 on
    shapes = (world.Shape(1, 40, 20, 20, 20, -12, 0), world.Shape(2, 76, 20, 20, 20, -12, 0))
    time = FakeTime()
    clip = WorldClip(6, shapes)
    fast = stream_clip(clip, "davis2017", lambda: Working(time, 0.5, shapes=shapes), 1.0, **time.kwargs())
    slow = stream_clip(clip, "davis2017", lambda: Working(time, 50.0, shapes=shapes), 1.0, **time.kwargs())
    assert [scores.id_switches for scores in fast.slack1] == [0, 0]
    by_hand = [
        sum(
            np.count_nonzero((world.labels(0, shapes) == 1) & (world.labels(t, shapes) == 2))
            > np.count_nonzero((world.labels(0, shapes) == 1) & (world.labels(t, shapes) == 1))
            for t in range(1, 5)
        ),
        0,
    ]
    assert [scores.id_switches for scores in slow.slack1] == by_hand
    assert by_hand[0] == 3


def test_a_result_survives_json():
    time = FakeTime()
    played = stream_clip(WorldClip(5), "davis2017", lambda: Working(time, 1.5), 2.0, **time.kwargs())
    result = ClipResult(sequence="world", objects=played.slack1, frames=3, step_s=0.1, streaming=played)
    assert ClipResult.from_json(json.loads(json.dumps(dataclasses.asdict(result)))) == result
    without = dataclasses.replace(result, streaming=None)
    assert ClipResult.from_json(json.loads(json.dumps(dataclasses.asdict(without)))) == without


def test_figures_weigh_frames_and_need_every_clip():
    time = FakeTime()
    fast = stream_clip(WorldClip(5), "davis2017", lambda: Working(time, 0.5), 1.0, **time.kwargs())
    slow = stream_clip(WorldClip(15), "davis2017", lambda: Working(time, 50.0), 1.0, **time.kwargs())
    found = streaming_figures([fast, slow])
    assert found["drop_share"] == 13 / 20
    assert found["age_ms_p50"] == 500.0
    assert found["fps"] == 1.0
    assert found["slack1"]["j_mean"] == pytest.approx(
        np.mean([np.mean(scores.j) for scores in (*fast.slack1, *slow.slack1)]), abs=1e-12
    )
    assert streaming_figures([fast, dataclasses.replace(slow, fps=2.0)])["fps"] is None
    assert streaming_figures([fast, None]) is None
    assert streaming_figures([]) is None


# --- the follower of the node ---


def test_its_masks_are_those_of_the_session_that_the_node_runs():
    config = QUICK
    time = FakeTime()
    _, masks = play(frames(7), {0: world.seed(0)}, Working(time, 1.75, TrackerFollower(config)), 1.0, **time.kwargs())
    assert sorted(masks) == [0, 1, 3, 5, 6]
    ids = IdBook()
    session = Session(config, build_tracker, ids, report=lambda outcome: None, clock=lambda: 0.0)
    session.seed(SeedRequest(ticket=None, admission=ids.admit(world.seed(0), config), arrived=0.0))
    for number in sorted(masks):
        assert (session.process(world.frame(number)).labels == masks[number]).all()


# --- the command ---


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("instances"))


@pytest.fixture
def clock(monkeypatch):
    """The command plays by a clock on which every step takes 0.6 periods of 24 frames per second."""
    time, real = FakeTime(), run.build_follower

    def stream(clip, convention, follower, fps, advance):
        working = Working(time, 0.6 / 24, follower())
        return stream_clip(clip, convention, lambda: working, fps, advance, **time.kwargs())

    monkeypatch.setattr(run, "stream_clip", stream)
    monkeypatch.setattr(run, "runs_in_node", lambda follower, task: False)
    built = []

    def build(name, config, profile):
        built.append(name)
        return real(name, config, profile)

    monkeypatch.setattr(run, "build_follower", build)
    return built


def test_with_patience_for_one_frame_a_fast_tracker_scores_as_offline(tree, tmp_path, clock):
    file = tmp_path / "f.json"
    assert evaluate(tree, "--preset", "warp", "--streaming", "--json", file) == 0
    found = figures(file)
    assert list(found["streaming"]) == ["fps", "slack0", "slack1", "drop_share", "age_ms_p50", "age_ms_p95"]
    summary, played = found["summary"], found["streaming"]
    assert played["slack1"] == {key: summary[key] for key in played["slack1"]}
    assert {"jf_mean", "t_mean", "id_switches", "absent_false_rate"} <= played["slack1"].keys()
    assert played["slack0"]["j_mean"] < summary["j_mean"] - 0.01, "masks lag by a frame"
    assert (played["fps"], played["drop_share"]) == (24.0, 0.0)
    assert played["age_ms_p50"] == played["age_ms_p95"] == pytest.approx(600 / 24)
    # four times faster a step takes 2.4 periods
    assert evaluate(tree, "--preset", "warp", "--streaming", "--fps", "96", "--json", file, "--force") == 0
    faster = figures(file)["streaming"]
    # seen are frames 0, 2, 4 and 6 of 7
    assert (faster["fps"], faster["drop_share"]) == (96.0, pytest.approx(3 / 7))
    assert faster["slack1"]["j_mean"] < summary["j_mean"]


def test_tables_and_page_show_both_figures_beside_the_offline_one(tree, tmp_path, capsys, clock):
    out, plain = tmp_path / "out", tmp_path / "plain"
    assert evaluate(tree, "--preset", "warp", "--streaming", "--out", out, "--json", tmp_path / "f.json") == 0
    found, printed = figures(tmp_path / "f.json"), capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    for key, name in (("slack0", "slack 0"), ("slack1", "slack 1")):
        assert f"{found['streaming'][key]['j_mean']:.3f}" in lines[name]
    assert "played at 24 fps: 0.0 % of the frames dropped, masks out after 25 ms (p50)" in printed
    (row,) = csv.DictReader((out / "summary.csv").open())
    assert float(row["slack0_j_mean"]) == found["streaming"]["slack0"]["j_mean"]
    assert float(row["slack1_f_mean"]) == found["streaming"]["slack1"]["f_mean"]
    assert (row["streaming_fps"], row["drop_share"]) == ("24.0", "0.0")
    rows = list(csv.DictReader((out / "per_object.csv").open()))
    assert [float(row["j_slack1"]) for row in rows] == [float(row["j_mean"]) for row in rows]
    assert all(float(row["j_slack0"]) < float(row["j_mean"]) for row in rows)
    assert [row["f_slack0"] for row in rows] == [str(row["f_slack0"]) for row in found["objects"]]
    page = (out / "report.html").read_text()
    assert "<td>slack 0</td>" in page and "Histogram of the age of the masks" in page
    assert page.count("data:image/png;base64,") == 3
    # the masks on disk are those of the first pass, and without the flag nothing of this is there
    assert evaluate(tree, "--preset", "warp", "--out", plain, "--json", tmp_path / "p.json") == 0
    written = sorted(path.relative_to(out) for path in out.rglob("*.png"))
    assert written == sorted(path.relative_to(plain) for path in plain.rglob("*.png"))
    assert len(written) == 2 * FRAMES
    assert all((read_labels(out / path) == read_labels(plain / path)).all() for path in written)
    assert figures(tmp_path / "p.json")["streaming"] is None
    assert "slack" not in (plain / "summary.csv").read_text() + (plain / "report.html").read_text()


def test_resume_takes_what_was_played_and_refuses_another_pace(tree, tmp_path, capsys, clock):
    out, file = tmp_path / "out", tmp_path / "f.json"
    common = ("--preset", "static", "--out", out, "--json", file)
    assert evaluate(tree, *common, "--streaming") == 0
    first = figures(file)
    assert evaluate(tree, *common, "--resume", "--streaming") == 0
    assert figures(file) == first and len(clock) == 4
    assert evaluate(tree, *common, "--resume") == 2
    assert "--resume expected streaming.fps = 24.0, found None" in capsys.readouterr().err
    assert evaluate(tree, *common, "--resume", "--streaming", "--fps", "30") == 2
    assert "--resume expected streaming.fps = 24.0, found 30.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--streaming", "--workers", "2"], "--streaming needs --workers 1, got 2"),
        (["--streaming", "--predictions", "."], "it cannot be combined with --predictions"),
        (["--fps", "30"], "--fps needs --streaming"),
        (["--streaming", "--fps", "0"], "--fps must be >= 0.0001 and < 100000, got 0"),
        (["--streaming", "--fps", "nan"], "--fps must be >= 0.0001 and < 100000, got nan"),
        (["--streaming", "--fps", "inf"], "--fps must be >= 0.0001 and < 100000, got inf"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(tree, capsys, arguments, text):
    assert evaluate(tree, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


def test_examples_in_the_docstrings_run():
    assert not doctest.testmod(streaming).failed
    assert doctest.testmod(streaming).attempted


# --- as in the node ---


def test_the_node_plays_every_image_in_order_and_the_last_one_has_its_masks():
    line, masks = node_paced.play(frames(7), {0: world.seed(0)}, QUICK, 0.03)
    assert list(line.out_s) == sorted(line.out_s) and {0, 6} <= set(masks) == set(line.out_s)
    assert all(line.out_s[number] > line.arrived_s[number] for number in masks)
    assert all(masks[number].shape == world.labels(0).shape for number in masks)
    assert set(np.unique(masks[0])) == {0, 1, 2}


def test_the_node_refuses_what_the_clip_contradicts():
    with pytest.raises(RuntimeError, match="seed"):
        node_paced.play(
            frames(2), {0: dataclasses.replace(world.seed(0), labels=np.ones((9, 9), np.int32))}, QUICK, 0.01
        )
    other = dataclasses.replace(world.frame(1), image=world.image(1)[:-2])
    with pytest.raises(RuntimeError, match="like those before"):
        node_paced.play([world.frame(0), other], {0: world.seed(0)}, QUICK, 0.5)
