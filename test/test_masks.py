# SPDX-License-Identifier: Apache-2.0
"""Crop masks: what is encoded is decoded, by us and by the recipes that InstanceMask.msg gives to others."""

from __future__ import annotations

import array
import doctest
import pathlib
import re
from types import SimpleNamespace

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrnn_ros import masks as masks_module
from maskrnn_ros.masks import (
    MaskEncoding,
    crop,
    decode,
    decode_probability,
    encode,
    find,
    full_mask,
    label_image,
    mask_of,
    outlines,
    paste,
)
from maskrnn_ros.types import Box

MESSAGE = (pathlib.Path(__file__).parents[1] / "msg" / "InstanceMask.msg").read_text()
WITH_MASK = [encoding for encoding in MaskEncoding if encoding != MaskEncoding.NONE]

shapes = st.tuples(st.integers(0, 9), st.integers(0, 17))
masks = hnp.arrays(np.bool_, shapes)
unit = st.floats(0, 1, width=32)


@st.composite
def masks_with_probability(draw):
    mask = draw(masks)
    return mask, draw(hnp.arrays(np.float32, mask.shape, elements=unit))


def recipe_of(encoding):
    """The numpy recipe for an encoding, as InstanceMask.msg quotes it."""
    block = re.search(rf"^uint8 ENCODING_{encoding.name}=.*(?:\n +#.*)*", MESSAGE, re.MULTILINE).group()
    return re.search(r": {2,}((?:r = .*; )?mask = .*)$", block, re.MULTILINE).group(1)


def examples():
    """Edges that a random search may miss, by name."""
    holed = np.ones((5, 7), bool)
    holed[2, 3] = False
    return {
        "0x0": np.zeros((0, 0), bool),
        "0x3": np.zeros((0, 3), bool),
        "3x0": np.zeros((3, 0), bool),
        "one pixel off": np.zeros((1, 1), bool),
        "one pixel on": np.ones((1, 1), bool),
        "all zeros": np.zeros((4, 6), bool),
        "all ones": np.ones((4, 6), bool),
        "begins with a one": np.array([[True, False, False], [False, True, True]]),
        "ends with a zero": np.array([[False, True, True], [True, True, False]]),
        "holed": holed,
        "not contiguous": np.tri(6, 8, dtype=bool).T[1::2, ::2],
        "run beyond 16 bits": np.ones((300, 300), bool),
    }


def test_the_values_are_those_of_the_message():
    constants = dict(re.findall(r"^uint8 ENCODING_(\w+)=(\d+)", MESSAGE, re.MULTILINE))
    assert {item.name: item.value for item in MaskEncoding} == {k: int(v) for k, v in constants.items()}


@pytest.mark.parametrize("encoding", WITH_MASK)
@hypothesis.given(pair=masks_with_probability())
def test_what_is_encoded_is_decoded_by_us_and_by_the_recipe(encoding, pair):
    mask, probability = pair
    data = encode(mask, probability, encoding)

    decoded = decode(data, *mask.shape, encoding)
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask)

    names = {"np": np, "h": mask.shape[0], "w": mask.shape[1], "d": np.frombuffer(data, np.uint8)}
    exec(recipe_of(encoding), names)
    assert names["mask"].dtype == np.bool_
    np.testing.assert_array_equal(names["mask"], mask)


@pytest.mark.parametrize("encoding", WITH_MASK)
@pytest.mark.parametrize("name", examples())
def test_edges_survive(encoding, name):
    mask = examples()[name]
    data = encode(mask, mask.astype(np.float32), encoding)
    np.testing.assert_array_equal(decode(data, *mask.shape, encoding), mask)


MASK = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]], bool)
FROZEN = {
    MaskEncoding.NONE: "",
    MaskEncoding.MONO8: "ffff00 0000ff ffffff",
    MaskEncoding.BITS: "c780",
    MaskEncoding.RLE: "00000000 02000000 03000000 04000000",
    MaskEncoding.PROB8: "ffff00 0000ff ffffff",
}


@pytest.mark.parametrize("encoding", MaskEncoding)
def test_bytes_are_frozen(encoding):
    assert encode(MASK, MASK.astype(np.float32), encoding) == bytes.fromhex(FROZEN[encoding])


@pytest.mark.parametrize("encoding", WITH_MASK)
@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, np.frombuffer, array.array])
def test_any_buffer_is_decoded(encoding, container):
    data = encode(MASK, MASK.astype(np.float32), encoding)
    how = {np.frombuffer: lambda d: np.frombuffer(d, np.uint8), array.array: lambda d: array.array("B", d)}
    np.testing.assert_array_equal(decode(how.get(container, container)(data), 3, 3, encoding), MASK)


def test_data_at_an_odd_address_is_decoded():
    data = b"x" + encode(MASK, None, MaskEncoding.RLE)
    np.testing.assert_array_equal(decode(memoryview(data)[1:], 3, 3, MaskEncoding.RLE), MASK)


@hypothesis.given(pair=masks_with_probability())
def test_prob8_keeps_the_probability_on_the_side_of_the_mask(pair):
    mask, probability = pair
    decoded = decode_probability(encode(mask, probability, MaskEncoding.PROB8), *mask.shape)

    assert decoded.dtype == np.float32
    assert (decoded[mask] * 255 >= 128 - 1e-3).all()
    assert (decoded[~mask] * 255 <= 127 + 1e-3).all()
    # where no clamp applies the rounding costs at most half a level
    agrees = mask == (probability >= 127.5 / 255)
    np.testing.assert_allclose(decoded[agrees], probability[agrees], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("inside", "probability", "level"),
    [
        (True, 1.0, 255),
        (True, 0.0, 128),
        (True, 127.6 / 255, 128),
        (True, 129.4 / 255, 129),
        (True, 129.6 / 255, 130),
        (False, 1.0, 127),
        (False, 127.4 / 255, 127),
        (False, 126.6 / 255, 127),
        (False, 0.0, 0),
    ],
)
def test_prob8_levels(inside, probability, level):
    data = encode(np.array([[inside]]), np.array([[probability]], np.float32), MaskEncoding.PROB8)
    assert data == bytes([level])
    assert decode_probability(data, 1, 1)[0, 0] == np.float32(level) / np.float32(255)


@hypothesis.given(mask=masks, x=st.integers(0, 3), y=st.integers(0, 3), right=st.integers(0, 3))
def test_pasted_crop_is_where_it_was_cut(mask, x, y, right):
    height, width = y + mask.shape[0] + 2, x + mask.shape[1] + right
    full = paste(mask, x, y, height, width)
    assert full.shape == (height, width)
    assert full.dtype == np.bool_
    np.testing.assert_array_equal(full[y : y + mask.shape[0], x : x + mask.shape[1]], mask)
    assert full.sum() == mask.sum()


@pytest.mark.parametrize(
    ("x", "y", "got"),
    [
        (-1, 0, "columns -1..1 and rows 0..3"),
        (0, -1, "columns 0..2 and rows -1..2"),
        (3, 0, "columns 3..5 and rows 0..3"),
        (0, 4, "columns 0..2 and rows 4..7"),
    ],
)
def test_crop_outside_the_image_is_refused(x, y, got):
    with pytest.raises(ValueError, match=rf"columns 0\.\.4 and rows 0\.\.6, got {re.escape(got)}$"):
        paste(np.ones((3, 2), bool), x, y, 6, 4)


def test_crop_that_fills_the_image_fits():
    assert paste(np.ones((6, 4), bool), 0, 0, 6, 4).all()


def runs(*lengths):
    return np.array(lengths, "<u4").tobytes()


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (bytes(5), MaskEncoding.MONO8, "MONO8 data must hold 2 x 3 = 6 bytes, got 5"),
        (bytes(7), MaskEncoding.MONO8, "MONO8 data must hold 2 x 3 = 6 bytes, got 7"),
        (b"", MaskEncoding.BITS, "BITS data must hold 1 bytes for 2 x 3 pixels, got 0"),
        (bytes(2), MaskEncoding.BITS, "BITS data must hold 1 bytes for 2 x 3 pixels, got 2"),
        (bytes(6), MaskEncoding.RLE, "RLE data must hold 4 bytes a run, got 6 bytes"),
        (b"", MaskEncoding.RLE, "RLE runs must sum to 2 x 3 = 6 pixels, got 0"),
        (runs(2, 3), MaskEncoding.RLE, "RLE runs must sum to 2 x 3 = 6 pixels, got 5"),
        (runs(2, 3, 2), MaskEncoding.RLE, "RLE runs must sum to 2 x 3 = 6 pixels, got 7"),
        # 6 modulo 2**32: a 32-bit sum would be fooled, and 4 GiB allocated
        (runs(2**32 - 1, 7), MaskEncoding.RLE, "RLE runs must sum to 2 x 3 = 6 pixels, got 4294967302"),
        (bytes(5), MaskEncoding.PROB8, "PROB8 data must hold 2 x 3 = 6 bytes, got 5"),
        (b"", MaskEncoding.NONE, "encoding NONE holds no mask to decode"),
        (bytes(6), 9, "encoding must be one of 0 (NONE), 1 (MONO8), 2 (BITS), 3 (RLE), 4 (PROB8), got 9"),
    ],
)
def test_wrong_data_is_refused_with_expected_and_actual(data, encoding, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decode(data, 2, 3, encoding)


def test_wrong_length_of_a_probability_is_refused():
    with pytest.raises(ValueError, match=r"^PROB8 data must hold 2 x 3 = 6 bytes, got 4$"):
        decode_probability(bytes(4), 2, 3)


@pytest.mark.parametrize(
    ("mask", "probability", "encoding", "message"),
    [
        (np.ones((2, 3), np.uint8), None, 1, "mask must be bool (h, w), got uint8 (2, 3)"),
        (np.ones(6, bool), None, 1, "mask must be bool (h, w), got bool (6,)"),
        (np.ones((2, 3), bool), None, 4, "PROB8 needs a probability of the mask's shape (2, 3), got none"),
        (
            np.ones((2, 3), bool),
            np.ones((3, 2), np.float32),
            4,
            "PROB8 needs a probability of the mask's shape (2, 3), got (3, 2)",
        ),
        (
            np.ones((2, 3), bool),
            None,
            -1,
            "encoding must be one of 0 (NONE), 1 (MONO8), 2 (BITS), 3 (RLE), 4 (PROB8), got -1",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(mask, probability, encoding, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        encode(mask, probability, encoding)


def message_of(labels: np.ndarray, encoding: int) -> SimpleNamespace:
    """An InstanceMaskArray without ROS: what is in the label map, and a last instance that is not seen."""
    instances = [instance_of(i, labels == i, encoding) for i in np.unique(labels[labels != 0]).tolist()]
    hidden = instance_of(99, np.zeros_like(labels, bool), encoding)
    return SimpleNamespace(image_height=labels.shape[0], image_width=labels.shape[1], instances=[*instances, hidden])


def instance_of(instance_id: int, mask: np.ndarray, encoding: int) -> SimpleNamespace:
    box = Box.of_mask(mask)
    x, y, width, height = (box.x0, box.y0, box.width, box.height) if box else (0, 0, 0, 0)
    inside = mask[y : y + height, x : x + width]
    return SimpleNamespace(
        id=instance_id,
        area=int(mask.sum()),
        box=SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height),
        encoding=int(encoding),
        data=encode(inside, inside.astype(np.float32), encoding),
    )


def scene() -> np.ndarray:
    labels = np.zeros((9, 13), np.int32)
    labels[1:6, 2:8] = 3
    labels[3, 4] = 0  # a hole
    labels[4:9, 6:13] = 7
    labels[0, 12] = 7  # in two parts, at the border
    return labels


@pytest.mark.parametrize("encoding", WITH_MASK)
def test_masks_of_a_message_are_those_of_the_label_map(encoding) -> None:
    labels = scene()
    message = message_of(labels, encoding)
    np.testing.assert_array_equal(label_image(message), labels)
    for i in (3, 7, 99):
        np.testing.assert_array_equal(full_mask(message, find(message, i)), labels == i)
    assert find(message, 4) is None


@pytest.mark.parametrize("image", [np.arange(117).reshape(9, 13), np.arange(351, dtype=np.uint8).reshape(9, 13, 3)])
def test_a_crop_is_a_copy_of_the_box_and_its_background_can_go(image) -> None:
    labels = scene()
    cup = find(message_of(labels, MaskEncoding.BITS), 3)
    cutout = crop(image, cup)
    np.testing.assert_array_equal(cutout, image[1:6, 2:8])
    assert not np.shares_memory(cutout, image)
    colour = 5 if image.ndim == 2 else (1, 2, 3)
    bare = crop(image, cup, background=colour)
    mask = labels[1:6, 2:8] == 3
    np.testing.assert_array_equal(bare[mask], image[1:6, 2:8][mask])
    assert (bare[~mask] == colour).all()


def test_what_is_not_seen_has_no_pixel_and_no_outline() -> None:
    message = message_of(scene(), MaskEncoding.RLE)
    hidden = find(message, 99)
    assert crop(np.zeros((9, 13, 3)), hidden, background=0).shape == (0, 0, 3)
    assert mask_of(hidden).shape == (0, 0)
    assert outlines(hidden) == []


def test_outlines_filled_are_the_mask_without_its_holes() -> None:
    labels = scene()
    message = message_of(labels, MaskEncoding.MONO8)
    for i, count in ((3, 1), (7, 2)):
        found = outlines(find(message, i))
        assert len(found) == count
        filled = cv2.drawContours(np.zeros(labels.shape, np.uint8), found, -1, 1, cv2.FILLED)
        expected = labels == i
        if i == 3:
            expected[3, 4] = True
        np.testing.assert_array_equal(filled, expected)
    assert outlines(find(message, 7))[1].tolist() == [[12, 0]]


def test_a_message_without_masks_still_has_boxes() -> None:
    cup = find(message_of(scene(), MaskEncoding.NONE), 3)
    assert crop(np.zeros((9, 13)), cup).shape == (5, 6)
    with pytest.raises(ValueError, match="holds no masks: expected mask_encoding mono8"):
        mask_of(cup)


@pytest.mark.parametrize("size", [(5, 13), (9, 7)])
def test_an_image_of_another_size_is_refused(size) -> None:
    cup = find(message_of(scene(), MaskEncoding.MONO8), 3)
    with pytest.raises(ValueError, match="box must lie inside the image of .* got its end at 8, 6"):
        crop(np.zeros(size), cup)


def test_the_examples_of_the_docstrings_run() -> None:
    found = doctest.testmod(masks_module)
    assert found.attempted >= 10 and not found.failed
