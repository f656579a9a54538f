# SPDX-License-Identifier: Apache-2.0
"""Sequences of generated trees in the layouts of DAVIS and SegTrack v2."""

import re

import numpy as np
import pytest
from PIL import Image

from maskrnn_ros.datasets.clips import default_convention, objects_of
from maskrnn_ros.datasets.readers import find_clips
from maskrnn_ros.labels import write_labels


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == np.int32:
        write_labels(path, array)
    else:
        Image.fromarray(array).save(path)


def labels(*ids, size=(6, 8)):
    out = np.zeros(size, np.int32)
    out.ravel()[: len(ids)] = ids
    return out


def davis(root, name="cat", middle="", count=4, annotations="Annotations", size=(6, 8)):
    for t in range(count):
        save(root / "JPEGImages" / middle / name / f"{t:05d}.jpg", np.zeros((*size, 3), np.uint8))
        save(root / annotations / middle / name / f"{t:05d}.png", labels(1, t % 3, size=size))
    return root


def refused(text, *args, **kwargs):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        for clip in find_clips(*args, **kwargs):
            clip.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("middle", ["", "480p", "Full-Resolution"])
def test_davis_sequences_are_those_below_the_annotations(tmp_path, middle):
    for name in ("dog", "cat"):
        davis(tmp_path, name, middle)
    davis(tmp_path, "other", middle, annotations="Elsewhere")
    clips = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["cat", "dog"]
    assert [path.name for path in clips[0].frames] == [f"0000{t}.jpg" for t in range(4)]
    np.testing.assert_array_equal(clips[0].truth(2), labels(1, 2))
    assert clips[0].check() == {0, 1, 2}
    assert [clip.name for clip in find_clips(tmp_path, annotations="Elsewhere")] == ["other"]
    assert [clip.name for clip in find_clips(tmp_path, names=["dog"])] == ["dog"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ImageSets/val.txt", "dog\n\ncat\n"),
        ("ImageSets/2017/val.txt", "dog\ncat"),
        (
            "ImageSets/480p/val.txt",
            "".join(f"/JPEGImages/480p/{n}/0.jpg /Annotations/480p/{n}/0.png\n" for n in ("dog", "dog", "cat")),
        ),
    ],
)
def test_a_split_names_its_sequences(tmp_path, file, text):
    for name in ("bird", "cat", "dog"):
        davis(tmp_path, name)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert [clip.name for clip in find_clips(tmp_path, split="val")] == ["dog", "cat"]
    refused("expected the split 'test' below", tmp_path, split="test")
    (tmp_path / file).write_text("\n")
    refused("expected names of sequences, found none", tmp_path, split="val")


def test_what_is_missing_is_named(tmp_path):
    refused("found no such folder", tmp_path)
    davis(tmp_path)
    refused("expected the sequence 'cow'", tmp_path, names=["cow"])
    refused("expected every sequence once, found 'cat' twice", tmp_path, names=["cat", "cat"])
    refused("reader must be one of davis, segtrack, got 'coco'", tmp_path, "coco")
    (tmp_path / "Annotations/cat/00002.png").unlink()
    refused("expected an annotation for every frame, 4, found none for 00002.jpg", tmp_path)
    (tmp_path / "Empty").mkdir()
    refused("expected a folder for each sequence in", tmp_path, annotations="Empty")
    (tmp_path / "Empty/cat").mkdir()
    refused("expected images (", tmp_path, annotations="Empty")


def test_sizes_that_differ_and_colour_images_are_refused(tmp_path):
    davis(tmp_path)
    save(tmp_path / "Annotations/cat/00002.png", labels(1, size=(8, 6)))
    refused("00002.png: expected 8x6 like", tmp_path)
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[0, 0] = 9, 8, 7
    save(tmp_path / "Annotations/cat/00002.png", colours)
    refused("00002.png: expected an indexed or grey image of ids, found RGB with 2 colours", tmp_path)


def test_convention_and_objects():
    assert default_convention(frozenset({0, 1, 255}), "davis") == "davis2016"
    assert default_convention(frozenset({0, 255}), "davis") == "davis2016"
    assert default_convention(frozenset({0, 2}), "davis") == "davis2017"
    assert default_convention(frozenset({0, 1}), "segtrack") == "segtrack2"
    assert objects_of(labels(40, 3), "davis2017") == (3, 40)
    assert objects_of(labels(255), "davis2016") == (1,)
    assert objects_of(labels(2, 1), "segtrack2") == (1, 2)
    for empty, convention in [((0,), "davis2016"), ((0,), "davis2017"), ((0,), "segtrack2")]:
        with pytest.raises(ValueError, match="expected an object in the first annotation"):
            objects_of(labels(*empty), convention)


def segtrack(root, name, objects, suffix=".png", colour=False):
    for t in range(3):
        save(root / "JPEGImages" / name / f"f_{t}{suffix}", np.zeros((6, 8, 3), np.uint8))
        for k, folder in enumerate(objects):
            mask = np.zeros((6, 8, 3) if colour else (6, 8), np.uint8)
            mask[k : k + 2, t : t + 2] = 255
            save(root / "GroundTruth" / name / folder / f"f_{t}.png", mask)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_segtrack_has_one_folder_of_masks_or_one_for_each_object(tmp_path, suffix, colour):
    segtrack(tmp_path, "bird", [""], suffix, colour)
    segtrack(tmp_path, "cars", ["1", "2"], suffix, colour)
    bird, cars = find_clips(tmp_path, "segtrack")
    assert (bird.name, cars.name) == ("bird", "cars")
    expected = np.zeros((6, 8), np.int32)
    expected[0:2, 1:3] = 1
    np.testing.assert_array_equal(bird.truth(1), expected)
    expected[2, 1:3] = 2  # rows 1 and 2 are the second's, but row 1 is the first's already
    np.testing.assert_array_equal(cars.truth(1), expected)
    assert bird.check() == {0, 1} and cars.check() == {0, 1, 2}


def test_segtrack_without_all_masks_is_refused(tmp_path):
    segtrack(tmp_path, "cars", ["1", "2"])
    (tmp_path / "JPEGImages/bird").mkdir()
    refused("expected images (", tmp_path, "segtrack", names=["bird"])
    (tmp_path / "GroundTruth/cars/2/f_1.png").rename(tmp_path / "GroundTruth/cars/2/g_1.png")
    refused("2: expected a mask for every frame, 3, found none for f_1.png", tmp_path, "segtrack", names=["cars"])
    (tmp_path / "GroundTruth/cars/2/g_1.png").write_bytes(b"none")
    (tmp_path / "GroundTruth/cars/2/g_1.png").rename(tmp_path / "GroundTruth/cars/2/f_1.png")
    refused("expected an image, found 4 bytes that are none", tmp_path, "segtrack", names=["cars"])
