# SPDX-License-Identifier: Apache-2.0
"""What label images mean: how they are stored, what is none, and the rule for 255."""

import doctest
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrnn_ros import labels as module
from maskrnn_ros.labels import (
    LabelFiles,
    LabelRule,
    binary_as_instance,
    check_labels,
    davis_palette,
    read_labels,
    write_labels,
)


def test_examples():
    assert doctest.testmod(module).failed == 0


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


def test_damaged_label_image_is_refused(tmp_path):
    write_labels(tmp_path / "a.png", np.random.default_rng(0).integers(0, 200, (64, 64)))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"b\.png: expected an indexed or grey image"):
        read_labels(tmp_path / "b.png")


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 255, 256, 32767, 65535]),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_labels_read_back_as_written(tmp_path_factory, seed, high, height, width):
    ids = np.random.default_rng(seed).integers(0, high, (height, width), endpoint=True)
    labels = np.kron(ids, np.ones((4, 4))).astype(np.int32)
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


def save(path, array, **how):
    Image.fromarray(array).save(path, **how)
    return path


IDS = np.kron(np.array([[0, 1, 2], [3, 0, 1]]), np.ones((12, 12), np.int32)).astype(np.int32)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_holds_ids(tmp_path, bits):
    labels = IDS % min(4, 2**bits)
    if bits == 16:
        labels = 100 * labels
    if bits in (1, 2, 4):  # Pillow writes no grey of 2 and 4 bits
        (tmp_path / "a.png").write_bytes(grey_png(labels, bits))
    else:
        save(tmp_path / "a.png", labels.astype(np.uint8 if bits == 8 else np.uint16))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)


def grey_png(labels, bits):
    """A grey PNG of 1, 2 or 4 bits, as the specification has it."""
    height, width = labels.shape
    rows = b""
    for row in labels:
        padded = np.pad(row, (0, -width % (8 // bits))).reshape(-1, 8 // bits)
        shifts = np.arange(8 // bits)[::-1] * bits
        rows += b"\0" + (padded << shifts).sum(axis=1).astype(np.uint8).tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_the_palette_are_ids(tmp_path, mode):
    labels = np.kron(np.arange(256).reshape(16, 16), np.ones((3, 3), np.int32)).astype(np.int32)
    write_labels(tmp_path / "p.png", labels)
    with Image.open(tmp_path / "p.png") as image:
        image.convert(mode).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "rgb.png"), labels)


def test_grey_that_was_saved_as_colours_holds_values(tmp_path):
    save(tmp_path / "a.png", np.stack([IDS.astype(np.uint8)] * 3, axis=-1))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), IDS)


def test_other_colours_are_no_labels(tmp_path):
    pixels = davis_palette()[IDS]
    pixels[3, 4] = 10, 20, 30
    save(tmp_path / "a.png", pixels)
    text = r"a\.png: expected an indexed .*found RGB with 5 colours, of which \(10, 20, 30\) is none of the DAVIS"
    with pytest.raises(ValueError, match=text):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_no_labels(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"found {mode} with transparent pixels"):
        read_labels(tmp_path / "a.png")


def ellipse(value=255, size=(96, 128)):
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (size[1] // 2, size[0] // 2), (size[1] // 4, size[0] // 3), 20, 0, 360, value, -1)
    return mask


def jpeg(mask, quality):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer))


def noisy(mask):
    noise = np.random.default_rng(0).normal(0, 4, mask.shape)
    return np.clip(0.9 * cv2.GaussianBlur(mask, (0, 0), 3) + noise, 0, 255).astype(np.uint8)


def soft_edges(mask):
    return cv2.GaussianBlur(mask, (0, 0), 1)


SOFT = {
    "jpeg 95": lambda mask: jpeg(mask, 95),
    "jpeg 50": lambda mask: jpeg(mask, 50),
    "blurred": soft_edges,
    "much blurred": lambda mask: cv2.GaussianBlur(mask, (0, 0), 6),
    "smaller": lambda mask: cv2.resize(mask, None, fx=0.37, fy=0.37, interpolation=cv2.INTER_AREA),
    "larger": lambda mask: cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR),
    "one grey level": lambda mask: np.where(cv2.dilate(mask, np.ones((3, 3))) != mask, 128, mask).astype(np.uint8),
    "probabilities": noisy,
}


@pytest.mark.parametrize("kind", SOFT)
def test_soft_masks_are_told_from_label_images(tmp_path, kind):
    soft = SOFT[kind](ellipse())
    save(tmp_path / "a.png", soft)
    with pytest.raises(ValueError, match="many values along edges: not a label image") as caught:
        read_labels(tmp_path / "a.png")
    assert "\n" not in str(caught.value) and "--threshold 128" in str(caught.value)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", 128), soft >= 128)


def test_a_jpeg_holds_no_ids(tmp_path):
    save(tmp_path / "a.jpg", 3 * (IDS.astype(np.uint8)), quality=95)
    with pytest.raises(ValueError, match=r"a\.jpg: .*values in a JPEG, which changes values along edges: not a label"):
        read_labels(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg", np.full((16, 16), 255, np.uint8))
    assert (read_labels(tmp_path / "b.jpg") == 255).all()


@pytest.mark.parametrize("shapes", [world.TWO, world.TWO[:1]])
def test_label_images_are_label_images(shapes):
    for t in range(12):
        check_labels(world.labels(t, shapes))
    check_labels(IDS), check_labels(np.zeros((3, 3), np.int32)), check_labels(np.zeros((1, 0), np.int32))


def test_thin_and_tiny_objects_are_objects():
    labels = np.zeros((60, 80), np.int32)
    labels[10:50, 10:40] = 9
    labels[20:40, 40] = 4  # a rope along an object
    for i in range(30):
        labels[2 * i : 2 * i + 2, 60:62] = 20 + i  # side by side, no larger than 2 x 2
    check_labels(labels)


def test_what_a_data_set_vouches_for_is_read_as_it_stands(tmp_path):
    soft = SOFT["blurred"](ellipse())
    save(tmp_path / "a.png", soft)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", is_known=True), soft)


def test_a_void_ring_around_objects_is_no_soft_edge():
    mask = ellipse(1)
    ring = cv2.dilate(mask, np.ones((3, 3))) != cv2.erode(mask, np.ones((3, 3)))
    check_labels(np.where(ring, 255, mask).astype(np.int32))


@pytest.mark.parametrize(
    ("values", "ids", "text", "out"),
    [
        ({0, 255}, (1,), "255 is the object: no other value occurs", {0: 0, 255: 1}),
        ({0, 1, 255}, (1,), "255 is void, beside ids", {0: 0, 1: 1, 255: 0}),
        ({254, 255}, (254,), "255 is void, beside ids", {254: 254, 255: 0}),
        ({0, 7, 255, 300}, (7, 255, 300), "255 is an id, as values above it occur", {7: 7, 255: 255, 300: 300}),
        ({0, 3, 40}, (3, 40), "values are ids, 255 does not occur", {3: 3, 40: 40}),
        ({0}, (), "values are ids, 255 does not occur", {0: 0}),
    ],
)
def test_255_has_one_rule(values, ids, text, out):
    rule = LabelRule.of(values)
    assert rule.ids == ids and rule.text == text
    assert rule.apply(np.array([list(out)], np.int32)).tolist() == [list(out.values())]


def test_with_a_threshold_there_is_one_object():
    rule = LabelRule.of({0, 3, 127, 128, 255}, 128)
    assert rule.ids == (1,) and rule.text == "values of 128 or more are the object"
    assert rule.apply(np.array([[0, 127, 128, 255]], np.int32)).tolist() == [[0, 0, 1, 1]]
    assert LabelRule.of({0, 1}, 128).apply(np.array([[0, 1]], np.int32)).tolist() == [[0, 1]], "it is behind it already"
    assert LabelRule.of({0, 1, 9}, 128).ids == ()
    with pytest.raises(ValueError, match=r"must lie in 1\.\.65535, got 0"):
        LabelFiles([], 0)


def test_the_files_of_a_sequence_share_a_rule_and_tell_where_ids_begin(tmp_path):
    images = [[255, 255], [0, 255], [4, 255], [4, 2]]
    paths = []
    for number, values in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        write_labels(paths[-1], np.array([values]))
    files = LabelFiles([None, *paths])
    assert files.values == {0, 2, 4, 255} and files.rule.meaning == "void"
    assert dict(files.starts) == {2: 4, 4: 3}
    assert files.ids(0) is None
    assert [files.ids(number).tolist() for number in range(1, 5)] == [[[0, 0]], [[0, 0]], [[4, 0]], [[4, 2]]]
    only = LabelFiles(paths[:2])
    assert dict(only.starts) == {1: 0} and only.ids(1).tolist() == [[0, 1]]


def test_ids_out_of_range_are_named_with_their_file(tmp_path):
    write_labels(tmp_path / "a.png", np.array([[40000]]))
    with pytest.raises(ValueError, match=r"a\.png: ids must be <= 32767, got 40000"):
        _ = LabelFiles([tmp_path / "a.png"]).rule


def test_transparency_of_a_palette_does_not_matter(tmp_path):
    image = Image.fromarray(IDS.astype(np.uint8))
    image.putpalette(davis_palette().tobytes())
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), IDS)
