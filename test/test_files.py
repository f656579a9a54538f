# SPDX-License-Identifier: Apache-2.0
"""DAVIS trees on disk."""

import pytest

from maskrnn_ros.datasets.davis import davis_sequence


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("between", ["", "480p", "1080p", "Full-Resolution"])
@pytest.mark.parametrize("annotations", ["Annotations", "Annotations_instances"])
def test_sequence_is_found_in_every_layout(tmp_path, between, annotations):
    frames = tuple(touch(tmp_path / "JPEGImages" / between / "dog" / f"{i:05d}.jpg") for i in range(3))
    label = touch(tmp_path / annotations / between / "dog" / "00001.png")
    found = davis_sequence(tmp_path, "dog", annotations)
    assert found.name == "dog" and found.frames == frames and found.annotations == {"00001": label}


def test_absent_sequence_is_named_with_those_there_are(tmp_path):
    touch(tmp_path / "JPEGImages/480p/dog/00000.jpg")
    touch(tmp_path / "JPEGImages/480p/cow/00000.jpg")
    with pytest.raises(ValueError, match=r"'cat' at .*JPEGImages/480p/cat.* found in .*480p: cow, dog$"):
        davis_sequence(tmp_path, "cat")
    with pytest.raises(ValueError, match=r"found no folder .*Annotations$"):
        davis_sequence(tmp_path, "dog")


def test_annotation_without_a_frame_is_refused(tmp_path):
    touch(tmp_path / "JPEGImages/dog/00000.jpg")
    touch(tmp_path / "Annotations/dog/00001.png")
    with pytest.raises(ValueError, match=r"00001\.png: expected a frame of that name"):
        davis_sequence(tmp_path, "dog")
