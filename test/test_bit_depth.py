# SPDX-License-Identifier: Apache-2.0
"""Images of 16 bits: one depth for a session, raised and said, never lowered."""

import doctest

import numpy as np
import pytest

from maskrnn_ros import bit_depth
from maskrnn_ros.bit_depth import BitDepth
from maskrnn_ros.config import Config, with_values


def ramp(highest, size=64):
    return np.linspace(0, highest, size * size).reshape(size, size).astype(np.uint16)


def test_examples():
    assert doctest.testmod(bit_depth).failed == 0


@pytest.mark.parametrize(
    ("highest", "bits"),
    [
        (0, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (4095, 12),
        (4096, 14),
        (16383, 14),
        (16384, 16),
        (65535, 16),
    ],
)
def test_auto_is_the_smallest_depth_that_holds_the_first_image(highest, bits):
    depth = BitDepth(warn=lambda line: None)
    found = depth.to_8(ramp(highest))
    assert depth.bits == bits
    exact = ramp(highest) * 255.0 / (2**bits - 1)
    assert found.dtype == np.uint8 and np.abs(found - exact).max() <= 0.5


def test_it_is_raised_and_said_and_never_lowered_until_a_new_session():
    lines = []
    depth = BitDepth(warn=lines.append)
    for highest, bits in ((300, 10), (1000, 10), (4000, 12), (10, 12), (16000, 14)):
        depth.to_8(ramp(highest))
        assert depth.bits == bits
    raised = [line for line in lines if "needs" in line]
    assert raised == [
        "a value of 4000 needs 12 bits: images were read as 10 (mono16_bits)",
        "a value of 16000 needs 14 bits: images were read as 12 (mono16_bits)",
    ]
    depth.reset()
    depth.to_8(ramp(10))
    assert depth.bits == 8


def test_a_range_that_is_hardly_used_is_told_once():
    lines = []
    depth = BitDepth(warn=lines.append)
    for _ in range(3):
        depth.to_8(7000 + ramp(600))  # a thermal camera
    assert len(lines) == 1 and "lie in 7006..7593, 3.6 % of 14 bits: little is seen" in lines[0]
    lines.clear()
    BitDepth("16", lines.append).to_8(ramp(1023))  # a 10-bit camera read as 16 bits
    assert len(lines) == 1 and "1.5 % of 16 bits" in lines[0]
    lines.clear()
    BitDepth(warn=lines.append).to_8(ramp(1023))
    assert not lines


def test_a_fixed_depth_stays_and_tells_what_it_clips():
    lines = []
    depth = BitDepth("12", lines.append)
    assert depth.to_8(np.array([[0, 2048, 4095]], np.uint16)).tolist() == [[0, 128, 255]]
    assert depth.to_8(np.array([[0, 5000, 65535]], np.uint16)).tolist() == [[0, 255, 255]]
    assert depth.bits == 12
    assert lines == ["values up to 65535 do not fit mono16_bits 12 and are clipped"]


def test_8_bits_are_passed_on():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    depth = BitDepth()
    assert depth.to_8(image) is image and depth.bits == 0


@pytest.mark.parametrize("setting", ["7", "17", "on", ""])
def test_another_depth_is_refused(setting):
    with pytest.raises(ValueError, match="mono16_bits must be one of auto, 8, 9"):
        BitDepth(setting)
    with pytest.raises(ValueError, match="mono16_bits must be one of auto, 8, 9"):
        with_values(Config(), mono16_bits=setting)
