# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays and back; the messages are written byte by byte, not by the code under test."""

from __future__ import annotations

import array
import re
import struct
import types
import zlib

import cv2
import numpy as np
import pytest

from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.image_messages import (
    compressed_to_rgb,
    fill_image,
    image_to_rgb,
    label_image_data,
    labels_from_image,
    ns_to_stamp,
    stamp_to_ns,
)

HEIGHT, WIDTH = 5, 6
IMAGE = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3))
"""RGB values of a small image, none of them symmetric in rows, columns or channels."""

# the bytes of one pixel, from its red, green and blue
WRITERS = {
    "rgb8": lambda r, g, b: (r, g, b),
    "bgr8": lambda r, g, b: (b, g, r),
    "8UC3": lambda r, g, b: (b, g, r),
    "rgba8": lambda r, g, b: (r, g, b, 7),
    "bgra8": lambda r, g, b: (b, g, r, 7),
    "8UC4": lambda r, g, b: (b, g, r, 7),
    "mono8": lambda r, g, b: (g,),
    "8UC1": lambda r, g, b: (g,),
}
GREY = {"mono8", "8UC1"}
BAYER = {"bayer_rggb8": "RGGB", "bayer_bggr8": "BGGR", "bayer_gbrg8": "GBRG", "bayer_grbg8": "GRBG"}
YUV = {"yuv422": "UYVY", "yuv422_yuy2": "YUYV", "uyvy": "UYVY", "yuyv": "YUYV"}
WIDE = ["mono16", "16UC1", "rgb16", "bgr16", "16UC3", "rgba16", "bgra16", "16UC4"]
SAID = ", ".join([*WRITERS, *WIDE, "bayer_*8", "bayer_*16", *YUV])
CONTAINERS = {
    "bytes": bytes,
    "array": lambda data: array.array("B", data),
    "ndarray": lambda data: np.frombuffer(data, np.uint8),
    "ndarray at an odd address": lambda data: np.frombuffer(b"x" + data, np.uint8)[1:],
}


def message(rows, encoding, width, padding=0, is_bigendian=0, container=bytes):
    """Message of rows of bytes; the padding is filled with what would be seen if it was read."""
    rows = [bytes(row) + b"\xab" * padding for row in rows]
    return types.SimpleNamespace(
        height=len(rows),
        width=width,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=len(rows[0]),
        data=container(b"".join(rows)),
    )


def rows_of(encoding):
    writer = WRITERS[encoding]
    return [[byte for pixel in row for byte in writer(*pixel.tolist())] for row in IMAGE]


def check(image):
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("padding", [0, 1, 3, 4])
@pytest.mark.parametrize("encoding", WRITERS)
def test_colours_come_out_as_they_were_written(encoding, padding, container):
    image = image_to_rgb(message(rows_of(encoding), encoding, WIDTH, padding, 0, CONTAINERS[container]))
    check(image)
    np.testing.assert_array_equal(image, IMAGE[:, :, [1, 1, 1]] if encoding in GREY else IMAGE)


@pytest.mark.parametrize("encoding", WRITERS)
def test_byte_order_means_nothing_to_single_bytes(encoding):
    big = image_to_rgb(message(rows_of(encoding), encoding, WIDTH, is_bigendian=1))
    np.testing.assert_array_equal(big, image_to_rgb(message(rows_of(encoding), encoding, WIDTH)))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("padding", [0, 1, 2, 5])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_every_16_bit_value_becomes_its_257th(encoding, is_bigendian, padding, container):
    rows = [
        b"".join((256 * high + low).to_bytes(2, ("little", "big")[is_bigendian]) for low in range(256))
        for high in range(256)
    ]
    msg = message(rows, encoding, 256, padding, is_bigendian, CONTAINERS[container])
    image = image_to_rgb(msg)
    check(image)
    expected = np.array([round(value / 257) for value in range(65536)]).reshape(256, 256, 1)
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (256, 256, 3)))
    # the same bytes as labels are the values themselves
    np.testing.assert_array_equal(labels_from_image(msg), np.arange(65536).reshape(256, 256))


def test_16_bits_are_not_stretched_to_the_range_of_the_image():
    image = image_to_rgb(message([struct.pack("<2H", 0, 2570)], "16UC1", 2), BitDepth("16"))
    assert image[0, :, 0].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("mono16", (4095,)),
        ("rgb16", (4095, 2048, 1)),
        ("bgr16", (1, 2048, 4095)),
        ("16UC3", (1, 2048, 4095)),
        ("rgba16", (4095, 2048, 1, 9)),
        ("bgra16", (1, 2048, 4095, 9)),
        ("16UC4", (1, 2048, 4095, 9)),
    ],
)
@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_16_bits_have_the_depth_of_the_stream(encoding, pixel, is_bigendian):
    order = "><"[not is_bigendian]
    msg = message([struct.pack(f"{order}{2 * len(pixel)}H", *pixel, *[0] * len(pixel))], encoding, 2, 0, is_bigendian)
    depth = BitDepth()
    expected = [255, 128, 0] if len(pixel) > 1 else [255] * 3
    assert image_to_rgb(msg, depth).tolist() == [[expected, [0, 0, 0]]] and depth.bits == 12


@pytest.mark.parametrize("encoding", BAYER)
def test_mosaics_of_16_bits_are_taken(encoding):
    wide = encoding.removesuffix("8") + "16"
    eight = np.random.default_rng(0).integers(0, 256, (8, 10), dtype=np.uint8)
    rows = [row.astype("<u2").tobytes() for row in eight.astype(np.uint16) * 257]
    np.testing.assert_array_equal(
        image_to_rgb(message(rows, wide, 10), BitDepth("16")), image_to_rgb(message(eight.tolist(), encoding, 10))
    )


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 9), (3, 3)])
@pytest.mark.parametrize("encoding", BAYER)
def test_mosaic_of_a_flat_colour_gives_the_colour(encoding, height, width, padding):
    colour = {"R": 200, "G": 120, "B": 30}
    pattern = BAYER[encoding]
    rows = [[colour[pattern[2 * (v % 2) + u % 2]] for u in range(width)] for v in range(height)]
    image = image_to_rgb(message(rows, encoding, width, padding))
    check(image)
    assert image.shape == (height, width, 3)
    assert (image[1:-1, 1:-1] == [200, 120, 30]).all()


def bt601(y, u, v):
    """RGB of studio range YUV, as ITU-R BT.601 writes it."""
    luma, u, v = 255 / 219 * (y - 16), u - 128, v - 128
    rgb = luma + 1.596 * v, luma - 0.392 * u - 0.813 * v, luma + 2.017 * u
    return [min(max(value, 0), 255) for value in rgb]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", YUV)
def test_pairs_of_yuv422_share_their_colour(encoding, padding):
    pairs = [(50, 180, 90, 170), (16, 235, 128, 128), (120, 130, 200, 60), (99, 16, 40, 240)]
    rows, expected = [], []
    for shift in range(3):
        row = pairs[shift:] + pairs[:shift]
        values = [{"Y": iter((y0, y1)), "U": iter((u,)), "V": iter((v,))} for y0, y1, u, v in row]
        rows.append([next(pair[letter]) for pair in values for letter in YUV[encoding]])
        expected.append([bt601(y, u, v) for y0, y1, u, v in row for y in (y0, y1)])
    image = image_to_rgb(message(rows, encoding, 8, padding))
    check(image)
    np.testing.assert_allclose(image, expected, atol=2)


def test_rgb8_without_padding_is_a_view():
    msg = message(rows_of("rgb8"), "rgb8", WIDTH, container=CONTAINERS["array"])
    assert np.shares_memory(image_to_rgb(msg), np.frombuffer(msg.data, np.uint8))


def test_data_beyond_the_last_row_is_ignored():
    msg = message(rows_of("rgb8"), "rgb8", WIDTH)
    msg.data += b"tail"
    np.testing.assert_array_equal(image_to_rgb(msg), IMAGE)


LABELS = [[0, 1, 2], [200, 255, 3]]
WIDE_LABELS = [[0, 1, 2], [256, 32767, 65535]]
LABEL_CASES = {
    "mono8": ("B", LABELS),
    "8UC1": ("B", LABELS),
    "mono16": ("H", WIDE_LABELS),
    "16UC1": ("H", WIDE_LABELS),
    "32SC1": ("i", [[0, -1, 2], [65536, 2**31 - 1, -(2**31)]]),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", LABEL_CASES)
def test_labels_come_out_as_they_were_written(encoding, is_bigendian, padding, container):
    letter, values = LABEL_CASES[encoding]
    rows = [struct.pack("<>"[is_bigendian] + 3 * letter, *row) for row in values]
    labels = labels_from_image(message(rows, encoding, 3, padding, is_bigendian, CONTAINERS[container]))
    assert labels.dtype == np.int32
    assert labels.flags.c_contiguous
    assert labels.tolist() == values


def test_labels_are_a_copy_that_may_be_written_to():
    sent = struct.pack("<2i", 1, 2)
    msg = message([sent], "32SC1", 2, container=CONTAINERS["array"])
    labels_from_image(msg)[:] = 9
    assert bytes(msg.data) == sent


def broken(**changes):
    """A right message of 3 x 4 pixels rgb8 with some fields changed."""
    fields = {"height": 3, "width": 4, "encoding": "rgb8", "is_bigendian": 0, "step": 12, "data": bytes(36)}
    return types.SimpleNamespace(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoding": "32FC1"}, f"encoding must be one of {SAID}, got '32FC1'"),
        ({"encoding": ""}, f"encoding must be one of {SAID}, got ''"),
        ({"height": 0}, "image must have at least 1 x 1 pixel, got height 0, width 4"),
        ({"width": 0}, "image must have at least 1 x 1 pixel, got height 3, width 0"),
        ({"step": 11}, "step of 4 pixels rgb8 must be >= 12, got 11"),
        ({"step": 0}, "step of 4 pixels rgb8 must be >= 12, got 0"),
        ({"encoding": "mono16", "step": 7}, "step of 4 pixels mono16 must be >= 8, got 7"),
        ({"encoding": "bgra8", "step": 15}, "step of 4 pixels bgra8 must be >= 16, got 15"),
        ({"data": bytes(35)}, "data must hold step x height = 12 x 3 = 36 bytes, got 35"),
        ({"data": b""}, "data must hold step x height = 12 x 3 = 36 bytes, got 0"),
        ({"encoding": "yuv422", "width": 3}, "yuv422 needs an even width, got 3"),
        ({"encoding": "yuv422_yuy2", "width": 5}, "yuv422_yuy2 needs an even width, got 5"),
        ({"encoding": "bayer_rggb8", "width": 2}, "bayer_rggb8 needs at least 3 x 3 pixels, got 3 x 2"),
        ({"encoding": "bayer_rggb8", "height": 2}, "bayer_rggb8 needs at least 3 x 3 pixels, got 2 x 4"),
    ],
)
def test_bad_images_are_refused_in_one_line(changes, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        image_to_rgb(broken(**changes))


def test_the_right_message_is_taken():
    assert image_to_rgb(broken()).shape == (3, 4, 3)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "32FC1", "16SC1"])
def test_labels_in_another_encoding_are_refused_by_name(encoding):
    text = f"encoding must be one of mono8, 8UC1, mono16, 16UC1, 32SC1, got '{encoding}'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        labels_from_image(broken(encoding=encoding))


@pytest.mark.parametrize("changes", [{"step": 3}, {"data": bytes(20)}, {"height": 0}, {"width": 0}])
def test_bad_label_images_are_refused(changes):
    with pytest.raises(ValueError, match="got"):
        labels_from_image(broken(encoding="mono8", **changes))


PNG_KINDS = {"grey": 0, "rgb": 2, "rgba": 6}


def png(pixels, kind):
    """A PNG file, written without OpenCV: pixels (H, W, channels), uint8 or uint16."""
    pixels = np.asarray(pixels)
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, PNG_KINDS[kind], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def compressed(data, text="png", container=bytes):
    return types.SimpleNamespace(format=text, data=container(data))


RGB = IMAGE.astype(np.uint8)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "text",
    ["png", "", "bgr8; png compressed bgr8", "rgb8; png compressed bgr8", "rgba8; png compressed bgr8",
     "8UC3; png compressed ", "rgb8"],
)  # fmt: skip
def test_png_is_decoded(text, container):
    image = compressed_to_rgb(compressed(png(RGB, "rgb"), text, CONTAINERS[container]))
    check(image)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize("text", ["rgb8; png compressed rgb8", "bgr8; png compressed rgb8", "rgba8; png compressed"])
@pytest.mark.parametrize("kind", ["rgb", "rgba"])
def test_file_stored_with_red_and_blue_exchanged_is_put_right(kind, text):
    exchanged = np.dstack([RGB[:, :, ::-1], *([RGB[:, :, 0]] if kind == "rgba" else [])])
    image = compressed_to_rgb(compressed(png(exchanged, kind), text))
    check(image)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize("text", ["png", "mono8; png compressed ", "mono8; jpeg compressed mono8"])
def test_png_of_one_channel_is_grey(text):
    image = compressed_to_rgb(compressed(png(RGB[:, :, :1], "grey"), text))
    check(image)
    np.testing.assert_array_equal(image, RGB[:, :, [0, 0, 0]])


def test_alpha_is_dropped():
    image = compressed_to_rgb(compressed(png(np.dstack([RGB, RGB[:, :, 0]]), "rgba")))
    check(image)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(("kind", "channels"), [("grey", [0, 0, 0]), ("rgb", [0, 1, 2])])
def test_png_of_16_bits_becomes_its_257th(kind, channels):
    wide = np.random.default_rng(4).integers(0, 65536, (6, 7, 3)).astype(np.uint16)
    stored = wide[:, :, :1] if kind == "grey" else wide
    image = compressed_to_rgb(compressed(png(stored, kind), "mono16; png compressed "))
    check(image)
    np.testing.assert_array_equal(image, np.rint(wide[:, :, channels] / 257))


@pytest.mark.parametrize(
    ("text", "is_mosaic"),
    [
        ("bayer_grbg8; png compressed ", True),
        ("bayer_grbg8; jpeg compressed mono8", False),
        ("bayer_grbg8", False),
    ],
)
def test_mosaic_stored_as_grey_is_interpolated(text, is_mosaic):
    mosaic = np.array([[[{"R": 200, "G": 120, "B": 30}["GRBG"[2 * (v % 2) + u % 2]]] for u in range(8)]
                       for v in range(6)], np.uint8)  # fmt: skip
    image = compressed_to_rgb(compressed(png(mosaic, "grey"), text))
    expected = np.broadcast_to([200, 120, 30], (6, 8, 3)) if is_mosaic else mosaic[:, :, [0, 0, 0]]
    np.testing.assert_array_equal(image[1:-1, 1:-1], expected[1:-1, 1:-1])


def jpeg(pixels_bgr):
    return cv2.imencode(".jpg", pixels_bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


@pytest.mark.parametrize("text", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8"])
def test_jpeg_is_decoded(text):
    colour_bgr = np.full((16, 24, 3), (30, 120, 200), np.uint8)
    image = compressed_to_rgb(compressed(jpeg(colour_bgr), text))
    check(image)
    assert image.shape == (16, 24, 3)
    np.testing.assert_allclose(image, np.broadcast_to([200, 120, 30], image.shape), atol=2)


def test_grey_jpeg_is_decoded():
    image = compressed_to_rgb(compressed(jpeg(np.full((16, 24), 77, np.uint8)), "jpeg"))
    check(image)
    np.testing.assert_allclose(image, 77, atol=1)


def test_exif_rotation_is_not_applied():
    # one IFD entry: Orientation (0x0112), SHORT, 1 value, 6 = to be turned by 90 degrees
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    plain = jpeg(np.zeros((16, 24, 3), np.uint8))
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (24, 16, 3)
    assert compressed_to_rgb(compressed(turned, "jpeg")).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cannot decode CompressedImage of format 'png' with 0 bytes"),
        (b"no image at all", "cannot decode CompressedImage of format 'png' with 15 bytes"),
        (png(RGB, "rgb")[:20], "cannot decode CompressedImage of format 'png' with 20 bytes"),
    ],
)
def test_what_cannot_be_decoded_is_refused(data, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        compressed_to_rgb(compressed(data))


def test_size_that_opencv_refuses_is_a_value_error():
    huge = struct.pack(">IIBBBBB", 2**20 - 1, 2**20 - 1, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + huge + struct.pack(">I", zlib.crc32(b"IHDR" + huge))
    with pytest.raises(ValueError, match="CompressedImage must have at most"):
        compressed_to_rgb(compressed(b"\x89PNG\r\n\x1a\n" + chunk + png(RGB, "rgb")[33:]))


def test_float_file_is_refused():
    tiff = cv2.imencode(".tiff", np.ones((2, 3), np.float32))[1].tobytes()
    with pytest.raises(ValueError, match=r"8 or 16 bits, got float32 \(2, 3\)$"):
        compressed_to_rgb(compressed(tiff, "tiff"))


def empty_message():
    return types.SimpleNamespace(height=0, width=0, encoding="", is_bigendian=1, step=0, data=None)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("encoding", "letter", "channels"),
    [("rgb8", "B", 3), ("bgra8", "B", 4), ("mono8", "B", 1), ("mono16", "H", 1), ("16UC1", "H", 1),
     ("32SC1", "i", 1), ("yuv422", "B", 2)],
)  # fmt: skip
def test_filled_image_holds_the_bytes_in_order(encoding, letter, channels, transposed):
    shape = (2, 3, channels) if channels > 1 else (2, 3)
    pixels = (np.arange(np.prod(shape)).reshape(shape) * 11 + 1).astype(letter)
    if transposed:
        pixels = np.asfortranarray(pixels)
    msg = empty_message()
    fill_image(msg, pixels, encoding)
    assert (msg.height, msg.width, msg.encoding, msg.is_bigendian) == (2, 3, encoding, 0)
    assert msg.step == 3 * channels * struct.calcsize(letter)
    assert isinstance(msg.data, array.array)
    assert msg.data.typecode == "B"
    values = [11 * i + 1 for i in range(6 * channels)]
    assert bytes(msg.data) == struct.pack(f"<{len(values)}{letter}", *values)


@pytest.mark.parametrize(
    ("pixels", "encoding", "text"),
    [
        (np.zeros((2, 3), np.uint8), "mono16", "mono16 needs an array of uint16 (H, W), got uint8 (2, 3)"),
        (np.zeros((2, 3), np.int32), "mono8", "mono8 needs an array of uint8 (H, W), got int32 (2, 3)"),
        (np.zeros((2, 3), ">u2"), "mono16", "mono16 needs an array of uint16 (H, W), got >u2 (2, 3)"),
        (np.zeros((2, 3), np.uint8), "rgb8", "rgb8 needs an array of uint8 (H, W, 3), got uint8 (2, 3)"),
        (np.zeros((2, 3, 1), np.uint8), "mono8", "mono8 needs an array of uint8 (H, W), got uint8 (2, 3, 1)"),
        (
            np.zeros((2, 3, 4), np.uint8),
            "rgb8",
            "rgb8 needs an array of uint8 (H, W, 3), got uint8 (2, 3, 4)",
        ),
        (np.zeros(3, np.uint8), "mono8", "mono8 needs an array of uint8 (H, W), got uint8 (3,)"),
        (np.zeros((0, 3), np.uint8), "mono8", "mono8 needs an array of uint8 (H, W), got uint8 (0, 3)"),
        (
            np.zeros((2, 3), np.uint8),
            "8UC7",
            f"encoding must be one of {SAID}, 32SC1, got '8UC7'",
        ),
    ],
)
def test_array_that_does_not_fit_the_encoding_is_refused(pixels, encoding, text):
    msg = empty_message()
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        fill_image(msg, pixels, encoding)
    assert msg == empty_message()


@pytest.mark.parametrize(("encoding", "highest"), [("mono8", 255), ("mono16", 65535)])
def test_label_image_comes_back(encoding, highest):
    labels = np.array([[0, 1, 2], [3, 200, highest]], np.int32)
    msg = empty_message()
    fill_image(msg, label_image_data(labels, encoding), encoding)
    np.testing.assert_array_equal(labels_from_image(msg), labels)


@pytest.mark.parametrize(
    ("label", "encoding", "text"),
    [
        (256, "mono8", "mono8 holds ids 0..255, got 0..256"),
        (65536, "mono16", "mono16 holds ids 0..65535, got 0..65536"),
        (-1, "mono16", "mono16 holds ids 0..65535, got -1..1"),
        (1, "32SC1", "label image encoding must be one of mono8, mono16, got '32SC1'"),
    ],
)
def test_label_that_does_not_fit_is_refused(label, encoding, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        label_image_data(np.array([[0, 1, label]], np.int32), encoding)


@pytest.mark.parametrize(
    ("stamp_ns", "sec", "nanosec"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (999_999_999, 0, 999_999_999),
        (1_000_000_000, 1, 0),
        # a float would lose the last digits
        (1_763_814_315_123_456_789, 1_763_814_315, 123_456_789),
        (2_147_483_647_999_999_999, 2_147_483_647, 999_999_999),
    ],
)
def test_time_goes_both_ways_to_the_nanosecond(stamp_ns, sec, nanosec):
    stamp = types.SimpleNamespace(sec=sec, nanosec=nanosec)
    assert stamp_to_ns(stamp) == stamp_ns
    filled = types.SimpleNamespace(sec=-1, nanosec=-1)
    ns_to_stamp(stamp_ns, filled)
    assert filled == stamp


@pytest.mark.parametrize(
    ("sec", "nanosec", "text"),
    [
        (-1, 0, "stamp.sec must be >= 0, got -1"),
        (0, 1_000_000_000, "stamp.nanosec must lie in 0..999999999, got 1000000000"),
        (0, -1, "stamp.nanosec must lie in 0..999999999, got -1"),
    ],
)
def test_bad_stamp_is_refused(sec, nanosec, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        stamp_to_ns(types.SimpleNamespace(sec=sec, nanosec=nanosec))


@pytest.mark.parametrize("stamp_ns", [-1, 2**31 * 10**9])
def test_time_beyond_the_message_is_refused(stamp_ns):
    with pytest.raises(ValueError, match=rf"^stamp must lie in 0\.\.2147483647999999999 ns, got {stamp_ns}$"):
        ns_to_stamp(stamp_ns, types.SimpleNamespace())


@pytest.fixture(params=["rclpy", "rosbags"])
def real_image(request):
    """A real image message of rgb8 with padded rows, of both libraries."""
    plain = message(rows_of("rgb8"), "rgb8", WIDTH, padding=2)
    fields = vars(plain)
    if request.param == "rclpy":
        messages = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
        return messages.Image(**(fields | {"data": array.array("B", plain.data)}))
    rosbags = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
    typestore = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
    stamp = typestore.types["builtin_interfaces/msg/Time"](sec=0, nanosec=1)
    header = typestore.types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
    kind = typestore.types["sensor_msgs/msg/Image"]
    sent = kind(header=header, **(fields | {"data": np.frombuffer(plain.data, np.uint8)}))
    return typestore.deserialize_cdr(typestore.serialize_cdr(sent, kind.__msgtype__), kind.__msgtype__)


def test_messages_of_both_libraries_are_read(real_image):
    np.testing.assert_array_equal(image_to_rgb(real_image), IMAGE)


def test_real_messages_are_filled():
    messages = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    msg = messages.Image()
    fill_image(msg, RGB, "rgb8")
    ns_to_stamp(1_500_000_000, msg.header.stamp)
    np.testing.assert_array_equal(image_to_rgb(msg), RGB)
    assert stamp_to_ns(msg.header.stamp) == 1_500_000_000
    assert isinstance(msg.data, array.array)


def test_real_compressed_message_is_read():
    messages = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    msg = messages.CompressedImage(format="png", data=array.array("B", png(RGB, "rgb")))
    np.testing.assert_array_equal(compressed_to_rgb(msg), RGB)
