# SPDX-License-Identifier: Apache-2.0
"""What no training may see, and what the values of a training mask mean."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from training_bench import HELD_OUT, TRAINED, write_data

from maskrnn_ros.training import sources
from maskrnn_ros.training.sources import allowed, read_material, read_videos, still_files, training_labels
from maskrnn_ros.training.split import Split, both_hashes, picture_hash, read_split


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def split_of(image: np.ndarray) -> Split:
    return Split(clips=(), motion=(), stills={"any": (picture_hash(image).tobytes().hex(),)})


def test_a_held_out_still_is_known_again_scaled_compressed_and_mirrored_and_no_other_is() -> None:
    image = picture(0)
    split = split_of(image)
    small = cv2.resize(image, (176, 132), interpolation=cv2.INTER_AREA)
    encoded = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    brighter = np.clip(image * 1.1 + 10, 0, 255).astype(np.uint8)
    for same in (image, small, encoded, brighter, image[:, ::-1]):
        assert split.holds(both_hashes(np.ascontiguousarray(same)))
    assert not any(split.holds(both_hashes(picture(seed))) for seed in range(1, 20))
    assert not Split(clips=(), motion=(), stills={}).holds(both_hashes(image))


def test_the_split_that_ships_holds_what_it_was_to_hold() -> None:
    split = read_split()
    assert HELD_OUT in split.clips and len(split.clips) == 5 and len(split.motion) == 5
    assert (len(split.stills["ecssd"]), len(split.stills["pennfudan"])) == (200, 50)
    assert sum(len(hashes) for name, hashes in split.stills.items() if name not in ("ecssd", "pennfudan")) >= 100
    assert all(len(text) == 64 for hashes in split.stills.values() for text in hashes)


def test_a_split_is_written_and_read_and_another_file_is_refused(tmp_path: Path) -> None:
    split = split_of(picture(0))
    split.write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == split
    (tmp_path / "other.json").write_text('{"clips": []}')
    with pytest.raises(ValueError, match="expected clips, motion and stills that are held out"):
        read_split(tmp_path / "other.json")


def test_255_alone_is_the_object_and_beside_others_nobody_knows() -> None:
    assert training_labels(np.array([[0, 255]])).tolist() == [[0, 1]]
    assert training_labels(np.array([[0, 1, 2, 255]])).tolist() == [[0, 1, 2, 255]]
    assert training_labels(np.array([[0, 1, 2, 255]]), "car_parts").tolist() == [[0, 1, 1, 255]]


def test_what_is_held_out_is_in_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path)
    files = still_files(data)
    held = files[2]
    split = Split(clips=(HELD_OUT,), motion=(), stills=split_of(held.read().image).stills)
    assert held not in allowed(files, split) and allowed(files, split, held_out=True) == [held]
    assert [video.name for video in read_videos(data, split, (48, 64))] == [TRAINED]
    assert [video.name for video in read_videos(data, split, (48, 64), held_out=True)] == [HELD_OUT]
    monkeypatch.setattr(sources, "read_split", lambda: split)
    material = read_material(data, "research", (48, 64))
    assert held not in material.stills and {video.name for video in material.videos} == {TRAINED}
    permissive = read_material(data, "permissive", (48, 64))
    assert {still.source for still in permissive.stills} == {"coco_mini"} and not permissive.videos
