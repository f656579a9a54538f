# SPDX-License-Identifier: Apache-2.0
"""Frames, label images, DAVIS trees and videos on disk."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrnn_ros.files import (
    VideoWriter,
    binary_as_instance,
    davis_palette,
    davis_sequence,
    frame_paths,
    iterate_video,
    read_frame,
    read_labels,
    write_labels,
)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def voc_color(index):
    """The published loop of PASCAL VOC, as an oracle."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red, green, blue = (
            red | (index & 1) << shift,
            green | (index >> 1 & 1) << shift,
            blue | (index >> 2 & 1) << shift,
        )
        index >>= 3
    return [red, green, blue]


def test_palette_is_that_of_pascal_voc():
    assert davis_palette().tolist() == [voc_color(i) for i in range(256)]
    assert davis_palette().dtype == np.uint8


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


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_frame(tmp_path / "a.jpg").shape == (8, 16, 3)


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


def test_damaged_label_image_is_refused(tmp_path):
    write_labels(tmp_path / "a.png", np.random.default_rng(0).integers(0, 200, (64, 64)))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"b\.png: expected an indexed or grey image"):
        read_labels(tmp_path / "b.png")


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 255, 256, 32767, 65535]),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_labels_read_back_as_written(tmp_path_factory, seed, high, height, width):
    labels = np.random.default_rng(seed).integers(0, high, (height, width), endpoint=True).astype(np.int32)
    path = tmp_path_factory.mktemp("labels") / "a.png"
    write_labels(path, labels)
    back = read_labels(path)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, labels)


def test_ids_to_255_are_written_with_the_palette_and_above_as_16_bits(tmp_path):
    write_labels(tmp_path / "a.png", np.array([[0, 2, 255]]))
    write_labels(tmp_path / "b.png", np.array([[0, 2, 256]]))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 0)) == tuple(voc_color(2))
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "I;16"


def test_palette_index_counts_not_its_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 3, 7]], np.uint8))
    image.putpalette([9, 9, 9] * 256)  # all of one colour
    image.save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 3, 7]]


def test_label_image_of_few_bits_is_read(tmp_path):
    image = Image.fromarray(np.array([[0, 3, 1]], np.uint8))
    image.putpalette([0, 0, 0] * 4)
    image.save(tmp_path / "a.png", bits=2)
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 3, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_labels(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"expected an indexed or grey image of ids, found {mode}"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("a.jpg", np.zeros((2, 2), np.int32), r"written as \.png"),
        ("a.png", np.zeros((2, 2), np.float32), "must be integers"),
        ("a.png", np.zeros((2, 2, 3), np.int32), r"\(2, 2, 3\)"),
        ("a.png", np.zeros((0, 2), np.int32), r"\(0, 2\)"),
        ("a.png", np.full((2, 2), -1), "got -1..-1"),
        ("a.png", np.full((2, 2), 65536), "got 65536..65536"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, labels, message):
    with pytest.raises(ValueError, match=message):
        write_labels(tmp_path / name, labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], [0, 1]),
        ([255, 255], [1, 1]),
        ([0, 0], [0, 0]),
        ([1, 255], [1, 255]),
        ([0, 1], [0, 1]),
        ([0, 254], [0, 254]),
    ],
)
def test_only_a_map_of_0_and_255_is_binary(values, expected):
    labels = np.array([values], np.int32)
    result = binary_as_instance(labels)
    assert result.tolist() == [expected] and result.dtype == np.int32
    assert labels.tolist() == [values], "the argument is left alone"


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


def ramp(index, height=32, width=48):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 40 + 20 * index  # red tells the frames, and RGB from BGR
    image[..., 2] = np.linspace(0, 255, width, dtype=np.uint8)
    return image


@pytest.mark.parametrize("codec", ["mp4v", "vp09"])
def test_video_reads_back_in_order_and_in_rgb(tmp_path, codec):
    path = tmp_path / "a.mp4"
    try:
        with VideoWriter(path, 12.5, codec) as writer:
            for index in range(5):
                writer.write(ramp(index))
    except OSError as error:
        pytest.skip(str(error))  # an OpenCV without this codec
    frames, fps = iterate_video(path)
    assert fps == pytest.approx(12.5)
    frames = list(frames)
    assert len(frames) == 5
    for index, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - ramp(index)).mean() < 6, "lossy, but not another frame or channel"


def test_odd_last_row_and_column_are_left_out(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(ramp(0, 33, 49))
    frames, _ = iterate_video(tmp_path / "a.mp4")
    assert next(frames).shape == (32, 48, 3)


def test_video_refuses_what_it_cannot_take(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(ramp(0))
        with pytest.raises(ValueError, match=r"are \(32, 48\), got \(16, 48\)"):
            writer.write(ramp(0, 16, 48))
        with pytest.raises(ValueError, match="float64"):
            writer.write(ramp(0).astype(float))
    with pytest.raises(ValueError, match="fps must be > 0"):
        VideoWriter(tmp_path / "a.mp4", 0.0)
    with pytest.raises(ValueError, match="four characters"):
        VideoWriter(tmp_path / "a.mp4", 24, "h264x")


def test_file_that_cannot_be_opened_is_an_error(tmp_path):
    with (
        VideoWriter(tmp_path / "absent" / "a.mp4", 24) as writer,
        pytest.raises(OSError, match="cannot write .*absent"),
    ):
        writer.write(ramp(0))


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a\.mp4: expected a video"):
        iterate_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="no file"):
        iterate_video(tmp_path / "b.mp4")


def test_frames_of_a_bag_and_of_a_folder_are_decoded_alike(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=80)
    data = np.frombuffer((tmp_path / "a.jpg").read_bytes(), np.uint8)
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # as ros.images does it
    np.testing.assert_array_equal(read_frame(tmp_path / "a.jpg"), stored[..., ::-1])
