# SPDX-License-Identifier: Apache-2.0
"""Frames of folders: order, names, sizes, EXIF, 16 bits."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrnn_ros.datasets.frames import FolderFrames, frame_paths, orientation_of, read_frame
from maskrnn_ros.labels import read_labels


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.jpg", "9.JPG", "100.png", "notes.txt"):
        touch(tmp_path / name)
    assert [path.name for path in frame_paths(tmp_path)] == ["9.JPG", "10.jpg", "100.png"]


def test_padded_names_sort_as_text_does(tmp_path):
    names = [f"{i:05d}.jpg" for i in range(12)]
    for name in reversed(names):
        touch(tmp_path / name)
    assert [path.name for path in frame_paths(tmp_path)] == names


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        frame_paths(tmp_path)
    with pytest.raises(ValueError, match="no folder .*absent"):
        frame_paths(tmp_path / "absent")


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_frame_is_rgb(tmp_path, suffix):
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_frame(tmp_path / f"a{suffix}"), pixels)


def test_grey_frame_becomes_three_equal_channels(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_what_is_no_image_is_refused(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_frame, read_labels):
        with pytest.raises(ValueError, match=r"a\.png: expected an .*image"):
            read(tmp_path / "a.png")


def test_absent_file_is_an_os_error(tmp_path):
    for read in (read_frame, read_labels):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "a.png")


def test_frames_of_a_bag_and_of_a_folder_are_decoded_alike(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=80)
    data = np.frombuffer((tmp_path / "a.jpg").read_bytes(), np.uint8)
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # as image_messages does it
    np.testing.assert_array_equal(read_frame(tmp_path / "a.jpg"), stored[..., ::-1])


@pytest.mark.parametrize(
    "names",
    [
        ["0.45.png", "0.5.png", "1.png", "10.25.png"],
        ["1305031102.175304.png", "1305031102.211214.png", "1305031103.000001.png"],
        ["a.8.png", "a.9.png", "a.10.png"],
        ["v1.2.9.png", "v1.2.10.png"],
        ["f9_b.png", "f10_a.png"],
    ],
)
def test_numbers_in_names_sort_by_their_value(tmp_path, names):
    for name in sorted(names, key=hash):
        touch(tmp_path / name)
    assert [path.name for path in frame_paths(tmp_path)] == names


def test_hidden_files_are_no_frames(tmp_path):
    for name in ("00000.png", "._00000.png", ".hidden.png", "._00001.jpg"):
        touch(tmp_path / name)
    assert [path.name for path in frame_paths(tmp_path)] == ["00000.png"]


def test_two_images_of_one_name_are_refused(tmp_path):
    touch(tmp_path / "00000.jpg"), touch(tmp_path / "00000.png")
    with pytest.raises(ValueError, match=r"expected one image of a name, found 00000\.jpg and 00000\.png"):
        frame_paths(tmp_path)


def test_the_frame_of_another_size_is_named(tmp_path):
    for number in range(4):
        Image.new("RGB", (16, 8 if number < 2 else 12)).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match=r"2\.png: expected 16x8 like .*0\.png, found 16x12"):
        FolderFrames.of(tmp_path)
    source = FolderFrames(frame_paths(tmp_path))
    source.image(0)
    with pytest.raises(ValueError, match=r"2\.png: expected 16x8 like the frames before, found 16x12"):
        source.image(2)


def test_a_folder_with_a_file_that_is_no_image_is_refused_before_any_work(tmp_path):
    Image.new("RGB", (16, 8)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"1\.png: expected an image, found 4 bytes"):
        FolderFrames.of(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_and_masks_are_turned_by_their_exif_orientation(tmp_path, suffix, orientation):
    blocks = np.random.default_rng(0).integers(0, 2, (2, 3), dtype=np.uint8)
    blocks[0] = 0, 1, 1  # no symmetry
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(np.kron(255 * blocks, np.ones((16, 16), np.uint8)))
    grey.convert("RGB").save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a{suffix}"))) > 127
    frame = read_frame(tmp_path / f"a{suffix}")
    assert orientation_of((tmp_path / f"a{suffix}").read_bytes()) == orientation
    np.testing.assert_array_equal(frame > 127, upright)
    assert FolderFrames((tmp_path / f"a{suffix}",)).check() == frame.shape[:2] == upright.shape[:2]
    grey.save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png") > 0, upright[..., 0])


def test_frames_of_16_bits_have_the_depth_that_the_stream_has_by_then(tmp_path):
    values = [[0, 100], [0, 4095], [0, 255]]
    for number, pair in enumerate(values):
        Image.fromarray(np.array([pair], np.uint16)).save(tmp_path / f"{number}.png")
    expected = [100, 255, 16]  # 8 bits, then 12, which stay
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        source = FolderFrames(frame_paths(tmp_path))
        found = {number: int(source.image(number)[0, 1, 0]) for number in order}
        assert [found[number] for number in range(3)] == expected
    assert FolderFrames(frame_paths(tmp_path), mono16_bits="16").image(1)[0, 1].tolist() == [16, 16, 16]


def test_colour_of_16_bits_stays_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[3, 2000, 1023]]], np.uint16))  # BGR
    assert read_frame(tmp_path / "a.png", "10").tolist() == [[[255, 255, 1]]]
    assert read_frame(tmp_path / "a.png", "16").tolist() == [[[4, 8, 0]]]
