# SPDX-License-Identifier: Apache-2.0
"""`maskrnn track`: what comes in is checked first, what goes out is whole or not there."""

import json

import cv2
import numpy as np
import pytest
import world
from PIL import Image
from test_labels import ellipse, soft_edges
from test_video import COUNT, damaged, videos  # noqa: F401

from maskrnn_ros.cli import main
from maskrnn_ros.commands import track as offline
from maskrnn_ros.config import to_flat, with_values
from maskrnn_ros.datasets.video import VideoFrames
from maskrnn_ros.labels import read_labels, write_labels

FRAMES = 4


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames", FRAMES)


def write_frames(folder, count, **how):
    folder.mkdir()
    for t in range(count):
        Image.fromarray(world.image(t)).save(folder / f"{t:05d}.png", **how)
    return folder


@pytest.fixture
def track(tmp_path):
    """Runs the command; the tracker is carried by the flow alone."""
    config = tmp_path / "config.yaml"
    values = to_flat(with_values(world.WARP_ONLY, device="cpu"))
    config.write_text(json.dumps({"/**": {"ros__parameters": values}}))
    write_labels(tmp_path / "seed.png", world.labels(0))

    def run(source, *arguments, seed=tmp_path / "seed.png", out=tmp_path / "out"):
        common = ["--frames", str(source), "--seed-mask", str(seed), "--out", str(out), "--config", str(config)]
        return main(["track", *common, *map(str, arguments)])

    return run


def masks(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_masks_have_the_names_of_the_frames(track, frames, tmp_path):
    assert track(frames) == 0
    assert masks(tmp_path / "out") == [f"{t:05d}.png" for t in range(FRAMES)]
    np.testing.assert_array_equal(read_labels(tmp_path / "out/00000.png"), world.labels(0))
    assert len(VideoFrames(tmp_path / "out/overlay.mp4")) == FRAMES


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_frames_are_tracked_upright(track, frames, tmp_path, orientation):
    turns = {3: 2, 6: 1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "turned").mkdir()
    for t in range(FRAMES):
        stored = np.ascontiguousarray(np.rot90(world.image(t), turns))
        Image.fromarray(stored).save(tmp_path / "turned" / f"{t:05d}.png", exif=exif)
    assert track(frames) == track(tmp_path / "turned", out=tmp_path / "turned_out") == 0
    for name in masks(tmp_path / "out"):
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / name), read_labels(tmp_path / "turned_out" / name))


def test_ignore_masks_belong_to_frames_by_name_and_what_is_wrong_is_said_first(track, frames, tmp_path, capsys):
    ignores = tmp_path / "ignore"
    ignores.mkdir()

    def refused(path, picture, said):
        Image.fromarray(picture).save(path)
        assert track(frames, "--ignore-masks", ignores) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
        path.unlink()

    assert track(frames, "--ignore-masks", ignores) == 2
    assert "expected ignore masks (.png, .bmp)" in capsys.readouterr().err
    mask = np.zeros((world.HEIGHT, world.WIDTH), np.uint8)
    mask[:, :40] = 1
    refused(ignores / "00002.jpg", mask, "which keep 0 as 0")
    refused(ignores / "00009.png", mask, "expected a frame of that name, found 00000 .. 00003")
    refused(ignores / "00002.png", mask[:-1], "expected 128x96 like the frame, found 128x95")
    Image.fromarray(mask).save(ignores / "00002.png")
    assert track(frames, "--ignore-masks", ignores) == 0
    assert f"1 of {FRAMES} frames have an ignore mask" in capsys.readouterr().out
    for t in range(FRAMES):
        found = read_labels(tmp_path / "out" / f"{t:05d}.png")
        assert found[:, :40].any() == (t < 2)  # then it is the frame's, and the flow alone brings nothing back


def test_a_soft_seed_is_refused_or_thresholded(track, frames, tmp_path, capsys):
    soft = soft_edges(ellipse())
    Image.fromarray(soft).save(tmp_path / "soft.png")
    assert track(frames, seed=tmp_path / "soft.png") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "many values along edges: not a label image" in line and "at most" not in line
    assert not (tmp_path / "out").exists()
    assert track(frames, "--threshold", 128, seed=tmp_path / "soft.png") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out/00000.png") > 0, soft >= 128)


def test_a_damaged_video_is_refused_before_anything_is_written(track, videos, tmp_path, capsys):  # noqa: F811
    path = damaged(videos, tmp_path, "webm", 0.4, 0.5)
    assert track(path) == 2
    assert "expected 40 frames" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert track(path, "--allow-gaps", "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["lost"] and report["frames"] == COUNT - len(report["lost"])
    kept = sorted(set(range(COUNT)) - set(report["lost"]))
    assert masks(tmp_path / "out") == [f"{number:05d}.png" for number in kept]
    assert "lost, and without masks: " in capsys.readouterr().err


def test_a_colon_in_a_folder_leaves_the_overlay_in_peace(track, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert track(frames, out="2026-01-01T10:00:00") == 0
    assert len(masks(tmp_path / "2026-01-01T10:00:00")) == FRAMES
    assert (tmp_path / "2026-01-01T10:00:00/overlay.mp4").stat().st_size


def test_a_failing_overlay_costs_no_masks(track, frames, tmp_path, monkeypatch, capsys):
    def fails(self, image):
        raise OSError("no codec today")

    monkeypatch.setattr(offline.VideoWriter, "write", fails)
    assert track(frames, "--json", tmp_path / "report.json") == 0
    assert len(masks(tmp_path / "out")) == FRAMES
    assert json.loads((tmp_path / "report.json").read_text())["overlay_error"] == "no codec today"
    assert "warning: no overlay video, the masks go on: no codec today" in capsys.readouterr().err


def test_what_fails_at_the_first_frame_leaves_no_folder(track, frames, tmp_path):
    write_labels(tmp_path / "small.png", world.labels(0)[:-1])
    assert track(frames, seed=tmp_path / "small.png") == 2
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_a_longer_run_and_leaves_other_pictures(track, frames, tmp_path, capsys):
    assert track(frames) == 0
    Image.fromarray(world.image(0)).save(tmp_path / "out/photo.png")
    assert track(frames) == 2 and "--overwrite" in capsys.readouterr().err
    assert track(write_frames(tmp_path / "short", 2), "--overwrite") == 0
    assert masks(tmp_path / "out") == ["00000.png", "00001.png", "photo.png"]
    assert track(frames, "--overwrite", out=frames) == 2
    assert "holds the frames" in capsys.readouterr().err and len(masks(frames)) == FRAMES


def test_12_bits_in_16_are_seen_as_in_8(track, frames, tmp_path):
    (tmp_path / "deep").mkdir(), (tmp_path / "grey").mkdir()
    for t in range(FRAMES):
        grey = cv2.cvtColor(world.image(t), cv2.COLOR_RGB2GRAY)
        grey[0, 0] = 255
        Image.fromarray(grey).save(tmp_path / "grey" / f"{t:05d}.png")
        Image.fromarray(np.rint(grey * (4095 / 255)).astype(np.uint16)).save(tmp_path / "deep" / f"{t:05d}.png")
    assert track(tmp_path / "grey") == track(tmp_path / "deep", out=tmp_path / "deep_out") == 0
    for name in masks(tmp_path / "out"):
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / name), read_labels(tmp_path / "deep_out" / name))
